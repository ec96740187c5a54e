"""The same file operations on two sides: natively below a chroot, and on a MountNamespace's tree.

Native Linux is the oracle.  An operation is a tuple, its name first; each side carries it out and returns a plain
result, an errno included, so that results compare with ``==``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import stat
from typing import TYPE_CHECKING, Any

import pytest
from greenroom.actors.mount_namespace import attributes, directories, mounting, naming, opening, statfs, xattrs
from greenroom.actors.mount_namespace.host_files import HostFiles
from greenroom.actors.mount_namespace.tree import Tree
from greenroom.messages import mount_namespace as m

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the native side changes its root and its user")

Operation = tuple[Any, ...]
ALL_CAPABILITIES = (1 << 41) - 1
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


def spec(kind: str, target: str, source: str = "", *, read_only: bool = False, size_limit: int = 0) -> m.MountSpec:
    """A mount of the set-up."""
    return m.MountSpec(type=kind, source=source, target=target, read_only=read_only, size_limit=size_limit)


def credentials(uid: int = 0, gid: int | None = None, groups: tuple[int, ...] = ()) -> m.Credentials:
    """A user's: root has every capability."""
    gid = uid if gid is None else gid
    capabilities = 0 if uid else ALL_CAPABILITIES
    return m.Credentials(fsuid=uid, fsgid=gid, groups=groups, capabilities=capabilities, tgid=7, tid=7)


def _shown(status: Any, mode: int, nlink: int, size: int, uid: int, gid: int, rdev: int) -> tuple[int, ...]:
    """What both sides show alike: directories' sizes differ by file system."""
    return mode, nlink, 0 if stat.S_ISDIR(mode) else size, uid, gid, rdev


class Side:
    """Carries out operations; the result of a failed one is its errno's name."""

    def run(self, operation: Operation) -> Any:
        try:
            return getattr(self, operation[0])(*operation[1:])
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))

    def run_all(self, operations: Iterable[Operation]) -> list[Any]:
        return [self.run(operation) for operation in operations]


class Native(Side):
    """The host's own system calls, in a process that has changed its root."""

    def become(self, uid: int, gid: int | None = None, groups: tuple[int, ...] = ()) -> None:
        os.seteuid(0)
        os.setgroups(list(groups))
        os.setegid(uid if gid is None else gid)
        os.seteuid(uid)

    def stat(self, path: bytes, follow: bool = True) -> Any:
        s = os.stat(path, follow_symlinks=follow)
        return _shown(s, s.st_mode, s.st_nlink, s.st_size, s.st_uid, s.st_gid, s.st_rdev)

    def same(self, one: bytes, two: bytes) -> bool:
        a, b = os.stat(one, follow_symlinks=False), os.stat(two, follow_symlinks=False)
        return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)

    def access(self, path: bytes, want: int) -> None:
        if not os.access(path, want, effective_ids=True):
            raise OSError(self._access_errno(path, want), "access")

    def _access_errno(self, path: bytes, want: int) -> int:
        ctypes.set_errno(0)
        _libc.faccessat(-100, path, want, 0x200)
        return ctypes.get_errno()

    def open(self, path: bytes, flags: int, mode: int = 0o644) -> Any:
        fd = os.open(path, flags, mode)
        try:
            return stat.S_IFMT(os.fstat(fd).st_mode)
        finally:
            os.close(fd)

    def write(self, path: bytes, data: bytes, flags: int = os.O_WRONLY | os.O_CREAT) -> int:
        fd = os.open(path, flags, 0o644)
        try:
            return os.write(fd, data)
        finally:
            os.close(fd)

    def read(self, path: bytes) -> bytes:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.read(fd, 1 << 20)
        finally:
            os.close(fd)

    def mkdir(self, path: bytes, mode: int = 0o755) -> None:
        os.mkdir(path, mode)

    def mknod(self, path: bytes, mode: int, rdev: int = 0) -> None:
        os.mknod(path, mode, rdev)

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, path)

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(path)

    def link(self, old: bytes, new: bytes, follow: bool = False) -> None:
        if _libc.linkat(-100, old, -100, new, 0x400 if follow else 0) != 0:
            raise OSError(ctypes.get_errno(), "linkat")

    def unlink(self, path: bytes) -> None:
        os.unlink(path)

    def rmdir(self, path: bytes) -> None:
        os.rmdir(path)

    def rename(self, old: bytes, new: bytes, flags: int = 0) -> None:
        if _libc.renameat2(-100, old, -100, new, flags) != 0:
            raise OSError(ctypes.get_errno(), "renameat2")

    def chmod(self, path: bytes, mode: int) -> int:
        os.chmod(path, mode)
        return os.stat(path).st_mode

    def chown(self, path: bytes, uid: int, gid: int) -> int:
        os.chown(path, uid, gid)
        return os.stat(path).st_mode

    def utime(self, path: bytes, atime_ns: int, mtime_ns: int) -> tuple[int, int]:
        os.utime(path, ns=(atime_ns, mtime_ns))
        s = os.stat(path)
        return s.st_atime_ns, s.st_mtime_ns

    def touch(self, path: bytes) -> None:
        os.utime(path)

    def truncate(self, path: bytes, size: int) -> int:
        os.truncate(path, size)
        return os.stat(path).st_size

    def listdir(self, path: bytes) -> list[bytes]:
        return sorted(os.listdir(path))

    def chdir(self, path: bytes) -> bytes:
        here = os.open(b".", os.O_PATH)
        try:
            os.chdir(path)
            return os.getcwdb()
        finally:
            os.fchdir(here)
            os.close(here)

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int = 0) -> None:
        os.setxattr(path, name, value, flags)

    def getxattr(self, path: bytes, name: bytes) -> bytes:
        return os.getxattr(path, name)

    def removexattr(self, path: bytes, name: bytes) -> None:
        os.removexattr(path, name)

    def openat2(self, base: bytes, path: bytes, flags: int, resolve: int) -> Any:
        how = (ctypes.c_uint64 * 3)(flags, 0, resolve)
        at = os.open(base, os.O_PATH)
        try:
            fd = _libc.syscall(437, at, path, ctypes.byref(how), ctypes.sizeof(how))
            if fd < 0:
                raise OSError(ctypes.get_errno(), "openat2")
            os.close(fd)
            return stat.S_IFREG
        finally:
            os.close(at)


def run_natively(root: str, operations: list[Operation]) -> list[Any]:
    """Run *operations* in a child process whose root is *root*."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.chroot(root)
            os.chdir("/")
            os.umask(0)
            with os.fdopen(writing, "wb") as file:
                pickle.dump(Native().run_all(operations), file)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        results: list[Any] = pickle.load(file)  # noqa: S301  # our own child's
    os.waitpid(child, 0)
    return results


class Guest(Side):
    """A tree; descriptors that it gives out stay descriptors."""

    def __init__(self, *mounts: m.MountSpec, host: HostFiles | None = None) -> None:
        self.tree = Tree(host or HostFiles())
        self.who = credentials()
        self.root = 0
        #: Gets what the answer to unlink(2) says.
        self.told: Callable[[m.NameRemoved], None] = lambda _reply: None
        if mounts:
            self.root = mounting.set_up(self.tree, m.SetUpMounts(mounts=mounts, hostname="box")).handle

    def close(self) -> None:
        """Close what the tree holds on the host."""
        for fs in self.tree.file_systems.values():
            for dentry in (fs.root, *_below(fs)):
                inode = dentry.inode
                if inode is not None and inode.data is not None and inode.data.fd >= 0:
                    os.close(inode.data.fd)
                    inode.data.fd = -1

    def become(self, uid: int, gid: int | None = None, groups: tuple[int, ...] = ()) -> None:
        self.who = credentials(uid, gid, groups)

    def at(self, path: bytes, **fields: Any) -> dict[str, Any]:
        """The fields that all path requests share."""
        return {"root": self.root, "base": self.root, "path": path, "who": self.who, **fields}

    # -- requests -----------------------------------------------------------------------------------------------

    def opened(self, path: bytes, flags: int = 0, mode: int = 0o644, **fields: Any) -> m.Opened:
        request = {"flags": flags, "mode": mode, "resolve": 0, "for_exec": False, **fields}
        return _found(opening.open_path(self.tree, m.Open(**{**self.at(path), **request}), lambda fd: fd))

    def release(self, opened: m.Opened) -> None:
        if opened.token >= 0:
            os.close(opened.token)
        self.tree.release((opened.handle,))

    def status(self, path: bytes, follow: bool = True) -> m.FileStatus:
        found = _found(self.tree.get_status(m.GetStatus(**self.at(path, follow=follow)))).status
        return m.FileStatus.unpack(found)

    def handle_status(self, handle: int) -> m.FileStatus:
        fields = self.at(b"", follow=True, base=handle)
        found = self.tree.get_status(m.GetStatus(**fields)).status
        return m.FileStatus.unpack(found)

    def change(self, path: bytes, **fields: Any) -> m.FileStatus:
        nothing = dict.fromkeys(("mode", "uid", "gid", "atime_ns", "mtime_ns", "size"))
        request = m.ChangeAttributes(**{**self.at(path, follow=True), **nothing, **fields})
        found = attributes.change_attributes(self.tree, request).status
        return m.FileStatus.unpack(found)

    def entries(self, path: bytes, max_bytes: int = 4096) -> list[m.DirectoryEntry]:
        opened = self.opened(path, os.O_RDONLY | os.O_DIRECTORY)
        found: list[m.DirectoryEntry] = []
        while True:
            offset = found[-1].offset if found else 0
            request = m.ReadDirectory(handle=opened.handle, offset=offset, max_bytes=max_bytes)
            more = m.DirectoryEntry.unpack(directories.read_directory(self.tree, request).entries)
            if not more:
                self.release(opened)
                return found
            found += more

    def statfs(self, path: bytes) -> m.FileSystemStatus:
        return statfs.get_file_system_status(self.tree, m.GetFileSystemStatus(**self.at(path)))

    def mount(self, source: bytes, target: bytes, kind: str, flags: int = 0, data: bytes = b"") -> None:
        fields = {"root": self.root, "base": self.root, "source_base": self.root, "who": self.who}
        mounting.mount(self.tree, m.Mount(source=source, target=target, type=kind, flags=flags, data=data, **fields))

    def unmount(self, target: bytes, flags: int = 0) -> None:
        fields = {"root": self.root, "base": self.root, "who": self.who}
        mounting.unmount(self.tree, m.Unmount(target=target, flags=flags, **fields))

    # -- operations ---------------------------------------------------------------------------------------------

    def stat(self, path: bytes, follow: bool = True) -> Any:
        s = self.status(path, follow)
        return _shown(s, s.mode, s.nlink, s.size, s.uid, s.gid, s.rdev)

    def same(self, one: bytes, two: bytes) -> bool:
        a, b = self.status(one, False), self.status(two, False)
        return (a.dev, a.ino) == (b.dev, b.ino)

    def access(self, path: bytes, want: int) -> None:
        _found(self.tree.access(m.Access(**self.at(path, want=want, follow=True))))

    def open(self, path: bytes, flags: int, mode: int = 0o644) -> Any:
        opened = self.opened(path, flags, mode)
        self.release(opened)
        return stat.S_IFMT(opened.mode)

    def write(self, path: bytes, data: bytes, flags: int = os.O_WRONLY | os.O_CREAT) -> int:
        opened = self.opened(path, flags)
        try:
            return os.write(opened.token, data)
        finally:
            self.release(opened)

    def read(self, path: bytes) -> bytes:
        opened = self.opened(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if stat.S_ISDIR(opened.mode):
                raise OSError(errno.EISDIR, "read")
            return os.read(opened.token, 1 << 20)
        finally:
            self.release(opened)

    def mkdir(self, path: bytes, mode: int = 0o755) -> None:
        naming.make_node(self.tree, m.MakeNode(**self.at(path, mode=stat.S_IFDIR | mode, rdev=0)))

    def mknod(self, path: bytes, mode: int, rdev: int = 0) -> None:
        naming.make_node(self.tree, m.MakeNode(**self.at(path, mode=mode, rdev=rdev)))

    def symlink(self, target: bytes, path: bytes) -> None:
        naming.symlink(self.tree, m.Symlink(**self.at(path, target=target)))

    def readlink(self, path: bytes) -> bytes:
        return self.tree.read_link(m.ReadLink(**self.at(path))).text

    def _two(self, old: bytes, new: bytes) -> dict[str, Any]:
        ends = {"old_base": self.root, "old_path": old, "new_base": self.root, "new_path": new}
        return {"root": self.root, "who": self.who, **ends}

    def link(self, old: bytes, new: bytes, follow: bool = False) -> None:
        if not old:
            raise OSError(errno.ENOENT, "linkat")
        naming.link(self.tree, m.Link(follow=follow, **self._two(old, new)))

    def unlink(self, path: bytes) -> None:
        self.told(naming.unlink(self.tree, m.Unlink(**self.at(path, directory=False))))

    def rmdir(self, path: bytes) -> None:
        self.told(naming.unlink(self.tree, m.Unlink(**self.at(path, directory=True))))

    def rename(self, old: bytes, new: bytes, flags: int = 0) -> None:
        naming.rename(self.tree, m.Rename(flags=flags, **self._two(old, new)))

    def chmod(self, path: bytes, mode: int) -> int:
        return self.change(path, mode=mode).mode

    def chown(self, path: bytes, uid: int, gid: int) -> int:
        return self.change(path, uid=uid, gid=gid).mode

    def utime(self, path: bytes, atime_ns: int, mtime_ns: int) -> tuple[int, int]:
        status = self.change(path, atime_ns=atime_ns, mtime_ns=mtime_ns)
        return status.atime_ns, status.mtime_ns

    def touch(self, path: bytes) -> None:
        self.change(path, atime_ns=-1, mtime_ns=-1)

    def truncate(self, path: bytes, size: int) -> int:
        return self.change(path, size=size).size

    def listdir(self, path: bytes) -> list[bytes]:
        return sorted(e.name for e in self.entries(path) if e.name not in (b".", b".."))

    def chdir(self, path: bytes) -> bytes:
        opened = self.tree.become_working_directory(m.BecomeWorkingDirectory(**self.at(path)))
        self.tree.release((opened.handle,))
        return opened.path

    def _xattr(self, operation: str, path: bytes, name: bytes, value: bytes = b"", flags: int = 0) -> bytes:
        fields = {"operation": operation, "follow": True, "name": name, "value": value, "flags": flags}
        return xattrs.change_xattr(self.tree, m.XattrChange(**self.at(path, **fields))).value

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int = 0) -> None:
        self._xattr("set", path, name, value, flags)

    def getxattr(self, path: bytes, name: bytes) -> bytes:
        return self._xattr("get", path, name)

    def removexattr(self, path: bytes, name: bytes) -> None:
        self._xattr("remove", path, name)

    def openat2(self, base: bytes, path: bytes, flags: int, resolve: int) -> Any:
        at = self.opened(base, os.O_PATH)
        try:
            self.release(self.opened(path, flags, 0, base=at.handle, resolve=resolve))
            return stat.S_IFREG
        finally:
            self.release(at)


def _found(reply: Any) -> Any:
    """Raise what a reply says of a name that is missing."""
    if reply.missing:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return reply


def _below(fs: Any) -> Any:
    from greenroom.actors.mount_namespace.checking import entries_below

    return entries_below(fs.root)
