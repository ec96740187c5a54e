"""inotify: who watches which inode, and what they have not read yet.

Linux: fs/notify/inotify and the fsnotify_* hooks of fs/.  An *instance* is an inotify descriptor of a worker; each of
its watches holds a handle on what it watches.  Events wait here until the worker takes them; it is told when there are
some.  What workers do to contents without asking is reported by them, of watched files only: ``FilesWatched`` and
``Opened.watched`` say which those are, so that nobody pays for files that nobody watches.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOSPC, ENOTDIR
from typing import TYPE_CHECKING, Any, Final

from ...config.limits import MAX_INOTIFY_EVENTS, MAX_INOTIFY_WATCHES
from ...messages.mount_namespace import WatchAdded, WatchEvent, WatchEvents
from ...messages.thread_group import EventsReady, FilesWatched
from .errors import fail
from .permissions import READ, check_access

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...messages.base import Message
    from ...messages.mount_namespace import AddWatch, RemoveWatch
    from .handles import Handle, HandleTable
    from .inode import Dentry, Inode
    from .mounts import Place

__all__ = ["Cause", "WatchTable"]

_FORMAT, _DIRECTORY = 0o170000, 0o040000
_O_PATH: Final = 0o10000000


class Cause:
    """IN_*: what happened."""

    ACCESS: Final = 0x1
    MODIFY: Final = 0x2
    ATTRIB: Final = 0x4
    CLOSE_WRITE: Final = 0x8
    CLOSE_NOWRITE: Final = 0x10
    OPEN: Final = 0x20
    MOVED_FROM: Final = 0x40
    MOVED_TO: Final = 0x80
    CREATE: Final = 0x100
    DELETE: Final = 0x200
    DELETE_SELF: Final = 0x400
    MOVE_SELF: Final = 0x800
    ALL: Final = 0xFFF
    Q_OVERFLOW: Final = 0x4000
    IGNORED: Final = 0x8000
    ISDIR: Final = 0x40000000


_ONLYDIR, _DONT_FOLLOW, _EXCL_UNLINK = 0x01000000, 0x02000000, 0x04000000
_MASK_CREATE, _MASK_ADD, _ONESHOT = 0x10000000, 0x20000000, 0x80000000
#: Bits of a mask that a watch keeps.
_KEPT: Final = Cause.ALL | _EXCL_UNLINK | _ONESHOT
#: What only workers see.
_SEEN_BY_WORKERS: Final = Cause.ACCESS | Cause.MODIFY
_COOKIE_MASK: Final = 0xFFFF_FFFF


class _Instance:
    """One inotify descriptor."""

    __slots__ = ("file", "last_wd", "overflown", "queue", "serial", "watches", "worker")

    def __init__(self, worker: str, file: int) -> None:
        self.worker = worker
        self.file = file
        self.last_wd = 0
        self.watches: dict[int, _Watch] = {}
        self.queue: list[WatchEvent] = []
        self.overflown = False
        #: How often the worker was told that there are events.
        self.serial = 0


class _Watch:
    """One inode that an instance watches."""

    __slots__ = ("handle", "instance", "mask", "wd")

    def __init__(self, instance: _Instance, wd: int, mask: int, handle: int) -> None:
        self.instance = instance
        self.wd = wd
        self.mask = mask
        #: Keeps the inode, and the name that it was found by, from being forgotten.
        self.handle = handle


class WatchTable:
    """All watches of a namespace."""

    def __init__(self, handles: HandleTable, release: Callable[[tuple[int, ...]], None]) -> None:
        self._handles = handles
        self._release = release
        self._instances: dict[tuple[str, int], _Instance] = {}
        self.by_inode: dict[Inode, dict[_Instance, _Watch]] = {}
        self.count = 0
        #: Cookie of the last rename: 32 bits, and never 0, which means none.
        self.last_cookie = 0
        #: Tells a worker; and all workers' addresses.
        self.post: Callable[[str, Message], None] = lambda _to, _message: None
        self.workers: tuple[str, ...] = ()

    # -- requests -----------------------------------------------------------------------------------------------

    def add(self, request: AddWatch, place: Place) -> WatchAdded:
        """inotify_add_watch(2): a second watch of an inode changes the first. EACCES, EEXIST, ENOSPC, ENOTDIR."""
        mount, dentry = place
        inode = dentry.inode
        assert inode is not None
        if request.mask & _ONLYDIR and inode.mode & _FORMAT != _DIRECTORY:
            fail(ENOTDIR)
        check_access(inode, request.who, READ)
        instance = self._instances.get((request.worker, request.file))
        if instance is None:
            instance = self._instances[request.worker, request.file] = _Instance(request.worker, request.file)
        watch = self.by_inode.get(inode, {}).get(instance)
        if watch is None:
            if self.count >= MAX_INOTIFY_WATCHES:
                fail(ENOSPC)
            instance.last_wd += 1
            handle = self._handles.add(mount, dentry, _O_PATH).number
            watch = self._enter(_Watch(instance, instance.last_wd, 0, handle), inode)
        elif request.mask & _MASK_CREATE:
            fail(EEXIST)
        kept = watch.mask if request.mask & _MASK_ADD else 0
        watch.mask = kept | request.mask & _KEPT
        self._tell_of_open_files(inode)
        return WatchAdded(wd=watch.wd)

    def _enter(self, watch: _Watch, inode: Inode) -> _Watch:
        watch.instance.watches[watch.wd] = watch
        self.by_inode.setdefault(inode, {})[watch.instance] = watch
        self.count += 1
        return watch

    def remove(self, request: RemoveWatch) -> None:
        """inotify_rm_watch(2): EINVAL."""
        instance = self._instances.get((request.worker, request.file))
        watch = instance.watches.get(request.wd) if instance is not None else None
        if watch is None:
            fail(EINVAL)
        self._drop(watch)

    def take(self, worker: str, file: int) -> WatchEvents:
        """Hand over all events of an instance."""
        instance = self._instances.get((worker, file))
        if instance is None:
            return WatchEvents(events=(), serial=0)
        events, instance.queue, instance.overflown = tuple(instance.queue), [], False
        return WatchEvents(events=events, serial=instance.serial)

    def close(self, worker: str, file: int) -> None:
        """The descriptor is closed."""
        instance = self._instances.pop((worker, file), None)
        if instance is not None:
            for watch in list(instance.watches.values()):
                self._forget(watch)

    def _drop(self, watch: _Watch) -> None:
        """A watch ends, and its instance is told."""
        self._queue(watch.instance, WatchEvent(wd=watch.wd, mask=Cause.IGNORED, cookie=0, name=b""))
        self._forget(watch)

    def _forget(self, watch: _Watch) -> None:
        inode = self._handles.inode(watch.handle)
        del watch.instance.watches[watch.wd]
        watches = self.by_inode[inode]
        del watches[watch.instance]
        if not watches:
            del self.by_inode[inode]
        self.count -= 1
        self._release((watch.handle,))

    # -- what workers must report -------------------------------------------------------------------------------

    def wanted(self, dentry: Dentry) -> int:
        """Return which of ACCESS and MODIFY of this file somebody watches."""
        if not self.by_inode:
            return 0
        mask = 0
        for inode in (dentry.inode, dentry.parent.inode):
            if inode in self.by_inode:
                for watch in self.by_inode[inode].values():
                    mask |= watch.mask
        return mask & _SEEN_BY_WORKERS

    def _tell_of_open_files(self, inode: Inode) -> None:
        """Files that are open already: their workers begin to report."""
        wanted: dict[int, list[int]] = {}
        for number, handle in self._handles.by_number.items():
            dentry = handle.dentry
            if not handle.flags & _O_PATH and inode in (dentry.inode, dentry.parent.inode):
                wanted.setdefault(self.wanted(dentry), []).append(number)
        for mask, numbers in wanted.items():
            for worker in self.workers if mask else ():
                self.post(worker, FilesWatched(handles=tuple(numbers), mask=mask))

    def moved(self, dentry: Dentry) -> None:
        """A name came into a directory that may be watched."""
        if self.by_inode and dentry.inode is not None and self.wanted(dentry):
            self._tell_of_open_files(dentry.inode)

    # -- events -------------------------------------------------------------------------------------------------

    def next_cookie(self) -> int:
        """Return what joins the two events of a rename."""
        self.last_cookie = (self.last_cookie + 1) & _COOKIE_MASK or 1
        return self.last_cookie

    def changed(self, dentry: Dentry, cause: int) -> None:
        """Something happened to a file: its own watches learn it, and by name those of its directory."""
        if not self.by_inode:
            return
        inode = dentry.inode
        assert inode is not None
        if inode.mode & _FORMAT == _DIRECTORY:
            cause |= Cause.ISDIR
        if dentry.parent is not dentry:
            self._event(dentry.parent.inode, cause, dentry.name, unlinked=dentry.gone)
        self._event(inode, cause)

    def named(self, directory: Dentry, name: bytes, inode: Inode, cause: int, cookie: int = 0) -> None:
        """A name of a directory came or went."""
        if self.by_inode:
            is_directory = inode.mode & _FORMAT == _DIRECTORY
            self._event(directory.inode, cause | (Cause.ISDIR if is_directory else 0), name, cookie)

    def itself(self, inode: Inode, cause: int) -> None:
        """Something happened to an inode that no directory learns."""
        if self.by_inode:
            self._event(inode, cause)

    def look_for_end(self, inode: Inode) -> None:
        """A name or a handle of an inode is gone: if they were the last but our own, its watches end."""
        watches = self.by_inode.get(inode) if self.by_inode else None
        if watches and inode.nlink == 0 and inode.opens == len(watches):
            self._event(inode, Cause.DELETE_SELF)
            for watch in list(self.by_inode.get(inode, {}).values()):
                self._drop(watch)

    def closing(self, handle: Handle) -> None:
        """The last reference to a handle goes."""
        if not handle.quiet and not handle.flags & _O_PATH:
            self.changed(handle.dentry, Cause.CLOSE_WRITE if handle.flags & 3 else Cause.CLOSE_NOWRITE)

    def _event(
        self, inode: Inode | None, cause: int, name: bytes = b"", cookie: int = 0, *, unlinked: bool = False
    ) -> None:
        watches = self.by_inode.get(inode) if inode is not None else None
        if watches is None:
            return
        for watch in list(watches.values()):
            if not watch.mask & cause & Cause.ALL or unlinked and watch.mask & _EXCL_UNLINK:
                continue
            self._queue(watch.instance, WatchEvent(wd=watch.wd, mask=cause, cookie=cookie, name=name))
            if watch.mask & _ONESHOT:
                self._drop(watch)

    def _queue(self, instance: _Instance, event: WatchEvent) -> None:
        """Add an event unless it repeats the last one; a full queue says so once."""
        queue = instance.queue
        if queue and queue[-1] == event or instance.overflown:
            return
        if len(queue) >= MAX_INOTIFY_EVENTS:
            instance.overflown = True
            event = WatchEvent(wd=-1, mask=Cause.Q_OVERFLOW, cookie=0, name=b"")
        queue.append(event)
        if len(queue) == 1:
            instance.serial += 1
            self.post(instance.worker, EventsReady(file=instance.file, serial=instance.serial))

    # -- save ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return plain data; handles are saved by whoever saves the tree."""
        instances = [
            {
                "worker": instance.worker,
                "file": instance.file,
                "last_wd": instance.last_wd,
                "serial": instance.serial,
                "overflown": instance.overflown,
                "queue": [(e.wd, e.mask, e.cookie, e.name) for e in instance.queue],
                "watches": [(watch.wd, watch.mask, watch.handle) for watch in instance.watches.values()],
            }
            for instance in self._instances.values()
        ]
        return {"instances": instances, "last_cookie": self.last_cookie}

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of ``state``, when the handles are there."""
        self.last_cookie = state["last_cookie"]
        for saved in state["instances"]:
            instance = _Instance(saved["worker"], saved["file"])
            self._instances[saved["worker"], saved["file"]] = instance
            instance.last_wd, instance.serial = saved["last_wd"], saved["serial"]
            instance.overflown = saved["overflown"]
            instance.queue = [WatchEvent(wd=w, mask=m, cookie=c, name=n) for w, m, c, n in saved["queue"]]
            for wd, mask, handle in saved["watches"]:
                self._enter(_Watch(instance, wd, mask, handle), self._handles.inode(handle))
