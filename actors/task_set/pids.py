"""Process and thread ids: one increasing sequence that wraps.

Linux counterpart: kernel/pid.c's alloc_pid (idr_alloc_cyclic).  Owns the cursor only; who uses a number is the
tree's.
"""

from __future__ import annotations

from errno import EAGAIN
from typing import TYPE_CHECKING

from ...config.limits import PID_MAX, RESERVED_PIDS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PidAllocator"]


class PidAllocator:
    """Gives out numbers from 2 (1 is init) to *pid_max* - 1, then again from RESERVED_PIDS on.

    A number is free unless *in_use* says that a task, a process group or a session has it.
    """

    def __init__(self, in_use: Callable[[int], bool], pid_max: int = PID_MAX) -> None:
        self.last = 1
        self._in_use = in_use
        self._pid_max = pid_max

    def allocate(self) -> int:
        """Return the next free number. EAGAIN when there is none."""
        candidate = self.last
        for _ in range(self._pid_max):
            candidate += 1
            if candidate >= self._pid_max:
                candidate = min(RESERVED_PIDS, self._pid_max - 1)
            if not self._in_use(candidate):
                self.last = candidate
                return candidate
        raise BlockingIOError(EAGAIN, "every process id is in use")
