"""execve and execveat.

Linux counterpart: the system calls of fs/exec.c; what they do is in ``exec_.py``.
"""

from __future__ import annotations

import os
import struct
from errno import E2BIG, EFAULT, EINVAL, ENOENT
from functools import lru_cache, partial
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from . import exec_
from .executable import ExecRequest
from .paths import AT_FDCWD, base_of
from .table import S32, U32, Address, PathName, syscall
from .vma import PAGE_SIZE

if TYPE_CHECKING:
    from ..runtime.actor import Asking
    from .task import Task

__all__: list[str] = []

_AT_SYMLINK_NOFOLLOW: Final = 0x100
_AT_EMPTY_PATH: Final = 0x1000
_POINTER: Final = struct.Struct("<Q")
_NULL: Final = bytes(8)
#: One string, with its NUL.
_MAX_ARG_STRLEN: Final = 131072
#: Fewer strings are read one by one.
_FEW_STRINGS: Final = 4
#: Arguments and environment together: three quarters of the default stack limit.
_MOST_BYTES: Final = 6 << 20


@syscall(59)
def execve(task: Task, path: PathName, argv: Address, envp: Address) -> Asking:
    """execve(2): run another program. E2BIG, EACCES, EFAULT, ELIBBAD, ELOOP, ENOENT, ENOEXEC, ENOMEM, and open's."""
    if not path:
        raise OSError(ENOENT, "")
    request = ExecRequest(base_of(task, AT_FDCWD, path), path, 0, path)
    return exec_.execve(task, request, partial(_read_arguments, task, argv, envp))


@syscall(322)
def execveat(task: Task, dirfd: S32, path: PathName, argv: Address, envp: Address, flags: U32) -> Asking:
    """execveat(2): run a program relative to a directory, or an open file. EBADF, EINVAL, ENOTDIR, and execve's."""
    if flags & ~(_AT_SYMLINK_NOFOLLOW | _AT_EMPTY_PATH):
        raise OSError(EINVAL, "")
    if not path and not flags & _AT_EMPTY_PATH:
        raise OSError(ENOENT, "")
    filename = path
    unreachable = False
    if dirfd != AT_FDCWD and not path.startswith(b"/"):
        filename = b"/dev/fd/%d" % dirfd + (b"/" + path if path else b"")
        unreachable = task.group.files.find(dirfd) is not None and task.group.files.is_close_on_exec(dirfd)
    open_flags = os.O_NOFOLLOW if flags & _AT_SYMLINK_NOFOLLOW else 0
    if path or dirfd == AT_FDCWD:
        request = ExecRequest(base_of(task, dirfd, path), path or b".", open_flags, filename, unreachable)
    else:
        file = task.group.files.get_any(dirfd)
        request = ExecRequest(file.handle, b"", open_flags, filename, unreachable, file)
    return exec_.execve(task, request, partial(_read_arguments, task, argv, envp))


# -- arguments ----------------------------------------------------------------------------------------------------


def _read_arguments(task: Task, argv: int, envp: int) -> tuple[list[bytes], list[bytes]]:
    """Copy both vectors out of the caller's memory. EFAULT, E2BIG."""
    reader = _StringReader(task)
    return reader.vector(argv), reader.vector(envp)


@lru_cache(maxsize=4)
def _split(pointers: bytes, data: bytes) -> tuple[bytes, ...] | None:
    """Return the strings in *data* if they are where *pointers* say; None if not. One environment comes many times."""
    strings = data.split(b"\0")
    (first,) = _POINTER.unpack_from(pointers)
    places = accumulate([len(string) + 1 for string in strings], initial=first)
    if pointers != b"".join(map(_POINTER.pack, list(places)[:-1])):
        return None
    return tuple(strings)


class _StringReader:
    """Reads many strings that lie close together: a page is copied once, as long as the strings follow each other."""

    def __init__(self, task: Task) -> None:
        self._memory = task.memory
        self._page = -1
        self._bytes = b""
        self._left = _MOST_BYTES

    def vector(self, address: int) -> list[bytes]:
        """Return the strings of a NULL-terminated array of pointers; none when the array itself is NULL."""
        pointers = self._pointers(address) if address else b""
        strings = self._neighbours(pointers) if len(pointers) >= 8 * _FEW_STRINGS else None
        return list(strings) if strings else [self.string(pointer) for (pointer,) in _POINTER.iter_unpack(pointers)]

    def _neighbours(self, pointers: bytes) -> tuple[bytes, ...] | None:
        """Return strings that lie one behind the other, as execve itself lays them out, by one copy; else None."""
        (first,), (last,) = _POINTER.unpack_from(pointers), _POINTER.unpack_from(pointers, len(pointers) - 8)
        if not 0 < last - first < _MAX_ARG_STRLEN:
            return None
        try:
            data = self._memory.read_partial(first, last - first + PAGE_SIZE - last % PAGE_SIZE)
        except OSError:
            return None
        end = data.find(0, last - first)
        if end < 0:
            return None
        strings = _split(pointers, data[:end])
        if strings:
            self._left -= end + 1
        return strings

    def _pointers(self, address: int) -> bytes:
        """Return the array at *address* up to its NULL."""
        pointers = b""
        while len(pointers) <= _MOST_BYTES:
            # An array may run across pages and end just before unmapped memory.
            chunk = self._memory.read_partial(address, PAGE_SIZE - address % PAGE_SIZE or PAGE_SIZE)
            if len(chunk) < 8:
                chunk = self._memory.read(address, 8)
            end = chunk.find(_NULL)
            while end % 8 and end > 0:
                end = chunk.find(_NULL, end + 1)
            if end >= 0:
                return pointers + chunk[:end]
            chunk = chunk[: len(chunk) & ~7]
            pointers += chunk
            address += len(chunk)
        raise OSError(E2BIG, "too many arguments")

    def string(self, address: int) -> bytes:
        """Return the string at *address*."""
        pieces: list[bytes] = []
        length = 0
        while length < _MAX_ARG_STRLEN:
            page, offset = address & -PAGE_SIZE, address % PAGE_SIZE
            if page != self._page:
                self._bytes, self._page = self._memory.read_partial(page, PAGE_SIZE), page
            end = self._bytes.find(0, offset)
            piece = self._bytes[offset : end if end >= 0 else None]
            length += len(piece)
            pieces.append(piece)
            if end >= 0:
                return self._counted(b"".join(pieces))
            if not piece:
                raise OSError(EFAULT, "")
            address += len(piece)
        raise OSError(E2BIG, "argument too long")

    def _counted(self, string: bytes) -> bytes:
        self._left -= len(string) + 1
        if self._left < 0:
            raise OSError(E2BIG, "arguments too long")
        return string
