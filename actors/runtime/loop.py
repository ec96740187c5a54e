"""The one event loop of a process: descriptors, timers and work for the next turn.

Every actor and platform of a process runs on this loop, in this thread, one step at a time; so nothing here needs a lock.
The loop is level-triggered epoll; deadlines are host CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Loop", "Timer"]


class Timer:
    """A callback at a deadline, which can be cancelled."""

    __slots__ = ("callback", "cancelled", "deadline_ns")

    def __init__(self, deadline_ns: int, callback: Callable[[], None]) -> None:
        self.deadline_ns = deadline_ns
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Forget the callback; harmless when it has run."""
        self.cancelled = True


class Loop:
    """epoll, a heap of timers, and a queue of callbacks for the next turn."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[int, int, Timer]] = []
        self._order = itertools.count()
        self._ready: collections.deque[Callable[[], None]] = collections.deque()
        self._running = False

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
        timer = Timer(deadline_ns, callback)
        heapq.heappush(self._timers, (deadline_ns, next(self._order), timer))
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call *callback* in the next turn, before waiting."""
        self._ready.append(callback)

    def run(self) -> None:
        """Turn until ``stop`` is called."""
        self._running = True
        while self._running:
            self.turn(None)

    def stop(self) -> None:
        """Make ``run`` return after the current callback."""
        self._running = False

    def turn(self, max_wait_s: float | None = 0.0) -> None:
        """Run what is ready once, waiting at most *max_wait_s* (None: until something happens)."""
        for fd, mask in self._epoll.poll(self._timeout(max_wait_s)):
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(mask)
        if self._timers:
            self._run_timers()
        ready = self._ready
        for _ in range(len(ready)):
            ready.popleft()()

    def _timeout(self, max_wait_s: float | None) -> float:
        if self._ready:
            return 0.0
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1.0 if max_wait_s is None else max_wait_s
        # A timer must not fire early: epoll counts milliseconds and Python rounds the timeout up.
        wait = max(0.0, (self._timers[0][0] - time.monotonic_ns()) / 1e9)
        return wait if max_wait_s is None else min(wait, max_wait_s)

    def _run_timers(self) -> None:
        now = time.monotonic_ns()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled:
                timer.cancelled = True
                timer.callback()

    def close(self) -> None:
        """Release the epoll descriptor."""
        self._callbacks.clear()
        self._epoll.close()
