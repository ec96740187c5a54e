"""The platform as a whole: isolation proved from outside, leaks, the worker's death, many tasks, CPU placement."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import zmq
from greenroom.platform.interface import Event, EventKind
from greenroom.platform.x86_64 import xstate
from guests import DATA, GETPPID, SPIN, Driver, call, load

if TYPE_CHECKING:
    from pathlib import Path

    from greenroom.platform.ptrace.placement import Affinity
    from greenroom.platform.ptrace.platform import PtracePlatform

LOOP = call(GETPPID) + b"\xeb\xf2"  # jmp to the mov of rax
#: arch_prctl: a call for which every platform makes a ptrace stop.
STOPS = 158


def test_guests_calls_have_no_effect_on_the_host(platform: PtracePlatform, driver: Driver, tmp_path: Path) -> None:
    """The guest tries to create a file, to write to the shelf, to kill the worker and to fork."""
    path = tmp_path / "escaped"
    task = platform.create_task()
    code = call(2, DATA, os.O_CREAT | os.O_RDWR, 0o666) + call(1, 0, DATA, 8) + call(62, os.getpid(), 9)
    load(task, code + call(57) + call(231, 5))
    task.space.write(DATA, bytes(path) + b"\0")
    task.resume()
    calls = driver.serve(4, lambda _event: 0)
    assert [event.number for event in calls] == [2, 1, 62, 57]
    assert driver.event(task).number == 231
    task.resume_with(0)  # exit_group did not end it either: it runs on, into the zeros behind its code
    assert driver.event(task).kind is EventKind.FAULT
    assert not path.exists()


def test_host_calls_of_tracees_are_only_the_stubs(make_platform: type[PtracePlatform]) -> None:
    """Seen by the host's own accounting: no read or write call of the guest's was ever executed."""
    platform = make_platform(affinity="free")
    platform.start()
    try:
        task = platform.create_task()
        load(task, call(1, 0, DATA, 8) + b"\xeb\xf2")
        driver = Driver(platform)
        task.resume()
        driver.serve(100, lambda _event: 8)
        with open(f"/proc/{task.host_tid}/io", encoding="ascii") as file:
            io = dict(line.split(": ") for line in file.read().splitlines())
        assert (io["syscw"], io["syscr"], io["wchar"]) == ("0", "0", "0")
    finally:
        platform.close()


def test_the_filter_refuses_a_host_call_that_is_not_on_the_list(platform: PtracePlatform) -> None:
    """Even an injected one: the second wall behind SYSEMU."""
    task = platform.create_task()
    with pytest.raises(PermissionError):
        task.inject(39)  # getpid
    task.mmap(DATA, 4096, 3, 0x22)


def test_nothing_leaks_over_200_tasks(platform: PtracePlatform) -> None:
    platform.create_task().kill()
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(100):
        task = platform.create_task()
        task.clone(share_memory=True).kill()
        task.kill()
    assert set(os.listdir("/proc/self/fd")) == before


def test_close_releases_everything_and_is_idempotent(make_platform: type[PtracePlatform]) -> None:
    before = set(os.listdir("/proc/self/fd"))
    mask = os.sched_getaffinity(0)
    for affinity in ("pinned", "adaptive", "free"):
        platform = make_platform(affinity=affinity)
        platform.start()
        task = platform.create_task()
        load(task, SPIN)
        task.resume()
        platform.create_task()
        platform.close()
        platform.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert os.sched_getaffinity(0) == mask


WORKER = """
import sys
import threading
sys.path.insert(0, sys.argv[1])
from guests import SPIN, load
from greenroom.platform.{name}.platform import {kind}
platform = {kind}()
platform.start()
tasks = [platform.create_task() for _ in range(3)]
load(tasks[0], SPIN)
tasks[0].resume()
tasks.append(tasks[1].clone(share_memory=True))
print(platform._seed.host_tid, *[task.host_tid for task in tasks], flush=True)
sys.stdin.read()
"""


def test_no_tracee_survives_a_killed_worker(make_platform: type[PtracePlatform]) -> None:
    """PTRACE_O_EXITKILL: the host kills spinning, stopped and parked tracees with their tracer."""
    program = WORKER.format(name=make_platform.name, kind=make_platform.__name__)
    command = [sys.executable, "-c", program, os.path.dirname(__file__)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        tids = [int(tid) for tid in worker.stdout.readline().split()]
        assert len(tids) == 5
        pidfds = [os.pidfd_open(tid) for tid in tids]
        worker.kill()
        try:
            for pidfd in pidfds:
                assert select.select([pidfd], [], [], 10)[0], "a tracee outlived its worker"
        finally:
            for pidfd in pidfds:
                os.close(pidfd)


@pytest.mark.parametrize("count", [3, 30])
def test_every_running_task_gets_its_turn(platform: PtracePlatform, driver: Driver, count: int) -> None:
    """Few tasks are waited for by name, many all at once."""
    served: dict[int, int] = {}
    for _ in range(count):
        task = platform.create_task()
        load(task, LOOP)
        task.resume()

    def answer(event: Event) -> int:
        served[event.task.host_tid] = served.get(event.task.host_tid, 0) + 1
        return 1

    driver.serve(count * 40, answer)
    assert len(served) == count
    assert min(served.values()) >= 2  # the host decides who runs; a starved task would have none


@pytest.mark.parametrize("affinity", ["adaptive", "pinned", "free"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_guests_run_under_each_placement(make_platform: type[PtracePlatform], affinity: Affinity, count: int) -> None:
    platform = make_platform(affinity=affinity)
    platform.start()
    try:
        driver = Driver(platform)
        for _ in range(count):
            task = platform.create_task()
            load(task, LOOP)
            task.resume()
        driver.serve(300, lambda _event: 0)
        pinned = len(platform.placement.cpus) == 1
        assert pinned or affinity != "pinned"
        assert not pinned or affinity != "free" or len(os.sched_getaffinity(0)) == 1
    finally:
        platform.close()


def test_a_pin_ends_when_the_guest_computes(platform: PtracePlatform, driver: Driver) -> None:
    """After a burst of stops the task spins: a timer tick without events lets it run everywhere again."""
    allowed = os.sched_getaffinity(0)
    task = platform.create_task()
    load(task, call(STOPS) + b"\xeb\xf2")
    task.resume()
    while len(platform.placement.cpus) != 1:
        driver.serve(32, lambda _event: 0)
    event = driver.event(task)
    registers = event.task.get_registers()
    task.space.write(registers.rip, SPIN)
    task.resume_with(0)
    while platform.placement.cpus != allowed:
        assert driver.quiet()
    assert os.sched_getaffinity(task.host_tid) == allowed
    assert os.sched_getaffinity(0) == allowed


def test_whoever_computes_is_let_go_while_another_makes_calls(platform: PtracePlatform, driver: Driver) -> None:
    allowed = os.sched_getaffinity(0)
    computes, calls = platform.create_task(), platform.create_task()
    load(computes, SPIN)
    load(calls, LOOP)
    platform.placement._pin()
    for task in (computes, calls):
        task.resume()
    while os.sched_getaffinity(computes.host_tid) != allowed:
        driver.serve(8, lambda _event: 0)


def test_a_thread_that_would_swallow_sigchld_is_refused(make_platform: type[PtracePlatform]) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    thread.start()
    try:
        with pytest.raises(RuntimeError, match="swallow SIGCHLD"):
            make_platform().start()
    finally:
        done.set()
        thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_zeromq_threads_are_no_obstacle(make_platform: type[PtracePlatform]) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.bind("inproc://there-is-an-io-thread-now")
        platform = make_platform()
        platform.start()
        try:
            assert Driver(platform).run(platform.create_task(), call(GETPPID)).number == GETPPID
        finally:
            platform.close()


def test_sigchld_wakes_the_poller(platform: PtracePlatform) -> None:
    task = platform.create_task()
    load(task, call(GETPPID))
    task.resume()
    assert select.select(platform.filenos(), [], [], 10)[0]
    assert signal.SIGCHLD in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_larger_xsave_area_than_cpuid_tells_is_refused(
    make_platform: type[PtracePlatform], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A truncated area would lose registers of guests."""
    monkeypatch.setattr(xstate, "largest_size", lambda: xstate.HEADER_END)
    platform = make_platform()
    try:
        with pytest.raises(RuntimeError, match="XSAVE area"):
            platform.start()
    finally:
        platform.close()
