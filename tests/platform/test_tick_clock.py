"""Clocks by the time stamp counter: near the host's, never backwards, whatever the counter does. All on a fake host."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from greenroom.platform.x86_64 import tick_clock
from greenroom.platform.x86_64.tick_clock import Scale, TickClock

if TYPE_CHECKING:
    from pathlib import Path

_MS = 1_000_000
_S = 1000 * _MS
_HZ = 2_600_000_000


class _Host:
    """A host whose time passes only here; looking at a clock takes *cost_ns*."""

    def __init__(self, cost_ns: int = 50) -> None:
        #: Time that really passes, in ns, as a float keeps it well enough.
        self.now = 0
        self.cost_ns = cost_ns
        #: Host CLOCK_MONOTONIC runs this much faster than what passes.
        self.slew = 0.0
        self._monotonic = 1000.0 * _S
        self.tick_offset = 1 << 40
        self.frequency = float(_HZ)
        self._ticks = 0.0
        self.realtime_offset = 1_700_000_000 * _S
        self.published: list[Scale | None] = []
        self.withdrawn = 0

    def clock(self, *, trusted: bool = True) -> TickClock:
        return TickClock(self, trusted=trusted, withdraw=self._withdraw, publish=self.published.append)

    def _withdraw(self) -> None:
        self.withdrawn += 1

    def advance(self, ns: int) -> None:
        self.now += ns
        self._monotonic += ns * (1 + self.slew)
        self._ticks += ns * self.frequency / 1e9

    def ticks(self) -> int:
        self.advance(self.cost_ns)
        return self.tick_offset + int(self._ticks)

    def monotonic_ns(self) -> int:
        self.advance(self.cost_ns)
        return int(self._monotonic)

    def realtime_ns(self) -> int:
        self.advance(self.cost_ns)
        return int(self._monotonic) + self.realtime_offset

    @property
    def true_ns(self) -> int:
        return int(self._monotonic)


def _settled(host: _Host) -> TickClock:
    """Return a clock whose scale is good for a second."""
    clock = host.clock()
    for _ in range(4):
        host.advance(_S)
        clock.monotonic_ns()
    return clock


def test_host_s_clocks_are_asked_until_a_rate_is_known() -> None:
    host = _Host()
    clock = host.clock()
    assert host.true_ns <= clock.monotonic_ns() <= host.true_ns
    assert clock.scale is None
    host.advance(3 * _MS)
    clock.monotonic_ns()
    assert clock.scale is not None
    assert host.published == [clock.scale]


def test_short_measurement_is_good_for_a_short_time_only() -> None:
    host = _Host()
    clock = host.clock()
    spans: list[int] = []
    for _ in range(6):
        host.advance(3 * _MS if not spans else spans[-1])
        clock.monotonic_ns()
        assert clock.scale is not None
        spans.append(clock.scale.most_ticks * _S // _HZ)
    assert 20 * _MS < spans[0] < 30 * _MS
    assert spans == sorted(spans)
    assert spans[-1] == pytest.approx(_S, abs=10)


def test_scale_in_force_is_not_changed() -> None:
    """A reading costs no look at the host's clocks, and an idle host is not woken."""
    host = _Host()
    clock = _settled(host)
    published, withdrawn = len(host.published), host.withdrawn
    for _ in range(100):
        host.advance(_S // 200)
        clock.monotonic_ns()
    assert (len(host.published), host.withdrawn) == (published, withdrawn)


def test_reading_is_what_the_scale_makes_of_the_ticks() -> None:
    """As guests count by the page: not more exactly, either."""
    host = _Host()
    clock = _settled(host)
    host.cost_ns = 0
    for _ in range(100):
        host.advance(_S // 200)
        assert clock.scale is not None
        assert clock.monotonic_ns() == clock.scale.monotonic_ns(host.ticks())
        assert clock.realtime_ns() == clock.scale.monotonic_ns(host.ticks()) + clock.scale.realtime_offset_ns


def test_guests_are_told_before_the_clocks_are_looked_at() -> None:
    """What they read by the old scale after that would be unknown to the new one."""
    host = _Host()
    clock = _settled(host)
    order: list[str] = []
    host.ticks, ticks = (lambda: order.append("look") or ticks()), host.ticks  # type: ignore[method-assign]
    clock = TickClock(
        host,
        trusted=True,
        withdraw=lambda: order.append("withdraw"),
        publish=lambda _scale: order.append("publish"),
    )
    host.advance(_S)
    order.clear()
    clock.monotonic_ns()
    assert order[0] == "withdraw"
    assert set(order[1 : order.index("publish")]) == {"look"}


@pytest.mark.parametrize("seed", range(20))
def test_readings_stay_near_the_host_s_and_never_go_back(seed: int) -> None:
    """While NTP corrects the host's clock by up to 500 ppm, now more, now less, as it may."""
    random = Random(seed)  # noqa: S311  # it is to be the same each time
    host = _Host()
    clock = _settled(host)
    last = 0
    for _ in range(2000):
        if random.random() < 0.02:
            host.slew = random.uniform(-5e-4, 5e-4)
        host.advance(int(10 ** random.uniform(0, 10)))
        reading = clock.monotonic_ns()
        assert reading >= last
        assert abs(reading - host.true_ns) < 3 * _MS
        last = reading


def test_steady_host_is_followed_to_a_microsecond_and_never_overtaken() -> None:
    host = _Host()
    clock = _settled(host)
    for _ in range(500):
        host.advance(17 * _MS)
        reading = clock.monotonic_ns()
        assert -1000 < reading - host.true_ns <= 0


def test_clock_that_is_ahead_waits_for_the_host_s() -> None:
    host = _Host()
    clock = _settled(host)
    host.slew = -5e-4
    host.advance(_S - 10 * _MS)
    before = clock.monotonic_ns()
    assert before - host.true_ns > 400_000, "the host's clock has slowed down unnoticed"
    assert 400_000 < clock.lead_ns() < 600_000
    host.advance(20 * _MS)
    assert clock.monotonic_ns() >= before
    host.advance(2 * _S)
    assert abs(clock.monotonic_ns() - host.true_ns) < 1000
    assert clock.lead_ns() < 1000


def test_what_the_old_scale_may_have_said_is_not_undercut() -> None:
    """Somebody who looked at the page at the last tick before its end, and then here."""
    host = _Host()
    clock = _settled(host)
    old = clock.scale
    assert old is not None
    host.slew = -5e-4
    host.advance(_S)
    assert clock.monotonic_ns() >= old.monotonic_ns(old.base_ticks + old.most_ticks - 1)


@pytest.mark.parametrize("jump", [-(1 << 39), -_HZ, _HZ * 5, 1 << 60])
def test_counter_that_jumps_is_dropped_and_measured_anew(jump: int) -> None:
    """A virtual machine that was moved to another host, or back to an older state."""
    host = _Host()
    clock = _settled(host)
    last = clock.monotonic_ns()
    host.tick_offset += jump
    host.advance(10 * _MS)
    for _ in range(3):
        reading = clock.monotonic_ns()
        assert reading >= last
        assert clock.scale is None
        last = reading
    host.advance(2 * _S)
    assert clock.monotonic_ns() >= last
    assert clock.scale is not None
    assert abs(clock.monotonic_ns() - host.true_ns) < 1000


def test_counter_that_changes_its_rate_is_dropped() -> None:
    host = _Host()
    clock = _settled(host)
    last = clock.monotonic_ns()
    host.frequency *= 1.5
    host.advance(5 * _S)
    assert clock.monotonic_ns() >= last
    assert clock.scale is None


def test_counter_that_jumps_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    log = SimpleNamespace(warning=lambda event, **_context: warnings.append(event))
    monkeypatch.setattr(tick_clock, "log", log)
    host = _Host()
    clock = _settled(host)
    random = Random(1)  # noqa: S311  # as above
    for _ in range(50):
        host.tick_offset += random.randrange(_HZ, 10 * _HZ)
        host.advance(2 * _S)
        clock.monotonic_ns()
    assert clock.scale is None
    assert len(warnings) == 1
    assert host.published[-1] is None


def test_realtime_is_monotonic_time_plus_what_it_was_ahead() -> None:
    host = _Host()
    clock = _settled(host)
    for _ in range(100):
        host.advance(300 * _MS)
        assert -1000 < clock.realtime_ns() - host.true_ns - host.realtime_offset <= 0


def test_step_of_realtime_is_noticed_with_the_next_scale() -> None:
    host = _Host()
    clock = _settled(host)
    host.realtime_offset -= 3600 * _S
    host.advance(_S + _MS)
    assert -1000 < clock.realtime_ns() - host.true_ns - host.realtime_offset <= 0


def test_counter_that_is_not_trusted_is_not_looked_at() -> None:
    host = _Host()
    clock = host.clock(trusted=False)
    for _ in range(10):
        host.advance(_S)
        assert clock.monotonic_ns() == host.true_ns
        assert clock.realtime_ns() == host.true_ns + host.realtime_offset
    assert (host.published, host.withdrawn, clock.scale) == ([], 0, None)


@pytest.mark.parametrize(
    ("source", "edx", "trusted"),
    [("tsc", 1 << 8, True), ("kvm-clock", 1 << 8, True), ("hpet", 1 << 8, False), ("tsc", 0, False), (None, -1, False)],
)
def test_trust_needs_the_cpu_s_word_and_the_kernel_s(
    source: str | None, edx: int, trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "current_clocksource"
    if source is not None:
        file.write_text(source + "\n")
    monkeypatch.setattr(tick_clock, "_CLOCK_SOURCE", str(file))
    monkeypatch.setattr(tick_clock, "cpuid", lambda _leaf: (0x8000_0008, 0, 0, edx))
    assert tick_clock.is_trustworthy() is trusted
