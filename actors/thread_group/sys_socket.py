"""Sockets.

Linux counterpart: net/socket.c, net/unix/af_unix.c.
"""

from __future__ import annotations
