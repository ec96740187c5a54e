"""The actor passes descriptors, raises errnos at the asker, and wakes those who wait for locks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from greenroom.actors.mount_namespace.actor import MountNamespace
from greenroom.actors.mount_namespace.locks import F_UNLCK, F_WRLCK
from greenroom.actors.runtime.actor import Actor, Ask, handles
from greenroom.actors.runtime.loop import Loop
from greenroom.actors.runtime.node import Node, Placement
from greenroom.messages import mount_namespace as m
from greenroom.messages.thread_group import LockReleased
from sides import credentials, spec

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator


class Worker(Actor):
    """Asks for a test."""

    def __init__(self, address: str, node: Node) -> None:
        super().__init__(address, node)
        self.woken: list[int] = []

    @handles(LockReleased)
    def lock_released(self, message: LockReleased) -> None:
        self.woken.append(message.tid)


@pytest.fixture
def node(tmp_path: Any) -> Iterator[Node]:
    loop = Loop()
    with Node("sandbox", loop, Placement({"sandbox": "inproc://sandbox"})) as made:
        yield made
    loop.close()


@pytest.fixture
def worker(node: Node) -> Iterator[Worker]:
    actors: list[Any] = [MountNamespace.start("mount_namespace:1", node), Worker.start("thread_group:1", node)]
    found = node.actor("thread_group:1")
    assert isinstance(found, Worker)
    yield found
    for actor in actors:
        actor.stop(block=False)
    for _ in range(10):
        node.loop.turn()


def run(worker: Worker, asking: Callable[[], Generator[Any, Any, Any]]) -> Any:
    """Run an asking generator as the worker would; return its value or raise what it raised."""
    ended: list[Any] = []
    worker.drive(asking(), lambda value, error: ended.append((value, error)))
    for _ in range(1000):
        if ended:
            break
        worker.node.loop.turn()
    value, error = ended[0]
    if error is not None:
        raise error
    return value


def test_file_is_opened_and_locked_over_messages(worker: Worker) -> None:
    """Set up, create, write through the descriptor that was passed, see the size, wait for a lock."""
    namespace = "mount_namespace:1"

    def asking() -> Generator[Any, Any, None]:
        # The kernel does this; the test's worker is nobody else's.
        root = (yield Ask(namespace, m.SetUpMounts(mounts=(spec("tmpfs", "/"),), hostname="box"))).handle
        at = {"root": root, "base": root, "path": b"/f", "who": credentials()}
        flags = {"flags": os.O_CREAT | os.O_RDWR, "mode": 0o600, "resolve": 0, "for_exec": False}
        opened = yield Ask(namespace, m.Open(**at, **flags))
        fd = worker.node.descriptors.take(opened.token)
        os.write(fd, b"hello")
        os.close(fd)
        status = m.FileStatus.unpack((yield Ask(namespace, m.GetStatus(**at, follow=True))).status)
        assert (status.size, status.mode & 0o777) == (5, 0o600)
        lock = {"handle": opened.handle, "family": "posix", "start": 0, "length": 0, "test": False}
        nobody, waiting = {"wait_group": 0, "wait_tid": 0}, {"wait_group": 1, "wait_tid": 9}
        assert (yield Ask(namespace, m.LockChange(owner=1, pid=1, type=F_WRLCK, **nobody, **lock))).granted
        assert not (yield Ask(namespace, m.LockChange(owner=2, pid=2, type=F_WRLCK, **waiting, **lock))).granted
        yield Ask(namespace, m.LockChange(owner=1, pid=1, type=F_UNLCK, **nobody, **lock))
        worker.tell(namespace, m.ReleaseHandle(handles=(opened.handle,)))
        with pytest.raises(IsADirectoryError):
            yield Ask(namespace, m.Unlink(**{**at, "path": b"/."}, directory=False))

    run(worker, asking)
    worker.node.loop.turn()
    assert worker.woken == [9]
