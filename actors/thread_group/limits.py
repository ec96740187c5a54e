"""Resource limits of a process: getrlimit(2)'s soft and hard values.

Linux counterpart: struct rlimit in struct signal_struct (include/asm-generic/resource.h).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from ...config.limits import GUEST_RLIMITS

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["RLIM_INFINITY", "Resource", "ResourceLimits"]

RLIM_INFINITY: Final = (1 << 64) - 1
_PAGE_BYTES: Final = 4096


class Resource(enum.IntEnum):
    """RLIMIT_* numbers."""

    CPU = 0
    FSIZE = 1
    DATA = 2
    STACK = 3
    CORE = 4
    RSS = 5
    NPROC = 6
    NOFILE = 7
    MEMLOCK = 8
    AS = 9
    LOCKS = 10
    SIGPENDING = 11
    MSGQUEUE = 12
    NICE = 13
    RTPRIO = 14
    RTTIME = 15


class ResourceLimits:
    """Soft and hard limits by resource; units are each resource's own (bytes, seconds, counts)."""

    def __init__(self, values: Sequence[tuple[int, int]] | None = None) -> None:
        #: Never changed in place: copies share it.
        self._values = tuple(values or _DEFAULTS)
        self._count_pages()

    def _count_pages(self) -> None:
        #: RLIMIT_AS and RLIMIT_DATA in pages: every mapping looks at them.
        self.memory_pages = self._values[Resource.AS][0] // _PAGE_BYTES
        self.data_pages = self._values[Resource.DATA][0] // _PAGE_BYTES

    def soft(self, resource: int) -> int:
        """Return the limit in force; RLIM_INFINITY for none."""
        return self._values[resource][0]

    def get(self, resource: int) -> tuple[int, int]:
        """Return (soft, hard)."""
        return self._values[resource]

    def set(self, resource: int, soft: int, hard: int) -> None:
        """Set both; the caller has checked them."""
        values = list(self._values)
        values[resource] = (soft, hard)
        self._values = tuple(values)
        self._count_pages()

    def copy(self) -> ResourceLimits:
        """Return an independent copy, as fork does."""
        return ResourceLimits(self._values)

    def state(self) -> list[tuple[int, int]]:
        """Return plain data for a save; the constructor is the inverse."""
        return list(self._values)


def _unlimited(value: int | None) -> int:
    return RLIM_INFINITY if value is None else value


def _default(resource: Resource) -> tuple[int, int]:
    soft, hard = GUEST_RLIMITS[resource.name]
    return _unlimited(soft), _unlimited(hard)


_DEFAULTS: Final = tuple(map(_default, Resource))
