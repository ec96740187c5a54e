"""A digest of an actor's whole state, so that a replay can be compared with what it replays.

It walks everything that the actor refers to and that is state: plain data, containers, and objects of this package.
Ports, loops, sockets and functions are not state: only that there is one counts.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # ships no types

__all__ = ["digest"]

#: Modules of this package whose objects are machinery around the actors rather than their state.
_MACHINERY: Final = (".actors.runtime.", ".platform.")
_PACKAGE: Final = __name__.partition(".")[0]


def digest(root: object) -> bytes:
    """Return 16 bytes that are equal for equal states."""
    walk = _Walk()
    walk.visit(root)
    return walk.hash.digest()


class _Walk:
    """One traversal; objects met again are named by the number of their first meeting."""

    def __init__(self) -> None:
        self.hash = hashlib.blake2b(digest_size=16)
        self._met: dict[int, int] = {}
        #: Keeps temporary objects alive, so that their ids stay theirs.
        self._kept: list[object] = []

    def visit(self, value: Any) -> None:
        """Feed *value* to the hash, depth first without recursion."""
        stack = [value]
        while stack:
            stack.extend(reversed(self._open(stack.pop())))

    def _feed(self, *parts: Any) -> None:
        self.hash.update(msgpack.packb(parts))

    def _open(self, value: Any) -> list[Any]:
        """Feed what is plain in *value*; return what is to be visited next."""
        if value is None or isinstance(value, (bool, str, bytes, float)):
            self._feed(value)
            return []
        if isinstance(value, enum.Enum):
            self._feed("enum", type(value).__name__, value.name)
            return []
        if isinstance(value, int):
            self._feed("int", hex(value))
            return []
        if isinstance(value, bytearray):
            self._feed(bytes(value))
            return []
        if isinstance(value, tuple):  # whether two equal ones are one object depends on the compiler
            self._feed("list", len(value))
            return list(value)
        return self._open_reference(value)

    def _open_reference(self, value: Any) -> list[Any]:
        number = self._met.get(id(value))
        if number is not None:
            self._feed("met", number)
            return []
        self._met[id(value)] = len(self._met)
        self._kept.append(value)
        if isinstance(value, dict):
            self._feed("dict", len(value))
            return [part for item in value.items() for part in item]
        if isinstance(value, (set, frozenset)):
            self._feed("set", sorted(map(repr, value)))
            return []
        if isinstance(value, list) or type(value).__name__ == "deque":
            self._feed("list", len(value))
            return list(value)
        return self._open_object(value)

    def _open_object(self, value: Any) -> list[Any]:
        kind = type(value)
        module = "." + kind.__module__.partition(".")[2] + "."
        foreign = not kind.__module__.startswith(_PACKAGE + ".") or module.startswith(_MACHINERY)
        if foreign or callable(value) or hasattr(value, "send"):  # compiled functions have classes of ours
            self._feed("machinery")
            return []
        self._feed("object", kind.__name__)
        slots = [name for cls in kind.__mro__ for name in _slots(cls)]
        names = sorted({*slots, *getattr(value, "__dict__", {})})
        parts: list[Any] = []
        for name in names:
            if hasattr(value, name) and name not in _IGNORED:
                parts += [name, getattr(value, name)]
        return parts


def _slots(cls: type) -> tuple[str, ...]:
    """Return the names of a class's own slots; a compiled class has no other attributes."""
    own = vars(cls)
    names: tuple[str, ...] = own.get("__slots__") or own.get("__mypyc_attrs__") or ()
    return names


#: pykka's own fields and links to machinery.
_IGNORED: Final = frozenset(
    {"__weakref__", "__dict__", "_actor_ref", "actor_inbox", "actor_stopped", "actor_urn", "node"}
)
