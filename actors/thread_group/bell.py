"""A host descriptor that is readable when we say so: what poll(2) and epoll(7) see of a file that the host has not.

It is a pipe with a byte in it or none: unlike an eventfd it is never writable, and a second byte is a new edge for
edge-triggered epoll.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .host import WorkerHost

__all__ = ["Bell"]

_DRAIN_BYTES: Final = 4096


class Bell:
    """A pipe. The reading end belongs to the open file (``host_fd``); ``close`` closes the other."""

    __slots__ = ("_host", "_write_fd", "fd", "ringing")

    def __init__(self, host: WorkerHost) -> None:
        self._host = host
        self.fd, self._write_fd = host.make_pipe()
        self.ringing = False

    def ring(self) -> None:
        """Make it readable; again when it is already, for those who look at edges."""
        self.ringing = True
        with contextlib.suppress(BlockingIOError):  # full of edges that nobody has looked at
            self._host.write(self._write_fd, b"\0")

    def silence(self) -> None:
        """Make it unreadable."""
        if not self.ringing:
            return
        self.ringing = False
        while len(self._host.read(self.fd, _DRAIN_BYTES)) == _DRAIN_BYTES:
            pass

    def close(self) -> None:
        """Close the writing end."""
        self._host.close(self._write_fd)
