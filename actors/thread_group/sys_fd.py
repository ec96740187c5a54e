"""Descriptors: making, duplicating, closing and controlling them.

Linux counterpart: fs/open.c, fs/file.c, fs/fcntl.c, fs/locks.c (the calls), fs/pipe.c, fs/eventfd.c, mm/memfd.c.
File locks are MountNamespace's: LockChange is asked; a wait for one is parked here until LockReleased comes.
"""

from __future__ import annotations

import enum
import os
import stat
import struct
from errno import E2BIG, EAGAIN, EBADF, EINVAL, EPERM
from typing import TYPE_CHECKING, Any, Final

from ...messages.mount_namespace import LockChange
from ..runtime.actor import Ask
from .event_file import EventFile
from .limits import Resource
from .open_file import O_LARGEFILE, STATUS_FLAGS, Identity, OpenFile
from .opening import open_at
from .paths import AT_FDCWD
from .pipe import PipeFile, make_pipe
from .regular_file import MemoryFile, RegularFile
from .table import S32, U32, U64, Address, PathName, syscall
from .task import Block

if TYPE_CHECKING:
    from ..runtime.actor import Asking
    from .task import Task

_UNSIGNED: Final = 0xFFFFFFFF
_PAGE_BYTES: Final = 4096

# -- open, close ----------------------------------------------------------------------------------------------------

_OPEN_HOW: Final = struct.Struct("<QQQ")
#: VALID_OPEN_FLAGS (include/linux/fcntl.h).
_VALID_OPEN_FLAGS: Final = (
    os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_TRUNC | os.O_APPEND | os.O_NONBLOCK | os.O_SYNC
    | os.O_DSYNC | os.O_ASYNC | os.O_DIRECT | O_LARGEFILE | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
    | os.O_PATH | os.O_TMPFILE
)  # fmt: skip
_O_PATH_FLAGS: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_PATH | os.O_CLOEXEC
_O_TMPFILE_BIT: Final = os.O_TMPFILE & ~os.O_DIRECTORY
_VALID_RESOLVE: Final = 0x3F
_RESOLVE_BENEATH, _RESOLVE_IN_ROOT, _RESOLVE_CACHED = 8, 16, 32


@syscall(2, "open")
def open_(task: Task, path: PathName, flags: S32, mode: U32) -> Any:
    """open(2): EACCES, EEXIST, EFAULT, EINVAL, EISDIR, ELOOP, EMFILE, ENAMETOOLONG, ENOENT, ENOTDIR, ENXIO, EROFS..."""
    return _open(task, AT_FDCWD, path, flags, mode)


@syscall(257)
def openat(task: Task, dirfd: S32, path: PathName, flags: S32, mode: U32) -> Any:
    """openat(2): open relative to a directory. EBADF, ENOTDIR and open(2)'s errnos."""
    return _open(task, dirfd, path, flags, mode)


@syscall(85)
def creat(task: Task, path: PathName, mode: U32) -> Any:
    """creat(2): open with O_CREAT, O_WRONLY, O_TRUNC. open(2)'s errnos."""
    return _open(task, AT_FDCWD, path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)


def _open(task: Task, dirfd: int, path: bytes, flags: int, mode: int) -> Any:
    """open(2) ignores flags that it does not know, and with O_PATH most that it knows."""
    flags &= _VALID_OPEN_FLAGS
    if flags & os.O_PATH:
        flags &= _O_PATH_FLAGS
    return open_at(task, dirfd, path, flags, mode)


@syscall(437)
def openat2(task: Task, dirfd: S32, path: PathName, how: Address, size: U64) -> Any:
    """openat2(2): openat with RESOLVE_* and strict flags. E2BIG, EINVAL, EXDEV, EAGAIN and open(2)'s errnos."""
    if size < _OPEN_HOW.size:
        raise OSError(EINVAL, "")
    if size > _PAGE_BYTES:
        raise OSError(E2BIG, "")
    data = task.memory.read(how, size)
    if any(data[_OPEN_HOW.size :]):
        raise OSError(E2BIG, "")
    flags, mode, resolve = _OPEN_HOW.unpack_from(data)
    if flags & ~_VALID_OPEN_FLAGS or resolve & ~_VALID_RESOLVE or mode & ~0o7777:
        raise OSError(EINVAL, "")
    if resolve & _RESOLVE_BENEATH and resolve & _RESOLVE_IN_ROOT:
        raise OSError(EINVAL, "")
    if mode and not flags & (os.O_CREAT | _O_TMPFILE_BIT) or flags & os.O_PATH and flags & ~_O_PATH_FLAGS:
        raise OSError(EINVAL, "")
    if resolve & _RESOLVE_CACHED:
        # Nothing is known here without asking: the caller tries again without this flag.
        raise OSError(EAGAIN, "")
    return open_at(task, dirfd, path, flags, mode, resolve)


@syscall(3)
def close(task: Task, fd: S32) -> int:
    """close(2): EBADF."""
    task.group.files.close(fd)
    return 0


class CloseRangeFlags(enum.IntFlag):
    """CLOSE_RANGE_*."""

    UNSHARE = 2
    CLOEXEC = 4


@syscall(436)
def close_range(task: Task, first: U32, last: U32, flags: U32) -> int:
    """close_range(2): close, or mark close-on-exec, all descriptors of a range. EINVAL."""
    if flags & ~int(CloseRangeFlags.UNSHARE | CloseRangeFlags.CLOEXEC) or first > last:
        raise OSError(EINVAL, "")
    group = task.group
    if flags & CloseRangeFlags.UNSHARE:
        group.files = group.files.unshare(group)
    if flags & CloseRangeFlags.CLOEXEC:
        for fd in group.files.descriptors():
            if first <= fd <= last:
                group.files.set_close_on_exec(fd, on=True)
    else:
        group.files.close_range(first, last)
    return 0


# -- duplicates -----------------------------------------------------------------------------------------------------


@syscall(32)
def dup(task: Task, fd: S32) -> int:
    """dup(2): the lowest free descriptor becomes another name of the file. EBADF, EMFILE."""
    return task.group.files.add(task.group, task.group.files.get_any(fd).hold())


@syscall(33)
def dup2(task: Task, old: S32, new: S32) -> int:
    """dup2(2): *new* becomes another name of the file, closed before if need be. EBADF."""
    files = task.group.files
    file = files.get_any(old)
    if old != new:
        files.put(task.group, new, file.hold())
    return new


@syscall(292)
def dup3(task: Task, old: S32, new: S32, flags: S32) -> int:
    """dup3(2): dup2 with O_CLOEXEC. EBADF, EINVAL for equal descriptors or unknown flags."""
    if flags & ~os.O_CLOEXEC or old == new:
        raise OSError(EINVAL, "")
    files = task.group.files
    if not 0 <= new < task.group.limits.soft(Resource.NOFILE):
        raise OSError(EBADF, "")
    files.put(task.group, new, files.get_any(old).hold(), close_on_exec=bool(flags & os.O_CLOEXEC))
    return new


# -- fcntl ----------------------------------------------------------------------------------------------------------


class Command(enum.IntEnum):
    """F_* of fcntl(2)."""

    DUPFD = 0
    GETFD = 1
    SETFD = 2
    GETFL = 3
    SETFL = 4
    GETLK = 5
    SETLK = 6
    SETLKW = 7
    SETOWN = 8
    GETOWN = 9
    SETSIG = 10
    GETSIG = 11
    SETOWN_EX = 15
    GETOWN_EX = 16
    GETOWNER_UIDS = 17
    OFD_GETLK = 36
    OFD_SETLK = 37
    OFD_SETLKW = 38
    SETLEASE = 1024
    GETLEASE = 1025
    NOTIFY = 1026
    DUPFD_QUERY = 1027
    CREATED_QUERY = 1028
    DUPFD_CLOEXEC = 1030
    SETPIPE_SZ = 1031
    GETPIPE_SZ = 1032
    ADD_SEALS = 1033
    GET_SEALS = 1034
    GET_RW_HINT = 1035
    SET_RW_HINT = 1036
    GET_FILE_RW_HINT = 1037
    SET_FILE_RW_HINT = 1038


_C = Command
_FD_CLOEXEC: Final = 1
_F_UNLCK: Final = 2
_F_OWNER_PID, _F_OWNER_PGRP = 1, 2
#: Commands that an O_PATH descriptor knows (check_fcntl_cmd).
_ON_PATH: Final = frozenset(
    {_C.CREATED_QUERY, _C.DUPFD, _C.DUPFD_CLOEXEC, _C.DUPFD_QUERY, _C.GETFD, _C.SETFD, _C.GETFL}
)
_LOCKING: Final = frozenset({_C.GETLK, _C.SETLK, _C.SETLKW, _C.OFD_GETLK, _C.OFD_SETLK, _C.OFD_SETLKW})


@syscall(72, partial="no leases, no directory notification; F_SETOWN is kept but raises no SIGIO")
def fcntl(task: Task, fd: S32, command: U32, argument: U64) -> Any:
    """fcntl(2): control a descriptor. EACCES, EAGAIN, EBADF, EDEADLK, EINVAL, EMFILE, EPERM."""
    files = task.group.files
    file = files.get_any(fd) if command in _ON_PATH else files.get(fd)
    number = argument & _UNSIGNED
    if command in (_C.DUPFD, _C.DUPFD_CLOEXEC):
        return _duplicate_from(task, file, number, close_on_exec=command == _C.DUPFD_CLOEXEC)
    if command == _C.GETFD:
        return _FD_CLOEXEC if files.is_close_on_exec(fd) else 0
    if command == _C.SETFD:
        files.set_close_on_exec(fd, on=bool(number & _FD_CLOEXEC))
        return 0
    if command == _C.GETFL:
        return file.flags
    if command == _C.SETFL:
        file.set_flags(number & STATUS_FLAGS)
        return 0
    if command in _LOCKING:
        return _lock(task, file, Command(command), argument)
    if command in (_C.GETPIPE_SZ, _C.SETPIPE_SZ):
        return _pipe_size(task, file, command, number)
    if command in (_C.ADD_SEALS, _C.GET_SEALS):
        return _seals(task, file, command, number)
    if command == _C.DUPFD_QUERY:
        return int(files.get_any(number) is file)
    if command == _C.CREATED_QUERY:
        return 0
    return _owner(task, file, command, argument)


def _duplicate_from(task: Task, file: OpenFile, minimum: int, *, close_on_exec: bool) -> int:
    if minimum >= task.group.limits.soft(Resource.NOFILE):
        raise OSError(EINVAL, "")
    return task.group.files.add(task.group, file.hold(), close_on_exec=close_on_exec, minimum=minimum)


def _pipe_size(task: Task, file: OpenFile, command: int, size: int) -> int:
    if not isinstance(file, PipeFile):
        raise OSError(EBADF, "")
    return task.worker.host.file_control(file.host_fd, command, size)


def _seals(task: Task, file: OpenFile, command: int, seals: int) -> int:
    if not isinstance(file, RegularFile):
        raise OSError(EINVAL, "")
    if command == _C.ADD_SEALS and not file.writable:
        raise OSError(EPERM, "")
    if not isinstance(file, MemoryFile):
        # The host has a memfd here, too, but for the guest this is a file of a file system.
        raise OSError(EINVAL, "")
    return task.worker.host.file_control(file.host_fd, command, seals)


def _owner(task: Task, file: OpenFile, command: int, argument: int) -> int:
    """Who is to get SIGIO, and settings that have no effect here."""
    kind, owner, signo = file.owner
    signed = (argument & _UNSIGNED ^ 0x80000000) - 0x80000000
    if command == _C.SETOWN:
        file.owner = (_F_OWNER_PGRP if signed < 0 else _F_OWNER_PID, abs(signed), signo)
    elif command == _C.GETOWN:
        return -owner if kind == _F_OWNER_PGRP else owner
    elif command == _C.SETSIG:
        if not 0 <= signed <= 64:
            raise OSError(EINVAL, "")
        file.owner = (kind, owner, signed)
    elif command == _C.GETSIG:
        return signo
    elif command == _C.SETOWN_EX:
        new_kind, new_owner = struct.unpack("<ii", task.memory.read(argument, 8))
        if not 0 <= new_kind <= 2:
            raise OSError(EINVAL, "")
        file.owner = (new_kind, new_owner, signo)
    elif command == _C.GETOWN_EX:
        task.memory.write(argument, struct.pack("<ii", kind, owner))
    elif command == _C.GETLEASE:
        return _F_UNLCK
    elif command in (_C.GET_RW_HINT, _C.GET_FILE_RW_HINT):
        task.memory.write_u64(argument, 0)
    elif command not in (_C.SET_RW_HINT, _C.SET_FILE_RW_HINT):
        raise OSError(EINVAL, "")
    return 0


# -- locks ----------------------------------------------------------------------------------------------------------

#: struct flock: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK: Final = struct.Struct("<hh4xqqi4x")
_F_RDLCK, _F_WRLCK = 0, 1
_OFFSET_MAX: Final = (1 << 63) - 1


def _lock(task: Task, file: OpenFile, command: Command, argument: int) -> Any:
    """Record locks: of the process (F_SETLK) or of the open file description (F_OFD_SETLK)."""
    kind, whence, start, length, pid = _FLOCK.unpack(task.memory.read(argument, _FLOCK.size))
    ofd = command >= _C.OFD_GETLK
    test = command in (_C.GETLK, _C.OFD_GETLK)
    if kind not in (_F_RDLCK, _F_WRLCK, _F_UNLCK) or test and kind == _F_UNLCK and not ofd or ofd and pid:
        raise OSError(EINVAL, "")
    start, length = _absolute_range(file, whence, start, length)
    if not test and (kind == _F_RDLCK and not file.readable or kind == _F_WRLCK and not file.writable):
        raise OSError(EBADF, "")
    if not file.handle:
        if test:
            task.memory.write(argument, struct.pack("<h", _F_UNLCK))
        return 0
    wait = command in (_C.SETLKW, _C.OFD_SETLKW)
    family = "ofd" if ofd else "posix"
    asking = _change_lock(task, file, family, kind, start, length, test=test, wait=wait)
    return _finish_test(task, argument, asking, ofd=ofd) if test else _finish_lock(task, asking, wait=wait)


def _absolute_range(file: OpenFile, whence: int, start: int, length: int) -> tuple[int, int]:
    """flock_to_posix_lock: from the file's start, and a length of 0 (to the end) or more. EINVAL."""
    if whence == os.SEEK_CUR:
        start += file.position()
    elif whence == os.SEEK_END:
        start += file.worker.host.file_status(file.host_fd)[7] if file.host_fd >= 0 else 0
    elif whence != os.SEEK_SET:
        raise OSError(EINVAL, "")
    if length < 0:
        start, length = start + length, -length
    if start < 0 or start + length > _OFFSET_MAX + 1:
        raise OSError(EINVAL, "")
    return start, length


def _change_lock(
    task: Task, file: OpenFile, family: str, kind: int, start: int, length: int, *, test: bool, wait: bool
) -> Asking:
    group = task.group
    owner = group.files.lock_owner if family == "posix" else file.number
    if family == "posix":
        group.files.holds_locks = True
    else:
        file.lock_families.add(family)
    message = LockChange(
        handle=file.handle,
        family=family,
        owner=owner,
        pid=group.pid if family == "posix" else -1,
        type=kind,
        start=start,
        length=length,
        test=test,
        wait_group=group.group if wait else 0,
        wait_tid=task.tid if wait else 0,
    )
    return (yield Ask(file.identity.namespace, message))


def _finish_test(task: Task, argument: int, asking: Asking, *, ofd: bool) -> Asking:
    held = yield from asking
    if held.granted:
        task.memory.write(argument, struct.pack("<h", _F_UNLCK))
    else:
        pid = held.pid if held.pid > 0 else -1
        task.memory.write(argument, _FLOCK.pack(held.type, os.SEEK_SET, held.start, held.length, pid))
    return 0


def _finish_lock(task: Task, asking: Asking, *, wait: bool) -> Asking:
    held = yield from asking
    if held.granted:
        return 0
    if not wait:
        raise BlockingIOError(EAGAIN, "")
    return Block(channels=(("lock", task.tid),))


class FlockOperation(enum.IntFlag):
    """LOCK_* of flock(2)."""

    SH = 1
    EX = 2
    NB = 4
    UN = 8


#: Mandatory locks are gone from Linux; asking for one is a no-op there.
_LOCK_MAND: Final = 32
_L = FlockOperation


@syscall(73)
def flock(task: Task, fd: S32, operation: U32) -> Any:
    """flock(2): lock the whole file for the open file description. EAGAIN, EBADF, EINVAL."""
    if operation & _LOCK_MAND:
        return 0
    wait = not operation & FlockOperation.NB
    kinds = {int(_L.SH): _F_RDLCK, int(_L.EX): _F_WRLCK, int(_L.UN): _F_UNLCK}
    kind = kinds.get(operation & ~int(FlockOperation.NB))
    if kind is None:
        raise OSError(EINVAL, "")
    file = task.group.files.get(fd)
    if not file.handle:
        return 0
    return _finish_lock(task, _change_lock(task, file, "flock", kind, 0, 0, test=False, wait=wait), wait=wait)


# -- files without a name -------------------------------------------------------------------------------------------


@syscall(22)
def pipe(task: Task, address: Address) -> int:
    """pipe(2): EFAULT, EMFILE."""
    return _pipe(task, address, 0)


@syscall(293, partial="O_NOTIFICATION_PIPE is refused")
def pipe2(task: Task, address: Address, flags: S32) -> int:
    """pipe2(2): a pipe with O_CLOEXEC, O_NONBLOCK, O_DIRECT. EFAULT, EINVAL, EMFILE."""
    if flags & ~(os.O_CLOEXEC | os.O_NONBLOCK | os.O_DIRECT):
        raise OSError(EINVAL, "")
    return _pipe(task, address, flags)


def _pipe(task: Task, address: int, flags: int) -> int:
    group = task.group
    credentials = group.credentials
    ends = make_pipe(task.worker, flags, credentials.fsuid, credentials.fsgid)
    add_pair(task, ends, address, flags)
    return 0


def add_pair(task: Task, files: tuple[OpenFile, OpenFile], address: int, flags: int) -> None:
    """Install two files and store their descriptors at *address*; neither stays when that fails. EFAULT, EMFILE."""
    table, group = task.group.files, task.group
    close_on_exec = bool(flags & os.O_CLOEXEC)
    first = -1
    try:
        first = table.add(group, files[0], close_on_exec=close_on_exec)
    except OSError:
        files[1].release()
        raise
    try:
        second = table.add(group, files[1], close_on_exec=close_on_exec)
    except OSError:
        table.close(first)
        raise
    try:
        task.memory.write(address, struct.pack("<ii", first, second))
    except OSError:
        table.close(first)
        table.close(second)
        raise


class MemfdFlags(enum.IntFlag):
    """MFD_*."""

    CLOEXEC = 1
    ALLOW_SEALING = 2
    HUGETLB = 4
    NOEXEC_SEAL = 8
    EXEC = 16


_MEMFD_NAME_MAX: Final = 249
_SHMEM_DEV: Final = 1


@syscall(319, partial="no huge pages")
def memfd_create(task: Task, name: Address, flags: U32) -> int:
    """memfd_create(2): an anonymous file. EFAULT, EINVAL, EMFILE."""
    huge = flags & MemfdFlags.HUGETLB
    if flags & ~int(MemfdFlags(31)) or huge or flags & MemfdFlags.EXEC and flags & MemfdFlags.NOEXEC_SEAL:
        raise OSError(EINVAL, "")
    text = task.memory.read_string(name, _MEMFD_NAME_MAX + 1)
    if len(text) > _MEMFD_NAME_MAX:
        raise OSError(EINVAL, "")
    group, worker = task.group, task.worker
    sealing = flags & (MemfdFlags.ALLOW_SEALING | MemfdFlags.NOEXEC_SEAL | MemfdFlags.EXEC)
    host_fd = worker.host.make_memfd(text, int(sealing))
    identity = Identity(
        mode=stat.S_IFREG | (0o666 if flags & MemfdFlags.NOEXEC_SEAL else 0o777),
        ino=worker.files.new_ino(),
        dev=_SHMEM_DEV,
        path=b"/memfd:" + text + b" (deleted)",
        uid=group.credentials.fsuid,
        gid=group.credentials.fsgid,
    )
    file = MemoryFile(worker, identity, os.O_RDWR | O_LARGEFILE, host_fd)
    return group.files.add(group, file, close_on_exec=bool(flags & MemfdFlags.CLOEXEC))


class EventfdFlags(enum.IntFlag):
    """EFD_*."""

    SEMAPHORE = 1
    NONBLOCK = os.O_NONBLOCK
    CLOEXEC = os.O_CLOEXEC


@syscall(284)
def eventfd(task: Task, value: U32) -> int:
    """eventfd(2): EMFILE."""
    return _eventfd(task, value, 0)


@syscall(290)
def eventfd2(task: Task, value: U32, flags: S32) -> int:
    """eventfd2(2): a counter that can be waited on. EINVAL, EMFILE."""
    if flags & ~int(EventfdFlags.SEMAPHORE | EventfdFlags.NONBLOCK | EventfdFlags.CLOEXEC):
        raise OSError(EINVAL, "")
    return _eventfd(task, value, flags)


def _eventfd(task: Task, value: int, flags: int) -> int:
    file = EventFile.make(task.worker, value, flags)
    return task.group.files.add(task.group, file, close_on_exec=bool(flags & os.O_CLOEXEC))
