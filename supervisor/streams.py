"""What a program's three standard streams may be: a host descriptor, /dev/null, or closed."""

from __future__ import annotations

import os

__all__ = ["CLOSED_STREAM", "NULL_STREAM", "fill_closed_streams"]

#: Instead of a descriptor, here and in ``ProcessArguments.stdio``: opened on /dev/null, or not open at all.
NULL_STREAM = -1
CLOSED_STREAM = -2


def fill_closed_streams() -> frozenset[int]:
    """Put /dev/null where this process was started with a closed standard stream; return which ones were closed.

    Otherwise the next descriptor that is opened, a socket perhaps, would be taken for that stream.
    """
    closed = set()
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # the lowest free number: this one
            closed.add(fd)
    return frozenset(closed)
