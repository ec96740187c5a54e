"""The states of a sandbox as its supervisor sees it, and the only ways between them."""

from __future__ import annotations

import enum

__all__ = ["TRANSITIONS", "State", "advance"]


class State(enum.Enum):
    """Where a sandbox is in its life."""

    STARTING = "starting"  #: its processes are being made, or its kernel is being set up or loaded
    RUNNING = "running"
    PAUSED = "paused"
    SAVING = "saving"
    ENDING = "ending"  #: its processes have been told to go
    ENDED = "ended"  #: nothing of it is left


TRANSITIONS: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.RUNNING, State.ENDING}),
    State.RUNNING: frozenset({State.PAUSED, State.SAVING, State.ENDING}),
    State.PAUSED: frozenset({State.RUNNING, State.SAVING, State.ENDING}),
    State.SAVING: frozenset({State.RUNNING, State.PAUSED, State.ENDING}),
    State.ENDING: frozenset({State.ENDED}),
    State.ENDED: frozenset(),
}


def advance(old: State, new: State) -> State:
    """Return *new*. RuntimeError when a sandbox cannot go there from *old*."""
    if new not in TRANSITIONS[old]:
        raise RuntimeError(f"a sandbox does not go from {old.value} to {new.value}")
    return new
