"""pidfd: a process as a file, readable once it has exited.

Linux counterpart: pidfd_fops in kernel/fork.c.  It names the process by TaskSet's serial number, which is never used
again, as Linux does by struct pid.  TaskSet tells the Worker of the exit.
"""

from __future__ import annotations

import os
from errno import EBADF
from typing import TYPE_CHECKING, Any, ClassVar

from ...messages.task_set import WatchExit
from .bell import Bell
from .event_file import anonymous_identity
from .open_file import OpenFile

if TYPE_CHECKING:
    from .task import Task
    from .worker import Worker

__all__ = ["PidFile", "pid_file_of"]


class PidFile(OpenFile):
    """A pidfd."""

    __slots__ = ("_bell", "exited", "pid", "serial")
    kind: ClassVar[str] = "pidfd"
    pollable: ClassVar[bool] = True

    def __init__(self, worker: Worker, pid: int, serial: int, flags: int, *, exited: bool) -> None:
        self._bell = Bell(worker.host)
        identity = anonymous_identity(worker, b"[pidfd]")
        super().__init__(worker, identity, os.O_RDWR | flags & os.O_NONBLOCK, self._bell.fd)
        self.pid = pid
        #: Of the process's thread group.
        self.serial = serial
        self.exited = False
        if exited:
            self.process_exited()
        else:
            worker.pid_files.setdefault(serial, []).append(self)
            worker.tell("task_set", WatchExit(group=serial, worker=worker.address))

    def process_exited(self) -> None:
        """The process is a zombie or gone: be readable for ever."""
        self.exited = True
        self._bell.ring()

    def closing(self) -> None:
        """Stop watching."""
        watchers = self.worker.pid_files.get(self.serial)
        if watchers is not None and self in watchers:
            watchers.remove(self)
            if not watchers:
                del self.worker.pid_files[self.serial]
        self._bell.close()

    def extra_fdinfo(self) -> bytes:
        """``Pid`` and ``NSpid``."""
        return b"Pid:\t%d\nNSpid:\t%d\n" % (self.pid, self.pid)

    def state(self) -> dict[str, Any]:
        """Add which process it is."""
        return {**super().state(), "pid": self.pid, "serial": self.serial, "exited": self.exited}


def pid_file_of(task: Task, fd: int) -> PidFile:
    """Return the pidfd *fd*. EBADF for any other file, too."""
    file = task.group.files.get(fd)
    if not isinstance(file, PidFile):
        raise OSError(EBADF, "no pidfd")
    return file
