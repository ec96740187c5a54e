"""Advisory locks: ranges, conflicts, waiting, dead-locks; random changes compared with native fcntl(2) and flock(2)."""

from __future__ import annotations

import fcntl
import os
import pickle
import random
import signal
import struct
from typing import TYPE_CHECKING, Any

import pytest
from greenroom.actors.mount_namespace.locks import F_RDLCK, F_UNLCK, F_WRLCK, LockTable
from greenroom.messages import mount_namespace as m
from sides import Guest, spec

if TYPE_CHECKING:
    from pathlib import Path

    from greenroom.actors.mount_namespace.inode import Inode


@pytest.fixture
def inodes() -> list[Inode]:
    """Two files."""
    guest = Guest(spec("tmpfs", "/"))
    opened = [guest.opened(name, os.O_CREAT | os.O_RDWR) for name in (b"/f", b"/g")]
    return [guest.tree.handles.inode(o.handle) for o in opened]


class Locker:
    """Asks a table; remembers who was woken."""

    def __init__(self, inodes: list[Inode]) -> None:
        self.table = LockTable()
        self.inodes = inodes
        self.woken: list[tuple[int, int]] = []

    def ask(self, owner: int, kind: int, start: int = 0, length: int = 0, **more: Any) -> m.LockHeld:
        file = more.pop("file", 0)
        fields = {"family": "posix", "test": False, "wait_group": 0, "wait_tid": 0, **more}
        request = m.LockChange(handle=1, owner=owner, pid=owner, type=kind, start=start, length=length, **fields)
        held, woken = self.table.change(self.inodes[file], request)
        self.woken += woken
        self.table.check()
        return held

    def wait(self, owner: int, kind: int, start: int = 0, length: int = 0, **more: Any) -> m.LockHeld:
        return self.ask(owner, kind, start, length, wait_group=owner, wait_tid=owner, **more)


@pytest.fixture
def locker(inodes: list[Inode]) -> Locker:
    return Locker(inodes)


def test_readers_share_and_writers_exclude(locker: Locker) -> None:
    """Of different owners; one's own lock is replaced."""
    assert locker.ask(1, F_RDLCK).granted
    assert locker.ask(2, F_RDLCK).granted
    assert not locker.ask(2, F_WRLCK).granted
    assert locker.ask(1, F_UNLCK).granted
    assert locker.ask(2, F_WRLCK).granted


def test_conflict_is_reported(locker: Locker) -> None:
    """F_GETLK's answer: type, range, process."""
    locker.ask(1, F_WRLCK, 10, 5)
    held = locker.ask(2, F_RDLCK, 0, 0, test=True)
    assert (held.granted, held.type, held.start, held.length, held.pid) == (False, F_WRLCK, 10, 5, 1)
    assert locker.ask(2, F_RDLCK, 0, 10, test=True).type == F_UNLCK


def test_waiter_is_told_once(locker: Locker) -> None:
    """When the lock in its way goes; then it asks again."""
    locker.ask(1, F_WRLCK)
    assert not locker.wait(2, F_WRLCK, 5, 1).granted
    locker.ask(1, F_UNLCK, 0, 5)
    assert locker.woken == []
    locker.ask(1, F_UNLCK)
    assert locker.woken == [(2, 2)]
    assert locker.wait(2, F_WRLCK, 5, 1).granted
    assert locker.table.waiters == {}


def test_cycle_of_waiting_is_EDEADLK(locker: Locker) -> None:  # Linux's name
    """Also over a third owner and two files."""
    locker.ask(1, F_WRLCK, 0, 1)
    locker.ask(2, F_WRLCK, 1, 1)
    locker.ask(3, F_WRLCK, 0, 1, file=1)
    assert not locker.wait(1, F_WRLCK, 1, 1).granted
    assert not locker.wait(2, F_WRLCK, 0, 1, file=1).granted
    with pytest.raises(OSError, match="deadlock"):
        locker.wait(3, F_WRLCK, 0, 1)


def test_owner_that_goes_wakes_those_who_wait(locker: Locker) -> None:
    """An exit, or a close of a descriptor of the file."""
    locker.ask(1, F_WRLCK, file=0)
    locker.ask(1, F_WRLCK, file=1)
    locker.wait(2, F_WRLCK, file=0)
    assert locker.table.release(locker.inodes[1], "posix", 1) == []
    assert locker.table.release(None, "posix", 1) == [(2, 2)]
    assert locker.table.release(None, "posix", 2) == []
    locker.table.check()
    assert (locker.table.held, locker.table.waiters) == ({}, {})


def test_families(locker: Locker) -> None:
    """posix and ofd locks exclude each other; flocks only flocks, over the whole file."""
    locker.ask(1, F_WRLCK, 0, 5)
    assert not locker.ask(1, F_WRLCK, 0, 5, family="ofd").granted
    assert locker.ask(1, F_WRLCK, 7, 5, family="flock").granted
    assert not locker.ask(2, F_RDLCK, 100, 1, family="flock").granted
    assert locker.ask(2, F_WRLCK, 100, 1, family="ofd").granted
    assert locker.ask(3, F_WRLCK, 100, 1, test=True).pid == -1


def test_random_record_locks_agree_with_native(locker: Locker, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Three processes lock ranges of one file; each F_SETLK and F_GETLK answers the same."""
    path = tmp_path / "f"
    path.write_bytes(b"")
    pick = random.Random(5)  # noqa: S311  # repeatable
    steps = [
        (pick.randrange(3), pick.choice((F_RDLCK, F_WRLCK, F_UNLCK)), pick.randrange(20), pick.choice((0, 1, 3, 9)))
        for _ in range(600)
    ]
    processes = [_Process(path) for _ in range(3)]
    request.addfinalizer(lambda: [process.end() for process in processes])
    for number, (owner, kind, start, length) in enumerate(steps):
        granted = locker.ask(owner + 1, kind, start, length).granted
        assert processes[owner].call(("set", kind, start, length)) == granted, f"step {number}"
        held = locker.ask(owner + 1, F_WRLCK, 0, 0, test=True)
        wanted = (F_UNLCK, 0, 0) if held.granted else (held.type, held.start, held.length)
        assert processes[owner].call(("get",)) == wanted, f"step {number}"


class _Process:
    """A child that takes native locks."""

    def __init__(self, path: Path) -> None:
        ask, self._ask = os.pipe()
        self._answer, answer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._serve(path, ask, answer)
            finally:
                os._exit(0)
        os.close(ask)
        os.close(answer)

    def call(self, request: tuple[Any, ...]) -> Any:
        os.write(self._ask, pickle.dumps(request))
        return pickle.loads(os.read(self._answer, 4096))  # noqa: S301  # our own child's

    def end(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._ask)
        os.close(self._answer)

    @staticmethod
    def _serve(path: Path, ask: int, answer: int) -> None:
        fd = os.open(path, os.O_RDWR)
        layout = "hhqqi4x"
        while True:
            request = pickle.loads(os.read(ask, 4096))  # noqa: S301  # our own parent's
            result: Any = None
            if request[0] == "set":
                try:
                    fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack(layout, request[1], 0, request[2], request[3], 0))
                    result = True
                except OSError:
                    result = False
            elif request[0] == "get":
                reply = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(layout, F_WRLCK, 0, 0, 0, 0))
                kind, _, start, length, _ = struct.unpack(layout, reply)
                result = (kind, start, length)
            os.write(answer, pickle.dumps(result))
