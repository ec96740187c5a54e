"""Terminals: the host's, passed at start, and pseudo-terminals that the guest makes.

Linux counterpart: drivers/tty (tty_io.c, n_tty.c, tty_jobctrl.c, pty.c).  The line discipline is the host's: echo,
editing and settings are its work.  Job control is the guest's: who may read, and who gets the signals of Ctrl-C, is
decided here with TaskSet, because the host knows nothing of guest process groups.  Tells TaskSet TerminalSignal and
TerminalHangup, and MountNamespace TerminalSeen and TerminalGone; JobControl and Kill are petitions to TaskSet.
"""

from __future__ import annotations

import os
import stat
import struct
import termios
from errno import EIO, ENOTTY, ENXIO
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from ...messages.mount_namespace import TerminalGone, TerminalSeen
from ...messages.task_set import JobControl, Kill, TerminalHangup, TerminalSignal
from . import siginfo as si
from .open_file import ACCESS_MODE, Identity, OpenFile
from .task import ERESTARTSYS, Petition

if TYPE_CHECKING:
    from .actor import ThreadGroup
    from .task import Task
    from .worker import Worker

__all__ = [
    "HostTerminal",
    "PtyMaster",
    "Terminal",
    "acquire",
    "adopt_host_terminal",
    "is_host_terminal",
    "open_device",
]

#: Device number (/dev/console) under which the guest knows the terminal that its first process was started on.
HOST_TERMINAL: Final = 5 << 8 | 1
_CURRENT: Final = 5 << 8
_PTMX: Final = 5 << 8 | 2
_PTS_MAJOR: Final = 136
_TTY_MAJOR: Final = 4
#: No thread waits for the answer.
_NO_PETITION: Final = -1
_CONSOLE_PATH: Final = b"/dev/console"
_TERMIOS_BYTES: Final = 36
_TERMIO_BYTES: Final = 18
_TERMIOS2_BYTES: Final = 44
_WINSIZE_BYTES: Final = 8
_LFLAG: Final = struct.Struct("<12xI")
_CC_OFFSET: Final = 17

_TCGETS, _TCSETS, _TCSETSW, _TCSETSF = 0x5401, 0x5402, 0x5403, 0x5404
_TCGETA, _TCSETA, _TCSETAW, _TCSETAF = 0x5405, 0x5406, 0x5407, 0x5408
_TCSBRK, _TCXONC, _TCFLSH, _TIOCEXCL, _TIOCNXCL, _TIOCSCTTY = 0x5409, 0x540A, 0x540B, 0x540C, 0x540D, 0x540E
_TIOCGPGRP, _TIOCSPGRP, _TIOCOUTQ, _TIOCSTI = 0x540F, 0x5410, 0x5411, 0x5412
_TIOCGWINSZ, _TIOCSWINSZ, _TIOCINQ, _TIOCPKT = 0x5413, 0x5414, 0x541B, 0x5420
_TIOCNOTTY, _TIOCSETD, _TIOCGETD, _TCSBRKP, _TIOCGSID = 0x5422, 0x5423, 0x5424, 0x5425, 0x5429
_TCGETS2, _TCSETS2, _TCSETSW2, _TCSETSF2 = 0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D
_TIOCGPTN, _TIOCSPTLCK, _TIOCGPTLCK, _TIOCGPTPEER, _TIOCGPKT = 0x80045430, 0x40045431, 0x80045439, 0x5441, 0x80045438
_VINTR, _VQUIT, _VSUSP = 0, 1, 10

#: Requests that fill a structure of so many bytes.
_READING: Final = {
    _TCGETS: _TERMIOS_BYTES,
    _TCGETA: _TERMIO_BYTES,
    _TCGETS2: _TERMIOS2_BYTES,
    _TIOCGWINSZ: _WINSIZE_BYTES,
    _TIOCOUTQ: 4,
    _TIOCINQ: 4,
    _TIOCGETD: 4,
}
#: Requests that set something from a structure: its size, and the request that does it without waiting for output.
_SETTING: Final = {
    _TCSETS: (_TERMIOS_BYTES, _TCSETS),
    _TCSETSW: (_TERMIOS_BYTES, _TCSETS),
    _TCSETSF: (_TERMIOS_BYTES, _TCSETS),
    _TCSETA: (_TERMIO_BYTES, _TCSETA),
    _TCSETAW: (_TERMIO_BYTES, _TCSETA),
    _TCSETAF: (_TERMIO_BYTES, _TCSETA),
    _TCSETS2: (_TERMIOS2_BYTES, _TCSETS2),
    _TCSETSW2: (_TERMIOS2_BYTES, _TCSETS2),
    _TCSETSF2: (_TERMIOS2_BYTES, _TCSETS2),
}
_FLUSHING: Final = frozenset({_TCSETSF, _TCSETAF, _TCSETSF2})
#: Requests whose argument is a number, and which the host carries out.
_NUMERIC: Final = frozenset({_TCXONC, _TCFLSH})
#: Requests that have nothing to do here: breaks, exclusive mode.
_IGNORED: Final = frozenset({_TCSBRK, _TCSBRKP, _TIOCEXCL, _TIOCNXCL})


class Terminal(OpenFile):
    """A terminal as the processes on it see it: the host's, or the slave side of a pseudo-terminal."""

    __slots__ = ("device",)
    kind: ClassVar[str] = "terminal"
    splice_source: ClassVar[bool] = True
    pollable: ClassVar[bool] = True
    piece_bytes: ClassVar[int] = 1 << 16
    #: JobControl's *b*: asked through the master side.
    is_master: ClassVar[bool] = False

    def __init__(self, worker: Worker, identity: Identity, flags: int, host_fd: int, device: int) -> None:
        super().__init__(worker, identity, flags, host_fd)
        #: The terminal's device number, which names it to TaskSet.
        self.device = device

    def closing(self) -> None:
        """Let a host's terminal go with the last open file of it, so that whoever reads its other end sees the end."""
        files = self.worker.files
        if self.device in files.host_terminals and not any(
            isinstance(file, Terminal) and file is not self and file.device == self.device for file in files
        ):
            self.worker.host.close(files.host_terminals.pop(self.device).fd)

    # -- data ---------------------------------------------------------------------------------------------------

    def pull(self, task: Task, count: int, offset: int | None) -> Any:
        """Read what the line discipline has ready. EAGAIN; EIO or SIGTTIN in the background."""
        if not self.readable:
            return super().pull(task, count, offset)
        if self._in_background(task):
            return self._stop_background(task, si.SIGTTIN)
        return self.worker.host.read(self.host_fd, count)

    def push(self, task: Task, data: bytes, offset: int | None) -> Any:
        """Write what fits. EAGAIN; with TOSTOP, SIGTTOU in the background."""
        if self._in_background(task) and self._local_modes() & termios.TOSTOP:
            outcome = self._stop_background(task, si.SIGTTOU)
            if outcome is not None:
                return outcome
        return self.worker.host.write(self.host_fd, data)

    def _local_modes(self) -> int:
        settings = self.worker.host.io_control(self.host_fd, _TCGETS, bytes(_TERMIOS_BYTES))
        modes: int = _LFLAG.unpack_from(settings)[0]
        return modes

    # -- job control --------------------------------------------------------------------------------------------

    def _in_background(self, task: Task) -> bool:
        return not task.group.foreground and task.group.terminal == self.device

    def _stop_background(self, task: Task, signo: int) -> Any:
        """Signal the caller's process group as tty_check_change does; None when the caller may go on all the same."""
        if task.take_answer() is not None:
            return ERESTARTSYS
        group = task.group
        if task.sigmask & si.bit(signo) or group.signals.handlers.ignores(signo):
            if signo == si.SIGTTOU:
                return None
            raise OSError(EIO, "")
        if group.orphaned:
            raise OSError(EIO, "")
        return Petition(
            Kill, {"pid": 0, "target_tid": 0, "signo": signo, "siginfo": si.kernel_siginfo(signo, si.SI_KERNEL)}
        )

    def _job_control(self, task: Task, operation: str, a: int = 0) -> Any:
        """Let TaskSet carry out *operation*; the value when it has answered."""
        answer = task.take_answer()
        if answer is not None:
            return answer.value
        fields = {"operation": operation, "a": a, "b": int(self.is_master), "terminal": self.device}
        return Petition(JobControl, fields)

    # -- settings -----------------------------------------------------------------------------------------------

    def ioctl(self, task: Task, request: int, argument: int) -> Any:
        """ioctl_tty(2). ENOTTY for what a terminal does not know either."""
        host = self.worker.host
        if request in _READING:
            task.memory.write(argument, host.io_control(self.host_fd, request, bytes(_READING[request])))
            return 0
        if request in _SETTING:
            return self._set(task, request, argument)
        if request == _TIOCSWINSZ:
            return self._set_size(task, argument)
        if request in _NUMERIC:
            return host.io_control_number(self.host_fd, request, argument & 0xFFFFFFFF)
        if request in _IGNORED:
            return 0
        if request == _TIOCSTI:
            raise OSError(EIO, "")
        return self._job_request(task, request, argument)

    def _set(self, task: Task, request: int, argument: int) -> Any:
        size, without_waiting = _SETTING[request]
        settings = task.memory.read(argument, size)
        if self._in_background(task) and not self.is_master:
            outcome = self._stop_background(task, si.SIGTTOU)
            if outcome is not None:
                return outcome
        if request in _FLUSHING:
            self.worker.host.io_control_number(self.host_fd, _TCFLSH, termios.TCIFLUSH)
        self.worker.host.io_control(self.host_fd, without_waiting, settings)
        return 0

    def _set_size(self, task: Task, argument: int) -> int:
        host, size = self.worker.host, task.memory.read(argument, _WINSIZE_BYTES)
        if host.io_control(self.host_fd, _TIOCGWINSZ, bytes(_WINSIZE_BYTES)) != size:
            host.io_control(self.host_fd, _TIOCSWINSZ, size)
            self.worker.tell("task_set", TerminalSignal(terminal=self.device, signo=si.SIGWINCH))
        return 0

    def _job_request(self, task: Task, request: int, argument: int) -> Any:
        if request in (_TIOCGPGRP, _TIOCGSID):
            outcome = self._job_control(task, "tty_get_pgrp" if request == _TIOCGPGRP else "tty_get_sid")
            if type(outcome) is int:
                task.memory.write_s32(argument, outcome)
                return 0
            return outcome
        if request == _TIOCSPGRP:
            return self._set_process_group(task, argument)
        if request == _TIOCSCTTY:
            return self._job_control(task, "tty_acquire", argument & 0x7FFFFFFF)
        if request == _TIOCNOTTY:
            return self._job_control(task, "tty_release")
        raise OSError(ENOTTY, "")

    def _set_process_group(self, task: Task, argument: int) -> Any:
        """TIOCSPGRP: from the background only with SIGTTOU blocked or ignored, which bash does."""
        process_group = task.memory.read_s32(argument)
        if self._in_background(task) and "changed" not in task.memo:
            outcome = self._stop_background(task, si.SIGTTOU)
            if outcome is not None:
                return outcome
        task.memo["changed"] = True
        return self._job_control(task, "tty_set_pgrp", process_group)

    def reopen(self, task: Task, flags: int) -> OpenFile:
        """Open the same terminal again."""
        fd = self.worker.host.reopen(self.host_fd, flags & ACCESS_MODE | os.O_NONBLOCK)
        return Terminal(self.worker, self.identity, flags, fd, self.device)

    def state(self) -> dict[str, Any]:
        """Add which terminal it is."""
        return {**super().state(), "device": self.device}


class PtyMaster(Terminal):
    """The master side of a pseudo-terminal."""

    __slots__ = ("index",)
    kind: ClassVar[str] = "pty_master"
    is_master: ClassVar[bool] = True

    def __init__(self, worker: Worker, identity: Identity, flags: int, host_fd: int, index: int) -> None:
        super().__init__(worker, identity, flags, host_fd, _PTS_MAJOR << 8 | index)
        #: N of /dev/pts/N.
        self.index = index

    def pull(self, task: Task, count: int, offset: int | None) -> bytes:
        """Read what the slave side wrote. EIO when it is closed."""
        return self.worker.host.read(self.host_fd, count)

    def push(self, task: Task, data: bytes, offset: int | None) -> int:
        """Type *data*; the characters of Ctrl-C and its like signal the guest's foreground, as n_tty's isig() does."""
        settings = self.worker.host.io_control(self.host_fd, _TCGETS, bytes(_TERMIOS_BYTES))
        taken = self.worker.host.write(self.host_fd, data)
        if _LFLAG.unpack_from(settings)[0] & termios.ISIG:
            typed = data[:taken]
            for index, signo in ((_VINTR, si.SIGINT), (_VQUIT, si.SIGQUIT), (_VSUSP, si.SIGTSTP)):
                character = settings[_CC_OFFSET + index]
                if character and character in typed:
                    self.worker.tell("task_set", TerminalSignal(terminal=self.device, signo=signo))
        return taken

    def ioctl(self, task: Task, request: int, argument: int) -> Any:
        """The requests of the master side, and what every terminal knows."""
        if request == _TIOCGPTN:
            task.memory.write_u32(argument, self.index)
        elif request == _TIOCSPTLCK:
            task.memory.read_s32(argument)
        elif request == _TIOCGPTLCK:
            task.memory.write_s32(argument, 0)
        elif request == _TIOCPKT:
            self.worker.host.io_control(self.host_fd, request, task.memory.read(argument, 4))
        elif request == _TIOCGPKT:
            task.memory.write(argument, self.worker.host.io_control(self.host_fd, request, bytes(4)))
        else:
            return super().ioctl(task, request, argument)
        return 0

    def open_slave(self, identity: Identity, flags: int) -> Terminal:
        """Open the slave side."""
        mode = flags & ACCESS_MODE | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = self.worker.host.io_control_number(self.host_fd, _TIOCGPTPEER, mode)
        return Terminal(self.worker, identity, flags, fd, self.device)

    def reopen(self, task: Task, flags: int) -> OpenFile:
        """A master cannot be opened twice."""
        raise OSError(EIO, "")

    def closing(self) -> None:
        """The terminal hangs up and its name goes."""
        files = self.worker.files
        del files.masters[self.index]
        self.worker.tell("task_set", TerminalHangup(terminal=self.device))
        self.worker.tell(self.identity.namespace, TerminalGone(index=self.index))

    def state(self) -> dict[str, Any]:
        """Add the index, the settings and the size."""
        host, fd = self.worker.host, self.host_fd
        return {
            **super().state(),
            "index": self.index,
            "settings": host.io_control(fd, _TCGETS, bytes(_TERMIOS_BYTES)),
            "size": host.io_control(fd, _TIOCGWINSZ, bytes(_WINSIZE_BYTES)),
        }

    def load(self, state: dict[str, Any]) -> PtyMaster:
        """Take settings and size of a saved terminal over; return the file."""
        host, fd = self.worker.host, self.host_fd
        host.io_control(fd, _TCSETS, state["settings"])
        host.io_control(fd, _TIOCSWINSZ, state["size"])
        self.worker.files.masters[self.index] = self
        return self


# -- opening --------------------------------------------------------------------------------------------------------


def open_device(task: Task, identity: Identity, flags: int) -> OpenFile:
    """Open a terminal device by its number. ENXIO when it is not there."""
    number = identity.rdev
    if number == _PTMX:
        return _open_master(task, identity, flags)
    if number == _CURRENT:
        number = task.group.terminal
    file = _open_terminal(task, identity, flags, number)
    if not flags & os.O_NOCTTY and not task.group.terminal and task.group.sid == task.group.pid:
        acquire(task.group, number, task.tid)
    return file


def _open_terminal(task: Task, identity: Identity, flags: int, number: int) -> OpenFile:
    files = task.worker.files
    known = files.host_terminals.get(number)
    if known is not None:
        fd = task.worker.host.reopen(known.fd, flags & ACCESS_MODE | os.O_NONBLOCK)
        return Terminal(task.worker, identity, flags, fd, number)
    master = files.masters.get(number - (_PTS_MAJOR << 8))
    if master is None:
        raise OSError(ENXIO, "")
    return master.open_slave(identity, flags)


def _open_master(task: Task, identity: Identity, flags: int) -> PtyMaster:
    worker = task.worker
    index = worker.files.new_terminal_index()
    fd = worker.host.open_terminal_master()
    master = PtyMaster(worker, identity, flags, fd, index)
    worker.files.masters[index] = master
    credentials = task.group.credentials
    seen = TerminalSeen(index=index, uid=credentials.fsuid, gid=5, mode=0o620)
    worker.tell(identity.namespace, seen)
    return master


class HostTerminal(NamedTuple):
    """A terminal of the host that some program of the sandbox was started on."""

    #: Its device number on the host.
    host_number: int
    #: A descriptor to open it anew.
    fd: int


def is_host_terminal(device: int) -> bool:
    """Tell whether a device number is one that ``adopt_host_terminal`` gives."""
    return device == HOST_TERMINAL or device >> 8 == _TTY_MAJOR


def adopt_host_terminal(worker: Worker, fd: int, flags: int, uid: int) -> Terminal:
    """Make the host terminal behind *fd*, which is non-blocking and ours, the guest's: the first is its console."""
    terminals, host_number = worker.files.host_terminals, worker.host.file_status(fd)[6]
    device = next((d for d, known in terminals.items() if known.host_number == host_number), 0)
    if device:
        worker.host.close(terminals[device].fd)
    else:
        device = _free_device(terminals)
    terminals[device] = HostTerminal(host_number, worker.host.duplicate(fd))
    identity = Identity(
        mode=stat.S_IFCHR | 0o620,
        ino=worker.files.new_ino(),
        dev=5,
        rdev=device,
        path=_CONSOLE_PATH if device == HOST_TERMINAL else b"/dev/tty%d" % (device & 0xFF),
        uid=uid,
        gid=5,
    )
    return Terminal(worker, identity, flags, fd, device)


def _free_device(terminals: dict[int, HostTerminal]) -> int:
    """Return the console's device number, or when it is taken the first /dev/ttyN's that is not."""
    device = HOST_TERMINAL
    number = 1
    while device in terminals:
        device = _TTY_MAJOR << 8 | number
        number += 1
    return device


def acquire(group: ThreadGroup, device: int, tid: int) -> None:
    """A session leader's terminal becomes its controlling one; TaskSet refuses where Linux does, and nobody waits."""
    group.tell_task_set(
        JobControl(
            group=group.group, tid=tid, petition=_NO_PETITION, operation="tty_acquire", a=0, b=0, terminal=device
        )
    )
