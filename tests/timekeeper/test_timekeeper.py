"""The guest's clocks start at 0, stand in a pause, and never go backwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from greenroom.actors.runtime.actor import Actor, Ask, Refused
from greenroom.actors.runtime.loop import Loop
from greenroom.actors.runtime.node import Node, Placement
from greenroom.actors.timekeeper.actor import Timekeeper
from greenroom.actors.timekeeper.clocks import TRANSITIONS, ClockMode, GuestClocks
from greenroom.messages.thread_group import ClockParameters
from greenroom.messages.timekeeper import (
    AddClockReader,
    ClockState,
    FreezeClocks,
    LoadClocks,
    ReadClocks,
    SaveClocks,
    SetRealtime,
    ThawClocks,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from greenroom.messages.base import Message

SECOND = 10**9
BOOT_MONOTONIC = 5000 * SECOND
BOOT_REALTIME = 1_700_000_000 * SECOND


class FakeHost:
    """A host whose clocks a test turns."""

    def __init__(self) -> None:
        self.monotonic = BOOT_MONOTONIC
        self.realtime = BOOT_REALTIME

    def monotonic_ns(self) -> int:
        return self.monotonic

    def realtime_ns(self) -> int:
        return self.realtime

    def pass_ns(self, ns: int) -> None:
        self.monotonic += ns
        self.realtime += ns


class Someone(Actor):
    """Asks Timekeeper, and keeps what it is told."""

    def __init__(self, address: str, node: Node) -> None:
        super().__init__(address, node)
        self.told: list[Any] = []

    def on_receive(self, message: Any) -> None:
        self.told.append(message)


class Stage:
    """Timekeeper, a kernel and a worker."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.host = FakeHost()
        Timekeeper.start("timekeeper", node, host=self.host)
        Someone.start("kernel", node)
        Someone.start("worker:0", node)

    def ask(self, message: Message) -> Any:
        outcome: list[tuple[Any, BaseException | None]] = []

        def asking() -> Generator[Any, Any, Any]:
            return (yield Ask("timekeeper", message))

        kernel = self.node.actor("kernel")
        assert kernel is not None
        kernel.drive(asking(), lambda value, error: outcome.append((value, error)))
        self.settle()
        ((value, error),) = outcome
        if error is not None:
            raise error
        return value

    def settle(self) -> None:
        for _ in range(20):
            self.node.loop.turn(0.0)
        keeper = self.node.actor("timekeeper")
        if isinstance(keeper, Timekeeper):
            keeper.check()

    def told(self) -> list[ClockParameters]:
        worker = self.node.actor("worker:0")
        assert isinstance(worker, Someone)
        told, worker.told = worker.told, []
        return told

    def monotonic_ns(self) -> int:
        return int(self.ask(ReadClocks()).monotonic_ns)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Node("sandbox", Loop(), Placement({"sandbox": "inproc://sandbox"})) as node:
        yield Stage(node)


def test_monotonic_starts_at_0_and_follows_the_host(stage: Stage) -> None:
    assert stage.monotonic_ns() == 0
    stage.host.pass_ns(3 * SECOND)
    state = stage.ask(ReadClocks())
    assert state == ClockState(
        monotonic_ns=3 * SECOND,
        realtime_ns=BOOT_REALTIME + 3 * SECOND,
        boot_realtime_ns=BOOT_REALTIME,
        realtime_offset_ns=0,
    )


def test_a_reader_is_told_now_and_at_every_change(stage: Stage) -> None:
    running = ClockParameters(monotonic_offset_ns=-BOOT_MONOTONIC, realtime_offset_ns=0, frozen_at_ns=None)
    stage.ask(AddClockReader(address="worker:0"))
    assert stage.told() == [running]
    stage.host.pass_ns(SECOND)
    stage.ask(FreezeClocks())
    stage.host.pass_ns(SECOND)
    stage.ask(ThawClocks())
    assert stage.told() == [
        ClockParameters(monotonic_offset_ns=-BOOT_MONOTONIC, realtime_offset_ns=0, frozen_at_ns=SECOND),
        ClockParameters(monotonic_offset_ns=-BOOT_MONOTONIC - SECOND, realtime_offset_ns=0, frozen_at_ns=None),
    ]


def test_a_sandbox_that_was_prepared_boots_when_its_first_reader_comes(stage: Stage) -> None:
    """How long it lay in stock is nobody's business; a second reader changes nothing."""
    stage.host.monotonic += 1000
    stage.host.realtime += 1000
    stage.ask(AddClockReader(address="worker:0"))
    assert stage.ask(ReadClocks()).monotonic_ns == 0
    stage.host.monotonic += 5
    stage.ask(AddClockReader(address="worker:1"))
    clocks = stage.ask(ReadClocks())
    assert clocks.monotonic_ns == 5
    assert clocks.boot_realtime_ns == stage.host.realtime


def test_a_pause_is_no_monotonic_time(stage: Stage) -> None:
    stage.host.pass_ns(SECOND)
    stage.ask(FreezeClocks())
    stage.host.pass_ns(100 * SECOND)
    assert stage.monotonic_ns() == SECOND
    stage.ask(ThawClocks())
    assert stage.monotonic_ns() == SECOND
    stage.host.pass_ns(SECOND)
    assert stage.monotonic_ns() == 2 * SECOND


def test_a_pause_is_real_time(stage: Stage) -> None:
    stage.ask(FreezeClocks())
    stage.host.pass_ns(100 * SECOND)
    assert stage.ask(ReadClocks()).realtime_ns == BOOT_REALTIME + 100 * SECOND


def test_setting_the_realtime_moves_boot_along(stage: Stage) -> None:
    """btime of /proc/stat is realtime minus uptime."""
    stage.ask(AddClockReader(address="worker:0"))
    stage.told()
    stage.host.pass_ns(5 * SECOND)
    kernel = stage.node.actor("kernel")
    assert kernel is not None
    kernel.tell("timekeeper", SetRealtime(realtime_ns=1000 * SECOND))
    stage.settle()
    state = stage.ask(ReadClocks())
    assert (state.realtime_ns, state.boot_realtime_ns, state.monotonic_ns) == (1000 * SECOND, 995 * SECOND, 5 * SECOND)
    assert [p.realtime_offset_ns for p in stage.told()] == [1000 * SECOND - BOOT_REALTIME - 5 * SECOND]


def test_a_save_of_running_clocks_is_refused(stage: Stage) -> None:
    with pytest.raises(Refused):
        stage.ask(SaveClocks())


def load(state: ClockState) -> LoadClocks:
    return LoadClocks(
        monotonic_ns=state.monotonic_ns,
        realtime_ns=state.realtime_ns,
        boot_realtime_ns=state.boot_realtime_ns,
        realtime_offset_ns=state.realtime_offset_ns,
    )


@pytest.mark.parametrize(("passed", "expected"), [(60, 70), (0, 10), (-3600, 10)])
def test_a_load_adds_the_real_time_that_passed_but_never_goes_back(stage: Stage, passed: int, expected: int) -> None:
    """The other host has booted just now, so its monotonic clock is far behind; its realtime may be, too."""
    saved = ClockState(
        monotonic_ns=10 * SECOND,
        realtime_ns=BOOT_REALTIME - passed * SECOND,
        boot_realtime_ns=BOOT_REALTIME - 10 * SECOND,
        realtime_offset_ns=0,
    )
    stage.host.monotonic = SECOND
    stage.ask(load(saved))
    stage.host.pass_ns(SECOND)
    assert stage.monotonic_ns() == expected * SECOND, "it is frozen"
    stage.ask(ThawClocks())
    stage.host.pass_ns(SECOND)
    assert stage.monotonic_ns() == (expected + 1) * SECOND


def test_a_guests_own_realtime_survives_save_and_load(stage: Stage) -> None:
    """The time that passed is measured on the guest's scale."""
    kernel = stage.node.actor("kernel")
    assert kernel is not None
    kernel.tell("timekeeper", SetRealtime(realtime_ns=1000 * SECOND))
    stage.ask(FreezeClocks())
    saved = stage.ask(SaveClocks())
    stage.host.pass_ns(7 * SECOND)
    stage.ask(load(saved))
    state = stage.ask(ReadClocks())
    assert (state.realtime_ns, state.monotonic_ns) == (1007 * SECOND, 7 * SECOND)


@pytest.mark.parametrize("deed", ["freeze", "thaw"])
def test_nested_pauses_are_not_counted_here(deed: str) -> None:
    """A second freeze or thaw is Kernel's bug."""
    clocks = GuestClocks(FakeHost())
    if deed == "freeze":
        clocks.freeze()
    with pytest.raises(AssertionError):
        getattr(clocks, deed)()


def test_the_table_names_every_mode() -> None:
    assert set(TRANSITIONS) == set(ClockMode)
