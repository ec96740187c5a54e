"""Alarms on the guest's clocks: when they are due, what they missed, and that a pause stops them; with a fake clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from greenroom.actors.thread_group.alarm import Alarm, clock_changed
from greenroom.actors.thread_group.clocks import GuestClock
from greenroom.actors.thread_group.guest_clocks import ClockId, ClockKey
from greenroom.messages.thread_group import ClockParameters

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_MS = 1_000_000


class _Timer:
    def __init__(self, deadline_ns: int, callback: Callable[[], None]) -> None:
        self.deadline_ns, self.callback, self.cancelled = deadline_ns, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class _Worker:
    """A worker whose host has a clock that the test moves."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.clock = GuestClock(self)  # type: ignore[arg-type]  # it needs the clocks of a host only
        self.alarms: dict[Alarm, None] = {}
        self.timers: list[_Timer] = []
        self.woken: list[Hashable] = []

    def monotonic_ns(self) -> int:
        return self.now_ns

    def realtime_ns(self) -> int:
        return self.now_ns + 1000 * _MS

    def show_clocks(self, monotonic_offset_ns: int, realtime_offset_ns: int) -> None:
        """Guests see nothing of this."""

    def hide_clocks(self) -> int:
        """Nor of this."""
        return 0

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> _Timer:
        timer = _Timer(self.clock.to_host(deadline_ns), callback)
        self.timers.append(timer)
        return timer

    def wake(self, channel: Hashable) -> None:
        self.woken.append(channel)

    def advance(self, to_ns: int) -> None:
        self.now_ns = to_ns
        due = [t for t in self.timers if not t.cancelled and t.deadline_ns <= to_ns]
        self.timers = [t for t in self.timers if t not in due]
        for timer in due:
            timer.callback()

    def set_clock(self, *, monotonic: int = 0, realtime: int = 0, frozen: int | None = None) -> None:
        parameters = ClockParameters(monotonic_offset_ns=monotonic, realtime_offset_ns=realtime, frozen_at_ns=frozen)
        self.clock.set_parameters(parameters)
        clock_changed(self)  # type: ignore[arg-type]


def _alarm(worker: Any, clock: ClockId = ClockId.MONOTONIC) -> tuple[Alarm, list[int]]:
    fired: list[int] = []
    return Alarm(worker, ClockKey(clock), lambda: fired.append(worker.now_ns)), fired


def test_one_shot_fires_once_and_is_off_when_set_forward() -> None:
    worker = _Worker()
    alarm, fired = _alarm(worker)
    alarm.set(5 * _MS, 0)
    worker.advance(4 * _MS)
    assert (fired, alarm.get()) == ([], (1 * _MS, 0))
    worker.advance(9 * _MS)
    worker.advance(20 * _MS)
    assert fired == [9 * _MS]
    assert alarm.forward() == 1
    assert alarm.forward() == 0
    assert alarm.expiry_ns is None


def test_a_periodic_alarm_counts_what_nobody_looked_at() -> None:
    """It calls back once, however long it is not looked at; then it tells how many have passed."""
    worker = _Worker()
    alarm, fired = _alarm(worker)
    alarm.set(10 * _MS, 10 * _MS)
    for now in range(0, 56, 5):
        worker.advance(now * _MS)
    assert fired == [10 * _MS]
    assert alarm.get() == (5 * _MS, 10 * _MS)
    assert alarm.forward() == 5
    assert alarm.expiry_ns == 60 * _MS
    worker.advance(60 * _MS)
    assert fired == [10 * _MS, 60 * _MS]


def test_an_ignored_periodic_alarm_is_set_forward_by_a_least_step() -> None:
    worker = _Worker()
    alarm, _ = _alarm(worker)
    alarm.set(1, 1)
    worker.advance(5)
    assert alarm.forward(10 * _MS) == 10 * _MS
    assert alarm.expiry_ns == 10 * _MS + 1


def test_time_that_stands_still_fires_nothing() -> None:
    """A pause from 3 ms to 103 ms: the alarm at 5 ms comes 2 ms after the pause."""
    worker = _Worker()
    alarm, fired = _alarm(worker)
    alarm.set(5 * _MS, 0)
    worker.advance(3 * _MS)
    worker.set_clock(frozen=3 * _MS)
    worker.advance(103 * _MS)
    assert fired == []
    worker.set_clock(monotonic=-100 * _MS)
    worker.advance(104 * _MS)
    assert fired == []
    worker.advance(105 * _MS)
    assert fired == [105 * _MS]


def test_an_alarm_set_in_a_pause_waits_for_its_end() -> None:
    worker = _Worker()
    worker.set_clock(frozen=0)
    alarm, fired = _alarm(worker)
    alarm.set(1 * _MS, 0)
    worker.advance(50 * _MS)
    worker.set_clock(monotonic=-50 * _MS)
    worker.advance(51 * _MS)
    assert fired == [51 * _MS]


def test_setting_the_realtime_clock_moves_realtime_alarms() -> None:
    """Guest realtime starts at 1 s: an alarm at 2 s is due after 1 s, or at once when the clock jumps past it."""
    worker = _Worker()
    alarm, fired = _alarm(worker, ClockId.REALTIME)
    other, other_fired = _alarm(worker)
    alarm.set(2000 * _MS, 0)
    other.set(1000 * _MS, 0)
    worker.advance(10 * _MS)
    worker.set_clock(realtime=5000 * _MS)
    worker.advance(11 * _MS)
    assert (fired, other_fired) == ([11 * _MS], [])
    assert ("clock",) in worker.woken


def test_unset_and_set_anew_forget_the_old_timer() -> None:
    worker = _Worker()
    alarm, fired = _alarm(worker)
    alarm.set(5 * _MS, 0)
    alarm.set(None, 0)
    worker.advance(6 * _MS)
    alarm.set(8 * _MS, 0)
    alarm.set(20 * _MS, 0)
    worker.advance(10 * _MS)
    assert fired == []
    assert list(worker.alarms) == [alarm]
    worker.advance(20 * _MS)
    assert fired == [20 * _MS]
    assert worker.alarms == {}
