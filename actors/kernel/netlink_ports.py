"""Netlink port ids: who has which, per protocol.

Linux counterpart: netlink_autobind; the reference is pkg/sentry/socket/netlink/port/port.go.  A socket's first
choice is its process id; else a free negative number.  gVisor starts its search at random; this one starts where the
last one ended, so that a replay finds the same.
"""

from __future__ import annotations

from errno import EADDRINUSE
from typing import Final

__all__ = ["PortManager"]

_FIRST: Final = -(1 << 31)
#: Numbers from -4096 up are left free, as in Linux.
_END: Final = -4096


class PortManager:
    """The ports in use."""

    def __init__(self) -> None:
        self._used: dict[int, set[int]] = {}
        self._next = _FIRST

    def allocate(self, protocol: int, hint: int) -> int:
        """Reserve *hint* if it is free, else a negative port. EADDRINUSE when there is none."""
        used = self._used.setdefault(protocol, set())
        port = hint if hint not in used else self._search(used)
        used.add(port)
        return port

    def _search(self, used: set[int]) -> int:
        if len(used) > _END - _FIRST:
            raise OSError(EADDRINUSE, "every netlink port is in use")
        while self._next in used:
            self._next = self._next + 1 if self._next + 1 < _END else _FIRST
        return self._next

    def release(self, protocol: int, port: int) -> None:
        """Give a port back; one that is not in use is a bug of the sender."""
        self._used[protocol].remove(port)

    def as_plain(self) -> list[list[int]]:
        """Return [protocol, port] pairs to save."""
        return [[protocol, port] for protocol, ports in sorted(self._used.items()) for port in sorted(ports)]

    def load(self, pairs: list[list[int]]) -> None:
        """Take saved pairs."""
        self._used.clear()
        for protocol, port in pairs:
            self._used.setdefault(protocol, set()).add(port)
