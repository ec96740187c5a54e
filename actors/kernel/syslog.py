"""The kernel log that dmesg(1) shows.

Linux counterpart: kernel/printk/printk.c; the idea is pkg/sentry/kernel/syslog.go, which amuses whoever looks.  The
log is the same at every boot of the same sandbox: its choice and its times come from the sandbox's name.
"""

from __future__ import annotations

import random
from typing import Final

__all__ = ["make_log"]

_OPENING: Final = "Starting greenroom..."
_CLOSING: Final = "Ready for the show."
_LINES: Final = (
    "Dimming the house lights...",
    "Checking the props: one pipe, one socket, one fork...",
    "Prompter found the missing semicolon",
    "Rehearsing the page fault scene...",
    "Feeding the init monkeys, they are not really there",
    "Sweeping orphans off the stage...",
    "Asking the zombies to wait in the wings...",
    "Tuning the monotonic clock to A440",
    "Locks not found; messages will do",
    "Understudy for CPU 1 is CPU 0",
    "Letting the watchdog out...",
    "Checking naughty and nice process list...",
)
#: Of how many lines the log tells.
_LINE_COUNT: Final = 6
#: Linux's KERN_INFO.
_LEVEL: Final = 6


def make_log(sandbox: str) -> bytes:
    """Return the log of the sandbox of that name, in the format of syslog(2)'s SYSLOG_ACTION_READ_ALL."""
    chance = random.Random(sandbox)  # noqa: S311  # a choice of jokes
    now = 0.0
    lines = []
    for text in (_OPENING, *chance.sample(_LINES, _LINE_COUNT), _CLOSING):
        lines.append(f"<{_LEVEL}>[{now:11.6f}] {text}\n")
        now += chance.random() / 2
    return "".join(lines).encode()
