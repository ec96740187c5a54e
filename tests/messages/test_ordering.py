"""The order of asks has no cycle, so nobody waits for somebody who waits for him."""

from __future__ import annotations

import graphlib

import pytest
from greenroom.messages import catalogue
from greenroom.messages.base import MESSAGE_TYPES, Mode
from greenroom.messages.ordering import ALLOWED_ASKS, RANKS, WrongAsk, check_ask

assert catalogue.MESSAGE_MODULES, "importing the catalogue declares every message"


def test_the_table_is_acyclic() -> None:
    """A topological order of the table exists."""
    graph = {asker: set(asked) for asker, asked in ALLOWED_ASKS.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_every_allowed_ask_goes_down_the_ranks() -> None:
    """The ranks are such an order."""
    for asker, asked in ALLOWED_ASKS.items():
        for receiver in asked:
            assert RANKS.index(asker) < RANKS.index(receiver)


@pytest.mark.parametrize("asker", RANKS)
@pytest.mark.parametrize("receiver", RANKS)
def test_an_ask_outside_the_table_raises(asker: str, receiver: str) -> None:
    """check_ask lets through what the table holds, and nothing else."""
    if receiver in ALLOWED_ASKS[asker]:
        check_ask(f"{asker}:1", receiver)
    else:
        with pytest.raises(WrongAsk):
            check_ask(f"{asker}:1", receiver)


def test_every_ask_has_somebody_who_may_ask_it() -> None:
    """A message that nobody may ask would be dead."""
    asked = set().union(*ALLOWED_ASKS.values())
    for cls in MESSAGE_TYPES.values():
        if cls.MODE is Mode.ASK:
            assert cls.RECEIVER in asked, cls.__name__
