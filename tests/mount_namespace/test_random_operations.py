"""Thousands of random operations, natively and on the tree: the same results, and the same tree at the end.

The seed is printed with a failure and repeats it exactly.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import stat
from typing import TYPE_CHECKING, Any

import pytest
from sides import RENAME_EXCHANGE, RENAME_NOREPLACE, Guest, Operation, needs_root, run_natively, spec

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_root

_NAMES = (b"a", b"b", b"c", b"d", b"e")
_FLAGS = (os.O_RDONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.O_WRONLY | os.O_TRUNC)


class Generator:
    """Random operations on a few names, so that they meet."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  # repeatable

    def path(self) -> bytes:
        """A path of one to four components, dots and a trailing slash now and then."""
        pick = self.random
        parts = [pick.choice(_NAMES) for _ in range(pick.choice((1, 1, 2, 2, 3, 4)))]
        if pick.random() < 0.08:
            parts.insert(pick.randrange(len(parts) + 1), pick.choice((b".", b"..")))
        return b"/" + b"/".join(parts) + (b"/" if pick.random() < 0.05 else b"")

    def target(self) -> bytes:
        """A symbolic link's target, absolute or relative."""
        return self.path() if self.random.random() < 0.5 else self.path()[1:]

    def operation(self) -> Operation:
        """One operation; those that make things are more frequent than those that remove them."""
        pick = self.random
        name = pick.choice(_OPERATIONS)
        if name == "rename":
            return (name, self.path(), self.path(), pick.choice((0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE)))
        if name == "link":
            return (name, self.path(), self.path(), pick.random() < 0.3)
        if name == "symlink":
            return (name, self.target(), self.path())
        if name == "write":
            flags = os.O_WRONLY | os.O_CREAT | pick.choice((0, os.O_TRUNC, os.O_APPEND))
            return (name, self.path(), pick.randbytes(pick.choice((0, 3, 5000))), flags)
        if name == "open":
            return (name, self.path(), pick.choice(_FLAGS) | pick.choice((0, os.O_NOFOLLOW)))
        if name in ("chmod", "mkdir"):
            return (name, self.path(), pick.choice((0o755, 0o700, 0o2775, 0o1777)))
        if name == "truncate":
            return (name, self.path(), pick.choice((0, 1, 4097, 100_000)))
        if name == "chown":
            return (name, self.path(), pick.choice((-1, 0, 5)), pick.choice((-1, 0, 6)))
        if name == "utime":
            return (name, self.path(), pick.randrange(10**18), pick.randrange(10**18))
        if name == "mknod":
            return (name, self.path(), stat.S_IFSOCK | 0o644)
        if name == "stat":
            return (name, self.path(), pick.random() < 0.5)
        return (name, self.path())


_OPERATIONS = (
    ("mkdir",) * 5
    + ("write",) * 5
    + ("rename",) * 5
    + ("symlink", "symlink", "link", "link", "open", "open", "stat", "stat", "unlink", "unlink", "rmdir", "rmdir")
    + ("readlink", "listdir", "chmod", "chown", "truncate", "utime", "mknod", "read", "chdir")
)


def _tree_operations(paths: list[bytes]) -> list[Operation]:
    """Operations that show everything about the entries *paths*."""
    shown: list[Operation] = []
    for path in paths:
        shown += [("stat", path, False), ("readlink", path), ("listdir", path), ("read", path)]
    for one, two in itertools.pairwise(paths):
        shown.append(("same", one, two))
    return shown


def _all_paths(guest: Guest) -> list[bytes]:
    """Every path of the guest's tree, without following links."""
    found: list[bytes] = []
    pending = [b""]
    while pending:
        directory = pending.pop()
        for name in guest.listdir(directory or b"/"):
            path = directory + b"/" + name
            found.append(path)
            if stat.S_ISDIR(guest.status(path, False).mode):
                pending.append(path)
    return found


def _compare(operations: list[Operation], native: list[Any], ours: list[Any], seed: int) -> None:
    for number, (operation, wanted, got) in enumerate(zip(operations, native, ours, strict=True)):
        assert wanted == got, f"seed {seed}, operation {number} {operation}"


def _seed_lower(directory: Path, seed: int) -> None:
    """Make a lower layer: directories, files, a hard link and symbolic links."""
    pick = random.Random(seed)  # noqa: S311  # repeatable
    made = [directory]
    for name in "abcde":
        at = pick.choice(made)
        (at / name).mkdir(exist_ok=True)
        made.append(at / name)
    for at in made:
        for name in "abcde":
            if pick.random() < 0.4 and not (at / name).exists():
                (at / name).write_bytes(pick.randbytes(pick.choice((0, 10, 9000))))
            elif pick.random() < 0.2 and not (at / name).exists():
                (at / name).symlink_to(pick.choice(("a", "../b", "/c/d")))
    files = [f for at in made for f in at.iterdir() if f.is_file() and not f.is_symlink()]
    if files and not os.path.lexists(directory / "e"):
        os.link(files[0], directory / "e")


@pytest.mark.parametrize("kind", ["tmpfs", "overlay", "bind"])
@pytest.mark.parametrize("seed", range(6))
def test_random_operations_agree_with_native(kind: str, seed: int, tmp_path: Path, native_root: Path) -> None:
    """1,500 operations, then everything that can be seen of the result."""
    lower, root = tmp_path / "lower", native_root / "root"
    lower.mkdir()
    if kind != "tmpfs":
        _seed_lower(lower, seed)
    shutil.copytree(lower, root, symlinks=True)
    _restore_links(lower, root)
    guest = Guest(spec(kind, "/", "" if kind == "tmpfs" else str(lower)))
    guest.chmod(b"/", 0o755)
    before = _everything(lower)
    generator = Generator(seed)
    operations = [generator.operation() for _ in range(1500)]
    ours: list[Any] = []
    for number, operation in enumerate(operations):
        ours.append(guest.run(operation))
        if number % 100 == 0:
            guest.tree.check()
    shown = _tree_operations(_all_paths(guest))
    native = run_natively(str(root), operations + shown)
    _compare(operations + shown, native, ours + guest.run_all(shown), seed)
    guest.tree.check()
    if kind == "overlay":
        assert _everything(lower) == before, "the lower layer was changed"
    guest.close()


def _restore_links(source: Path, copy: Path) -> None:
    """copytree copies hard links as files: link them again."""
    first: dict[int, Path] = {}
    for path in sorted(source.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        number = path.stat().st_ino
        twin = copy / path.relative_to(source)
        if number in first:
            twin.unlink()
            os.link(first[number], twin)
        first[number] = twin


def _everything(directory: Path) -> list[tuple[str, int, bytes]]:
    found = []
    for path in sorted(directory.rglob("*")):
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found.append((str(path), path.lstat().st_mtime_ns, content))
    return found
