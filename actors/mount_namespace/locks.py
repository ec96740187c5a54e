"""Advisory locks: fcntl(2) record locks of processes and of open file descriptions, and flock(2).

Linux: fs/locks.c.  Each inode has a list of ranges per family; "posix" and "ofd" locks exclude each other, flocks only
each other.  A request that must wait is remembered as a waiter, told when a lock in its way goes, and asks again; posix
waiters are searched for cycles (EDEADLK).
"""

from __future__ import annotations

import itertools
from errno import EDEADLK, EINVAL, ENOLCK, EOVERFLOW
from typing import TYPE_CHECKING, Final, NamedTuple

from ...config.limits import MAX_LOCKS
from ...messages.mount_namespace import LockHeld
from .errors import fail

if TYPE_CHECKING:
    from ...messages.mount_namespace import LockChange
    from .inode import Inode

__all__ = ["F_RDLCK", "F_UNLCK", "F_WRLCK", "Lock", "LockTable"]

F_RDLCK, F_WRLCK, F_UNLCK = 0, 1, 2
#: End of a range that goes to the end of the file, whatever its size.
_INFINITY: Final = (1 << 63) - 1


class Lock(NamedTuple):
    """A held range: bytes from *start* up to and including *end*."""

    owner: int
    pid: int
    type: int
    start: int
    end: int


class Waiter(NamedTuple):
    """A thread that waits for a range."""

    group: int
    tid: int
    owner: int
    lock: Lock


class LockTable:
    """All locks of a namespace."""

    def __init__(self) -> None:
        #: Held locks by inode and whether they are flocks; sorted by owner, then start.
        self.held: dict[tuple[Inode, bool], dict[tuple[str, int], list[Lock]]] = {}
        self.waiters: dict[tuple[Inode, bool], list[tuple[str, Waiter]]] = {}
        self.count = 0

    def change(self, inode: Inode, request: LockChange) -> tuple[LockHeld, list[tuple[int, int]]]:
        """Test, set or clear; return the reply and the (group, tid) to wake."""
        key = (inode, request.family == "flock")
        owner = (request.family, request.owner)
        wanted = Lock(request.owner, request.pid, request.type, *_range(request))
        self._stop_waiting(key, request.wait_group, request.wait_tid)
        if request.type == F_UNLCK and not request.test:
            return _granted(), self._replace(key, owner, wanted)
        conflict = self._conflict(key, owner, wanted)
        if conflict is None:
            return _granted(), [] if request.test else self._replace(key, owner, wanted)
        if request.wait_group and not request.test:
            self._wait(key, owner, request, wanted)
            return _held(*conflict), self._release_converted_flock(key, owner)
        return _held(*conflict), []

    def _release_converted_flock(self, key: tuple[Inode, bool], owner: tuple[str, int]) -> list[tuple[int, int]]:
        """flock(2) conversion is not atomic: waiting for the new lock gives up the old one."""
        if not key[1] or owner not in self.held.get(key, {}):
            return []
        return self._replace(key, owner, Lock(owner[1], 0, F_UNLCK, 0, _INFINITY))

    def _conflict(self, key: tuple[Inode, bool], owner: tuple[str, int], wanted: Lock) -> tuple[str, Lock] | None:
        """Return the first lock of another owner that is in the way: owners in the order of their first lock."""
        for (family, holder), locks in self.held.get(key, {}).items():
            if (family, holder) == owner:
                continue
            for lock in locks:
                overlap = lock.start <= wanted.end and wanted.start <= lock.end
                if overlap and F_WRLCK in (lock.type, wanted.type):
                    return family, lock
        return None

    def _replace(self, key: tuple[Inode, bool], owner: tuple[str, int], wanted: Lock) -> list[tuple[int, int]]:
        """Put *wanted* over the owner's ranges: cut, split and join; return whom to wake."""
        owners = self.held.setdefault(key, {})
        old = owners.get(owner, [])
        new = _joined([piece for lock in old for piece in _cut(lock, wanted)] + _kept(wanted))
        if self.count + len(new) - len(old) > MAX_LOCKS:
            fail(ENOLCK)
        self.count += len(new) - len(old)
        if new:
            owners[owner] = new
        else:
            owners.pop(owner, None)
        if not owners:
            del self.held[key]
        return self._woken(key, wanted) if old else []

    def _woken(self, key: tuple[Inode, bool], changed: Lock) -> list[tuple[int, int]]:
        """Take out the waiters for ranges that *changed* touches: they ask again."""
        waiting = self.waiters.get(key, [])
        woken = [(w.group, w.tid) for _, w in waiting if w.lock.start <= changed.end and changed.start <= w.lock.end]
        left = [pair for pair in waiting if (pair[1].group, pair[1].tid) not in woken]
        if left:
            self.waiters[key] = left
        else:
            self.waiters.pop(key, None)
        return woken

    # -- waiting ------------------------------------------------------------------------------------------------

    def _wait(self, key: tuple[Inode, bool], owner: tuple[str, int], request: LockChange, wanted: Lock) -> None:
        if owner[0] == "posix" and self._would_deadlock(key, owner, wanted):
            fail(EDEADLK)
        waiter = Waiter(request.wait_group, request.wait_tid, request.owner, wanted)
        self.waiters.setdefault(key, []).append((owner[0], waiter))

    def _stop_waiting(self, key: tuple[Inode, bool], group: int, tid: int) -> None:
        """A thread asks anew: it waits no more for what it asked before."""
        waiting = self.waiters.get(key)
        if not waiting or not group:
            return
        left = [pair for pair in waiting if (pair[1].group, pair[1].tid) != (group, tid)]
        if left:
            self.waiters[key] = left
        else:
            del self.waiters[key]

    def _would_deadlock(self, key: tuple[Inode, bool], owner: tuple[str, int], wanted: Lock) -> bool:
        """Follow who waits for whom from the owners in the way of *wanted*, back to *owner*."""
        blockers = self._blockers(key, owner, wanted)
        seen: set[tuple[str, int]] = set()
        while blockers:
            holder = blockers.pop()
            if holder == owner:
                return True
            if holder in seen or holder[0] != "posix":
                continue
            seen.add(holder)
            for other_key, waiting in self.waiters.items():
                for family, waiter in waiting:
                    if (family, waiter.owner) == holder:
                        blockers |= self._blockers(other_key, holder, waiter.lock)
        return False

    def _blockers(self, key: tuple[Inode, bool], owner: tuple[str, int], wanted: Lock) -> set[tuple[str, int]]:
        return {
            other
            for other, locks in self.held.get(key, {}).items()
            if other != owner
            and any(
                lock.start <= wanted.end and wanted.start <= lock.end and F_WRLCK in (lock.type, wanted.type)
                for lock in locks
            )
        }

    # -- owners that go -----------------------------------------------------------------------------------------

    def release(self, inode: Inode | None, family: str, owner: int) -> list[tuple[int, int]]:
        """Drop all locks and waits of an owner, on one inode or on all; return whom to wake."""
        woken: list[tuple[int, int]] = []
        wanted = Lock(owner, 0, F_UNLCK, 0, _INFINITY)
        for key in list(self.held):
            if (inode is None or key[0] is inode) and (family, owner) in self.held.get(key, {}):
                woken += self._replace(key, (family, owner), wanted)
        if inode is None:
            for key, waiting in list(self.waiters.items()):
                left = [pair for pair in waiting if (pair[0], pair[1].owner) != (family, owner)]
                self.waiters[key] = left
                if not left:
                    del self.waiters[key]
        return woken

    def check(self) -> None:
        """Assert that ranges are sorted, disjoint, joined, and counted."""
        total = 0
        for owners in self.held.values():
            assert owners, "an inode without locks is listed"
            for locks in owners.values():
                assert locks, "an owner without locks is listed"
                total += len(locks)
                for first, second in itertools.pairwise(locks):
                    assert first.end < second.start, "ranges of one owner overlap"
                    assert first.type != second.type or first.end + 1 < second.start, "neighbours are not joined"
        assert total == self.count, "the count of locks is wrong"


def _range(request: LockChange) -> tuple[int, int]:
    """Return first and last byte. EINVAL, EOVERFLOW as flock_to_posix_lock."""
    start, length = request.start, request.length
    if request.family == "flock":
        return 0, _INFINITY
    if length < 0:
        start, length = start + length, -length
    if start < 0:
        fail(EINVAL)
    if length == 0:
        return start, _INFINITY
    if start + length - 1 > _INFINITY:
        fail(EOVERFLOW)
    return start, start + length - 1


def _kept(wanted: Lock) -> list[Lock]:
    return [] if wanted.type == F_UNLCK else [wanted]


def _cut(lock: Lock, by: Lock) -> list[Lock]:
    """Return what is left of *lock* outside *by*."""
    if by.end < lock.start or lock.end < by.start:
        return [lock]
    left = [lock._replace(end=by.start - 1)] if lock.start < by.start else []
    return left + ([lock._replace(start=by.end + 1)] if by.end < lock.end else [])


def _joined(locks: list[Lock]) -> list[Lock]:
    """Sort ranges and join neighbours of one type."""
    result: list[Lock] = []
    for lock in sorted(locks, key=lambda lock: lock.start):
        if result and result[-1].type == lock.type and result[-1].end + 1 == lock.start:
            result[-1] = result[-1]._replace(end=lock.end, pid=lock.pid)
        else:
            result.append(lock)
    return result


def _granted() -> LockHeld:
    return LockHeld(granted=True, type=F_UNLCK, start=0, length=0, pid=0)


def _held(family: str, lock: Lock) -> LockHeld:
    """The lock in the way, as F_GETLK shows it; open file descriptions show as process -1."""
    length = 0 if lock.end == _INFINITY else lock.end - lock.start + 1
    pid = -1 if family == "ofd" else lock.pid
    return LockHeld(granted=False, type=lock.type, start=lock.start, length=length, pid=pid)
