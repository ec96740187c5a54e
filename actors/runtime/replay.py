"""Replay: the actors of one traced process, fed from its trace, with no host, no tracee and no other process.

The actors run for real; their loop is driven by the recorded inputs, their ports give the recorded answers, and what
they send and ask is compared with the record.  The first difference raises :class:`~.tape.Diverged`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ...messages.trace import RecordKind
from .digest import digest
from .loop import Loop
from .node import Node, Placement
from .tape import Diverged, Player

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["ReplayReport", "note_states", "replay_process"]


class ReplayReport(NamedTuple):
    """What a replay that did not diverge has shown."""

    process: str
    records: int
    frames_sent: int
    host_calls: int
    #: Actors whose final state was compared.
    actors: int


class _ReplayLoop(Loop):
    """A loop whose descriptors are names in a trace."""

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        self._callbacks.pop(fd, None)


def note_states(node: Node) -> None:
    """Record (or compare) the final state of every actor of *node*."""
    assert node.tape is not None
    for address in sorted(node.addresses()):
        node.tape.note(RecordKind.STATE, address, digest(node.actor(address)))


def replay_process(
    process: str, records: Iterable[tuple[RecordKind, list[Any]]], build: Callable[[Node, dict[str, Any]], None]
) -> ReplayReport:
    """Replay one process.

    *build* starts the actors on the node as the recorded process did, by the settings of its START record; the node's
    tape is set, so it wraps the ports.  :class:`Diverged` at the first difference.
    """
    player = Player(process, records)
    kind, values = player.take()
    if kind is not RecordKind.START:
        raise Diverged(f"{process}: the trace does not begin with START")
    settings: dict[str, Any] = values[0]
    loop = _ReplayLoop()
    endpoints = {name: f"inproc://replay-{name}" for name in settings["endpoints"]}
    with Node(process, loop, Placement(endpoints, settings["workers"])) as node:
        node.tape = loop.tape = player
        build(node, settings)
        _drive(player, loop, node)
        matched = player.matched
        return ReplayReport(process, player.position, matched["SENT"], matched["CALL"], matched["STATE"])


def _drive(player: Player, loop: Loop, node: Node) -> None:
    """Feed the recorded inputs until the trace ends."""
    while (record := player.peek()) is not None:
        kind, values = record
        if kind is RecordKind.TURN:
            loop.run_ready(values[0])
        elif kind is RecordKind.FRAMES:
            node.replay_frames()
        elif kind is RecordKind.WATCH:
            player.take()
            loop.replay_watch(values[0], values[1])
        elif kind is RecordKind.TIMER:
            player.take()
            loop.replay_timer(values[0])
        elif kind is RecordKind.STATE:
            note_states(node)
        else:
            raise Diverged(
                f"{player.process}, record {player.position}: recorded {kind.name} {values!r:.300}, "
                "but the replayed actors did nothing"
            )
