"""``greenroom trace``: what a trace file holds, in words, and its replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from ..actors.runtime.replay import replay_process
from ..actors.runtime.tape import Diverged
from ..messages.codec import EnvelopeKind, MalformedFrame, decode
from ..messages.trace import BadTrace, RecordKind, TraceRecord, read_trace
from .errors import GreenroomError
from .sandbox_actors import start_actors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..actors.runtime.node import Node

__all__ = ["replay", "show"]

#: Characters of one line of ``trace show``.
_MAX_LINE = 240


def _records(file: BinaryIO) -> Iterator[TraceRecord]:
    try:
        yield from read_trace(file)
    except BadTrace as error:
        raise GreenroomError(f"{file.name}: {error}") from None


def show(file: BinaryIO, write: Callable[[str], Any]) -> None:
    """Write a line for each record, and for each message in it. GreenroomError when the file is no trace."""
    for number, record in enumerate(_records(file)):
        for line in _lines(record):
            text = f"{number:6} {record.process:8} {line}"
            write(text if len(text) <= _MAX_LINE else text[: _MAX_LINE - 3] + "...")


def _lines(record: TraceRecord) -> Iterator[str]:
    kind, values = record.kind, record.values
    if kind is RecordKind.FRAMES:
        yield from (f"got   {_message(frame)}" for frame in values[0])
    elif kind is RecordKind.SENT:
        yield f"sent  {_message(values[0])}"
    elif kind is RecordKind.CALL:
        port, method, arguments, outcome = values
        yield f"host  {port}.{method}({', '.join(map(repr, arguments))}) = {_outcome(outcome)}"
    else:
        yield f"{kind.name.lower():5} {' '.join(map(repr, values))}"


def _outcome(outcome: list[Any]) -> str:
    return repr(outcome[1]) if outcome[0] == 0 else f"errno {outcome[1]} ({outcome[2]})"


def _message(frame: bytes) -> str:
    try:
        envelope = decode(frame)
    except MalformedFrame as error:
        return f"malformed frame: {error}"
    kind = EnvelopeKind(envelope.kind).name.lower()
    request = f" #{envelope.request}" if envelope.request else ""
    return f"{envelope.sender} -> {envelope.receiver} {kind}{request} {envelope.message}"


def replay(file: BinaryIO, write: Callable[[str], Any]) -> int:
    """Replay each process; return 0 when all did the same again, else 1. GreenroomError when the file is no trace."""
    processes: dict[str, list[tuple[RecordKind, list[Any]]]] = {}
    for record in _records(file):
        processes.setdefault(record.process, []).append((record.kind, record.values))
    status = 0
    for process, records in processes.items():
        try:
            report = replay_process(process, records, _build)
        except Diverged as error:
            write(f"{process}: DIFFERENT: {error}")
            status = 1
        else:
            write(
                f"{process}: the same: {report.records} records, {report.frames_sent} messages sent, "
                f"{report.host_calls} host calls, {report.actors} actors end in the same state"
            )
    return status


def _build(node: Node, settings: dict[str, Any]) -> None:
    start_actors(node, workers=settings["workers"], platform=settings["platform"])
