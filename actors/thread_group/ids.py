"""Ids that this worker may give to new processes and threads without asking.

Linux counterpart: alloc_pid (kernel/pid.c), for which a fork takes no other processor's time either.  TaskSet grants
some in advance; when none is left, a birth petitions for one, which also is how it learns that the limits are reached.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, NamedTuple

from ...config.limits import FEW_IDS
from ...messages.task_set import RequestIds

if TYPE_CHECKING:
    from ...messages.thread_group import GrantIds
    from .worker import Worker

__all__ = ["GrantedId", "GrantedIds"]


class GrantedId(NamedTuple):
    """A process or thread id, and the serial of the group if it becomes a process."""

    pid: int
    serial: int


class GrantedIds:
    """A worker's stock, in the order of use."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._number = int(worker.address.partition(":")[2] or 0)
        self._stock: collections.deque[GrantedId] = collections.deque()
        self._requested = False

    def take(self) -> GrantedId | None:
        """Return the next one, or None: then the caller petitions, and calls ``refill`` when it has its answer."""
        if not self._stock:
            return None
        taken = self._stock.popleft()
        self.refill()
        return taken

    def refill(self) -> None:
        """Ask for more if there are few. Never ahead of a petition: ids are to rise in the order of births."""
        if len(self._stock) <= FEW_IDS and not self._requested:
            self._requested = True
            self._worker.tell("task_set", RequestIds(worker=self._number))

    def give_back(self, granted: GrantedId) -> None:
        """Nothing was born under it."""
        self._stock.appendleft(granted)

    def granted(self, message: GrantIds) -> None:
        """More have come."""
        self._requested = False
        self._stock.extend(map(GrantedId, message.pids, message.serials))
