"""What ps and /proc show."""

from __future__ import annotations

from errno import EINTR, ESRCH
from typing import Any

import pytest
from greenroom.messages import task_set, thread_group
from greenroom.messages.task_set import ProcessRow, UtsName


def read(stage: Any, pid: int, target: int, name: str) -> Any:
    return stage.call(pid, task_set.ReadProc, pid=target, name=name)


def test_the_list_shows_every_process_by_pid(stage: Any) -> None:
    pid = stage.create(filename="/usr/bin/interesting-long-name")
    child = stage.fork(pid)
    zombie = stage.fork(pid)
    stage.executed(child, "sleep")
    stage.stop(child)
    stage.exit(zombie)
    stage.park(pid, number=child, id_type=1)
    stage.thread(child)
    assert stage.ask(task_set.ListProcesses()).rows == (
        ProcessRow(pid=1, ppid=0, pgid=1, sid=1, state="S", threads=1, command="init"),
        ProcessRow(pid=pid, ppid=1, pgid=pid, sid=pid, state="S", threads=1, command="interesting-lon"),
        ProcessRow(pid=child, ppid=pid, pgid=pid, sid=pid, state="T", threads=2, command="sleep"),
        ProcessRow(pid=zombie, ppid=pid, pgid=pid, sid=pid, state="Z", threads=1, command="interesting-lon"),
    )


def test_a_read_of_the_living_is_passed_on(stage: Any) -> None:
    pid, target = stage.create(), stage.create()
    number = stage.petition(pid, task_set.ReadProc, pid=target, name="maps")
    (asked,) = stage.hear(target, thread_group.ProcRequest)
    reader = stage.tree.by_tid[pid].group
    assert (asked.reader, asked.tid, asked.petition, asked.name) == (reader, pid, number, "maps")


def test_a_read_of_a_zombie_is_answered_here(stage: Any) -> None:
    pid = stage.create()
    child = stage.fork(pid)
    stage.exit(child, 3 << 8, user_ns=30_000_000, system_ns=20_000_000, start_ns=5_000_000_000)
    fields = read(stage, pid, child, "stat").text.decode().split()
    assert fields[:6] == [str(child), "(prog)", "Z", str(pid), str(pid), str(pid)]
    assert fields[13:15] == ["3", "2"]
    assert fields[21] == "500"
    assert (len(fields), fields[51]) == (52, str(3 << 8))
    assert b"State:\tZ (zombie)\n" in read(stage, pid, child, "status").text
    assert read(stage, pid, child, "cmdline").text == b""
    assert read(stage, pid, child, f"task/{child}/comm").text == b"prog\n"


def test_a_read_of_init_is_answered_here(stage: Any) -> None:
    pid = stage.create()
    assert read(stage, pid, 1, "comm").text == b"init\n"
    assert b"PPid:\t0\n" in read(stage, pid, 1, "status").text


@pytest.mark.parametrize(("target", "name"), [(999, "stat"), (1, "nonsense")])
def test_a_read_of_what_is_not_there_is_ESRCH(stage: Any, target: int, name: str) -> None:
    assert read(stage, stage.create(), target, name).errno == ESRCH


def test_a_read_over_which_the_target_dies_is_answered_in_its_place(stage: Any) -> None:
    pid = stage.create()
    child = stage.fork(pid)
    stage.petition(pid, task_set.ReadProc, pid=child, name="comm")
    stage.exit(child)
    assert [a.text for a in stage.answers(pid)] == [b"prog\n"]


def test_an_interrupted_read_is_EINTR(stage: Any) -> None:
    pid, target = stage.create(), stage.create()
    number = stage.petition(pid, task_set.ReadProc, pid=target, name="maps")
    stage.tell(pid, task_set.WaitCancel, tid=pid, petition=number)
    assert [a.errno for a in stage.answers(pid)] == [EINTR]


def test_queries_answer_existence_and_priority(stage: Any) -> None:
    pid, target = stage.create(), stage.create()
    stage.tell(target, task_set.NiceChanged, nice=5)
    stage.tell(target, task_set.CommandChanged, command="new")
    assert stage.call(pid, task_set.QueryProcess, pid=target, attribute="priority").value == 15
    assert stage.call(pid, task_set.QueryProcess, pid=target, attribute="exists").value == 1
    assert stage.call(pid, task_set.QueryProcess, pid=999, attribute="exists").errno == ESRCH
    assert stage.ask(task_set.ListProcesses()).rows[-1].command == "new"


def test_a_new_host_name_reaches_every_group(stage: Any) -> None:
    pids = [stage.create(), stage.create()]
    uts = UtsName(sysname="Linux", nodename="new", release="6", version="1", machine="x86_64", domainname="")
    stage.kernel.tell("task_set", task_set.ChangeUts(uts=uts))
    stage.settle()
    assert [stage.hear(pid, thread_group.UtsChanged)[0].uts for pid in pids] == [uts, uts]
