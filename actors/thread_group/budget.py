"""How much may still be written to a file system in memory before its owner is asked again.

Linux counterpart: shmem_inode_acct_blocks (mm/shmem.c).  Workers write to memfds without a message, so MountNamespace
grants them bytes in large steps.  What is written is charged whether it makes the file grow or not: the next grant is
made after the true sizes, so that only the last step before the limit asks more often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...messages.mount_namespace import GrantSpace
from ..runtime.actor import Ask
from .table import TABLE

if TYPE_CHECKING:
    from ..runtime.actor import Asking
    from .task import Task

__all__ = ["Budget"]


class Budget:
    """The grant of one file system to this worker."""

    __slots__ = ("dev", "left")

    def __init__(self, dev: int) -> None:
        self.dev = dev
        #: Bytes.
        self.left = 0

    def ask_and_call_again(self, task: Task) -> Asking:
        """Ask for more, then run the task's system call anew."""
        request = GrantSpace(worker=task.worker.address, dev=self.dev)
        reply = yield Ask(task.group.mount_namespace, request)
        self.left = reply.granted
        task.memo["asked"] = True
        return TABLE[task.number].call(task, task.args)
