"""The runtime keeps order, answers asks, and stops an actor that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from greenroom.actors.runtime.actor import Actor, ActorFailed, Ask, handles
from greenroom.actors.runtime.loop import Loop
from greenroom.actors.runtime.node import Node, Placement
from greenroom.messages.ordering import WrongAsk
from greenroom.messages.timekeeper import ClockState, FreezeClocks, ReadClocks, SetRealtime, ThawClocks

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


class Clock(Actor):
    """Answers with the last time that it was told."""

    now = 0

    @handles(SetRealtime)
    def set(self, message: SetRealtime) -> None:
        self.now = message.realtime_ns

    @handles(ReadClocks)
    def read(self, _message: ReadClocks) -> ClockState:
        return ClockState(monotonic_ns=self.now, realtime_ns=self.now, boot_realtime_ns=0)

    @handles(FreezeClocks)
    def refuse(self, _message: FreezeClocks) -> None:
        raise PermissionError(1, "no")

    @handles(ThawClocks)
    def break_down(self, _message: ThawClocks) -> None:
        raise AssertionError("invariant")


class Asker(Actor):
    """Drives asks for the tests."""

    def run_asking(self, asking: Generator[Any, Any, Any]) -> list[tuple[Any, BaseException | None]]:
        finished: list[tuple[Any, BaseException | None]] = []
        self.drive(asking, lambda value, error: finished.append((value, error)))
        for _ in range(100):
            self.node.loop.turn(0.0)
        return finished


def start(kind: type[Any], address: str, node: Node) -> Any:
    """Start an actor and return it, as only its own node may."""
    kind.start(address, node)
    return node.actor(address)


@pytest.fixture
def node() -> Iterator[Node]:
    failures: list[tuple[str, str]] = []
    with Node(
        "sandbox",
        Loop(),
        Placement({"sandbox": "inproc://sandbox"}),
        on_failure=lambda *failure: failures.append(failure),
    ) as node:
        node.failures = failures  # type: ignore[attr-defined]
        yield node


def test_tells_arrive_in_order_before_the_ask(node: Node) -> None:
    Clock.start("timekeeper", node)
    asker = start(Asker, "kernel", node)

    def asking() -> Generator[Any, Any, Any]:
        for i in range(10):
            asker.tell("timekeeper", SetRealtime(realtime_ns=i))
        state = yield Ask("timekeeper", ReadClocks())
        return state.realtime_ns

    assert asker.run_asking(asking()) == [(9, None)]


def test_an_oserror_reaches_the_asker_and_the_actor_lives(node: Node) -> None:
    Clock.start("timekeeper", node)
    asker = start(Asker, "kernel", node)

    def asking() -> Generator[Any, Any, Any]:
        with pytest.raises(PermissionError):
            yield Ask("timekeeper", FreezeClocks())
        return (yield Ask("timekeeper", ReadClocks())).realtime_ns

    assert asker.run_asking(asking()) == [(0, None)]


def test_a_failed_invariant_stops_the_actor_and_answers_the_asker(node: Node) -> None:
    Clock.start("timekeeper", node)
    asker = start(Asker, "kernel", node)

    def asking() -> Generator[Any, Any, Any]:
        for _ in range(2):
            with pytest.raises(ActorFailed):
                yield Ask("timekeeper", ThawClocks())
        return "ended"

    assert asker.run_asking(asking()) == [("ended", None)]
    assert node.failures == [("timekeeper", "AssertionError: invariant")]  # type: ignore[attr-defined]


def test_an_ask_up_the_order_is_refused(node: Node) -> None:
    clock = start(Clock, "timekeeper", node)
    with pytest.raises(WrongAsk):
        clock.ask("kernel", ReadClocks(), lambda _reply: None)
