"""What MountNamespace lets this worker answer by itself: attributes, absent names, and files opened before.

Linux counterpart: the leases of an NFS client (fs/nfs/delegation.c), and its cache of names.  Replies grant leases,
``LeasesEnded`` takes them back before whatever changed the answer is answered itself; see MountNamespace's
``leases.py``.  Nothing here is saved: everything is dropped when a save begins.

A file or directory that the guest has closed may be *kept*: descriptor and handle wait for the next open(2) of the
same path by the same user, which then asks nobody.  Programs and their loaders are held open instead, and every execve
of the same path by the same user shares the open file, whose position nobody uses.
"""

from __future__ import annotations

import os
from errno import EINVAL, ENOENT
from typing import TYPE_CHECKING, Any, Final

from ...config.limits import MAX_KEPT_DESCRIPTORS, MAX_KEPT_FILES, MAX_LEASED_PATHS
from ...messages.mount_namespace import KeepHandle, PathText, ReleaseHandle, inode_of, mode_of, with_contents
from .directory import Directory
from .open_file import O_LARGEFILE
from .regular_file import RegularFile

if TYPE_CHECKING:
    from ...messages.mount_namespace import DirectoryEntries, Opened, StatusReply
    from ...messages.thread_group import LeasesEnded
    from .open_file import Identity, OpenFile
    from .task import Task
    from .worker import Worker

    #: A path with all that decides where it leads, and what is asked of it.
    Key = tuple[Any, ...]

__all__ = ["KEPT_DIRECTORY_FLAGS", "KEPT_FLAGS", "Lease", "Leases"]

#: Flags of open(2) beside O_RDONLY with which a kept file can be used again, and a kept directory.
KEPT_FLAGS: Final = os.O_CLOEXEC | O_LARGEFILE
KEPT_DIRECTORY_FLAGS: Final = KEPT_FLAGS | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_SET_ID_BITS: Final = 0o6000
#: Never changed.
NO_DESCRIPTORS: Final[dict[int, None]] = {}


class Lease:
    """What is known of one inode."""

    __slots__ = ("fds", "host_ctime_ns", "is_alive", "keys", "listing", "opened", "seen", "status", "target")

    def __init__(self) -> None:
        self.is_alive = True
        #: A packed FileStatus, None: not known.
        self.status: bytes | None = None
        #: Where a symbolic link leads, b"" for what is none, None: not known.
        self.target: bytes | None = None
        #: All entries of a directory, None: not known.
        self.listing: DirectoryEntries | None = None
        #: As in StatusReply: at least 0 when descriptors say what size and times are.
        self.host_ctime_ns = -1
        #: What a descriptor said when *status* was made of it; None: not asked yet.
        self.seen: tuple[int, ...] | None = None
        #: Host descriptors of its contents in memory, that the guest has open or that are kept.
        self.fds: dict[int, None] = NO_DESCRIPTORS
        #: The paths that were answered with it.
        self.keys: list[Key] = []
        #: Which file each of these was opened as last, of those with contents in memory.
        self.opened: dict[Key, OpenFile] = {}


class Leases:
    """All leases of a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._by_number: dict[int, Lease] = {}
        self._paths: dict[Key, Lease] = {}
        #: Paths that lead nowhere, and by which missing name.
        self._missing: dict[Key, bytes] = {}
        self._by_name: dict[bytes, list[Key]] = {}
        #: Files that the guest has closed, oldest first.
        self._kept: dict[Key, tuple[int, Identity, bool]] = {}
        self._kept_descriptors = 0
        #: How many open files more than one have the same handle.
        self._shared: dict[int, int] = {}
        #: Files that were executed, oldest first.
        self._programs: dict[Key, OpenFile] = {}
        #: Descriptors of contents in memory by st_dev and st_ino.
        self._contents: dict[tuple[int, int], dict[int, None]] = {}
        #: Numbers of the places that handles of directories stand for, so that paths are known from all of them.
        self.places: dict[int, int] = {}

    # -- looking ------------------------------------------------------------------------------------------------

    def key(self, task: Task, start: int, path: bytes, follow: bool) -> Key:
        """Return under what is known where *path* from the handle *start* leads the caller."""
        group, places = task.group, self.places
        root, c = group.fs.root, group.credentials
        return path, places.get(start, start), places.get(root, root), follow, c.fsuid, c.fsgid, c.groups, c.effective

    def status(self, key: Key) -> bytes | None:
        """Return the packed FileStatus of what a path leads to, None when it is to be asked for. ENOENT."""
        lease = self._paths.get(key)
        if lease is None:
            if key in self._missing:
                raise OSError(ENOENT, "")
            return None
        return lease.status if lease.host_ctime_ns < 0 else self._look(lease)

    def target(self, key: Key) -> bytes | None:
        """Return where the symbolic link at a path leads, None when it is to be asked for. EINVAL, ENOENT."""
        lease = self._paths.get(key)
        if lease is None and key in self._missing:
            raise OSError(ENOENT, "")
        target = None if lease is None else lease.target
        if target == b"":
            raise OSError(EINVAL, "")
        return target

    def is_known(self, key: Key) -> bool:
        """Tell whether a path was answered with a lease that holds. ENOENT."""
        if key in self._missing:
            raise OSError(ENOENT, "")
        return key in self._paths

    def status_of(self, file: OpenFile) -> bytes | None:
        """Return the packed FileStatus of an open file, None when it is to be asked for."""
        lease = file.lease
        if lease is None or not lease.is_alive:
            return None
        return lease.status if lease.host_ctime_ns < 0 else self._look(lease)

    def _look(self, lease: Lease) -> bytes | None:
        """Bring size and times up to date by a descriptor; None when there is none, or when more may have changed."""
        fd = next(iter(lease.fds), -1)
        if fd < 0:
            return None
        assert lease.status is not None
        seen = self._worker.host.file_status(fd)[7:]  # from the size on
        if seen != lease.seen:
            if mode_of(lease.status) & _SET_ID_BITS:
                return None  # a write takes them away
            lease.status = with_contents(lease.status, seen, lease.host_ctime_ns)
            lease.seen, lease.host_ctime_ns = seen, seen[-1]
        return lease.status

    # -- learning -----------------------------------------------------------------------------------------------

    def learn(self, key: Key, reply: StatusReply | Opened | PathText) -> None:
        """Remember what was answered about a path. ENOENT when that is what was answered."""
        if len(self._paths) + len(self._missing) >= MAX_LEASED_PATHS:
            self.drop()
        if reply.lease:
            if isinstance(reply, PathText):
                lease = self._lease(reply.lease)
                lease.target = reply.text
            else:
                lease = self._granted(reply)
            if self._paths.get(key) is not lease:
                self._paths[key] = lease
                lease.keys.append(key)
        elif reply.missing:
            self._missing[key] = reply.missing
            self._by_name.setdefault(reply.missing, []).append(key)
            raise OSError(ENOENT, "")

    def attach(self, file: OpenFile, reply: StatusReply | Opened) -> None:
        """Remember what was answered about an open file."""
        if not reply.lease:
            return
        lease = self._granted(reply)
        self._hold(file, lease)

    def attach_listing(self, file: OpenFile, reply: DirectoryEntries) -> None:
        """Remember all entries of an open directory."""
        lease = self._lease(reply.lease)
        lease.listing = reply
        self._hold(file, lease)

    @staticmethod
    def _hold(file: OpenFile, lease: Lease) -> None:
        if file.lease is not lease:
            # The lease that it was opened with has ended, and with it what the opening could stand for.
            file.lease, file.path_key = lease, None

    def opened(self, file: OpenFile) -> None:
        """A file is open whose descriptor is that of contents in memory."""
        self._contents.setdefault((file.dev, file.ino), {})[file.host_fd] = None

    def closing(self, fd: int, identity: Identity) -> None:
        """Such a descriptor is about to be closed."""
        fds = self._contents[identity.dev, identity.ino]
        del fds[fd]
        if not fds:
            del self._contents[identity.dev, identity.ino]

    def _lease(self, number: int) -> Lease:
        lease = self._by_number.get(number)
        if lease is None:
            lease = self._by_number[number] = Lease()
        return lease

    def _granted(self, reply: StatusReply | Opened) -> Lease:
        lease = self._lease(reply.lease)
        lease.status, lease.host_ctime_ns, lease.seen = reply.status, reply.host_ctime_ns, None
        if reply.host_ctime_ns >= 0:
            lease.fds = self._contents.get(inode_of(reply.status), NO_DESCRIPTORS)
        return lease

    # -- kept files ---------------------------------------------------------------------------------------------

    def keep(self, file: OpenFile, key: Key) -> bool:
        """Take over descriptor and handle of a file that is being closed, if another opening may use them."""
        lease = file.lease
        if lease is None or self._paths.get(key) is not lease or file.lock_families or key in self._kept:
            return False
        self._kept[key] = file.host_fd, file.identity, file.in_memory
        self._kept_descriptors += file.host_fd >= 0
        while len(self._kept) > MAX_KEPT_FILES or self._kept_descriptors > MAX_KEPT_DESCRIPTORS:
            self._release(next(iter(self._kept)))
        return True

    def take(self, key: Key, flags: int) -> OpenFile | None:
        """Give out a kept file for open(2) with *flags*, at its beginning; None when there is none. ENOENT."""
        kept = self._kept.get(key)
        if kept is None:
            if key in self._missing:
                raise OSError(ENOENT, "")
            return None if flags & ~KEPT_FLAGS else self._open_beside(key)
        fd, identity, in_memory = kept
        if fd < 0:
            file: OpenFile = Directory(self._worker, identity, flags | O_LARGEFILE)
        elif flags & ~KEPT_FLAGS:
            return None
        else:
            self._worker.host.seek(fd, 0, os.SEEK_SET)
            file = RegularFile(self._worker, identity, O_LARGEFILE, fd)
            self._kept_descriptors -= 1
        del self._kept[key]
        file.path_key, file.lease, file.in_memory = key, self._paths[key], in_memory
        return file

    def _open_beside(self, key: Key) -> OpenFile | None:
        """Open once more what is open for reading by the same path; both share the handle. None: not so."""
        lease = self._paths.get(key)
        other = lease.opened.get(key) if lease is not None else None
        if other is None or not other.references or other.path_key != key:
            return None
        fd = self._worker.host.reopen(other.host_fd, os.O_RDONLY)
        file = RegularFile(self._worker, other.identity, O_LARGEFILE, fd)
        self._shared[file.handle] = self._shared.get(file.handle, 0) + 1
        file.in_memory = True
        self.opened(file)
        file.lease = lease
        self.may_open_again(file, key)
        return file

    def may_open_again(self, file: OpenFile, key: Key) -> None:
        """What *file* was opened with holds for other openings of its path."""
        file.path_key = key
        if file.in_memory and file.lease is not None:
            file.lease.opened[key] = file

    def let_handle_go(self, identity: Identity, *, quiet: bool) -> None:
        """An open file is closed: the last one with its handle tells."""
        handle = identity.handle
        others = self._shared.get(handle, 0)
        if others > 1:
            self._shared[handle] = others - 1
        elif others:
            del self._shared[handle]
        else:
            self.places.pop(handle, None)
            self._worker.tell(identity.namespace, ReleaseHandle(handles=(handle,), quiet=quiet))

    def _part(self) -> None:
        """Give each open file a reference of its own to the handle that it shares."""
        for file in self._worker.files:
            if self._shared.get(file.handle):
                self._shared[file.handle] -= 1
                self._worker.tell(file.identity.namespace, KeepHandle(handle=file.handle))
        self._shared.clear()

    def _release(self, key: Key) -> None:
        fd, identity, in_memory = self._kept.pop(key)
        if in_memory:
            self.closing(fd, identity)
        if fd >= 0:
            self._worker.host.close(fd)
            self._kept_descriptors -= 1
        self.let_handle_go(identity, quiet=True)

    def release_kept(self) -> None:
        """Close what the guest has closed: nothing shall be busy by it."""
        for key in list(self._kept):
            self._release(key)
        for key in list(self._programs):
            self._let_go(key)

    # -- programs -----------------------------------------------------------------------------------------------

    def program(self, key: Key) -> OpenFile | None:
        """Return the file that an execve of this path has opened, with one more reference; None: ask. ENOENT."""
        file = self._programs.get(key)
        if file is None and key in self._missing:
            raise OSError(ENOENT, "")
        return None if file is None else file.hold()

    def keep_program(self, key: Key, file: OpenFile, reply: Opened) -> None:
        """Hold the file that *reply* has opened for an execve, if a lease came with it."""
        if not reply.lease:
            return
        self.learn(key, reply)
        if len(self._programs) >= MAX_KEPT_DESCRIPTORS:
            self._let_go(next(iter(self._programs)))
        if key in self._programs:
            self._let_go(key)
        self._programs[key] = file.hold()

    def _let_go(self, key: Key) -> None:
        file = self._programs.pop(key)
        file.quiet = file.references == 1
        file.release()

    # -- the end ------------------------------------------------------------------------------------------------

    def ended(self, message: LeasesEnded) -> None:
        """MountNamespace takes something back."""
        if message.everything:
            self.drop()
        for key in self._by_name.pop(message.name, ()):
            self._missing.pop(key, None)
        self.end(message.lease)

    def end(self, number: int) -> None:
        """One lease does not hold any more; 0 or one that has ended: nothing happens."""
        lease = self._by_number.pop(number, None)
        if lease is not None:
            lease.is_alive = False
            for key in lease.keys:
                if key in self._kept:
                    self._release(key)
                if key in self._programs:
                    self._let_go(key)
                self._paths.pop(key, None)

    def drop(self) -> None:
        """Forget everything; from now on each open file has its handle for itself."""
        self.release_kept()
        if self._shared:
            self._part()
        for lease in self._by_number.values():
            lease.is_alive = False
        self._by_number.clear()
        self._paths.clear()
        self._missing.clear()
        self._by_name.clear()
