"""The descriptors that a sandbox's first process starts with: the host's own 0, 1 and 2.

Linux counterpart: what init inherits from the boot console.  The host's open file descriptions behind them are shared
with whoever started greenroom, so their flags are never changed: what can be is opened anew, non-blocking; the rest
is asked for readiness before each call.
"""

from __future__ import annotations

import os
import stat
from errno import EAGAIN
from select import POLLIN, POLLOUT
from typing import TYPE_CHECKING, ClassVar, Final

from .device import DEVICES
from .file_table import FileTable
from .open_file import ACCESS_MODE, O_LARGEFILE, Identity, OpenFile
from .pipe import PipeFile
from .regular_file import HostRegularFile
from .terminal import Terminal, acquire, adopt_host_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .actor import ThreadGroup
    from .task import Task
    from .worker import Worker

__all__ = ["HostStream", "adopt", "open_stdio"]

_TCGETS: Final = 0x5401
_TERMIOS_BYTES: Final = 36
#: What a pipe that polls as writable takes without waiting.
_PIPE_BUF: Final = 4096
#: st_dev of host files.
_HOST_DEV: Final = 3
_DEVICE_NAMES: Final = {
    1 << 8 | 3: b"/dev/null",
    1 << 8 | 5: b"/dev/zero",
    1 << 8 | 7: b"/dev/full",
    1 << 8 | 8: b"/dev/random",
    1 << 8 | 9: b"/dev/urandom",
}


class HostStream(OpenFile):
    """A host descriptor that cannot be opened anew: a socket, a pipe of another user, a device."""

    __slots__ = ()
    kind: ClassVar[str] = "host_stream"
    splice_source: ClassVar[bool] = True
    pollable: ClassVar[bool] = True
    piece_bytes: ClassVar[int] = _PIPE_BUF

    def pull(self, task: Task, count: int, offset: int | None) -> bytes:
        """Read if that does not wait. EAGAIN."""
        self._check(POLLIN)
        return self.worker.host.read(self.host_fd, count)

    def push(self, task: Task, data: bytes, offset: int | None) -> int:
        """Write if that does not wait. EAGAIN."""
        self._check(POLLOUT)
        if stat.S_ISSOCK(self.mode):
            return self.worker.host.send(self.host_fd, data)
        return self.worker.host.write(self.host_fd, data)

    def _check(self, events: int) -> None:
        if not self.worker.host.poll(((self.host_fd, events),)):
            raise BlockingIOError(EAGAIN, "")


def open_stdio(group: ThreadGroup, fds: Sequence[int], terminal: bool) -> None:
    """Give *group* a descriptor table with the host descriptors *fds* as 0, 1, 2...; -1 stays closed.

    The host descriptors become ours.  *terminal*: descriptor 0 is the controlling terminal.
    """
    table = group.files = FileTable(group.group)
    terminals: dict[int, OpenFile] = {}
    for number, fd in enumerate(fds):
        if fd >= 0:
            owner = (group.credentials.fsuid, group.credentials.fsgid)
            table.put(group, number, adopt(group.worker, number, fd, terminals, owner))
    first = table.find(0)
    if terminal and isinstance(first, Terminal):
        acquire(group, first.device, group.pid)


def adopt(worker: Worker, number: int, fd: int, terminals: dict[int, OpenFile], owner: tuple[int, int]) -> OpenFile:
    """Return the open file of host descriptor *fd*, which becomes ours, as standard stream *number*.

    *owner* is its (uid, gid); *terminals* are those adopted with it.
    """
    file = _adopt(worker, number, fd, terminals, owner)
    if file.host_fd >= 0:
        worker.files.standard.setdefault(file.ino, number)
    return file


def _adopt(worker: Worker, number: int, fd: int, terminals: dict[int, OpenFile], owner: tuple[int, int]) -> OpenFile:
    status = worker.host.file_status(fd)
    mode, rdev = status[2], status[6]
    flags = worker.host.file_flags(fd) & (ACCESS_MODE | O_LARGEFILE | os.O_APPEND)
    identity = Identity(
        mode=mode,
        ino=worker.files.new_ino(),
        dev=_HOST_DEV,
        rdev=rdev,
        uid=owner[0],
        gid=owner[1],
    )
    identity.path = _name(mode, rdev, identity.ino, number)
    if stat.S_ISREG(mode):
        return HostRegularFile(worker, identity, flags, fd)
    if stat.S_ISCHR(mode) and rdev in DEVICES:
        worker.host.close(fd)
        return DEVICES[rdev](worker, identity, flags)
    if stat.S_ISCHR(mode) and _is_terminal(worker, fd):
        return _adopt_terminal(worker, fd, flags, rdev, terminals, owner[0])
    if stat.S_ISFIFO(mode):
        fresh = _opened_anew(worker, fd, flags)
        if fresh >= 0:
            identity.path = b""
            return PipeFile(worker, identity, flags, fresh)
    return HostStream(worker, identity, flags, fd)


def _name(mode: int, rdev: int, ino: int, number: int) -> bytes:
    """Return what /proc/self/fd shows: as Linux, but for files of the host, whose names mean nothing in the sandbox."""
    if stat.S_ISSOCK(mode):
        return b"socket:[%d]" % ino
    if stat.S_ISFIFO(mode):
        return b"pipe:[%d]" % ino
    return _DEVICE_NAMES.get(rdev, b"host:[%d]" % number) if stat.S_ISCHR(mode) else b"host:[%d]" % number


def _adopt_terminal(
    worker: Worker, fd: int, flags: int, rdev: int, terminals: dict[int, OpenFile], uid: int
) -> OpenFile:
    """All descriptors of one terminal are one open file, as a login shell has them."""
    key = rdev << 2 | flags & ACCESS_MODE
    if key in terminals:
        worker.host.close(fd)
        return terminals[key].hold()
    fresh = _opened_anew(worker, fd, flags)
    if fresh < 0:
        identity = Identity(mode=stat.S_IFCHR | 0o620, ino=worker.files.new_ino(), dev=_HOST_DEV, rdev=rdev)
        return HostStream(worker, identity, flags, fd)
    file = terminals[key] = adopt_host_terminal(worker, fresh, flags, uid)
    return file


def _is_terminal(worker: Worker, fd: int) -> bool:
    try:
        worker.host.io_control(fd, _TCGETS, bytes(_TERMIOS_BYTES))
    except OSError:
        return False
    return True


def _opened_anew(worker: Worker, fd: int, flags: int) -> int:
    """Return a non-blocking description of the same file in place of *fd*, which is closed; -1 when refused."""
    try:
        fresh = worker.host.reopen(fd, flags & ACCESS_MODE | os.O_NONBLOCK)
    except OSError:
        return -1
    worker.host.close(fd)
    return fresh
