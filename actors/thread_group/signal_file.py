"""signalfd: pending signals as a file.

Linux counterpart: fs/signalfd.c.  A read takes signals of the reader's own queues, whoever made the file.  What
poll(2) and epoll(7) see are the signals of the process that made it or read it last.
"""

from __future__ import annotations

import os
import struct
from errno import EAGAIN, EINVAL
from typing import TYPE_CHECKING, Any, ClassVar, Final

from . import siginfo as si
from . import signals
from .bell import Bell
from .event_file import anonymous_identity
from .open_file import OpenFile
from .task import Block

if TYPE_CHECKING:
    from .actor import ThreadGroup
    from .signal_state import Pending
    from .task import Task
    from .worker import Worker

__all__ = ["SignalFile"]

_INFO_BYTES: Final = 128
#: struct signalfd_siginfo: signo errno code pid uid fd tid band overrun trapno status int ptr utime stime addr.
_INFO: Final = struct.Struct("<IiiIIiIIIIiiQQQQ")
_FAULTS: Final = si.SYNCHRONOUS & ~si.bit(si.SIGSYS)


class SignalFile(OpenFile):
    """A signalfd."""

    __slots__ = ("_bell", "_group", "_seen", "mask")
    kind: ClassVar[str] = "signalfd"
    pollable: ClassVar[bool] = True
    atomic: ClassVar[bool] = True

    def __init__(self, worker: Worker, mask: int, flags: int, group: ThreadGroup) -> None:
        self._bell = Bell(worker.host)
        super().__init__(
            worker, anonymous_identity(worker, b"[signalfd]"), os.O_RDWR | flags & os.O_NONBLOCK, self._bell.fd
        )
        #: The signals that it takes.
        self.mask = mask
        self._group = group
        #: How many signals were pending when the bell was last rung.
        self._seen = 0
        group.signals.watchers.append(self)
        self.refresh()

    def set_mask(self, mask: int) -> None:
        """signalfd(2) of an existing file: take other signals."""
        self.mask = mask
        self.refresh()
        signals.queue_changed(self._group)

    def refresh(self) -> None:
        """The watched process's queues have changed: be readable if there is something to take."""
        queues = [self._group.signals.pending, *(task.pending for task in self._group.tasks.values())]
        count = sum(bool(si.bit(entry.signo) & self.mask) for queue in queues for entry in queue)
        if count > self._seen:
            self._bell.ring()
        elif not count:
            self._bell.silence()
        self._seen = count

    def pull(self, task: Task, count: int, offset: int | None) -> Any:
        """Take signals, as many as fit. EINVAL when not even one does, EAGAIN; else wait for one."""
        room = count // _INFO_BYTES
        if not room:
            raise OSError(EINVAL, "")
        self._watch(task.group)
        taken: list[bytes] = []
        while len(taken) < room and (entry := signals.take(task, self.mask)) is not None:
            taken.append(_translated(entry))
        if taken:
            return b"".join(taken)
        if self.flags & os.O_NONBLOCK:
            raise BlockingIOError(EAGAIN, "")
        return Block(channels=(("signal", task.group.group),), files=(self,))

    def _watch(self, group: ThreadGroup) -> None:
        if group is not self._group:
            self._unwatch()
            self._group = group
            group.signals.watchers.append(self)
            self.refresh()

    def _unwatch(self) -> None:
        if self in self._group.signals.watchers:
            self._group.signals.watchers.remove(self)

    def push(self, task: Task, data: bytes, offset: int | None) -> Any:
        """Signals are not sent this way. EINVAL."""
        raise OSError(EINVAL, "")

    def closing(self) -> None:
        """Stop watching."""
        self._unwatch()
        self._bell.close()

    def extra_fdinfo(self) -> bytes:
        """``sigmask``."""
        return b"sigmask:\t%016x\n" % self.mask

    def state(self) -> dict[str, Any]:
        """Add the mask and who is watched."""
        return {**super().state(), "mask": self.mask, "group": self._group.group}


def _translated(entry: Pending) -> bytes:
    """struct signalfd_siginfo: the fields that this kind of siginfo_t has (siginfo_layout)."""
    info = entry.siginfo
    code = si.code_of(info)
    fields = dict.fromkeys(("pid", "uid", "fd", "tid", "band", "overrun", "status", "int", "ptr", "user", "system"), 0)
    address = 0
    if 0 < code < si.SI_KERNEL and entry.signo == si.SIGCHLD:
        names = ("pid", "uid", "status", "user", "system")
        fields.update(zip(names, struct.unpack_from("<IIi4xQQ", info, 16), strict=True))
    elif 0 < code < si.SI_KERNEL and si.bit(entry.signo) & _FAULTS:
        (address,) = struct.unpack_from("<Q", info, 16)
    elif 0 < code < si.SI_KERNEL and entry.signo == si.SIGIO:
        fields["band"], fields["fd"] = struct.unpack_from("<I4xi", info, 16)
    elif code == si.SI_TIMER:
        fields["tid"], fields["overrun"], fields["ptr"] = struct.unpack_from("<IIQ", info, 16)
    else:
        fields["pid"], fields["uid"] = struct.unpack_from("<II", info, 16)
        if code < 0:
            (fields["ptr"],) = struct.unpack_from("<Q", info, 24)
    fields["int"] = (fields["ptr"] & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
    f = fields
    data = _INFO.pack(
        *(entry.signo, 0, code, f["pid"], f["uid"], f["fd"], f["tid"], f["band"], f["overrun"], 0, f["status"]),
        *(f["int"], f["ptr"], f["user"], f["system"], address),
    )
    return data.ljust(_INFO_BYTES, b"\0")
