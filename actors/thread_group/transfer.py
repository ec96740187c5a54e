"""Moving bytes between open files and guest memory, in pieces, with Linux's partial results.

Linux counterpart: lib/iov_iter.c and the loops of fs/read_write.c.  Buffers are (address, length) pairs, copied from
the guest once.  Nothing is consumed from a pipe or a socket before it is known where it can be delivered.
"""

from __future__ import annotations

from errno import EFAULT
from os import O_NONBLOCK
from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, Any, Final

from . import signals
from .task import ERESTARTSYS

if TYPE_CHECKING:
    from .open_file import OpenFile
    from .task import Task

__all__ = ["MAX_RW_COUNT", "Buffers", "deliver", "file_of", "gather", "read", "write"]

Buffers = list[tuple[int, int]]

#: What one read or write transfers at most.
MAX_RW_COUNT: Final = 0x7FFF_F000
_PAGE_BYTES: Final = 4096
#: More than any queue of the host takes at once, so the host refuses what is cut here.
_MAX_MESSAGE_BYTES: Final = 16 << 20


def file_of(task: Task, fd: int) -> OpenFile:
    """Return the file of a call that may wait: called again, it goes on with the same one, whatever *fd* is by then."""
    if task.memo:
        waited_for = task.worker.files.get(task.memo.get("file", 0))
        if waited_for is not None:
            return waited_for
    return task.group.files.get(fd)


# -- from a file to the guest ---------------------------------------------------------------------------------------


def read(task: Task, file: OpenFile, buffers: Buffers, offset: int | None, *, wait: bool = True) -> Any:
    """read(2) and its relatives; *wait* false: EAGAIN instead of waiting (RWF_NOWAIT)."""
    if file.fills:
        return _fill(task, file, buffers, offset)
    if not file.seekable:
        buffers = _deliverable(task, buffers)
    try:
        data = file.pull(task, min(sum([length for _, length in buffers]), file.piece_bytes), offset)
    except BlockingIOError:
        if not wait:
            raise
        task.memo["file"] = file.number
        return file.blocked(EPOLLIN)
    return deliver(task, file, buffers, data, offset) if type(data) is bytes else data


def _fill(task: Task, file: OpenFile, buffers: Buffers, offset: int | None) -> Any:
    """A regular file fills every buffer, piece by piece, until its end."""
    done = 0
    for address, length in buffers:
        filled = 0
        while filled < length:
            wanted = min(length - filled, file.piece_bytes)
            try:
                data = file.pull(task, wanted, None if offset is None else offset + done)
                got = deliver(task, file, [(address + filled, wanted)], data, offset)
            except OSError:
                if done:
                    return done
                raise
            filled += got
            done += got
            if got < wanted:
                return done
    if not done and sum([length for _, length in buffers]) == 0:
        file.pull(task, 0, offset)
    return done


def _deliverable(task: Task, buffers: Buffers) -> Buffers:
    """Return the leading part of *buffers* that is writable; EFAULT when there is none."""
    check = task.memory.check_writable
    good: Buffers = []
    for address, length in buffers:
        try:
            check(address, length)
        except OSError:
            room = min(length, _PAGE_BYTES - address % _PAGE_BYTES)
            try:
                check(address, room)
            except OSError:
                if not good:
                    raise
                return good
            return [*good, (address, room)]
        good.append((address, length))
    return good


def deliver(task: Task, file: OpenFile, buffers: Buffers, data: bytes, offset: int | None) -> int:
    """Scatter *data* over *buffers* and return how much arrived; the rest goes back to a file that can take it."""
    if len(buffers) == 1 and len(data) <= buffers[0][1]:
        try:
            task.memory.write(buffers[0][0], data)
            return len(data)
        except OSError:
            pass
    done = 0
    for address, length in buffers:
        if done == len(data):
            break
        piece = data[done : done + length]
        try:
            written = task.memory.write_partial(address, piece)
        except OSError:
            break
        done += written
        if written < len(piece):
            break
    if done < len(data):
        if offset is None:
            file.unread(len(data) - done)
        if not done:
            raise OSError(EFAULT, "")
    return done


# -- from the guest to a file ---------------------------------------------------------------------------------------


def gather(task: Task, buffers: Buffers, skip: int, limit: int) -> bytes:
    """Copy up to *limit* bytes of *buffers* from position *skip* on; shorter at a fault, EFAULT when it comes first."""
    pieces: list[bytes] = []
    for address, length in buffers:
        if skip >= length:
            skip -= length
            continue
        wanted = min(length - skip, limit)
        try:
            piece = task.memory.read_partial(address + skip, wanted)
        except OSError:
            if not pieces:
                raise
            break
        pieces.append(piece)
        limit -= len(piece)
        skip = 0
        if len(piece) < wanted or limit <= 0:
            break
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def write(task: Task, file: OpenFile, buffers: Buffers, offset: int | None, *, wait: bool = True) -> Any:
    """write(2) and its relatives: a blocking one goes on until all is written, over as many waits as it takes."""
    total = sum([length for _, length in buffers])
    done = task.memo.get("done", 0)
    limit = min(total, _MAX_MESSAGE_BYTES) if file.atomic else file.piece_bytes
    while True:
        try:
            data = gather(task, buffers, done, limit) if total else b""
            taken = file.push(task, data, None if offset is None else offset + done)
        except BlockingIOError:
            return _full(task, file, done, wait=wait)
        except BrokenPipeError:
            signals.send_sigpipe(task)
            return _or_raise(done)
        except OSError:
            return _or_raise(done)
        if type(taken) is not int or taken < 0:
            if done and type(taken) is int:
                return done
            task.memo["done"] = done
            return taken
        done += taken
        if done >= total or file.atomic or not taken:
            return done


def _or_raise(done: int) -> int:
    """What was written counts more than the error that ended it."""
    if not done:
        raise  # noqa: PLE0704  # only called while an OSError is being handled
    return done


def _full(task: Task, file: OpenFile, done: int, *, wait: bool) -> Any:
    if not wait or file.flags & O_NONBLOCK:
        return _or_raise(done)
    task.memo["done"], task.memo["file"] = done, file.number
    return file.wait(EPOLLOUT, done or ERESTARTSYS)
