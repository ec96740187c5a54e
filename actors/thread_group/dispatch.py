"""The life of a system call: from the platform's event through the handler, a wait if need be, and back to the guest.

Linux counterpart: do_syscall_64 and exit_to_user_mode_loop.  Every way into and out of a run state of a task is here:

* ``on_event``: the platform reports a stop; a system call goes through the table.
* ``complete``: a handler's outcome: a result, a park (Block, Petition), an asking generator, or NO_RESULT.
* ``wake``: what a parked task waited for may be there: its handler is called again.
* ``interrupt``: a signal or a stop wants the task; ``release``: a stop has ended.
* ``exit_to_user``: signals are delivered, stops honoured, and the host task resumed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ...config.logging import get_logger
from ...platform.interface import EventKind, HostTaskDied
from ...platform.x86_64.syscall_numbers import SYSCALL_NAMES
from . import exits, families, signals
from .table import TABLE
from .task import ERESTART_RESTARTBLOCK, NO_RESULT, Block, Petition, RunState, Task

if TYPE_CHECKING:
    from ...platform.interface import Event
    from .table import Entry
    from .worker import Worker

__all__ = [
    "complete",
    "exit_to_user",
    "interrupt",
    "is_quiet",
    "on_event",
    "release",
    "retry_held",
    "start",
    "unpark",
    "wake",
]

log = get_logger(__name__)

_ENOSYS: Final = -38
_RESTART_SYSCALL: Final = 219
# What every call looks at, without a look-up in its enumeration (0.06 us each).
_SYSCALL: Final = EventKind.SYSCALL
_RUNNING: Final = RunState.RUNNING


def on_event(task: Task, event: Event) -> None:
    """Handle one platform event of a live task."""
    kind, _host, number, args, siginfo = event
    if kind is _SYSCALL:
        if task.worker.syscall_log is not None:
            task.worker.syscall_log.entered(task)
        task.number = number
        task.args = args
        if task.memo and number != _RESTART_SYSCALL:
            # Only restart_syscall goes on from what an interrupted call has left; a hostile thread may have put
            # another call in its place.
            task.memo = {}
        if task.group.stop_epoch:
            _hold(task, ("syscall",))
            return
        call(task)
    elif kind is EventKind.STOPPED:
        exit_to_user(task, None)
    elif kind is EventKind.FAULT:
        if task.group.stop_epoch:
            _hold(task, ("fault", siginfo))
        else:
            signals.fault(task, siginfo)
            exit_to_user(task, None)
    else:
        exits.host_task_died(task, number)


def call(task: Task) -> None:
    """Run the handler of the task's system call and act on what it returns."""
    entry = TABLE.get(task.number) or families.find(task.number)
    if entry is None:
        _log_unsupported(task)
        complete(task, _ENOSYS)
        return
    try:
        outcome = entry.call(task, task.args)
    except OSError as error:
        outcome = -(error.errno or 5)
    except HostTaskDied:
        exits.host_task_died(task, 9)
        return
    complete(task, outcome)


def _log_unsupported(task: Task) -> None:
    number = task.number
    if number not in task.worker.unsupported_seen:
        task.worker.unsupported_seen.add(number)
        name = SYSCALL_NAMES.get(number, "unknown")
        log.info("unsupported system call", number=number, syscall=name, tgid=task.group.pid, command=task.command)


def complete(task: Task, outcome: Any) -> None:
    """Act on a handler's outcome."""
    if type(outcome) is int:
        if task.worker.syscall_log is not None:
            task.worker.syscall_log.left(task, outcome)
        if task.state is not _RUNNING:
            if task.state is RunState.DEAD:
                return  # the call has ended its own process: a signal to itself
            task.advance(_RUNNING)
        if task.memo:
            _forget_memo(task, outcome)
        if task.work or task.saved_sigmask is not None:
            exit_to_user(task, outcome)
        else:
            try:
                task.host.resume_with(outcome)
            except HostTaskDied:
                exits.host_task_died(task, 9)
    elif type(outcome) is Block:
        _park(task, outcome)
    elif type(outcome) is Petition:
        _petition(task, outcome)
    elif outcome is NO_RESULT:
        if task.worker.syscall_log is not None:
            task.worker.syscall_log.left(task, None)
        if task.state is not RunState.DEAD:
            task.memo = {}
            exit_to_user(task, None)
    elif hasattr(outcome, "send"):
        _ask(task, outcome)
    else:
        entry: Entry = TABLE[task.number]
        raise TypeError(f"{entry.name} returned {outcome!r}")


def _forget_memo(task: Task, result: int) -> None:
    if result != ERESTART_RESTARTBLOCK:
        task.memo = {}


# -- parking ----------------------------------------------------------------------------------------------------


def _park(task: Task, block: Block) -> None:
    task.advance(RunState.BLOCKED)
    task.block = block
    for file in block.files:
        file.hold()
    for fd, events in block.fds:
        task.worker.wait_for_fd(fd, events, task)
    for channel in block.channels:
        task.worker.wait_on(channel, task)
    if block.deadline_ns is not None:
        task.timer = task.worker.call_at(block.deadline_ns, partial(wake, task))
    if task.group.stop_epoch:
        task.group.check_stopped()
    elif task.work and signals.has_deliverable(task):
        interrupt(task)


def unpark(task: Task) -> None:
    """Take a parked task off whatever it waits on."""
    _let_go(_unpark(task))


def _unpark(task: Task) -> Block:
    """As ``unpark``, but the files of the returned Block stay held: the handler is called again first."""
    block = task.block
    assert block is not None
    for fd, _ in block.fds:
        task.worker.forget_fd(fd, task)
    for channel in block.channels:
        task.worker.forget(channel, task)
    if task.timer is not None:
        task.timer.cancel()
        task.timer = None
    task.block = None
    return block


def _let_go(block: Block) -> None:
    """Give up what a wait held open."""
    for file in block.files:
        file.release()


def _petition(task: Task, petition: Petition) -> None:
    if task.state is not RunState.PETITIONING:
        task.advance(RunState.PETITIONING)
    task.memo["petition_interruptible"] = petition.interruptible
    task.group.petition(task, petition.message, petition.fields)
    if task.work and petition.interruptible and signals.has_deliverable(task):
        task.group.cancel_petition(task)


def _ask(task: Task, asking: Any) -> None:
    if task.state is not RunState.ASKING:
        task.advance(RunState.ASKING)
    task.group.drive(asking, partial(_asked, task))


def _asked(task: Task, outcome: Any, error: BaseException | None) -> None:
    """The handler's generator has ended."""
    if task.state is RunState.DEAD:
        return
    if isinstance(error, OSError):
        outcome = -(error.errno or 5)
    elif isinstance(error, HostTaskDied):
        exits.host_task_died(task, 9)
        return
    elif error is not None:
        task.group.fail(error)
        return
    task.advance(RunState.RUNNING)
    complete(task, outcome)
    if task.group.stop_epoch:
        task.group.check_stopped()


def wake(task: Task) -> None:
    """Call a parked task's handler again, or remember to when a stop holds it."""
    block = None
    if task.state is RunState.BLOCKED:
        block = _unpark(task)
    elif task.state is not RunState.PETITIONING:
        return
    if task.group.stop_epoch:
        _hold(task, ("retry",))
    else:
        task.advance(RunState.RUNNING)
        call(task)
    if block is not None:
        _let_go(block)


def interrupt(task: Task) -> None:
    """Make a task look at its pending work: stop it if it runs, end its wait if a signal may."""
    task.work = True
    if task.state is RunState.RUNNING:
        task.host.interrupt()
    elif task.group.stop_epoch:
        return
    elif task.state is RunState.BLOCKED:
        _interrupt_block(task)
    elif task.state is RunState.PETITIONING and task.memo.get("petition_interruptible"):
        if signals.has_deliverable(task):
            task.group.cancel_petition(task)


def _interrupt_block(task: Task) -> None:
    block = task.block
    assert block is not None
    if block.uninterruptible or not signals.has_deliverable(task):
        return
    _unpark(task)
    task.advance(RunState.RUNNING)
    if block.recall_on_signal:
        task.interrupted = True
        call(task)
        task.interrupted = False
    else:
        complete(task, block.on_signal)
    _let_go(block)


# -- stops ------------------------------------------------------------------------------------------------------


def _hold(task: Task, how: tuple[Any, ...]) -> None:
    """Keep the task from running guest code until ``release``."""
    task.advance(RunState.HELD)
    task.held = how
    task.group.check_stopped()


def hold_for_job_control(task: Task, result: int | None) -> None:
    """A job-control stop (SIGSTOP and friends) holds a task on its way to user mode."""
    _hold(task, ("resume",) if result is None else ("return", result))


def is_quiet(task: Task) -> bool:
    """Return whether nothing happens in this task by itself: what a pause waits for."""
    return task.state in (RunState.HELD, RunState.BLOCKED, RunState.EMBRYO, RunState.PETITIONING)


def start(task: Task) -> None:
    """Let a new task run its first instruction, or hold it if a stop is in force."""
    if task.state is RunState.EMBRYO:
        if task.group.stop_epoch:
            _hold(task, ("resume",))
            return
        task.advance(RunState.RUNNING)
        exit_to_user(task, None)


def retry_held(worker: Worker) -> None:
    """A stop ends somewhere: calls that were woken in it, or restored, are called again before any guest code runs.

    Those that wait on are then back on their channels, and no wake-up of theirs is lost.  One that has an answer acts
    on it when its own process's stop ends.
    """
    for group in list(worker.groups.values()):
        for task in list(group.tasks.values()):
            waiting = task.state is RunState.HELD and task.held == ("retry",) and task.answer is None
            if waiting and not group.signals.stopped:
                task.held = None
                task.work = True
                task.advance(RunState.RUNNING)
                call(task)


def release(task: Task) -> None:
    """Let a held task go on as it would have; a parked one looks at its pending signals again."""
    if task.state is not RunState.HELD:
        interrupt_if_pending(task)
        return
    if task.group.signals.stopped or task.group.stop_epoch:
        return
    how = task.held
    assert how is not None
    task.held = None
    task.advance(RunState.RUNNING)
    if how[0] in ("syscall", "retry"):
        call(task)
    elif how[0] == "fault":
        signals.fault(task, how[1])
        exit_to_user(task, None)
    else:
        exit_to_user(task, how[1] if how[0] == "return" else None)


def interrupt_if_pending(task: Task) -> None:
    """Ending a stop rechecks pending signals."""
    if task.work and signals.has_deliverable(task):
        interrupt(task)


# -- back to the guest ------------------------------------------------------------------------------------------


def exit_to_user(task: Task, result: int | None) -> None:
    """Deliver signals, honour stops, and resume; *result* is the system call's, None when there is none."""
    group = task.group
    if group.exit_status is not None:
        exits.end_task(task)
        return
    if group.stop_epoch:
        _hold(task, ("resume",) if result is None else ("return", result))
        return
    task.work = False
    try:
        left = signals.deliver(task, result)
        if left is None:
            task.host.resume()
        elif left is not NO_RESULT:
            task.host.resume_with(left)
    except HostTaskDied:
        exits.host_task_died(task, 9)
