"""The worker's port to the host: every host call that a thread group makes, one method each.

Arguments and results are plain data (ints, bytes, tuples, None) and errors are OSError, so a trace can record every call
and a replay can answer it with no host.  No other module of this folder calls ``os`` on host state.
"""

from __future__ import annotations

import os
import time

__all__ = ["WorkerHost"]

#: /proc counts CPU time in ticks of USER_HZ = 100.
_NS_PER_TICK = 10_000_000


class WorkerHost:
    """The real host."""

    def monotonic_ns(self) -> int:
        """Host CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def realtime_ns(self) -> int:
        """Host CLOCK_REALTIME."""
        return time.time_ns()

    def cpu_times_ns(self, host_tid: int) -> tuple[int, int]:
        """(user, system) CPU time in ns of a host task, from /proc/TID/stat (fields 14 and 15, in clock ticks)."""
        with open(f"/proc/{host_tid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[11]) * _NS_PER_TICK, int(fields[12]) * _NS_PER_TICK

    def random_bytes(self, count: int) -> bytes:
        """Bytes for getrandom(2), /dev/urandom and AT_RANDOM."""
        return os.urandom(count)

    def read(self, fd: int, count: int) -> bytes:
        """read(2) at the descriptor's own offset."""
        return os.read(fd, count)

    def write(self, fd: int, data: bytes) -> int:
        """write(2) at the descriptor's own offset."""
        return os.write(fd, data)

    def close(self, fd: int) -> None:
        """close(2)."""
        os.close(fd)
