"""A task: one guest thread, its registers' keeper and everything that it remembers while it waits.

Linux counterpart: struct task_struct.  Tasks are plain state of their ThreadGroup; their run states and the only writer
of them are here.  What a blocked call must remember is in ``Task.memo``: plain data, so it can be saved.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from ...config.limits import ARGUMENT_COUNT
from ...messages.base import owned
from .scheduling import Scheduling

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ...messages.base import Message
    from ...messages.mount_namespace import Credentials as FileCredentials
    from ...messages.thread_group import Answer
    from ...platform.interface import HostTask
    from .actor import ThreadGroup
    from .memory import MemoryManager
    from .open_file import OpenFile
    from .worker import Worker

__all__ = [
    "ERESTARTNOHAND",
    "ERESTARTNOINTR",
    "ERESTARTSYS",
    "ERESTART_RESTARTBLOCK",
    "NO_RESULT",
    "Block",
    "Petition",
    "RunState",
    "Task",
]

# Results that no guest ever sees (include/linux/errno.h): the next signal decides what becomes of the call.
ERESTARTSYS: Final = -512  #: restart if the handler has SA_RESTART, else EINTR
ERESTARTNOINTR: Final = -513  #: restart always
ERESTARTNOHAND: Final = -514  #: restart if no handler runs, else EINTR
ERESTART_RESTARTBLOCK: Final = -516  #: as ERESTARTNOHAND, but continue with the remaining time (memo)


class _NoResult(enum.Enum):
    NO_RESULT = 0


#: The handler has set the registers itself; resume (or do not: the task is gone) without a result.
NO_RESULT: Final = _NoResult.NO_RESULT


@owned
class Block:
    """Park the task until something wakes it; then its handler is called again with the same arguments.

    The handler must be ready for spurious wake-ups: it looks again and may return a Block again.
    """

    #: Host descriptors (with the open file that keeps each alive, if any) and the EPOLL* events that wake.
    fds: tuple[tuple[int, int], ...] = ()
    #: Open files that must not be closed under the wait.
    files: "tuple[OpenFile, ...]" = ()  # noqa: UP037  # evaluated when it is compiled
    #: Channels that wake: any hashable, see Worker.wake.
    channels: "tuple[Hashable, ...]" = ()  # noqa: UP037  # evaluated when it is compiled
    #: Guest CLOCK_MONOTONIC in ns at which to wake, or None.
    deadline_ns: int | None = None
    #: The result when a signal interrupts; one of the ERESTART* above or a value (a partial count).
    on_signal: int = ERESTARTSYS
    #: Call the handler once more with ``task.interrupted`` set instead; it must not block then.
    recall_on_signal: bool = False
    #: Signals do not interrupt (only SIGKILL does): vfork's wait and the like.
    uninterruptible: bool = False


@owned
class Petition:
    """Park the task until its superior has answered.

    *message* is told to TaskSet; its fields group, tid and petition are filled in by the dispatcher, which is why the
    message is given as a class and fields.  The handler is called again with ``task.answer`` set.
    """

    message: "type[Message]"  # noqa: UP037  # evaluated when it is compiled
    fields: dict[str, Any]
    #: A signal interrupts this wait: the dispatcher tells TaskSet WaitCancel and waits for the answer all the same.
    interruptible: bool = False


class RunState(enum.Enum):
    """What a task is doing, as its ThreadGroup sees it."""

    EMBRYO = "embryo"  #: created, not started yet
    RUNNING = "running"  #: its host task runs guest code, or its system call is being handled right now
    BLOCKED = "blocked"  #: parked on a Block
    PETITIONING = "petitioning"  #: parked until TaskSet answers
    ASKING = "asking"  #: its handler waits for an answer of bounded duration
    HELD = "held"  #: stopped by a pause or by job control; ``Task.held`` says how it goes on
    DEAD = "dead"

    #: By identity: Enum's own is a function in Python, and every call of a guest changes states.
    __hash__ = object.__hash__


_R = RunState
#: Allowed transitions; the diagram in ARCHITECTURE.md is drawn from it.
TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    _R.EMBRYO: frozenset({_R.RUNNING, _R.HELD, _R.DEAD, _R.BLOCKED, _R.PETITIONING}),
    _R.RUNNING: frozenset({_R.BLOCKED, _R.PETITIONING, _R.ASKING, _R.HELD, _R.DEAD}),
    _R.BLOCKED: frozenset({_R.RUNNING, _R.HELD, _R.DEAD}),
    _R.PETITIONING: frozenset({_R.RUNNING, _R.HELD, _R.DEAD}),
    _R.ASKING: frozenset({_R.RUNNING, _R.DEAD}),
    _R.HELD: frozenset({_R.RUNNING, _R.DEAD}),
    _R.DEAD: frozenset(),
}


class Task:
    """One guest thread. Owned by its ThreadGroup; no other actor touches it."""

    __slots__ = (
        "altstack",
        "answer",
        "args",
        "block",
        "clear_child_tid",
        "command",
        "file_credentials",
        "group",
        "held",
        "host",
        "interrupted",
        "memo",
        "memory",
        "number",
        "pending",
        "petition",
        "petition_interrupted",
        "robust_list",
        "saved_sigmask",
        "scheduling",
        "sigmask",
        "start_ns",
        "state",
        "tid",
        "timer",
        "vfork_parent",
        "work",
        "worker",
    )

    def __init__(
        self, group: ThreadGroup, tid: int, host: HostTask, memory: MemoryManager, cloner: Task | None = None
    ) -> None:
        """*cloner* is whose clone it is, which passes on mask, name and scheduling."""
        self.group = group
        self.worker: Worker = group.worker
        self.tid = tid
        self.host = host
        self.memory = memory
        self.state = RunState.EMBRYO
        #: The system call in progress.
        self.number = -1
        self.args: tuple[int, ...] = (0,) * ARGUMENT_COUNT
        #: What the call in progress remembers between its handler's calls; cleared when it ends.
        self.memo: dict[str, Any] = {}
        self.block: Block | None = None
        self.timer: Any = None
        self.interrupted = False
        #: Number of the last petition, whether a signal asked to cancel it, and its answer when it has come.
        self.petition = 0
        self.petition_interrupted = False
        self.answer: Answer | None = None
        #: How a HELD task goes on: ("syscall",) run the call, ("return", value), ("resume",), ("fault", siginfo),
        #: ("retry",).
        self.held: tuple[Any, ...] | None = None
        #: Something is to be done before guest code runs again (a signal, a stop): Linux's TIF_SIGPENDING and friends.
        self.work = False
        # -- signals: bit n-1 stands for signal n
        self.sigmask: int = 0 if cloner is None else cloner.sigmask
        #: Mask to restore when sigsuspend, ppoll... end, or None.
        self.saved_sigmask: int | None = None
        #: Signals queued to this thread: a signals.SignalQueue.
        self.pending: Any = None
        #: sigaltstack: (address, flags, size).
        self.altstack = (0, 2, 0)
        # -- threads
        self.clear_child_tid = 0
        self.robust_list = (0, 0)
        self.command: str = "" if cloner is None else cloner.command
        #: The (group serial, tid) that waits until we exec or exit, for vfork.
        self.vfork_parent: tuple[int, int] | None = None
        self.start_ns = 0
        #: What MountNamespace was told last of the caller, and of which values it was made.
        self.file_credentials: tuple[tuple[Any, ...], FileCredentials] | None = None
        self.scheduling: Scheduling = Scheduling() if cloner is None else cloner.scheduling.for_child()

    def advance(self, new: RunState) -> None:
        """Change the run state; AssertionError for a transition that the table does not know."""
        assert new in TRANSITIONS[self.state], f"task {self.tid}: {self.state.value} -> {new.value}"
        self.state = new

    def take_answer(self) -> Answer | None:
        """Return the petition's answer if the handler is called again because of it. OSError when it is an errno."""
        answer, self.answer = self.answer, None
        if answer is not None and answer.errno:
            raise OSError(answer.errno, "")
        return answer
