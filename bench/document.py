"""The document of one run of the benchmark, as JSON: every sample, and what is needed to understand it later.

Version 1 of the schema; a version is raised whenever the meaning of a field changes.

``schema``       1
``date``         when it began, UTC, ISO 8601
``mode``         "quick" or "full"
``seed``         from which the orders of rows and systems were drawn
``rounds``       how many there were at most; ``seconds``: how long they took in all
``complete``     false when the time ran out before every cell had its rounds
``machine``      processor, cpus, virtual, memory_gib, kernel, distribution, python, root, load: see machine.py
``systems``      list of {name, title, version, unavailable}, in the order of the tables; *unavailable*: why, or ""
``rows``         list of {key, group, name, unit}, in the order of the tables; unit is "s", "bytes" or "1/s"
``samples``      row key -> system name -> list of [round, value], value in the row's unit
``errors``       row key -> system name -> list of [round, text]
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

__all__ = ["SCHEMA", "BadDocument", "Document", "RowInfo", "SystemInfo"]

SCHEMA = 1


class BadDocument(Exception):
    """A file is not what ``--json`` writes."""


@dataclasses.dataclass(frozen=True)
class SystemInfo:
    """A system as it was found."""

    name: str
    title: str
    version: str
    #: Why it was not measured; "" when it was.
    unavailable: str


@dataclasses.dataclass(frozen=True)
class RowInfo:
    """A row as it was measured."""

    key: str
    group: str
    name: str
    #: "s", "bytes" or "1/s".
    unit: str


@dataclasses.dataclass
class Document:
    """One run: what ``--json`` writes and ``--compare`` reads; see the module for its fields."""

    date: str
    mode: str
    seed: int
    rounds: int
    machine: dict[str, Any]
    systems: list[SystemInfo]
    rows: list[RowInfo]
    seconds: float = 0.0
    complete: bool = True
    samples: dict[str, dict[str, list[tuple[int, float]]]] = dataclasses.field(default_factory=dict)
    errors: dict[str, dict[str, list[tuple[int, str]]]] = dataclasses.field(default_factory=dict)

    def add(self, row: str, system: str, number: int, value: float) -> None:
        """Note a sample of round *number*."""
        self.samples.setdefault(row, {}).setdefault(system, []).append((number, value))

    def add_error(self, row: str, system: str, number: int, text: str) -> None:
        """Note why there is no sample of round *number*."""
        self.errors.setdefault(row, {}).setdefault(system, []).append((number, text))

    def values(self, row: str, system: str) -> dict[int, float]:
        """Return the samples of a cell by their round."""
        return dict(self.samples.get(row, {}).get(system, ()))

    def write(self, path: Path) -> None:
        """Write it as JSON, a line for each cell."""
        fields = {"schema": SCHEMA, **dataclasses.asdict(self)}
        cells = {name: fields.pop(name) for name in ("samples", "errors")}
        parts = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]
        for name, rows in cells.items():
            lines = [f"  {json.dumps(key)}: {{\n{_lines(row)}\n  }}" for key, row in rows.items()]
            parts.append(f' "{name}": {{\n' + ",\n".join(lines) + "\n }")
        path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Document:
        """Return what *path* holds. BadDocument, OSError."""
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            version = fields.pop("schema")
        except (ValueError, AttributeError, KeyError, TypeError):
            raise BadDocument(f"{path} is not a document of this benchmark") from None
        if version != SCHEMA:
            raise BadDocument(f"{path} has version {version} of the schema, this is {SCHEMA}")
        try:
            fields["systems"] = [SystemInfo(**system) for system in fields["systems"]]
            fields["rows"] = [RowInfo(**row) for row in fields["rows"]]
            for name in ("samples", "errors"):
                for row in fields[name].values():
                    row.update({system: [(number, value) for number, value in cell] for system, cell in row.items()})
            return cls(**fields)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise BadDocument(f"{path} lacks a field or has one too many: {error}") from None


def _lines(row: dict[str, Any]) -> str:
    return ",\n".join(f"   {json.dumps(system)}: {json.dumps(cell)}" for system, cell in row.items())
