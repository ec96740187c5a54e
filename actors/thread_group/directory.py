"""Open directories, and descriptors opened with O_PATH.

Linux counterpart: fs/readdir.c.  Entries and their positions are MountNamespace's; the position of the next read is
kept here. /proc/PID/fd and fdinfo are the exception: what they list is the descriptor table of a process.
"""

from __future__ import annotations

import os
import stat
from errno import EBADF, EINVAL, EISDIR
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ...messages.mount_namespace import DirectoryEntries, ReadDirectory, pack_entry
from ...messages.task_set import ReadProc
from ..runtime.actor import Ask
from .open_file import Identity, OpenFile
from .task import Petition

if TYPE_CHECKING:
    from ..runtime.actor import Asking
    from .task import Task
    from .worker import Worker

__all__ = ["IN_ACCESS", "DescriptorDirectory", "Directory", "PathFile"]

IN_ACCESS: Final = 1

#: Inode numbers of the names in /proc/PID/fd; nobody compares them.
_DESCRIPTOR_INO: Final = 1 << 40


class Directory(OpenFile):
    """A directory that was opened for reading."""

    __slots__ = ("end", "offset", "watched")
    kind: ClassVar[str] = "directory"
    seekable: ClassVar[bool] = True

    def __init__(self, worker: Worker, identity: Identity, flags: int) -> None:
        super().__init__(worker, identity, flags)
        #: Position of the next entry.
        self.offset = 0
        #: Position behind which there was nothing when it was read last, -1: unknown.
        self.end = -1
        #: IN_ACCESS, if somebody watches: every reading must then be told of.
        self.watched = 0

    def entries(self, task: Task, max_bytes: int) -> Asking:
        """Return the next DirectoryEntries that fit; the caller moves ``offset``. ENOENT, EINVAL."""
        request = ReadDirectory(handle=self.handle, offset=self.offset, max_bytes=max_bytes)
        reply = yield Ask(self.identity.namespace, request)
        if reply.lease:
            self.worker.leases.attach_listing(self, reply)
        return reply

    def known_entries(self, max_bytes: int) -> DirectoryEntries | None:
        """Return all entries without asking, where a lease has them, they fit, and reading begins; else None."""
        lease = self.lease
        if self.offset or lease is None or not lease.is_alive or self.watched:
            return None
        listing = lease.listing
        return listing if listing is not None and len(listing.entries) <= max_bytes else None

    def pull(self, task: Task, count: int, offset: int | None) -> Any:
        """A directory is not read so."""
        raise OSError(EISDIR, "")

    def seek(self, task: Task, offset: int, whence: int) -> int:
        """Go back to a position that getdents gave. EINVAL."""
        if whence == os.SEEK_CUR:
            offset += self.offset
        elif whence != os.SEEK_SET:
            raise OSError(EINVAL, "")
        if offset < 0:
            raise OSError(EINVAL, "")
        self.offset = offset
        return offset

    def kept(self) -> bool:
        """For whoever opens it next."""
        return self.path_key is not None and self.worker.leases.keep(self, self.path_key)

    def sync(self, *, data_only: bool) -> int:
        """Names are always on the disk that is not there."""
        return 0

    def position(self) -> int:
        """Return the position of the next entry."""
        return self.offset


class DescriptorDirectory(Directory):
    """/proc/PID/fd and /proc/PID/fdinfo."""

    __slots__ = ("name", "pid")
    kind: ClassVar[str] = "descriptors"

    def __init__(self, worker: Worker, identity: Identity, flags: int, pid: int, name: str) -> None:
        super().__init__(worker, identity, flags)
        self.pid = pid
        self.name = name

    def entries(self, task: Task, max_bytes: int) -> Asking:
        """List the descriptors of the own process, or petition for another's."""
        kind = stat.S_IFLNK >> 12 if self.name.endswith("fd") else stat.S_IFREG >> 12
        if self.pid == task.group.pid:
            names = [b"%d" % fd for fd in task.group.files.descriptors()]
        else:
            answer = task.take_answer()
            if answer is None:
                return Petition(ReadProc, {"pid": self.pid, "name": self.name})
            names = answer.text.split()
        # As proc_readfd_common numbers them: a descriptor's position does not depend on who else is there, so that a
        # reader who closes what it has read misses nothing.
        listed = [(0, b".", 4), (1, b"..", 4), *((int(name) + 2, name, kind) for name in names)]
        return _fitting([entry for entry in listed if entry[0] >= self.offset], max_bytes, self.offset)
        yield  # a generator, like the base's

    def state(self) -> dict[str, Any]:
        """Add whose it is."""
        return {**super().state(), "pid": self.pid, "name": self.name}


def _fitting(listed: list[tuple[int, bytes, int]], max_bytes: int, offset: int) -> DirectoryEntries:
    entries: list[bytes] = []
    for position, name, kind in listed:
        entry = pack_entry(_DESCRIPTOR_INO + position, position + 1, kind, name)
        max_bytes -= len(entry)
        if max_bytes < 0:
            if not entries:
                raise OSError(EINVAL, "")
            break
        entries.append(entry)
        offset = position + 1
    # What is open behind the last may come while it is read.
    return DirectoryEntries(entries=b"".join(entries), offset=offset, end=False)


class PathFile(OpenFile):
    """O_PATH: a place in the tree, not opened."""

    __slots__ = ()
    kind: ClassVar[str] = "path"

    def pull(self, task: Task, count: int, offset: int | None) -> Any:
        """There is nothing to read through it."""
        raise OSError(EBADF, "")

    def push(self, task: Task, data: bytes, offset: int | None) -> Any:
        """Nor to write."""
        raise OSError(EBADF, "")
