"""inotify: a descriptor from which changes of files are read.

Linux counterpart: fs/notify/inotify/inotify_user.c.  The watches and the events that nobody has asked for yet are
MountNamespace's; it tells EventsReady when there are some.  A read takes all of them, so one that finds nothing here
asks first: what a program has just done itself is then there, as on Linux.
"""

from __future__ import annotations

import os
import struct
from errno import EAGAIN, EINVAL
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ...messages.mount_namespace import CloseWatches, TakeEvents, WatchEvent
from ..runtime.actor import Ask
from .bell import Bell
from .event_file import anonymous_identity
from .open_file import OpenFile
from .table import TABLE

if TYPE_CHECKING:
    from ..runtime.actor import Asking
    from .task import Task
    from .worker import Worker

__all__ = ["InotifyFile"]

_EVENT: Final = struct.Struct("<iIII")
_FIONREAD: Final = 0x541B


class InotifyFile(OpenFile):
    """An inotify instance."""

    __slots__ = ("_bell", "_queue", "_taken", "_told")
    kind: ClassVar[str] = "inotify"
    pollable: ClassVar[bool] = True
    splice_target: ClassVar[bool] = False

    def __init__(self, worker: Worker, namespace: str, flags: int) -> None:
        self._bell = Bell(worker.host)
        identity = anonymous_identity(worker, b"inotify")
        identity.namespace = namespace
        super().__init__(worker, identity, os.O_RDONLY | flags & os.O_NONBLOCK, self._bell.fd)
        self._queue: list[WatchEvent] = []
        #: Serial numbers of the last EventsReady, and of the last one whose events have been taken.
        self._told = 0
        self._taken = 0

    def ready(self, serial: int) -> None:
        """MountNamespace has events."""
        self._told = max(self._told, serial)
        self._set_bell()

    def _set_bell(self) -> None:
        if not self._queue and self._told <= self._taken:
            self._bell.silence()
        elif not self._bell.ringing:
            self._bell.ring()

    def pull(self, task: Task, count: int, offset: int | None) -> Any:
        """Return the events that fit. EAGAIN, EINVAL when not even one does."""
        if not task.memo.pop("looked", False) and (not self._queue or self._told > self._taken):
            return self._look_and_call_again(task)
        if not self._queue:
            raise BlockingIOError(EAGAIN, "")
        data = b""
        while self._queue:
            packed = _pack(self._queue[0])
            if len(data) + len(packed) > count:
                break
            data += packed
            del self._queue[0]
        if not data:
            raise OSError(EINVAL, "")
        self._set_bell()
        return data

    def _look_and_call_again(self, task: Task) -> Asking:
        yield from self._look()
        task.memo["looked"] = True
        return TABLE[task.number].call(task, task.args)

    def _look(self) -> Asking:
        """Take what MountNamespace has."""
        self.hold()
        try:
            reply = yield Ask(self.identity.namespace, TakeEvents(worker=self.worker.address, file=self.number))
            self._queue += reply.events
            self._taken = reply.serial
            self._set_bell()
        finally:
            self.release()

    def ioctl(self, task: Task, request: int, argument: int) -> Any:
        """FIONREAD: bytes that can be read."""
        if request != _FIONREAD:
            return super().ioctl(task, request, argument)
        return self._count(task, argument)

    def _count(self, task: Task, address: int) -> Asking:
        yield from self._look()
        task.memory.write(address, sum(len(_pack(event)) for event in self._queue).to_bytes(4, "little"))
        return 0

    def closing(self) -> None:
        """End every watch."""
        self.worker.tell(self.identity.namespace, CloseWatches(worker=self.worker.address, file=self.number))
        self._bell.close()

    def state(self) -> dict[str, Any]:
        """Add the events that were taken and not read."""
        queue = [(event.wd, event.mask, event.cookie, event.name) for event in self._queue]
        return {**super().state(), "queue": queue, "told": self._told, "taken": self._taken}

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of ``state``, on a fresh file."""
        self._queue = [WatchEvent(wd=w, mask=m, cookie=c, name=n) for w, m, c, n in state["queue"]]
        self._told, self._taken = state["told"], state["taken"]
        self._set_bell()


def _pack(event: WatchEvent) -> bytes:
    """struct inotify_event; the name is padded to a multiple of the structure's size, with a NUL at least."""
    name = event.name
    if name:
        name = name.ljust((len(name) + _EVENT.size) // _EVENT.size * _EVENT.size, b"\0")
    return _EVENT.pack(event.wd, event.mask, event.cookie, len(name)) + name
