"""The one event loop of a process: descriptors, timers and work for the next turn.

Every actor and platform of a process runs on this loop, in this thread, one step at a time; so nothing here needs
a lock.  The loop is level-triggered epoll; deadlines are host CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import select
import time
from typing import TYPE_CHECKING, Final

from mypy_extensions import mypyc_attr

from ...config.limits import READY_ROUNDS_PER_TURN
from ...messages.trace import RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tape import Tape

__all__ = ["Loop", "Timer"]

#: Most descriptors that one look at epoll returns. The room for them is allocated each time: without a limit, 12 KiB.
_MOST_EVENTS: Final = 32


class Timer:
    """A callback at a deadline, which can be cancelled."""

    __slots__ = ("callback", "cancelled", "deadline_ns", "number")

    def __init__(self, deadline_ns: int, callback: Callable[[], None], number: int) -> None:
        self.deadline_ns = deadline_ns
        #: The how-manieth timer of its loop: its name in traces.
        self.number = number
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Forget the callback; harmless when it has run."""
        self.cancelled = True


@mypyc_attr(allow_interpreted_subclasses=True)
class Loop:
    """epoll, a heap of timers, and a queue of callbacks for the next turn."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[int, int, Timer]] = []
        self._order = itertools.count()
        self._ready: collections.deque[Callable[[], None]] = collections.deque()
        self._running = False
        #: Called after every callback: the nodes deliver what their actors have sent to each other in it.
        self.settlers: list[Callable[[], None]] = []
        #: Set when this process is traced: gets every input of the loop in order.
        self.tape: Tape | None = None
        #: Descriptors whose readiness is no input by itself (the node's inbox: its frames are).
        self.untaped: set[int] = set()

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call *callback* with the ready event mask whenever *fd* has any of *events* (select.EPOLL*).

        Watching a descriptor again replaces its events and callback. OSError(EPERM) for one that cannot be polled.
        """
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching; call it before closing the descriptor."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Call *callback* once at or after *deadline_ns*."""
        timer = Timer(deadline_ns, callback, next(self._order))
        heapq.heappush(self._timers, (deadline_ns, timer.number, timer))
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call *callback* in the next turn, before waiting."""
        self._ready.append(callback)

    def run(self) -> None:
        """Turn until ``stop`` is called."""
        self._running = True
        self._settle()
        while self._running:
            self._turn(None)

    def stop(self) -> None:
        """Make ``run`` return after the current callback."""
        self._running = False

    def turn(self, max_wait_s: float | None = 0.0) -> None:
        """Run what is ready once, waiting at most *max_wait_s* (None: until something happens)."""
        self._settle()
        self._turn(max_wait_s)

    def _turn(self, max_wait_s: float | None) -> None:
        """As ``turn``, when everything is settled: each callback leaves it so."""
        timeout_s = self._timeout(max_wait_s) if self._ready or self._timers else max_wait_s
        for fd, mask in self._epoll.poll(timeout_s, _MOST_EVENTS):
            callback = self._callbacks.get(fd)
            if callback is not None:
                if self.tape is not None and fd not in self.untaped:
                    self.tape.note(RecordKind.WATCH, fd, mask)
                callback(mask)
                for settle in self.settlers:
                    settle()
        if self._timers:
            self._run_timers()
        if self._ready:
            self._run_rounds()

    def _run_rounds(self) -> None:
        for _ in range(READY_ROUNDS_PER_TURN):
            if not self._ready:
                break
            self.run_ready(len(self._ready))

    def run_ready(self, count: int) -> None:
        """Run the first *count* callbacks of the queue."""
        if self.tape is not None:
            self.tape.note(RecordKind.TURN, count)
        for _ in range(count):
            self._ready.popleft()()
            self._settle()

    def _settle(self) -> None:
        for settle in self.settlers:
            settle()

    def _timeout(self, max_wait_s: float | None) -> float | None:
        if self._ready:
            return 0.0
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        if not self._timers:
            return max_wait_s
        # A timer must not fire early: epoll counts milliseconds and Python rounds the timeout up.
        wait = max(0.0, (self._timers[0][0] - time.monotonic_ns()) / 1e9)
        return wait if max_wait_s is None else min(wait, max_wait_s)

    def _run_timers(self) -> None:
        now = time.monotonic_ns()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled:
                if self.tape is not None:
                    self.tape.note(RecordKind.TIMER, timer.number)
                timer.cancelled = True
                timer.callback()
                self._settle()

    # -- replay: the recorded inputs take the place of epoll and the clock ----------------------------------------

    def replay_watch(self, fd: int, mask: int) -> None:
        """Call the callback of *fd* as if it were ready."""
        callback = self._callbacks.get(fd)
        if callback is not None:
            callback(mask)
            self._settle()

    def replay_timer(self, number: int) -> None:
        """Fire the timer that was made as the *number*-th. LookupError when there is none, or it was cancelled."""
        timer = next((t for _, n, t in self._timers if n == number and not t.cancelled), None)
        if timer is None:
            raise LookupError(f"no timer {number} is waiting")
        timer.cancelled = True
        timer.callback()
        self._settle()

    def close(self) -> None:
        """Release the epoll descriptor."""
        self._callbacks.clear()
        self._epoll.close()
