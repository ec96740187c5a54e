"""Where a sandbox is in its life, how many pauses are in force, and how it ended.

Counterpart: the fields of kernel.go's Kernel under extMu.  Plain data; nothing here sends a message.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from ..runtime.actor import Refused

__all__ = ["TRANSITIONS", "ExitError", "Lifecycle", "SandboxState"]


class SandboxState(enum.Enum):
    """The states of a sandbox."""

    NEW = "new"  #: nothing is set up
    CREATED = "created"  #: set up or loaded; no guest instruction has run
    RUNNING = "running"
    PAUSED = "paused"
    SAVING = "saving"
    EXITED = (
        "exited"  #: killed or failed: for good. A sandbox whose processes have all ended by themselves may get new ones
    )
    DESTROYED = "destroyed"


_S = SandboxState

#: state -> states that may follow it.
TRANSITIONS: dict[SandboxState, frozenset[SandboxState]] = {
    _S.NEW: frozenset({_S.CREATED, _S.DESTROYED}),
    _S.CREATED: frozenset({_S.RUNNING, _S.SAVING, _S.PAUSED, _S.EXITED, _S.DESTROYED}),
    _S.RUNNING: frozenset({_S.PAUSED, _S.SAVING, _S.EXITED, _S.DESTROYED}),
    _S.PAUSED: frozenset({_S.RUNNING, _S.CREATED, _S.SAVING, _S.EXITED, _S.DESTROYED}),
    _S.SAVING: frozenset({_S.CREATED, _S.RUNNING, _S.PAUSED, _S.EXITED, _S.DESTROYED}),
    _S.EXITED: frozenset({_S.DESTROYED}),
    _S.DESTROYED: frozenset(),
}


class ExitError(NamedTuple):
    """Why a sandbox ended."""

    reason: str
    #: Wait status.
    status: int
    #: Not the guest's doing: a bug of ours or a lost process.
    failed: bool


class Lifecycle:
    """State, pauses and end of one sandbox."""

    def __init__(self) -> None:
        self.state = SandboxState.NEW
        self.started = False
        #: Pauses in force.
        self.pauses = 0
        #: Number of the last stop; each has its own.
        self.epoch = 0
        #: How it ended, or why no process is left; None while there are processes, and before the first.
        self.exit: ExitError | None = None

    def advance(self, old: SandboxState, new: SandboxState) -> None:
        """Go from *old* to *new*: the only writer of ``state``. AssertionError for an impossible step."""
        assert self.state is old, f"the sandbox is {self.state.value}, not {old.value}"
        assert new in TRANSITIONS[old], f"a sandbox cannot go from {old.value} to {new.value}"
        self.state = new

    def demand(self, *states: SandboxState) -> None:
        """Raise Refused unless the sandbox is in one of *states*."""
        if self.state not in states:
            raise Refused(f"the sandbox is {self.state.value}")

    def demand_alive(self) -> None:
        """Raise Refused unless the sandbox has been set up and has not ended."""
        self.demand(SandboxState.CREATED, SandboxState.RUNNING, SandboxState.PAUSED)

    @property
    def shown_state(self) -> SandboxState:
        """What people are told: a sandbox that runs without a process has exited."""
        if self.state is SandboxState.RUNNING and self.exit is not None:
            return SandboxState.EXITED
        return self.state

    def check(self) -> None:
        """Assert the invariants."""
        assert self.pauses >= 0, "pauses are counted from 0"
        assert self.state is not SandboxState.RUNNING or self.started, "what runs has been started"
        assert self.state is not SandboxState.RUNNING or self.pauses == 0, "what runs is not paused"
        assert self.state is not SandboxState.PAUSED or self.pauses > 0, "what is paused has a pause in force"
        assert (self.exit is not None) or self.state is not SandboxState.EXITED, "what has ended says why"
