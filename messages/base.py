"""What a message is: a frozen dataclass with a tag that never changes its meaning.

A message class is declared with :func:`message`; a plain value that travels inside messages with :func:`record`.
Field types are limited to what msgpack carries without loss: ``int``, ``str``, ``bytes``, ``bool``, ``None``,
``tuple[T, ...]``, ``dict[K, V]``, ``X | None`` and records.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, ClassVar, TypeVar, dataclass_transform

__all__ = ["MESSAGE_TYPES", "Message", "Mode", "PackedRecord", "Record", "message", "owned", "record"]


class Mode(enum.Enum):
    """How a message travels."""

    TELL = "tell"  #: no answer
    ASK = "ask"  #: answered exactly once, in bounded time, by the reply type that it names
    REPLY = "reply"  #: the answer to an ask


class Record:
    """Base of the plain values inside messages: equal when all fields are."""

    __slots__: ClassVar[tuple[str, ...]] = ()

    def __eq__(self, other: object) -> bool:
        """Compare field by field."""
        return type(other) is type(self) and _values(self) == _values(other)

    def __hash__(self) -> int:
        """Hash what is compared."""
        return hash((type(self), _values(self)))

    def __repr__(self) -> str:
        """Show the class and every field."""
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


def _values(it: Record) -> tuple[Any, ...]:
    return tuple([getattr(it, name) for name in it.__slots__])


class PackedRecord(Record):
    """Base of records that are sent again and again: packed once per instance, rebuilt once per value.

    It travels as the bytes of its own array, by which the receiver knows a value that it has seen before.
    """

    __slots__ = ("packed",)
    #: Set by the codec when it is first packed or rebuilt.
    packed: bytes


class Message(Record):
    """Base of all messages. Class attributes are set by :func:`message`."""

    __slots__ = ()
    TAG: ClassVar[int]
    RECEIVER: ClassVar[str]
    MODE: ClassVar[Mode]
    REPLY: ClassVar[type[Message] | None]


#: Every message type by its tag.
MESSAGE_TYPES: dict[int, type[Message]] = {}

#: First tag of each receiver's range; a range holds 0x100 tags, which are never reused.
TAG_RANGES: dict[str, int] = {
    "any": 0x000,
    "supervisor": 0x100,
    "kernel": 0x200,
    "task_set": 0x300,
    "thread_group": 0x400,
    "worker": 0x500,
    "mount_namespace": 0x600,
    "timekeeper": 0x700,
}

_C = TypeVar("_C", bound=type)


def _slotted(cls: _C, *, kw_only: bool = True) -> _C:
    """Make *cls* a dataclass of slots with an initialiser and nothing else.

    The type checker holds them frozen (``dataclass_transform``).  At run time they are not: for every frozen class
    dataclasses compiles six methods, which for this catalogue took 45 ms of each start, and makes each instance three
    times slower.  The initialiser alone took 20 ms, so it is compiled when the first instance is made, which for most
    classes is never; hence this instead of ``dataclasses.dataclass``, whose functions work on the result.
    """
    fields = dict(getattr(cls, "__dataclass_fields__", ()))
    namespace = dict(vars(cls))
    # Compiled classes have some annotations as types, not as text.
    own = [name for name, text in namespace.get("__annotations__", {}).items() if "ClassVar" not in str(text)]
    for name in own:
        fields[name] = _field(name, cls.__annotations__[name], namespace.pop(name, dataclasses.MISSING), kw_only)
    for name in ("__dict__", "__weakref__"):
        namespace.pop(name, None)

    def first_init(it: Any, *given: Any, **values: Any) -> None:
        made.__init__ = _initialiser(made, kw_only)
        made.__init__(it, *given, **values)

    namespace.update(__slots__=tuple(own), __dataclass_fields__=fields, __init__=first_init)
    made: Any = type(cls)(cls.__name__, cls.__bases__, namespace)
    return made  # type: ignore[no-any-return]


def _field(name: str, declared: str, default: Any, kw_only: bool) -> dataclasses.Field[Any]:
    """Return what dataclasses knows of a field."""
    field: Any = default if isinstance(default, dataclasses.Field) else dataclasses.field(default=default)
    field.name, field.type, field.kw_only = name, declared, kw_only
    field._field_type = dataclasses._FIELD  # type: ignore[attr-defined]  # noqa: SLF001  # what fields() looks for
    return field  # type: ignore[no-any-return]


def _initialiser(cls: type[Any], kw_only: bool) -> Any:
    """Compile ``__init__(self, *, field=default...)``, or without the asterisk."""
    scope: dict[str, Any] = {"missing": dataclasses.MISSING}
    parameters, lines = [], []
    for name, field in cls.__dataclass_fields__.items():
        value = name
        if field.default_factory is not dataclasses.MISSING:
            scope[f"make_{name}"] = field.default_factory
            parameters.append(f"{name}=missing")
            value = f"make_{name}() if {name} is missing else {name}"
        elif field.default is not dataclasses.MISSING:
            scope[f"default_{name}"] = field.default
            parameters.append(f"{name}=default_{name}")
        else:
            parameters.append(name)
        lines.append(f"    self.{name} = {value}\n")
    if hasattr(cls, "__post_init__"):
        lines.append("    self.__post_init__()\n")
    star = ["*"] if parameters and kw_only else []
    head = f"def __init__({', '.join(['self', *star, *parameters])}):\n"
    exec(head + ("".join(lines) or "    pass\n"), scope)  # noqa: S102  # our own text
    return scope["__init__"]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
def record(cls: _C) -> _C:
    """Make *cls* a frozen, slotted, keyword-only dataclass that may be a field of a message."""
    return _slotted(cls)


@dataclass_transform(eq_default=False, field_specifiers=(dataclasses.field,))
def owned(cls: _C) -> _C:
    """Make *cls* a slotted dataclass that an actor keeps and changes: equal to itself only, and never sent."""
    return _slotted(cls, kw_only=False)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
def message(*, tag: int, receiver: str, mode: Mode, reply: type[Message] | None = None) -> Any:
    """Declare a message class.

    *tag* is the wire number, in *receiver*'s range; *receiver* is an actor kind of :data:`TAG_RANGES` (for a reply:
    the kind that answers); *reply* is the answer's type when *mode* is ASK.  TypeError when the declaration is wrong.
    """

    def declare(cls: type[Message]) -> type[Message]:
        first = TAG_RANGES[receiver]
        if not first <= tag < first + 0x100:
            raise TypeError(f"{cls.__name__}: tag {tag:#x} is outside the range of {receiver}")
        if tag in MESSAGE_TYPES:
            raise TypeError(f"{cls.__name__}: tag {tag:#x} is taken by {MESSAGE_TYPES[tag].__name__}")
        if (mode is Mode.ASK) != (reply is not None):
            raise TypeError(f"{cls.__name__}: exactly the asks name a reply type")
        made = _slotted(cls)
        made.TAG, made.RECEIVER, made.MODE, made.REPLY = tag, receiver, mode, reply
        MESSAGE_TYPES[tag] = made
        return made

    return declare


@message(tag=0x001, receiver="any", mode=Mode.REPLY)
class Done(Message):
    """receiver -> asker, reply: the ask was carried out and has no other result."""


@message(tag=0x002, receiver="any", mode=Mode.REPLY)
class Failed(Message):
    """receiver -> asker, reply: the ask was refused; raised at the asker."""

    #: Linux errno, or 0 when the failure is not a guest-visible one.
    errno: int
    #: For people: what failed and what to do.
    text: str
    #: Name of the exception class at the receiver.
    kind: str
