r"""greenroom: a Linux kernel in user space, in Python, that runs programs you do not trust.

>>> from greenroom import Sandbox
>>> with Sandbox.create() as sb:
...     sb.shell("echo hello | tr a-z A-Z").stdout
b'HELLO\n'
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes 2 ms to import, a twentieth of a `greenroom run` with a running supervisor
if TYPE_CHECKING:
    from typing import Any

    from .config.spec import BindMount, SandboxSpec
    from .messages.task_set import ProcessRow
    from .supervisor.errors import (
        CheckpointError,
        CommandFailed,
        ExecError,
        GreenroomError,
        NameInUse,
        ProcessLookupFailed,
        SandboxEnded,
        SandboxFailed,
        SandboxNotFound,
        SpecError,
        SupervisorError,
        TimedOut,
    )
    from .supervisor.program import Process, Result
    from .supervisor.sandbox import Sandbox, SandboxInfo, Snapshot

__version__ = "0.1.0"

__all__ = [
    "BindMount",
    "CheckpointError",
    "CommandFailed",
    "ExecError",
    "GreenroomError",
    "NameInUse",
    "Process",
    "ProcessLookupFailed",
    "ProcessRow",
    "Result",
    "Sandbox",
    "SandboxEnded",
    "SandboxFailed",
    "SandboxInfo",
    "SandboxNotFound",
    "SandboxSpec",
    "Snapshot",
    "SpecError",
    "SupervisorError",
    "TimedOut",
    "__version__",
]

#: Where each public name is. They are imported with their first use, so that importing greenroom costs nothing.
_HOMES = {
    "config.spec": ("BindMount", "SandboxSpec"),
    "messages.task_set": ("ProcessRow",),
    "supervisor.program": ("Process", "Result"),
    "supervisor.sandbox": ("Sandbox", "SandboxInfo", "Snapshot"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = next((module for module, names in _HOMES.items() if name in names), "supervisor.errors")
    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
