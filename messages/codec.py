"""Messages to bytes and back: msgpack, with a version, a size limit and checked field types.

A frame is the msgpack array ``[version, kind, sequence, sender, receiver, request, tag, fields]``; ``fields`` are the
message's values in the order of their declaration.  A frame that breaks any rule raises :class:`MalformedFrame`
at the receiver, which stays alive.

Two functions per class are written out and compiled when it comes often, so that nothing is looked up per field.
Before that its fields are gone through one by one: what a cold start sends comes once or twice, and compiling forty
classes took 16 ms of it.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import sys
import types
import typing
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack  # type: ignore[import-untyped]  # ships no types

from ..config.limits import MAX_FRAME_BYTES, REMEMBERED_RECORDS, USES_BEFORE_COMPILED
from .base import MESSAGE_TYPES, Message, PackedRecord, Record

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PROTOCOL_VERSION", "Envelope", "EnvelopeKind", "MalformedFrame", "Parts"]
__all__ += ["compile_all", "decode", "decode_parts", "encode"]

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


#: The parts of an envelope as a plain tuple: making it costs a fourth.
Parts = tuple[int, int, str, str, int, Message]

_Converter = typing.Callable[[Any], Any]


def _wrong(value: Any, wanted: str) -> MalformedFrame:
    return MalformedFrame(f"expected {wanted}, got {type(value).__name__}")


def _scalar(kind: type) -> _Converter:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise _wrong(value, kind.__name__)
        return value

    return check


def _converter(annotation: Any, builder_of: Callable[[type], _Converter]) -> _Converter:
    """Return a function that checks and rebuilds one value of a declared type; *builder_of* is for records in it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (int, str, bytes, bool):
        return _scalar(annotation)
    if annotation is Any:
        return lambda value: value
    if origin is tuple and arguments[1:] == (Ellipsis,) and arguments[0] in (int, str, bytes):
        return _scalars(arguments[0])
    if origin is tuple and arguments[1:] == (Ellipsis,):
        element = _converter(arguments[0], builder_of)
        return lambda value: tuple([element(v) for v in _sequence(value)])
    if origin is tuple:
        return _fixed_tuple([_converter(a, builder_of) for a in arguments])
    if origin is dict:
        key, item = (_converter(a, builder_of) for a in arguments)
        return lambda value: {key(k): item(v) for k, v in _mapping(value).items()}
    if origin in (types.UnionType, typing.Union):
        inner = _converter(next(a for a in arguments if a is not types.NoneType), builder_of)
        return lambda value: None if value is None else inner(value)
    if isinstance(annotation, type) and issubclass(annotation, PackedRecord):
        return _unpacker(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return builder_of(annotation)
    raise TypeError(f"a message field cannot be {annotation!r}")


def _scalars(kind: type) -> _Converter:
    def check(values: Any) -> tuple[Any, ...]:
        if type(values) is not list:
            raise _wrong(values, "an array")
        for value in values:
            if type(value) is not kind:
                raise _wrong(value, kind.__name__)
        return tuple(values)

    return check


def _fixed_tuple(elements: list[_Converter]) -> _Converter:
    def check(value: Any) -> Any:
        if len(_sequence(value)) != len(elements):
            raise MalformedFrame(f"expected {len(elements)} elements, got {len(value)}")
        return tuple([element(v) for element, v in zip(elements, value, strict=True)])

    return check


def _sequence(value: Any) -> list[Any]:
    if type(value) is not list:
        raise _wrong(value, "an array")
    return value


def _mapping(value: Any) -> dict[Any, Any]:
    if type(value) is not dict:
        raise _wrong(value, "a map")
    return value


class _ClassCodec(NamedTuple):
    """How one message or record class becomes an array of values, and comes back checked."""

    values: Callable[[Any], tuple[Any, ...]]
    build: _Converter


#: Compiled, by class.
_codecs: dict[type, _ClassCodec] = {}
#: Of classes that have not come often, and how often they have.
_interpreted: dict[type, _ClassCodec] = {}
_uses: collections.Counter[type] = collections.Counter()
#: Of packed records, by class.
_unpackers: dict[type, _Converter] = {}
#: Types by the text that declares them, and the module that it stands in.
_types: dict[tuple[str, str], Any] = {}


def _codec_of(cls: type) -> _ClassCodec:
    """Return the codec of a class: declarations are complete only after all modules are imported."""
    codec = _codecs.get(cls)
    if codec is None:
        _uses[cls] += 1
        if _uses[cls] > USES_BEFORE_COMPILED:
            return _compiled(cls)
        codec = _interpreted.get(cls)
        if codec is None:
            codec = _interpreted[cls] = _interpret(cls)
    return codec


def _compiled(cls: type) -> _ClassCodec:
    codec = _codecs.get(cls)
    if codec is None:
        codec = _codecs[cls] = _compile(cls)
        _interpreted.pop(cls, None)
    return codec


def _interpret(cls: type) -> _ClassCodec:
    """Return a codec that does what a compiled one does, field by field."""
    fields = dataclasses.fields(cls)
    names = [field.name for field in fields]
    converters = [_converter(_declared(cls, str(field.type)), _late_builder) for field in fields]

    def build(values: Any) -> Any:
        if type(values) is not list or len(values) != len(names):
            raise MalformedFrame(f"{cls.__name__} has {len(names)} fields")
        try:
            converted = [convert(value) for convert, value in zip(converters, values, strict=True)]
            return _make(cls, names, converted)
        except Exception as error:  # noqa: BLE001  # as in the compiled one
            raise MalformedFrame(f"{cls.__name__}: {error}") from None

    def values(it: Any) -> tuple[Any, ...]:
        found = [getattr(it, name) for name in names]
        return tuple([_packed(value) if isinstance(value, PackedRecord) else value for value in found])

    return _ClassCodec(values, build)


def _late_builder(cls: type) -> _Converter:
    return lambda value: _codec_of(cls).build(value)


def _make(cls: type, names: list[str], values: list[Any]) -> Any:
    if hasattr(cls, "__post_init__"):
        return cls(**dict(zip(names, values, strict=True)))
    it: Any = object.__new__(cls)
    for name, value in zip(names, values, strict=True):
        setattr(it, name, value)
    return it


def _compile(cls: type) -> _ClassCodec:
    """Write and compile the two functions of *cls*; scalar fields are checked inline, as most are scalars."""
    hints = {field.name: _declared(cls, str(field.type)) for field in dataclasses.fields(cls)}
    names = [f.name for f in dataclasses.fields(cls)]
    scope: dict[str, Any] = {"cls": cls, "new": object.__new__, "malformed": MalformedFrame, "wrong": _wrong}
    variables = [f"v{index}" for index in range(len(names))]
    lines = [
        "def build(values):",
        f"    if type(values) is not list or len(values) != {len(names)}:",
        f"        raise malformed('{cls.__name__} has {len(names)} fields')",
        "    try:",
    ]
    if names:
        lines.append(f"        {', '.join(variables)}, = values")
    for name, variable in zip(names, variables, strict=True):
        kind = hints[name]
        if kind in (int, str, bytes, bool):
            lines.append(
                f"        if type({variable}) is not {kind.__name__}: raise wrong({variable}, '{kind.__name__}')"
            )
        else:
            scope[f"convert_{variable}"] = _converter(kind, lambda record: _compiled(record).build)
            lines.append(f"        {variable} = convert_{variable}({variable})")
    lines += [
        *_making(cls, names, variables),
        # A record may check itself; whatever it raises means: no such value.
        "    except Exception as error:",
        f"        raise malformed(f'{cls.__name__}: {{error}}') from None",
        f"def values(it): return ({''.join(_value(name, hints[name], scope) for name in names)})",
    ]
    exec("\n".join(lines), scope)  # noqa: S102  # our own text
    return _ClassCodec(scope["values"], scope["build"])


def _declared(cls: type, text: str) -> Any:
    """Return the type that a field of *cls* is declared as: a tenth of what typing's get_type_hints takes.

    The first program of a sandbox waits for sixty classes.
    """
    key = text, cls.__module__
    found = _types.get(key)
    if found is None:
        found = _types[key] = eval(text, vars(sys.modules[cls.__module__]))  # noqa: S307  # our own text
    return found


def compile_all() -> None:
    """Make the codec of every message that has been declared, so that processes forked from this one have it."""
    for cls in MESSAGE_TYPES.values():
        _compiled(cls)


def _making(cls: type, names: list[str], variables: list[str]) -> list[str]:
    """Lines that return the new object: slots are filled one by one, since an initialiser's keywords cost more."""
    pairs = zip(names, variables, strict=True)
    if hasattr(cls, "__post_init__"):
        return [f"        return cls({', '.join(f'{name}={variable}' for name, variable in pairs)})"]
    return [
        "        it = new(cls)",
        *[f"        it.{name} = {variable}" for name, variable in pairs],
        "        return it",
    ]


def _value(name: str, kind: Any, scope: dict[str, Any]) -> str:
    """Return the expression of one field in the tuple that is packed, with its comma."""
    if isinstance(kind, type) and issubclass(kind, PackedRecord):
        scope["packed"] = _packed
        return f"packed(it.{name}), "
    return f"it.{name}, "


def _packed(it: PackedRecord) -> bytes:
    """Return what *it* travels as; equal bytes mean equal records."""
    try:
        return it.packed
    except AttributeError:
        it.packed = _pack(_codec_of(type(it)).values(it))  # frozen for everybody else
        return it.packed


def _unpacker(cls: type[PackedRecord]) -> _Converter:
    """Return the function that rebuilds a packed record, or finds the equal one that it made before.

    There is one for each class, so that equal records are the same object whichever codec has rebuilt them: a replay
    may compile a codec earlier than what it replays.
    """
    if cls not in _unpackers:
        _unpackers[cls] = _make_unpacker(cls)
    return _unpackers[cls]


def _make_unpacker(cls: type[PackedRecord]) -> _Converter:
    known: dict[bytes, PackedRecord] = {}

    def unpack(value: Any) -> PackedRecord:
        it = known.get(value)
        if it is None:
            if type(value) is not bytes:
                raise _wrong(value, "bytes")
            it = _codec_of(cls).build(_unpack(value, strict_map_key=False))
            it.packed = value  # frozen for everybody else
            if len(known) >= REMEMBERED_RECORDS:
                known.clear()
            known[value] = it
        return it

    return unpack


def _encode_record(value: Any) -> Any:
    if isinstance(value, PackedRecord):
        return _packed(value)
    if isinstance(value, Record):
        return _codec_of(type(value)).values(value)
    raise TypeError(f"{type(value).__name__} cannot be in a message")


def message_values(message: Message) -> tuple[Any, ...]:
    """Return a message's field values in the order of their declaration."""
    return _codec_of(type(message)).values(message)


#: One packer for all frames: making one costs more than packing a small frame. No handler runs while it packs.
_pack = msgpack.Packer(default=_encode_record).pack


def encode(envelope: Envelope | Parts) -> bytes:
    """Return the frame of *envelope*, or of its parts. ValueError when it exceeds MAX_FRAME_BYTES."""
    kind, sequence, sender, receiver, request, message = envelope
    values = (_codecs.get(type(message)) or _codec_of(type(message))).values(message)
    frame: bytes = _pack((PROTOCOL_VERSION, kind, sequence, sender, receiver, request, message.TAG, values))
    if len(frame) > MAX_FRAME_BYTES:
        raise ValueError(
            f"{type(message).__name__} to {receiver} is {len(frame)} bytes; the limit is {MAX_FRAME_BYTES}"
        )
    return frame


_unpack = msgpack.unpackb
#: By tag, the compiled ones that were received before.
_builders: dict[int, _Converter] = {}


def decode(frame: bytes) -> Envelope:
    """Return the envelope of a frame. :class:`MalformedFrame` when it is none."""
    return Envelope(*decode_parts(frame))


def decode_parts(frame: bytes) -> Parts:
    """Return the parts of the envelope, without making one. :class:`MalformedFrame`."""
    if len(frame) > MAX_FRAME_BYTES:
        raise MalformedFrame(f"frame of {len(frame)} bytes; the limit is {MAX_FRAME_BYTES}")
    try:
        parts = _unpack(frame, strict_map_key=False)
    except Exception as error:  # noqa: BLE001  # msgpack raises many types, all of which mean the same here
        raise MalformedFrame(f"not msgpack: {error}") from None
    if type(parts) is not list or len(parts) != 8:
        raise MalformedFrame("a frame is an array of 8 parts")
    version, kind, sequence, sender, receiver, request, tag, values = parts
    if version != PROTOCOL_VERSION:
        raise MalformedFrame(f"protocol version {version!r}; this is {PROTOCOL_VERSION}")
    if type(kind) is not int or not 0 <= kind <= 2 or type(sequence) is not int or type(request) is not int:
        raise MalformedFrame("kind, sequence and request are integers")
    if type(sender) is not str or type(receiver) is not str:
        raise MalformedFrame("sender and receiver are strings")
    build = (_builders.get(tag) if type(tag) is int else None) or _builder(tag)
    return kind, sequence, sender, receiver, request, build(values)


def _builder(tag: Any) -> _Converter:
    cls = MESSAGE_TYPES.get(tag) if type(tag) is int else None
    if cls is None:
        raise MalformedFrame(f"no message has the tag {tag!r}")
    build = _codec_of(cls).build
    if cls in _codecs:
        _builders[tag] = build
    return build
