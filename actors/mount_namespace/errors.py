"""The errors of path operations: errnos for the guest, and the magic link that only another actor can follow."""

from __future__ import annotations

import errno
import os
from typing import NoReturn

__all__ = ["MagicLinkMet", "NameMissing", "fail"]


def fail(number: int, what: bytes = b"") -> NoReturn:
    """Raise the guest's errno *number*; *what* names the file for people."""
    raise OSError(number, f"{os.strerror(number)}: {what!r}" if what else os.strerror(number))


class NameMissing(FileNotFoundError):
    """ENOENT for want of *name*, found by a walk that would fail again until that name is made somewhere."""

    def __init__(self, name: bytes) -> None:
        super().__init__(errno.ENOENT, f"{os.strerror(errno.ENOENT)}: {name!r}")
        self.name = name


class MagicLinkMet(OSError):
    """The walk met /proc/PID/<magic>, which only PID's ThreadGroup can follow; *rest* is the path behind it.

    Requests whose reply has no room for it fail with ELOOP and the text ``magic-link SIDE PID MAGIC REST``: *SIDE* is
    "old" or "new" for requests with two paths, else "path"; *REST* is in hexadecimal.
    """

    def __init__(self, pid: int, magic: str, rest: bytes, side: str = "path") -> None:
        super().__init__(errno.ELOOP, f"magic-link {side} {pid} {magic} {rest.hex()}")
        self.pid = pid
        self.magic = magic
        self.rest = rest
