"""Results as tables: on a terminal, and as Markdown for ``bench/RESULTS.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .cells import figure, notes, shown_systems, text
from .rows import GROUPS
from .targets import RIVALS, SUBJECT, judge, slower_than

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from .comparison import Change
    from .document import Document, RowInfo, SystemInfo
    from .targets import Verdict

__all__ = ["MARK", "print_changes", "print_results", "write_markdown"]

#: Everything above this line of a Markdown file was written by hand and stays.
MARK = '<!-- Below, everything is written by `make bench ARGS="--markdown FILE"`. -->'

_EMPTY = "-"


# -- the terminal --------------------------------------------------------------------------------------------------


def print_results(document: Document, console: Console) -> None:
    """Print a table for each group, what is to be said about them, and the targets."""
    for group, title in GROUPS.items():
        rows = [row for row in document.rows if row.group == group]
        if rows:
            console.print(_table(document, group, title, rows))
    for note in notes(document):
        console.print(f"- {note}", style="dim", highlight=False, markup=False)
    _print_targets(document, console)


def _table(document: Document, group: str, title: str, rows: list[RowInfo]) -> Table:
    table = Table(title=f"{group}: {title}", title_justify="left")
    table.add_column(group, no_wrap=True)
    systems = shown_systems(document, group)
    for system in systems:
        table.add_column(system.title, justify="right")
    for row in rows:
        table.add_row(row.name, *("\n".join(part for part in _cell(document, row, s) if part) for s in systems))
    return table


def _cell(document: Document, row: RowInfo, system: SystemInfo) -> tuple[str, str]:
    median, relation = text(document, row, system.name)
    return median or _EMPTY, relation.partition(" ")[0]


def _print_targets(document: Document, console: Console) -> None:
    table = Table("target", "limit", "measured", "met", title=f"greenroom {SUBJECT} has to reach", title_justify="left")
    verdicts = [verdict for verdict in judge(document) if any(row.key == verdict.target.row for row in document.rows)]
    for verdict in verdicts:
        table.add_row(*_target_texts(verdict))
    if verdicts:
        console.print(table)
    for rival in RIVALS:
        console.print(_rivalry_text(document, rival), highlight=False, markup=False)


def print_changes(changes: list[Change], console: Console) -> None:
    """Print what has changed beyond noise."""
    table = Table("row", "system", "new / old", "score", "worse samples", "verdict")
    changed = [change for change in changes if change.verdict != "same"]
    for change in changed:
        figures = (f"{change.factor:.2f}", f"{change.score:.1f}", f"{change.superiority:.0%}")
        table.add_row(change.row, change.system, *figures, change.verdict)
    if changed:
        console.print(table)
    regressions = sum(change.verdict == "regression" for change in changed)
    improvements = len(changed) - regressions
    console.print(f"{len(changes)} cells compared: {regressions} regressions, {improvements} improvements")


# -- targets -------------------------------------------------------------------------------------------------------


def _target_texts(verdict: Verdict) -> tuple[str, str, str, str]:
    target = verdict.target
    name = target.row if not target.base else f"{target.row}, of {target.base}'s"
    sign = "at least" if verdict.at_least else "at most"
    shown = _amount(verdict, verdict.measured) if verdict.measured is not None else verdict.reason
    return name, f"{sign} {_amount(verdict, target.limit)}", shown, {True: "yes", False: "no", None: "?"}[verdict.met]


def _amount(verdict: Verdict, value: float) -> str:
    return f"{value:.3g}x" if verdict.target.base else figure(value, verdict.unit)


def _rivalry_text(document: Document, rival: str) -> str:
    slower = slower_than(document, SUBJECT, rival)
    if slower is None:
        return f"better than {rival} on every row: ? (no row has both)"
    return f"better than {rival} on every row: " + (f"no, not in {'; '.join(slower)}" if slower else "yes")


# -- Markdown ------------------------------------------------------------------------------------------------------


def write_markdown(document: Document, path: Path, plot: str = "") -> None:
    """Write *path*; what it has above the mark stays. *plot*: the name of an SVG file to show."""
    head = ""
    if path.exists():
        head, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
        head = head if mark else ""
    path.write_text(head + MARK + "\n\n" + _markdown(document, plot), encoding="utf-8")


def _markdown(document: Document, plot: str) -> str:
    parts = [_conditions(document), _markdown_targets(document)]
    if plot:
        parts.append(f"![ratios to native, and cost as work grows]({plot})\n")
    for group, title in GROUPS.items():
        rows = [row for row in document.rows if row.group == group]
        if rows:
            parts.append(_markdown_group(document, group, title, rows))
    found = notes(document)
    if found:
        parts.append("## Empty cells\n\n" + "\n".join(f"* {note}" for note in found) + "\n")
    return "\n".join(parts)


def _conditions(document: Document) -> str:
    machine = document.machine
    kind = "virtual machine" if machine["virtual"] else "machine"
    who = "root" if machine["root"] else "an ordinary user"
    systems = ", ".join(f"{s.title} {s.version}" for s in document.systems if s.version and not s.unavailable)
    ended = "" if document.complete else ", ended by its time limit"
    where = f"a {kind} with {machine['cpus']} CPUs ({machine['processor']}), {machine['memory_gib']} GiB"
    what = f"{machine['distribution']}, Linux {machine['kernel']}, Python {machine['python']}"
    return (
        f"Measured on {document.date[:10]} by {who} on {where}, {what}; load {machine['load']} before.\n\n"
        f"A {document.mode} run: at most {document.rounds} rounds in {document.seconds:.0f} s{ended}, "
        f"seed {document.seed}. {systems}.\n"
    )


def _markdown_targets(document: Document) -> str:
    lines = ["## Targets", "", "| greenroom notify | limit | measured | met |", "|---|---:|---:|---|"]
    lines += [f"| {' | '.join(_target_texts(verdict))} |" for verdict in judge(document)]
    lines += ["", *(f"* {_rivalry_text(document, rival)}" for rival in RIVALS), ""]
    return "\n".join(lines)


def _markdown_group(document: Document, group: str, title: str, rows: list[RowInfo]) -> str:
    systems = shown_systems(document, group)
    lines = [f"## {group.capitalize()}", "", f"{title}.", "", f"| | {' | '.join(s.title for s in systems)} |"]
    lines.append("|---|" + "---:|" * len(systems))
    for row in rows:
        cells = ("<br>".join(part for part in text(document, row, s.name) if part) or _EMPTY for s in systems)
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
