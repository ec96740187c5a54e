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
    from collections.abc import Callable, Sequence

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

    Past *limit_s* seconds no row is started that has a sample already.
    """
    available = [system for system in systems if not system.unavailable]
    order = random.Random(document.seed)  # noqa: S311  # not for secrets
    begin = time.monotonic()
    hopeless: set[tuple[str, str]] = set()
    for number in range(document.rounds):
        sessions = {system.name: Session(system, fixtures, budget) for system in available}
        try:
            for row in order.sample(rows, len(rows)):
                if row.rounds and number >= row.rounds:
                    continue
                if number and time.monotonic() - begin > limit_s:
                    document.complete = False
                    break
                for system in order.sample(available, len(available)):
                    cell = row.key, system.name
                    if row.is_for(system.name) and cell not in hopeless:
                        progress(number, f"{row.key}: {system.title}")
                        if _sample(document, row, sessions[system.name], number):
                            hopeless.add(cell)
        finally:
            for session in sessions.values():
                session.close()
    document.seconds = round(time.monotonic() - begin, 1)


def _sample(document: Document, row: Row, session: Session, number: int) -> bool:
    """Take one sample, or note why there is none; return whether there is no point in another try."""
    try:
        document.add(row.key, session.system.name, number, row.measure.sample(session, row.timeout_s))
    except Failure as failure:
        session.give_up()
        document.add_error(row.key, session.system.name, number, str(failure))
        return failure.final
    return False
