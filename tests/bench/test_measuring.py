"""What is measured is what runs: the guest's agent, the programs beside it, and a run of the benchmark to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from greenroom.bench.agent import Agent
from greenroom.bench.document import Document
from greenroom.bench.fixtures import Fixtures
from greenroom.bench.measures import Budget, FromOutside, Growth, InGuest, Messages, Session
from greenroom.bench.processes import Failure, Program, descendants, proportional_bytes, run
from greenroom.bench.rounds import measure
from greenroom.bench.rows import GROWTH_KINDS, ROWS, Row
from greenroom.bench.systems import NATIVE, RUNTIME, System, select_systems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SHORT = Budget(call_us=500, program_us=500, idle=(1, 2), throughput=3)
_NATIVE = System(NATIVE, "native")


@pytest.fixture(scope="module")
def fixtures() -> Iterator[Fixtures]:
    with Fixtures() as made:
        yield made


@pytest.fixture
def native(fixtures: Fixtures) -> Iterator[Session]:
    session = Session(_NATIVE, fixtures, _SHORT)
    yield session
    session.close()


@pytest.mark.parametrize("row", [row for row in ROWS if isinstance(row.measure, InGuest)], ids=lambda row: row.key)
def test_operation_of_the_guest_works_natively(row: Row, native: Session) -> None:
    assert 0 < row.measure.sample(native, 60) < 60
    # What it has made it has removed, so it works again.
    assert row.measure.sample(native, 60) > 0


@pytest.mark.parametrize("kind", GROWTH_KINDS)
def test_many_of_a_kind_are_made_and_removed(kind: str, native: Session) -> None:
    assert Growth(kind, 100).sample(native, 60) > 0
    assert Growth(kind, 100).sample(native, 60) > 0


@pytest.mark.parametrize("operation", ["tell", "ask"])
@pytest.mark.parametrize("placement", ["colocated", "split"])
def test_messages_are_counted(operation: str, placement: str, native: Session) -> None:
    assert Messages(operation, placement, 100).sample(native, 60) > 0


def test_idle_sandboxes_are_there_while_measured(native: Session) -> None:
    found = native.idle_bytes(60)
    assert sorted(found) == [1, 2]
    assert 0 < found[1] < found[2]


def test_unknown_operation_is_a_failure(native: Session) -> None:
    with pytest.raises(Failure, match="no such operation"):
        native.guest().ask("nonsense", 10)


@pytest.mark.parametrize("operation", ["spawn", "vfork-exec"])
def test_a_program_that_fails_is_a_failure(operation: str, native: Session) -> None:
    with pytest.raises(Failure, match="exit status"):
        InGuest(operation, ("/bin/false",)).sample(native, 10)


def test_the_last_complaint_is_the_reason(native: Session) -> None:
    with pytest.raises(Failure, match="it is broken"):
        FromOutside(("/bin/sh", "-c", "echo it is broken >&2; exit 3")).sample(native, 10)


def test_a_clock_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    """It says that a second has passed where there was none."""
    liar = "import json; print('{}', flush=True); input(); print(json.dumps({'ns': 1, 'elapsed_ns': 1e9}), flush=True)"
    agent = Agent([sys.executable, "-c", liar], str(tmp_path))
    try:
        with pytest.raises(Failure, match=r"its clock says 1\.000 s"):
            agent.ask("anything", 10)
    finally:
        agent.close()


def test_time_limit_ends_a_program_and_its_children(tmp_path: Path) -> None:
    script = "sleep 1000 & echo $! > child; sleep 1000"
    with pytest.raises(Failure, match="took more than 1 s") as caught:
        run(["/bin/sh", "-c", script], str(tmp_path), 1)
    assert caught.value.final
    child = int((tmp_path / "child").read_text())
    assert not os.path.exists(f"/proc/{child}")


def test_what_programs_leave_behind_ends_with_the_last_of_them(tmp_path: Path) -> None:
    """In a process of its own, which becomes a subreaper."""
    script = """
        import os, sys
        from greenroom.bench.processes import Program, become_subreaper, run
        become_subreaper()
        with Program(["/bin/cat"], sys.argv[1], talk=True):
            run(["/bin/sh", "-c", "sleep 1000 & echo $! > left"], sys.argv[1], 10)
            left = "/proc/" + open(sys.argv[1] + "/left").read().strip()
            print(os.path.exists(left))
        print(os.path.exists(left))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, cwd="/", check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True", "False"]


def test_a_program_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="No such file"):
        Program(["/nonexistent"], str(tmp_path), talk=False)


def test_memory_is_that_of_the_whole_family(tmp_path: Path) -> None:
    with Program(["/bin/sh", "-c", "cat | cat"], str(tmp_path), talk=True) as program:
        while len(descendants(program.process.pid)) < 2:
            os.sched_yield()
        alone = proportional_bytes(descendants(program.process.pid)[0])
        assert proportional_bytes(program.process.pid) > alone > 0


def empty_document(rounds: int) -> Document:
    return Document(date="", mode="quick", seed=3, rounds=rounds, machine={}, systems=[], rows=[])


def test_rounds_are_complete_and_errors_are_noted(fixtures: Fixtures) -> None:
    rows = [
        Row("micro", "getppid", InGuest("getppid")),
        Row("micro", "broken", InGuest("nonsense")),
        Row("macro", "slow", FromOutside(("/bin/sleep", "100")), timeout_s=0.2),
        Row("macro", "once", FromOutside(("/bin/true",)), rounds=1),
        Row("messages", "ask", Messages("ask", "colocated", 10), systems=(RUNTIME,)),
    ]
    made = empty_document(2)
    measure(made, rows, [_NATIVE, System(RUNTIME, ""), System("x", "", unavailable="no")], fixtures, _SHORT, limit_s=60)
    assert sorted(made.values("micro/getppid", NATIVE)) == [0, 1]
    assert [number for number, _ in made.errors["micro/broken"][NATIVE]] == [0, 1]
    # There is no point in a second try of what took too long.
    assert made.errors["macro/slow"][NATIVE] == [(0, "took more than 0.2 s")]
    assert list(made.values("macro/once", NATIVE)) == [0]
    assert list(made.samples["messages/ask"]) == [RUNTIME]
    assert made.complete


def test_nothing_is_measured_past_the_time_limit(fixtures: Fixtures) -> None:
    made = empty_document(5)
    measure(made, [Row("macro", "a", FromOutside(("/bin/true",)))], [_NATIVE], fixtures, _SHORT, limit_s=0)
    assert made.samples == {}
    assert not made.complete


def test_what_a_failed_row_leaves_is_not_in_the_way_of_others(fixtures: Fixtures) -> None:
    made = empty_document(2)
    leaves = Row("macro", "leaves", FromOutside(("/bin/sh", "-c", "mkdir entries; exit 1")))
    measure(made, [leaves, Row("growth", "entries", Growth("entries", 3))], [_NATIVE], fixtures, _SHORT, limit_s=60)
    assert len(made.errors["macro/leaves"][NATIVE]) == 2
    assert len(made.values("growth/entries", NATIVE)) == 2


def test_order_is_drawn_from_the_seed(fixtures: Fixtures) -> None:
    def order() -> list[str]:
        seen: list[str] = []
        rows = [Row("macro", str(number), FromOutside(("/bin/true",))) for number in range(8)]
        told = lambda _number, text: seen.append(text)  # noqa: E731
        measure(empty_document(1), rows, [_NATIVE], fixtures, _SHORT, limit_s=60, progress=told)
        return seen

    first = order()
    assert first == order()
    assert first != sorted(first)


def test_unknown_system_is_refused() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        select_systems(("nonsense",))


def test_a_system_that_cannot_run_is_shown_with_the_reason() -> None:
    systems = {system.name: system for system in select_systems(("sandlock", "proot"))}
    assert {NATIVE, RUNTIME, "sandlock", "proot"} == set(systems)
    assert systems[NATIVE].unavailable == ""
    for name in ("sandlock", "proot"):
        assert systems[name].prefix or systems[name].unavailable == "not installed: run make peers"


def bench(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "greenroom.bench", *arguments]
    return subprocess.run(command, cwd=directory, check=False, capture_output=True, text=True, timeout=110)


def test_a_short_run_from_end_to_end(tmp_path: Path) -> None:
    """One row, natively and in a sandbox: table, JSON, Markdown, and the comparison with an earlier run."""
    common = ("--only", "getppid", "--systems", "native,ptrace", "--repeat", "3", "--seed", "7")
    done = bench(tmp_path, *common, "--json", "new.json", "--markdown", "new.md")
    assert done.returncode == 0, done.stderr
    assert "seed 7" in done.stderr
    found = json.loads((tmp_path / "new.json").read_text())
    cells = found["samples"]["micro/getppid"]
    assert {name: len(cell) for name, cell in cells.items()} == {"native": 3, "ptrace": 3}
    assert min(cells["ptrace"])[1] > max(cells["native"])[1]
    assert found["errors"] == {}
    assert "| getppid |" in (tmp_path / "new.md").read_text()
    assert os.uname().nodename not in json.dumps(found["machine"])

    cells["ptrace"] = [[number, value / 100] for number, value in cells["ptrace"]]
    (tmp_path / "old.json").write_text(json.dumps(found))
    worse = bench(tmp_path, "--from", "new.json", "--compare", "old.json")
    assert worse.returncode == 1
    assert "1 regressions" in worse.stdout
    better = bench(tmp_path, "--from", "old.json", "--compare", "new.json")
    assert better.returncode == 0
    assert "1 improvements" in better.stdout


def test_mistakes_are_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    for arguments, complaint in [
        (("--only", "nonsense"), "no row contains"),
        (("--systems", "nonsense"), "there is no system"),
        (("--compare", "bad.json"), "is not a document"),
    ]:
        done = bench(tmp_path, *arguments)
        assert done.returncode == 2
        assert complaint in done.stderr
