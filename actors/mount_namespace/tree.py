"""The tree: mounts, file systems, handles and processes' names of one sandbox, and looking things up in it.

Linux: struct mnt_namespace with the parts of fs/namei.c and fs/stat.c that only look.  The operations that change it
are in the modules named after them (``opening``, ``naming``, ``attributes``...), which all work on this object.
``check`` asserts what must always be true of it.
"""

from __future__ import annotations

import stat
from errno import EACCES, EINVAL, ENOENT, ENOTDIR, EROFS
from typing import TYPE_CHECKING, Final

from ...config.limits import MAX_CACHED_DENTRIES, MAX_KNOWN_PATHS
from ...messages.mount_namespace import FileStatus, HandleOpened, PathText, SpaceGranted, StatusReply
from .checking import check_tree
from .dev import DevPts
from .errors import MagicLinkMet, NameMissing, fail
from .file_data import DataStore
from .handles import HandleTable
from .mounts import MS_NOEXEC, MountTable
from .overlay import Overlay
from .permissions import EXECUTE, WRITE, check_access
from .proc import ProcFs
from .processes import ProcessTable
from .tmpfs import TmpFs
from .walk import Walk
from .watches import WatchTable

if TYPE_CHECKING:
    from ...messages.mount_namespace import (
        Access,
        BecomeWorkingDirectory,
        Credentials,
        GetPath,
        GetStatus,
        GrantSpace,
        ReadLink,
    )
    from .file_system import FileSystem
    from .host_files import HostFiles
    from .inode import Dentry, Inode
    from .mounts import Mount, Place

__all__ = ["Tree", "status_reply"]

_FORMAT: Final = 0o170000
_SLASH: Final = ord("/")
_PLAIN_KINDS: Final = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


def status_reply(mount: Mount, dentry: Dentry, *, stable: bool = False) -> StatusReply:
    """Return the attributes of a place; kept with the inode until one changes, since making the reply is what costs.

    *stable*: until then another walk would end there, too, so the reply comes with a lease.
    """
    inode = dentry.inode
    assert inode is not None
    inode.fs.refresh(inode)
    reply = inode.reply
    if reply is None or inode.reply_mount != mount.id or stable and not reply.lease:
        reply = inode.reply = _make_reply(mount, dentry, inode, stable=stable)
        inode.reply_mount = mount.id
    return reply


def _make_reply(mount: Mount, dentry: Dentry, inode: Inode, *, stable: bool) -> StatusReply:
    if inode.lease and inode.reply_mount != mount.id:
        inode.changed()
    return StatusReply(
        status=_make_status(inode, dentry, mount.id).pack(),
        magic="",
        proc_pid=0,
        rest=b"",
        lease=inode.fs.store.leases.grant(inode) if stable else 0,
        host_ctime_ns=inode.data.host_ctime_ns if inode.data is not None and inode.data.users else -1,
    )


def _make_status(inode: Inode, dentry: Dentry, mount_id: int) -> FileStatus:
    size = inode.size
    if inode.mode & _FORMAT == stat.S_IFDIR:
        size = inode.fs.directory_size(inode, len(dentry.children))
    return FileStatus(
        dev=inode.fs.dev,
        ino=inode.ino,
        mode=inode.mode,
        nlink=inode.nlink,
        uid=inode.uid,
        gid=inode.gid,
        rdev=inode.rdev,
        size=size,
        blksize=4096,
        blocks=inode.blocks,
        atime_ns=inode.atime_ns,
        mtime_ns=inode.mtime_ns,
        ctime_ns=inode.ctime_ns,
        btime_ns=inode.btime_ns,
        mount_id=mount_id,
    )


class Tree:
    """Everything that MountNamespace owns."""

    def __init__(self, host: HostFiles) -> None:
        self.host = host
        self.store = DataStore(host)
        self.mounts = MountTable()
        self.handles = HandleTable(self.store)
        self.watches = WatchTable(self.handles, self.release)
        self.processes = ProcessTable()
        #: Every file system that is mounted or was, by st_dev.
        self.file_systems: dict[int, FileSystem] = {}
        self._next_dev = 20
        self._last_place = 0
        self.hostname = "greenroom"
        #: Where walks have ended that would end there again, by all that they depend on (Linux's dcache, whole paths at
        #: once). Whatever may change the end of a walk clears it; new names do not.
        self.places: dict[tuple[int, int, bytes, bool, int, int, tuple[int, ...], int], Place] = {}

    # -- file systems -------------------------------------------------------------------------------------------

    def new_dev(self) -> int:
        """Return an unused st_dev of major number 0."""
        self._next_dev += 1
        return self._next_dev

    def add_file_system(self, fs: FileSystem) -> None:
        """Own *fs*."""
        self.file_systems[fs.dev] = fs
        self._next_dev = max(self._next_dev, fs.dev)

    def prune(self) -> None:
        """Forget cached names of overlays that have too many; called between messages only."""
        for fs in self.file_systems.values():
            if fs.cached > MAX_CACHED_DENTRIES and isinstance(fs, Overlay):
                self.end_walks()
                fs.prune()

    def root_place(self) -> Place:
        """Return the root of the namespace, with whatever is mounted over it."""
        bottom = next(iter(self.mounts.by_id.values()))
        return self.mounts.cross(bottom, bottom.root)

    def let_go(self, dentry: Dentry) -> None:
        """A mount no longer holds *dentry*."""
        inode = dentry.inode
        assert inode is not None
        inode.opens -= 1
        if inode.opens == 0:
            inode.fs.release(inode)

    def drop_mount(self, mount: Mount) -> None:
        """Take a mount out of the tree."""
        for dentry in self.mounts.drop(mount):
            self.let_go(dentry)
        self._retire(mount.fs)

    def _retire(self, fs: FileSystem) -> None:
        """Free a file system that is mounted nowhere any more and has no open file."""
        if any(mount.fs is fs for mount in self.mounts.by_id.values()):
            return
        if any(handle.mount.fs is fs for handle in self.handles.by_number.values()):
            return
        del self.file_systems[fs.dev]
        fs.destroy()

    # -- processes and terminals --------------------------------------------------------------------------------

    def forget_process(self, pid: int) -> None:
        """A process was reaped."""
        self.processes.forget(pid)
        for fs in self.file_systems.values():
            if isinstance(fs, ProcFs):
                fs.forget(pid)

    def rename_host(self, hostname: str) -> None:
        """The sandbox has another host name."""
        self.hostname = hostname
        for fs in self.file_systems.values():
            if isinstance(fs, ProcFs):
                fs.hostname = hostname

    def see_terminal(self, index: int, uid: int, gid: int, mode: int) -> None:
        """A pseudo-terminal exists."""
        for fs in self.file_systems.values():
            if isinstance(fs, DevPts):
                fs.see(index, uid, gid, mode)

    def forget_terminal(self, index: int) -> None:
        """A pseudo-terminal is gone."""
        for fs in self.file_systems.values():
            if isinstance(fs, DevPts):
                fs.forget(index)

    # -- walking ------------------------------------------------------------------------------------------------

    def walk(self, root: int, base: int, path: bytes, who: Credentials, resolve: int = 0) -> Walk:
        """Start a walk of a request; *root* and *base* are handles."""
        place = self.handles.place(root)
        start = place if path[:1] == b"/" and not resolve else self.handles.place(base)
        return Walk(self.mounts, place, start, path, who, resolve)

    def end_walks(self) -> None:
        """Any walk may end elsewhere now."""
        self.places.clear()
        self.store.leases.end_all()

    def place_number(self, mount: Mount, dentry: Dentry) -> int:
        """Return by which number the worker names a directory where paths begin; 0 where leases are of no use.

        It is less than 0, which no handle's is.
        """
        if not mount.fs.in_memory:
            return 0
        if not dentry.number or dentry.number_mount != mount.id:
            self._last_place -= 1
            dentry.number, dentry.number_mount = self._last_place, mount.id
        return dentry.number

    def find(self, root: int, base: int, path: bytes, who: Credentials, follow: bool = True) -> Place:
        """Return the place that a request names; with an empty path the handle *base* itself."""
        return self.locate(root, base, path, who, follow)[0]

    def locate(self, root: int, base: int, path: bytes, who: Credentials, follow: bool = True) -> tuple[Place, bool]:
        """As ``find``, and tell whether the walk would end there again, until a request changes that."""
        if not path:
            place = self.handles.place(base)
            return place, place[0].fs.in_memory
        # Process and thread ids count only in /proc, whose walks are not remembered.
        start = root if path[0] == _SLASH else base
        key = root, start, path, follow, who.fsuid, who.fsgid, who.groups, who.capabilities
        known = self.places.get(key)
        if known is not None and not known[1].gone:
            return known, True
        walk = self.walk(root, base, path, who)
        try:
            place = walk.to_end(follow)
        except OSError as error:
            if error.errno == ENOENT and walk.missing and walk.stable:
                raise NameMissing(walk.missing) from None
            raise
        if walk.stable:
            if len(self.places) >= MAX_KNOWN_PATHS:
                self.places.clear()
            self.places[key] = place
        return place, walk.stable

    def missing_reply(self, error: NameMissing) -> StatusReply:
        """Return the reply that says so; the error itself when nobody may remember it."""
        if not self.store.leases.grant_absence(error.name):
            raise error
        return StatusReply(status=b"", magic="", proc_pid=0, rest=b"", missing=error.name)

    def path_of(self, root: int, place: Place) -> bytes:
        """Return a place's path as seen from the handle *root*, as /proc/self/fd shows it."""
        path = self.mounts.path(self.handles.place(root), place)
        if path is None:
            path = b"(unreachable)/" + place[1].name
        return path + b" (deleted)" if place[1].gone else path

    # -- requests that only look --------------------------------------------------------------------------------

    def get_status(self, request: GetStatus) -> StatusReply:
        """stat(2), lstat(2), fstatat(2), statx(2)."""
        try:
            (mount, dentry), stable = self.locate(request.root, request.base, request.path, request.who, request.follow)
        except MagicLinkMet as met:
            return _magic_status(met)
        except NameMissing as error:
            return self.missing_reply(error)
        return status_reply(mount, dentry, stable=stable)

    def access(self, request: Access) -> StatusReply:
        """access(2): EACCES, or EROFS for writing below a read-only mount."""
        try:
            (mount, dentry), stable = self.locate(request.root, request.base, request.path, request.who, request.follow)
        except MagicLinkMet as met:
            return _magic_status(met)
        except NameMissing as error:
            return self.missing_reply(error)
        inode = dentry.inode
        assert inode is not None
        kind = inode.mode & _FORMAT
        if request.want & EXECUTE and kind == stat.S_IFREG and mount.flags & MS_NOEXEC:
            fail(EACCES)
        if request.want:
            check_access(inode, request.who, request.want & 7)
        if request.want & WRITE and mount.read_only and kind in _PLAIN_KINDS:
            fail(EROFS)
        return status_reply(mount, dentry, stable=stable)

    def read_link(self, request: ReadLink) -> PathText:
        """readlink(2): EINVAL for anything else (ENOENT when *base* itself is meant)."""
        try:
            place, stable = self.locate(request.root, request.base, request.path, request.who, follow=False)
        except MagicLinkMet as met:
            return PathText(text=b"", magic=met.magic, proc_pid=met.pid, rest=met.rest)
        except NameMissing as error:
            if not self.store.leases.grant_absence(error.name):
                raise
            return PathText(text=b"", magic="", proc_pid=0, rest=b"", missing=error.name)
        inode = place[1].inode
        assert inode is not None
        lease = self.store.leases.grant(inode) if stable and request.path else 0
        is_link = inode.mode & _FORMAT == stat.S_IFLNK
        if not is_link and not lease:
            fail(EINVAL if request.path else ENOENT)
        if inode.magic:
            return PathText(text=b"", magic=inode.magic, proc_pid=inode.pid, rest=b"")
        text = inode.fs.read_link(inode, request.who) if is_link else b""
        return PathText(text=text, magic="", proc_pid=0, rest=b"", lease=lease)

    def get_path(self, request: GetPath) -> PathText:
        """getcwd(2): ENOENT when the directory was removed."""
        place = self.handles.place(request.handle)
        if place[1].gone:
            fail(ENOENT)
        return PathText(text=self.path_of(request.root, place), magic="", proc_pid=0, rest=b"")

    def become_working_directory(self, request: BecomeWorkingDirectory) -> HandleOpened:
        """chdir(2), fchdir(2), chroot(2): ENOTDIR, EACCES."""
        place = self.find(request.root, request.base, request.path, request.who)
        inode = place[1].inode
        assert inode is not None
        if inode.mode & _FORMAT != stat.S_IFDIR:
            fail(ENOTDIR)
        check_access(inode, request.who, EXECUTE)
        handle = self.handles.add(*place, 0o10000000)
        return HandleOpened(
            handle=handle.number, path=self.path_of(request.root, place), place=self.place_number(*place)
        )

    def grant_space(self, request: GrantSpace) -> SpaceGranted:
        """Bring the sizes of what is open up to date, and grant what is free."""
        fs = self.file_systems.get(request.dev)
        if not isinstance(fs, TmpFs):
            return SpaceGranted(granted=0)
        for handle in self.handles.by_number.values():
            if handle.data is not None and handle.dentry.inode is not None and handle.dentry.inode.fs is fs:
                fs.refresh(handle.dentry.inode)
        return SpaceGranted(granted=fs.grant(request.worker))

    def release(self, numbers: tuple[int, ...], *, quiet: bool = False) -> None:
        """Drop references; *quiet*: nobody shall see a close in it."""
        watches = self.watches
        for number in numbers:
            handle = self.handles.by_number[number]
            if watches.by_inode and not quiet:
                watches.closing(handle)
            lost = self.handles.release(number)
            if watches.by_inode and lost is not None and lost.dentry.inode is not None:
                watches.look_for_end(lost.dentry.inode)
            if lost is not None and lost.mount.id not in self.mounts.by_id:
                self._retire(lost.mount.fs)

    def check(self) -> None:
        """Assert the invariants of names, inodes, handles, mounts and memfds."""
        check_tree(self)


def _magic_status(met: MagicLinkMet) -> StatusReply:
    return StatusReply(status=b"", magic=met.magic, proc_pid=met.pid, rest=met.rest)
