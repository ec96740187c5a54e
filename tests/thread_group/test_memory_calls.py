"""Memory system calls against the host's own: one program, run natively and on the real platform, prints the same."""

from __future__ import annotations

import difflib
import os
import pathlib
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from greenroom.platform.interface import EventKind
from greenroom.platform.ptrace.platform import PtracePlatform
from memory_bench import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAMS = pathlib.Path(__file__).parent.parent / "programs"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, statically linked: it needs no other family of calls."""
    made = tmp_path_factory.mktemp("programs") / "memory_calls"
    subprocess.run(["gcc", "-O1", "-static", "-o", made, _PROGRAMS / "memory_calls.c"], check=True)
    return str(made)


@pytest.fixture
def bench() -> Iterator[Bench]:
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("a thread of pytest-xdist's takes SIGCHLD: run these tests without -n")
    platform = PtracePlatform()
    platform.start()
    try:
        yield Bench(platform)
    finally:
        platform.close()
        # The platform leaves it blocked in this thread, which programs started later would inherit.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


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
