"""Regular files: a guest's open file description is one of the host's.

Linux counterpart: mm/filemap.c and mm/shmem.c.  Offset, O_APPEND, sharing over fork and dup, holes and seals are the
host's; only RLIMIT_FSIZE is kept here, because the host's limit is the worker's.
"""

from __future__ import annotations

import os
from errno import EFBIG, ENOSPC
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ...messages.mount_namespace import FileStatus, FileUsed
from . import signals
from .limits import RLIM_INFINITY, Resource
from .open_file import ACCESS_MODE, O_LARGEFILE, OpenFile

if TYPE_CHECKING:
    from ...messages.mount_namespace import Opened
    from .actor import ThreadGroup
    from .budget import Budget
    from .open_file import Identity
    from .task import Task
    from .worker import Worker

__all__ = ["HostRegularFile", "MemoryFile", "RegularFile", "exceeded"]

_IN_ACCESS, _IN_MODIFY = 1, 2
_PAGE_BYTES: Final = 4096
_FALLOC_FL_PUNCH_HOLE: Final = 2


class RegularFile(OpenFile):
    """A file that MountNamespace opened for us."""

    __slots__ = ("budget", "watched")
    kind: ClassVar[str] = "regular"
    fills: ClassVar[bool] = True
    seekable: ClassVar[bool] = True
    splice_source: ClassVar[bool] = True

    def __init__(self, worker: Worker, identity: Identity, flags: int, host_fd: int = -1) -> None:
        super().__init__(worker, identity, flags, host_fd)
        #: Which of IN_ACCESS and IN_MODIFY somebody watches.
        self.watched = 0
        #: What may be written to its file system, None for no limit.
        self.budget: Budget | None = None

    def adopt(self, opened: Opened) -> RegularFile:
        """Take over what MountNamespace says beside the identity; return the file."""
        self.watched = opened.watched
        self.in_memory = opened.limited or opened.host_ctime_ns >= 0
        if self.in_memory:
            self.worker.leases.opened(self)
        if opened.limited:
            self.budget = self.worker.files.budget(opened.dev)
        return self

    def kept(self) -> bool:
        """Only what was opened for nothing but reading."""
        key = self.path_key
        return key is not None and self.flags == O_LARGEFILE and self.worker.leases.keep(self, key)

    def pull(self, task: Task, count: int, offset: int | None) -> bytes:
        """Read at the host's offset or at *offset*."""
        host = self.worker.host
        data = host.read(self.host_fd, count) if offset is None else host.pread(self.host_fd, count, offset)
        if self.watched and data:
            self.report(_IN_ACCESS)
        return data

    def report(self, cause: int) -> None:
        """Tell MountNamespace what was done, if somebody watches for it."""
        if self.watched & cause:
            self.worker.tell(self.identity.namespace, FileUsed(handle=self.handle, cause=cause))

    def room(self, task: Task, count: int, offset: int | None) -> Any:
        """Return how many of *count* bytes may be written, which are then paid for, or the ask for more. ENOSPC."""
        asked = task.memo.pop("asked", False) if task.memo else False
        budget = self.budget
        if budget is None:
            return count
        if budget.left < count:
            if not asked:
                return budget.ask_and_call_again(task)
            if not budget.left:
                return self._fits_without_growth(count, offset)
            count = budget.left
        budget.left -= count
        return count

    def _fits_without_growth(self, count: int, offset: int | None) -> int:
        """A full file system takes what only replaces contents, up to the next hole. ENOSPC."""
        host, fd = self.worker.host, self.host_fd
        position = host.seek(fd, 0, os.SEEK_CUR)
        at = host.file_status(fd)[7] if self.flags & os.O_APPEND else position if offset is None else offset
        try:
            hole = host.seek(fd, at, os.SEEK_HOLE)
        except OSError:
            raise OSError(ENOSPC, "") from None
        finally:
            host.seek(fd, position, os.SEEK_SET)
        room = -(-hole // _PAGE_BYTES) * _PAGE_BYTES - at
        if hole == at or room <= 0:
            raise OSError(ENOSPC, "")
        return min(count, room)

    def push(self, task: Task, data: bytes, offset: int | None) -> Any:
        """Write at the host's offset (or the end, with O_APPEND) or at *offset*. ENOSPC; EFBIG with SIGXFSZ."""
        data = self.within_limit(task, data, offset)
        if self.budget is not None:
            room = self.room(task, len(data), offset)
            if type(room) is not int:
                return room
            if room < len(data):
                data = data[:room]
        return self.put(data, offset)

    def put(self, data: bytes, offset: int | None) -> int:
        """Write what there is room for."""
        host = self.worker.host
        taken = host.write(self.host_fd, data) if offset is None else host.pwrite(self.host_fd, data, offset)
        if self.watched and taken:
            self.report(_IN_MODIFY)
        return taken

    def within_limit(self, task: Task, data: bytes, offset: int | None) -> bytes:
        """Cut *data* to what RLIMIT_FSIZE allows (generic_write_check_limits). EFBIG with SIGXFSZ."""
        limit = task.group.limits.soft(Resource.FSIZE)
        if limit == RLIM_INFINITY or not data:
            return data
        host = self.worker.host
        if self.flags & os.O_APPEND:
            offset = host.file_status(self.host_fd)[7]
        elif offset is None:
            offset = host.seek(self.host_fd, 0, os.SEEK_CUR)
        if offset >= limit:
            exceeded(task)
        return data[: limit - offset]

    def unread(self, count: int) -> None:
        """Step back."""
        self.worker.host.seek(self.host_fd, -count, os.SEEK_CUR)

    def seek(self, task: Task, offset: int, whence: int) -> int:
        """Move the host's offset. EINVAL, ENXIO."""
        return self.worker.host.seek(self.host_fd, offset, whence)

    def position(self) -> int:
        """Return the host's offset."""
        return self.worker.host.seek(self.host_fd, 0, os.SEEK_CUR)

    def truncate(self, task: Task, size: int) -> int:
        """Set the size. EINVAL unless open for writing; EFBIG with SIGXFSZ; EPERM when sealed."""
        if size > task.group.limits.soft(Resource.FSIZE):
            exceeded(task)
        self.worker.host.truncate(self.host_fd, size)
        self.report(_IN_MODIFY)
        return 0

    def allocate(self, task: Task, mode: int, offset: int, length: int) -> Any:
        """Reserve or free blocks, as far as the host's file system can."""
        if offset + length > task.group.limits.soft(Resource.FSIZE):
            exceeded(task)
        if not mode & _FALLOC_FL_PUNCH_HOLE:
            room = self.room(task, length, offset)
            if type(room) is not int:
                return room
            if room < length:
                raise OSError(ENOSPC, "")
        self.worker.host.allocate(self.host_fd, mode, offset, length)
        self.report(_IN_MODIFY)
        return 0

    def sync(self, *, data_only: bool) -> int:
        """Flush to the host's disk."""
        self.worker.host.sync_file(self.host_fd, data_only)
        return 0

    def set_flags(self, flags: int) -> None:
        """O_APPEND is the host's business; the others are ours."""
        if (flags ^ self.flags) & os.O_APPEND:
            host_flags = self.worker.host.file_flags(self.host_fd) & ~os.O_APPEND
            self.worker.host.set_file_flags(self.host_fd, host_flags | flags & os.O_APPEND)
        super().set_flags(flags)


def exceeded(task: Task) -> None:
    """RLIMIT_FSIZE is reached."""
    siginfo = signals.kernel_siginfo(signals.SIGXFSZ, signals.SI_USER, pid=task.group.pid, uid=0)
    signals.send(task.group, signals.SIGXFSZ, siginfo, task)
    raise OSError(EFBIG, "")


class HostRegularFile(RegularFile):
    """A regular file without a name in the namespace: its attributes are read from the host."""

    __slots__ = ()
    kind: ClassVar[str] = "host_regular"

    def local_status(self, group: ThreadGroup) -> FileStatus:
        """Return sizes and times as the host has them, under our own identity."""
        _, _, _, nlink, _, _, _, size, blksize, blocks, atime, mtime, ctime = self.worker.host.file_status(self.host_fd)
        identity = self.identity
        return FileStatus(
            dev=identity.dev,
            ino=identity.ino,
            mode=identity.mode,
            nlink=nlink,
            uid=identity.uid,
            gid=identity.gid,
            rdev=0,
            size=size,
            blksize=blksize,
            blocks=blocks,
            atime_ns=atime,
            mtime_ns=mtime,
            ctime_ns=ctime,
            btime_ns=0,
            mount_id=0,
        )

    def reopen(self, task: Task, flags: int) -> OpenFile:
        """Another description of the same file."""
        kept = flags & (ACCESS_MODE | os.O_APPEND | os.O_TRUNC)
        return type(self)(self.worker, self.identity, flags, self.worker.host.reopen(self.host_fd, kept))


class MemoryFile(HostRegularFile):
    """memfd_create(2)."""

    __slots__ = ()
    kind: ClassVar[str] = "memfd"

    def local_status(self, group: ThreadGroup) -> FileStatus:
        """A memfd has no name: its link count is 0."""
        import dataclasses

        return dataclasses.replace(super().local_status(group), nlink=0)
