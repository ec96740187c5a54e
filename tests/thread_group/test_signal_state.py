"""What a process remembers about signals: queues, actions, siginfo_t, and that a save keeps all of it."""

from __future__ import annotations

import signal
import struct

import msgpack
from greenroom.actors.thread_group import siginfo as si
from greenroom.actors.thread_group.signal_state import (
    SA_NOCLDSTOP,
    SA_NOCLDWAIT,
    SIG_DFL,
    SIG_IGN,
    GroupSignals,
    Pending,
    Sigaction,
    SignalHandlers,
    SignalQueue,
)

_ALL = si.ALL_SIGNALS


def _pending(signo: int, code: int = si.SI_USER, value: int = 0) -> Pending:
    return Pending(signo, si.queued_siginfo(signo, code, 1, 2, value))


def _numbers(queue: SignalQueue, wanted: int = _ALL) -> list[int]:
    taken = []
    while (entry := queue.take(wanted)) is not None:
        taken.append(entry.signo)
    return taken


def test_constants_are_the_hosts() -> None:
    """Every SIG* of ours has the number that Linux gives it."""
    names = [name for name in vars(si) if name.startswith("SIG") and name in vars(signal)]
    assert len(names) > 25
    assert all(vars(si)[name] == getattr(signal, name).value for name in names if name != "SIGRTMIN")


def test_faults_come_first_then_the_lowest_number() -> None:
    queue = SignalQueue([_pending(number) for number in (15, 40, 1, 11, 40, 10)])
    assert _numbers(queue) == [11, 1, 10, 15, 40, 40]
    assert queue.bits == 0


def test_realtime_signals_keep_their_order() -> None:
    queue = SignalQueue()
    for value in (3, 1, 2):
        queue.add(_pending(40, si.SI_QUEUE, value))
    values = []
    while (entry := queue.take(_ALL)) is not None:
        values.append(struct.unpack_from("=Q", entry.siginfo, 24)[0])
    assert values == [3, 1, 2]


def test_only_wanted_signals_are_taken() -> None:
    queue = SignalQueue([_pending(2), _pending(3)])
    assert _numbers(queue, si.bit(3)) == [3]
    assert queue.bits == si.bit(2)


def test_a_fault_of_the_processor_overtakes_one_that_was_sent() -> None:
    """Linux takes the synchronous SIGSEGV before a SIGILL that somebody sent, though 4 < 11."""
    queue = SignalQueue([_pending(4), Pending(11, si.fault_siginfo(11, 1, 0x10))])
    first = queue.take_fault(_ALL)
    assert first is not None
    assert first.signo == 11
    assert queue.take_fault(_ALL) is None


def test_discard_clears_the_bit_only_of_what_went() -> None:
    queue = SignalQueue([_pending(18), _pending(19), _pending(40), _pending(40)])
    queue.discard(si.STOP_SIGNALS | si.bit(40))
    assert [entry.signo for entry in queue] == [18]
    assert queue.bits == si.bit(18)


def test_a_timers_signal_goes_with_it() -> None:
    queue = SignalQueue([_pending(40), Pending(40, b"", timer=7)])
    queue.discard_timer(7)
    assert [entry.timer for entry in queue] == [-1]


def test_exec_keeps_what_is_ignored() -> None:
    handlers = SignalHandlers()
    handlers[2] = Sigaction(handler=SIG_IGN, flags=1)
    handlers[3] = Sigaction(handler=0x1000, flags=4, restorer=0x2000, mask=7)
    handlers.reset(keep_ignored=True)
    assert handlers[2] == Sigaction(handler=SIG_IGN)
    assert handlers[3] == Sigaction(handler=SIG_DFL)


def test_a_copy_is_independent() -> None:
    handlers = SignalHandlers()
    copy = handlers.copy()
    copy[2] = Sigaction(handler=SIG_IGN)
    assert handlers[2].handler == SIG_DFL


def test_ignored_by_default() -> None:
    """SIGCHLD, SIGCONT, SIGURG and SIGWINCH do nothing unless caught."""
    handlers = SignalHandlers()
    assert [number for number in range(1, si.NSIG + 1) if handlers.ignores(number)] == [17, 18, 23, 28]


def test_child_disposition_follows_the_action_of_sigchld() -> None:
    handlers = SignalHandlers()
    assert handlers.child_disposition() == (False, False)
    handlers[si.SIGCHLD] = Sigaction(handler=SIG_IGN)
    assert handlers.child_disposition() == (True, False)
    handlers[si.SIGCHLD] = Sigaction(handler=0x1000, flags=SA_NOCLDWAIT | SA_NOCLDSTOP)
    assert handlers.child_disposition() == (True, True)


def test_state_survives_msgpack() -> None:
    """A save is plain data, and what comes back is equal to what went."""
    state = GroupSignals()
    state.pending.add(_pending(40, si.SI_QUEUE, 9))
    state.handlers[12] = Sigaction(0x1000, 4, 0x2000, 3)
    state.stopped, state.stop_signo, state.stop_reported = True, 20, True
    again = GroupSignals.of_state(msgpack.unpackb(msgpack.packb(state.state())))
    assert again.state() == state.state()
    assert again.pending.bits == state.pending.bits


def test_fault_shows_nothing_of_the_host() -> None:
    """Signal, code and address pass; whatever else the host put into its siginfo_t does not."""
    host = struct.pack("=iii4xQ", 11, 5, 1, 0xDEAD) + b"\xff" * 104
    assert si.clean_fault(host) == si.fault_siginfo(11, 1, 0xDEAD)
    key_error = struct.pack("=iii4xQ", 11, 0, 4, 0xDEAD) + b"\xff" * 104
    assert si.clean_fault(key_error)[32:40] == b"\xff\xff\xff\xff\0\0\0\0"
