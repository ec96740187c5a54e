"""The notify platform: system calls arrive as seccomp notifications, ptrace is for what needs registers.

Linux counterpart: ``kernel/seccomp.c``, ``seccomp_unotify(2)``.  It owns the listener, through which all tracees of
the worker notify; the rest it shares with the ptrace platform.

A notification costs no register transfer and one wake-up each way.  With SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP the worker
is woken on the CPU of the tracee that notifies, and the tracee on that of the worker that answers.  That is not enough
where the host has an idle CPU: it takes one of the two over every few dozen calls, and wakes up to do so.  Hence CPU
placement counts notifications as it counts stops (getppid 0.64 times as long, posix_spawn 0.73).
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import struct
from fcntl import ioctl
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..interface import Event, EventKind
from ..ptrace.binding import PTRACE_EVENT_SECCOMP
from ..ptrace.platform import PtracePlatform
from .seed import NotifySeed
from .space import NotifySpace
from .task import NotifyTask

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from ..ptrace.placement import Affinity
    from ..ptrace.seed import Seed
    from ..ptrace.space import PtraceSpace
    from ..ptrace.task import PtraceTask

__all__ = ["NotifyPlatform"]

_NOTIF_RECV: Final = 0xC050_2100
_NOTIF_SET_FLAGS: Final = 0x4008_2104
_FD_SYNC_WAKE_UP: Final = 1
# struct seccomp_notif: id, pid, flags; nr, arch, instruction pointer, six arguments.
_unpack: Final = struct.Struct("=QI4xi12x6Q").unpack
_EMPTY: Final = bytes(80)
#: What is received: ioctl takes a mutable buffer without making an exception first (0.25 us); the host wants zeros.
_received: Final = bytearray(80)
_SYSCALL: Final = EventKind.SYSCALL
#: An Event from its five fields, without the defaults and keywords of its constructor: 0.1 us instead of 0.25.
_new_event: Final = tuple.__new__
#: Most notifications that are received at once.
_MOST: Final = 32
_SIGTRAP: Final = 5
_STRICT_OVERCOMMIT: Final = "2"
_STATUS_SECCOMP: Final = PTRACE_EVENT_SECCOMP << 16 | _SIGTRAP << 8 | 0x7F


class NotifyPlatform(PtracePlatform):
    """Host tasks under a seccomp filter that notifies."""

    name = "notify"
    advice: ClassVar[str] = PtracePlatform.advice + "; and Linux 5.19 or later, with no other seccomp listener above"
    task_type: ClassVar[type[PtraceTask]] = NotifyTask
    space_type: ClassVar[type[PtraceSpace]] = NotifySpace

    def __init__(self, affinity: Affinity = "adaptive") -> None:
        super().__init__(affinity)
        self.listener = -1
        self._ready = select.poll()
        #: Events received ahead of a poll.
        self._received = False
        #: Whether the host takes the hint of a large anonymous mapping whose place is free.
        self.takes_hints = False
        #: Whether mapping calls may be left to the host, because it has no reason to refuse them.
        self.defers = _host_gives_memory()

    def _plant(self, shelf_socket: int, ours: socket.socket) -> Seed:
        seed = NotifySeed(shelf_socket, self.placement)
        try:
            self.listener = seed.pass_listener(ours)
        except BaseException:
            seed.kill()
            raise
        self.key, self.mmap_base, self.takes_hints = seed.key, seed.mmap_base, seed.takes_hints
        os.set_inheritable(self.listener, False)
        self._ready.register(self.listener, select.POLLIN)
        with contextlib.suppress(OSError):  # before Linux 6.6 it is only slower
            ioctl(self.listener, _NOTIF_SET_FLAGS, _FD_SYNC_WAKE_UP)
        return seed

    def is_mapping(self, place: int) -> bool:
        return any(task.shelf_place == place for task in self._tasks.values() if isinstance(task, NotifyTask))

    def close(self) -> None:
        super().close()
        if self.listener >= 0:
            os.close(self.listener)
            self.listener = -1

    def filenos(self) -> Sequence[int]:
        return (self.listener, *super().filenos())

    def poll(self, fileno: int) -> list[Event]:
        if fileno != self.listener:
            return super().poll(fileno)
        if self._received:
            # What made the descriptor readable may have been received: RECV would wait for the next.
            self._received = False
            if not self._ready.poll(0):
                return []
        running = len(self.running)
        event = self._receive()
        if event is None:
            return []
        if not self.running:
            self.placement.note(1, running, ())
            return [event]
        events = [event]
        while len(events) < _MOST and self._ready.poll(0):
            event = self._receive()
            if event is not None:
                events.append(event)
        self.placement.note(len(events), running, self.running.values())
        return events

    def _receive(self) -> Event | None:
        """Take the notification that is there."""
        try:
            ioctl(self.listener, _NOTIF_RECV, _received)
        except OSError:
            return None  # its task is being killed
        received = _unpack(_received)
        _received[:] = _EMPTY
        task: Any = self.running.pop(received[1], None)
        if task is None:
            return None
        if task.space.in_flight:
            task.landed()
        number, arguments = received[2], received[3:]
        task.notified(received[0], number, arguments)
        return _new_event(Event, (_SYSCALL, task, number, arguments, b""))

    def forget(self, task: PtraceTask) -> None:
        super().forget(task)
        if self._pending:
            for event in [event for event in self._pending if event.task is task]:
                self._pending.remove(event)

    def drain(self) -> None:
        """Receive all notifications that are there, for the next poll."""
        while self._ready.poll(0):
            self._received = True
            event = self._receive()
            if event is not None:
                self._pending.append(event)
                self._wake_poller()

    def report_stop(self, task: NotifyTask, status: int) -> None:
        """Queue what a task reported when it was waited for by name."""
        event = self._classify(task, status)
        if event is not None:
            self._pending.append(event)
            self._wake_poller()

    def _classify(self, task: PtraceTask, status: int) -> Event | None:
        assert isinstance(task, NotifyTask)
        task.landed()
        if status == _STATUS_SECCOMP:
            self.running.pop(task.host_tid, None)
            task.quiet_ticks = 0
            return task.stopped_at_call()
        return super()._classify(task, status)


def _host_gives_memory() -> bool:
    """Say whether the host refuses no small mapping: it does if it counts strictly, or if tracees inherit a limit."""
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        if resource.getrlimit(limit)[0] != resource.RLIM_INFINITY:
            return False
    try:
        with open("/proc/sys/vm/overcommit_memory", encoding="ascii") as file:
            return file.read().strip() != _STRICT_OVERCOMMIT
    except OSError:
        return False
