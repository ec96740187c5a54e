"""The host's CLOCK_MONOTONIC and CLOCK_REALTIME by the time stamp counter, so that guests can read them as we do.

Linux counterpart: kernel/time/timekeeping.c; in gVisor, pkg/sentry/time/calibrated_clock.go.  The kernel scales TSC
ticks to nanoseconds, by numbers that it corrects now and then (NTP) and keeps to itself.  We find them by looking at
both clocks: a :class:`Scale` says what time it was at some tick and how long a tick is, and holds for a second at most.
Whoever asks after that makes a new one; where nobody asks, nothing happens.

A reading never goes backwards: a new scale begins where the old one has come to, or later, and one that is ahead of
the host's clock runs slower until the two meet.  It is rarely ahead: the tick that stands for a reading of the host's
clock is read after it.

The counter is trusted if the CPU says that it never stops or changes its rate and the host's kernel uses it for its own
clocks.  If it is not, or jumps (a virtual machine that moved), there is no scale, and the host's clocks are asked.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ...config.logging import get_logger
from .instructions import cpuid, tick_reader

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SHIFT", "HostTime", "Scale", "TickClock", "TimeSource", "is_trustworthy"]

#: Nanoseconds in a tick are counted in units of 2^-SHIFT.
SHIFT: Final = 56
#: A rate is measured over this long at least, in ns: it is then right to some ten millionths.
_SHORTEST_BASELINE_NS: Final = 2_000_000
#: A scale holds this many times as long as its rate was measured, and not longer than this, in ns.
_TRUST_FACTOR: Final = 8
_LONGEST_TRUST_NS: Final = 1_000_000_000
#: Rates that differ by more than this part are no drift: the counter has jumped.
_JUMP_SHIFT: Final = 9
#: So many jumps are not believed any more.
_MOST_JUMPS: Final = 8
_SAMPLES: Final = 5

_INVARIANT_LEAF: Final = 0x8000_0007
_INVARIANT_TSC: Final = 1 << 8
_CLOCK_SOURCE: Final = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
#: Clock sources of Linux that are the TSC, scaled.
_TSC_SOURCES: Final = frozenset(("tsc", "kvm-clock"))

log = get_logger(__name__)


class TimeSource(Protocol):
    """Three clocks that are read one after the other."""

    @property
    def ticks(self) -> Callable[[], int]:
        """Read the time stamp counter."""

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC."""

    def realtime_ns(self) -> int:
        """CLOCK_REALTIME."""


class HostTime:
    """The host's."""

    def __init__(self) -> None:
        self.ticks = tick_reader()
        self.monotonic_ns = time.monotonic_ns
        self.realtime_ns = time.time_ns


class Scale(NamedTuple):
    """How ticks become nanoseconds, for a while."""

    base_ticks: int
    #: So many ticks later it holds no more.
    most_ticks: int
    #: Nanoseconds in a tick, times 2^SHIFT.
    multiplier: int
    #: CLOCK_MONOTONIC at the base.
    base_ns: int
    #: CLOCK_REALTIME minus CLOCK_MONOTONIC.
    realtime_offset_ns: int

    def monotonic_ns(self, ticks: int) -> int:
        """Return CLOCK_MONOTONIC at *ticks*, or at that end of the scale which is nearer."""
        return self.base_ns + (min(max(ticks - self.base_ticks, 0), self.most_ticks) * self.multiplier >> SHIFT)


class _Sample(NamedTuple):
    """What the clocks said at one moment."""

    ticks: int
    monotonic_ns: int
    #: Between which two CLOCK_REALTIME minus CLOCK_MONOTONIC lies.
    least_offset_ns: int
    most_offset_ns: int


def is_trustworthy() -> bool:
    """Say whether the host's time stamp counter is a clock."""
    try:
        with open(_CLOCK_SOURCE, encoding="ascii") as file:
            source = file.read().strip()
    except OSError as error:
        source = f"unknown ({error.strerror})"
    known = cpuid(0x8000_0000)[0] >= _INVARIANT_LEAF
    invariant = known and bool(cpuid(_INVARIANT_LEAF)[3] & _INVARIANT_TSC)
    trusted = invariant and source in _TSC_SOURCES
    log.debug("clocks by TSC" if trusted else "clocks by system calls", invariant=invariant, clock_source=source)
    return trusted


class TickClock:
    """CLOCK_MONOTONIC and CLOCK_REALTIME of a *source*, by its ticks if these are *trusted*.

    *withdraw* is called before the scale changes, and *publish* with the new one (None: ask the source) when it has.
    """

    def __init__(
        self,
        source: TimeSource,
        *,
        trusted: bool,
        withdraw: Callable[[], None],
        publish: Callable[[Scale | None], None],
    ) -> None:
        self._source = source
        self._ticks = source.ticks
        self._trusted = trusted
        self._withdraw, self._publish = withdraw, publish
        self.scale: Scale | None = None
        #: Of the last measured rate, whatever the scale in force makes of it.
        self._multiplier = 0
        #: From here on the next rate is measured.
        self._reference = self._sample() if trusted else None
        self._jumps = 0
        #: Nobody has read more than this, unless by the scale.
        self._floor_ns = 0

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        scale = self.scale
        if scale is not None:
            ticks = self._ticks() - scale.base_ticks
            if 0 <= ticks < scale.most_ticks:
                return scale.base_ns + (ticks * scale.multiplier >> SHIFT)
        return self._renew()

    def realtime_ns(self) -> int:
        """CLOCK_REALTIME."""
        monotonic_ns = self.monotonic_ns()
        return self._source.realtime_ns() if self.scale is None else monotonic_ns + self.scale.realtime_offset_ns

    def lead_ns(self) -> int:
        """Return how far a reading may be ahead of the source's clock; 0 when it is not."""
        now_ns = self._source.monotonic_ns()
        reading_ns = self._floor_ns if self.scale is None else self.scale.monotonic_ns(self._ticks())
        return max(reading_ns - now_ns, 0)

    def _renew(self) -> int:
        """There is no scale, or it holds no more: try to make one. Return CLOCK_MONOTONIC."""
        now_ns, reference = self._source.monotonic_ns(), self._reference
        if self.scale is None and (reference is None or now_ns - reference.monotonic_ns < _SHORTEST_BASELINE_NS):
            return max(now_ns, self._floor_ns)
        assert reference is not None, "there is no scale without one"
        # Before the clocks are looked at: what a guest reads from now on is not by the old scale.
        self._withdraw()
        sample = self._sample()
        if self.scale is not None:
            self._floor_ns = max(self._floor_ns, self.scale.monotonic_ns(sample.ticks))
        self.scale = self._measure(reference, sample)
        self._publish(self.scale)
        if self.scale is None:
            return max(sample.monotonic_ns, self._floor_ns)
        return self.scale.monotonic_ns(self._ticks())

    def _measure(self, reference: _Sample, sample: _Sample) -> Scale | None:
        """Return the scale from *sample* on, by the rate since *reference*; None when ticks have jumped."""
        self._reference = sample
        passed_ns = sample.monotonic_ns - reference.monotonic_ns
        passed_ticks = sample.ticks - reference.ticks
        multiplier = (passed_ns << SHIFT) // passed_ticks if passed_ticks > 0 else 0
        if not 0 < multiplier < 1 << 63 or (
            self._multiplier and abs(multiplier - self._multiplier) > self._multiplier >> _JUMP_SHIFT
        ):
            self._jumped()
            return None
        self._multiplier = multiplier
        trust_ns = min(passed_ns * _TRUST_FACTOR, _LONGEST_TRUST_NS)
        ahead_ns = max(self._floor_ns - sample.monotonic_ns, 0)
        offset_ns = self.scale.realtime_offset_ns if self.scale is not None else sample.least_offset_ns
        return Scale(
            base_ticks=sample.ticks,
            most_ticks=(trust_ns << SHIFT) // multiplier,
            multiplier=multiplier - multiplier * min(ahead_ns, trust_ns // 2) // trust_ns,
            base_ns=sample.monotonic_ns + ahead_ns,
            realtime_offset_ns=min(max(offset_ns, sample.least_offset_ns), sample.most_offset_ns),
        )

    def _jumped(self) -> None:
        self._multiplier = 0
        self._jumps += 1
        if self._jumps > _MOST_JUMPS:
            log.warning("the time stamp counter jumps: clocks by system calls", jumps=self._jumps)
            self._reference = None

    def _sample(self) -> _Sample:
        """Look at the clocks, several times, and return the look that was least disturbed."""
        ticks, source = self._ticks, self._source
        best_ticks = 1 << 64
        for _ in range(_SAMPLES):
            before = ticks()
            first_ns = source.monotonic_ns()
            realtime_ns = source.realtime_ns()
            monotonic_ns = source.monotonic_ns()
            after = ticks()
            if 0 <= after - before < best_ticks:
                best_ticks = after - before
                best = _Sample(after, monotonic_ns, realtime_ns - monotonic_ns, realtime_ns - first_ns)
        if best_ticks == 1 << 64:
            return _Sample(after, monotonic_ns, realtime_ns - monotonic_ns, realtime_ns - first_ns)
        return best
