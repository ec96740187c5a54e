"""A guest's memory on the notify platform, and which of its ranges the host is about to change.

Linux counterpart: ``mmap_lock``.  It owns the calls in flight: those of one task of several that are deferred, or have
been left to the host, and of which nothing has been heard since.

Our list of mappings has changed already, the host's has not.  Whoever changes the same range next would find it in the
other order there; so would a fork, which copies all.  Hence both wait for the calls in flight.  To the guest no order
is wrong: a call that has not returned may have happened or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..interface import GUEST_TOP
from ..ptrace.space import PtraceSpace

if TYPE_CHECKING:
    from .task import NotifyTask

__all__ = ["NotifySpace"]


class NotifySpace(PtraceSpace):
    """One host address space."""

    __slots__ = ("in_flight",)

    def __init__(self, host_tid: int) -> None:
        """Open it through its first host task."""
        super().__init__(host_tid)
        #: Start and end of what each task is about to change. Empty while there is one task, whose calls are in order.
        self.in_flight: dict[NotifyTask, tuple[int, int]] = {}

    def settle(self, task: NotifyTask, start: int = 0, end: int = GUEST_TOP) -> None:
        """Wait until the host has made the calls that are in flight in the range, for *task* wants to change it."""
        for other, (first, last) in list(self.in_flight.items()):
            if other is not task and first < end and start < last:
                other.halt()
