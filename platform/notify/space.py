"""A guest's memory on the notify platform, and which of its ranges the host is about to change.

Linux counterpart: ``mmap_lock``.  It owns the calls in flight: those of one task of several that are deferred, or have
been left to the host, and of which nothing has been heard since.

Our list of mappings has changed already, the host's has not.  Whoever changes the same range next would find it in the
other order there; so would a fork, which copies all; and where the host puts an mmap depends on what is mapped
anywhere.  Hence these wait for the calls in flight.  To the guest no order is wrong: a call that has not returned may
have happened or not.

A task is interrupted to know of its call only when that cannot be seen.  A new mapping is seen by reading from where
nothing was before; a mapping that has gone, by reading from where something was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..interface import GUEST_TOP
from ..ptrace.space import PtraceSpace
from ..x86_64.syscall_numbers import SYSCALL_NUMBERS as SYS

if TYPE_CHECKING:
    from .task import NotifyTask

__all__ = ["NotifySpace"]

_MUNMAP: Final = SYS["munmap"]
#: Calls that take room or leave it.
_PLACING: Final = frozenset((SYS["mmap"], _MUNMAP))


class NotifySpace(PtraceSpace):
    """One host address space."""

    __slots__ = ("in_flight",)

    def __init__(self, host_tid: int) -> None:
        """Open it through its first host task."""
        super().__init__(host_tid)
        #: The call of each task, start and end of what it changes, and whether something was mapped at the start. Empty
        #: while there is one task, whose calls are in order.
        self.in_flight: dict[NotifyTask, tuple[int, int, int, bool]] = {}

    def take_off(self, task: NotifyTask, number: int, start: int, length: int) -> None:
        """Note that *task* is about to make a call."""
        self.in_flight[task] = (number, start, start + length, number in _PLACING and self._is_mapped(start))

    def settle(self, task: NotifyTask, start: int = 0, end: int = GUEST_TOP, *, places: bool = False) -> None:
        """Wait until the host has made the calls that are in flight in the range, for *task* wants to change it.

        With *places* also for those elsewhere that take or leave room.
        """
        for other, (number, first, last, mapped) in list(self.in_flight.items()):
            if other is task or not (first < end and start < last or places and number in _PLACING):
                continue
            if number in _PLACING and mapped == (number == _MUNMAP) and mapped != self._is_mapped(first):
                other.landed()
            else:
                other.halt()

    def _is_mapped(self, address: int) -> bool:
        try:
            return bool(self.read(address, 1))
        except OSError:
            return False
