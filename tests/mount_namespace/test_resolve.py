"""openat2(2) and extended attributes agree with native Linux."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sides import Guest, Operation, needs_root, run_natively, spec

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_root

NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT = 1, 2, 4, 8, 16
WORLD: list[Operation] = [
    ("mkdir", b"/d"),
    ("mkdir", b"/d/e"),
    ("write", b"/f", b""),
    ("write", b"/d/f", b""),
    ("symlink", b"/d/f", b"/d/absolute"),
    ("symlink", b"../f", b"/d/up"),
    ("symlink", b"f", b"/d/near"),
    ("symlink", b"e/../../d/f", b"/d/around"),
    ("symlink", b"/f", b"/d/e/top"),
]
PATHS: tuple[bytes, ...] = (
    b"f",
    b"e/../f",
    b"../f",
    b"..",
    b"e/../../d/f",
    b"/f",
    b"/d/f",
    b"absolute",
    b"up",
    b"near",
    b"around",
)
PATHS += (b"e/top", b"missing", b"e", b"/")


def test_resolve_flags_agree_with_native(tmp_path: Path) -> None:
    """Every path with every flag that restricts it."""
    root = tmp_path / "native"
    root.mkdir()
    flags = (0, NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT, BENEATH | NO_SYMLINKS)
    looks: list[Operation] = [("openat2", b"/d", path, os.O_RDONLY, f) for path in PATHS for f in flags]
    guest = Guest(spec("tmpfs", "/"))
    guest.chmod(b"/", 0o755)
    native, ours = run_natively(str(root), WORLD + looks), guest.run_all(WORLD + looks)
    different = [x for x in zip(WORLD + looks, native, ours, strict=True) if x[1] != x[2]]
    assert not different
    guest.close()


def test_extended_attributes_agree_with_native(guest: Guest, tmp_path: Path) -> None:
    """Names, flags and the errnos of what is not there."""
    if guest.tree.root_place()[0].fs.type == "bind":
        return
    root = tmp_path / "native"
    root.mkdir()
    operations: list[Operation] = [
        *WORLD,
        ("setxattr", b"/f", b"user.a", b"1"),
        ("setxattr", b"/f", b"user.a", b"2", 1),
        ("setxattr", b"/f", b"user.b", b"2", 2),
        ("setxattr", b"/f", b"user.a", b"3", 2),
        ("getxattr", b"/f", b"user.a"),
        ("getxattr", b"/f", b"user.b"),
        ("getxattr", b"/d", b"user.a"),
        ("setxattr", b"/d", b"user.a", b""),
        ("getxattr", b"/d", b"user.a"),
        ("setxattr", b"/f", b"nonsense.a", b""),
        ("setxattr", b"/f", b"user." + b"x" * 300, b""),
        ("setxattr", b"/f", b"trusted.t", b"1"),
        ("getxattr", b"/f", b"trusted.t"),
        ("removexattr", b"/f", b"user.a"),
        ("removexattr", b"/f", b"user.a"),
    ]
    native, ours = run_natively(str(root), operations), guest.run_all(operations)
    assert [x for x in zip(operations, native, ours, strict=True) if x[1] != x[2]] == []
