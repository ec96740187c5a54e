"""A saved and loaded namespace is the same to its programs."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest
from greenroom.actors.mount_namespace import saving
from greenroom.actors.mount_namespace.locks import F_WRLCK, LockTable
from greenroom.messages import mount_namespace as m
from sides import Guest, spec
from test_random_operations import Generator, _all_paths, _seed_lower, _tree_operations

if TYPE_CHECKING:
    from pathlib import Path


def save(guest: Guest, path: Path, locks: LockTable | None = None) -> bytes:
    """Save with the contents going to *path*, which has something in it already."""
    path.write_bytes(b"memory")
    fd = os.open(path, os.O_RDWR)
    return saving.save(guest.tree, locks or LockTable(), fd)


def load(state: bytes, path: Path, root: int, locks: LockTable | None = None) -> Guest:
    """Load into a fresh tree; handles keep their numbers."""
    guest = Guest()
    saving.load(guest.tree, locks or LockTable(), state, os.open(path, os.O_RDONLY))
    guest.root = root
    return guest


@pytest.mark.parametrize("kind", ["tmpfs", "overlay"])
@pytest.mark.parametrize("seed", range(3))
def test_random_tree_survives(kind: str, seed: int, tmp_path: Path) -> None:
    """Save after some operations, load, go on with both: they never differ."""
    lower = tmp_path / "lower"
    lower.mkdir()
    _seed_lower(lower, seed)
    guest = Guest(spec(kind, "/", str(lower)))
    generator = Generator(seed)
    guest.run_all(generator.operation() for _ in range(400))
    paths = _all_paths(guest)
    state = save(guest, tmp_path / "data")
    assert (tmp_path / "data").read_bytes()[:6] == b"memory"
    other = load(state, tmp_path / "data", guest.root)
    for path in paths:
        one, two = guest.status(path, False), other.status(path, False)
        assert (one.ino, one.dev, one.mtime_ns) == (two.ino, two.dev, two.mtime_ns), path
        if not stat.S_ISLNK(one.mode):  # reading a lower link's target is an access that the host notes
            assert one.atime_ns == two.atime_ns, path
    shown = _tree_operations(paths)
    assert other.run_all(shown) == guest.run_all(shown)
    operations = [generator.operation() for _ in range(400)]
    assert other.run_all(operations) == guest.run_all(operations)
    again = load(save(other, tmp_path / "data2"), tmp_path / "data2", guest.root)
    shown = _tree_operations(_all_paths(guest))
    assert again.run_all(shown) == guest.run_all(shown)
    for each in (guest, other, again):
        each.tree.check()
        each.close()


def test_handles_and_mounts_survive(tmp_path: Path) -> None:
    """Unlinked open files, working directories, processes' places, read-only mounts, terminals, sparse files."""
    lower = tmp_path / "lower"
    (lower / "etc").mkdir(parents=True)
    (lower / "etc" / "motd").write_bytes(b"hello")
    mounts = (
        spec("overlay", "/", str(lower)),
        spec("proc", "/proc"),
        spec("devtmpfs", "/dev"),
        spec("devpts", "/dev/pts"),
    )
    guest = Guest(*mounts, spec("bind", "/host", str(tmp_path), read_only=True), spec("tmpfs", "/tmp"))
    guest.tree.see_terminal(3, 1000, 5, 0o620)
    guest.run_all([("write", b"/tmp/gone", b"still"), ("mkdir", b"/tmp/d"), ("write", b"/tmp/sparse", b"x")])
    guest.truncate(b"/tmp/sparse", 1 << 30)
    guest.setxattr(b"/tmp/sparse", b"user.a", b"1")
    gone = guest.opened(b"/tmp/gone", os.O_RDWR)
    guest.unlink(b"/tmp/gone")
    directory = guest.opened(b"/etc", os.O_PATH)
    process = guest.opened(b"/proc/self/fd", os.O_DIRECTORY)
    bound = guest.opened(b"/host/lower", os.O_DIRECTORY)
    boot_id = guest.opened(b"/proc/sys/kernel/random/boot_id").content
    other = load(save(guest, tmp_path / "data"), tmp_path / "data", guest.root)
    again = other.opened(b"", os.O_RDONLY, base=gone.handle)
    assert os.read(again.token, 9) == b"still"
    assert other.handle_status(gone.handle).nlink == 0
    assert other.read(b"/tmp/sparse")[:1] == b"x"
    assert other.status(b"/tmp/sparse").blocks * 512 < 1 << 20
    assert other.getxattr(b"/tmp/sparse", b"user.a") == b"1"
    assert other.tree.get_path(m.GetPath(root=other.root, handle=directory.handle)).text == b"/etc"
    assert other.tree.handles.inode(process.handle).proc_file == "fd"
    assert stat.S_ISDIR(other.handle_status(bound.handle).mode)
    assert other.run(("mkdir", b"/host/x")) == "EROFS"
    assert other.status(b"/dev/pts/3").uid == 1000
    assert other.opened(b"/proc/sys/kernel/random/boot_id").content == boot_id
    assert other.opened(b"/proc/mounts").content == guest.opened(b"/proc/mounts").content
    other.tree.release((gone.handle, directory.handle, process.handle, bound.handle))
    other.tree.check()
    for each in (guest, other):
        each.close()


def test_copied_up_hard_link_is_found_under_its_other_name(tmp_path: Path) -> None:
    """Even when that name was not looked up before the save."""
    lower = tmp_path / "lower"
    lower.mkdir()
    (lower / "a").write_bytes(b"old")
    os.link(lower / "a", lower / "b")
    guest = Guest(spec("overlay", "/", str(lower)))
    guest.write(b"/a", b"new", os.O_WRONLY)
    guest.unlink(b"/a")
    other = load(save(guest, tmp_path / "data"), tmp_path / "data", guest.root)
    assert (guest.read(b"/b"), other.read(b"/b")) == (b"new", b"new")


def test_missing_host_files_are_refused(tmp_path: Path) -> None:
    """With the host's path in the text, before anything runs."""
    lower = tmp_path / "lower"
    lower.mkdir()
    (lower / "f").write_bytes(b"")
    guest = Guest(spec("overlay", "/", str(lower)))
    guest.chmod(b"/f", 0o600)
    state = save(guest, tmp_path / "data")
    (lower / "f").unlink()
    with pytest.raises(saving.CannotLoad, match=str(lower / "f")):
        load(state, tmp_path / "data", guest.root)
    shutil.rmtree(lower)
    with pytest.raises(saving.CannotLoad, match=str(lower)):
        load(state, tmp_path / "data", guest.root)


def test_locks_survive(tmp_path: Path) -> None:
    """On the same file, for the same owners."""
    guest = Guest(spec("tmpfs", "/"))
    opened = guest.opened(b"/f", os.O_CREAT | os.O_RDWR)
    fields = {"handle": opened.handle, "family": "posix", "pid": 1, "type": F_WRLCK, "start": 0, "length": 10}
    locks, other_locks = LockTable(), LockTable()
    asking = m.LockChange(owner=1, test=False, wait_group=0, wait_tid=0, **fields)
    locks.change(guest.tree.handles.inode(opened.handle), asking)
    other = load(save(guest, tmp_path / "data", locks), tmp_path / "data", guest.root, other_locks)
    other_locks.check()
    testing = m.LockChange(owner=2, test=True, wait_group=0, wait_tid=0, **fields)
    held, _ = other_locks.change(other.tree.handles.inode(opened.handle), testing)
    assert (held.granted, held.pid, held.length) == (False, 1, 10)
