"""Memory and execve of whole programs: in a sandbox they print what they print natively, line by line."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

_GREENROOM = Path(sys.executable).with_name("greenroom")
_SOURCES = Path(__file__).parent.parent / "programs"
#: Not below /tmp, where a sandbox sees its own files instead.
_COMPILED = Path(__file__).parent.parent.parent / "build" / "programs"
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_FLAGS = ("-O1", "-Wall", "-Wno-nonnull", "-Wno-stringop-overread", "-Wno-unused-result", "-pthread")


def _compile(name: str) -> Path:
    source = _SOURCES / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes() + " ".join(_FLAGS).encode()).hexdigest()[:16]
    path = _COMPILED / digest / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", *_FLAGS, "-o", path, source], check=True)
    return path


@pytest.mark.parametrize("name", ["conform_exec", "conform_mm"])
def test_program_prints_what_it_prints_natively(name: str, tmp_path: Path) -> None:
    program = _compile(name)
    native = _run([program], tmp_path)
    ours = _run([_GREENROOM, "run", "--cwd", "/tmp", "--", program], tmp_path)
    assert ours.stdout.splitlines() == native.stdout.splitlines()
    assert ours.stderr == native.stderr


def _run(argv: list[str | Path], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=directory, env=_ENVIRONMENT, timeout=60, check=True, text=True, capture_output=True)
