"""The families of system calls: importing them fills the table.

Those that few programs call are imported when the first call of one comes, which saves a start their import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from .table import TABLE

if TYPE_CHECKING:
    from .table import Entry

__all__ = ["COMMON", "RARE", "find", "load", "load_common"]

#: Modules of this folder that register handlers.
COMMON: Final = (
    "sys_clone",
    "sys_exec",
    "sys_exit",
    "sys_identity",
    "sys_process",
    "sys_memory",
    "sys_signal",
    "sys_futex",
    "sys_time",
    "sys_fd",
    "sys_io",
    "sys_path",
    "sys_poll",
    "sys_ioctl",
    "sys_misc",
    "sys_sched",
)
#: Those that can wait, and the calls that they register.
RARE: Final = {
    "sys_pidfd": (434, 424),
    "sys_timerfd": (283, 286, 287),
    "sys_signalfd": (282, 289),
    "sys_inotify": (253, 294, 254, 255),
    "sys_socket": (41, 53, 49, 51, 52, 50, 42, 43, 288, 48, 44, 46, 307, 45, 47, 299, 55, 54),
}
_FAMILY_OF: Final = {number: name for name, numbers in RARE.items() for number in numbers}


def load() -> None:
    """Import every family."""
    load_common()
    for name in RARE:
        _import(name)


def load_common() -> None:
    """Import the families that nearly every program calls."""
    for name in COMMON:
        _import(name)


def find(number: int) -> Entry | None:
    """Return the entry of system call *number*, with its family imported; None when there is no such call."""
    if number in _FAMILY_OF:
        _import(_FAMILY_OF[number])
    return TABLE.get(number)


def _import(family: str) -> None:
    importlib.import_module(f".{family}", __package__)
