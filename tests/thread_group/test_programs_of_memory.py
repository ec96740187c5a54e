"""Memory and execve of whole programs: in a sandbox they print what they print natively, line by line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest_programs import AS_CALLER, compiled

if TYPE_CHECKING:
    from greenroom.platform.ptrace.platform import PtracePlatform

_GREENROOM = Path(sys.executable).with_name("greenroom")
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


@pytest.mark.parametrize("name", ["conform_exec", "conform_mm", "mappings_random"])
def test_program_prints_what_it_prints_natively(name: str, make_platform: type[PtracePlatform], tmp_path: Path) -> None:
    program = compiled(name)
    native = _run([program], tmp_path)
    options = ("--platform", make_platform.name, *AS_CALLER)
    ours = _run([_GREENROOM, "run", "--cwd", "/tmp", *options, "--", program], tmp_path)
    # A CPU with protection keys has memory that can be executed and not read. The one that a sandbox shows has none.
    expected = native.stdout.replace("read executable: signal 11 code 4 address right", "read executable: ok")
    assert ours.stdout.splitlines() == expected.splitlines()
    assert ours.stderr == native.stderr


def _run(argv: list[str | Path], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=directory, env=_ENVIRONMENT, timeout=60, check=True, text=True, capture_output=True)
