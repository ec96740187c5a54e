"""The stock: sandboxes that have been made before anybody asked for them.

Most of what a new sandbox takes is the same for all: a fork, a node, a platform with its seed, the actors.  A member of
the stock has all that, belongs to nobody, and has no name; it becomes a sandbox when its Supervisor actor is given a
specification.  What a specification decides before the kernel is set up (:class:`Shape`) has to be that of the member;
everything else travels in ``InitKernel``, as it does to a sandbox that was made for it alone.  So a member has never
seen anything of another sandbox, and nobody gets a member twice.

The stock follows the demand.  It holds members of the shape that was asked for last; it begins with none, grows by one
whenever somebody came and none was ready, up to a limit, and is dropped when nobody has come for long.  One member is
made at a time, and only while nobody waits for a start.  A member that dies is replaced; when several have died the
making ends until somebody asks again, who then gets the reason.

Linux counterpart: none; a server's pool of preforked children.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from ..config.limits import MAX_STOCK, STOCK_IDLE_NS
from ..config.logging import get_logger
from ..config.spec import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..actors.runtime.loop import Loop, Timer
    from .actor import Supervisor

__all__ = ["Shape", "Stock"]

log = get_logger(__name__)


class Shape(NamedTuple):
    """What of a specification has to be known when a sandbox's processes are made."""

    platform: str
    placement: str
    workers: int

    @classmethod
    def of(cls, spec: SandboxSpec) -> Shape | None:
        """Return the shape of *spec*; None for one whose processes write files of its own from the start."""
        if spec.trace or spec.log_json:
            return None
        return cls(spec.platform, spec.placement, spec.workers)

    def specification(self) -> SandboxSpec:
        """Return a specification of this shape that is nobody's."""
        return SandboxSpec(platform=self.platform, placement=self.placement, workers=self.workers)


class Stock:
    """The members, and when another is made."""

    def __init__(self, loop: Loop, make: Callable[[SandboxSpec], Supervisor], limit: int = MAX_STOCK) -> None:
        """*make* makes the Supervisor of a sandbox without a name; *limit* is how many there are at most."""
        self._loop = loop
        self._make = make
        self._limit = limit
        self._shape: Shape | None = None
        #: Members that there should be.
        self.wanted = 0
        #: Members that live, oldest first, and those that were told to end.
        self.members: list[Supervisor] = []
        self.leaving: list[Supervisor] = []
        #: Members that died since somebody came.
        self._deaths = 0
        #: Starts in progress that somebody waits for.
        self._awaited = 0
        self._refill_is_due = False
        self._idle: Timer | None = None
        #: Called, once, when the first member is there or there will be none.
        self._on_filled: Callable[[], None] = _nobody_waits

    def take(self, spec: SandboxSpec) -> Supervisor | None:
        """Return the member that *spec* may have, which is no member any more, or None."""
        shape = Shape.of(spec)
        if shape is None or not self._limit:
            return None
        self._note_demand(shape)
        found = next((member for member in self.members if member.prepared), None)
        if found is None:
            self.wanted = min(self.wanted + 1, self._limit)
            found = next((member for member in self.members if member.starting), None)
        if found is not None:
            self.members.remove(found)
        return found

    def _note_demand(self, shape: Shape) -> None:
        self._deaths = 0
        if shape != self._shape:
            self.drop()
            self._shape = shape
        if self._idle is not None:
            self._idle.cancel()
        self._idle = self._loop.call_at(time.monotonic_ns() + STOCK_IDLE_NS, self.drop)

    def expect(self, spec: SandboxSpec, filled: Callable[[], None]) -> None:
        """Begin to fill the stock for such as *spec*, before the first one is asked for.

        *filled* is called when the first member is there, or there will be none.
        """
        self._on_filled = filled
        shape = Shape.of(spec)
        if shape is not None and self._limit:
            self._note_demand(shape)
            self.wanted = max(self.wanted, 1)
            self._refill_soon()
        else:
            self._say_filled()

    def _say_filled(self) -> None:
        filled, self._on_filled = self._on_filled, _nobody_waits
        filled()

    # -- refill -------------------------------------------------------------------------------------------------

    def start_begins(self) -> None:
        """Somebody waits for a start from now on, until :meth:`start_ended`."""
        self._awaited += 1

    def start_ended(self) -> None:
        """A start that somebody waited for has its answer."""
        self._awaited -= 1
        self._refill_soon()

    def _refill_soon(self) -> None:
        if not self._refill_is_due:
            self._refill_is_due = True
            self._loop.call_soon(self._refill)

    def _refill(self) -> None:
        self._refill_is_due = False
        if self._awaited or self._shape is None or len(self.members) >= self.wanted:
            return
        if self.members and not self.members[-1].prepared:
            return  # one at a time
        try:
            member = self._make(self._shape.specification())
        except OSError as error:
            log.warning("no stock of prepared sandboxes", reason=str(error))
            self._give_up()
            return
        self.members.append(member)
        member.prepare(self._member_prepared)

    def _member_prepared(self) -> None:
        self._say_filled()
        self._refill_soon()

    def _give_up(self) -> None:
        """Make no more until somebody asks again."""
        self.wanted = 0
        self._say_filled()

    # -- ends ---------------------------------------------------------------------------------------------------

    def member_ended(self, member: Supervisor) -> None:
        """Nothing is left of a member: it died, or it was told to end."""
        if member in self.leaving:
            self.leaving.remove(member)
            return
        self.members.remove(member)
        log.warning("a prepared sandbox died", reason=member.end_report.reason)
        self._deaths += 1
        if self._deaths > self._limit:
            self._give_up()
        self._refill_soon()

    def drop(self) -> None:
        """End every member, and make none until somebody asks again."""
        self.wanted, self._shape = 0, None
        self.leaving += self.members
        self.members = []
        for member in self.leaving:
            member.end("killed", "it is not needed")

    def close(self) -> None:
        """Drop everything and stay empty."""
        self._limit = 0
        if self._idle is not None:
            self._idle.cancel()
        self.drop()


def _nobody_waits() -> None:
    """Stand for whoever waits for the first member, when nobody does."""
