"""CPU placement: tracer and tracees on one CPU while they take turns, spread when they can work at once.

Linux counterpart: ``select_task_rq_fair`` and its WF_SYNC hint, which a signalfd wake-up does not give.  It owns the
affinity of the worker's thread and the decision where tracees go; a task applies it when it is next resumed.

A system call of a guest is a hand-over: the tracee sleeps, the worker runs, the tracee runs again.  On one CPU
that is two context switches; on two CPUs it is two wake-ups of an idle CPU.  Measured (2-core VM, getppid in
a loop, us per call, "spin" being the guest's own work between two calls; pinned against free):

    ==========  ===========  ===========  ===========
    spin        1 running    2 running    4 running
    ==========  ===========  ===========  ===========
    none        14 / 59      12 / 28      12 / 14
    8 us        21 / 71      23 / 29      21 / 12
    80 us       93 / 144     91 / 59      91 / 50
    800 us      795 / 770    784 / 413    816 / 420
    ==========  ===========  ===========  ===========

The pin is the worker thread's own affinity, so what that thread starts while pinned inherits it.

An injected call is a hand-over and nothing else, so for it the tracee always comes to the worker's CPU: 13 us when
pinned, 17 when it is fetched each time, 46 to 58 when it is left where it was.

Hence, for guest code, the rule of :meth:`Placement._decide`.  A pin is never for long: a timer ends it when a whole
tick passed without an event (the guest computes, and should compute wherever there is room), and after a second in any
case, so that the host's scheduler gets to choose the CPU anew when several workers happened to pin to the same one.

A tick is 1 ms while several tasks run, pinned or not, for one that computes takes the others' CPU: all began where the
worker is.  Whoever was not heard of for a tick is let go and gets a CPU of its own, if there is one: by itself the
host's scheduler takes some ms to find that a task waits for a CPU.  (It may also keep the worker itself waiting.)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from typing import TYPE_CHECKING, Final, Literal

from ..x86_64.syscall_numbers import SYSCALL_NUMBERS as SYS

if TYPE_CHECKING:
    from collections.abc import Collection

    from .task import PtraceTask

__all__ = ["Affinity", "Placement"]

Affinity = Literal["adaptive", "pinned", "free"]

#: Decide after this many polls that brought events.
_WINDOW: Final = 32
#: One running task is worth a pin when it makes events at least this often.
_ALONE_NS: Final = 500_000
#: Two running tasks are worth a pin only when each computes less than the worker: this often together.
_PAIR_NS: Final = 35_000
#: A tick without events ends a pin. The short ones are those while several tasks run.
_TICK_NS: Final = 10_000_000
_SHORT_TICK_NS: Final = 1_000_000
#: So many ticks that began without a word from a task make it one that computes.
_QUIET_TICKS: Final = 2
#: A pin lasts at most this long.
_LONGEST_PIN_NS: Final = 1_000_000_000

#: Where /proc/PID/stat has the CPU, counted from behind the name.
_PROCESSOR_FIELD: Final = 36

_TFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_CLOCK_MONOTONIC: Final = 1

_libc: Final = ctypes.PyDLL(None, use_errno=True)
_current_cpu: Final = _libc.sched_getcpu


class Placement:
    """Where the worker's thread and its tracees may run."""

    def __init__(self, affinity: Affinity) -> None:
        #: Every CPU that the worker may use.
        self.allowed = frozenset(os.sched_getaffinity(0))
        self._affinity = affinity if len(self.allowed) > 1 else "free"
        #: CPUs that tracees are to run guest code on. Sets of CPUs are compared by identity: there is one object of
        #: each.
        self.cpus = self.allowed
        self._single: dict[int, frozenset[int]] = {}
        if len(self.allowed) == 1:
            self._single[min(self.allowed)] = self.allowed
        self._polls = 0
        self._events = 0
        self._running = 0
        self._window_start = 0
        #: Length of a tick, 0 without a pin; how long the pin lasts; whether a poll brought events in this tick.
        self._tick_ns = 0
        self._pinned_ns = 0
        self._heard = False
        self.timer_fd = _create_timer() if self._affinity == "adaptive" else -1
        if self._affinity == "pinned":
            self._pin()

    def close(self) -> None:
        """Let the worker's thread run everywhere again."""
        _place_worker(self.allowed)
        if self.timer_fd >= 0:
            os.close(self.timer_fd)
            self.timer_fd = -1

    def near(self) -> frozenset[int]:
        """Return the worker's CPU of this moment, alone in a set."""
        cpu = _current_cpu()
        near = self._single.get(cpu)
        if near is None:
            near = self._single[cpu] = frozenset((cpu,))
        return near

    def note(self, events: int, running: int, tasks: Collection[PtraceTask]) -> None:
        """Take note of a poll that brought *events*, with *running* tasks before it; *tasks* are running after it."""
        self._polls += 1
        self._events += events
        self._running += running
        self._heard = True
        if running > 1 and self._tick_ns != _SHORT_TICK_NS and self.timer_fd >= 0:
            self._set_tick(_SHORT_TICK_NS)
            for task in tasks:
                task.quiet_ticks = 1
        if self._polls == _WINDOW:
            if self._affinity == "adaptive":
                self._decide(tasks)
            self._polls = self._events = self._running = 0

    def tick(self, tasks: Collection[PtraceTask]) -> None:
        """Look whether the timer went off, and end the pin, or let those go that compute."""
        if self.timer_fd < 0:
            return
        try:
            os.read(self.timer_fd, 8)
        except BlockingIOError:
            return
        heard, self._heard = self._heard, False
        pinned, several = self.cpus is not self.allowed, len(tasks) > 1
        self._pinned_ns += self._tick_ns
        idle = not heard and (several or self._tick_ns == _TICK_NS)
        if pinned and (idle or self._pinned_ns >= _LONGEST_PIN_NS):
            self._spread(tasks)
        if several:
            self._part(tasks, heard=heard)
            if not heard:
                self._set_tick(0)
        elif self._tick_ns == _SHORT_TICK_NS:
            self._set_tick(_TICK_NS if pinned else 0)

    def _part(self, tasks: Collection[PtraceTask], *, heard: bool) -> None:
        """Put those of which nothing was heard for a tick on CPUs of their own."""
        taken = {_current_cpu()} if heard else set()
        for task in tasks:
            if task.quiet_ticks >= _QUIET_TICKS:
                continue
            task.quiet_ticks = task.quiet_ticks + 1 if heard else _QUIET_TICKS
            if task.quiet_ticks < _QUIET_TICKS:
                continue
            cpu = _cpu_of(task.host_tid)
            free = self.allowed - taken
            if cpu in taken and free:
                cpu = min(free)
                task.place(frozenset((cpu,)))
            if task.cpus is not self.allowed:
                task.place(self.allowed)
            taken.add(cpu)

    def _decide(self, tasks: Collection[PtraceTask]) -> None:
        now = time.monotonic_ns()
        interval = (now - self._window_start) // self._events
        self._window_start = now
        crowd = self._running / _WINDOW
        wanted = interval < _ALONE_NS if crowd < 1.25 else crowd < 2.5 and interval < _PAIR_NS
        if wanted and self.cpus is self.allowed:
            self._pin()
        elif not wanted and self.cpus is not self.allowed:
            self._spread(tasks)

    def _pin(self) -> None:
        self.cpus = self.near()
        _place_worker(self.cpus)
        self._pinned_ns = 0
        self._heard = True
        self._set_tick(_TICK_NS)

    def _spread(self, tasks: Collection[PtraceTask]) -> None:
        self.cpus = self.allowed
        _place_worker(self.cpus)
        self._set_tick(0)
        for task in tasks:
            if task.cpus is not self.allowed:
                task.place(self.allowed)

    def _set_tick(self, interval_ns: int) -> None:
        self._tick_ns = interval_ns
        _set_timer(self.timer_fd, interval_ns)


def _cpu_of(tid: int) -> int:
    """Return the CPU that a process runs on, or ran on last; -1 when it is gone."""
    try:
        with open(f"/proc/{tid}/stat", "rb", buffering=0) as file:
            return int(file.read().rpartition(b")")[2].split()[_PROCESSOR_FIELD])
    except OSError:
        return -1


def _place_worker(cpus: frozenset[int]) -> None:
    # The administrator may have taken these CPUs away: where we run is only a matter of speed.
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cpus)


def _create_timer() -> int:
    fd: int = _libc.syscall(SYS["timerfd_create"], _CLOCK_MONOTONIC, _TFD_FLAGS)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


def _set_timer(fd: int, interval_ns: int) -> None:
    """Arm a periodic timer, or disarm it when *interval_ns* is 0."""
    setting = (ctypes.c_long * 4)(0, interval_ns, 0, interval_ns)
    if fd >= 0:
        _libc.syscall(SYS["timerfd_settime"], fd, 0, setting, None)
