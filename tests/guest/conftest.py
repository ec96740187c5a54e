"""Fixtures of the guest tests: both placements, and compiled guest programs."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("oracle")  # before its first import: failures in it show both sides

from oracle import PLACEMENTS  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

_SOURCES = Path(__file__).parent.parent / "programs"
#: Not below /tmp, where a sandbox sees its own files instead.
_COMPILED = Path(__file__).parent.parent.parent / "build" / "programs"
_WARNINGS = ("-Wall", "-Werror")
#: Bad arguments and endless recursion are what the programs are for.
_WANTED = ("-Wno-nonnull", "-Wno-stringop-overflow", "-Wno-stringop-overread", "-Wno-infinite-recursion")
_FLAGS = ("-O1", *_WARNINGS, *_WANTED, "-pthread")


@pytest.fixture(params=PLACEMENTS)
def placement(request: pytest.FixtureRequest) -> str:
    """Each placement in turn."""
    return str(request.param)


@pytest.fixture
def needs_root() -> None:
    """The native side of the test needs root, which the guest's side has in any case."""
    if os.geteuid() != 0:
        pytest.skip("the native side needs root")


@pytest.fixture(scope="session")
def program() -> Callable[..., str]:
    """Return a function that compiles ``tests/programs/NAME.c`` once for each content, and returns its path."""

    def compiled(name: str, *flags: str) -> str:
        source = _SOURCES / f"{name}.c"
        header = _SOURCES / "check.h"
        parts = (source.read_bytes(), header.read_bytes(), " ".join((*_FLAGS, *flags)).encode())
        digest = hashlib.sha256(b"".join(parts)).hexdigest()[:16]
        path = _COMPILED / digest / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}")
            subprocess.run(["gcc", *_FLAGS, *flags, "-o", unfinished, source], check=True)
            unfinished.replace(path)
        return str(path)

    return compiled
