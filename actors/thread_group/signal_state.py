"""What a process remembers about signals: queues of pending ones, the table of actions, the job-control stop.

Linux counterpart: struct sigpending, struct sighand_struct, and the signal part of struct signal_struct.  Plain data,
with the state of each for a save.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import siginfo as si
from .siginfo import NSIG, SIGCHLD, SIGRTMIN, bit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .signal_file import SignalFile

__all__ = ["GroupSignals", "Pending", "Sigaction", "SignalHandlers", "SignalQueue"]

SIG_DFL: Final = 0
SIG_IGN: Final = 1

SA_NOCLDSTOP: Final = 1
SA_NOCLDWAIT: Final = 2
SA_SIGINFO: Final = 4
SA_EXPOSE_TAGBITS: Final = 0x800
SA_RESTORER: Final = 0x0400_0000
SA_ONSTACK: Final = 0x0800_0000
SA_RESTART: Final = 0x1000_0000
SA_NODEFER: Final = 0x4000_0000
SA_RESETHAND: Final = 0x8000_0000

#: POSIX timer that a pending signal belongs to when it belongs to none.
NO_TIMER: Final = -1


class Pending(NamedTuple):
    """A queued signal."""

    signo: int
    siginfo: bytes
    #: Id of the POSIX timer that sent it, or NO_TIMER.
    timer: int = NO_TIMER


class SignalQueue:
    """Pending signals of a thread or of a process: standard ones once each, realtime ones in the order sent."""

    __slots__ = ("_entries", "bits")

    def __init__(self, entries: list[Pending] | None = None) -> None:
        self._entries = entries or []
        #: The set of queued signals.
        self.bits = 0
        if entries:
            self._count_bits()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Pending]:
        return iter(self._entries)

    def add(self, entry: Pending) -> None:
        """Queue a signal, behind those of its number."""
        self._entries.append(entry)
        self.bits |= bit(entry.signo)

    def take(self, wanted: int) -> Pending | None:
        """Remove and return the next signal of the set *wanted*: faults first, then the lowest number."""
        ready = self.bits & wanted
        if not ready:
            return None
        ready = ready & si.SYNCHRONOUS or ready
        return self._pop((ready & -ready).bit_length())

    def take_fault(self, wanted: int) -> Pending | None:
        """Remove and return the first fault that the processor raised (a positive si_code)."""
        if not self.bits & wanted & si.SYNCHRONOUS:
            return None
        for index, entry in enumerate(self._entries):
            if bit(entry.signo) & wanted & si.SYNCHRONOUS and si.code_of(entry.siginfo) > 0:
                del self._entries[index]
                self._count_bits()
                return entry
        return None

    def _pop(self, signo: int) -> Pending:
        for index, entry in enumerate(self._entries):
            if entry.signo == signo:
                del self._entries[index]
                self._count_bits()
                return entry
        raise AssertionError("a bit stands for a queued signal")

    def discard(self, unwanted: int) -> None:
        """Forget all queued signals of a set."""
        if self.bits & unwanted:
            self._entries = [entry for entry in self._entries if not bit(entry.signo) & unwanted]
            self._count_bits()

    def discard_timer(self, timer: int) -> None:
        """Forget the signal of a POSIX timer."""
        self._entries = [entry for entry in self._entries if entry.timer != timer]
        self._count_bits()

    def _count_bits(self) -> None:
        self.bits = 0
        for entry in self._entries:
            self.bits |= bit(entry.signo)

    def state(self) -> list[tuple[int, bytes, int]]:
        """Return plain data for a save."""
        return [(entry.signo, entry.siginfo, entry.timer) for entry in self._entries]

    @classmethod
    def of_state(cls, state: list[Any]) -> SignalQueue:
        """Inverse of ``state``."""
        return cls([Pending(*entry) for entry in state])


class Sigaction(NamedTuple):
    """struct kernel_sigaction."""

    handler: int = SIG_DFL
    flags: int = 0
    restorer: int = 0
    mask: int = 0


_DEFAULT: Final = Sigaction()
_IGNORED: Final = Sigaction(handler=SIG_IGN)
#: The actions of a new program. Never changed.
_DEFAULTS: Final = [_DEFAULT] * (NSIG + 1)


class SignalHandlers:
    """The actions of all signals; shared by processes that were cloned with CLONE_SIGHAND."""

    __slots__ = ("_actions", "_shared")

    def __init__(self, actions: list[Sigaction] | None = None) -> None:
        self._actions = actions or _DEFAULTS
        #: A copy has the same list, which nobody changes therefore.
        self._shared = actions is None

    def __getitem__(self, signo: int) -> Sigaction:
        return self._actions[signo]

    def __setitem__(self, signo: int, action: Sigaction) -> None:
        if self._shared:
            self._actions, self._shared = self._actions.copy(), False
        self._actions[signo] = action

    def copy(self) -> SignalHandlers:
        """Return an independent copy, as fork does."""
        copy = SignalHandlers(self._actions)
        copy._shared = self._shared = True
        return copy

    def reset(self, *, keep_ignored: bool) -> None:
        """Set every signal to its default action; ignored ones stay so if told (flush_signal_handlers)."""
        if self._actions is _DEFAULTS:
            return
        actions = _DEFAULTS
        if keep_ignored and any(action.handler == SIG_IGN for action in self._actions):
            actions = [_IGNORED if action.handler == SIG_IGN else _DEFAULT for action in self._actions]
        self._actions, self._shared = actions, actions is _DEFAULTS

    def ignores(self, signo: int) -> bool:
        """Return whether the signal's action is to do nothing."""
        handler = self._actions[signo].handler
        return handler == SIG_IGN or (handler == SIG_DFL and bool(bit(signo) & si.IGNORED_BY_DEFAULT))

    def child_disposition(self) -> tuple[bool, bool]:
        """Return (children leave no zombie, stopped children send no signal), as SIGCHLD's action says."""
        action = self._actions[SIGCHLD]
        ignored = action.handler == SIG_IGN or bool(action.flags & SA_NOCLDWAIT)
        return ignored, bool(action.flags & SA_NOCLDSTOP)

    def state(self) -> list[tuple[int, int, int, int]]:
        """Return plain data for a save."""
        return [(a.handler, a.flags, a.restorer, a.mask) for a in self._actions]

    @classmethod
    def of_state(cls, state: list[Any]) -> SignalHandlers:
        """Inverse of ``state``."""
        return cls([Sigaction(*action) for action in state])


class GroupSignals:
    """The signal state of a process."""

    __slots__ = ("handlers", "pending", "stop_reported", "stop_signo", "stopped", "watchers")

    def __init__(self) -> None:
        #: Signals sent to the process as a whole.
        self.pending = SignalQueue()
        self.handlers = SignalHandlers()
        #: A job-control stop is in force (or on its way: tasks are still being held).
        self.stopped = False
        self.stop_signo = 0
        #: TaskSet was told that the stop is complete.
        self.stop_reported = False
        #: The signalfds that watch the queues; they enter themselves.
        self.watchers: list[SignalFile] = []

    def state(self) -> dict[str, Any]:
        """Return plain data for a save."""
        return {
            "pending": self.pending.state(),
            "handlers": self.handlers.state(),
            "stopped": self.stopped,
            "stop_signo": self.stop_signo,
            "stop_reported": self.stop_reported,
        }

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> GroupSignals:
        """Inverse of ``state``."""
        made = cls()
        made.pending = SignalQueue.of_state(state["pending"])
        made.handlers = SignalHandlers.of_state(state["handlers"])
        made.stopped, made.stop_signo = state["stopped"], state["stop_signo"]
        made.stop_reported = state["stop_reported"]
        return made


def is_realtime(signo: int) -> bool:
    """Return whether more than one of the signal may be queued."""
    return signo >= SIGRTMIN
