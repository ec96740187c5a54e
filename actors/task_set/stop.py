"""Stops of everything (pauses), and the end of everything.

Linux counterpart: the freezer (kernel/power/process.c).  Handles StopAll, ResumeAll, KillAll; asks groups StopTasks
and ResumeTasks.  A group that dies meanwhile counts as stopped; one that is born meanwhile is corrected at its
birth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...messages.thread_group import ResumeTasks, StopTasks
from ..runtime.actor import ActorFailed, Ask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..runtime.actor import Asking
    from .process import Process
    from .tree import ProcessTree

__all__ = ["change_epoch", "corrections"]


def change_epoch(tree: ProcessTree, epoch: int) -> Asking:
    """Stop every group in *epoch*, or let all go on (0); ends when all have answered, those born meanwhile too."""
    tree.epoch = epoch
    tree.changing_epoch = True
    try:
        while asks := corrections(tree, tree.alive()):
            for reply in (yield asks):
                if isinstance(reply, Exception) and not isinstance(reply, ActorFailed):
                    raise reply
    finally:
        tree.changing_epoch = False


def corrections(tree: ProcessTree, processes: Iterable[Process]) -> list[Ask]:
    """Return the asks that bring *processes* to the stop in force; they count as being there from now on."""
    asks = []
    for process in processes:
        if process.alive and process.epoch != tree.epoch:
            message = StopTasks(epoch=tree.epoch) if tree.epoch else ResumeTasks(epoch=process.epoch)
            process.epoch = tree.epoch
            asks.append(Ask(process.address, message))
    return asks
