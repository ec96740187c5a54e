"""Messages to bytes and back: msgpack, with a version, a size limit and checked field types.

A frame is the msgpack array ``[version, kind, sequence, sender, receiver, request, tag, fields]``; ``fields`` are the
message's values in the order of their declaration.  A frame that breaks any rule raises :class:`MalformedFrame`
at the receiver, which stays alive.
"""

from __future__ import annotations

import dataclasses
import enum
import operator
import types
import typing
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack  # type: ignore[import-untyped]  # ships no types

from ..config.limits import MAX_FRAME_BYTES
from .base import MESSAGE_TYPES, Message, Record

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PROTOCOL_VERSION", "Envelope", "EnvelopeKind", "MalformedFrame", "decode", "encode"]

#: Raised whenever a frame's layout or the meaning of a tag changes.
PROTOCOL_VERSION = 1


class MalformedFrame(ValueError):
    """The bytes are not a frame of this protocol; the text says which rule they break."""


class EnvelopeKind(enum.IntEnum):
    """What a frame is to its receiver."""

    TELL = 0
    ASK = 1
    REPLY = 2


class Envelope(NamedTuple):
    """A message with its way: who sent it to whom, as the how-manieth, and which ask it is or answers."""

    kind: int
    #: Number of this frame among those from *sender* to *receiver*, from 1.
    sequence: int
    sender: str
    receiver: str
    #: Number of the ask, unique at the asker; 0 for a tell.
    request: int
    message: Message


_Converter = typing.Callable[[Any], Any]


def _scalar(kind: type) -> _Converter:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise MalformedFrame(f"expected {kind.__name__}, got {type(value).__name__}")
        return value

    return check


def _decoder(annotation: Any) -> _Converter:
    """Return a function that checks and rebuilds one field's value."""
    origin = typing.get_origin(annotation)
    if annotation in (int, str, bytes, bool):
        return _scalar(annotation)
    if annotation is Any:
        return lambda value: value
    if origin is tuple:
        element = _decoder(typing.get_args(annotation)[0])
        if typing.get_args(annotation)[1:] != (Ellipsis,):
            return _fixed_tuple([_decoder(a) for a in typing.get_args(annotation)])
        return lambda value: tuple([element(v) for v in _sequence(value)])
    if origin is dict:
        key, item = (_decoder(a) for a in typing.get_args(annotation))
        return lambda value: {key(k): item(v) for k, v in _mapping(value).items()}
    if origin in (types.UnionType, typing.Union):
        inner = _decoder(next(a for a in typing.get_args(annotation) if a is not types.NoneType))
        return lambda value: None if value is None else inner(value)
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return _class_decoder(annotation)
    raise TypeError(f"a message field cannot be {annotation!r}")


def _fixed_tuple(elements: list[_Converter]) -> _Converter:
    def check(value: Any) -> Any:
        if len(_sequence(value)) != len(elements):
            raise MalformedFrame(f"expected {len(elements)} elements, got {len(value)}")
        return tuple([element(v) for element, v in zip(elements, value, strict=True)])

    return check


def _sequence(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedFrame(f"expected an array, got {type(value).__name__}")
    return value


def _mapping(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise MalformedFrame(f"expected a map, got {type(value).__name__}")
    return value


def _class_decoder(cls: type) -> _Converter:
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    converters = [_decoder(hints[name]) for name in names]
    count = len(names)

    def build(values: Any) -> Any:
        if not isinstance(values, list) or len(values) != count:
            raise MalformedFrame(f"{cls.__name__} has {count} fields")
        try:
            return cls(**{n: c(v) for n, c, v in zip(names, converters, values, strict=True)})
        except Exception as error:  # noqa: BLE001  # a record may check itself; whatever it raises means: no such value
            raise MalformedFrame(f"{cls.__name__}: {error}") from None

    return build


def _encode_record(value: Any) -> Any:
    if isinstance(value, Record):
        return [getattr(value, f.name) for f in dataclasses.fields(value)]  # type: ignore[arg-type]
    raise TypeError(f"{type(value).__name__} cannot be in a message")


class _ClassCodec(NamedTuple):
    getter: Callable[[Any], Any]
    length: int
    build: _Converter


_codecs: dict[type, _ClassCodec] = {}


def _codec_of(cls: type[Message]) -> _ClassCodec:
    """Compile a message class once; declarations are complete only after all modules are imported."""
    codec = _codecs.get(cls)
    if codec is None:
        names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        getter: Callable[[Any], Any] = operator.attrgetter(*names) if names else lambda _: ()
        codec = _codecs[cls] = _ClassCodec(getter, len(names), _class_decoder(cls))
    return codec


def message_values(message: Message) -> tuple[Any, ...]:
    """Return a message's field values in the order of their declaration."""
    codec = _codec_of(type(message))
    values = codec.getter(message)
    return (values,) if codec.length == 1 else values


def encode(envelope: Envelope) -> bytes:
    """Return the frame of *envelope*. ValueError when it exceeds MAX_FRAME_BYTES."""
    kind, sequence, sender, receiver, request, message = envelope
    frame: bytes = msgpack.packb(
        (PROTOCOL_VERSION, kind, sequence, sender, receiver, request, message.TAG, message_values(message)),
        default=_encode_record,
    )
    if len(frame) > MAX_FRAME_BYTES:
        raise ValueError(f"{type(message).__name__} to {receiver} is {len(frame)} bytes; the limit is {MAX_FRAME_BYTES}")
    return frame


def decode(frame: bytes) -> Envelope:
    """Return the envelope of a frame. :class:`MalformedFrame` when it is none."""
    if len(frame) > MAX_FRAME_BYTES:
        raise MalformedFrame(f"frame of {len(frame)} bytes; the limit is {MAX_FRAME_BYTES}")
    try:
        parts = msgpack.unpackb(frame, strict_map_key=False)
    except Exception as error:  # msgpack raises many types, all of which mean the same here
        raise MalformedFrame(f"not msgpack: {error}") from None
    if not isinstance(parts, list) or len(parts) != 8:
        raise MalformedFrame("a frame is an array of 8 parts")
    version, kind, sequence, sender, receiver, request, tag, values = parts
    if version != PROTOCOL_VERSION:
        raise MalformedFrame(f"protocol version {version!r}; this is {PROTOCOL_VERSION}")
    if type(kind) is not int or not 0 <= kind <= 2 or type(sequence) is not int or type(request) is not int:
        raise MalformedFrame("kind, sequence and request are integers")
    if type(sender) is not str or type(receiver) is not str:
        raise MalformedFrame("sender and receiver are strings")
    cls = MESSAGE_TYPES.get(tag) if type(tag) is int else None
    if cls is None:
        raise MalformedFrame(f"no message has the tag {tag!r}")
    return Envelope(kind, sequence, sender, receiver, request, _codec_of(cls).build(values))
