"""Documents of runs that never were, for the tests of what reads them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from greenroom.bench.document import Document, RowInfo, SystemInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["document", "noisy"]

_MACHINE = {
    "processor": "a processor",
    "cpus": 2,
    "virtual": True,
    "memory_gib": 8,
    "kernel": "6.1",
    "distribution": "Debian",
    "python": "3.11",
    "root": False,
    "load": 0.1,
}
_SYSTEMS = [
    SystemInfo("native", "native", "", ""),
    SystemInfo("notify", "greenroom notify", "0.1", ""),
    SystemInfo("ptrace", "greenroom ptrace", "0.1", ""),
    SystemInfo("runsc", "runsc", "1.0", ""),
    SystemInfo("proot", "proot", "", "not installed: run make peers"),
    SystemInfo("runtime", "greenroom's runtime", "", ""),
]


def document(samples: Mapping[str, Mapping[str, list[float]]], units: Mapping[str, str] | None = None) -> Document:
    """Return a document with *samples* by row and system, one for each round; in seconds unless *units* says more."""
    made = Document(
        date="2026-01-01T00:00:00+00:00",
        mode="quick",
        seed=1,
        rounds=max((len(values) for row in samples.values() for values in row.values()), default=0),
        machine=dict(_MACHINE),
        systems=list(_SYSTEMS),
        rows=[_row(key, (units or {}).get(key, "s")) for key in samples],
    )
    for key, row in samples.items():
        for system, values in row.items():
            for number, value in enumerate(values):
                made.add(key, system, number, value)
    return made


def _row(key: str, unit: str) -> RowInfo:
    group, _, name = key.partition("/")
    return RowInfo(key, group, name, unit)


def noisy(seed: int, rows: int, rounds: int, factor: float = 1.0) -> Document:
    """Return a document of *rows* micro rows with 5 % noise; greenroom's last one costs *factor* times as much."""
    draw = random.Random(seed)  # noqa: S311  # not for secrets
    samples = {}
    for row in range(rows):
        grown = factor if row == rows - 1 else 1.0
        day = [draw.lognormvariate(0, 0.3) for _ in range(rounds)]  # what the machine does meanwhile meets both
        samples[f"micro/{row}"] = {
            "native": [1e-6 * one * draw.lognormvariate(0, 0.02) for one in day],
            "ptrace": [2e-5 * one * grown * draw.lognormvariate(0, 0.05) for one in day],
        }
    return document(samples)
