"""Which platform a worker uses: the one that was asked for, or the fastest that the host allows.

It owns nothing.  ``auto`` is decided by starting ``notify``: whether a host allows it hangs on the kernel's version and
on what a container's profile forbids, and only trying tells all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .interface import Platform

__all__ = ["start_platform"]

#: Seccomp mode of a process under a filter, in /proc/PID/status.
_MODE_FILTER: Final = "2"


def start_platform(name: str) -> tuple[Platform, str]:
    """Return the platform *name*, started, and for "auto" why it is not the fastest ("" when it is).

    RuntimeError with advice when the host forbids it; ValueError when there is none of that name.
    """
    if name == "auto":
        return _start_best()
    platform = _make(name)
    platform.start()
    return platform, ""


def _start_best() -> tuple[Platform, str]:
    reason = _obstacle()
    if not reason:
        try:
            return start_platform("notify")
        except RuntimeError as error:
            reason = str(error)
    return start_platform("ptrace")[0], reason


def _make(name: str) -> Platform:
    if name == "notify":
        from .notify.platform import NotifyPlatform

        return NotifyPlatform()
    if name == "ptrace":
        from .ptrace.platform import PtracePlatform

        return PtracePlatform()
    raise ValueError(f"there is no platform {name!r}")


def _obstacle() -> str:
    """Say why notify would be wrong although it may start.

    Of all filters that a process is under the strictest decides, and ERRNO is stricter than a notification: what a
    container's profile refuses, the host would answer before we hear of it.
    """
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        mode = next((line.split()[1] for line in status if line.startswith("Seccomp:")), "0")
    if mode == _MODE_FILTER:
        return "this process is under a seccomp filter already, which would answer some of the guests' calls itself"
    return ""
