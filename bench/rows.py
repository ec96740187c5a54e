"""What is measured: every row of the tables."""

from __future__ import annotations

import dataclasses
from typing import Literal

from .fixtures import PYTHON
from .measures import (
    FromOutside,
    Growth,
    Idle,
    IdleFurther,
    InGuest,
    Measure,
    Messages,
    Served,
    Throughput,
    WarmSandbox,
)
from .systems import GREENROOM_SYSTEMS, RUNTIME

__all__ = ["GROUPS", "GROWTH_COUNTS", "GROWTH_KINDS", "ROWS", "Row", "Unit", "select"]

Unit = Literal["s", "bytes", "1/s"]

#: Groups of rows, in the order of the tables, and what their figures are.
GROUPS = {
    "micro": "One operation of the kernel, in a loop, timed inside",
    "macro": "Whole programs, started by one that runs in the sandbox already and timed there",
    "start-up": "Start and end of the sandbox included, timed outside",
    "memory": "Proportional memory of sandboxes with an idle shell in each",
    "messages": "greenroom's own actors: messages per second",
    "growth": "Many of a kind are made, used and removed: the time for one of them",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the tables."""

    group: str
    name: str
    measure: Measure
    unit: Unit = "s"
    #: Rounds that take part; 0: all.
    rounds: int = 0
    #: Whether ``--quick`` leaves it out.
    full: bool = False
    timeout_s: float = 15.0
    #: Systems that it is for; (): all but greenroom's runtime without any sandbox.
    systems: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name in JSON and for ``--only``."""
        return f"{self.group}/{self.name}"

    def is_for(self, system: str) -> bool:
        """Return whether it can be measured on the system of this name."""
        return system in self.systems if self.systems else system != RUNTIME


def _micro() -> list[Row]:
    calls = {
        "getppid": InGuest("getppid"),
        "clock_gettime, libc": InGuest("clock-libc"),
        "clock_gettime, system call": InGuest("clock-raw"),
        "pipe write + read": InGuest("pipe"),
        "pipe ping-pong of two processes": InGuest("ping-pong"),
        "pread 4 KiB": InGuest("read"),
        "pwrite 4 KiB": InGuest("write"),
        "stat": InGuest("stat"),
        "open + close": InGuest("open-close"),
        "mprotect": InGuest("mprotect"),
        "mmap + munmap": InGuest("mmap"),
        "mmap + touch + munmap": InGuest("mmap-touch"),
        "thread create + join": InGuest("thread"),
        "fork + exit + wait": InGuest("fork"),
        "vfork + exec + wait, dynamic": InGuest("vfork-exec", ("/bin/true",)),
        "posix_spawn + wait, dynamic": InGuest("spawn", ("/bin/true",)),
    }
    return [Row("micro", name, measure) for name, measure in calls.items()]


def _program(*argv: str) -> InGuest:
    return InGuest("spawn", argv)


_FORKS = "i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done"
_TAR = "tar cf a.tar -C {repository} . && mkdir -p x && tar xf a.tar -C x && rm -r x a.tar"
_SQLITE = "sqlite3 bench.db < {inserts} && rm bench.db"
_PYTEST = (
    "import sys; sys.path.insert(0, '{tests}/site'); import pytest; "
    "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '{tests}']))"
)
#: Those that take a second or more where system calls are dear.
_SLOW = ("tar", "make", "pytest")


def _macro() -> list[Row]:
    programs = {
        "python3 -c pass": (PYTHON, "-c", "pass"),
        "sh, 200 fork + exec": ("/bin/sh", "-c", _FORKS),
        "find, 42,700 entries": ("/usr/bin/find", "{tree}"),
        "git status, 1,000 files": ("/usr/bin/git", "-C", "{repository}", "status", "-s"),
        "tar c + x, 1,000 files": ("/bin/sh", "-c", _TAR),
        "make, 7 C files": ("/usr/bin/make", "-s", "-B", "-f", "{c_project}/Makefile"),
        "sqlite3, 2,000 inserts": ("/bin/sh", "-c", _SQLITE),
        "pytest, 100 tests": (PYTHON, "-B", "-c", _PYTEST),
    }
    rows = [
        Row("macro", name, InGuest("spawn", argv, program=True), rounds=4, full=name.startswith(_SLOW))
        for name, argv in programs.items()
    ]
    rows.append(Row("macro", "computing, one thread", InGuest("spin", program=True)))
    rows.append(Row("macro", "computing, two threads", InGuest("spin-twice", program=True)))
    rows.append(Row("macro", "computing, two threads, 0.2 s", InGuest("spin-long-twice", program=True), rounds=4))
    return rows


def _start_up() -> list[Row]:
    return [
        Row("start-up", "/bin/true, cold", FromOutside(("/bin/true",))),
        Row("start-up", "/bin/true, with a supervisor", Served(("/bin/true",)), systems=GREENROOM_SYSTEMS),
        Row("start-up", "python3 -c pass, cold", FromOutside((PYTHON, "-c", "pass"))),
        Row("start-up", "/bin/true, from a warm Python process", WarmSandbox()),
        Row("start-up", "sandboxes per second, four at a time", Throughput(), unit="1/s", rounds=4),
    ]


def _memory() -> list[Row]:
    return [
        Row("memory", "1 idle sandbox", Idle(1), unit="bytes", rounds=2, timeout_s=60),
        Row("memory", "10 idle sandboxes", Idle(10), unit="bytes", rounds=2, timeout_s=60),
        Row("memory", "100 idle sandboxes", Idle(100), unit="bytes", rounds=2, timeout_s=60, full=True),
        Row("memory", "each further one", IdleFurther(), unit="bytes", rounds=2, timeout_s=60),
    ]


def _messages() -> list[Row]:
    placements = {"colocated": "one process", "split": "two processes"}
    return [
        Row("messages", f"{operation}, {place}", Messages(operation, placement), unit="1/s", systems=(RUNTIME,))
        for operation in ("tell", "ask")
        for placement, place in placements.items()
    ]


GROWTH_KINDS = ("processes", "threads", "descriptors", "mappings", "entries")
GROWTH_COUNTS = (10, 100, 1000, 10_000)


def _growth() -> list[Row]:
    rows = []
    for kind in GROWTH_KINDS:
        for count in GROWTH_COUNTS:
            many = count > 1000
            rows.append(Row("growth", f"{kind}, {count:,}", Growth(kind, count), rounds=1 if many else 3, full=many))
    return rows


ROWS: tuple[Row, ...] = (*_micro(), *_macro(), *_start_up(), *_memory(), *_messages(), *_growth())


def select(pattern: str, *, full: bool) -> list[Row]:
    """Return the rows whose key contains *pattern*, those for ``--full`` only with *full*."""
    return [row for row in ROWS if pattern in row.key and (full or not row.full)]
