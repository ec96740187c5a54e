"""Open file descriptions: what a descriptor refers to, shared by dup, fork and descriptors passed over sockets.

Linux counterpart: struct file and struct file_operations (include/linux/fs.h, fs/file_table.c).  Each kind of file is
a subclass in a module of its own; the base refuses what Linux refuses when a file operation is missing.  Data moves
as bytes: ``pull`` and ``push`` know nothing of guest memory, ``transfer.py`` joins them to it.  Tells MountNamespace
ReleaseHandle and ReleaseLocks when the last reference goes.
"""

from __future__ import annotations

import os
import stat
from errno import EAGAIN, EBADF, EINVAL, ENOTTY, ENXIO, ESPIPE
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ...messages.mount_namespace import FileStatus, ReleaseLocks
from .task import ERESTARTSYS, Block

if TYPE_CHECKING:
    from .actor import ThreadGroup
    from .epoll_file import EpollFile
    from .leases import Key, Lease
    from .task import Task
    from .worker import Worker

__all__ = ["ACCESS_MODE", "IDENTITY_FIELDS", "O_LARGEFILE", "STATUS_FLAGS", "Identity", "OpenFile"]

ACCESS_MODE: Final = os.O_ACCMODE
#: open(2) sets it for every 64-bit program; glibc says 0.
O_LARGEFILE: Final = 0o100000
#: Flags that fcntl(F_SETFL) may change (SETFL_MASK in fs/fcntl.c).
STATUS_FLAGS: Final = os.O_APPEND | os.O_NONBLOCK | os.O_NDELAY | os.O_DIRECT | os.O_NOATIME | os.O_ASYNC
_S_IFMT: Final = 0o170000
_BLOCK_BYTES: Final = 512


IDENTITY_FIELDS: Final = ("dev", "gid", "handle", "ino", "mode", "namespace", "path", "rdev", "uid")


class Identity:
    """Which inode an open file stands for: plain data, fixed at open."""

    __slots__ = IDENTITY_FIELDS

    def __init__(
        self,
        *,
        mode: int,
        ino: int,
        dev: int,
        rdev: int = 0,
        path: bytes = b"",
        handle: int = 0,
        namespace: str = "",
        uid: int = 0,
        gid: int = 0,
    ) -> None:
        #: File type and permission bits as they were at open.
        self.mode = mode
        self.ino = ino
        self.dev = dev
        self.rdev = rdev
        #: What /proc/self/fd/N shows.
        self.path = path
        #: MountNamespace's number for the open directory entry and its address; 0 for files without a name.
        self.handle = handle
        self.namespace = namespace
        #: Owner of a file without a handle.
        self.uid = uid
        self.gid = gid


class OpenFile:
    """An open file description. The maker holds the first reference."""

    __slots__ = (
        "__weakref__",
        "epolls",
        "flags",
        "host_fd",
        "identity",
        "in_memory",
        "lease",
        "lock_families",
        "number",
        "owner",
        "path_key",
        "quiet",
        "readable",
        "references",
        "worker",
        "writable",
    )

    #: Name of the kind in a saved state.
    kind: ClassVar[str] = ""
    #: read(2) goes on until *count* bytes or the end of the file, write(2) until all is written (regular files).
    fills: ClassVar[bool] = False
    #: write(2) hands over everything at once, or fails (datagrams, counters); else in pieces of ``piece_bytes``.
    atomic: ClassVar[bool] = False
    #: Bytes that one host call moves at most.
    piece_bytes: ClassVar[int] = 1 << 20
    #: pread(2), pwrite(2) and lseek(2) are there.
    seekable: ClassVar[bool] = False
    #: sendfile(2) and splice(2) can read from it, or write to it.
    splice_source: ClassVar[bool] = False
    splice_target: ClassVar[bool] = True
    #: poll(2) waits on the host descriptor; else the file is always ready, and epoll_ctl(2) refuses it with EPERM.
    pollable: ClassVar[bool] = False

    def __init__(self, worker: Worker, identity: Identity, flags: int, host_fd: int = -1) -> None:
        self.worker = worker
        self.identity = identity
        #: By which its attributes are known without asking MountNamespace.
        self.lease: Lease | None = None
        #: Its descriptor is one of contents in memory, by which such a lease is kept up to date.
        self.in_memory = False
        #: The guest has let go of it long ago: who watches shall not see that it is closed.
        self.quiet = False
        #: The path under which it may be kept when the guest closes it.
        self.path_key: Key | None = None
        #: Access mode and status flags as F_GETFL shows them.
        self.flags = flags & ~(os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_TRUNC | os.O_CLOEXEC)
        access = flags & ACCESS_MODE
        self.readable = access in (os.O_RDONLY, os.O_RDWR)
        self.writable = access in (os.O_WRONLY, os.O_RDWR)
        #: The host descriptor that carries the data, -1 for none. Never O_NONBLOCK by the guest's wish: see ``flags``.
        self.host_fd = host_fd
        self.references = 1
        #: Lock families ("ofd", "flock") that this description has held.
        self.lock_families: set[str] = set()
        #: F_SETOWN: (F_OWNER_* type, id, signal).
        self.owner = (0, 0, 0)
        #: Epoll instances that watch this file: they forget it when it closes.
        self.epolls: list[EpollFile] = []
        #: Serial number among the worker's open files; it names the description in locks and in saved states.
        self.number = worker.files.enter(self)

    # -- what others call an attribute of the file --------------------------------------------------------------

    @property
    def mode(self) -> int:
        """st_mode at open: for its type."""
        return self.identity.mode

    @property
    def handle(self) -> int:
        """MountNamespace's number of the open entry, 0 for none."""
        return self.identity.handle

    @property
    def path(self) -> bytes:
        """Path at open, as MountNamespace gave it."""
        return self.identity.path

    @property
    def ino(self) -> int:
        """st_ino."""
        return self.identity.ino

    @property
    def dev(self) -> int:
        """st_dev."""
        return self.identity.dev

    # -- life ---------------------------------------------------------------------------------------------------

    def hold(self) -> OpenFile:
        """Add a reference and return the file."""
        self.references += 1
        return self

    def release(self) -> None:
        """Drop a reference; the last one closes."""
        self.references -= 1
        assert self.references >= 0, f"open file {self.number} released too often"
        if self.references == 0:
            self._close()

    def _close(self) -> None:
        if self.epolls:
            for epoll in list(self.epolls):
                epoll.forget_file(self)
        self.closing()
        worker, identity = self.worker, self.identity
        worker.files.leave(self)
        if self.kept():
            return
        if self.host_fd >= 0:
            if self.in_memory:
                worker.leases.closing(self.host_fd, identity)
            worker.host.close(self.host_fd)
            self.host_fd = -1
        if identity.handle:
            for family in self.lock_families:
                worker.tell(identity.namespace, ReleaseLocks(handle=identity.handle, family=family, owner=self.number))
            worker.leases.let_handle_go(identity, quiet=self.quiet)

    def kept(self) -> bool:
        """Hand descriptor and handle over to whoever opens the same next, or tell that they go."""
        return False

    def closing(self) -> None:
        """Release what only this kind of file has; the host descriptor is still open."""

    # -- data ---------------------------------------------------------------------------------------------------

    def pull(self, task: Task, count: int, offset: int | None) -> Any:
        """Return up to *count* bytes, b"" at the end, from *offset* or (None) the file's own position.

        Raises OSError; BlockingIOError when there is nothing yet.  May return an outcome instead of bytes (a Petition,
        a Block, a negative ERESTART*), which then is the system call's.
        """
        raise OSError(EBADF if not self.readable else EINVAL, "")

    def push(self, task: Task, data: bytes, offset: int | None) -> Any:
        """Take *data* and return how many of its bytes; otherwise like ``pull``."""
        raise OSError(EBADF if not self.writable else EINVAL, "")

    def unread(self, count: int) -> None:
        """The last *count* bytes of a ``pull`` at the own position could not be delivered."""

    def seek(self, task: Task, offset: int, whence: int) -> int:
        """lseek(2)."""
        raise OSError(ESPIPE, "")

    def truncate(self, task: Task, size: int) -> int:
        """ftruncate(2)."""
        raise OSError(EINVAL, "")

    def allocate(self, task: Task, mode: int, offset: int, length: int) -> int:
        """fallocate(2)."""
        raise OSError(ESPIPE if stat.S_ISFIFO(self.mode) else EINVAL, "")

    def sync(self, *, data_only: bool) -> int:
        """fsync(2), fdatasync(2)."""
        raise OSError(EINVAL, "")

    def reopen(self, task: Task, flags: int) -> OpenFile:
        """open(2) of /proc/self/fd/N when N is this file and MountNamespace does not know it. ENXIO."""
        raise OSError(ENXIO, "")

    # -- waiting ------------------------------------------------------------------------------------------------

    def blocked(self, events: int, on_signal: int = ERESTARTSYS) -> Block:
        """Return the wait for *events* (EPOLL*); raise EAGAIN when the guest set O_NONBLOCK."""
        if self.flags & os.O_NONBLOCK:
            raise BlockingIOError(EAGAIN, "")
        return self.wait(events, on_signal)

    def wait(self, events: int, on_signal: int = ERESTARTSYS) -> Block:
        """Return the wait for *events* (EPOLL*)."""
        return Block(fds=((self.host_fd, events),), files=(self,), on_signal=on_signal)

    # -- the rest -----------------------------------------------------------------------------------------------

    def ioctl(self, task: Task, request: int, argument: int) -> Any:
        """ioctl(2), beyond the requests that every file has."""
        raise OSError(ENOTTY, "")

    def set_flags(self, flags: int) -> None:
        """fcntl(F_SETFL); *flags* are within STATUS_FLAGS."""
        self.flags = self.flags & ~STATUS_FLAGS | flags

    def local_status(self, group: ThreadGroup) -> FileStatus:
        """Return the attributes of a file that MountNamespace does not know."""
        identity = self.identity
        return FileStatus(
            dev=identity.dev,
            ino=identity.ino,
            mode=identity.mode,
            nlink=1,
            uid=identity.uid,
            gid=identity.gid,
            rdev=identity.rdev,
            size=0,
            blksize=4096,
            blocks=0,
            atime_ns=self.worker.files.boot_ns,
            mtime_ns=self.worker.files.boot_ns,
            ctime_ns=self.worker.files.boot_ns,
            btime_ns=0,
            mount_id=0,
        )

    def link_text(self) -> bytes:
        """What readlink(2) of /proc/self/fd/N gives without asking MountNamespace."""
        return self.identity.path

    @property
    def file_type(self) -> int:
        """The S_IF* part of the mode."""
        return self.identity.mode & _S_IFMT

    def extra_fdinfo(self) -> bytes:
        """Lines that this kind adds to /proc/self/fdinfo/N."""
        return b""

    def position(self) -> int:
        """The file position that /proc/self/fdinfo shows."""
        return 0

    def state(self) -> dict[str, Any]:
        """Plain data of this description for a save."""
        identity = self.identity
        return {
            "number": self.number,
            "kind": self.kind,
            "flags": self.flags,
            "references": self.references,
            "owner": self.owner,
            "lock_families": sorted(self.lock_families),
            "position": self.position(),
            **{name: getattr(identity, name) for name in IDENTITY_FIELDS},
        }
