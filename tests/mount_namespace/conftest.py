"""Fixtures of the MountNamespace tests: the kinds of tree that the operations run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sides import Guest, spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
