"""``make bench``: measure, show, keep, compare."""

from __future__ import annotations

import datetime as dt
import secrets
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .comparison import THRESHOLD, compare
from .document import BadDocument, Document, RowInfo, SystemInfo
from .fixtures import Fixtures
from .machine import describe
from .measures import Budget
from .processes import become_subreaper
from .rounds import measure
from .rows import ROWS, select
from .systems import KNOWN_NAMES, select_systems
from .tables import print_changes, print_results, write_markdown

_FULL = Budget(call_us=40_000, idle=(1, 10, 100), throughput=60)
_QUICK_ROUNDS, _FULL_ROUNDS = 3, 7
#: Seconds after which nothing more is measured; making the fixtures and the pictures is not in it.
_QUICK_S, _FULL_S = 150.0, 660.0
#: Columns of a table that goes to a file.
_FILE_WIDTH = 150
_STATUS_REGRESSION = 1


def _read(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Document | None:
    """Read a document at once: a mistake should not cost a run."""
    try:
        return Document.read(value) if value else None
    except BadDocument as error:
        raise click.BadParameter(str(error)) from None


def _names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name for name in value.split(",") if name)


_OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)
_INPUT = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rows", is_flag=True, help="List the rows and end.")
@click.option("--only", default="", metavar="PATTERN", help="Only rows whose GROUP/NAME contains PATTERN.")
@click.option("--full/--quick", default=False, show_default=True, help="All rows, more rounds: up to 12 minutes, or 3.")
@click.option("--systems", default="", callback=_names, metavar="A,B", help=f"Some of {', '.join(KNOWN_NAMES)}.")
@click.option("--repeat", type=click.IntRange(1), metavar="N", help="Rounds at most.")
@click.option("--seconds", type=click.FloatRange(0), metavar="S", help="Start no measurement after S seconds.")
@click.option("--seed", type=int, help="For the order of rows and systems; drawn and printed otherwise.")
@click.option("--json", "json_path", type=_OUTPUT, metavar="OUT", help="Write every sample.")
@click.option("--markdown", "markdown_path", type=_OUTPUT, metavar="OUT", help="Write tables, below the file's mark.")
@click.option("--svg", "svg_path", type=_OUTPUT, metavar="OUT", help="Draw a picture.")
@click.option("--compare", "old", type=_INPUT, callback=_read, metavar="OLD.json", help="Exit with 1 on a regression.")
@click.option("--threshold", default=THRESHOLD, show_default=True, help="Part by which a ratio must grow for that.")
@click.option("--from", "given", type=_INPUT, callback=_read, metavar="OLD.json", help="Show this, measure nothing.")
def main(
    *,
    rows: bool,
    only: str,
    full: bool,
    systems: tuple[str, ...],
    repeat: int | None,
    seconds: float | None,
    seed: int | None,
    json_path: Path | None,
    markdown_path: Path | None,
    svg_path: Path | None,
    old: Document | None,
    threshold: float,
    given: Document | None,
) -> None:
    """Measure what sandboxes cost, next to native and to what users would pick instead.

    Native is always measured. What --compare takes for a regression is in bench/comparison.py.
    """
    if rows:
        for row in ROWS:
            click.echo(row.key + ("  (full)" if row.full else ""))
        return
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    if svg_path:
        from .plot import write_svg  # before the measuring: is matplotlib there?
    document = given or _run(only, systems, seed, repeat, seconds, full=full)
    print_results(document, console)
    if json_path:
        document.write(json_path)
    if svg_path:
        write_svg(document, svg_path)
    if markdown_path:
        write_markdown(document, markdown_path, svg_path.name if svg_path else "")
    if old:
        changes = compare(old, document, threshold)
        print_changes(changes, console)
        if any(change.verdict == "regression" for change in changes):
            sys.exit(_STATUS_REGRESSION)


def _run(
    only: str, names: tuple[str, ...], seed: int | None, repeat: int | None, seconds: float | None, *, full: bool
) -> Document:
    rows = select(only, full=full)
    if not rows:
        raise click.BadParameter(f"no row contains {only!r}; --rows lists them", param_hint="--only")
    become_subreaper()
    try:
        systems = select_systems(names)
    except KeyError as error:
        raise click.BadParameter(f"there is no system {error}", param_hint="--systems") from None
    document = Document(
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        mode="full" if full else "quick",
        seed=secrets.randbelow(1 << 32) if seed is None else seed,
        rounds=repeat or (_FULL_ROUNDS if full else _QUICK_ROUNDS),
        machine=describe(),
        systems=[SystemInfo(s.name, s.title, s.version, s.unavailable) for s in systems],
        rows=[RowInfo(row.key, row.group, row.name, row.unit) for row in rows],
    )
    click.echo(f"seed {document.seed}, {len(rows)} rows, at most {document.rounds} rounds", err=True)
    for system in systems:
        if system.unavailable:
            click.echo(f"{system.title} is left out: {system.unavailable}", err=True)
    limit_s = seconds if seconds is not None else _FULL_S if full else _QUICK_S
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress, Fixtures() as fixtures:
        bar = progress.add_task("", total=document.rounds)

        def show(number: int, text: str) -> None:
            progress.update(bar, completed=number, description=f"round {number + 1}, {text}")

        measure(document, rows, systems, fixtures, _FULL if full else Budget(), limit_s=limit_s, progress=show)
    return document


if __name__ == "__main__":
    main()
