"""Descriptor tables of processes, and the registry of a worker's open files.

Linux counterpart: struct files_struct and fs/file.c.  A table is shared between thread groups by CLONE_FILES; it owns
one reference to each file for each descriptor.  Tells MountNamespace ReleaseLocks, because POSIX locks of a process
go when it closes any descriptor of the file.
"""

from __future__ import annotations

from errno import EBADF, EINVAL, EMFILE
from os import O_PATH
from typing import TYPE_CHECKING, Any, Final

from ...messages.mount_namespace import ReleaseLocks
from .budget import Budget
from .limits import Resource
from .unix_names import UnixNames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .actor import ThreadGroup
    from .open_file import OpenFile
    from .terminal import HostTerminal, PtyMaster
    from .worker import Worker

__all__ = ["FileTable", "OpenFiles"]

#: First inode number of pipes, sockets and anonymous files.
_FIRST_INO: Final = 10_000


class OpenFiles:
    """Every open file of one worker, by number; also the source of inode numbers for files without a name."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._files: dict[int, OpenFile] = {}
        #: Of the file systems in memory that have a limit, by st_dev.
        self._budgets: dict[int, Budget] = {}
        self._last_number = 0
        self._last_ino = _FIRST_INO
        #: Times of files without a name: when this worker began.
        self.boot_ns = worker.clock.realtime_ns()
        #: Terminals of the host by the guest's device number, and masters of the guest's own by index.
        self.host_terminals: dict[int, HostTerminal] = {}
        self.masters: dict[int, PtyMaster] = {}
        self.unix_names = UnixNames(worker)
        #: Inode numbers of the host's descriptors that processes were started with, and which of 0, 1 and 2 they were.
        self.standard: dict[int, int] = {}

    def budget(self, dev: int) -> Budget:
        """Return what may be written to the file system *dev*."""
        found = self._budgets.get(dev)
        if found is None:
            found = self._budgets[dev] = Budget(dev)
        return found

    def enter(self, file: OpenFile) -> int:
        """Register a new file and return its number."""
        self._last_number += 1
        self._files[self._last_number] = file
        return self._last_number

    def leave(self, file: OpenFile) -> None:
        """Forget a closed file."""
        del self._files[file.number]

    def renumber(self, file: OpenFile, number: int) -> None:
        """Give a restored file the number that it had when it was saved."""
        self.leave(file)
        file.number = number
        self._files[number] = file

    def counters(self) -> tuple[int, int]:
        """Return the last file and inode numbers, for a save."""
        return self._last_number, self._last_ino

    def skip(self, counters: tuple[int, int]) -> None:
        """Give no file or inode number up to those of a save."""
        self._last_number = max(self._last_number, counters[0])
        self._last_ino = max(self._last_ino, counters[1])

    def get(self, number: int) -> OpenFile | None:
        """Return the file with that number."""
        return self._files.get(number)

    def __iter__(self) -> Iterator[OpenFile]:
        return iter(list(self._files.values()))

    def __len__(self) -> int:
        return len(self._files)

    def new_ino(self) -> int:
        """Return an unused inode number for a pipe, a socket or an anonymous file."""
        self._last_ino += 1
        return self._last_ino

    def new_terminal_index(self) -> int:
        """Return the lowest N for which this worker has no /dev/pts/N; workers take turns, so theirs never meet."""
        number = int(self._worker.address.partition(":")[2] or 0)
        step = max(1, self._worker.node.placement.workers)
        index = number % step
        while index in self.masters:
            index += step
        return index


class FileTable:
    """Descriptors of one process."""

    __slots__ = ("_close_on_exec", "_files", "_lowest", "_opening", "_users", "holds_locks", "lock_owner")

    def __init__(self, lock_owner: int) -> None:
        self._files: dict[int, OpenFile] = {}
        self._close_on_exec: set[int] = set()
        #: No descriptor below this one is free.
        self._lowest = 0
        self._users = 1
        #: Files of opens that wait for their other end (FIFOs), by task.
        self._opening: dict[int, OpenFile] = {}
        #: Owner of the POSIX locks taken through this table (a thread group's serial), and whether there were any.
        self.lock_owner = lock_owner
        self.holds_locks = False

    # -- looking ------------------------------------------------------------------------------------------------

    def get(self, fd: int) -> OpenFile:
        """Return the file behind *fd*. EBADF, also for an O_PATH descriptor."""
        file = self._files.get(fd)
        if file is None or file.flags & O_PATH:
            raise OSError(EBADF, "")
        return file

    def get_any(self, fd: int) -> OpenFile:
        """Return the file behind *fd*, which may be O_PATH. EBADF."""
        file = self._files.get(fd)
        if file is None:
            raise OSError(EBADF, "")
        return file

    def find(self, fd: int) -> OpenFile | None:
        """Return the file behind *fd*, or None."""
        return self._files.get(fd)

    def descriptors(self) -> list[int]:
        """Return the open descriptors in order."""
        return sorted(self._files)

    def is_close_on_exec(self, fd: int) -> bool:
        """Return FD_CLOEXEC of an open descriptor."""
        return fd in self._close_on_exec

    # -- changing -----------------------------------------------------------------------------------------------

    def free_descriptor(self, group: ThreadGroup, minimum: int = 0) -> int:
        """Return the lowest free descriptor from *minimum* on. EMFILE; EINVAL for a *minimum* beyond the limit."""
        limit = group.limits.soft(Resource.NOFILE)
        if minimum >= limit:
            raise OSError(EINVAL if minimum else EMFILE, "")
        files = self._files
        fd = max(minimum, self._lowest)
        while fd in files:
            fd += 1
        if minimum <= self._lowest:
            self._lowest = fd
        if fd >= limit:
            raise OSError(EMFILE, "")
        return fd

    def add(self, group: ThreadGroup, file: OpenFile, *, close_on_exec: bool = False, minimum: int = 0) -> int:
        """Install *file* at the lowest free descriptor and return it; the caller's reference goes to the table.

        EMFILE (the reference is dropped then).
        """
        try:
            fd = self.free_descriptor(group, minimum)
        except OSError:
            file.release()
            raise
        self._files[fd] = file
        if close_on_exec:
            self._close_on_exec.add(fd)
        return fd

    def put(self, group: ThreadGroup, fd: int, file: OpenFile, *, close_on_exec: bool = False) -> None:
        """Install *file* at *fd*, closing what is there (dup2); the caller's reference goes to the table. EBADF."""
        if not 0 <= fd < group.limits.soft(Resource.NOFILE):
            file.release()
            raise OSError(EBADF, "")
        old = self._files.get(fd)
        self._files[fd] = file
        self.set_close_on_exec(fd, on=close_on_exec)
        if old is not None:
            self._closed(old)

    def set_close_on_exec(self, fd: int, *, on: bool) -> None:
        """Set or clear FD_CLOEXEC of an open descriptor."""
        if on:
            self._close_on_exec.add(fd)
        else:
            self._close_on_exec.discard(fd)

    def close(self, fd: int) -> None:
        """close(2). EBADF."""
        file = self._files.pop(fd, None)
        if file is None:
            raise OSError(EBADF, "")
        self._close_on_exec.discard(fd)
        self._lowest = min(self._lowest, fd)
        self._closed(file)

    def _closed(self, file: OpenFile) -> None:
        if self.holds_locks and file.handle:
            message = ReleaseLocks(handle=file.handle, family="posix", owner=self.lock_owner)
            file.worker.tell(file.identity.namespace, message)
        file.release()

    def close_range(self, first: int, last: int) -> None:
        """Close every descriptor from *first* to *last*."""
        for fd in [fd for fd in self._files if first <= fd <= last]:
            self.close(fd)

    def close_on_exec(self) -> None:
        """execve(2): close what has FD_CLOEXEC."""
        for fd in sorted(self._close_on_exec):
            self.close(fd)

    def close_all(self) -> None:
        """Close every descriptor."""
        files, self._files = self._files, {}
        self._close_on_exec.clear()
        self._lowest = 0
        for fd in sorted(files):
            self._closed(files[fd])
        for file in list(self._opening.values()):
            file.release()
        self._opening = {}

    # -- opens in progress --------------------------------------------------------------------------------------

    def park_opening(self, tid: int, file: OpenFile) -> None:
        """Keep the file of an open(2) that waits."""
        self._opening[tid] = file

    def take_opening(self, tid: int) -> OpenFile | None:
        """Give back the file of an open(2) that waited."""
        return self._opening.pop(tid, None)

    # -- sharing ------------------------------------------------------------------------------------------------

    def share(self, group: ThreadGroup) -> FileTable:
        """CLONE_FILES: one more group uses this table."""
        self._users += 1
        return self

    def fork(self, group: ThreadGroup) -> FileTable:
        """Return a copy for *group* with references of its own; POSIX locks are not inherited."""
        table = FileTable(group.group)
        table._files = {fd: file.hold() for fd, file in self._files.items()}
        table._close_on_exec = set(self._close_on_exec)
        table._lowest = self._lowest
        return table

    def unshare(self, group: ThreadGroup) -> FileTable:
        """Return a table that nobody else uses."""
        if self._users == 1:
            return self
        self._users -= 1
        return self.fork(group)

    def drop(self, group: ThreadGroup) -> None:
        """A group ends: close everything with the last one."""
        self._users -= 1
        if self._users == 0:
            self.close_all()

    # -- save ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return plain data: descriptors with their open files' numbers."""
        return {
            "files": {fd: file.number for fd, file in self._files.items()},
            "opening": {tid: file.number for tid, file in self._opening.items()},
            "close_on_exec": sorted(self._close_on_exec),
            "lock_owner": self.lock_owner,
            "holds_locks": self.holds_locks,
        }

    def load(self, state: dict[str, Any], find: Callable[[int, int], OpenFile]) -> None:
        """Take *state* back; *find* gives the restored file for a descriptor (-1: none) and the number it had."""
        self._files = {fd: find(fd, number).hold() for fd, number in state["files"].items()}
        self._opening = {tid: find(-1, number).hold() for tid, number in state["opening"].items()}
        self._close_on_exec = set(state["close_on_exec"])
        self._lowest = 0
        self.holds_locks = state["holds_locks"]
