"""Memory system calls against the host's own: one program, run natively and on the real platform, prints the same."""

from __future__ import annotations

import difflib
import os
import pathlib
import subprocess

import pytest
from greenroom.platform.interface import EventKind
from memory_bench import Bench

_PROGRAMS = pathlib.Path(__file__).parent.parent / "programs"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, statically linked: it needs no other family of calls."""
    made = tmp_path_factory.mktemp("programs") / "memory_calls"
    subprocess.run(["gcc", "-O1", "-static", "-o", made, _PROGRAMS / "memory_calls.c"], check=True)
    return str(made)


def test_memory_calls_answer_as_natively(program: str, bench: Bench, tmp_path: pathlib.Path) -> None:
    """Results, errnos, contents and the splits and merges that /proc/self/maps shows."""
    data = tmp_path / "data"
    data.write_bytes(bytes(4 * 4096))
    native = subprocess.run([program, data], check=True, capture_output=True, text=True).stdout.splitlines()
    bench.load(program, [b"program", os.fsencode(data)], [])
    event = bench.run(bench.serve)
    ours = bench.output.decode().splitlines()
    assert "\n".join(difflib.unified_diff(native, ours, "native", "ours", lineterm="", n=1)) == ""
    assert (event.kind, event.args[0]) == (EventKind.SYSCALL, 0)
    bench.memory.vmas.check()
