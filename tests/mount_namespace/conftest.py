"""Fixtures of the MountNamespace tests: the kinds of tree that the operations run on."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sides import Guest, spec

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def native_root() -> Iterator[Path]:
    """A directory for the native side, in memory where the host has such: thousands of files are made there."""
    shared_memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(dir=shared_memory if shared_memory.is_dir() else None))
    root.chmod(0o755)
    yield root
    shutil.rmtree(root)


@pytest.fixture(params=["tmpfs", "overlay", "bind"])
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guest]:
    """An empty writable root of each kind; its invariants are checked at the end."""
    lower = tmp_path / "lower"
    lower.mkdir()
    source = "" if request.param == "tmpfs" else str(lower)
    made = Guest(spec(request.param, "/", source))
    made.chmod(b"/", 0o755)
    yield made
    made.tree.check()
    made.close()
