"""Reading and writing guest memory on behalf of a system call.

Linux counterpart: copy_from_user, copy_to_user, strncpy_from_user and import_iovec (lib/usercopy.c, lib/iov_iter.c).
The platform ignores page protection, so every access is checked against the list of mappings first, with the last hit
remembered: calls of one program mostly use one stack and one heap.  Guest memory changes while we look at it: each
function copies once, and callers use the copy.
"""

from __future__ import annotations

import struct
from errno import EFAULT, EINVAL, ENAMETOOLONG
from typing import TYPE_CHECKING, Final

from .vma import NOWHERE, PAGE_SIZE, VM_ACCESS, VM_WRITE, Vma, VmaList

if TYPE_CHECKING:
    from ...platform.interface import AddressSpace

__all__ = ["UserAccess"]

_PATH_MAX: Final = 4096
#: Most paths are shorter than this.
_SHORT_PATH: Final = 256
_UIO_MAXIOV: Final = 1024
#: What one read or write transfers at most (MAX_RW_COUNT).
_MAX_RW_COUNT: Final = 0x7FFF_F000
_SSIZE_MAX: Final = (1 << 63) - 1

_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_S32: Final = struct.Struct("<i")
_U64: Final = struct.Struct("<Q")
_S64: Final = struct.Struct("<q")


def _fault() -> OSError:
    return OSError(EFAULT, "bad address")


class UserAccess:
    """Checked access to one guest address space."""

    def __init__(self, space: AddressSpace) -> None:
        self.space = space
        self.vmas = VmaList()
        #: The mappings that the last reading and the last writing access hit, or one for all of them if these were
        #: several; forgotten whenever the list changes.
        self._hit = NOWHERE
        self._write_hit = NOWHERE

    # -- whole ranges -------------------------------------------------------------------------------------------

    def read(self, address: int, length: int) -> bytes:
        """Copy *length* bytes out. EFAULT unless all of it is readable."""
        hit = self._hit
        if not (hit.start <= address and address + length <= hit.end and hit.flags & VM_ACCESS):
            if length <= 0:
                return b""
            if self._accessible(address, length, VM_ACCESS) < length:
                raise _fault()
        data = self.space.read(address, length)
        if len(data) != length:
            raise _fault()
        return data

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Copy *data* in. EFAULT unless all of it is writable; nothing is written then."""
        length = len(data)
        hit = self._write_hit
        if not (hit.start <= address and address + length <= hit.end and hit.flags & VM_WRITE):
            if not length:
                return
            if self._accessible(address, length, VM_WRITE) < length:
                raise _fault()
        if self.space.write(address, data) != length:
            raise _fault()

    def is_writable(self, address: int, length: int) -> bool:
        """Tell whether the whole range is writable."""
        hit = self._write_hit
        if hit.start <= address and address + length <= hit.end and hit.flags & VM_WRITE:
            return True
        return length <= 0 or self._accessible(address, length, VM_WRITE) == length

    def check_readable(self, address: int, length: int) -> None:
        """Raise EFAULT unless the whole range is readable."""
        if length > 0 and self._accessible(address, length, VM_ACCESS) < length:
            raise _fault()

    def check_writable(self, address: int, length: int) -> None:
        """Raise EFAULT unless the whole range is writable."""
        if not self.is_writable(address, length):
            raise _fault()

    # -- as far as it goes ---------------------------------------------------------------------------------------

    def read_partial(self, address: int, length: int) -> bytes:
        """Copy up to *length* bytes, until the first that is not readable. EFAULT when that is the first one."""
        hit = self._hit
        if not (hit.start <= address and address + length <= hit.end and hit.flags & VM_ACCESS):
            if length <= 0:
                return b""
            length = self._accessible(address, length, VM_ACCESS)
            if not length:
                raise _fault()
        return self.space.read(address, length)

    def write_partial(self, address: int, data: bytes | bytearray | memoryview) -> int:
        """Write until the first byte that is not writable; return the count. EFAULT when that is the first one."""
        if not len(data):
            return 0
        length = self._accessible(address, len(data), VM_WRITE)
        if not length:
            raise _fault()
        return self.space.write(address, data if length == len(data) else memoryview(data)[:length])

    def _accessible(self, address: int, length: int, want: int) -> int:
        """Return how many bytes from *address* on, of *length*, have a permission of *want*; remember where."""
        hit = vma = self.vmas.find(address)
        if hit is None or not hit.flags & want:
            return 0
        end = address + length
        reached = hit.end
        while reached < end:
            vma = self.vmas.find(reached)
            if vma is None or not vma.flags & want:
                length = reached - address
                break
            reached = vma.end
        if vma is not hit:
            # A program's static variables are in two mappings, and many a buffer lies across their border.
            hit = Vma(hit.start, reached, want)
        if want == VM_WRITE:
            self._write_hit = hit
        else:
            self._hit = hit
        return length

    # -- strings ------------------------------------------------------------------------------------------------

    def read_string(self, address: int, limit: int) -> bytes:
        """Return the bytes up to a NUL; *limit* bytes when there is none among them. EFAULT.

        So a result of *limit* bytes is too long: which error that is, is the caller's to say.
        """
        chunks = []
        left = limit
        while left > 0:
            chunk = self.read_partial(address, min(left, PAGE_SIZE - address % PAGE_SIZE))
            end = chunk.find(0)
            if end >= 0:
                chunks.append(chunk[:end])
                break
            chunks.append(chunk)
            address += len(chunk)
            left -= len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def read_path(self, address: int) -> bytes:
        """Return a path. EFAULT, ENAMETOOLONG when it does not fit in 4096 bytes with its NUL."""
        hit = self._hit
        if hit.start <= address < hit.end and hit.flags & VM_ACCESS:
            # Mappings end with pages, so this piece is in one.
            piece = self.space.read(address, min(_SHORT_PATH, PAGE_SIZE - (address & PAGE_SIZE - 1)))
            end = piece.find(0)
            if end >= 0:
                return piece[:end]
        path = self.read_string(address, _PATH_MAX)
        if len(path) >= _PATH_MAX:
            raise OSError(ENAMETOOLONG, "path too long")
        return path

    # -- numbers ------------------------------------------------------------------------------------------------

    def read_u16(self, address: int) -> int:
        """Return an unsigned 16-bit number."""
        number: int = _U16.unpack(self.read(address, 2))[0]
        return number

    def read_u32(self, address: int) -> int:
        """Return an unsigned 32-bit number."""
        number: int = _U32.unpack(self.read(address, 4))[0]
        return number

    def read_s32(self, address: int) -> int:
        """Return a signed 32-bit number."""
        number: int = _S32.unpack(self.read(address, 4))[0]
        return number

    def read_u64(self, address: int) -> int:
        """Return an unsigned 64-bit number."""
        number: int = _U64.unpack(self.read(address, 8))[0]
        return number

    def read_s64(self, address: int) -> int:
        """Return a signed 64-bit number."""
        number: int = _S64.unpack(self.read(address, 8))[0]
        return number

    def write_u32(self, address: int, value: int) -> None:
        """Store the low 32 bits of *value*."""
        self.write(address, _U32.pack(value & 0xFFFF_FFFF))

    def write_u64(self, address: int, value: int) -> None:
        """Store the low 64 bits of *value*."""
        self.write(address, _U64.pack(value & 0xFFFF_FFFF_FFFF_FFFF))

    def write_s32(self, address: int, value: int) -> None:
        """Store a signed 32-bit number."""
        self.write_u32(address, value)

    def write_s64(self, address: int, value: int) -> None:
        """Store a signed 64-bit number."""
        self.write_u64(address, value)

    # -- vectors ------------------------------------------------------------------------------------------------

    def read_iovec(self, address: int, count: int) -> list[tuple[int, int]]:
        """Return the (address, length) pairs of a struct iovec array, cut to what one call may transfer.

        EINVAL for more than 1024 or a negative length, EFAULT.
        """
        if not 0 <= count <= _UIO_MAXIOV:
            raise OSError(EINVAL, "bad count of iovecs")
        words = struct.unpack(f"<{2 * count}Q", self.read(address, 16 * count))
        vector = []
        left = _MAX_RW_COUNT
        for base, length in zip(words[::2], words[1::2], strict=True):
            if length > _SSIZE_MAX:
                raise OSError(EINVAL, "negative length")
            vector.append((base, min(length, left)))
            left -= min(length, left)
        return vector
