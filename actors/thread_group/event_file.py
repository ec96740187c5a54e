"""eventfd: a counter that can be waited on; the host's, non-blocking on our side.

Linux counterpart: fs/eventfd.c.
"""

from __future__ import annotations

import os
from errno import EINVAL
from typing import TYPE_CHECKING, Any, ClassVar, Final

from .open_file import Identity, OpenFile

if TYPE_CHECKING:
    from .task import Task
    from .worker import Worker

__all__ = ["ANON_INODE_DEV", "EventFile", "anonymous_identity"]

#: st_dev of anonymous inodes.
ANON_INODE_DEV: Final = 14
_COUNTER_BYTES: Final = 8


def anonymous_identity(worker: Worker, name: bytes) -> Identity:
    """Return the identity of a file that is only a descriptor: ``anon_inode:[eventfd]``."""
    return Identity(mode=0o600, ino=worker.files.new_ino(), dev=ANON_INODE_DEV, path=b"anon_inode:" + name)


class EventFile(OpenFile):
    """An eventfd."""

    __slots__ = ()
    kind: ClassVar[str] = "eventfd"
    pollable: ClassVar[bool] = True
    atomic: ClassVar[bool] = True
    splice_target: ClassVar[bool] = False

    @classmethod
    def make(cls, worker: Worker, value: int, flags: int) -> EventFile:
        """Make one; *flags* are EFD_*. EINVAL."""
        host_fd = worker.host.make_eventfd(value, flags & os.EFD_SEMAPHORE)
        return cls(worker, anonymous_identity(worker, b"[eventfd]"), os.O_RDWR | flags & os.O_NONBLOCK, host_fd)

    def pull(self, task: Task, count: int, offset: int | None) -> bytes:
        """Take the counter, or one of it with EFD_SEMAPHORE. EINVAL for less than 8 bytes, EAGAIN at 0."""
        if count < _COUNTER_BYTES:
            raise OSError(EINVAL, "")
        return self.worker.host.read(self.host_fd, _COUNTER_BYTES)

    def push(self, task: Task, data: bytes, offset: int | None) -> int:
        """Add to the counter. EINVAL for less than 8 bytes or the highest number, EAGAIN when it would overflow."""
        if len(data) < _COUNTER_BYTES:
            raise OSError(EINVAL, "")
        return self.worker.host.write(self.host_fd, data[:_COUNTER_BYTES])

    def seek(self, task: Task, offset: int, whence: int) -> int:
        """A position that means nothing (noop_llseek)."""
        return 0

    def _fdinfo(self) -> dict[str, str]:
        text = self.worker.host.descriptor_information(self.host_fd)
        return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)

    def extra_fdinfo(self) -> bytes:
        """``eventfd-count``."""
        return b"eventfd-count: %16x\n" % int(self._fdinfo().get("eventfd-count", "0"), 16)

    def state(self) -> dict[str, Any]:
        """Add counter and mode."""
        information = self._fdinfo()
        return {
            **super().state(),
            "count": int(information.get("eventfd-count", "0"), 16),
            "semaphore": int(information.get("eventfd-semaphore", "0")),
        }
