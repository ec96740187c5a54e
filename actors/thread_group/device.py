"""The memory devices: null, zero, full, random, urandom.

Linux counterpart: drivers/char/mem.c and drivers/char/random.c.
"""

from __future__ import annotations

from errno import ENOSPC
from typing import TYPE_CHECKING, ClassVar, Final

from .open_file import OpenFile

if TYPE_CHECKING:
    from .task import Task

__all__ = ["DEVICES", "FullDevice", "NullDevice", "RandomDevice", "ZeroDevice"]


class NullDevice(OpenFile):
    """/dev/null."""

    __slots__ = ()
    kind: ClassVar[str] = "null"
    seekable: ClassVar[bool] = True

    def pull(self, task: Task, count: int, offset: int | None) -> bytes:
        """End of file."""
        return b"" if self.readable else bytes(super().pull(task, count, offset))

    def push(self, task: Task, data: bytes, offset: int | None) -> int:
        """Everything disappears."""
        return len(data) if self.writable else int(super().push(task, data, offset))

    def seek(self, task: Task, offset: int, whence: int) -> int:
        """The position is always 0."""
        return 0


class ZeroDevice(NullDevice):
    """/dev/zero."""

    __slots__ = ()
    kind: ClassVar[str] = "zero"
    splice_source: ClassVar[bool] = True
    fills: ClassVar[bool] = True

    def pull(self, task: Task, count: int, offset: int | None) -> bytes:
        """Zeros without end."""
        return bytes(count) if self.readable else super().pull(task, count, offset)


class FullDevice(ZeroDevice):
    """/dev/full."""

    __slots__ = ()
    kind: ClassVar[str] = "full"

    def push(self, task: Task, data: bytes, offset: int | None) -> int:
        """No space, ever."""
        raise OSError(ENOSPC, "")


class RandomDevice(NullDevice):
    """/dev/random and /dev/urandom."""

    __slots__ = ()
    kind: ClassVar[str] = "random"
    splice_source: ClassVar[bool] = True
    fills: ClassVar[bool] = True

    def pull(self, task: Task, count: int, offset: int | None) -> bytes:
        """Bytes of the host's generator."""
        return self.worker.host.random_bytes(count) if self.readable else super().pull(task, count, offset)


#: Device number (major << 8 | minor) to class.
DEVICES: Final[dict[int, type[OpenFile]]] = {
    1 << 8 | 3: NullDevice,
    1 << 8 | 5: ZeroDevice,
    1 << 8 | 7: FullDevice,
    1 << 8 | 8: RandomDevice,
    1 << 8 | 9: RandomDevice,
}
