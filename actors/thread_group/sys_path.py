"""Names and inodes: looking at them, making, renaming and removing them, and changing their attributes.

Linux counterpart: fs/stat.c, fs/namei.c, fs/open.c, fs/readdir.c, fs/utimes.c, fs/xattr.c, fs/statfs.c,
fs/namespace.c.  All of it is asked of MountNamespace; what Linux checks before it looks at the path is checked here,
in Linux's order.
"""

from __future__ import annotations

import enum
import os
import stat
import struct
from errno import (
    E2BIG,
    EINVAL,
    ENODATA,
    ENOENT,
    ENOTDIR,
    EOPNOTSUPP,
    EPERM,
    ERANGE,
    EXDEV,
)
from typing import TYPE_CHECKING, Any, Final

from ...config.limits import MAX_FILE_TIME_S
from ...messages.base import owned
from ...messages.mount_namespace import (
    STAT_BYTES,
    Access,
    BecomeWorkingDirectory,
    ChangeAttributes,
    DirectoryEntries,
    DirectoryEntry,
    FileStatus,
    GetFileSystemStatus,
    GetPath,
    GetStatus,
    Link,
    MakeNode,
    Mount,
    ReadLink,
    Rename,
    Symlink,
    Unlink,
    Unmount,
    XattrChange,
)
from ...messages.task_set import ReadProc
from ..runtime.actor import Ask
from .credentials import CAP_SYS_ADMIN, CAP_SYS_CHROOT
from .directory import Directory
from .limits import Resource
from .open_file import OpenFile
from .opening import release_handle
from .paths import AT_FDCWD, ask_path, ask_two_paths, base_of, link_text, owner_of_link, who
from .table import S32, S64, U32, U64, Address, PathName, syscall
from .task import Petition

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...messages.base import Message
    from ...messages.mount_namespace import PathText
    from ..runtime.actor import Asking
    from .leases import Key
    from .task import Task

_NS: Final = 1_000_000_000
_KEEP: Final = 0xFFFFFFFF  # -1 as a user or group id


class At(enum.IntFlag):
    """AT_*."""

    SYMLINK_NOFOLLOW = 0x100
    REMOVEDIR = 0x200
    EACCESS = 0x200
    SYMLINK_FOLLOW = 0x400
    NO_AUTOMOUNT = 0x800
    EMPTY_PATH = 0x1000
    STATX_SYNC_TYPE = 0x6000


# Plain integers: an operation on an IntFlag is a call of a function in Python.
_NOFOLLOW, _EMPTY_PATH, _EACCESS = int(At.SYMLINK_NOFOLLOW), int(At.EMPTY_PATH), int(At.EACCESS)


def _check(flags: int, allowed: int) -> None:
    if flags & ~int(allowed):
        raise OSError(EINVAL, "")


def _named(path: bytes) -> bytes:
    """An empty path names nothing."""
    if not path:
        raise OSError(ENOENT, "")
    return path


def _start(task: Task, dirfd: int, path: bytes, flags: int = 0) -> int | OpenFile:
    """Return the handle from which a request starts; with AT_EMPTY_PATH and no path, what *dirfd* itself is."""
    if path:
        return base_of(task, dirfd, path)
    if not flags & _EMPTY_PATH:
        raise OSError(ENOENT, "")
    if dirfd == AT_FDCWD:
        return task.group.fs.cwd
    file = task.group.files.get_any(dirfd)
    return file.handle or file


def _start_or_file(task: Task, dirfd: int, path: bytes, flags: int) -> int | OpenFile:
    """As ``_start``, but an open file stands for itself even if MountNamespace knows it."""
    if path or dirfd == AT_FDCWD or not flags & _EMPTY_PATH:
        return _start(task, dirfd, path, flags)
    return task.group.files.get_any(dirfd)


def _ask(task: Task, start: int | OpenFile, path: bytes, build: Callable[[int, bytes], Message]) -> Asking:
    """Ask about a path, or return the open file that MountNamespace does not know."""
    if isinstance(start, OpenFile):
        return start
    return (yield from ask_path(task, start, path, build))


# -- stat -----------------------------------------------------------------------------------------------------------

_STATX: Final = struct.Struct("<IIQIIIH2xQQQQqI4xqI4xqI4xqI4xIIIIQII96x")
_STATX_RESERVED: Final = 0x80000000
_STATX_BASIC_STATS: Final = 0x7FF
_STATX_BTIME, _STATX_MNT_ID = 0x800, 0x1000
_STATX_ATTR_MOUNT_ROOT: Final = 0x2000
_STAT_FLAGS: Final = int(At.SYMLINK_NOFOLLOW | At.NO_AUTOMOUNT | At.EMPTY_PATH | At.STATX_SYNC_TYPE)
_SYNC_TYPE: Final = int(At.STATX_SYNC_TYPE)


def _known_status(task: Task, start: int | OpenFile, path: bytes, *, follow: bool) -> bytes | None:
    """Return the packed FileStatus that a lease allows to give, None when MountNamespace is to be asked. ENOENT."""
    leases = task.worker.leases
    if isinstance(start, OpenFile):
        return leases.status_of(start)
    return leases.status(leases.key(task, start, path, follow)) if path else None


def _ask_status(task: Task, start: int | OpenFile, path: bytes, *, follow: bool = True) -> Asking:
    """Return the packed FileStatus of a path, of a handle (b"") or of an open file."""
    group = task.group
    file = None
    if isinstance(start, OpenFile):
        if not start.handle:
            return (yield from _local_status(task, start))
        file, start = start, start.handle
    leases = task.worker.leases
    key = leases.key(task, start, path, follow) if path else None
    root, caller = group.fs.root, who(task)
    reply = yield Ask(group.mount_namespace, GetStatus(root=root, base=start, path=path, follow=follow, who=caller))
    if not reply.magic:
        if key is not None:
            leases.learn(key, reply)
        elif file is not None:
            leases.attach(file, reply)
        return reply.status
    reply = yield from ask_path(
        task, start, path, lambda base, rest: GetStatus(root=root, base=base, path=rest, follow=follow, who=caller)
    )
    if isinstance(reply, OpenFile):
        return (yield from _local_status(task, reply))
    return reply.status


def _local_status(task: Task, file: OpenFile) -> Asking:
    """Return the packed status of a file that MountNamespace does not know.

    A device that came from the host has a node in the sandbox; ttyname(3) compares the numbers of the two.
    """
    group = task.group
    local = file.local_status(group).pack()
    if not file.path.startswith(b"/dev/"):
        return local
    request = GetStatus(root=group.fs.root, base=group.fs.root, path=file.path, follow=True, who=who(task))
    try:
        packed = (yield Ask(group.mount_namespace, request)).status
    except OSError:
        return local
    return packed if packed and FileStatus.unpack(packed).rdev == file.identity.rdev else local


def _stat_path(task: Task, dirfd: int, path: bytes, buffer: int, *, follow: bool = True) -> Any:
    """Stat of a path that is not empty: what programs do most, so it makes few calls."""
    start = base_of(task, dirfd, path)
    leases = task.worker.leases
    status = leases.status(leases.key(task, start, path, follow))
    if status is None:
        return _ask_stat(task, start, path, buffer, follow=follow)
    task.memory.write(buffer, status[:STAT_BYTES])
    return 0


def _stat_file(task: Task, file: OpenFile, buffer: int) -> Any:
    status = task.worker.leases.status_of(file)
    if status is None:
        if file.handle or file.path.startswith(b"/dev/"):
            return _ask_stat(task, file, b"", buffer, follow=True)
        status = file.local_status(task.group).pack()
    task.memory.write(buffer, status[:STAT_BYTES])
    return 0


def _ask_stat(task: Task, start: int | OpenFile, path: bytes, buffer: int, *, follow: bool) -> Asking:
    status = yield from _ask_status(task, start, path, follow=follow)
    task.memory.write(buffer, status[:STAT_BYTES])
    return 0


@syscall(4, "stat")
def stat_(task: Task, path: PathName, buffer: Address) -> Any:
    """stat(2): attributes of a file. EACCES, EFAULT, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR."""
    return _stat_path(task, AT_FDCWD, _named(path), buffer)


@syscall(6)
def lstat(task: Task, path: PathName, buffer: Address) -> Any:
    """lstat(2): stat of a symbolic link itself. stat(2)'s errnos."""
    return _stat_path(task, AT_FDCWD, _named(path), buffer, follow=False)


@syscall(5)
def fstat(task: Task, fd: S32, buffer: Address) -> Any:
    """fstat(2): attributes of an open file. EBADF, EFAULT."""
    return _stat_file(task, task.group.files.get_any(fd), buffer)


def _path_or_empty(task: Task, address: int, flags: int) -> bytes:
    """A null pointer is an empty path where AT_EMPTY_PATH allows one (since Linux 6.11)."""
    return b"" if not address and flags & _EMPTY_PATH else task.memory.read_path(address)


@syscall(262)
def newfstatat(task: Task, dirfd: S32, path: Address, buffer: Address, flags: S32) -> Any:
    """fstatat(2): EBADF, EINVAL for unknown flags, ENOTDIR and stat(2)'s errnos."""
    if flags & ~_STAT_FLAGS:
        raise OSError(EINVAL, "")
    name = task.memory.read_path(path) if path or not flags & _EMPTY_PATH else b""
    if name:
        return _stat_path(task, dirfd, name, buffer, follow=not flags & _NOFOLLOW)
    start = _start_or_file(task, dirfd, name, flags)
    if isinstance(start, OpenFile):
        return _stat_file(task, start, buffer)
    return _ask_stat(task, start, name, buffer, follow=True)


@syscall(332)
def statx(task: Task, dirfd: S32, path: Address, flags: U32, mask: U32, buffer: Address) -> Asking:
    """statx(2): extended attributes of a file. EBADF, EINVAL for unknown flags or mask, and stat(2)'s errnos."""
    if mask & _STATX_RESERVED or flags & _SYNC_TYPE == _SYNC_TYPE:
        raise OSError(EINVAL, "")
    _check(flags, _STAT_FLAGS)
    name = _path_or_empty(task, path, flags)
    start, follow = _start_or_file(task, dirfd, name, flags), not flags & _NOFOLLOW
    status = _known_status(task, start, name, follow=follow)
    if status is None:
        status = yield from _ask_status(task, start, name, follow=follow)
    task.memory.write(buffer, _pack_statx(FileStatus.unpack(status)))
    return 0


def _pack_statx(s: FileStatus) -> bytes:
    mask = _STATX_BASIC_STATS | (_STATX_BTIME if s.btime_ns else 0) | _STATX_MNT_ID
    return _STATX.pack(
        *(mask, s.blksize, 0, s.nlink, s.uid, s.gid, s.mode, s.ino, s.size, s.blocks, _STATX_ATTR_MOUNT_ROOT),
        *divmod(s.atime_ns, _NS),
        *divmod(s.btime_ns, _NS),
        *divmod(s.ctime_ns, _NS),
        *divmod(s.mtime_ns, _NS),
        *(os.major(s.rdev), os.minor(s.rdev), os.major(s.dev), os.minor(s.dev), s.mount_id, 0, 0),
    )


# -- access, readlink -----------------------------------------------------------------------------------------------


@syscall(21)
def access(task: Task, path: PathName, mode: U32) -> Asking:
    """access(2): may the real user do this? EACCES, EINVAL, EROFS and stat(2)'s errnos."""
    return _access(task, AT_FDCWD, path, mode, 0)


@syscall(269)
def faccessat(task: Task, dirfd: S32, path: PathName, mode: U32) -> Asking:
    """faccessat(2): access relative to a directory. EBADF, ENOTDIR and access(2)'s errnos."""
    return _access(task, dirfd, path, mode, 0)


@syscall(439)
def faccessat2(task: Task, dirfd: S32, path: Address, mode: U32, flags: U32) -> Asking:
    """faccessat2(2): faccessat with AT_EACCESS, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH. EINVAL and access(2)'s errnos."""
    _check(flags, _EACCESS | _NOFOLLOW | _EMPTY_PATH)
    if mode & ~7:
        raise OSError(EINVAL, "")
    return _access(task, dirfd, _path_or_empty(task, path, flags), mode, flags)


def _access(task: Task, dirfd: int, path: bytes, mode: int, flags: int) -> Asking:
    if mode & ~7:
        raise OSError(EINVAL, "")
    group = task.group
    caller = group.credentials.for_files(task, real=not flags & _EACCESS)
    root, follow = group.fs.root, not flags & _NOFOLLOW
    start = _start(task, dirfd, path, flags)
    if isinstance(start, OpenFile):
        return 0
    leases = task.worker.leases
    key = mode, caller.fsuid, caller.fsgid, caller.capabilities, *leases.key(task, start, path, follow)
    if leases.is_known(key):
        return 0
    request = Access(root=root, base=start, path=path, want=mode, follow=follow, who=caller)
    reply = yield Ask(group.mount_namespace, request)
    leases.learn(key, reply)
    if reply.magic:
        yield from ask_path(
            task,
            start,
            path,
            lambda base, rest: Access(root=root, base=base, path=rest, want=mode, follow=follow, who=caller),
        )
    return 0


@syscall(89)
def readlink(task: Task, path: PathName, buffer: Address, size: S32) -> Any:
    """readlink(2): a symbolic link's target. EACCES, EFAULT, EINVAL, ELOOP, ENOENT, ENOTDIR."""
    return _readlink(task, AT_FDCWD, path, buffer, size)


@syscall(267)
def readlinkat(task: Task, dirfd: S32, path: PathName, buffer: Address, size: S32) -> Any:
    """readlinkat(2): readlink relative to a directory; an empty path means *dirfd*, opened with O_PATH."""
    return _readlink(task, dirfd, path, buffer, size)


def _readlink(task: Task, dirfd: int, path: bytes, buffer: int, size: int) -> Any:
    if size <= 0:
        raise OSError(EINVAL, "")
    answer = task.take_answer()
    if answer is not None:
        return _put_link(task, buffer, size, answer.text)
    start = _start(task, dirfd, path, At.EMPTY_PATH)
    if isinstance(start, OpenFile) or not path and dirfd == AT_FDCWD:
        raise OSError(ENOENT, "")
    leases = task.worker.leases
    key = leases.key(task, start, path, False)
    known = leases.target(key)
    if known is not None:
        return _put_link(task, buffer, size, known)
    return _ask_link(task, start, path, buffer, size, key)


def _ask_link(task: Task, start: int, path: bytes, buffer: int, size: int, key: Key) -> Asking:
    group = task.group
    caller, namespace = who(task), group.mount_namespace
    reply = yield Ask(namespace, ReadLink(root=group.fs.root, base=start, path=path, who=caller))
    if not reply.magic:
        task.worker.leases.learn(key, reply)
        return _put_link(task, buffer, size, _link_text(reply))
    if reply.rest:
        rest = yield from ask_path(
            task, start, path, lambda base, p: ReadLink(root=group.fs.root, base=base, path=p, who=caller)
        )
        if isinstance(rest, OpenFile):
            raise OSError(EINVAL, "")
        return _put_link(task, buffer, size, _link_text(rest))
    owner = owner_of_link(task, reply.proc_pid)
    if owner is None:
        return Petition(ReadProc, {"pid": reply.proc_pid, "name": reply.magic})
    text = yield from link_text(owner, reply.magic, group.fs.root)
    return _put_link(task, buffer, size, text)


def _link_text(reply: PathText) -> bytes:
    """EINVAL where a reply says so."""
    if reply.lease and not reply.text:
        raise OSError(EINVAL, "")
    return reply.text


def _put_link(task: Task, buffer: int, size: int, text: bytes) -> int:
    task.memory.write(buffer, text[:size])
    return min(len(text), size)


# -- where we are ---------------------------------------------------------------------------------------------------


@syscall(79)
def getcwd(task: Task, buffer: Address, size: U64) -> Asking:
    """getcwd(2): path of the working directory; its length with the NUL. EFAULT, ENOENT, ERANGE."""
    group = task.group
    reply = yield Ask(group.mount_namespace, GetPath(root=group.fs.root, handle=group.fs.cwd))
    if len(reply.text) >= size:
        raise OSError(ERANGE, "")
    task.memory.write(buffer, reply.text + b"\0")
    return len(reply.text) + 1


@syscall(80)
def chdir(task: Task, path: PathName) -> Asking:
    """chdir(2): EACCES, EFAULT, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR."""
    handle = yield from _enter(task, base_of(task, AT_FDCWD, path), _named(path))
    task.group.fs.set_cwd(task.group, handle)
    return 0


@syscall(81)
def fchdir(task: Task, fd: S32) -> Asking:
    """fchdir(2): EACCES, EBADF, ENOTDIR."""
    file = task.group.files.get_any(fd)
    if not stat.S_ISDIR(file.mode):
        raise OSError(ENOTDIR, "")
    handle = yield from _enter(task, file.handle, b"")
    task.group.fs.set_cwd(task.group, handle)
    return 0


@syscall(161)
def chroot(task: Task, path: PathName) -> Asking:
    """chroot(2): EPERM without CAP_SYS_CHROOT, and chdir(2)'s errnos."""
    handle = yield from _enter(task, base_of(task, AT_FDCWD, path), _named(path))
    if not task.group.credentials.has(CAP_SYS_CHROOT):
        release_handle(task, handle)
        raise OSError(EPERM, "")
    task.group.fs.set_root(task.group, handle)
    return 0


def _enter(task: Task, base: int, path: bytes) -> Asking:
    """Return a new handle on a directory that the caller may search."""
    caller, root = who(task), task.group.fs.root
    reply = yield from ask_path(
        task, base, path, lambda at, rest: BecomeWorkingDirectory(root=root, base=at, path=rest, who=caller)
    )
    if isinstance(reply, OpenFile):
        raise OSError(ENOTDIR, "")
    if reply.place:
        task.worker.leases.places[reply.handle] = reply.place
    return reply.handle


@syscall(95)
def umask(task: Task, mask: U32) -> int:
    """umask(2): set the mask for new files and return the old one. Never fails."""
    fs = task.group.fs
    old, fs.umask = fs.umask, mask & 0o777
    return old


# -- reading directories --------------------------------------------------------------------------------------------

_DIRENT: Final = struct.Struct("<QqH")


@syscall(217)
def getdents64(task: Task, fd: S32, buffer: Address, size: U32) -> Any:
    """getdents64(2): the next entries of a directory. EBADF, EFAULT, EINVAL, ENOENT, ENOTDIR."""
    return _getdents(task, fd, buffer, size, bytes)


@syscall(78)
def getdents(task: Task, fd: S32, buffer: Address, size: U32) -> Any:
    """getdents(2): as getdents64, in the old format. EBADF, EFAULT, EINVAL, ENOENT, ENOTDIR."""
    return _getdents(task, fd, buffer, size, _in_old_format)


def _getdents(task: Task, fd: int, buffer: int, size: int, convert: Callable[[bytes], bytes]) -> Any:
    file = task.group.files.get(fd)
    if not isinstance(file, Directory):
        raise OSError(ENOTDIR, "")
    if file.offset == file.end and not file.watched:
        # The last entries came with the word that they are the last: the reading that finds none asks nobody. But once
        # only: who goes on reading wants to know whether the directory is still there.
        file.end = -1
        return 0
    known = file.known_entries(size)
    if known is not None:
        return _put_entries(task, file, known, buffer, convert)
    return _read_entries(task, file, buffer, size, convert)


def _read_entries(task: Task, file: Directory, buffer: int, size: int, convert: Callable[[bytes], bytes]) -> Asking:
    file.hold()
    try:
        reply = yield from file.entries(task, min(size, 1 << 20))
        if type(reply) is not DirectoryEntries:
            return reply
        return _put_entries(task, file, reply, buffer, convert)
    finally:
        file.release()


def _put_entries(
    task: Task, file: Directory, reply: DirectoryEntries, buffer: int, convert: Callable[[bytes], bytes]
) -> int:
    if reply.entries:
        task.memory.write(buffer, convert(reply.entries))
        file.offset = reply.offset
        file.end = reply.offset if reply.end else -1
    return len(reply.entries)


def _in_old_format(entries: bytes) -> bytes:
    """struct linux_dirent: as long as the new one, with the type in its last byte."""
    converted = []
    for entry in DirectoryEntry.unpack(entries):
        length = DirectoryEntry.packed_size(entry.name)
        head = _DIRENT.pack(entry.ino, entry.offset, length)
        converted.append((head + entry.name).ljust(length - 1, b"\0") + bytes([entry.type]))
    return b"".join(converted)


# -- making and removing names --------------------------------------------------------------------------------------


def _make(task: Task, dirfd: int, path: bytes, mode: int, rdev: int = 0) -> Asking:
    fs, caller = task.group.fs, who(task)
    masked = mode & ~fs.umask
    yield from ask_path(
        task,
        base_of(task, dirfd, _named(path)),
        path,
        lambda base, rest: MakeNode(root=fs.root, base=base, path=rest, mode=masked, rdev=rdev, who=caller),
    )
    return 0


@syscall(83)
def mkdir(task: Task, path: PathName, mode: U32) -> Asking:
    """mkdir(2): EACCES, EFAULT, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, EROFS."""
    return _make(task, AT_FDCWD, path, stat.S_IFDIR | mode & 0o1777)


@syscall(258)
def mkdirat(task: Task, dirfd: S32, path: PathName, mode: U32) -> Asking:
    """mkdirat(2): mkdir relative to a directory. EBADF, ENOTDIR and mkdir(2)'s errnos."""
    return _make(task, dirfd, path, stat.S_IFDIR | mode & 0o1777)


@syscall(133)
def mknod(task: Task, path: PathName, mode: U32, rdev: U32) -> Asking:
    """mknod(2): EACCES, EINVAL, EPERM for devices without CAP_MKNOD, and mkdir(2)'s errnos."""
    return _mknod(task, AT_FDCWD, path, mode, rdev)


@syscall(259)
def mknodat(task: Task, dirfd: S32, path: PathName, mode: U32, rdev: U32) -> Asking:
    """mknodat(2): mknod relative to a directory. EBADF, ENOTDIR and mknod(2)'s errnos."""
    return _mknod(task, dirfd, path, mode, rdev)


def _mknod(task: Task, dirfd: int, path: bytes, mode: int, rdev: int) -> Asking:
    kind = stat.S_IFMT(mode) or stat.S_IFREG
    if kind == stat.S_IFDIR:
        raise OSError(EPERM, "")
    if kind not in (stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
        raise OSError(EINVAL, "")
    return _make(task, dirfd, path, kind | mode & 0o7777, rdev)


def _unlink(task: Task, dirfd: int, path: bytes, *, directory: bool) -> Asking:
    root, caller = task.group.fs.root, who(task)
    removed = yield from ask_path(
        task,
        base_of(task, dirfd, _named(path)),
        path,
        lambda base, rest: Unlink(root=root, base=base, path=rest, directory=directory, who=caller),
    )
    task.worker.leases.end(removed.lease)
    return 0


@syscall(87)
def unlink(task: Task, path: PathName) -> Asking:
    """unlink(2): EACCES, EBUSY, EFAULT, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EROFS."""
    return _unlink(task, AT_FDCWD, path, directory=False)


@syscall(84)
def rmdir(task: Task, path: PathName) -> Asking:
    """rmdir(2): EACCES, EBUSY, EINVAL, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, EROFS."""
    return _unlink(task, AT_FDCWD, path, directory=True)


@syscall(263)
def unlinkat(task: Task, dirfd: S32, path: PathName, flags: S32) -> Asking:
    """unlinkat(2): unlink, or rmdir with AT_REMOVEDIR, relative to a directory. EBADF, EINVAL and their errnos."""
    _check(flags, At.REMOVEDIR)
    return _unlink(task, dirfd, path, directory=bool(flags & At.REMOVEDIR))


def _rename(task: Task, old_dirfd: int, old: bytes, new_dirfd: int, new: bytes, flags: int) -> Asking:
    root, caller = task.group.fs.root, who(task)

    def request(at: tuple[int, bytes], to: tuple[int, bytes]) -> Rename:
        return Rename(
            root=root,
            old_base=at[0],
            old_path=at[1],
            new_base=to[0],
            new_path=to[1],
            flags=flags,
            who=caller,
        )

    places = (base_of(task, old_dirfd, _named(old)), old), (base_of(task, new_dirfd, _named(new)), new)
    yield from ask_two_paths(task, *places, request)
    return 0


@syscall(82)
def rename(task: Task, old: PathName, new: PathName) -> Asking:
    """rename(2): EACCES, EBUSY, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, EROFS, EXDEV."""
    return _rename(task, AT_FDCWD, old, AT_FDCWD, new, 0)


@syscall(264)
def renameat(task: Task, old_dirfd: S32, old: PathName, new_dirfd: S32, new: PathName) -> Asking:
    """renameat(2): rename relative to directories. EBADF, ENOTDIR and rename(2)'s errnos."""
    return _rename(task, old_dirfd, old, new_dirfd, new, 0)


@syscall(316)
def renameat2(task: Task, old_dirfd: S32, old: PathName, new_dirfd: S32, new: PathName, flags: U32) -> Asking:
    """renameat2(2): renameat with RENAME_NOREPLACE, RENAME_EXCHANGE. EINVAL and renameat(2)'s errnos."""
    if flags & ~7 or flags & 3 == 3 or flags & 6 == 6:
        raise OSError(EINVAL, "")
    return _rename(task, old_dirfd, old, new_dirfd, new, flags)


@syscall(86)
def link(task: Task, old: PathName, new: PathName) -> Asking:
    """link(2): EACCES, ELOOP, EMLINK, ENOENT, ENOTDIR, EPERM, EROFS, EXDEV."""
    return _link(task, AT_FDCWD, old, AT_FDCWD, new, 0)


@syscall(265)
def linkat(task: Task, old_dirfd: S32, old: PathName, new_dirfd: S32, new: PathName, flags: S32) -> Asking:
    """linkat(2): link relative to directories; AT_EMPTY_PATH, AT_SYMLINK_FOLLOW. EINVAL and link(2)'s errnos."""
    _check(flags, At.SYMLINK_FOLLOW | At.EMPTY_PATH)
    return _link(task, old_dirfd, old, new_dirfd, new, flags)


def _link(task: Task, old_dirfd: int, old: bytes, new_dirfd: int, new: bytes, flags: int) -> Asking:
    start = _start(task, old_dirfd, old, flags)
    new_base = base_of(task, new_dirfd, _named(new))
    caller, root = who(task), task.group.fs.root
    follow = bool(flags & At.SYMLINK_FOLLOW)
    if isinstance(start, OpenFile):
        raise OSError(ENOENT, "")

    def request(at: tuple[int, bytes], to: tuple[int, bytes]) -> Link:
        return Link(
            root=root,
            old_base=at[0],
            old_path=at[1],
            new_base=to[0],
            new_path=to[1],
            follow=follow,
            who=caller,
        )

    if isinstance((yield from ask_two_paths(task, (start, old), (new_base, new), request)), OpenFile):
        raise OSError(EXDEV, "")
    return 0


@syscall(88)
def symlink(task: Task, target: PathName, path: PathName) -> Asking:
    """symlink(2): EACCES, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, EROFS."""
    return _symlink(task, target, AT_FDCWD, path)


@syscall(266)
def symlinkat(task: Task, target: PathName, dirfd: S32, path: PathName) -> Asking:
    """symlinkat(2): symlink relative to a directory. EBADF, ENOTDIR and symlink(2)'s errnos."""
    return _symlink(task, target, dirfd, path)


def _symlink(task: Task, target: bytes, dirfd: int, path: bytes) -> Asking:
    root, caller = task.group.fs.root, who(task)
    _named(target)
    yield from ask_path(
        task,
        base_of(task, dirfd, _named(path)),
        path,
        lambda base, rest: Symlink(root=root, base=base, path=rest, target=target, who=caller),
    )
    return 0


# -- attributes -----------------------------------------------------------------------------------------------------


@owned
class _Change:
    """What a call changes; None stays."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    size: int | None = None


def _change(task: Task, start: int | OpenFile, path: bytes, change: _Change, *, follow: bool = True) -> Asking:
    caller, root = who(task), task.group.fs.root
    reply = yield from _ask(
        task,
        start,
        path,
        lambda base, rest: ChangeAttributes(
            root=root,
            base=base,
            path=rest,
            follow=follow,
            mode=change.mode,
            uid=change.uid,
            gid=change.gid,
            atime_ns=change.atime_ns,
            mtime_ns=change.mtime_ns,
            size=change.size,
            who=caller,
        ),
    )
    if isinstance(reply, OpenFile):
        _change_here(reply, change)
    return 0


def _change_here(file: OpenFile, change: _Change) -> None:
    """Pipes, sockets and anonymous files keep mode and owner for whoever looks; their times stand still."""
    identity = file.identity
    if change.mode is not None:
        identity.mode = identity.mode & ~0o7777 | change.mode
    if change.uid is not None:
        identity.uid = change.uid
    if change.gid is not None:
        identity.gid = change.gid


def _start_of_file(task: Task, fd: int) -> int | OpenFile:
    """For calls on a descriptor. EBADF, also for O_PATH."""
    file = task.group.files.get(fd)
    return file.handle or file


@syscall(90)
def chmod(task: Task, path: PathName, mode: U32) -> Asking:
    """chmod(2): EACCES, EFAULT, ELOOP, ENOENT, ENOTDIR, EPERM, EROFS."""
    return _change(task, _start(task, AT_FDCWD, path), path, _Change(mode=mode & 0o7777))


@syscall(91)
def fchmod(task: Task, fd: S32, mode: U32) -> Asking:
    """fchmod(2): EBADF, EPERM, EROFS."""
    return _change(task, _start_of_file(task, fd), b"", _Change(mode=mode & 0o7777))


@syscall(268)
def fchmodat(task: Task, dirfd: S32, path: PathName, mode: U32) -> Asking:
    """fchmodat(2): chmod relative to a directory. EBADF, ENOTDIR and chmod(2)'s errnos."""
    return _change(task, _start(task, dirfd, path), path, _Change(mode=mode & 0o7777))


@syscall(452)
def fchmodat2(task: Task, dirfd: S32, path: Address, mode: U32, flags: U32) -> Asking:
    """fchmodat2(2): fchmodat with AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH. EINVAL, EOPNOTSUPP and chmod(2)'s errnos."""
    _check(flags, _NOFOLLOW | _EMPTY_PATH)
    name = _path_or_empty(task, path, flags)
    start, follow = _start(task, dirfd, name, flags), not flags & _NOFOLLOW
    return _change(task, start, name, _Change(mode=mode & 0o7777), follow=follow)


def _owner(uid: int, gid: int) -> _Change:
    return _Change(uid=None if uid == _KEEP else uid, gid=None if gid == _KEEP else gid)


@syscall(92)
def chown(task: Task, path: PathName, uid: U32, gid: U32) -> Asking:
    """chown(2): EACCES, EFAULT, ELOOP, ENOENT, ENOTDIR, EPERM, EROFS."""
    return _change(task, _start(task, AT_FDCWD, path), path, _owner(uid, gid))


@syscall(94)
def lchown(task: Task, path: PathName, uid: U32, gid: U32) -> Asking:
    """lchown(2): chown of a symbolic link itself. chown(2)'s errnos."""
    return _change(task, _start(task, AT_FDCWD, path), path, _owner(uid, gid), follow=False)


@syscall(93)
def fchown(task: Task, fd: S32, uid: U32, gid: U32) -> Asking:
    """fchown(2): EBADF, EPERM, EROFS."""
    return _change(task, _start_of_file(task, fd), b"", _owner(uid, gid))


@syscall(260)
def fchownat(task: Task, dirfd: S32, path: Address, uid: U32, gid: U32, flags: S32) -> Asking:
    """fchownat(2): chown relative to a directory, with AT_* flags. EBADF, EINVAL and chown(2)'s errnos."""
    _check(flags, _NOFOLLOW | _EMPTY_PATH)
    name = _path_or_empty(task, path, flags)
    start, follow = _start(task, dirfd, name, flags), not flags & _NOFOLLOW
    return _change(task, start, name, _owner(uid, gid), follow=follow)


_UTIME_NOW, _UTIME_OMIT = 0x3FFFFFFF, 0x3FFFFFFE
_TIMESPECS: Final = struct.Struct("<qqqq")
_UTIMBUF: Final = struct.Struct("<qq")
_US_PER_S: Final = 1_000_000
_NOW: Final = -1


def _timespec(seconds: int, nanoseconds: int) -> int | None:
    if nanoseconds == _UTIME_NOW:
        return _NOW
    if nanoseconds == _UTIME_OMIT:
        return None
    if not 0 <= nanoseconds < _NS:
        raise OSError(EINVAL, "")
    return _file_time(seconds, nanoseconds)


def _file_time(seconds: int, nanoseconds: int = 0) -> int:
    """Return a time of a file in ns, the nearest that file systems here can keep (timestamp_truncate)."""
    if seconds >= MAX_FILE_TIME_S:
        return MAX_FILE_TIME_S * _NS
    return max(seconds, -MAX_FILE_TIME_S) * _NS + nanoseconds


@syscall(280)
def utimensat(task: Task, dirfd: S32, path: Address, times: Address, flags: S32) -> Any:
    """utimensat(2): set access and modification times; a null path means *dirfd*. EACCES, EBADF, EFAULT, EINVAL..."""
    change = _Change(atime_ns=_NOW, mtime_ns=_NOW)
    if times:
        a_s, a_ns, m_s, m_ns = _TIMESPECS.unpack(task.memory.read(times, _TIMESPECS.size))
        if a_ns == m_ns == _UTIME_OMIT:
            return 0
        change = _Change(atime_ns=_timespec(a_s, a_ns), mtime_ns=_timespec(m_s, m_ns))
    if not path and dirfd != AT_FDCWD:
        if flags:
            raise OSError(EINVAL, "")
        return _change(task, _start_of_file(task, dirfd), b"", change)
    _check(flags, _NOFOLLOW | _EMPTY_PATH)
    name = task.memory.read_path(path)
    start, follow = _start(task, dirfd, name, flags), not flags & _NOFOLLOW
    return _change(task, start, name, change, follow=follow)


@syscall(261)
def futimesat(task: Task, dirfd: S32, path: Address, times: Address) -> Asking:
    """futimesat(2): times in microseconds. utimensat(2)'s errnos."""
    return _utimes(task, dirfd, path, times)


@syscall(235)
def utimes(task: Task, path: Address, times: Address) -> Asking:
    """utimes(2): times in microseconds. utimensat(2)'s errnos."""
    return _utimes(task, AT_FDCWD, path, times)


def _utimes(task: Task, dirfd: int, path: int, times: int) -> Asking:
    change = _Change(atime_ns=_NOW, mtime_ns=_NOW)
    if times:
        a_s, a_us, m_s, m_us = _TIMESPECS.unpack(task.memory.read(times, _TIMESPECS.size))
        if not (0 <= a_us < _US_PER_S and 0 <= m_us < _US_PER_S):
            raise OSError(EINVAL, "")
        change = _Change(atime_ns=_file_time(a_s, a_us * 1000), mtime_ns=_file_time(m_s, m_us * 1000))
    if not path and dirfd != AT_FDCWD:
        return _change(task, _start_of_file(task, dirfd), b"", change)
    name = task.memory.read_path(path)
    return _change(task, _start(task, dirfd, name), name, change)


@syscall(132)
def utime(task: Task, path: PathName, times: Address) -> Asking:
    """utime(2): times in seconds. utimensat(2)'s errnos."""
    change = _Change(atime_ns=_NOW, mtime_ns=_NOW)
    if times:
        atime, mtime = _UTIMBUF.unpack(task.memory.read(times, _UTIMBUF.size))
        change = _Change(atime_ns=_file_time(atime), mtime_ns=_file_time(mtime))
    return _change(task, _start(task, AT_FDCWD, path), path, change)


@syscall(76)
def truncate(task: Task, path: PathName, size: S64) -> Asking:
    """truncate(2): EACCES, EFBIG, EINVAL, EISDIR, ENOENT, ENOTDIR, EPERM, EROFS, ETXTBSY."""
    from .regular_file import exceeded

    if size < 0:
        raise OSError(EINVAL, "")
    if size > task.group.limits.soft(Resource.FSIZE):
        exceeded(task)
    return _change(task, _start(task, AT_FDCWD, path), path, _Change(size=size))


# -- file systems ---------------------------------------------------------------------------------------------------

_STATFS: Final = struct.Struct("<qqQQQQQiiqqq32x")
_ANONYMOUS_FS_MAGIC: Final = {stat.S_IFIFO: 0x50495045, stat.S_IFSOCK: 0x534F434B, 0: 0x09041934}
_TMPFS_MAGIC: Final = 0x01021994
_FSTYPE_MAX: Final = 4096
#: MS_BIND and MS_MOVE: the source is a path.
_MS_OF_A_PLACE: Final = 4096 | 8192


@syscall(137)
def statfs(task: Task, path: PathName, buffer: Address) -> Asking:
    """statfs(2): EACCES, EFAULT, ELOOP, ENOENT, ENOTDIR."""
    return _statfs(task, _start(task, AT_FDCWD, path), path, buffer)


@syscall(138)
def fstatfs(task: Task, fd: S32, buffer: Address) -> Asking:
    """fstatfs(2): EBADF, EFAULT."""
    file = task.group.files.get_any(fd)
    return _statfs(task, file.handle or file, b"", buffer)


def _statfs(task: Task, start: int | OpenFile, path: bytes, buffer: int) -> Asking:
    caller, root = who(task), task.group.fs.root
    s = yield from _ask(
        task, start, path, lambda base, rest: GetFileSystemStatus(root=root, base=base, path=rest, who=caller)
    )
    if isinstance(s, OpenFile):
        magic = _ANONYMOUS_FS_MAGIC.get(s.file_type, _TMPFS_MAGIC)
        data = _STATFS.pack(magic, 4096, 0, 0, 0, 0, 0, 0, 0, 255, 4096, 0)
    else:
        data = _STATFS.pack(
            s.type, s.bsize, s.blocks, s.bfree, s.bavail, s.files, s.ffree, 0, 0, s.namelen, s.bsize, s.flags
        )
    task.memory.write(buffer, data)
    return 0


@syscall(165, partial="the types of the sandbox (tmpfs, proc, bind...); propagation flags are accepted and ignored")
def mount(task: Task, source: Address, target: PathName, kind: Address, flags: U64, data: Address) -> Asking:
    """mount(2): EACCES, EBUSY, EFAULT, EINVAL, ENODEV, ENOENT, ENOTDIR, EPERM without CAP_SYS_ADMIN."""
    memory, group = task.memory, task.group
    source_text = memory.read_path(source) if source else b""
    type_text = memory.read_string(kind, _FSTYPE_MAX).decode("latin-1") if kind else ""
    data_text = memory.read_string(data, _FSTYPE_MAX - 1) if data else b""
    if not group.credentials.has(CAP_SYS_ADMIN):
        raise OSError(EPERM, "")
    if flags & _MS_OF_A_PLACE and not source_text:
        raise OSError(EINVAL, "")
    caller, root, cwd = who(task), group.fs.root, group.fs.cwd

    def request(at: tuple[int, bytes], to: tuple[int, bytes]) -> Mount:
        return Mount(
            root=root,
            source_base=at[0],
            source=at[1],
            base=to[0],
            target=to[1],
            type=type_text,
            flags=flags,
            data=data_text,
            who=caller,
        )

    if isinstance((yield from ask_two_paths(task, (cwd, source_text), (cwd, _named(target)), request)), OpenFile):
        raise OSError(ENOTDIR, "")
    return 0


@syscall(166)
def umount2(task: Task, target: PathName, flags: S32) -> Asking:
    """umount2(2): EBUSY, EINVAL, ENOENT, EPERM without CAP_SYS_ADMIN."""
    _check(flags, 15)
    group = task.group
    if not group.credentials.has(CAP_SYS_ADMIN):
        raise OSError(EPERM, "")
    root, caller = group.fs.root, who(task)
    base = base_of(task, AT_FDCWD, _named(target))
    task.worker.leases.release_kept()
    reply = yield from ask_path(
        task, base, target, lambda at, rest: Unmount(root=root, base=at, target=rest, flags=flags, who=caller)
    )
    if isinstance(reply, OpenFile):
        raise OSError(EINVAL, "")
    return 0


@syscall(303)
def name_to_handle_at(task: Task, dirfd: S32, path: PathName, handle: Address, mount_id: Address, flags: S32) -> int:
    """name_to_handle_at(2): no file system of the sandbox can be exported: EOPNOTSUPP. EINVAL."""
    _check(flags, At.EMPTY_PATH | At.SYMLINK_FOLLOW | 0x200)
    raise OSError(EOPNOTSUPP, "")


# -- extended attributes --------------------------------------------------------------------------------------------

_XATTR_NAME_MAX: Final = 255
_XATTR_SIZE_MAX: Final = 65536
_XATTR_CREATE, _XATTR_REPLACE = 1, 2


def _xattr(
    task: Task,
    start: int | OpenFile,
    path: bytes,
    operation: str,
    *,
    follow: bool,
    name: bytes = b"",
    value: bytes = b"",
    flags: int = 0,
) -> Asking:
    caller, root = who(task), task.group.fs.root
    reply = yield from _ask(
        task,
        start,
        path,
        lambda base, rest: XattrChange(
            operation=operation,
            root=root,
            base=base,
            path=rest,
            follow=follow,
            name=name,
            value=value,
            flags=flags,
            who=caller,
        ),
    )
    if isinstance(reply, OpenFile):
        if operation == "list":
            return b""
        raise OSError(ENODATA if operation == "get" else EOPNOTSUPP, "")
    return reply.value


def _xattr_name(task: Task, address: int) -> bytes:
    """ERANGE for an empty name or one of more than 255 bytes."""
    name = task.memory.read_string(address, _XATTR_NAME_MAX + 1)
    if not 0 < len(name) <= _XATTR_NAME_MAX:
        raise OSError(ERANGE, "")
    return name


def _set_xattr(
    task: Task, start: int | OpenFile, path: bytes, name: int, value: int, size: int, flags: int, *, follow: bool = True
) -> Asking:
    _check(flags, _XATTR_CREATE | _XATTR_REPLACE)
    text = _xattr_name(task, name)
    if size > _XATTR_SIZE_MAX:
        raise OSError(E2BIG, "")
    data = task.memory.read(value, size)
    yield from _xattr(task, start, path, "set", follow=follow, name=text, value=data, flags=flags)
    return 0


def _get_xattr(
    task: Task, start: int | OpenFile, path: bytes, name: int, buffer: int, size: int, *, follow: bool = True
) -> Asking:
    text = _xattr_name(task, name)
    value = yield from _xattr(task, start, path, "get", follow=follow, name=text)
    return _put_value(task, value, buffer, size)


def _list_xattr(
    task: Task, start: int | OpenFile, path: bytes, buffer: int, size: int, *, follow: bool = True
) -> Asking:
    value = yield from _xattr(task, start, path, "list", follow=follow)
    return _put_value(task, value, buffer, size)


def _remove_xattr(task: Task, start: int | OpenFile, path: bytes, name: int, *, follow: bool = True) -> Asking:
    yield from _xattr(task, start, path, "remove", follow=follow, name=_xattr_name(task, name))
    return 0


def _put_value(task: Task, value: bytes, buffer: int, size: int) -> int:
    """A size of 0 only asks how much there is. ERANGE."""
    if size:
        if len(value) > size:
            raise OSError(ERANGE, "")
        task.memory.write(buffer, value)
    return len(value)


@syscall(188)
def setxattr(task: Task, path: PathName, name: Address, value: Address, size: U64, flags: S32) -> Asking:
    """setxattr(2): E2BIG, EINVAL, ENODATA, ENOSPC, EOPNOTSUPP, EPERM, ERANGE and stat(2)'s errnos."""
    return _set_xattr(task, _start(task, AT_FDCWD, path), path, name, value, size, flags)


@syscall(189)
def lsetxattr(task: Task, path: PathName, name: Address, value: Address, size: U64, flags: S32) -> Asking:
    """lsetxattr(2): setxattr of a symbolic link itself."""
    return _set_xattr(task, _start(task, AT_FDCWD, path), path, name, value, size, flags, follow=False)


@syscall(190)
def fsetxattr(task: Task, fd: S32, name: Address, value: Address, size: U64, flags: S32) -> Asking:
    """fsetxattr(2): EBADF and setxattr(2)'s errnos."""
    return _set_xattr(task, _start_of_file(task, fd), b"", name, value, size, flags)


@syscall(191)
def getxattr(task: Task, path: PathName, name: Address, value: Address, size: U64) -> Asking:
    """getxattr(2): ENODATA, EOPNOTSUPP, ERANGE and stat(2)'s errnos."""
    return _get_xattr(task, _start(task, AT_FDCWD, path), path, name, value, size)


@syscall(192)
def lgetxattr(task: Task, path: PathName, name: Address, value: Address, size: U64) -> Asking:
    """lgetxattr(2): getxattr of a symbolic link itself."""
    return _get_xattr(task, _start(task, AT_FDCWD, path), path, name, value, size, follow=False)


@syscall(193)
def fgetxattr(task: Task, fd: S32, name: Address, value: Address, size: U64) -> Asking:
    """fgetxattr(2): EBADF and getxattr(2)'s errnos."""
    return _get_xattr(task, _start_of_file(task, fd), b"", name, value, size)


@syscall(194)
def listxattr(task: Task, path: PathName, names: Address, size: U64) -> Asking:
    """listxattr(2): ERANGE and stat(2)'s errnos."""
    return _list_xattr(task, _start(task, AT_FDCWD, path), path, names, size)


@syscall(195)
def llistxattr(task: Task, path: PathName, names: Address, size: U64) -> Asking:
    """llistxattr(2): listxattr of a symbolic link itself."""
    return _list_xattr(task, _start(task, AT_FDCWD, path), path, names, size, follow=False)


@syscall(196)
def flistxattr(task: Task, fd: S32, names: Address, size: U64) -> Asking:
    """flistxattr(2): EBADF and listxattr(2)'s errnos."""
    return _list_xattr(task, _start_of_file(task, fd), b"", names, size)


@syscall(197)
def removexattr(task: Task, path: PathName, name: Address) -> Asking:
    """removexattr(2): ENODATA, EOPNOTSUPP, EPERM, ERANGE and stat(2)'s errnos."""
    return _remove_xattr(task, _start(task, AT_FDCWD, path), path, name)


@syscall(198)
def lremovexattr(task: Task, path: PathName, name: Address) -> Asking:
    """lremovexattr(2): removexattr of a symbolic link itself."""
    return _remove_xattr(task, _start(task, AT_FDCWD, path), path, name, follow=False)


@syscall(199)
def fremovexattr(task: Task, fd: S32, name: Address) -> Asking:
    """fremovexattr(2): EBADF and removexattr(2)'s errnos."""
    return _remove_xattr(task, _start_of_file(task, fd), b"", name)
