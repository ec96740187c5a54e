"""Traces for people: what is in one, and whether the actors still do what it recorded.

It owns nothing; the format is ``messages/trace.py``'s, the replay ``actors/runtime/replay.py``'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from ..actors.runtime.replay import ReplayReport, replay_process
from ..actors.runtime.tape import Diverged
from ..messages import catalogue
from ..messages.codec import EnvelopeKind, MalformedFrame, decode, message_values
from ..messages.trace import BadTrace, RecordKind, read_trace
from .errors import TraceError
from .sandbox_actors import report_ready, start_actors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..actors.runtime.node import Node

__all__ = ["replay", "replay_trace", "show", "trace_lines"]

assert catalogue.MESSAGE_MODULES, "importing the catalogue declares every message, so that every frame decodes"

#: Characters of one value in a line of ``trace show``.
_VALUE_WIDTH = 120


def replay_trace(file: BinaryIO) -> list[ReplayReport]:
    """Replay every process of a trace. TraceError when it is damaged, or the actors did something else."""
    processes: dict[str, list[tuple[RecordKind, list[Any]]]] = {}
    try:
        for record in read_trace(file):
            processes.setdefault(record.process, []).append((record.kind, record.values))
        if not processes:
            raise BadTrace("the file is empty")  # noqa: TRY301  # told as any other
        return [replay_process(name, records, _build) for name, records in processes.items()]
    except BadTrace as error:
        raise TraceError(f"{error}: record the trace anew") from None
    except Diverged as error:
        raise TraceError(f"the replay went another way: {error}") from None


def _build(node: Node, settings: dict[str, Any]) -> None:
    report_ready(node, start_actors(node, workers=settings["workers"], platform=settings["platform"]))


def replay(file: BinaryIO, echo: Callable[[str], None]) -> int:
    """Replay a trace and say what was compared; return the exit status."""
    for report in replay_trace(file):
        echo(
            f"{report.process}: {report.records} records replayed; {report.frames_sent} frames sent and "
            f"{report.host_calls} host calls as recorded; final state of {report.actors} actors equal"
        )
    return 0


def show(file: BinaryIO, echo: Callable[[str], None]) -> None:
    """Print a trace, one line a record. TraceError when it is damaged."""
    try:
        for line in trace_lines(file):
            echo(line)
    except BadTrace as error:
        raise TraceError(f"{error}: record the trace anew") from None


def trace_lines(file: BinaryIO) -> Iterator[str]:
    """Yield one line for each record, frames decoded."""
    for process, kind, values in read_trace(file):
        if kind is RecordKind.FRAMES:
            for frame in values[0]:
                yield f"{process:<9} recv  {_frame(frame)}"
        elif kind is RecordKind.SENT:
            yield f"{process:<9} send  {_frame(values[0])}"
        elif kind is RecordKind.CALL:
            port, method, arguments, outcome = values
            answer = _short(outcome[1]) if outcome[0] == 0 else f"errno {outcome[1]} ({outcome[2]})"
            yield f"{process:<9} call  {port}.{method}({', '.join(map(_short, arguments))}) = {answer}"
        else:
            yield f"{process:<9} {kind.name.lower():<5} {' '.join(map(_short, values))}"


def _frame(frame: bytes) -> str:
    try:
        kind, sequence, sender, receiver, request, message = decode(frame)
    except MalformedFrame as error:
        return f"malformed frame: {error}"
    way = {EnvelopeKind.TELL: "tell", EnvelopeKind.ASK: f"ask {request}", EnvelopeKind.REPLY: f"reply {request}"}
    values = ", ".join(map(_short, message_values(message)))
    return f"{sender} -> {receiver} #{sequence} {way[EnvelopeKind(kind)]}: {type(message).__name__}({values})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE_WIDTH else f"{text[:_VALUE_WIDTH]}... ({len(text)} characters)"
