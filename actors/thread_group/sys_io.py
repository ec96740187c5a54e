"""Moving data: read, write, seek, splice, and what is done to a file's contents as a whole.

Linux counterpart: fs/read_write.c, fs/splice.c, fs/sync.c, fs/open.c (truncate, fallocate), mm/readahead.c,
mm/fadvise.c. The plain read(2) and write(2) are written out here, because they are what programs do all day; the rest
goes through ``transfer.py``.
"""

from __future__ import annotations

import enum
import os
import stat
from errno import EAGAIN, EBADF, EFBIG, EINVAL, EISDIR, ENODEV, ENOSYS, EOPNOTSUPP, EOVERFLOW, EPIPE, ESPIPE, EXDEV
from select import EPOLLERR, EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, Any, Final

from . import signals, transfer
from .limits import RLIM_INFINITY, Resource
from .pipe import PipeFile
from .regular_file import RegularFile
from .table import S32, S64, U32, U64, Address, syscall
from .transfer import MAX_RW_COUNT, file_of

if TYPE_CHECKING:
    from .open_file import OpenFile
    from .task import Task

_SSIZE_MAX: Final = (1 << 63) - 1
_LOFF_MAX: Final = (1 << 63) - 1
#: read(2) of up to this many bytes is one host call and one copy.
_SMALL_BYTES: Final = 1 << 16
#: Bytes that one copying call moves before it returns with a partial count, so that others get their turn.
_COPY_BYTES: Final = 8 << 20
#: What a pipe or socket that polls as writable takes at once.
_PIPE_BUF: Final = 4096
_IN_MODIFY: Final = 2


class RwFlags(enum.IntFlag):
    """RWF_* of preadv2(2)."""

    HIPRI = 1
    DSYNC = 2
    SYNC = 4
    NOWAIT = 8
    APPEND = 16
    NOAPPEND = 32


class SpliceFlags(enum.IntFlag):
    """SPLICE_F_*."""

    MOVE = 1
    NONBLOCK = 2
    MORE = 4
    GIFT = 8


# ``~`` of an IntFlag keeps to the known bits, so masks are plain integers.
_ALL_RW_FLAGS: Final = int(RwFlags(63))
_READ_RW_FLAGS: Final = int(RwFlags.HIPRI | RwFlags.DSYNC | RwFlags.SYNC | RwFlags.NOWAIT)
_ALL_SPLICE_FLAGS: Final = int(SpliceFlags(15))


def _count(count: int) -> int:
    """rw_verify_area: a negative count is EINVAL, a huge one is cut."""
    if count > _SSIZE_MAX:
        raise OSError(EINVAL, "")
    return min(count, MAX_RW_COUNT)


def _readable(task: Task, fd: int) -> OpenFile:
    file = file_of(task, fd)
    if not file.readable:
        raise OSError(EBADF, "")
    return file


def _writable(task: Task, fd: int) -> OpenFile:
    file = file_of(task, fd)
    if not file.writable:
        raise OSError(EBADF, "")
    return file


def _readable_at(task: Task, fd: int, offset: int) -> OpenFile:
    """pread: EINVAL for a negative offset, then EBADF, then ESPIPE for what has no positions, then the access mode."""
    if offset < 0:
        raise OSError(EINVAL, "")
    file = file_of(task, fd)
    if not file.seekable:
        raise OSError(ESPIPE, "")
    if not file.readable:
        raise OSError(EBADF, "")
    return file


def _writable_at(task: Task, fd: int, offset: int) -> OpenFile:
    """pwrite, in the same order."""
    if offset < 0:
        raise OSError(EINVAL, "")
    file = file_of(task, fd)
    if not file.seekable:
        raise OSError(ESPIPE, "")
    if not file.writable:
        raise OSError(EBADF, "")
    return file


# -- read, write ----------------------------------------------------------------------------------------------------


@syscall(0)
def read(task: Task, fd: S32, buffer: Address, count: U64) -> Any:
    """read(2): read at the file's position. EAGAIN, EBADF, EFAULT, EINVAL, EIO, EISDIR."""
    file = file_of(task, fd)
    if not file.readable:
        raise OSError(EBADF, "")
    return _read(task, file, buffer, count, None)


def _read(task: Task, file: OpenFile, buffer: int, count: int, offset: int | None) -> Any:
    """One buffer, which mostly is small and writable: one host call and one copy."""
    memory = task.memory
    # What cannot be put back is taken only when it is known where to deliver it.
    if count > _SMALL_BYTES or not (file.fills or memory.is_writable(buffer, count)):
        return transfer.read(task, file, [(buffer, _count(count))], offset)
    try:
        data = file.pull(task, min(count, file.piece_bytes), offset)
    except BlockingIOError:
        task.memo["file"] = file.number
        return file.blocked(EPOLLIN)
    if type(data) is not bytes:
        return data
    if not data:
        return 0
    try:
        memory.write(buffer, data)
    except OSError:
        return transfer.deliver(task, file, [(buffer, count)], data, offset)
    return len(data)


@syscall(1)
def write(task: Task, fd: S32, buffer: Address, count: U64) -> Any:
    """write(2): write at the file's position. EAGAIN, EBADF, EFAULT, EFBIG, EINVAL, EIO, ENOSPC, EPIPE."""
    file = file_of(task, fd)
    if not file.writable:
        raise OSError(EBADF, "")
    return _write(task, file, buffer, count, None)


def _write(task: Task, file: OpenFile, buffer: int, count: int, offset: int | None) -> Any:
    """One buffer, which mostly is small and taken as a whole: one copy and one host call."""
    if 0 < count <= file.piece_bytes and not task.memo:
        data = task.memory.read_partial(buffer, count)
        try:
            taken = file.push(task, data, offset)
        except (BlockingIOError, BrokenPipeError):
            taken = 0  # it says so again
        if taken == count:
            return taken
        if type(taken) is not int or taken < 0:
            task.memo["done"] = 0
            return taken
        if taken:
            task.memo["done"] = taken
            if file.atomic:
                return taken
    return transfer.write(task, file, [(buffer, _count(count))], offset)


@syscall(17)
def pread64(task: Task, fd: S32, buffer: Address, count: U64, offset: S64) -> Any:
    """pread(2): read at *offset*. EBADF, EFAULT, EINVAL, EISDIR, ESPIPE."""
    return _read(task, _readable_at(task, fd, offset), buffer, count, offset)


@syscall(18)
def pwrite64(task: Task, fd: S32, buffer: Address, count: U64, offset: S64) -> Any:
    """pwrite(2): write at *offset*. EBADF, EFAULT, EFBIG, EINVAL, ENOSPC, ESPIPE."""
    return _write(task, _writable_at(task, fd, offset), buffer, count, offset)


@syscall(19)
def readv(task: Task, fd: S32, vector: Address, count: S32) -> Any:
    """readv(2): read into several buffers. EBADF, EFAULT, EINVAL and read(2)'s errnos."""
    return transfer.read(task, _readable(task, fd), task.memory.read_iovec(vector, count), None)


@syscall(20)
def writev(task: Task, fd: S32, vector: Address, count: S32) -> Any:
    """writev(2): write from several buffers. EBADF, EFAULT, EINVAL and write(2)'s errnos."""
    return transfer.write(task, _writable(task, fd), task.memory.read_iovec(vector, count), None)


@syscall(295)
def preadv(task: Task, fd: S32, vector: Address, count: S32, low: S64) -> Any:
    """preadv(2): readv at an offset. EBADF, EFAULT, EINVAL, ESPIPE."""
    file = _readable_at(task, fd, low)
    return transfer.read(task, file, task.memory.read_iovec(vector, count), low)


@syscall(296)
def pwritev(task: Task, fd: S32, vector: Address, count: S32, low: S64) -> Any:
    """pwritev(2): writev at an offset. EBADF, EFAULT, EFBIG, EINVAL, ESPIPE."""
    file = _writable_at(task, fd, low)
    return transfer.write(task, file, task.memory.read_iovec(vector, count), low)


@syscall(327)
def preadv2(task: Task, fd: S32, vector: Address, count: S32, low: S64, _high: U64, flags: U32) -> Any:
    """preadv2(2): preadv with RWF_* flags; offset -1 means the position. EOPNOTSUPP for unknown flags."""
    offset = None if low == -1 else low
    file = _readable(task, fd) if offset is None else _readable_at(task, fd, offset)
    if flags & ~_READ_RW_FLAGS:
        raise OSError(EOPNOTSUPP, "")
    wait = not flags & RwFlags.NOWAIT
    return transfer.read(task, file, task.memory.read_iovec(vector, count), offset, wait=wait)


@syscall(328)
def pwritev2(task: Task, fd: S32, vector: Address, count: S32, low: S64, _high: U64, flags: U32) -> Any:
    """pwritev2(2): pwritev with RWF_* flags; offset -1 means the position. EOPNOTSUPP for unknown flags."""
    offset = None if low == -1 else low
    file = _writable(task, fd) if offset is None else _writable_at(task, fd, offset)
    if flags & ~_ALL_RW_FLAGS:
        raise OSError(EOPNOTSUPP, "")
    buffers = task.memory.read_iovec(vector, count)
    if flags & RwFlags.APPEND and isinstance(file, RegularFile):
        data = transfer.gather(task, buffers, 0, _COPY_BYTES)
        room = file.room(task, len(data), None)
        if type(room) is not int:
            return room
        data = data[:room]
        result: Any = task.worker.host.pwrite_flags(file.host_fd, data, low, int(RwFlags.APPEND))
    else:
        result = transfer.write(task, file, buffers, offset, wait=not flags & RwFlags.NOWAIT)
    if flags & (RwFlags.SYNC | RwFlags.DSYNC) and type(result) is int and result > 0 and file.fills:
        file.sync(data_only=not flags & RwFlags.SYNC)
    return result


@syscall(8)
def lseek(task: Task, fd: S32, offset: S64, whence: U32) -> int:
    """lseek(2): move the position; SEEK_DATA and SEEK_HOLE find the holes. EBADF, EINVAL, ENXIO, ESPIPE."""
    file = task.group.files.get(fd)
    if whence > os.SEEK_HOLE:
        raise OSError(EINVAL, "")
    return file.seek(task, offset, whence)


# -- the contents as a whole ----------------------------------------------------------------------------------------


@syscall(77)
def ftruncate(task: Task, fd: S32, size: S64) -> int:
    """ftruncate(2): set the size. EBADF, EFBIG, EINVAL, EPERM for a sealed memfd."""
    if size < 0:
        raise OSError(EINVAL, "")
    file = task.group.files.get(fd)
    if not stat.S_ISREG(file.mode) or not file.writable:
        raise OSError(EINVAL, "")
    return file.truncate(task, size)


@syscall(285)
def fallocate(task: Task, fd: S32, mode: S32, offset: S64, length: S64) -> Any:
    """fallocate(2): reserve space or punch holes. EBADF, EFBIG, EINVAL, ENODEV, EOPNOTSUPP, ESPIPE, ENOSPC."""
    file = task.group.files.get(fd)
    if offset < 0 or length <= 0:
        raise OSError(EINVAL, "")
    if not file.writable:
        raise OSError(EBADF, "")
    if stat.S_ISFIFO(file.mode):
        raise OSError(ESPIPE, "")
    if stat.S_ISDIR(file.mode):
        raise OSError(EISDIR, "")
    if not isinstance(file, RegularFile):
        raise OSError(ENODEV, "")
    if offset + length > _LOFF_MAX:
        raise OSError(EFBIG, "")
    return file.allocate(task, mode, offset, length)


@syscall(74)
def fsync(task: Task, fd: S32) -> int:
    """fsync(2): flush a file to the disk. EBADF, EINVAL, EIO."""
    return task.group.files.get(fd).sync(data_only=False)


@syscall(75)
def fdatasync(task: Task, fd: S32) -> int:
    """fdatasync(2): flush a file's data. EBADF, EINVAL, EIO."""
    return task.group.files.get(fd).sync(data_only=True)


@syscall(162)
def sync(task: Task) -> int:
    """sync(2): nothing of the sandbox waits to be written anywhere. Never fails."""
    return 0


@syscall(306)
def syncfs(task: Task, fd: S32) -> int:
    """syncfs(2): as sync(2), for one file system. EBADF."""
    task.group.files.get(fd)
    return 0


@syscall(277)
def sync_file_range(task: Task, fd: S32, offset: S64, length: S64, flags: U32) -> int:
    """sync_file_range(2): EBADF, EINVAL, ESPIPE."""
    if flags & ~7 or offset < 0 or length < 0:
        raise OSError(EINVAL, "")
    file = task.group.files.get(fd)
    if not stat.S_ISREG(file.mode) and not stat.S_ISDIR(file.mode):
        raise OSError(ESPIPE, "")
    return file.sync(data_only=True) if isinstance(file, RegularFile) else 0


@syscall(187)
def readahead(task: Task, fd: S32, _offset: S64, _count: U64) -> int:
    """readahead(2): the host reads ahead by itself. EBADF, EINVAL."""
    if not isinstance(_readable(task, fd), RegularFile):
        raise OSError(EINVAL, "")
    return 0


@syscall(221)
def fadvise64(task: Task, fd: S32, _offset: S64, length: S64, advice: S32) -> int:
    """posix_fadvise(2): advice is heard. EBADF, EINVAL, ESPIPE for pipes."""
    file = task.group.files.get(fd)
    if stat.S_ISFIFO(file.mode):
        raise OSError(ESPIPE, "")
    if length < 0 or not 0 <= advice <= 5:
        raise OSError(EINVAL, "")
    return 0


# -- from file to file ----------------------------------------------------------------------------------------------


def _read_offset(task: Task, address: int) -> int | None:
    """Return the offset that an off_t pointer names, None for a null pointer. EFAULT, EINVAL."""
    if not address:
        return None
    offset = task.memory.read_s64(address)
    if offset < 0:
        raise OSError(EINVAL, "")
    return offset


def _move(task: Task, source: OpenFile, target: OpenFile, count: int, offset: int | None) -> Any:
    """Copy by way of our memory; used where the host cannot copy by itself. At most _COPY_BYTES."""
    done = 0
    limit = min(count, _COPY_BYTES)
    while done < limit:
        wanted = min(limit - done, target.piece_bytes, source.piece_bytes)
        try:
            taken, got = _move_piece(task, source, target, wanted, None if offset is None else offset + done)
        except OSError:
            if done:
                return done
            raise
        if type(taken) is not int:
            return done or taken
        done += taken
        if not taken or taken < got:
            break
    return done


def _move_piece(task: Task, source: OpenFile, target: OpenFile, count: int, offset: int | None) -> tuple[Any, int]:
    """Move up to *count* bytes: return how many the target took (or another outcome), and how many there were."""
    data = source.pull(task, count, offset)
    if type(data) is not bytes or not data:
        return (0 if data == b"" else data), 0
    taken: Any = 0
    try:
        taken = target.push(task, data, None)
    finally:
        left = len(data) - (taken if type(taken) is int else 0)
        if offset is None and left:
            source.unread(left)
    return taken, len(data)


@syscall(40)
def sendfile(task: Task, out_fd: S32, in_fd: S32, offset_address: Address, count: U64) -> Any:
    """sendfile(2): copy from a file to any descriptor. EAGAIN, EBADF, EFAULT, EINVAL, EPIPE, ESPIPE."""
    source = _readable(task, in_fd)
    offset = _read_offset(task, offset_address)
    if offset is not None and not source.seekable:
        raise OSError(ESPIPE, "")
    target = _writable(task, out_fd)
    if not isinstance(target, PipeFile) and (target.flags & os.O_APPEND or not source.seekable):
        raise OSError(EINVAL, "")
    count = _count(count)
    done = task.memo.get("done", 0)
    while True:
        try:
            moved = _send(task, source, target, min(count - done, _COPY_BYTES), offset)
        except BlockingIOError:
            return _wait_to_send(task, source, target, done)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                signals.send_sigpipe(task)
            if done:
                return done
            raise
        if type(moved) is not int:
            task.memo["done"] = done
            return moved
        done += moved
        if offset is not None:
            offset += moved
            task.memory.write_s64(offset_address, offset)
        if not moved or done >= count or not isinstance(source, RegularFile):
            return done


def _wait_to_send(task: Task, source: OpenFile, target: OpenFile, done: int) -> Any:
    """Go on until all is sent, unless the target has O_NONBLOCK."""
    if not done:
        return _wait_to_splice(source, target, 0)
    if target.flags & os.O_NONBLOCK:
        return done
    task.memo["done"] = done
    return target.wait(EPOLLOUT, done)


def _send(task: Task, source: OpenFile, target: OpenFile, count: int, offset: int | None) -> Any:
    """One step of sendfile: the host's, or by way of our memory."""
    if isinstance(target, PipeFile):
        _check_space(target)
    if not count:
        return 0
    if not source.splice_source or not target.splice_target:
        raise OSError(EINVAL, "")
    limited = task.group.limits.soft(Resource.FSIZE) != RLIM_INFINITY
    direct = isinstance(source, RegularFile) and isinstance(target, (RegularFile, PipeFile))
    if not direct or limited:
        return _move(task, source, target, count, offset)
    if isinstance(target, RegularFile):
        room = target.room(task, count, None)
        if type(room) is not int:
            return room
        count = room
    host = task.worker.host
    at = source.position() if offset is None else offset
    moved = host.send_file(target.host_fd, source.host_fd, at, count)
    if offset is None and moved:
        host.seek(source.host_fd, at + moved, os.SEEK_SET)
    return moved


def _check_space(target: OpenFile) -> None:
    """wait_for_space: a pipe without readers, or a full one, counts before anything else. EPIPE, EAGAIN."""
    ready = dict(target.worker.host.poll(((target.host_fd, EPOLLOUT),))).get(target.host_fd, 0)
    if ready & EPOLLERR:
        raise BrokenPipeError(EPIPE, "")
    if not ready & EPOLLOUT:
        raise BlockingIOError(EAGAIN, "")


@syscall(326)
def copy_file_range(
    task: Task, in_fd: S32, in_offset: Address, out_fd: S32, out_offset: Address, count: U64, flags: U32
) -> Any:
    """copy_file_range(2): copy between regular files. EBADF, EFBIG, EINVAL, EISDIR, EXDEV."""
    source, target = task.group.files.get(in_fd), task.group.files.get(out_fd)
    start, end = _signed_offset(task, in_offset), _signed_offset(task, out_offset)
    if flags:
        raise OSError(EINVAL, "")
    _check_copy(source, target)
    if not isinstance(source, RegularFile) or not isinstance(target, RegularFile):
        # Made-up text has no size that could be copied: Linux says so, and cat and cp go on with read(2).
        raise OSError(EXDEV, "")
    at = source.position() if start is None else start
    to = target.position() if end is None else end
    if at < 0 <= at + count or to < 0 <= to + count:
        raise OSError(EOVERFLOW, "")
    count = min(_count(count), _COPY_BYTES, max(0, task.worker.host.file_status(source.host_fd)[7] - at))
    if source.ino == target.ino and source.dev == target.dev and to + count > at and to < at + count:
        raise OSError(EINVAL, "")
    if at < 0 or to < 0:
        raise OSError(EINVAL, "")
    room = target.room(task, count, to) if count else 0
    if type(room) is not int:
        return room
    moved = _copy(task, source, target, room, at, to) if room else 0
    if moved:
        target.report(_IN_MODIFY)
    _advance(task, source, in_offset, at + moved)
    _advance(task, target, out_offset, to + moved)
    return moved


def _signed_offset(task: Task, address: int) -> int | None:
    return task.memory.read_s64(address) if address else None


def _check_copy(source: OpenFile, target: OpenFile) -> None:
    """generic_file_rw_checks: types before access modes."""
    if stat.S_ISDIR(source.mode) or stat.S_ISDIR(target.mode):
        raise OSError(EISDIR, "")
    if not stat.S_ISREG(source.mode) or not stat.S_ISREG(target.mode):
        raise OSError(EINVAL, "")
    if not source.readable or not target.writable or target.flags & os.O_APPEND:
        raise OSError(EBADF, "")


def _copy(task: Task, source: RegularFile, target: RegularFile, count: int, start: int, end: int) -> int:
    limit = task.group.limits.soft(Resource.FSIZE)
    if limit == RLIM_INFINITY:
        try:
            return task.worker.host.copy_file_range(source.host_fd, target.host_fd, count, start, end)
        except OSError as error:
            if error.errno not in (EXDEV, EINVAL, ENOSYS, EOPNOTSUPP, EOVERFLOW):
                raise
    done = 0
    while done < count:
        data = source.pull(task, min(count - done, source.piece_bytes), start + done)
        if not data:
            break
        done += target.put(target.within_limit(task, data, end + done), end + done)
    return done


def _advance(task: Task, file: OpenFile, address: int, position: int) -> None:
    """Move the offset that a copy started from: the guest's variable, or the file's own."""
    if address:
        task.memory.write_s64(address, position)
    else:
        file.seek(task, position, os.SEEK_SET)


@syscall(275)
def splice(task: Task, in_fd: S32, in_offset: Address, out_fd: S32, out_offset: Address, count: U64, flags: U32) -> Any:
    """splice(2): move data to or from a pipe. EAGAIN, EBADF, EINVAL, ESPIPE."""
    if not count:
        return 0
    if flags & ~_ALL_SPLICE_FLAGS:
        raise OSError(EINVAL, "")
    source, target = _readable(task, in_fd), _writable(task, out_fd)
    source_is_pipe, target_is_pipe = isinstance(source, PipeFile), isinstance(target, PipeFile)
    if source_is_pipe and in_offset or target_is_pipe and out_offset:
        raise OSError(ESPIPE, "")
    both_ends_of_one = source_is_pipe and target_is_pipe and source.ino == target.ino
    if not (source_is_pipe or target_is_pipe) or both_ends_of_one or target.flags & os.O_APPEND:
        raise OSError(EINVAL, "")
    start, end = _read_offset(task, in_offset), _read_offset(task, out_offset)
    if start is not None and not source.seekable or end is not None and not target.seekable:
        raise OSError(EINVAL, "")
    try:
        moved = _splice(task, source, target, min(_count(count), _COPY_BYTES), start, end)
    except BlockingIOError:
        return _wait_to_splice(source, target, flags)
    except BrokenPipeError:
        signals.send_sigpipe(task)
        raise
    if type(moved) is int and moved > 0:
        if start is not None:
            task.memory.write_s64(in_offset, start + moved)
        if end is not None:
            task.memory.write_s64(out_offset, end + moved)
    return moved


def _splice(task: Task, source: OpenFile, target: OpenFile, count: int, start: int | None, end: int | None) -> Any:
    if isinstance(target, PipeFile) and not isinstance(source, PipeFile):
        _check_space(target)
        if not source.splice_source:
            raise OSError(EINVAL, "")
    elif not target.splice_target:
        raise OSError(EINVAL, "")
    host_kinds = (PipeFile, RegularFile)
    if isinstance(source, host_kinds) and isinstance(target, host_kinds):
        if isinstance(target, RegularFile):
            room = target.room(task, count, end)
            if type(room) is not int:
                return room
            count = room
        at, to = -1 if start is None else start, -1 if end is None else end
        return task.worker.host.splice(source.host_fd, target.host_fd, count, at, to)
    if end is not None:
        data = source.pull(task, min(count, source.piece_bytes), start)
        return target.push(task, data, end) if type(data) is bytes else data
    # What the target does not take could not be given back to a pipe or a socket: take no more than fits.
    if target.pollable and not task.worker.host.poll(((target.host_fd, EPOLLOUT),)):
        raise BlockingIOError(EAGAIN, "")
    return _move(task, source, target, min(count, _PIPE_BUF) if target.pollable else count, start)


def _wait_to_splice(source: OpenFile, target: OpenFile, flags: int) -> Any:
    """Wait for the side that is not ready; that side's O_NONBLOCK says whether."""
    waits_for_source = source.pollable and not source.worker.host.poll(((source.host_fd, EPOLLIN),))
    file, events = (source, EPOLLIN) if waits_for_source else (target, EPOLLOUT)
    if flags & SpliceFlags.NONBLOCK or (file.flags | target.flags) & os.O_NONBLOCK:
        raise BlockingIOError(EAGAIN, "")
    return file.wait(events)


@syscall(276)
def tee(task: Task, in_fd: S32, out_fd: S32, count: U64, flags: U32) -> Any:
    """tee(2): copy from pipe to pipe without taking. EAGAIN, EBADF, EINVAL."""
    if flags & ~_ALL_SPLICE_FLAGS:
        raise OSError(EINVAL, "")
    if not count:
        return 0
    source, target = _readable(task, in_fd), _writable(task, out_fd)
    if not isinstance(source, PipeFile) or not isinstance(target, PipeFile) or source.ino == target.ino:
        raise OSError(EINVAL, "")
    try:
        return task.worker.host.tee(source.host_fd, target.host_fd, _count(count))
    except BlockingIOError:
        return _wait_to_splice(source, target, flags)


@syscall(278)
def vmsplice(task: Task, fd: S32, vector: Address, count: U64, flags: U32) -> Any:
    """vmsplice(2): move memory to a pipe or a pipe to memory; pages are copied. EAGAIN, EBADF, EFAULT, EINVAL."""
    if flags & ~_ALL_SPLICE_FLAGS:
        raise OSError(EINVAL, "")
    file = task.group.files.get(fd)
    if not isinstance(file, PipeFile):
        raise OSError(EBADF, "")
    buffers = task.memory.read_iovec(vector, count)
    wait = not flags & SpliceFlags.NONBLOCK
    if file.writable:
        return transfer.write(task, file, buffers, None, wait=wait)
    return transfer.read(task, file, buffers, None, wait=wait)
