"""Leases: what the worker may answer by itself, until it is told that it may not.

Linux: the delegations of NFSv4 and fcntl(2)'s leases, here of names and attributes.  A reply about a path of file
systems in memory names a *lease*, which stands for the inode's attributes and for every path and permission that was
answered with it.  Whatever changes one of these calls ``end`` (through ``Inode.changed``) or ``end_all`` before it is
answered, so the worker is told first: frames from one process to another arrive in the order sent, whoever sends and
receives them.  The answer to unlink(2) itself says which lease it ends: a message less for each file that was looked at
before it was removed.  Only a sandbox's only worker gets leases; several had to acknowledge what is taken back.

A *live* lease is one of a file whose contents somebody has open: its size and times are what the host says of the
open descriptor, and all users of the descriptors are in that worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...config.limits import MAX_MISSING_NAMES
from ...messages.thread_group import LeasesEnded

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...messages.base import Message
    from .inode import Inode

__all__ = ["LeaseTable"]


class LeaseTable:
    """What was granted."""

    def __init__(self) -> None:
        #: Tells the worker; None: there is none that gets leases.
        self.post: Callable[[Message], None] | None = None
        #: Number of the last lease; numbers are never used again.
        self._last = 0
        #: Something was granted since everything ended.
        self._granted = False
        #: Names whose absence was granted, in whichever directory.
        self._missing: set[bytes] = set()

    def grant(self, inode: Inode) -> int:
        """Return the number of the inode's lease; 0 when nobody gets any."""
        if self.post is None:
            return 0
        if not inode.lease:
            self._last += 1
            inode.lease = self._last
            self._granted = True
        inode.is_live = inode.data is not None and inode.data.users > 0
        return inode.lease

    def grant_absence(self, name: bytes) -> bool:
        """Tell whether the worker may know that *name* is missing where a walk looked for it."""
        if self.post is None:
            return False
        if len(self._missing) >= MAX_MISSING_NAMES:
            self.end_all()
        self._missing.add(name)
        self._granted = True
        return True

    def end(self, inode: Inode) -> None:
        """An attribute of the inode has changed, or a name of it has gone."""
        number, inode.lease = inode.lease, 0
        if self.post is not None:
            self.post(LeasesEnded(lease=number, name=b"", everything=False))

    @staticmethod
    def take_back(inode: Inode) -> int:
        """End the inode's lease without a message: return its number (0: none), which the answer in hand will tell."""
        number, inode.lease = inode.lease, 0
        return number

    def named(self, name: bytes) -> None:
        """A name has come into being."""
        if name in self._missing and self.post is not None:
            self._missing.discard(name)
            self.post(LeasesEnded(lease=0, name=name, everything=False))

    def end_all(self) -> None:
        """Any path may lead elsewhere now."""
        if self._granted and self.post is not None:
            self._granted = False
            self._missing.clear()
            self.post(LeasesEnded(lease=0, name=b"", everything=True))
