"""Thin scripted stand-ins for a sandbox's processes: a kernel whose "programs" are names of what they do.

``exit:N`` ends at once with status N, ``signal:N`` by signal N; ``sleep`` lives until it is signalled; ``echo`` copies
its standard input to its output; ``missing`` and ``denied`` cannot be executed; ``bug`` breaks an invariant.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import threading
from typing import TYPE_CHECKING

from greenroom.actors.runtime.actor import Actor, handles
from greenroom.messages import kernel
from greenroom.messages.base import Done
from greenroom.messages.supervisor import ProcessExited
from greenroom.messages.task_set import ProcessList, ProcessRow
from greenroom.supervisor.sandbox_process import Assignment, serve

if TYPE_CHECKING:
    from greenroom.actors.runtime.node import Node

ROLES = {
    "kernel": f"{__name__}:run_kernel",
    "sandbox": f"{__name__}:run_kernel",
    "worker": f"{__name__}:run_worker",
}


_REFUSED = {
    "missing": FileNotFoundError(errno.ENOENT, "No such file or directory"),
    "denied": PermissionError(errno.EACCES, "Permission denied"),
}


class FakeKernel(Actor):
    """Keeps a table of programs and answers the supervisor."""

    def __init__(self, address: str, node: Node) -> None:
        super().__init__(address, node)
        self.sandbox = ""
        self.programs: dict[int, str] = {}
        self.stdio: dict[int, tuple[int, ...]] = {}
        self.started = False
        self.pauses = 0

    @handles(kernel.InitKernel)
    def init(self, message: kernel.InitKernel) -> Done:
        self.sandbox = message.sandbox
        return Done()

    @handles(kernel.CreateProcess)
    def create(self, message: kernel.CreateProcess) -> kernel.ProcessMade:
        program = message.arguments.filename
        if program in _REFUSED:
            self._close(message.arguments.stdio)
            raise _REFUSED[program]
        if program == "bug":
            raise AssertionError("an invariant")
        pid = len(self.programs) + 2
        self.programs[pid] = program
        self.stdio[pid] = message.arguments.stdio
        return kernel.ProcessMade(pid=pid)

    def _echo(self, pid: int) -> None:
        """Copy in a thread, whose end the loop sees as the end of a pipe."""
        source, target, error = (self.node.descriptors.take(token) for token in self.stdio[pid])
        ended, ending = os.pipe()

        def copy() -> None:
            while data := os.read(source, 65536):
                os.write(target, data)
            for fd in (source, target, error, ending):
                os.close(fd)

        def finish(_mask: int) -> None:
            self.node.loop.unwatch(ended)
            os.close(ended)
            self._exited(pid, 0)

        self.node.loop.watch(ended, select.EPOLLIN, finish)
        threading.Thread(target=copy, daemon=True).start()

    @handles(kernel.Start)
    def start_all(self, _message: kernel.Start) -> Done:
        self.started = True
        for pid in list(self.programs):
            self._run(pid)
        return Done()

    @handles(kernel.StartProcess)
    def start_one(self, message: kernel.StartProcess) -> Done:
        self._run(message.pid)
        return Done()

    def _run(self, pid: int) -> None:
        what, _, number = self.programs[pid].partition(":")
        if what == "exit":
            self._exited(pid, int(number) << 8)
        elif what == "signal":
            self._exited(pid, int(number))
        elif what == "echo":
            self._echo(pid)

    def _exited(self, pid: int, status: int) -> None:
        self.programs[pid] = ""
        self._close(self.stdio.pop(pid))
        told = ProcessExited(sandbox=self.sandbox, pid=pid, status=status, user_ns=0, system_ns=0, max_rss_kib=0)
        self.tell("supervisor", told)

    def _close(self, stdio: tuple[int, ...]) -> None:
        for token in stdio:
            with contextlib.suppress(KeyError):  # taken, or at a worker's; or no descriptor at all
                os.close(self.node.descriptors.take(token))

    @handles(kernel.SendExternalSignal)
    def send_signal(self, message: kernel.SendExternalSignal) -> Done:
        pid = abs(message.pid)
        if not self.programs.get(pid):
            raise ProcessLookupError(errno.ESRCH, "No such process")
        if message.signo not in (signal.SIGWINCH, signal.SIGCONT):
            self._exited(pid, message.signo)
        return Done()

    @handles(kernel.Pause)
    def pause(self, _message: kernel.Pause) -> Done:
        self.pauses += 1
        return Done()

    @handles(kernel.Unpause)
    def unpause(self, _message: kernel.Unpause) -> Done:
        self.pauses -= 1
        return Done()

    @handles(kernel.ListProcesses)
    def list_processes(self, _message: kernel.ListProcesses) -> ProcessList:
        rows = [
            ProcessRow(pid=pid, ppid=1, pgid=pid, sid=pid, state="S", threads=1, command=program)
            for pid, program in self.programs.items()
            if program
        ]
        return ProcessList(rows=tuple(rows))


def run_kernel(config: bytes, fds: list[int]) -> int:
    """Be the process that a fake kernel lives in."""
    return serve(Assignment(config, fds), _start_kernel)


def run_worker(config: bytes, fds: list[int]) -> int:
    """Be a worker process, which has nothing to do."""
    return serve(Assignment(config, fds), lambda _node, _assignment: "")


def _start_kernel(node: Node, _assignment: Assignment) -> str:
    FakeKernel.start("kernel", node)
    return ""


def report_pid_and_sleep(_config: bytes, fds: list[int]) -> int:
    """Write this process's id to the first descriptor and sleep until killed."""
    os.write(fds[0], f"{os.getpid()}\n".encode())
    signal.pause()
    return 0


def rehearse(_platform: str) -> None:
    """Stand for a rehearsal, which a spawner does before its first child."""


def exit_with_config(config: bytes, _fds: list[int]) -> int:
    """Exit with the status that the configuration says."""
    return int(config)


def leave_an_orphan(_config: bytes, fds: list[int]) -> int:
    """Fork a child that outlives this process."""
    orphan = os.fork()
    if orphan == 0:
        signal.pause()
    os.write(fds[0], f"{orphan}\n".encode())
    return 0
