"""The text of /proc/PID/{stat,status} and of a thread's: what ps and top read.

Linux counterpart: fs/proc/array.c.  Counters that greenroom does not keep (faults, context switches) are 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import proc_memory, sys_sched
from .limits import RLIM_INFINITY, Resource
from .siginfo import NSIG, bit
from .signal_state import SIG_DFL, SIG_IGN
from .task import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .actor import ThreadGroup
    from .task import Task

__all__ = ["stat", "status"]

#: CPU time and start times are in ticks of USER_HZ.
_NS_PER_TICK: Final = 10_000_000
#: PF_RANDOMIZE, which every process has that execve made.
_PROCESS_FLAGS: Final = 0x0040_0000
_SIGCHLD: Final = 17
#: Memory nodes that a mask of the host's kernel has room for.
_NODE_WORDS: Final = 32
_STATE_NAMES: Final = {"R": "running", "S": "sleeping", "D": "disk sleep", "T": "stopped", "Z": "zombie"}


def _state(task: Task) -> str:
    """One letter. A pause is not to be seen: what it holds looks as it did before."""
    if task.group.signals.stopped and task.state is RunState.HELD:
        return "T"
    if task.state is RunState.BLOCKED:
        return "D" if task.block is not None and task.block.uninterruptible else "S"
    return "S" if task.state is RunState.PETITIONING else "R"


def _signal_sets(group: ThreadGroup) -> tuple[int, int]:
    """Return the ignored and the caught signals."""
    ignored = caught = 0
    for signo in range(1, NSIG + 1):
        handler = group.signals.handlers[signo].handler
        if handler == SIG_IGN:
            ignored |= bit(signo)
        elif handler != SIG_DFL:
            caught |= bit(signo)
    return ignored, caught


# -- stat -------------------------------------------------------------------------------------------------------


def stat(group: ThreadGroup, task: Task, *, whole: bool) -> bytes:
    """One line of 52 fields, see proc_pid_stat(5); *whole*: times of the whole process rather than of one thread."""
    fields = (*_identity(group, task), *_times(group, task, whole=whole), *_memory(group), *_signals(group, task))
    tail = (*_scheduling(task), *_layout(group), 0)
    return " ".join(str(field) for field in (*fields, *tail)).encode() + b"\n"


def _identity(group: ThreadGroup, task: Task) -> Iterator[object]:
    """Fields 1 to 13: pid comm state ppid pgrp session tty_nr tpgid flags minflt cminflt majflt cmajflt."""
    yield from (task.tid, f"({task.command})", _state(task), group.ppid, group.pgid, group.sid, group.terminal)
    yield group.pgid if group.terminal and group.foreground else -1
    yield from (_PROCESS_FLAGS, 0, 0, 0, 0)


def _times(group: ThreadGroup, task: Task, *, whole: bool) -> Iterator[object]:
    """Fields 14 to 22: utime stime cutime cstime priority nice num_threads itrealvalue starttime."""
    user, system = cpu_times_ns(group) if whole else group.worker.cpu_times_ns(task)
    times = group.times
    yield from (ns // _NS_PER_TICK for ns in (user, system, times.children_user_ns, times.children_system_ns))
    scheduling = task.scheduling
    yield from (-1 - scheduling.priority if scheduling.priority else 20 + scheduling.nice, scheduling.nice)
    yield from (len(group.tasks), 0, (group.start_ns if whole else task.start_ns) // _NS_PER_TICK)


def cpu_times_ns(group: ThreadGroup) -> tuple[int, int]:
    """Return (user, system) CPU time of all threads, the dead ones too."""
    rows = [group.worker.cpu_times_ns(task) for task in group.tasks.values()]
    user = group.times.dead_user_ns + sum(row[0] for row in rows)
    return user, group.times.dead_system_ns + sum(row[1] for row in rows)


def _memory(group: ThreadGroup) -> Iterator[object]:
    """Fields 23 to 30: vsize rss rsslim startcode endcode startstack kstkesp kstkeip."""
    memory = group.memory
    size = proc_memory.sizes(group)
    yield from (size.total << 10, size.resident // 4, group.limits.soft(Resource.RSS))
    yield from (memory.start_code, memory.end_code, memory.start_stack, 0, 0)


def _signals(group: ThreadGroup, task: Task) -> Iterator[object]:
    """Fields 31 to 37: signal blocked sigignore sigcatch (of the first 31) wchan nswap cnswap."""
    ignored, caught = _signal_sets(group)
    yield from (bits & 0x7FFF_FFFF for bits in (task.pending.bits, task.sigmask, ignored, caught))
    yield from (0 if _state(task) == "R" else 1, 0, 0)


def _scheduling(task: Task) -> Iterator[object]:
    """Fields 38 to 44: exit_signal processor rt_priority policy delayacct_blkio_ticks guest_time cguest_time."""
    yield from (_SIGCHLD if task.tid == task.group.pid else -1, 0, task.scheduling.priority, task.scheduling.policy)
    yield from (0, 0, 0)


def _layout(group: ThreadGroup) -> Iterator[object]:
    """Fields 45 to 51: start_data end_data start_brk arg_start arg_end env_start env_end."""
    memory = group.memory
    yield from (memory.start_data, memory.end_data, memory.start_brk)
    yield from (memory.arg_start, memory.arg_end, memory.env_start, memory.env_end)


# -- status -----------------------------------------------------------------------------------------------------


def status(group: ThreadGroup, task: Task) -> bytes:
    """Name: value lines, see proc_pid_status(5)."""
    lines = (
        *_status_identity(group, task),
        *_status_memory(group),
        *_status_signals(group, task),
        *_status_credentials(group),
        *_status_placement(task),
    )
    return "".join(f"{name}:\t{value}\n" for name, value in lines).encode()


def _status_identity(group: ThreadGroup, task: Task) -> Iterator[tuple[str, object]]:
    own = group.credentials
    state = _state(task)
    yield "Name", task.command.replace("\\", "\\\\").replace("\n", "\\n")
    yield "Umask", f"{group.fs.umask:04o}"
    yield "State", f"{state} ({_STATE_NAMES[state]})"
    yield from (("Tgid", group.pid), ("Ngid", 0), ("Pid", task.tid), ("PPid", group.ppid), ("TracerPid", 0))
    yield "Uid", _columns((own.ruid, own.euid, own.suid, own.fsuid))
    yield "Gid", _columns((own.rgid, own.egid, own.sgid, own.fsgid))
    yield "FDSize", _table_size(group)
    yield "Groups", "".join(f"{gid} " for gid in own.groups) or " "
    yield from (("NStgid", group.pid), ("NSpid", task.tid), ("NSpgid", group.pgid), ("NSsid", group.sid))
    yield "Kthread", 0


def _columns(values: Iterable[int]) -> str:
    return "\t".join(map(str, values))


def _table_size(group: ThreadGroup) -> int:
    """Return the room of the descriptor table, which doubles from 64 on."""
    highest = max(group.files.descriptors(), default=0)
    size = 64
    while size <= highest:
        size *= 2
    return size


def _status_memory(group: ThreadGroup) -> Iterator[tuple[str, object]]:
    size = proc_memory.sizes(group)
    peak = max(size.resident, group.memory.max_rss_kib)
    rows = (
        ("VmPeak", size.total),
        ("VmSize", size.total),
        ("VmLck", size.locked),
        ("VmPin", 0),
        ("VmHWM", peak),
        ("VmRSS", size.resident),
        ("RssAnon", size.anonymous),
        ("RssFile", size.file),
        ("RssShmem", size.shared),
        ("VmData", size.data),
        ("VmStk", size.stack),
        ("VmExe", size.code),
        ("VmLib", size.library),
        ("VmPTE", size.page_tables),
        ("VmSwap", size.swap),
        ("HugetlbPages", 0),
    )
    for name, kib in rows:
        yield name, f"{kib:8} kB"
    yield from (("CoreDumping", 0), ("THP_enabled", 1), ("untag_mask", "0xffffffffffffffff"))


def _status_signals(group: ThreadGroup, task: Task) -> Iterator[tuple[str, object]]:
    queued = len(group.signals.pending) + sum(len(other.pending) for other in group.tasks.values())
    limit = group.limits.soft(Resource.SIGPENDING)
    ignored, caught = _signal_sets(group)
    yield "Threads", len(group.tasks)
    yield "SigQ", f"{queued}/{limit if limit != RLIM_INFINITY else (1 << 64) - 1}"
    names = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")
    values = (task.pending.bits, group.signals.pending.bits, task.sigmask, ignored, caught)
    for name, value in zip(names, values, strict=True):
        yield name, f"{value:016x}"


def _status_credentials(group: ThreadGroup) -> Iterator[tuple[str, object]]:
    own = group.credentials
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    values = (own.inheritable, own.permitted, own.effective, own.bounding, own.ambient)
    for name, value in zip(names, values, strict=True):
        yield name, f"{value:016x}"
    yield from (("NoNewPrivs", int(own.no_new_privs)), ("Seccomp", 0), ("Seccomp_filters", 0))
    yield from (("Speculation_Store_Bypass", "vulnerable"), ("SpeculationIndirectBranch", "always enabled"))


def _status_placement(task: Task) -> Iterator[tuple[str, object]]:
    mask = sys_sched.affinity_of(task)
    yield "Cpus_allowed", _hex_words(mask, task.worker.application_cores)
    yield "Cpus_allowed_list", ranges(mask)
    yield from (("Mems_allowed", _hex_words(1, 32 * _NODE_WORDS)), ("Mems_allowed_list", "0"))
    yield from (("voluntary_ctxt_switches", 0), ("nonvoluntary_ctxt_switches", 0))


def _hex_words(mask: int, bits: int) -> str:
    """Print a mask as %*pb does: 32 bits at a time, the first word as wide as its bits need."""
    words = -(-bits // 32)
    first = (bits - 32 * (words - 1) + 3) // 4
    parts = [f"{mask >> 32 * i & 0xFFFF_FFFF:0{first if i == words - 1 else 8}x}" for i in reversed(range(words))]
    return ",".join(parts)


def ranges(mask: int) -> str:
    """Print a mask as %*pbl does: ``0-3,5``."""
    parts = []
    number = 0
    while mask >> number:
        if mask >> number & 1:
            first = number
            while mask >> number + 1 & 1:
                number += 1
            parts.append(str(first) if first == number else f"{first}-{number}")
        number += 1
    return ",".join(parts)
