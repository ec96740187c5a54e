"""Each row is a sequence of operations whose results, errnos included, must be native Linux's."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from sides import RENAME_EXCHANGE, RENAME_NOREPLACE, Guest, Operation, needs_root, run_natively

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_root

RD, WR, RW, CREAT, EXCL, TRUNC = os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_EXCL, os.O_TRUNC
DIR, NOFOLLOW, PATH, TMPFILE = os.O_DIRECTORY, os.O_NOFOLLOW, os.O_PATH, os.O_TMPFILE
REG, FIFO, CHR, SOCK = stat.S_IFREG, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK
LONG = b"n" * 255

#: A small world that the tables start from.
WORLD: list[Operation] = [
    ("mkdir", b"/d"),
    ("mkdir", b"/d/sub"),
    ("mkdir", b"/empty"),
    ("write", b"/f", b"hello"),
    ("write", b"/d/g", b"world"),
    ("symlink", b"f", b"/to-f"),
    ("symlink", b"d", b"/to-d"),
    ("symlink", b"d/", b"/to-d-slash"),
    ("symlink", b"nowhere", b"/dangling"),
    ("symlink", b"loop2", b"/loop1"),
    ("symlink", b"loop1", b"/loop2"),
    ("symlink", b"/d/../to-d/./g", b"/winding"),
    ("symlink", b"../f", b"/d/up"),
    ("link", b"/f", b"/f2"),
    ("mknod", b"/fifo", FIFO | 0o644),
    ("mknod", b"/sock", SOCK | 0o644),
]
PATHS = (
    b"/",
    b".",
    b"..",
    b"/..",
    b"/f",
    b"/f/",
    b"/f/.",
    b"/f/..",
    b"/f/x",
    b"/d",
    b"/d/",
    b"/d/.",
    b"/d/..",
    b"/d//g",
    b"/d/g/",
    b"/d/missing",
    b"/d/missing/",
    b"/missing/x",
    b"/missing",
    b"/missing/",
    b"/empty",
    b"/empty/",
    b"/empty/.",
    b"/to-f",
    b"/to-f/",
    b"/to-d",
    b"/to-d/",
    b"/to-d/g",
    b"/to-d/..",
    b"/to-d-slash",
    b"/to-d-slash/g",
    b"/dangling",
    b"/dangling/",
    b"/loop1",
    b"/loop1/x",
    b"/winding",
    b"/d/up",
    b"/d/sub/../up",
    b"/fifo",
    b"/sock",
    b"/" + LONG,
    b"/" + LONG + b"n",
    b"/" + LONG + b"n/x",
    b"/f/" + LONG + b"n",
    b"/" + b"./" * 2047,
    b"/" + b"./" * 2048,
)
OPEN_FLAGS = (
    RD,
    RW,
    WR | TRUNC,
    CREAT | RW,
    CREAT | EXCL | RW,
    CREAT | NOFOLLOW | WR,
    CREAT | TRUNC | WR,
    NOFOLLOW,
    DIR,
    DIR | NOFOLLOW,
    PATH,
    PATH | NOFOLLOW,
    PATH | DIR,
    DIR | CREAT | RW,
    TMPFILE | RW,
    TMPFILE,
    TRUNC,
    3,
)

TABLE: dict[str, list[Operation]] = {
    "stat": [("stat", p) for p in PATHS],
    "lstat": [("stat", p, False) for p in PATHS],
    "readlink": [("readlink", p) for p in PATHS],
    "access": [("access", p, want) for p in PATHS for want in (0, 4, 2, 1)],
    "chdir": [("chdir", p) for p in PATHS],
    "listdir": [("listdir", p) for p in (b"/", b"/d", b"/empty", b"/to-d", b"/f")],
    "chmod": [("chmod", p, mode) for p in PATHS for mode in (0o640, 0o755)],
    "chown": [("chown", p, 3, 4) for p in PATHS],
    "truncate": [("truncate", p, size) for p in PATHS for size in (3, 0, 70000) if p != b"/fifo"],
    "symlink": [("symlink", target, p) for p in PATHS for target in (b"t", b"")],
    "mknod": [("mknod", p, REG | 0o600) for p in PATHS],
}


def _fresh(operation: Operation) -> list[Operation]:
    """One destructive operation in a world of its own kind of damage: what is left is looked at."""
    return [operation, ("listdir", b"/"), ("listdir", b"/d")]


#: Destructive operations start from the world each time.
EACH: dict[str, list[Operation]] = {
    "open": [("open", p, flags) for p in PATHS for flags in OPEN_FLAGS if b"fifo" not in p],
    "mkdir": [("mkdir", p) for p in PATHS],
    "unlink": [("unlink", p) for p in PATHS],
    "rmdir": [("rmdir", p) for p in PATHS],
    "link from": [("link", p, b"/new") for p in PATHS],
    "link from, following": [("link", p, b"/new", True) for p in PATHS],
    "link to": [("link", b"/f", p) for p in PATHS],
    "rename from": [("rename", p, new) for p in PATHS for new in (b"/new", b"/new/", b"/empty", b"/d/sub", b"/f2")],
    "rename to": [("rename", old, p) for p in PATHS for old in (b"/f", b"/d", b"/empty", b"/to-f")],
    "rename no replace": [("rename", b"/f", p, RENAME_NOREPLACE) for p in PATHS],
    "exchange": [("rename", old, p, RENAME_EXCHANGE) for p in PATHS for old in (b"/f", b"/d", b"/d/sub")],
    "bad rename flags": [("rename", b"/f", b"/new", flags) for flags in (3, 8, 64)],
}


def _assert_agreement(guest: Guest, root: Path, operations: list[Operation]) -> None:
    native = run_natively(str(root), operations)
    ours = guest.run_all(operations)
    different = [
        f"{operation}: native {wanted!r}, ours {got!r}"
        for operation, wanted, got in zip(operations, native, ours, strict=True)
        if wanted != got
    ]
    assert not different, "\n".join(different)


@pytest.mark.parametrize("name", TABLE)
def test_operation_agrees_with_native(guest: Guest, native_root: Path, name: str) -> None:
    """Results and errnos over all kinds of paths."""
    _assert_agreement(guest, native_root, WORLD + TABLE[name])


@pytest.mark.parametrize("name", EACH)
def test_destructive_operation_agrees_with_native(guest: Guest, native_root: Path, name: str) -> None:
    """The same, each operation in a fresh copy of the world, below a directory of its own."""
    operations: list[Operation] = []
    for number, operation in enumerate(EACH[name]):
        top = b"/%d" % number
        operations.append(("mkdir", top))
        operations += [_below(top, step) for step in [*WORLD, *_fresh(operation)]]
    _assert_agreement(guest, native_root, operations)


def _below(top: bytes, operation: Operation) -> Operation:
    """Move an operation's paths below *top* (targets of relative symbolic links stay)."""
    name, *arguments = operation
    moved: list[object] = []
    for argument in arguments:
        is_path = isinstance(argument, bytes) and argument.startswith(b"/") and len(argument) < 4000
        moved.append(top + argument if is_path else argument)
    return (name, *moved)
