"""What /proc and ps show of processes, as far as TaskSet knows it: of zombies and init all, of others the list.

Linux counterpart: fs/proc/array.c.  Handles ReadProc, QueryProcess, ListProcesses; a living process's files are made
by its own ThreadGroup, to which ReadProc is passed on as ProcRequest.
"""

from __future__ import annotations

from errno import ENOENT, ESRCH
from typing import TYPE_CHECKING, Final

from ...messages.task_set import ProcessList, ProcessRow
from ...messages.thread_group import ProcRequest
from .process import INIT, ForwardedRead, Process, ProcessState

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...messages import task_set as messages
    from .tree import ProcessTree

__all__ = ["answer_for_dead", "list_processes", "query", "read"]

#: /proc/PID/stat counts time in these (USER_HZ is 100).
_CLOCK_TICK_NS: Final = 10_000_000
_STATE_NAMES: Final = {"R": "R (running)", "S": "S (sleeping)", "T": "T (stopped)", "Z": "Z (zombie)"}
#: Fields of /proc/PID/stat after starttime that are 0 for a process without memory, up to exit_signal.
_NO_MEMORY: Final = "0 0 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0"


def read(tree: ProcessTree, caller: Process, message: messages.ReadProc) -> None:
    """Answer from here for a zombie or init, else pass on. ESRCH."""
    target = tree.by_tid.get(message.pid)
    if target is None or target.dead or target.group == INIT:
        _answer(tree, caller, message.tid, message.petition, target, message.name)
        return
    tree.reads[caller.group, message.tid] = ForwardedRead(target.group, message.petition, message.name)
    tree.post(
        target,
        ProcRequest(reader=caller.group, tid=message.tid, petition=message.petition, name=message.name),
    )


def answer_for_dead(tree: ProcessTree, process: Process) -> None:
    """A process died over reads that were passed on to it: answer in its place. A second answer is ignored."""
    for (reader, tid), forwarded in list(tree.reads.items()):
        if forwarded.target == process.group:
            del tree.reads[reader, tid]
            _answer(tree, tree.processes[reader], tid, forwarded.petition, process, forwarded.name)


def _answer(tree: ProcessTree, reader: Process, tid: int, petition: int, target: Process | None, name: str) -> None:
    # The main thread's files are the process's own; a zombie has no other thread.
    maker = _FILES.get(name.removeprefix(f"task/{target.pid}/")) if target is not None else None
    if target is None or maker is None:
        tree.answer(reader, tid, petition, errno=ESRCH)
    else:
        tree.answer(reader, tid, petition, text=maker(tree, target).encode())


def state_of(process: Process) -> str:
    """Return the letter of /proc/PID/stat, as well as it is known here without asking."""
    if process.dead:
        return "Z"
    if process.state is ProcessState.STOPPED:
        return "T"
    return "S" if process.waits.keys() >= process.threads else "R"


def _stat(tree: ProcessTree, process: Process) -> str:
    terminal = tree.terminals.get(process.terminal)
    ticks = [
        ns // _CLOCK_TICK_NS
        for ns in (process.user_ns, process.system_ns, process.children_user_ns, process.children_system_ns)
    ]
    fields = [
        f"{process.pid} ({process.command}) {state_of(process)}",
        f"{_parent_pid(tree, process)} {process.pgid} {process.sid}",
        f"{process.terminal} {terminal.foreground if terminal else -1} 0 0 0 0 0",
        " ".join(map(str, ticks)),
        f"{20 + process.nice} {process.nice} {max(1, len(process.threads))} 0 {process.start_ns // _CLOCK_TICK_NS}",
        _NO_MEMORY,
        f"{process.exit_signal} 0 0 0 0 0 0 0 0 0 0 0 0 0 {process.status}",
    ]
    return " ".join(fields) + "\n"


def _status(tree: ProcessTree, process: Process) -> str:
    rows = {
        "Name": process.command,
        "State": _STATE_NAMES[state_of(process)],
        "Tgid": process.pid,
        "Ngid": 0,
        "Pid": process.pid,
        "PPid": _parent_pid(tree, process),
        "TracerPid": 0,
        "Uid": "\t".join(map(str, (*process.uids, process.uids[1]))),
        "Gid": "\t".join(map(str, (*process.gids, process.gids[1]))),
        "FDSize": 0,
        "Groups": "",
        "Threads": max(1, len(process.threads)),
    }
    return "".join(f"{name}:\t{value}\n" for name, value in rows.items())


def _parent_pid(tree: ProcessTree, process: Process) -> int:
    return 0 if process.group == INIT else tree.parent_of(process).pid


_FILES: dict[str, Callable[[ProcessTree, Process], str]] = {
    "stat": _stat,
    "status": _status,
    "comm": lambda _tree, process: f"{process.command}\n",
    "cmdline": lambda _tree, process: "init\0" if process.group == INIT else "",
    "statm": lambda _tree, _process: "0 0 0 0 0 0 0\n",
    "environ": lambda _tree, _process: "",
    "maps": lambda _tree, _process: "",
    "cgroup": lambda _tree, _process: "0::/\n",
    "oom_score": lambda _tree, _process: "0\n",
    "oom_score_adj": lambda _tree, _process: "0\n",
    "wchan": lambda _tree, _process: "0",
}


def query(tree: ProcessTree, caller: Process, message: messages.QueryProcess) -> None:
    """Answer QueryProcess: "exists" (1), "priority" (20 - nice, as getpriority(2)), "pidfd" (serial). ENOENT, ESRCH."""
    target = tree.by_tid.get(message.pid)
    if target is None:
        tree.answer(caller, message.tid, message.petition, errno=ESRCH)
    elif message.attribute == "pidfd":
        errno = ENOENT if message.pid != target.pid else 0
        extra = (int(target.dead),)
        tree.answer(caller, message.tid, message.petition, value=target.group, errno=errno, extra=extra)
    else:
        value = 20 - target.nice if message.attribute == "priority" else 1
        tree.answer(caller, message.tid, message.petition, value=value)


def list_processes(tree: ProcessTree) -> ProcessList:
    """Return every process, init among them, by pid."""
    rows = [
        ProcessRow(
            pid=process.pid,
            ppid=_parent_pid(tree, process),
            pgid=process.pgid,
            sid=process.sid,
            state="S" if process.group == INIT else state_of(process),
            threads=max(1, len(process.threads)),
            command=process.command,
        )
        for process in tree.processes.values()
    ]
    return ProcessList(rows=tuple(sorted(rows, key=lambda row: row.pid)))
