"""Passing host descriptors beside messages.

A message carries a *token*; the descriptor itself goes through this port.  Between actors of one process the token is
redeemed from a table; between processes it travels by SCM_RIGHTS over a socket that connects each pair of processes.
The descriptor is sent before the message that names it, so it is there when the message arrives.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

__all__ = ["Descriptors", "receive_fds"]

_TOKEN: Final = struct.Struct("<Q")
_FD: Final = struct.Struct("=i")


def receive_fds(source: socket.socket, size: int, max_fds: int, flags: int = 0) -> tuple[bytes, list[int]]:
    """Receive one packet with the descriptors beside it; they are closed on exec.

    Instead of ``socket.recv_fds``, which in Python 3.11 takes flags and ignores them.
    """
    space = socket.CMSG_SPACE(max_fds * _FD.size)
    data, ancillary, _, _ = source.recvmsg(size, space, flags | socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = len(content) // _FD.size * _FD.size
            fds += [fd for (fd,) in _FD.iter_unpack(content[:whole])]
    return data, fds


class Descriptors:
    """Descriptors on their way between this process and its peers.

    *peers* maps a process name to a connected SOCK_SEQPACKET socket.  A token's low bits number it at its sender; the
    sender's index in the high bits keeps tokens of different senders apart.
    """

    def __init__(self, name: str, peers: dict[str, socket.socket]) -> None:
        self._peers = peers
        self._prefix = (sum(name.encode()) + 1) << 40
        self._count = 0
        self._here: dict[int, int] = {}

    def give(self, process: str | None, fd: int) -> int:
        """Hand *fd* over to *process* (None: this one) and return its token; this process keeps no copy."""
        self._count += 1
        token = self._prefix | self._count
        if process is None:
            self._here[token] = fd
        else:
            try:
                socket.send_fds(self._peers[process], [_TOKEN.pack(token)], [fd])
            finally:
                os.close(fd)
        return token

    def take(self, token: int) -> int:
        """Return the descriptor behind *token*, which the caller now owns. KeyError when it never came."""
        fd = self._here.pop(token, -1)
        if fd < 0:
            self._receive(token)
            fd = self._here.pop(token)
        return fd

    def add_peer(self, process: str, peer: socket.socket) -> None:
        """Connect another process."""
        self._peers[process] = peer

    def _receive(self, token: int) -> None:
        """Read what the peers sent until *token* has come or nothing is left."""
        for peer in self._peers.values():
            while token not in self._here:
                try:
                    data, fds = receive_fds(peer, _TOKEN.size, 1, socket.MSG_DONTWAIT)
                except OSError:  # nothing is there, or the peer has died
                    break
                if not data:
                    break
                (number,) = _TOKEN.unpack(data)
                self._here[number] = fds[0]

    def close(self) -> None:
        """Close every peer socket and every descriptor that was never taken."""
        for peer in self._peers.values():
            peer.close()
        for fd in self._here.values():
            os.close(fd)
        self._peers, self._here = {}, {}
