"""Nothing that a guest does changes the host outside a writable bind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from oracle import in_sandbox, shell


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host directory with a file, to which the guest gets no bind. Below the repository: /tmp is the sandbox's own."""
    directory = Path(__file__).parent.parent.parent / "build" / "outside" / str(os.getpid())
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "file").write_text("as it was")
    for stray in directory.iterdir():
        if stray.name != "file":
            stray.unlink()
    return directory


@pytest.mark.parametrize(
    "line",
    [
        "echo changed >$D/file",
        "echo more >>$D/file",
        "rm $D/file",
        "mv $D/file $D/other",
        "chmod 777 $D/file; chown 1:1 $D/file; touch $D/file",
        "ln $D/file $D/link; ln -s x $D/symlink; mkfifo $D/fifo; mkdir $D/directory; touch $D/new",
        "rm -rf $D",
        "truncate -s 0 $D/file; dd if=/dev/zero of=$D/file bs=1 count=3 conv=notrunc",
        "python3 -c \"import mmap, os; f = os.open('$D/file', 2); m = mmap.mmap(f, 0); m[0:1] = b'X'; m.flush()\"",
        "exec 3<>$D/file; echo x >&3; cat /proc/self/fd/3; echo y >/proc/self/fd/3",
        "cd $D/..; mv $(basename $D) elsewhere; rm -rf elsewhere",
    ],
    ids=[
        "write",
        "append",
        "remove",
        "rename",
        "attributes",
        "create",
        "remove-all",
        "truncate",
        "mmap",
        "proc",
        "rename-directory",
    ],
)
def test_guest_changes_only_its_own_view(line: str, outside: Path, placement: str) -> None:
    before = (outside / "file").stat()
    in_sandbox(shell(f"D={outside}; {line}"), placement)
    after = (outside / "file").stat()
    assert sorted(os.listdir(outside)) == ["file"]
    assert (outside / "file").read_text() == "as it was"
    assert (before.st_mode, before.st_uid, before.st_mtime_ns, before.st_ctime_ns, before.st_nlink) == (
        after.st_mode,
        after.st_uid,
        after.st_mtime_ns,
        after.st_ctime_ns,
        after.st_nlink,
    )


def test_guest_sees_its_own_changes(outside: Path, placement: str) -> None:
    line = f"cd {outside}; echo changed >file; echo x >new; cat file new; rm file; ls; mkdir file; ls -d file/."
    assert in_sandbox(shell(line), placement).stdout == b"changed\nx\nnew\nfile/.\n"


def test_changes_of_one_sandbox_do_not_show_in_the_next(placement: str) -> None:
    in_sandbox(shell("echo x >/tmp/left; echo x >/etc/left; echo x >/dev/shm/left"), placement)
    assert in_sandbox(shell("ls /tmp/left /etc/left /dev/shm/left 2>/dev/null"), placement).stdout == b""


def test_tmp_is_empty_and_its_own(placement: str, tmp_path: Path) -> None:
    assert (
        in_sandbox(shell("ls -A /tmp; touch /tmp/mine; ls /tmp; stat -c %a /tmp"), placement).stdout == b"mine\n1777\n"
    )
    assert not Path("/tmp/mine").exists()


def test_writable_bind_changes_the_host(tmp_path: Path, placement: str) -> None:
    (tmp_path / "in").write_text("from the host")
    outcome = in_sandbox(
        shell("cat /mnt/in; echo from the guest >/mnt/out; mkdir /mnt/d"), placement, ("--bind", f"{tmp_path}:/mnt")
    )
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, b"from the host", b"")
    assert (tmp_path / "out").read_text() == "from the guest\n"
    assert (tmp_path / "d").is_dir()


def test_read_only_bind_gives_EROFS(tmp_path: Path, placement: str) -> None:
    (tmp_path / "in").write_text("from the host")
    line = "cat /mnt/in; echo x >/mnt/in; rm /mnt/in; touch /mnt/new; chmod 777 /mnt/in"
    outcome = in_sandbox(shell(line), placement, ("--bind", f"{tmp_path}:/mnt:ro"))
    assert outcome.stderr.count(b"Read-only file system") == 4
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert (tmp_path / "in").read_text() == "from the host"


def test_bind_does_not_lead_out_of_itself(tmp_path: Path, placement: str) -> None:
    """A symbolic link in a bind is followed in the sandbox's tree, and .. ends at the mount."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "bound").mkdir()
    (tmp_path / "bound" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "bound" / "up").symlink_to("../secret")
    line = "cat /mnt/link /mnt/up /mnt/../secret"
    outcome = in_sandbox(shell(line), placement, ("--bind", f"{tmp_path / 'bound'}:/mnt"))
    assert outcome.stdout == b""
    assert outcome.stderr.count(b"No such file") == 3


def test_host_processes_are_not_to_be_seen(placement: str) -> None:
    line = f"ls -d /proc/{os.getpid()}; kill -0 {os.getpid()}; ls /proc | grep -c '^[0-9]'"
    outcome = in_sandbox(shell(line, program="/bin/bash"), placement)
    assert outcome.stderr.count(b"No such") == 2
    assert int(outcome.stdout) < 10


def test_host_name_changes_in_the_sandbox_only(placement: str) -> None:
    before = os.uname().nodename
    line = "hostname inside && hostname && uname -n && cat /proc/sys/kernel/hostname"
    assert in_sandbox(shell(line), placement).stdout.split() == [b"inside"] * 3
    assert os.uname().nodename == before


def test_clock_is_not_the_guests_to_set(placement: str) -> None:
    before = time.time()
    in_sandbox(shell("date -s @0"), placement)
    assert 0 <= time.time() - before < 60
