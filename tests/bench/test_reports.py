"""Documents survive being written, and tables say what they hold and what they lack."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
from documents import document, noisy
from greenroom.bench.cells import figure, notes, text
from greenroom.bench.document import BadDocument, Document
from greenroom.bench.plot import growth_points, write_svg
from greenroom.bench.tables import MARK, print_results, write_markdown
from greenroom.bench.targets import TARGETS, judge, slower_than
from rich.console import Console

if TYPE_CHECKING:
    from pathlib import Path

_ROW = "micro/getppid"
_RESULTS = {
    _ROW: {"native": [1e-7] * 3, "notify": [8e-6] * 3, "ptrace": [16e-6] * 3, "runsc": [5e-5] * 3},
    "micro/stat": {"native": [1e-6] * 3, "notify": [5e-5] * 3, "runsc": [2e-5] * 3},
    "start-up/sandboxes per second, four at a time": {"native": [2000.0], "notify": [120.0], "runsc": [20.0]},
}
_UNITS = {"start-up/sandboxes per second, four at a time": "1/s"}


def test_document_survives_a_file(tmp_path: Path) -> None:
    made = document(_RESULTS, _UNITS)
    made.add_error("micro/stat", "ptrace", 1, "took more than 20 s")
    made.write(tmp_path / "a.json")
    assert Document.read(tmp_path / "a.json") == made


def test_document_names_its_schema(tmp_path: Path) -> None:
    document(_RESULTS).write(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["schema"] == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("no JSON", "is not a document"),
        ("[]", "is not a document"),
        ('{"schema": 2}', "version 2"),
        ('{"schema": 1, "rows": []}', "lacks a field"),
    ],
)
def test_what_is_no_document_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(BadDocument, match=complaint):
        Document.read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1.234e-7, "s", "123 ns"),
        (9.996e-7, "s", "1.00 us"),
        (1.5e-5, "s", "15.0 us"),
        (0.0123, "s", "12.3 ms"),
        (61.0, "s", "61.0 s"),
        (12.34e6, "bytes", "12.3 MB"),
        (12345.6, "1/s", "12,346 /s"),
        (9.5, "1/s", "9.50 /s"),
    ],
)
def test_figures_have_three_digits(value: float, unit: str, expected: str) -> None:
    assert figure(value, unit) == expected


def test_cell_has_median_and_ratio() -> None:
    made = document(_RESULTS, _UNITS)
    assert text(made, made.rows[0], "notify") == ("8.00 us", "80.0x ±0%")
    assert text(made, made.rows[0], "native") == ("100 ns", "")
    assert text(made, made.rows[0], "proot") == ("", "")


def test_one_round_knows_nothing_of_its_noise() -> None:
    made = document({_ROW: {"native": [1e-7], "notify": [8e-6]}})
    assert text(made, made.rows[0], "notify") == ("8.00 us", "80.0x")


def test_ratio_of_a_rate_is_that_of_costs() -> None:
    made = document(_RESULTS, _UNITS)
    assert text(made, made.rows[2], "runsc") == ("20.0 /s", "100x")


def test_empty_cells_are_explained() -> None:
    made = document(_RESULTS)
    made.add_error("micro/stat", "ptrace", 0, "took more than 20 s")
    made.add_error(_ROW, "notify", 2, "ended without an answer")
    assert notes(made) == [
        "proot: not installed: run make peers",
        "greenroom notify: ended without an answer: micro/getppid (in some rounds)",
        "greenroom ptrace: took more than 20 s: micro/stat",
    ]


def test_cells_that_were_not_reached_are_explained() -> None:
    made = document(_RESULTS)
    made.complete = False
    assert any("was not reached" in note for note in notes(made))


def test_targets_are_judged() -> None:
    verdicts = {(v.target.row, v.target.base): v for v in judge(document(_RESULTS, _UNITS))}
    assert verdicts[_ROW, ""].met is True
    assert verdicts[_ROW, "ptrace"].measured == pytest.approx(0.5)
    assert verdicts["micro/stat", ""].met is False
    assert verdicts["start-up/sandboxes per second, four at a time", ""].met is True
    assert verdicts["memory/each further one", ""].met is None
    assert len(verdicts) == len(TARGETS)


def test_rivals_are_compared_row_by_row() -> None:
    made = document(_RESULTS, _UNITS)
    assert slower_than(made, "notify", "runsc") == ["micro/stat"]
    assert slower_than(made, "notify", "proot") is None


def test_terminal_shows_everything(capsys: pytest.CaptureFixture[str]) -> None:
    print_results(document(_RESULTS, _UNITS), Console(width=200))
    printed = capsys.readouterr().out
    assert all(part in printed for part in ("getppid", "8.00 us", "80.0x", "120 /s", "not installed: run make peers"))
    assert "better than runsc on every row: no, not in micro/stat" in printed


def test_markdown_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text(f"# By hand\n\n{MARK}\nold figures\n")
    write_markdown(document(_RESULTS, _UNITS), path, "a.svg")
    written = path.read_text()
    assert written.startswith(f"# By hand\n\n{MARK}\n")
    assert "old figures" not in written
    assert "| getppid | 100 ns | 8.00 us<br>80.0x ±0% |" in written
    assert "(a.svg)" in written
    write_markdown(document(_RESULTS, _UNITS), path, "a.svg")
    assert path.read_text() == written


def test_growth_is_found_by_count() -> None:
    made = document(
        {
            "growth/threads, 10": {"native": [1e-5]},
            "growth/threads, 100": {"native": [1e-5]},
            "growth/threads, 1,000": {"native": [2e-5, 4e-5]},
        }
    )
    assert growth_points(made, "threads", "native") == [(10, 1e-5), (100, 1e-5), (1000, pytest.approx(3e-5))]


def test_plot_is_a_picture_and_always_the_same(tmp_path: Path) -> None:
    made = noisy(1, 5, 3)
    write_svg(made, tmp_path / "a.svg")
    write_svg(made, tmp_path / "b.svg")
    assert ET.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")  # noqa: S314  # our own
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
