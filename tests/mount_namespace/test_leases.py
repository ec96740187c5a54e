"""What a worker may answer by itself is, at any moment, what it would be told if it asked."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
import types
from pathlib import Path
from typing import Any

import pytest
from greenroom.actors.mount_namespace import directories
from greenroom.actors.mount_namespace.tree import _make_status
from greenroom.actors.thread_group.host import WorkerHost
from greenroom.actors.thread_group.leases import Leases
from greenroom.messages import mount_namespace as m
from sides import Guest, Operation, needs_root, spec
from test_random_operations import Generator, _seed_lower

_OPERATIONS, _LOOKS = 400, 4


class Holder:
    """The worker's side: it learns from replies, and nothing else."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        worker: Any = types.SimpleNamespace(host=WorkerHost(), tell=self._tell)
        self.leases = Leases(worker)
        guest.tree.store.leases.post = self.leases.ended  # type: ignore[assignment]  # nothing else is told there
        guest.told = lambda reply: self.leases.end(reply.lease)
        #: Every key that was asked for, and the directories that were listed.
        self.paths: dict[Any, None] = {}
        self.links: dict[Any, None] = {}
        self.directories: dict[bytes, Any] = {}
        #: How often something was known.
        self.hits = 0

    def _tell(self, _to: str, message: m.ReleaseHandle) -> None:
        self.guest.tree.release(message.handles, quiet=message.quiet)

    def look(self, path: bytes, follow: bool) -> None:
        """As stat(2) does."""
        key = (path, follow, self.guest.who.fsuid)
        self.paths[key] = None
        with contextlib.suppress(OSError):
            self.leases.learn(key, self.guest.tree.get_status(m.GetStatus(**self.guest.at(path, follow=follow))))

    def read_link(self, path: bytes) -> None:
        """As readlink(2) does."""
        key = (path, "link", self.guest.who.fsuid)
        self.links[key] = None
        with contextlib.suppress(OSError):
            self.leases.learn(key, self.guest.tree.read_link(m.ReadLink(**self.guest.at(path))))

    def known_link(self, key: Any) -> Any:
        try:
            return self.leases.target(key)
        except OSError as error:
            return error.errno

    def list(self, path: bytes) -> None:
        """As getdents(2) does for a whole directory."""
        try:
            opened = self.guest.opened(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return
        request = m.ReadDirectory(handle=opened.handle, offset=0, max_bytes=1 << 16)
        reply = directories.read_directory(self.guest.tree, request)
        self.guest.release(opened)
        if reply.lease:
            file = self.directories[path] = types.SimpleNamespace(lease=None, path_key=None)
            self.leases.attach_listing(file, reply)  # type: ignore[arg-type]

    def known(self, key: Any) -> Any:
        try:
            return self.leases.status(key)
        except OSError as error:
            return error.errno

    def check(self) -> None:
        """Compare all that is known with the tree itself."""
        for key in self.paths:
            known = self.known(key)
            if known is not None:
                self.hits += 1
                assert known == self._truth(key), key
        for key in self.links:
            known = self.known_link(key)
            if known is not None:
                assert known == self._true_link(key), key
        for path, file in self.directories.items():
            if file.lease.is_alive and file.lease.listing is not None:
                names = {entry.name for entry in m.DirectoryEntry.unpack(file.lease.listing.entries)}
                assert names == {b".", b"..", *self.guest.listdir(path)}, path

    def _true_link(self, key: Any) -> Any:
        path, _, uid = key
        found = self._walk(path, False, uid)
        if isinstance(found, int):
            return found
        inode = found[1].inode
        return inode.target if stat.S_ISLNK(inode.mode) else errno.EINVAL

    def _truth(self, key: Any) -> Any:
        """Walk anew, and make the status anew."""
        found = self._walk(*key)
        if isinstance(found, int):
            return found
        mount, dentry = found
        dentry.inode.fs.refresh(dentry.inode)
        return _make_status(dentry.inode, dentry, mount.id).pack()

    def _walk(self, path: bytes, follow: bool, uid: int) -> Any:
        """Return the place, or the errno."""
        guest, was = self.guest, self.guest.who
        guest.become(uid)
        guest.tree.places.clear()
        try:
            return guest.tree.find(guest.root, guest.root, path, guest.who, follow)
        except OSError as error:
            return error.errno
        finally:
            guest.who = was


@needs_root
@pytest.mark.parametrize("kind", ["tmpfs", "overlay", "bind"])
@pytest.mark.parametrize("seed", range(4))
def test_leases_hold_over_random_operations(kind: str, seed: int, tmp_path: Path) -> None:
    """After each operation everything that is still granted is true; the seed repeats a failure."""
    lower = tmp_path / "lower"
    lower.mkdir()
    if kind != "tmpfs":
        _seed_lower(lower, seed)
    guest = Guest(spec(kind, "/", "" if kind == "tmpfs" else str(lower)))
    guest.chmod(b"/", 0o777)
    holder, generator, pick = Holder(guest), Generator(seed), random.Random(seed)  # noqa: S311  # repeatable
    for _ in range(_OPERATIONS):
        guest.become(pick.choice((0, 0, 1000)))
        guest.run(generator.operation())
        holder.check()
        for _ in range(_LOOKS):
            guest.become(pick.choice((0, 0, 1000)))
            holder.look(generator.path(), pick.random() < 0.7)
            holder.read_link(generator.path())
        guest.become(0)
        holder.list(pick.choice((b"/", b"/a", b"/b")))
    assert (holder.hits > _OPERATIONS) == (kind != "bind"), "binds are never granted, the others are"
    guest.tree.check()
    guest.close()


@pytest.fixture
def holder(guest: Guest) -> Holder:
    """A tree with a directory, a file and a link in it, all looked at."""
    guest.run_all([("mkdir", b"/d"), ("write", b"/d/f", b"one"), ("symlink", b"d", b"/l"), ("mkdir", b"/other")])
    made = Holder(guest)
    for path in (b"/d", b"/d/f", b"/l/f", b"/d/none", b"/other"):
        made.look(path, True)
    return made


_CHANGES: list[tuple[Operation, set[bytes]]] = [
    (("chmod", b"/d/f", 0o600), {b"/d/f", b"/l/f"}),
    (("unlink", b"/d/f"), {b"/d", b"/d/f", b"/l/f"}),
    (("rename", b"/d/f", b"/other/g"), {b"/d", b"/d/f", b"/l/f", b"/other"}),
    (("truncate", b"/d/f", 1), {b"/d/f", b"/l/f"}),
    (("write", b"/d/none", b""), {b"/d", b"/d/none"}),
    (("write", b"/other/none", b""), {b"/other", b"/d/none"}),
    (("chmod", b"/d", 0o700), {b"/d", b"/d/f", b"/l/f", b"/d/none", b"/other"}),
    (("unlink", b"/l"), {b"/d", b"/d/f", b"/l/f", b"/d/none", b"/other"}),
]


@pytest.mark.parametrize(("change", "ended"), _CHANGES, ids=lambda value: value[0] if type(value) is tuple else "")
def test_a_change_ends_what_it_changes(change: Operation, ended: set[bytes], holder: Holder) -> None:
    """A file's change leaves the leases of others alone."""
    if holder.guest.tree.root_place()[0].fs.type == "bind":
        pytest.skip("binds are never granted")
    before = {key[0] for key in holder.paths if holder.known(key) is not None}
    holder.guest.run(change)
    after = {key[0] for key in holder.paths if holder.known(key) is not None}
    assert before - after == ended & before
    assert before == {b"/d", b"/d/f", b"/l/f", b"/d/none", b"/other"}


def test_nothing_is_granted_where_there_are_several_workers(guest: Guest) -> None:
    """Nobody is told then."""
    guest.run(("write", b"/f", b"one"))
    reply = guest.tree.get_status(m.GetStatus(**guest.at(b"/f", follow=True)))
    assert reply.lease == 0
    with pytest.raises(FileNotFoundError):
        guest.tree.get_status(m.GetStatus(**guest.at(b"/none", follow=True)))


def test_watched_directories_are_asked_for(holder: Holder) -> None:
    """Opening and reading are events that a watcher wants."""
    guest = holder.guest
    place = guest.tree.find(guest.root, guest.root, b"/d", guest.who)
    request = m.AddWatch(**guest.at(b"/d", worker="worker:0", file=1, follow=True, mask=0xFFF))
    guest.tree.watches.add(request, place)
    opened = guest.opened(b"/d/f")
    assert opened.lease == 0
    guest.release(opened)
