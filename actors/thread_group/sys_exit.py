"""exit(2) and exit_group(2).

Linux counterpart: kernel/exit.c.
"""

from __future__ import annotations

from . import exits
from .table import S32, syscall
from .task import NO_RESULT, Task

__all__: list[str] = []


@syscall(60)
def exit_(task: Task, status: S32) -> object:
    """exit(2): end the calling thread; the last thread's status is the process's. Never returns."""
    exits.exit_thread(task, (status & 0xFF) << 8)
    return NO_RESULT


@syscall(231)
def exit_group(task: Task, status: S32) -> object:
    """exit_group(2): end all threads of the process. Never returns."""
    exits.exit_group(task.group, (status & 0xFF) << 8)
    return NO_RESULT
