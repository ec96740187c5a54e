"""How a thread asks to be scheduled: policy, priorities and CPUs, which greenroom keeps and reports without acting.

Linux counterpart: what is visible of struct sched_entity and task_struct (kernel/sched/syscalls.c, block/ioprio.c).
The host schedules the host threads of the guest as it likes; what a program sets here it reads back.
"""

from __future__ import annotations

from typing import Final

from ...messages.base import owned

__all__ = ["SCHED_OTHER", "Scheduling"]

SCHED_OTHER: Final = 0


@owned
class Scheduling:
    """One thread's settings, as the calls that read them report them."""

    #: -20..19, as nice(1) prints it.
    nice: int = 0
    #: SCHED_* number, without SCHED_RESET_ON_FORK.
    policy: int = SCHED_OTHER
    #: 1..99 for SCHED_FIFO and SCHED_RR, else 0.
    priority: int = 0
    reset_on_fork: bool = False
    #: Bit n stands for CPU n; 0 for every CPU that the guest is shown.
    cpus: int = 0
    #: Class in the upper 3 of 16 bits, data below, as ioprio_get(2) returns it.
    io_priority: int = 0

    def for_child(self) -> Scheduling:
        """Return what a new thread or process starts with."""
        child = Scheduling(self.nice, self.policy, self.priority, self.reset_on_fork, self.cpus, self.io_priority)
        if self.reset_on_fork:
            child.reset_on_fork = False
            child.nice = max(self.nice, 0)
            if self.policy in (1, 2):  # SCHED_FIFO, SCHED_RR
                child.policy, child.priority = SCHED_OTHER, 0
        return child
