"""The trace format: everything that a process's actors learned and said, in order.

A trace file is a sequence of blocks, appended by each process of a sandbox with one write each::

    b"GRTR" | u8 version | u8 length of process name | u32 length of payload | process name | payload

The payload is a zstandard frame that holds consecutive records of that process, each one msgpack array whose first item
is a :class:`RecordKind`:

    [TURN, ready callbacks run]             the loop ran its queue
    [FRAMES, [bytes, ...]]                  frames arrived
    [SENT, bytes]                           a frame was sent
    [WATCH, descriptor, event mask]         a watched descriptor was ready (not the inbox's)
    [TIMER, number]                         the timer that was made as the number-th fired
    [CALL, port, method, arguments, outcome]    a host port was asked; outcome is [0, result] or [1, errno, text]
    [STATE, address, digest]                an actor's final state
    [START, role, settings]                 first record: what to build for a replay
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgpack  # type: ignore[import-untyped]  # ships no types

from ..config.limits import MAX_TRACE_BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TRACE_VERSION", "BadTrace", "RecordKind", "TraceRecord", "pack_block", "read_trace"]

TRACE_VERSION = 1
_MAGIC = b"GRTR"
_HEADER = struct.Struct("<4sBBI")


class BadTrace(ValueError):
    """The file is no trace of this version, or it is damaged; the text says where."""


class RecordKind(enum.IntEnum):
    """What a record tells."""

    START = 0
    TURN = 1
    FRAMES = 2
    SENT = 3
    WATCH = 4
    TIMER = 5
    CALL = 6
    STATE = 7


class TraceRecord(NamedTuple):
    """One record of one process."""

    process: str
    kind: RecordKind
    values: list[Any]


def pack_block(process: str, records: list[bytes]) -> bytes:
    """Return one block of packed records."""
    import zstandard  # only traced sandboxes pay for the import

    payload = zstandard.ZstdCompressor(level=1).compress(b"".join(records))
    name = process.encode()
    return _HEADER.pack(_MAGIC, TRACE_VERSION, len(name), len(payload)) + name + payload


def read_trace(file: BinaryIO) -> Iterator[TraceRecord]:
    """Yield the records of a trace file, in file order. :class:`BadTrace` when it is damaged or cut off."""
    import zstandard

    offset = 0
    while header := file.read(_HEADER.size):
        process, payload = _read_block(file, header, offset)
        offset += _HEADER.size + len(process) + len(payload)
        try:
            data = zstandard.ZstdDecompressor().decompress(payload, max_output_size=MAX_TRACE_BLOCK_BYTES)
            unpacker = msgpack.Unpacker(strict_map_key=False, use_list=True)
            unpacker.feed(data)
            for kind, *values in unpacker:
                yield TraceRecord(process, RecordKind(kind), values)
        except (zstandard.ZstdError, ValueError, TypeError, msgpack.UnpackException) as error:
            raise BadTrace(f"damaged block before byte {offset}: {error}") from None


def _read_block(file: BinaryIO, header: bytes, offset: int) -> tuple[str, bytes]:
    if len(header) < _HEADER.size:
        raise BadTrace(f"cut off at byte {offset}")
    magic, version, name_length, length = _HEADER.unpack(header)
    if magic != _MAGIC:
        raise BadTrace(f"no trace block at byte {offset}")
    if version != TRACE_VERSION:
        raise BadTrace(f"trace version {version}; this is {TRACE_VERSION}")
    name, payload = file.read(name_length), file.read(length)
    if len(payload) < length:
        raise BadTrace(f"cut off in the block at byte {offset}")
    return name.decode("utf-8", "replace"), payload
