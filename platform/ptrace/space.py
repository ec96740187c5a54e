"""A guest's memory as the worker sees it: one descriptor on ``/proc/TID/mem`` per host address space.

Linux counterpart: ``access_process_vm``.  It owns that descriptor and the count of host tasks that run in the space.
The descriptor pins the address space's identity, not its pages: it goes on working when the task that it was opened
through ends, as long as another shares the memory, and reads as empty after the last one.

Everything from the stub page upwards is refused here, whatever the caller checked: a guest pointer that could write
the stub would be a guest that can make host calls.
"""

from __future__ import annotations

import errno
import os

from ..interface import GUEST_TOP, AddressSpace

__all__ = ["PtraceSpace"]


def _fault() -> OSError:
    return OSError(errno.EFAULT, os.strerror(errno.EFAULT))


class PtraceSpace(AddressSpace):
    """One host address space, opened through its first host task."""

    __slots__ = ("_memory_fd", "_tasks")

    def __init__(self, host_tid: int) -> None:
        self._memory_fd = os.open(f"/proc/{host_tid}/mem", os.O_RDWR | os.O_CLOEXEC)
        self._tasks = 1

    @property
    def is_shared(self) -> bool:
        """Whether several host tasks run in it."""
        return self._tasks > 1

    def retain(self) -> None:
        """Count one more host task."""
        self._tasks += 1

    def release(self) -> None:
        """Count one host task less; the last one closes the descriptor."""
        self._tasks -= 1
        if self._tasks == 0:
            os.close(self._memory_fd)
            self._memory_fd = -1

    def read(self, address: int, length: int) -> bytes:
        if address + length > GUEST_TOP:
            length = GUEST_TOP - address
        if length <= 0:
            return self._nothing(address)
        try:
            data = os.pread(self._memory_fd, length, address)
        except OSError:
            raise _fault() from None
        if not data:
            raise _fault()
        return data

    def write(self, address: int, data: bytes | bytearray | memoryview) -> int:
        if address + len(data) > GUEST_TOP:
            data = memoryview(data)[: max(GUEST_TOP - address, 0)]
        if not data:
            return len(self._nothing(address))
        try:
            written = os.pwrite(self._memory_fd, data, address)
        except OSError:
            raise _fault() from None
        if written == 0:
            raise _fault()
        return written

    @staticmethod
    def _nothing(address: int) -> bytes:
        if address >= GUEST_TOP:
            raise _fault()
        return b""
