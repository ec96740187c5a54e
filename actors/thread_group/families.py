"""The families of system calls: importing them fills the table."""

from __future__ import annotations

import importlib

__all__ = ["FAMILIES", "load"]

#: Modules of this folder that register handlers.
FAMILIES: tuple[str, ...] = (
    "sys_clone",
    "sys_exec",
    "sys_exit",
    "sys_identity",
    "sys_process",
    "sys_memory",
    "sys_signal",
    "sys_pidfd",
    "sys_futex",
    "sys_time",
    "sys_timerfd",
    "sys_signalfd",
    "sys_inotify",
    "sys_fd",
    "sys_io",
    "sys_path",
    "sys_poll",
    "sys_ioctl",
    "sys_socket",
    "sys_misc",
    "sys_sched",
)


def load() -> None:
    """Import every family once."""
    for name in FAMILIES:
        importlib.import_module(f".{name}", __package__)
