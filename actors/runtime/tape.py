"""Recording and replaying what a process's actors learn.

Actors learn in four ways: a frame arrives, a watched descriptor is ready, a timer fires, or a host port answers a call.
A :class:`Recorder` writes them down in order, with the frames that the actors send; a :class:`Player` gives them back
and compares what the actors send and ask.  Everything between is deterministic, so a replay ends in the same state.

Ports are plain objects whose methods take and return plain data; :class:`TapedPort` stands before one.
"""

from __future__ import annotations

import collections
import os
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]  # ships no types

from ...config.limits import TRACE_FLUSH_BYTES
from ...messages.trace import RecordKind, pack_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Diverged", "Player", "Recorder", "Tape", "TapedPort"]


class Diverged(Exception):
    """The replayed actors did something else than the recorded ones; the text says what, and at which record."""


class Tape:
    """What the loop, the node and the ports see of a recorder or player."""

    #: A replay has no host: ports and platforms are not to be built.
    replaying = False

    def call(self, port: str, method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        """Record the outcome of *run*, or give back the recorded one."""
        raise NotImplementedError

    def note(self, kind: RecordKind, *values: Any) -> None:
        """Record something, or compare it with what was recorded."""
        raise NotImplementedError

    def input(self, kind: RecordKind, take: Callable[[], Any]) -> Any:
        """Take an input and record it, or give back the recorded one."""
        raise NotImplementedError


class Recorder(Tape):
    """Writes records of one process to a trace file, which other processes of the sandbox append to as well."""

    def __init__(self, process: str, fd: int) -> None:
        """*fd* was opened with O_APPEND; it belongs to the recorder from now on."""
        self._process = process
        self._fd = fd
        self._records: list[bytes] = []
        self._size = 0
        self._pack = msgpack.Packer(default=_plain).pack

    def note(self, kind: RecordKind, *values: Any) -> None:
        """Append one record."""
        packed = self._pack((int(kind), *values))
        self._records.append(packed)
        self._size += len(packed)
        if self._size > TRACE_FLUSH_BYTES:
            self.flush()

    def call(self, port: str, method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        """Run and record a host call."""
        try:
            result = run()
        except OSError as error:
            self.note(RecordKind.CALL, port, method, arguments, (1, error.errno or 0, str(error.strerror or error)))
            raise
        self.note(RecordKind.CALL, port, method, arguments, (0, result))
        return result

    def input(self, kind: RecordKind, take: Callable[[], Any]) -> Any:
        """Take and record an input."""
        value = take()
        self.note(kind, value)
        return value

    def flush(self) -> None:
        """Append what has been gathered to the file as one block."""
        if self._records:
            block, self._records, self._size = pack_block(self._process, self._records), [], 0
            view = memoryview(block)
            while view:
                view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
        os.close(self._fd)


def _plain(value: Any) -> Any:
    """Ports may be handed views and their likes; a trace keeps the bytes."""
    if isinstance(value, (memoryview, bytearray)):
        return bytes(value)
    raise TypeError(f"a port was given {type(value).__name__}, which is not plain data")


class Player(Tape):
    """Gives back the records of one process and compares."""

    replaying = True

    def __init__(self, process: str, records: Iterable[tuple[RecordKind, list[Any]]]) -> None:
        self.process = process
        self._records = collections.deque(records)
        self.position = 0
        #: How many records of each kind were matched.
        self.matched: collections.Counter[str] = collections.Counter()

    def peek(self) -> tuple[RecordKind, list[Any]] | None:
        """Return the next record without taking it, None at the end."""
        return self._records[0] if self._records else None

    def take(self) -> tuple[RecordKind, list[Any]]:
        """Take the next record."""
        record = self._records.popleft()
        self.position += 1
        self.matched[record[0].name] += 1
        return record

    def note(self, kind: RecordKind, *values: Any) -> None:
        """Compare what the actors did with the next record."""
        self._expect(kind, list(values))

    def call(self, port: str, method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        """Give back the recorded outcome of this very call."""
        del run
        wanted = msgpack.unpackb(msgpack.packb(arguments, default=_plain), strict_map_key=False)
        _port, _method, _arguments, outcome = self._expect(RecordKind.CALL, [port, method, wanted])
        if outcome[0] == 1:
            raise OSError(outcome[1], outcome[2])
        return _tuples(outcome[1])

    def input(self, kind: RecordKind, take: Callable[[], Any]) -> Any:
        """Give back the recorded input."""
        del take
        return self._expect(kind, [])[0]

    def _expect(self, kind: RecordKind, values: list[Any]) -> list[Any]:
        record = self.peek()
        if record is None:
            raise Diverged(f"{self.process}: the trace ended, but then came {kind.name} {_short(values)}")
        if record[0] is not kind or record[1][: len(values)] != values:
            raise Diverged(
                f"{self.process}, record {self.position}: recorded {record[0].name} {_short(record[1])}, "
                f"replayed {kind.name} {_short(values)}"
            )
        return self.take()[1]


def _short(values: list[Any]) -> str:
    text = repr(values)
    return text if len(text) <= 300 else text[:300] + "..."


def _tuples(value: Any) -> Any:
    """msgpack gives lists; ports return tuples."""
    if isinstance(value, list):
        return tuple([_tuples(v) for v in value])
    return value


class TapedPort:
    """Stands before a port object: every public method's call goes through the tape.

    In a replay the port's class stands in for the object: its methods are looked up but never run.
    """

    def __init__(self, tape: Tape, name: str, port: Any) -> None:
        self._tape = tape
        self._name = name
        self._port = port

    def __getattr__(self, method: str) -> Any:
        target = getattr(self._port, method)
        if not callable(target):
            return target
        tape, name = self._tape, self._name

        def taped(*arguments: Any) -> Any:
            return tape.call(name, method, arguments, lambda: target(*arguments))

        self.__dict__[method] = taped
        return taped
