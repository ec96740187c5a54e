"""The Timekeeper actor: the clock parameters of a sandbox.

Linux counterpart: kernel/time/timekeeping.c; the parameters are what its vDSO data page holds.  Owns the offsets
between the host's clocks and the guest's.  Handles AddClockReader, FreezeClocks, ThawClocks, ReadClocks, SaveClocks,
LoadClocks, SetRealtime; asks nobody; tells every reader (worker) ClockParameters whenever they change, so that
reading a clock is local.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...messages import timekeeper as messages
from ..runtime.actor import Actor, Refused, handles
from .clocks import ClockMode, GuestClocks
from .host import HostClock, SystemClock

if TYPE_CHECKING:
    from ..runtime.node import Node

__all__ = ["Timekeeper"]


class Timekeeper(Actor):
    """The clocks of one sandbox."""

    def __init__(self, address: str, node: Node, *, host: HostClock | None = None) -> None:
        super().__init__(address, node)
        self.clocks = GuestClocks(host or SystemClock())
        #: Addresses of the workers that are told, in the order in which they were added.
        self.readers: dict[str, None] = {}

    @handles(messages.AddClockReader)
    def add_reader(self, message: messages.AddClockReader) -> None:
        """Tell a worker now and whenever something changes. The guest boots when the first one is told."""
        if not self.readers:
            self.clocks.boot()
        self.readers[message.address] = None
        self.tell(message.address, self.clocks.parameters())

    @handles(messages.FreezeClocks)
    def freeze(self, _message: messages.FreezeClocks) -> None:
        """A pause begins. Nested pauses are Kernel's to count."""
        self.clocks.freeze()
        self._tell_readers()

    @handles(messages.ThawClocks)
    def thaw(self, _message: messages.ThawClocks) -> None:
        """The pause ends."""
        self.clocks.thaw()
        self._tell_readers()

    @handles(messages.ReadClocks)
    def read(self, _message: messages.ReadClocks) -> messages.ClockState:
        """Tell the time."""
        return self.clocks.state()

    @handles(messages.SaveClocks)
    def save(self, _message: messages.SaveClocks) -> messages.ClockState:
        """Give the times to save. Refused while they run."""
        if self.clocks.mode is not ClockMode.FROZEN:
            raise Refused("clocks run: a save needs a pause")
        return self.clocks.state()

    @handles(messages.LoadClocks)
    def load(self, message: messages.LoadClocks) -> None:
        """Continue from saved times; frozen until ThawClocks."""
        self.clocks.load(message)
        self._tell_readers()

    @handles(messages.SetRealtime)
    def set_realtime(self, message: messages.SetRealtime) -> None:
        """clock_settime(2)."""
        self.clocks.set_realtime(message.realtime_ns)
        self._tell_readers()

    def _tell_readers(self) -> None:
        for reader in self.readers:
            self.tell(reader, self.clocks.parameters())

    def check(self) -> None:
        """Assert the invariants."""
        self.clocks.check()
