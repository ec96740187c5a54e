"""What Timekeeper says becomes the worker's clock and its guests' page: the same time for both, never backwards."""

from __future__ import annotations

import pytest
from greenroom.actors.thread_group.clocks import GuestClock
from greenroom.messages.thread_group import ClockParameters

_S = 1_000_000_000


class _Host:
    """A host port that notes what the guests' page says."""

    def __init__(self) -> None:
        self.now_ns = 1000 * _S
        #: What the page adds to the host's monotonic and realtime clock; None for "use the system call".
        self.shown: tuple[int, int] | None = None
        self.lead_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def realtime_ns(self) -> int:
        return self.now_ns + 5000 * _S

    def show_clocks(self, monotonic_offset_ns: int, realtime_offset_ns: int) -> None:
        self.shown = (monotonic_offset_ns, realtime_offset_ns)

    def hide_clocks(self) -> int:
        self.shown = None
        return self.lead_ns


class _Stage:
    def __init__(self) -> None:
        self.host = _Host()
        self.clock = GuestClock(self.host)  # type: ignore[arg-type]  # as much of a host as clocks need

    def tell(self, monotonic: int, realtime: int = 0, frozen: int | None = None) -> None:
        self.clock.set_parameters(
            ClockParameters(monotonic_offset_ns=monotonic, realtime_offset_ns=realtime, frozen_at_ns=frozen)
        )

    def check_page(self) -> None:
        """The page says what the clock does."""
        if self.host.shown is not None:
            monotonic, realtime = self.host.shown
            assert self.host.monotonic_ns() + monotonic == self.clock.monotonic_ns()
            assert self.host.realtime_ns() + realtime == self.clock.realtime_ns()


@pytest.fixture
def stage() -> _Stage:
    return _Stage()


def test_first_word_counts_as_it_is(stage: _Stage) -> None:
    """Before it the clock is the host's, which says nothing to anybody."""
    stage.tell(-1000 * _S, 7)
    assert stage.clock.monotonic_ns() == 0
    assert stage.host.shown == (-1000 * _S, 7)
    stage.check_page()


def test_page_is_silent_while_time_stands_still(stage: _Stage) -> None:
    stage.tell(-1000 * _S)
    stage.tell(-1000 * _S, frozen=3 * _S)
    assert stage.host.shown is None
    stage.host.now_ns += 5 * _S
    assert stage.clock.monotonic_ns() == 3 * _S
    stage.tell(-1002 * _S)
    assert stage.clock.monotonic_ns() == 3 * _S
    stage.check_page()


def test_time_does_not_go_on_behind_where_it_stood(stage: _Stage) -> None:
    """Timekeeper's reading of the host's clock may be ahead of this worker's."""
    stage.tell(-1000 * _S)
    stage.tell(-1000 * _S, frozen=3 * _S)
    stage.tell(-997 * _S - 200)
    assert stage.clock.monotonic_ns() == 3 * _S
    stage.check_page()
    stage.tell(-997 * _S - 200, realtime=-_S)
    assert stage.clock.monotonic_ns() == 3 * _S, "nor with the next word"
    stage.check_page()


def test_time_does_not_stand_still_before_what_was_read(stage: _Stage) -> None:
    """Nor does what was read before come again when it goes on."""
    stage.tell(-1000 * _S)
    stage.host.now_ns += 3 * _S
    stage.host.lead_ns = 400
    stage.tell(-1000 * _S, frozen=3 * _S - 100)
    assert stage.clock.monotonic_ns() == 3 * _S + 300
    stage.tell(-1000 * _S - 100)
    assert stage.clock.monotonic_ns() == 3 * _S + 300
    stage.check_page()


def test_realtime_that_is_set_leaves_monotonic_time_alone(stage: _Stage) -> None:
    stage.tell(-1000 * _S)
    before = stage.clock.monotonic_ns()
    stage.tell(-1000 * _S, realtime=-4000 * _S)
    assert stage.clock.monotonic_ns() == before
    assert stage.clock.realtime_ns() == 2000 * _S
    stage.check_page()


def test_restored_clock_may_be_behind_the_new_sandbox_s_own(stage: _Stage) -> None:
    """It was told a start at 0 before the saved time was loaded."""
    stage.tell(-1000 * _S)
    stage.host.now_ns += 10 * _S
    stage.tell(-1000 * _S, frozen=2 * _S)
    stage.tell(-1008 * _S)
    assert stage.clock.monotonic_ns() == 2 * _S
    stage.check_page()
