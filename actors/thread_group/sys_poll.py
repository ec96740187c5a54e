"""Waiting for descriptors: poll, select, epoll.

Linux counterpart: fs/select.c, fs/eventpoll.c.  Readiness is the host's: one host poll that does not wait, and when
nothing is ready a Block on the same host descriptors.  Files that are always ready are answered here.
"""

from __future__ import annotations

import os
import struct
from errno import EBADF, EFAULT, EINVAL, EPERM
from select import (
    EPOLLIN,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLNVAL,
    POLLOUT,
    POLLPRI,
    POLLRDBAND,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
)
from typing import TYPE_CHECKING, Any, Final

from . import signals
from .epoll_file import EpollFile
from .limits import Resource
from .sys_time import monotonic_deadline, pack_timespec, read_timespec
from .table import S32, U32, U64, Address, syscall
from .task import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, Block

if TYPE_CHECKING:
    from .open_file import OpenFile
    from .task import Task

_NS: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000
_NS_PER_US: Final = 1_000
_EINTR: Final = -4
_SIGSET_BYTES: Final = 8
_ALWAYS: Final = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM
_UNFILTERED: Final = POLLERR | POLLHUP | POLLNVAL
_POLLFD: Final = struct.Struct("<iHH")
_TIMEVAL: Final = struct.Struct("<qq")

#: (descriptor, wanted POLL* events) pairs.
Wanted = list[tuple[int, int]]


# -- what poll and select share -------------------------------------------------------------------------------------


def _scan(task: Task, wanted: Wanted) -> tuple[list[int], dict[int, int], list[OpenFile]]:
    """Return each pair's ready events, and what to wait for: host descriptors with events, and their files."""
    find = task.group.files.find
    files: list[OpenFile] = []
    waits: dict[int, int] = {}
    ready: list[int] = []
    for fd, events in wanted:
        file = find(fd) if fd >= 0 else None
        if file is None or file.flags & os.O_PATH:
            ready.append(POLLNVAL if fd >= 0 else 0)
        elif file.pollable and file.host_fd >= 0:
            waits[file.host_fd] = waits.get(file.host_fd, 0) | events
            files.append(file)
            ready.append(-file.host_fd - 1)
        else:
            ready.append(events & _ALWAYS)
    if waits:
        found = dict(task.worker.host.poll(tuple(waits.items())))
        for index, value in enumerate(ready):
            if value < 0:
                ready[index] = found.get(-value - 1, 0) & (wanted[index][1] | _UNFILTERED)
    return ready, waits, files


def _deadline(task: Task, timeout_ns: int | None) -> int | None:
    """Return when the wait ends (guest CLOCK_MONOTONIC), fixed at the first call; None: never."""
    if timeout_ns is None:
        return None
    if "deadline" not in task.memo:
        task.memo["deadline"] = monotonic_deadline(task, timeout_ns)
    deadline: int = task.memo["deadline"]
    return deadline


def _is_over(task: Task, deadline_ns: int | None) -> bool:
    return deadline_ns is not None and task.worker.clock.monotonic_ns() >= deadline_ns


def _use_sigmask(task: Task, address: int, size: int) -> None:
    """Wait under another signal mask, as sigsuspend does. EFAULT, EINVAL."""
    if not address or "masked" in task.memo:
        return
    if size != _SIGSET_BYTES:
        raise OSError(EINVAL, "")
    mask = task.memory.read_u64(address)
    task.memo["masked"] = True
    task.saved_sigmask = task.sigmask
    signals.set_sigmask(task, mask)


def _restore_sigmask(task: Task) -> None:
    """The call ends by itself: the mask goes back before signals are looked at."""
    if task.saved_sigmask is not None:
        mask, task.saved_sigmask = task.saved_sigmask, None
        signals.set_sigmask(task, mask)


def _block(task: Task, waits: dict[int, int], files: list[OpenFile], deadline: int | None, on_signal: int) -> Block:
    return Block(
        fds=tuple(waits.items()),
        files=tuple(files),
        deadline_ns=deadline,
        on_signal=on_signal,
        recall_on_signal=on_signal == ERESTARTNOHAND,
    )


def _left_ns(task: Task, deadline_ns: int) -> int:
    return max(0, deadline_ns - task.worker.clock.monotonic_ns())


# -- poll -----------------------------------------------------------------------------------------------------------


@syscall(7)
def poll(task: Task, fds: Address, count: U32, timeout_ms: S32) -> Any:
    """poll(2): wait for events on descriptors. EFAULT, EINTR, EINVAL for more descriptors than RLIMIT_NOFILE."""
    timeout = None if timeout_ms < 0 else timeout_ms * _NS_PER_MS
    return _poll(task, fds, count, timeout, ERESTART_RESTARTBLOCK)


@syscall(271)
def ppoll(task: Task, fds: Address, count: U32, timeout: Address, sigmask: Address, size: U64) -> Any:
    """ppoll(2): poll with a timespec and a signal mask. EFAULT, EINTR, EINVAL."""
    timeout_ns = read_timespec(task, timeout) if timeout else None
    _use_sigmask(task, sigmask, size)
    result = _poll(task, fds, count, timeout_ns, ERESTARTNOHAND)
    if type(result) is int:
        _finish(task, result, timeout, timeout_ns, pack_timespec)
    return result


def _poll(task: Task, address: int, count: int, timeout_ns: int | None, on_signal: int) -> Any:
    if count > task.group.limits.soft(Resource.NOFILE):
        raise OSError(EINVAL, "")
    data = task.memory.read(address, count * _POLLFD.size)
    entries = list(_POLLFD.iter_unpack(data))
    ready, waits, files = _scan(task, [(fd, events) for fd, events, _ in entries])
    found = sum(1 for events in ready if events)
    deadline = _deadline(task, timeout_ns)
    if found or timeout_ns == 0 or _is_over(task, deadline):
        pack = _POLLFD.pack
        filled = b"".join([pack(fd, events, r) for (fd, events, _), r in zip(entries, ready, strict=True)])
        task.memory.write(address, filled)
        return found
    if task.interrupted:
        return on_signal
    return _block(task, waits, files, deadline, on_signal)


def _finish(task: Task, result: int, address: int, timeout_ns: int | None, pack: Any) -> None:
    """poll_select_finish: the old mask unless a signal is to be delivered first, and the time that is left."""
    if result != ERESTARTNOHAND:
        _restore_sigmask(task)
    if not address or timeout_ns is None:
        return
    left = _left_ns(task, task.memo["deadline"]) if timeout_ns else 0
    try:
        task.memory.write(address, pack(left))
    except OSError:
        # Linux, too, keeps the result when the time left cannot be stored (a timeout in read-only memory).
        return


# -- select ---------------------------------------------------------------------------------------------------------

_IN_EVENTS: Final = POLLIN | POLLRDNORM | POLLRDBAND
_OUT_EVENTS: Final = POLLOUT | POLLWRNORM | POLLWRBAND
_SELECT_EVENTS: Final = (_IN_EVENTS, _OUT_EVENTS, POLLPRI)
_SELECT_READY: Final = (_IN_EVENTS | POLLHUP | POLLERR, _OUT_EVENTS | POLLERR, POLLPRI)


@syscall(23)
def select(task: Task, count: S32, read: Address, write: Address, special: Address, timeout: Address) -> Any:
    """select(2): wait for events on sets of descriptors. EBADF, EFAULT, EINTR, EINVAL."""
    timeout_ns = _read_timeval(task, timeout) if timeout else None
    result = _select(task, count, (read, write, special), timeout_ns)
    if type(result) is int:
        _finish(task, result, timeout, timeout_ns, _pack_timeval)
    return result


@syscall(270)
def pselect6(
    task: Task, count: S32, read: Address, write: Address, special: Address, timeout: Address, sigmask: Address
) -> Any:
    """pselect(2): select with a timespec and a signal mask. EBADF, EFAULT, EINTR, EINVAL."""
    timeout_ns = read_timespec(task, timeout) if timeout else None
    if sigmask:
        mask_address, size = struct.unpack("<QQ", task.memory.read(sigmask, 16))
        _use_sigmask(task, mask_address, size)
    result = _select(task, count, (read, write, special), timeout_ns)
    if type(result) is int:
        _finish(task, result, timeout, timeout_ns, pack_timespec)
    return result


def _read_timeval(task: Task, address: int) -> int:
    seconds, microseconds = _TIMEVAL.unpack(task.memory.read(address, _TIMEVAL.size))
    seconds += microseconds // 1_000_000
    if seconds < 0 or microseconds < 0:
        raise OSError(EINVAL, "")
    return int(seconds * _NS + microseconds % 1_000_000 * _NS_PER_US)


def _pack_timeval(time_ns: int) -> bytes:
    seconds, rest = divmod(time_ns, _NS)
    return _TIMEVAL.pack(seconds, rest // _NS_PER_US)


def _select(task: Task, count: int, sets: tuple[int, int, int], timeout_ns: int | None) -> Any:
    if count < 0:
        raise OSError(EINVAL, "")
    count = min(count, max(task.group.files.descriptors(), default=-1) + 64)
    length = (count + 63) // 64 * 8
    bits = [int.from_bytes(task.memory.read(a, length), "little") & (1 << count) - 1 if a else 0 for a in sets]
    wanted = _wanted(task, count, bits)
    ready, waits, files = _scan(task, wanted)
    out, found = _sort_out(wanted, ready, bits)
    deadline = _deadline(task, timeout_ns)
    if found or timeout_ns == 0 or _is_over(task, deadline):
        for address, value in zip(sets, out, strict=True):
            if address:
                task.memory.write(address, value.to_bytes(length, "little"))
        return found
    if task.interrupted:
        return ERESTARTNOHAND
    return _block(task, waits, files, deadline, ERESTARTNOHAND)


def _wanted(task: Task, count: int, bits: list[int]) -> Wanted:
    """Turn the sets into descriptors with events. EBADF for one that is not open."""
    wanted: Wanted = []
    everything = bits[0] | bits[1] | bits[2]
    for fd in range(min(count, everything.bit_length())):
        if everything >> fd & 1:
            if task.group.files.find(fd) is None:
                raise OSError(EBADF, "")
            wanted.append((fd, sum(e for e, s in zip(_SELECT_EVENTS, bits, strict=True) if s >> fd & 1)))
    return wanted


def _sort_out(wanted: Wanted, ready: list[int], bits: list[int]) -> tuple[list[int], int]:
    """Return the three sets of what is ready, and how many bits they have."""
    out, found = [0, 0, 0], 0
    for (fd, _), events in zip(wanted, ready, strict=True):
        for index, means_ready in enumerate(_SELECT_READY):
            if events & means_ready and bits[index] >> fd & 1:
                out[index] |= 1 << fd
                found += 1
    return out, found


# -- epoll ----------------------------------------------------------------------------------------------------------

_EPOLL_EVENT: Final = struct.Struct("<IQ")
_ADD, _DELETE, _MODIFY = 1, 2, 3
_MAX_EVENTS: Final = 0x7FFFFFFF // _EPOLL_EVENT.size
#: Events of one answer; more come with the next call.
_MAX_ANSWER: Final = 1024
_EPOLLEXCLUSIVE: Final = 1 << 28
_EXCLUSIVE_OK: Final = 0xB800001D


@syscall(213)
def epoll_create(task: Task, size: S32) -> int:
    """epoll_create(2): EINVAL for a size that is not positive, EMFILE."""
    if size <= 0:
        raise OSError(EINVAL, "")
    return task.group.files.add(task.group, EpollFile(task.worker))


@syscall(291)
def epoll_create1(task: Task, flags: S32) -> int:
    """epoll_create1(2): an epoll instance. EINVAL, EMFILE."""
    if flags & ~os.O_CLOEXEC:
        raise OSError(EINVAL, "")
    return task.group.files.add(task.group, EpollFile(task.worker), close_on_exec=bool(flags & os.O_CLOEXEC))


def _epoll(task: Task, fd: int) -> EpollFile:
    file = task.group.files.get(fd)
    if not isinstance(file, EpollFile):
        raise OSError(EINVAL, "")
    return file


@syscall(233)
def epoll_ctl(task: Task, epoll: S32, operation: S32, fd: S32, event: Address) -> int:
    """epoll_ctl(2): change the interest list. EBADF, EEXIST, EFAULT, EINVAL, ELOOP, ENOENT, EPERM."""
    events = data = 0
    if operation != _DELETE:
        events, data = _EPOLL_EVENT.unpack(task.memory.read(event, _EPOLL_EVENT.size))
    instance, file = task.group.files.get(epoll), task.group.files.get(fd)
    if not file.pollable:
        raise OSError(EPERM, "")
    if not isinstance(instance, EpollFile):
        raise OSError(EINVAL, "")
    if events & _EPOLLEXCLUSIVE and (operation == _MODIFY or events & ~_EXCLUSIVE_OK or isinstance(file, EpollFile)):
        raise OSError(EINVAL, "")
    if operation == _ADD:
        instance.add(fd, file, events, data)
    elif operation == _MODIFY:
        instance.modify(fd, file, events, data)
    elif operation == _DELETE:
        instance.remove(fd, file)
    else:
        raise OSError(EINVAL, "")
    return 0


@syscall(232)
def epoll_wait(task: Task, epoll: S32, events: Address, count: S32, timeout_ms: S32) -> Any:
    """epoll_wait(2): wait for events. EBADF, EFAULT, EINTR, EINVAL."""
    return _epoll_wait(task, epoll, events, count, None if timeout_ms < 0 else timeout_ms * _NS_PER_MS)


@syscall(281)
def epoll_pwait(
    task: Task, epoll: S32, events: Address, count: S32, timeout_ms: S32, sigmask: Address, size: U64
) -> Any:
    """epoll_pwait(2): epoll_wait with a signal mask. EBADF, EFAULT, EINTR, EINVAL."""
    _use_sigmask(task, sigmask, size)
    return _unmasked(task, _epoll_wait(task, epoll, events, count, None if timeout_ms < 0 else timeout_ms * _NS_PER_MS))


@syscall(441)
def epoll_pwait2(
    task: Task, epoll: S32, events: Address, count: S32, timeout: Address, sigmask: Address, size: U64
) -> Any:
    """epoll_pwait2(2): epoll_pwait with a timespec. EBADF, EFAULT, EINTR, EINVAL."""
    timeout_ns = read_timespec(task, timeout) if timeout else None
    _use_sigmask(task, sigmask, size)
    return _unmasked(task, _epoll_wait(task, epoll, events, count, timeout_ns))


def _unmasked(task: Task, result: Any) -> Any:
    """A call that ends by itself puts the mask back before signals are looked at."""
    if type(result) is int:
        _restore_sigmask(task)
    return result


def _epoll_wait(task: Task, epoll: int, address: int, count: int, timeout_ns: int | None) -> Any:
    if not 0 < count <= _MAX_EVENTS:
        raise OSError(EINVAL, "")
    file = _epoll(task, epoll)
    count = min(count, _MAX_ANSWER)
    try:
        task.memory.check_writable(address, count * _EPOLL_EVENT.size)
    except OSError:
        # The array may be shorter than its declared length; what counts is whether the events that come fit.
        task.memory.check_writable(address, 1)
    ready = file.take(count)
    if ready:
        pack = _EPOLL_EVENT.pack
        data = b"".join([pack(events, value) for events, value in ready])
        if task.memory.write_partial(address, data) < len(data):
            raise OSError(EFAULT, "")
        return len(ready)
    deadline = _deadline(task, timeout_ns)
    if timeout_ns == 0 or _is_over(task, deadline):
        return 0
    return Block(fds=((file.host_fd, EPOLLIN),), files=(file,), deadline_ns=deadline, on_signal=_EINTR)
