"""What the tree does beyond what native tables show: handles, listings, magic links, mounts, limits."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from greenroom.actors.mount_namespace import file_data, naming
from greenroom.actors.mount_namespace.errors import MagicLinkMet
from greenroom.messages import mount_namespace as m
from sides import Guest, credentials, spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MNT_DETACH = 1, 32, 4096, 16384, 2


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Guest]:
    """A sandbox's usual mounts over a small lower layer."""
    lower = tmp_path / "lower"
    (lower / "etc").mkdir(parents=True)
    (lower / "etc" / "passwd").write_bytes(b"root:x:0:0\n")
    (lower / "usr" / "lib").mkdir(parents=True)
    (lower / "usr" / "lib" / "libc.so").write_bytes(b"\x7fELF" * 3000)
    (lower / "lib").symlink_to("usr/lib")
    kinds = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("devpts", "/dev/pts"), ("tmpfs", "/dev/shm"))
    guest = Guest(spec("overlay", "/", str(lower)), *(spec(k, t) for k, t in kinds), spec("tmpfs", "/tmp"))
    yield guest
    guest.tree.check()
    guest.close()


# -- handles ----------------------------------------------------------------------------------------------------


def test_unlinked_file_lives_while_it_is_open(guest: Guest) -> None:
    """nlink is 0, contents and size stay, and the memory goes with the last handle."""
    opened = guest.opened(b"/f", os.O_CREAT | os.O_RDWR)
    os.write(opened.token, b"abc")
    guest.unlink(b"/f")
    status = guest.handle_status(opened.handle)
    assert (status.nlink, status.size) == (0, 3)
    guest.tree.handles.keep(opened.handle)
    guest.release(opened)
    assert guest.handle_status(opened.handle).nlink == 0
    guest.tree.release((opened.handle,))
    assert guest.tree.store.count == 0


def test_path_of_an_unlinked_file_says_so(guest: Guest) -> None:
    """As /proc/self/fd shows it."""
    guest.mkdir(b"/d")
    opened = guest.opened(b"/d", os.O_PATH)
    guest.rmdir(b"/d")
    place = guest.tree.handles.place(opened.handle)
    assert guest.tree.path_of(guest.root, place) == b"/d (deleted)"
    with pytest.raises(FileNotFoundError):
        guest.tree.get_path(m.GetPath(root=guest.root, handle=opened.handle))
    with pytest.raises(FileNotFoundError):
        guest.opened(b"x", os.O_CREAT | os.O_RDWR, base=opened.handle)
    guest.release(opened)


def test_working_directory_follows_its_rename(guest: Guest) -> None:
    """A handle is a place, not a path."""
    guest.run_all([("mkdir", b"/a"), ("mkdir", b"/a/b"), ("mkdir", b"/c")])
    opened = guest.tree.become_working_directory(m.BecomeWorkingDirectory(**guest.at(b"/a/b")))
    guest.rename(b"/a", b"/c/a")
    assert guest.tree.get_path(m.GetPath(root=guest.root, handle=opened.handle)).text == b"/c/a/b"
    guest.tree.release((opened.handle,))


def test_offset_is_shared_and_append_works(guest: Guest) -> None:
    """The host's open file description is the guest's."""
    guest.write(b"/f", b"0123")
    one, two = guest.opened(b"/f", os.O_RDWR), guest.opened(b"/f", os.O_WRONLY | os.O_APPEND)
    assert os.read(one.token, 2) == b"01"
    os.write(two.token, b"45")
    assert os.read(one.token, 9) == b"2345"
    guest.release(one)
    guest.release(two)


def test_temporary_file_can_be_linked(guest: Guest) -> None:
    """O_TMPFILE, then linkat(2) by descriptor."""
    guest.mkdir(b"/d")
    opened = guest.opened(b"/d", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(opened.token, b"x")
    ends = {"old_base": opened.handle, "old_path": b"", "new_base": guest.root, "new_path": b"/d/f"}
    naming.link(guest.tree, m.Link(root=guest.root, follow=True, who=guest.who, **ends))
    assert guest.read(b"/d/f") == b"x"
    assert guest.status(b"/d/f").nlink == 1
    guest.release(opened)


def test_handle_can_be_opened_again_without_a_path(guest: Guest) -> None:
    """What a worker does for /proc/self/fd/N and after a restore, also for a file without a name."""
    opened = guest.opened(b"/f", os.O_CREAT | os.O_RDWR)
    os.write(opened.token, b"x")
    guest.unlink(b"/f")
    again = guest.opened(b"", os.O_RDONLY, base=opened.handle)
    assert os.read(again.token, 9) == b"x"
    guest.release(again)
    guest.release(opened)


def test_write_by_a_user_takes_set_id_bits_away(guest: Guest) -> None:
    """Seen at the next look, since the write itself sends no message."""
    if guest.tree.root_place()[0].fs.type == "bind":
        pytest.skip("the host does it there, by greenroom's own user")
    guest.run_all([("write", b"/f", b"x"), ("chown", b"/f", 1000, 1000), ("chmod", b"/f", 0o6755), ("become", 1000)])
    opened = guest.opened(b"/f", os.O_RDWR)
    os.read(opened.token, 1)
    assert guest.status(b"/f").mode & 0o7777 == 0o6755
    os.write(opened.token, b"y")
    assert guest.status(b"/f").mode & 0o7777 == 0o755
    guest.release(opened)


def test_fifo_counts_readers(guest: Guest) -> None:
    """ENXIO for a writer without a reader; then the two are connected."""
    guest.mknod(b"/p", stat.S_IFIFO | 0o600)
    with pytest.raises(OSError, match="No such device or address"):
        guest.opened(b"/p", os.O_WRONLY)
    reader = guest.opened(b"/p", os.O_RDONLY)
    writer = guest.opened(b"/p", os.O_WRONLY)
    os.write(writer.token, b"hi")
    assert os.read(reader.token, 9) == b"hi"
    guest.release(reader)
    guest.release(writer)


# -- listings ---------------------------------------------------------------------------------------------------


def test_thousands_of_entries_are_removed_while_they_are_listed(guest: Guest) -> None:
    """rm -rf: read a few, remove them, go on from the last offset."""
    guest.mkdir(b"/d")
    for number in range(5000):
        guest.symlink(b"x", b"/d/%d" % number)
    opened = guest.opened(b"/d", os.O_DIRECTORY)
    offset, seen = 0, 0
    while True:
        reply = _read(guest, opened.handle, offset, 2000)
        if not reply:
            break
        for entry in reply:
            if entry.name not in (b".", b".."):
                guest.unlink(b"/d/" + entry.name)
                seen += 1
        offset = reply[-1].offset
    guest.release(opened)
    assert seen == 5000
    guest.rmdir(b"/d")


def _read(guest: Guest, handle: int, offset: int, max_bytes: int) -> list[m.DirectoryEntry]:
    from greenroom.actors.mount_namespace.directories import read_directory

    request = m.ReadDirectory(handle=handle, offset=offset, max_bytes=max_bytes)
    return m.DirectoryEntry.unpack(read_directory(guest.tree, request).entries)


def test_listing_names_types_and_inodes(guest: Guest) -> None:
    """d_ino and d_type are stat's; the dots come first."""
    guest.run_all([("mkdir", b"/d"), ("write", b"/f", b""), ("symlink", b"f", b"/l")])
    entries = guest.entries(b"/")
    assert [e.name for e in entries[:2]] == [b".", b".."]
    for entry in entries[2:]:
        status = guest.status(b"/" + entry.name, False)
        assert (entry.ino, entry.type) == (status.ino, status.mode >> 12)


def test_removed_entry_is_left_out_of_a_listing(guest: Guest) -> None:
    """It was not read yet when it went."""
    guest.run_all([("write", b"/a", b""), ("write", b"/b", b"")])
    opened = guest.opened(b"/", os.O_DIRECTORY)
    first = _read(guest, opened.handle, 0, 48)
    guest.unlink(b"/b")
    names = [e.name for e in _read(guest, opened.handle, first[-1].offset, 4096)]
    guest.release(opened)
    if guest.tree.root_place()[0].fs.type != "bind":
        assert b"b" not in names
    with pytest.raises(OSError, match="Invalid argument"):
        _read(guest, guest.root, 0, 8)


# -- overlay ----------------------------------------------------------------------------------------------------


def test_inode_number_stays_over_a_copy_up(box: Guest) -> None:
    """And an older descriptor keeps the lower file."""
    before = box.status(b"/etc/passwd")
    reader = box.opened(b"/etc/passwd", os.O_RDONLY)
    box.write(b"/etc/passwd", b"ROOT", os.O_WRONLY)
    assert box.status(b"/etc/passwd").ino == before.ino
    assert os.read(reader.token, 4) == b"root"
    assert box.read(b"/etc/passwd") == b"ROOT:x:0:0\n"
    box.release(reader)


def test_lower_directory_is_renamed_with_its_subtree(box: Guest, tmp_path: Path) -> None:
    """Nothing is copied, and the old name is gone."""
    box.rename(b"/usr", b"/tmp2")
    assert box.read(b"/tmp2/lib/libc.so")[:4] == b"\x7fELF"
    assert box.run(("stat", b"/usr")) == "ENOENT"
    assert box.run(("stat", b"/lib/libc.so")) == "ENOENT"
    box.mkdir(b"/usr")
    assert box.listdir(b"/usr") == []
    assert (tmp_path / "lower" / "usr" / "lib" / "libc.so").exists()


def test_renamed_lower_file_opened_for_writing_is_copied(box: Guest) -> None:
    """The lower file is found under its old name below."""
    box.rename(b"/etc/passwd", b"/p")
    box.write(b"/p", b"R", os.O_WRONLY)
    assert box.read(b"/p") == b"Root:x:0:0\n"


def test_cached_names_are_forgotten_and_found_again(box: Guest) -> None:
    """Pruning keeps what was changed or is held."""
    box.chmod(b"/etc/passwd", 0o600)
    box.stat(b"/usr/lib/libc.so")
    held = box.opened(b"/usr/lib", os.O_PATH)
    overlay = box.tree.root_place()[0].fs
    overlay.prune()  # type: ignore[attr-defined]
    assert b"libc.so" not in box.tree.handles.place(held.handle)[1].children
    assert box.status(b"/etc/passwd").mode & 0o777 == 0o600
    assert box.status(b"/usr/lib/libc.so").size == 12000
    box.release(held)


def test_symbolic_links_of_the_lower_layer_stay_inside(tmp_path: Path) -> None:
    """An absolute link leads to the sandbox's root, never to the host's."""
    lower = tmp_path / "lower"
    lower.mkdir()
    (tmp_path / "secret").write_bytes(b"s")
    (lower / "out").symlink_to(tmp_path / "secret")
    (lower / "up").symlink_to("../secret")
    guest = Guest(spec("overlay", "/", str(lower)))
    assert guest.run(("stat", b"/out")) == "ENOENT"
    assert guest.run(("stat", b"/up")) == "ENOENT"


def test_host_proc_below_is_hidden() -> None:
    """Without our own /proc on it, the host's shows as an empty directory."""
    guest = Guest(spec("overlay", "/", "/"))
    assert guest.listdir(b"/proc") == []
    assert guest.run(("stat", b"/proc/self")) == "ENOENT"


def test_full_file_system_takes_nothing_more(tmp_path: Path) -> None:
    """Workers are granted what is free, in steps, and nothing once the size limit is reached; removing makes room."""
    guest = Guest(spec("tmpfs", "/", size_limit=1 << 16))

    def granted(worker: str) -> int:
        dev = next(iter(guest.tree.file_systems))
        return guest.tree.grant_space(m.GrantSpace(worker=worker, dev=dev)).granted

    assert granted("worker:0") == 1 << 16
    assert granted("worker:1") == 0
    guest.write(b"/f", b"x" * (1 << 16))
    assert granted("worker:0") == 0
    assert guest.statfs(b"/").bfree == 0
    guest.unlink(b"/f")
    assert granted("worker:1") == 1 << 16
    guest.close()


def test_many_files_need_few_memfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed files give up their memfd and get it back with their contents and times."""
    monkeypatch.setattr(file_data, "MAX_MEMFDS", 16)
    guest = Guest(spec("tmpfs", "/"))
    for number in range(100):
        guest.write(b"/%d" % number, b"%d" % number)
        guest.utime(b"/%d" % number, 5, 7)
    assert guest.tree.store.count <= 16
    for number in range(100):
        assert guest.status(b"/%d" % number).mtime_ns == 7
        assert guest.read(b"/%d" % number) == b"%d" % number
    guest.tree.check()
    guest.close()


# -- proc, dev --------------------------------------------------------------------------------------------------


def test_file_of_a_process_is_named_for_its_owner(box: Guest) -> None:
    """Its ThreadGroup makes the text."""
    opened = box.opened(b"/proc/self/task/7/stat")
    assert (opened.proc_pid, opened.proc_file, opened.content) == (7, "task/7/stat", None)
    box.release(opened)


@pytest.mark.parametrize(
    ("path", "magic", "rest"),
    [
        (b"/proc/self/fd/3", "fd/3", b""),
        (b"/dev/fd/3/x/../y/", "fd/3", b"x/../y/"),
        (b"/dev/stdin", "fd/0", b""),
        (b"/proc/thread-self/cwd/f", "task/7/cwd", b"f"),
        (b"/proc/7/exe", "exe", b""),
        (b"/proc/self/root/etc", "root", b"etc"),
    ],
)
def test_magic_link_is_left_to_its_process(box: Guest, path: bytes, magic: str, rest: bytes) -> None:
    """The reply says where the walk stopped, and what remains."""
    opened = box.opened(path)
    assert (opened.magic, opened.proc_pid, opened.rest, opened.handle) == (magic, 7, rest, 0)
    with pytest.raises(MagicLinkMet) as met:
        box.mkdir(path + b"/new")
    assert str(met.value.strerror).startswith(f"magic-link path 7 {magic} ")


def test_magic_link_itself_is_a_link(box: Guest) -> None:
    """lstat, O_NOFOLLOW, and readlink is asked of the process."""
    assert stat.S_ISLNK(box.status(b"/proc/self/exe", False).mode)
    opened = box.opened(b"/proc/self/fd/1", os.O_PATH | os.O_NOFOLLOW)
    assert stat.S_ISLNK(opened.mode)
    box.release(opened)
    assert box.run(("open", b"/proc/self/exe", os.O_NOFOLLOW)) == "ELOOP"
    assert box.tree.read_link(m.ReadLink(**box.at(b"/proc/self/cwd"))).magic == "cwd"


def test_processes_come_and_go(box: Guest) -> None:
    """As TaskSet tells."""
    box.tree.processes.see(40, 1000, 1000, (40, 41))
    assert box.status(b"/proc/40").uid == 1000
    assert {e.name for e in box.entries(b"/proc/40/task")} == {b".", b"..", b"40", b"41"}
    opened = box.opened(b"/proc/40/status")
    box.tree.forget_process(40)
    assert box.run(("stat", b"/proc/40")) == "ENOENT"
    assert b"40" not in box.listdir(b"/proc")
    box.release(opened)


def test_global_files_have_contents(box: Guest) -> None:
    """Each file of /proc and /sys that is made here makes something that reads like text."""
    for path in (b"/proc/meminfo", b"/proc/cpuinfo", b"/proc/stat", b"/proc/mounts", b"/proc/self/mountinfo"):
        opened = box.opened(path)
        assert opened.content
        assert opened.content.endswith(b"\n")
        box.release(opened)
    assert box.opened(b"/proc/sys/kernel/hostname").content == b"box\n"
    assert box.run(("open", b"/proc/meminfo", os.O_WRONLY)) == "EACCES"
    assert box.run(("unlink", b"/proc/meminfo")) == "EPERM"


def test_namespace_links_can_be_read_and_opened(box: Guest) -> None:
    """/proc/self/ns/net."""
    assert box.readlink(b"/proc/self/ns/net").startswith(b"net:[")
    assert stat.S_ISREG(box.status(b"/proc/self/ns/net").mode)


def test_device_nodes_are_reported_not_opened(box: Guest) -> None:
    """The worker implements them."""
    opened = box.opened(b"/dev/null", os.O_RDWR)
    assert (stat.S_ISCHR(opened.mode), opened.rdev, opened.token) == (True, os.makedev(1, 3), -1)
    box.release(opened)
    box.tree.see_terminal(0, 1000, 5, 0o620)
    assert box.status(b"/dev/pts/0").rdev == os.makedev(136, 0)
    box.tree.forget_terminal(0)
    assert box.run(("stat", b"/dev/pts/0")) == "ENOENT"


# -- mounts -----------------------------------------------------------------------------------------------------


def test_tmpfs_is_mounted_and_unmounted(box: Guest) -> None:
    """What is below is hidden meanwhile; EBUSY while a file is open; then its memory is free."""
    box.mkdir(b"/mnt")
    box.write(b"/mnt/below", b"")
    memfds = box.tree.store.count
    box.mount(b"none", b"/mnt", "tmpfs", 0, b"size=1m,mode=700")
    assert (box.listdir(b"/mnt"), box.status(b"/mnt").mode) == ([], stat.S_IFDIR | 0o700)
    opened = box.opened(b"/mnt/f", os.O_CREAT | os.O_RDWR)
    for operation in (("rmdir", b"/mnt"), ("rename", b"/mnt", b"/x")):
        assert box.run(operation) == "EBUSY"
    assert box.run(("rename", b"/mnt/f", b"/f")) == "EXDEV"
    with pytest.raises(OSError, match="busy"):
        box.unmount(b"/mnt")
    box.release(opened)
    box.unmount(b"/mnt")
    assert box.listdir(b"/mnt") == [b"below"]
    assert box.tree.store.count == memfds


def test_lazy_unmount_keeps_open_files(box: Guest) -> None:
    """MNT_DETACH: the file goes with its last handle."""
    box.mkdir(b"/mnt")
    box.mount(b"none", b"/mnt", "tmpfs")
    opened = box.opened(b"/mnt/f", os.O_CREAT | os.O_RDWR)
    box.unmount(b"/mnt", MNT_DETACH)
    assert box.listdir(b"/mnt") == []
    assert box.handle_status(opened.handle).size == 0
    box.release(opened)
    assert box.tree.store.count == 0


def test_guest_binds_a_directory_and_makes_it_read_only(box: Guest) -> None:
    """mount --bind, then remount,ro: the same inodes, one place writable and one not."""
    box.run_all([("mkdir", b"/a"), ("mkdir", b"/b"), ("write", b"/a/f", b"x")])
    box.mount(b"/a", b"/b", "", MS_BIND)
    box.mount(b"none", b"/b", "", MS_REMOUNT | MS_BIND | MS_RDONLY)
    assert box.run(("same", b"/a/f", b"/b/f"))
    assert box.run(("write", b"/b/f", b"y")) == "EROFS"
    assert box.run(("unlink", b"/b/f")) == "EROFS"
    assert box.run(("access", b"/b/f", os.W_OK)) == "EROFS"
    assert box.run(("write", b"/a/f", b"y")) == 1
    assert b"/b overlay ro" in (box.opened(b"/proc/mounts").content or b"")
    assert box.run(("stat", b"/b/.."))[0] == box.stat(b"/")[0]


def test_initial_mounts_are_locked(box: Guest) -> None:
    """What the host has below them stays out of reach."""
    with pytest.raises(OSError, match="Invalid argument"):
        box.unmount(b"/proc")
    with pytest.raises(OSError, match="Invalid argument"):
        box.unmount(b"/proc", MNT_DETACH)
    box.become(1000)
    with pytest.raises(PermissionError):
        box.mount(b"none", b"/tmp", "tmpfs")


def test_read_only_bind_refuses_changes(tmp_path: Path) -> None:
    """And shows the host's changes at once."""
    shared = tmp_path / "shared"
    shared.mkdir()
    guest = Guest(spec("tmpfs", "/"), spec("bind", "/work/src", str(shared), read_only=True))
    assert guest.run(("write", b"/work/src/f", b"x")) == "EROFS"
    (shared / "f").write_bytes(b"1")
    assert guest.read(b"/work/src/f") == b"1"
    (shared / "f").unlink()
    assert guest.run(("stat", b"/work/src/f")) == "ENOENT"


def test_writable_bind_changes_the_host(tmp_path: Path) -> None:
    """Also below a directory that the host moved meanwhile."""
    shared = tmp_path / "shared"
    (shared / "d").mkdir(parents=True)
    guest = Guest(spec("tmpfs", "/"), spec("bind", "/s", str(shared)))
    guest.write(b"/s/d/f", b"x")
    (shared / "d").rename(shared / "e")
    (shared / "d").mkdir()
    assert guest.run(("stat", b"/s/d/f")) == "ENOENT"
    assert guest.read(b"/s/e/f") == b"x"
    guest.rename(b"/s/e", b"/s/d/e")
    assert (shared / "d" / "e" / "f").read_bytes() == b"x"


def test_file_can_be_bound(tmp_path: Path) -> None:
    """A bind of one host file onto a mount point that is made for it."""
    (tmp_path / "hosts").write_bytes(b"127.0.0.1 box\n")
    guest = Guest(spec("tmpfs", "/"), spec("bind", "/etc/hosts", str(tmp_path / "hosts")))
    assert guest.read(b"/etc/hosts") == b"127.0.0.1 box\n"
    guest.write(b"/etc/hosts", b"::1", os.O_WRONLY | os.O_TRUNC)
    assert (tmp_path / "hosts").read_bytes() == b"::1"
    assert guest.run(("unlink", b"/etc/hosts")) == "EBUSY"


# -- openat2, statfs, xattrs, errors ----------------------------------------------------------------------------


def test_statfs_names_the_type(box: Guest) -> None:
    """f_type of each kind."""
    kinds = {b"/": 0x794C7630, b"/tmp": 0x01021994, b"/proc": 0x9FA0, b"/sys": 0x62656572, b"/dev/pts": 0x1CD1}
    assert {path: box.statfs(path).type for path in kinds} == kinds


def test_execution_needs_an_executable_regular_file(box: Guest) -> None:
    """EACCES for execve's open of anything else."""
    for path in (b"/etc", b"/etc/passwd", b"/dev/null"):
        with pytest.raises(PermissionError):
            box.opened(path, for_exec=True)
    box.chmod(b"/etc/passwd", 0o111)
    box.release(box.opened(b"/etc/passwd", for_exec=True))


def test_unknown_handle_is_EBADF(box: Guest) -> None:  # Linux's name
    """A path that is absolute does not look at its base."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        box.opened(b"etc", base=999)
    box.release(box.opened(b"/etc", base=999))


def test_process_is_known_by_its_own_request(box: Guest) -> None:
    """Its messages may come before TaskSet's."""
    box.who = credentials(0)
    assert box.readlink(b"/proc/self") == b"7"
    assert box.listdir(b"/proc/7/task") == [b"7"]
