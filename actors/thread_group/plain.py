"""Plain data as bytes and back, for saved states: msgpack that keeps tuples apart from lists.

What a blocked call remembers is compared and changed in place by its handler after a restore, so a tuple must come
back as a tuple.  Values are None, bools, ints of 64 bits, strings, bytes, lists, tuples and dicts; enumerations come
back as ints.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # ships no types

__all__ = ["pack", "unpack"]

_TUPLE: Final = 1


def pack(value: Any) -> bytes:
    """Return *value* as bytes. TypeError or OverflowError for what is not plain data."""
    packed: bytes = msgpack.packb(value, strict_types=True, default=_convert, unicode_errors="surrogateescape")
    return packed


def _convert(value: Any) -> Any:
    if isinstance(value, tuple):
        return msgpack.ExtType(_TUPLE, pack(list(value)))
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"{value!r} is not plain data")


def unpack(data: bytes) -> Any:
    """Inverse of ``pack``. ValueError when *data* is damaged."""
    return msgpack.unpackb(data, strict_map_key=False, ext_hook=_restore, unicode_errors="surrogateescape")


def _restore(code: int, data: bytes) -> Any:
    if code != _TUPLE:
        raise ValueError(f"extension {code} in a saved state")
    return tuple(unpack(data))
