"""The measuring itself: rounds in which every system takes every row once, in an order drawn from a seed.

Within a round the rows come in a drawn order, and for each row the systems in another: so whatever the machine does
meanwhile meets all of them alike, and none always follows the same one.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from .measures import Budget, Session
from .processes import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .document import Document
    from .fixtures import Fixtures
    from .rows import Row
    from .systems import System

__all__ = ["measure"]


def measure(
    document: Document,
    rows: Sequence[Row],
    systems: Sequence[System],
    fixtures: Fixtures,
    budget: Budget,
    *,
    limit_s: float,
    progress: Callable[[int, str], None] = lambda _number, _text: None,
) -> None:
    """Fill *document* with samples. *progress* is told the round and what is measured next.

    Nothing is started later than *limit_s* seconds after the beginning.
    """
    available = [system for system in systems if not system.unavailable]
    order = random.Random(document.seed)  # noqa: S311  # not for secrets
    begin = time.monotonic()
    hopeless: set[tuple[str, str]] = set()
    for number in range(document.rounds):
        sessions = {system.name: Session(system, fixtures, budget) for system in available}
        try:
            for row, system in _drawn(order, rows, available, number):
                if (row.key, system.name) in hopeless:
                    continue
                if time.monotonic() - begin > limit_s:
                    document.complete = False
                    break
                progress(number, f"{row.key}: {system.title}")
                if _sample(document, row, sessions[system.name], number):
                    hopeless.add((row.key, system.name))
        finally:
            for session in sessions.values():
                session.close()
    document.seconds = round(time.monotonic() - begin, 1)


def _drawn(
    order: random.Random, rows: Sequence[Row], systems: Sequence[System], number: int
) -> Iterator[tuple[Row, System]]:
    """Draw the order of round *number*. What only a full run has is dear, and comes last lest the time runs out."""
    taking_part = [row for row in rows if not row.rounds or number < row.rounds]
    for full in (False, True):
        some = [row for row in taking_part if row.full == full]
        for row in order.sample(some, len(some)):
            for system in order.sample(systems, len(systems)):
                if row.is_for(system.name):
                    yield row, system


def _sample(document: Document, row: Row, session: Session, number: int) -> bool:
    """Take one sample, or note why there is none; return whether there is no point in another try."""
    try:
        document.add(row.key, session.system.name, number, row.measure.sample(session, row.timeout_s))
    except Failure as failure:
        session.give_up()
        document.add_error(row.key, session.system.name, number, str(failure))
        return failure.final
    return False
