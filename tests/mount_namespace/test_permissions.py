"""Who may do what: native Linux is the oracle, as another user on a prepared tree."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sides import Guest, Operation, needs_root, run_natively

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_root

RD, WR, RW, CREAT, EXCL, TRUNC = os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_EXCL, os.O_TRUNC
ALICE, BOB, STAFF = 1000, 1001, 50

#: Every value of the file type but S_IFDIR, which is mknod's caller's to refuse.
KINDS = [kind for kind in range(0, 0o200000, 0o10000) if kind != stat.S_IFDIR]
#: Directories and files of several owners and modes.
WORLD: list[Operation] = [
    ("mkdir", b"/closed", 0o700),
    ("write", b"/closed/f", b"x"),
    ("mkdir", b"/listed", 0o744),
    ("write", b"/listed/f", b"x"),
    ("mkdir", b"/passed", 0o711),
    ("write", b"/passed/f", b"x"),
    ("mkdir", b"/readonly", 0o755),
    ("write", b"/readonly/f", b"x"),
    ("mkdir", b"/sticky", 0o1777),
    ("chmod", b"/sticky", 0o1777),
    ("write", b"/sticky/root", b"x"),
    ("mkdir", b"/sticky/rootdir"),
    ("mkdir", b"/shared", 0o777),
    ("chmod", b"/shared", 0o2777),
    ("chown", b"/shared", 0, STAFF),
    ("write", b"/mode0", b"x"),
    ("chmod", b"/mode0", 0),
    ("write", b"/writeonly", b"x"),
    ("chmod", b"/writeonly", 0o222),
    ("write", b"/group", b"x"),
    ("chmod", b"/group", 0o060),
    ("chown", b"/group", 0, STAFF),
    ("write", b"/bob", b"x"),
    ("chown", b"/bob", BOB, BOB),
    ("chmod", b"/bob", 0o644),
    ("mkdir", b"/home", 0o755),
    ("chown", b"/home", ALICE, ALICE),
    ("write", b"/suid", b"x"),
    ("chown", b"/suid", ALICE, ALICE),
    ("chmod", b"/suid", 0o6755),
    ("write", b"/home-of-nobody", b"x"),
    ("become", ALICE, ALICE, (STAFF,)),
    ("mkdir", b"/sticky/mine"),
    ("write", b"/sticky/my", b"x"),
    ("write", b"/home/h", b"x"),
]
FILES = (
    b"/closed",
    b"/closed/f",
    b"/listed",
    b"/listed/f",
    b"/passed",
    b"/passed/f",
    b"/readonly",
    b"/readonly/f",
    b"/readonly/new",
    b"/sticky/root",
    b"/sticky/rootdir",
    b"/sticky/mine",
    b"/sticky/my",
    b"/sticky/new",
    b"/shared/new",
    b"/mode0",
    b"/writeonly",
    b"/group",
    b"/bob",
    b"/home/h",
    b"/home/new",
    b"/suid",
)
TABLE: dict[str, list[Operation]] = {
    "open": [("open", f, flags) for f in FILES for flags in (RD, WR, RW, CREAT | RW, CREAT | EXCL | WR, WR | TRUNC)],
    "access": [("access", f, want) for f in FILES for want in range(8)],
    "listdir": [("listdir", f) for f in FILES],
    "chdir": [("chdir", f) for f in FILES],
    "chmod": [("chmod", f, mode) for f in FILES for mode in (0o600, 0o6777)],
    "chown": [("chown", f, uid, gid) for f in FILES for uid, gid in ((BOB, -1), (-1, STAFF), (-1, BOB), (ALICE, -1))],
    "utime": [("utime", f, 5, 6) for f in FILES],
    "touch": [("touch", f) for f in FILES],
    "truncate": [("truncate", f, 1) for f in FILES],
    "mkdir": [step for f in FILES for step in (("mkdir", f + b"1"), ("stat", f + b"1"))],
    "create": [step for f in FILES for step in (("write", f + b"1", b""), ("stat", f + b"1"))],
    "unlink": [("unlink", f) for f in FILES],
    "rmdir": [("rmdir", f) for f in FILES],
    "rename": [("rename", f, new) for f in FILES for new in (b"/shared/x", b"/home/h", b"/sticky/root")],
    "rename over": [("rename", b"/home/h", f) for f in FILES],
    "link": [("link", f, b"/home/l%d" % n) for n, f in enumerate(FILES) if not f.startswith((b"/bob", b"/mode0"))],
    "mknod": [("mknod", b"/home/n%d" % n, kind | 0o600, 0x103) for n, kind in enumerate(KINDS)],
    "setxattr": [("setxattr", f, b"user.a", b"1") for f in FILES],
}
#: Differences that are decided: fs.protected_hardlinks is 1 here, the oracle may run with 0.
_LINKED_UNPROTECTED = frozenset({b"/suid", b"/writeonly", b"/readonly/f", b"/passed/f", b"/group", b"/sticky/root"})


@pytest.fixture(autouse=True)
def _no_umask() -> Iterator[None]:
    old = os.umask(0)
    yield
    os.umask(old)


def _is_decided(operation: Operation) -> bool:
    protected = Path("/proc/sys/fs/protected_hardlinks").read_text() == "1\n"
    return operation[0] == "link" and not protected and operation[1] in _LINKED_UNPROTECTED


@pytest.mark.parametrize("name", TABLE)
def test_permission_agrees_with_native(guest: Guest, native_root: Path, name: str) -> None:
    """Results and errnos of an ordinary user."""
    if name == "setxattr" and guest.tree.root_place()[0].fs.type == "bind":
        pytest.skip("a bind has no extended attributes")
    operations = WORLD + TABLE[name]
    native, ours = run_natively(str(native_root), operations), guest.run_all(operations)
    different = [
        f"{operation}: native {wanted!r}, ours {got!r}"
        for operation, wanted, got in zip(operations, native, ours, strict=True)
        if wanted != got and not _is_decided(operation)
    ]
    assert not different, "\n".join(different)


def test_hard_links_are_protected(guest: Guest) -> None:
    """Nobody links another's file that could not be written, or that is special (Debian's default)."""
    guest.run_all(WORLD)
    for name in sorted(_LINKED_UNPROTECTED - {b"/suid", b"/group"}):
        assert guest.run(("link", name, b"/home/l")) == "EPERM"
    assert guest.run(("link", b"/group", b"/home/l")) is None


def test_links_in_sticky_directories_are_protected(guest: Guest) -> None:
    """A stranger's symbolic link in /tmp is not followed (Debian's default)."""
    guest.run_all([*WORLD, ("symlink", b"../bob", b"/sticky/l"), ("become", BOB)])
    assert guest.run(("stat", b"/sticky/l")) == "EACCES"
    assert stat.S_ISLNK(guest.stat(b"/sticky/l", False)[0])
    guest.become(ALICE)
    assert guest.run(("read", b"/sticky/l")) == b"x"
