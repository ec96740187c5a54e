"""Pipes and FIFOs: host pipes, non-blocking on our side whatever the guest chose.

Linux counterpart: fs/pipe.c.  Capacity, PIPE_BUF atomicity, EPIPE and end of file are the host's.
"""

from __future__ import annotations

import os
import stat
from select import EPOLLIN
from typing import TYPE_CHECKING, Any, ClassVar, Final

from .open_file import ACCESS_MODE, Identity, OpenFile
from .task import Block

if TYPE_CHECKING:
    from .task import Task
    from .worker import Worker

__all__ = ["PipeFile", "make_pipe"]

#: st_dev of pipes.
_PIPE_DEV: Final = 13
_FIONREAD: Final = 0x541B


class PipeFile(OpenFile):
    """One end of a pipe, or a FIFO opened in any mode."""

    __slots__ = ()
    kind: ClassVar[str] = "pipe"
    pollable: ClassVar[bool] = True
    #: The usual capacity: reading more out of guest memory than fits is wasted.
    piece_bytes: ClassVar[int] = 1 << 16

    def pull(self, task: Task, count: int, offset: int | None) -> bytes:
        """Read what is there. EAGAIN."""
        return self.worker.host.read(self.host_fd, count)

    def push(self, task: Task, data: bytes, offset: int | None) -> int:
        """Write what fits. EAGAIN, EPIPE."""
        return self.worker.host.write(self.host_fd, data)

    def ioctl(self, task: Task, request: int, argument: int) -> int:
        """FIONREAD."""
        if request != _FIONREAD:
            return int(super().ioctl(task, request, argument))
        task.memory.write(argument, self.worker.host.io_control(self.host_fd, request, bytes(4)))
        return 0

    def link_text(self) -> bytes:
        """``pipe:[ino]``; a FIFO shows its path."""
        return self.identity.path or b"pipe:[%d]" % self.identity.ino

    def reopen(self, task: Task, flags: int) -> OpenFile:
        """Another description of the same pipe, in any mode."""
        fd = self.worker.host.reopen(self.host_fd, flags & ACCESS_MODE | os.O_NONBLOCK)
        return PipeFile(self.worker, self.identity, flags, fd)

    def has_writer(self) -> bool:
        """Tell whether the other end of a FIFO, open for reading here, is open."""
        # Only the copying calls tell an empty pipe with writers (EAGAIN) from one without (0) and consume nothing.
        host = self.worker.host
        reading, writing = host.make_pipe()
        try:
            return host.tee(self.host_fd, writing, 1) > 0
        except BlockingIOError:
            return True
        finally:
            host.close(reading)
            host.close(writing)

    def wait_for_writer(self, deadline_ns: int) -> Block:
        """Return the wait of a blocking open(2) for reading."""
        return Block(
            fds=((self.host_fd, EPOLLIN),),
            files=(self,),
            channels=(("fifo",),),
            deadline_ns=deadline_ns,
            recall_on_signal=True,
        )

    def state(self) -> dict[str, Any]:
        """Add the capacity."""
        return {**super().state(), "capacity": self.worker.host.file_control(self.host_fd, 1032, 0)}


def make_pipe(worker: Worker, flags: int, uid: int, gid: int) -> tuple[PipeFile, PipeFile]:
    """Return the two ends of a new pipe, to read and to write; *flags* are O_NONBLOCK and O_DIRECT. EMFILE."""
    reading, writing = worker.host.make_pipe()
    if flags & os.O_DIRECT:
        for fd in (reading, writing):
            worker.host.set_file_flags(fd, worker.host.file_flags(fd) | os.O_DIRECT)
    identity = Identity(mode=stat.S_IFIFO | 0o600, ino=worker.files.new_ino(), dev=_PIPE_DEV, uid=uid, gid=gid)
    status = flags & (os.O_NONBLOCK | os.O_DIRECT)
    return (
        PipeFile(worker, identity, os.O_RDONLY | status, reading),
        PipeFile(worker, identity, os.O_WRONLY | status, writing),
    )
