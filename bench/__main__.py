"""``make bench``: the price of a sandbox, next to native and to what users would pick instead.

Each operation is timed inside the guest by ``programs/calls.c``: a runner's start-up is only in its own row.  Runners
take turns, round after round, and the table shows medians: what else the machine does meanwhile hits all of them.
strace -f and proot also work by ptrace; runsc is gVisor.  Those that are not installed are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

_ROOT = Path(__file__).resolve().parent.parent
_BUILD = _ROOT / "build" / "bench"
_GREENROOM = str(Path(sys.executable).with_name("greenroom"))
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
#: Seconds that one measurement may take.
_TIMEOUT = 120


@dataclasses.dataclass(frozen=True)
class Runner:
    """A way to run a program; *argv* comes before the program's own."""

    name: str
    argv: tuple[str, ...]

    def start(self, program: list[str], directory: str) -> tuple[str, float]:
        """Run *program*; return what it says and the seconds that passed. CalledProcessError, TimeoutExpired."""
        begin = time.monotonic()
        done = subprocess.run(
            [*self.argv, *program],
            capture_output=True,
            check=True,
            cwd=directory,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_TIMEOUT,
        )
        return done.stdout, time.monotonic() - begin


@dataclasses.dataclass(frozen=True)
class Operation:
    """A row of the table."""

    name: str
    #: Arguments of ``calls``; empty: the start of the runner itself is timed, from outside.
    arguments: tuple[str, ...]
    #: Operations in one measurement, natively and elsewhere.
    native_count: int = 1
    count: int = 1


def _operations(calls: str) -> list[Operation]:
    return [
        Operation("getppid", ("getppid",), 200_000, 5_000),
        Operation("pipe write + read", ("pipe",), 100_000, 3_000),
        Operation("pipe ping-pong", ("ping-pong",), 20_000, 1_000),
        Operation("pread 4 KiB", ("read",), 100_000, 3_000),
        Operation("pwrite 4 KiB", ("write",), 100_000, 3_000),
        Operation("stat", ("stat",), 100_000, 1_000),
        Operation("open + close", ("open+close",), 50_000, 1_000),
        Operation("fork + wait", ("fork",), 500, 50),
        Operation("fork + exec", ("spawn", calls), 300, 30),
        Operation("python3 -c pass", ("spawn", "/usr/bin/python3", "-c", "pass"), 10, 5),
        Operation("start of /bin/true", ()),
    ]


def _runners() -> list[Runner]:
    # A sandbox has a /tmp of its own, below which the checkout may be: what is compiled there is shown to it.
    sandbox = (_GREENROOM, "run", "--cwd", "/tmp", "--bind", f"{_BUILD}:{_BUILD}:ro")
    found = [
        Runner("native", ()),
        Runner("greenroom", (*sandbox, "--placement", "colocated", "--")),
        Runner("greenroom split", (*sandbox, "--placement", "split", "--")),
    ]
    others = {
        "proot": ("proot",),
        "strace -f": ("strace", "-f", "-o", "/dev/null"),
        "runsc": ("runsc", "--rootless", "--network=none", "do"),
    }
    return found + [Runner(name, argv) for name, argv in others.items() if shutil.which(argv[0])]


def _compile() -> str:
    path = _BUILD / "calls"
    _BUILD.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O2", "-Wall", "-o", path, _ROOT / "bench" / "programs" / "calls.c"], check=True)
    return str(path)


def _measure(runner: Runner, operation: Operation, calls: str, directory: str) -> float | None:
    """Return nanoseconds for one operation, None when the runner cannot do it."""
    if operation.arguments:
        name, *rest = operation.arguments
        count = operation.native_count if runner.name == "native" else operation.count
        program = [calls, name, str(count), *rest]
    else:
        program = ["/bin/true"]
    try:
        said, seconds = runner.start(program, directory)
    except (subprocess.SubprocessError, OSError):
        return None
    return float(said) if operation.arguments else seconds * 1e9


def _measure_all(
    runners: list[Runner], operations: list[Operation], rounds: int, calls: str
) -> dict[str, dict[str, float]]:
    """Return the median of each operation by runner, in nanoseconds."""
    samples: dict[str, dict[str, list[float]]] = {o.name: {r.name: [] for r in runners} for o in operations}
    with tempfile.TemporaryDirectory() as directory, Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("measuring", total=rounds * len(operations) * len(runners))
        for _ in range(rounds):
            for operation in operations:
                for runner in runners:
                    sample = _measure(runner, operation, calls, directory)
                    if sample is not None:
                        samples[operation.name][runner.name].append(sample)
                    progress.advance(bar)
    return {
        name: {runner: statistics.median(values) for runner, values in row.items() if values}
        for name, row in samples.items()
    }


def _proportional_kib(pid: int) -> int:
    """Return the proportional set size of a process and all below it."""
    total = 0
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            total += sum(_proportional_kib(int(child)) for child in file.read().split())
    except (OSError, StopIteration):
        pass
    return total


def _measure_memory(runner: Runner) -> int:
    """Return the proportional KiB of a sandbox with one idle shell in it."""
    command = [*runner.argv, "/bin/sh", "-c", "echo ready; read x"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_ENVIRONMENT) as run:
        assert run.stdout is not None
        run.stdout.readline()
        kib = _proportional_kib(run.pid)
        run.communicate(b"\n")
    return kib


def _print(results: dict[str, dict[str, float]], memory: dict[str, int], runners: list[Runner]) -> None:
    table = Table(title="median time of one operation, and its ratio to native", caption_justify="left")
    table.add_column("operation", no_wrap=True)
    for runner in runners:
        table.add_column(runner.name, justify="right")
    for name, row in results.items():
        table.add_row(name, *(_cell(row, runner.name) for runner in runners))
    table.add_section()
    table.add_row("memory of an idle shell", *(f"{memory[r.name] / 1024:.1f} MiB" for r in runners))
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)


def _cell(row: dict[str, float], runner: str) -> str:
    if runner not in row:
        return "-"
    text = _duration(row[runner])
    return text if runner == "native" or "native" not in row else f"{text} {row[runner] / row['native']:5.1f}x"


def _duration(ns: float) -> str:
    return f"{ns / 1e6:.1f} ms" if ns >= 1e6 else f"{ns / 1e3:.2f} us"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each operation by each runner")
    parser.add_argument("--only", default="", help="only operations whose name contains this")
    parser.add_argument("--json", default="", metavar="FILE", help="write medians in ns and memory in KiB to FILE")
    arguments = parser.parse_args()
    calls, runners = _compile(), _runners()
    operations = [o for o in _operations(calls) if arguments.only in o.name]
    results = _measure_all(runners, operations, arguments.rounds, calls)
    memory = {runner.name: _measure_memory(runner) for runner in runners}
    _print(results, memory, runners)
    if arguments.json:
        machine = {"cpus": os.cpu_count(), "kernel": os.uname().release, "python": sys.version.split()[0]}
        report = {"machine": machine, "median_ns": results, "idle_shell_pss_kib": memory}
        Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
