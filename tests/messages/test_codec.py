"""Every message survives the wire; nothing that is no frame does any harm."""

from __future__ import annotations

import dataclasses
import random
import types
import typing
from typing import Any

import msgpack
import pytest
from greenroom.config.limits import MAX_FRAME_BYTES, USES_BEFORE_COMPILED
from greenroom.config.spec import BindMount, Command, SandboxSpec
from greenroom.messages import catalogue
from greenroom.messages.base import MESSAGE_TYPES, Failed, Message, Record, record
from greenroom.messages.codec import PROTOCOL_VERSION, Envelope, MalformedFrame, decode, encode
from greenroom.messages.task_set import ProcessList


def sample(annotation: Any, rng: random.Random) -> Any:
    """Return a value of a field's type."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is int:
        return rng.choice([0, 1, -1, 2**63 - 1, -(2**63), 2**64 - 1])
    if annotation is bool:
        return rng.random() < 0.5
    if annotation is str:
        return rng.choice(["", "text", "ünïcode"])
    if annotation is bytes:
        return rng.randbytes(rng.randrange(20))
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return tuple(sample(arguments[0], rng) for _ in range(rng.randrange(3)))
    if origin is tuple:
        return tuple(sample(a, rng) for a in arguments)
    if origin is dict:
        return {sample(arguments[0], rng): sample(arguments[1], rng)}
    if origin in (types.UnionType, typing.Union):
        return None if rng.random() < 0.5 else sample(arguments[0], rng)
    if annotation is Any:
        return 7
    assert issubclass(annotation, Record), annotation
    return instance(annotation, rng)


#: Instances of the records that check themselves: random fields would not pass.
VALID: dict[str, Any] = {
    "SandboxSpec": SandboxSpec(mounts=(BindMount(source="/srv", target="/mnt", read_only=True),)),
    "BindMount": BindMount(source="/srv", target="/mnt", read_only=True),
    "Command": Command(argv=(b"/bin/true",), envv=(b"A=1",), cwd="/", user="root", terminal=False, limits={}),
}


def instance(cls: type[Any], rng: random.Random) -> Any:
    """Return an instance of a message or record with random fields."""
    if hasattr(cls, "__post_init__"):
        return VALID[cls.__name__]
    hints = typing.get_type_hints(cls)
    return cls(**{f.name: sample(hints[f.name], rng) for f in dataclasses.fields(cls)})


@pytest.mark.parametrize("cls", MESSAGE_TYPES.values(), ids=lambda cls: cls.__name__)
def test_round_trip(cls: type[Message]) -> None:
    """Encoded and decoded, a message is equal to itself, before its codec is compiled and after."""
    rng = random.Random(cls.TAG)  # noqa: S311  # repeatable
    for number in range(2 * USES_BEFORE_COMPILED):
        envelope = Envelope(number % 3, number, "kernel", "task_set", number, instance(cls, rng))
        assert decode(encode(envelope)) == envelope


def test_catalogue_page_is_fresh() -> None:
    """The committed page is what the declarations say: run ``python -m greenroom.messages.catalogue``."""
    assert catalogue.PAGE.read_text(encoding="utf-8") == catalogue.render()


def test_every_message_says_its_way() -> None:
    """The first line of a docstring reads "sender -> receiver, mode: when"."""
    for cls in MESSAGE_TYPES.values():
        first = (cls.__doc__ or "").partition("\n")[0]
        assert " -> " in first and ": " in first, f"{cls.__name__}: {first}"


def good_frame() -> list[Any]:
    """Return the parts of a frame that decodes."""
    return [PROTOCOL_VERSION, 0, 1, "a", "b", 0, Failed.TAG, [2, "text", "kind"]]


@pytest.mark.parametrize(
    ("index", "value", "reason"),
    [
        (0, PROTOCOL_VERSION + 1, "version"),
        (1, 3, "kind"),
        (1, "0", "kind"),
        (2, None, "sequence"),
        (3, 5, "strings"),
        (6, 0xFFF, "no message"),
        (6, [], "no message"),
        (7, [2, "text"], "fields"),
        (7, ["2", "text", "kind"], "expected int"),
        (7, [True, "text", "kind"], "expected int"),
        (7, {"errno": 2}, "fields"),
    ],
)
def test_a_malformed_part_is_named(index: int, value: Any, reason: str) -> None:
    """Each broken rule is a MalformedFrame that says which."""
    parts = good_frame()
    parts[index] = value
    with pytest.raises(MalformedFrame, match=reason):
        decode(msgpack.packb(parts))


def test_random_bytes_are_malformed_and_nothing_worse() -> None:
    """No byte string makes the decoder raise anything else."""
    rng = random.Random(1)  # noqa: S311  # repeatable
    frame = encode(Envelope(0, 1, "a", "b", 0, ProcessList(rows=())))
    for _ in range(5000):
        broken = bytearray(frame if rng.random() < 0.7 else rng.randbytes(rng.randrange(60)))
        for _ in range(rng.randrange(1, 4)):
            if broken:
                broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            decode(bytes(broken))
        except MalformedFrame:
            continue


def test_an_oversized_frame_is_refused_at_both_ends() -> None:
    """The limit holds for the sender and for the receiver."""
    with pytest.raises(ValueError, match="limit"):
        encode(Envelope(0, 1, "a", "b", 0, Failed(errno=0, text="x" * MAX_FRAME_BYTES, kind="")))
    with pytest.raises(MalformedFrame, match="limit"):
        decode(b"\0" * (MAX_FRAME_BYTES + 1))


def test_declared_classes_are_as_dataclasses_would_make_them() -> None:
    """Defaults, factories, checks, replace; and no others than the declared fields."""

    @record
    class Sample(Record):
        number: int
        text: str = "x"
        numbers: dict[str, int] = dataclasses.field(default_factory=dict)

        def __post_init__(self) -> None:
            if self.number < 0:
                raise ValueError(self.number)

    first, second = Sample(number=1), Sample(number=1)
    assert first == second
    assert first.numbers is not second.numbers
    assert (first.text, [field.name for field in dataclasses.fields(first)]) == ("x", ["number", "text", "numbers"])
    assert dataclasses.replace(first, number=2) == Sample(number=2)
    assert dataclasses.asdict(first) == {"number": 1, "text": "x", "numbers": {}}
    assert not hasattr(first, "__dict__")
    for wrong in ({}, {"number": 1, "other": 2}):
        with pytest.raises(TypeError):
            Sample(**wrong)
    with pytest.raises(ValueError, match="-1"):
        Sample(number=-1)
    with pytest.raises(TypeError):
        Sample(1)
