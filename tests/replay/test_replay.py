"""A trace replays: the same frames, the same host calls, the same final state, with no host and no tracee."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from greenroom.messages.trace import BadTrace, RecordKind, TraceRecord, pack_block, read_trace
from greenroom.supervisor.errors import TraceError
from greenroom.supervisor.traces import replay_trace, trace_lines
from record import GOLDEN, HERE, record

if TYPE_CHECKING:
    import pathlib

PROCESSES = {"colocated": {"sandbox"}, "split": {"kernel", "worker:0"}}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_trace_replays(name: str) -> None:
    """What was recorded once is what the actors still do; if that is meant to change, run ``make golden``."""
    with (HERE / f"{name}.grt").open("rb") as file:
        reports = replay_trace(file)
    assert {r.process for r in reports} == PROCESSES[GOLDEN[name][0]]
    assert all(r.frames_sent > 10 and r.host_calls > 10 and r.actors for r in reports)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_fresh_trace_replays(name: str, tmp_path: pathlib.Path) -> None:
    """Recorded now, on this machine, it replays as well."""
    file = tmp_path / "trace"
    expected = {"pipeline": 3, "files": 0, "python": 0}
    assert record(name, file) == expected[name]
    with file.open("rb") as trace:
        assert {r.process for r in replay_trace(trace)} == PROCESSES[GOLDEN[name][0]]


def test_replay_starts_no_process_and_does_not_look_at_its_cpu(tmp_path: pathlib.Path) -> None:
    """A replay forks nothing, traces nothing and is the same on every CPU: it passes where all that is forbidden."""
    program = (
        "import os, sys, greenroom.platform.x86_64.instructions as cpu\n"
        "def forbidden(*_): raise SystemExit('a replay started a process, or looked at its CPU')\n"
        "os.fork = os.posix_spawn = os.execve = cpu.cpuid = cpu.xgetbv = forbidden\n"
        "import greenroom.supervisor.traces as traces\n"
        f"sys.exit(len(traces.replay_trace(open({str(HERE / 'pipeline.grt')!r}, 'rb'))) - 1)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


def golden_records() -> list[TraceRecord]:
    """Return the records of the smallest golden trace."""
    with (HERE / "pipeline.grt").open("rb") as file:
        return list(read_trace(file))


def write(path: pathlib.Path, records: list[TraceRecord]) -> None:
    """Write records as a trace of one block each, as a recorder that flushes often would."""
    import msgpack

    with path.open("wb") as file:
        for record_ in records:
            file.write(pack_block(record_.process, [msgpack.packb((int(record_.kind), *record_.values))]))


def test_a_changed_host_answer_is_noticed(tmp_path: pathlib.Path) -> None:
    """If the clock had said something else, the actors would do something else: the replay names the record."""
    records = golden_records()
    calls = [i for i, r in enumerate(records) if r.kind is RecordKind.CALL]
    index = next(i for i in calls if records[i].values[:2] == ["platform", "poll"] and records[i].values[3][1])
    event = records[index].values[3][1][0]
    event[2] = 999_999  # a system call number that nobody knows
    write(tmp_path / "changed", records)
    with (tmp_path / "changed").open("rb") as file, pytest.raises(TraceError, match=r"went another way.*record"):
        replay_trace(file)


def test_a_missing_record_is_noticed(tmp_path: pathlib.Path) -> None:
    """Leaving out any one frame that was sent is a difference."""
    records = golden_records()
    index = [i for i, r in enumerate(records) if r.kind is RecordKind.SENT][20]
    write(tmp_path / "cut", records[:index] + records[index + 1 :])
    with (tmp_path / "cut").open("rb") as file, pytest.raises(TraceError, match="went another way"):
        replay_trace(file)


@pytest.mark.parametrize("keep", [1, 5, 9, 100, -1])
def test_a_truncated_file_is_refused(keep: int, tmp_path: pathlib.Path) -> None:
    """A cut-off trace says so; it is not replayed halfway."""
    data = (HERE / "pipeline.grt").read_bytes()[:keep]
    (tmp_path / "cut").write_bytes(data)
    with (tmp_path / "cut").open("rb") as file, pytest.raises(TraceError, match=r"cut off|damaged|no trace"):
        replay_trace(file)


def test_flipped_bytes_are_refused_or_harmless(tmp_path: pathlib.Path) -> None:
    """No damaged byte makes the reader raise anything but BadTrace."""
    data = bytearray((HERE / "pipeline.grt").read_bytes())
    for position in range(0, len(data), 997):
        damaged = data.copy()
        damaged[position] ^= 0xFF
        path = tmp_path / "damaged"
        path.write_bytes(damaged)
        with path.open("rb") as file:
            try:
                list(read_trace(file))
            except BadTrace:
                continue


def test_show_names_frames_and_calls() -> None:
    """``trace show`` has a line for each record, readable."""
    with (HERE / "pipeline.grt").open("rb") as file:
        lines = list(trace_lines(file))
    assert any("supervisor -> kernel" in line and "InitKernel" in line for line in lines)
    assert any("call  platform.poll(" in line for line in lines)
