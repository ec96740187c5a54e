"""An event for every system call that ends, when the log asks for that much (level "debug").

Linux counterpart: the raw_syscalls trace points.  It owns the times at which calls began; they are about us, not about
the guest, so they come from no port and are in no trace.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Final

from ...config.logging import get_logger, is_logged
from .table import TABLE

if TYPE_CHECKING:
    from .task import Task

__all__ = ["SyscallLog"]

log = get_logger(__name__)

_MAX_ERRNO: Final = 4095


class SyscallLog:
    """Logs calls with their results and durations, waits included."""

    def __init__(self) -> None:
        self._began_ns: dict[Task, int] = {}

    @staticmethod
    def if_wanted() -> SyscallLog | None:
        """Return a log of system calls if the log's level asks for one."""
        return SyscallLog() if is_logged("debug") else None

    def entered(self, task: Task) -> None:
        """A call of *task* begins."""
        self._began_ns[task] = time.perf_counter_ns()

    def left(self, task: Task, result: int | None) -> None:
        """The call of *task* has ended with *result*; None when it has none (rt_sigreturn, execve, exit)."""
        began_ns = self._began_ns.pop(task, None)
        entry = TABLE.get(task.number)
        if began_ns is None or entry is None:
            return
        failed = result is not None and -_MAX_ERRNO <= result < 0
        log.debug(
            "system call",
            actor=task.group.address,
            tgid=task.group.pid,
            tid=task.tid,
            syscall=entry.name,
            result=errno.errorcode.get(-result, result) if failed and result is not None else result,
            duration_us=(time.perf_counter_ns() - began_ns) // 1000,
        )
