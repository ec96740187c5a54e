"""What the memory and loader tests stand on: a task on the real platform, without actors and messages."""

from __future__ import annotations

import os
import select
from errno import EBADF, ENOSYS
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from greenroom.actors.thread_group import elf, loader, proc_memory, sys_memory
from greenroom.actors.thread_group.credentials import Credentials
from greenroom.actors.thread_group.host import WorkerHost
from greenroom.actors.thread_group.limits import ResourceLimits
from greenroom.actors.thread_group.memory import MemoryManager
from greenroom.actors.thread_group.table import TABLE
from greenroom.actors.thread_group.vdso import Vdsos
from greenroom.platform.interface import EventKind

if TYPE_CHECKING:
    from greenroom.platform.interface import Event, Platform

__all__ = ["Bench", "PlainFile", "open_program"]

assert sys_memory.__name__  # it fills the table


#: exit and exit_group.
_ENDINGS = frozenset((60, 231))
_TEXT_FD = 1000


class PlainFile:
    """An open host file, as far as a mapping needs it."""

    def __init__(self, path: str, flags: int = os.O_RDONLY) -> None:
        self.host_fd = os.open(path, flags)
        self.flags = flags
        self.path = os.fsencode(path)
        self.handle = 1
        status = os.fstat(self.host_fd)
        self.dev, self.ino, self.mode = status.st_dev, status.st_ino, status.st_mode
        self.users = 1

    def hold(self) -> PlainFile:
        self.users += 1
        return self

    def release(self) -> None:
        self.users -= 1
        assert self.users >= 0
        if not self.users:
            os.close(self.host_fd)


def open_program(path: str, argv: list[bytes], envp: list[bytes]) -> loader.Program:
    """Open a program of the host and its interpreter, and read their headers."""
    file = PlainFile(path)
    headers = elf.parse(lambda count, offset: os.pread(file.host_fd, count, offset))
    interpreter = its_headers = None
    if headers.interpreter is not None:
        interpreter = PlainFile(os.fsdecode(headers.interpreter))
        fd = interpreter.host_fd
        its_headers = elf.parse(lambda count, offset: os.pread(fd, count, offset), interpreter=True)
    files: Any = (file, interpreter)
    status = os.stat(path)
    identity = (0, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return loader.Program(
        files[0], headers, files[1], its_headers, os.fsencode(path), b"program", argv, envp, identity=identity
    )


class Bench:
    """One task with fresh memory; system calls of loaded programs are served by a function of the test."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        port = WorkerHost()
        worker = SimpleNamespace(host=port, platform=platform, groups={}, vdsos=Vdsos(port))
        self.group: Any = SimpleNamespace(
            worker=worker, limits=ResourceLimits(), credentials=Credentials.root(), tasks={}, dumpable=1, pid=1
        )
        host = platform.create_task()
        self.memory = MemoryManager(host.space)
        self.task: Any = SimpleNamespace(host=host, group=self.group, worker=worker, memory=self.memory)
        host.owner = self.task
        self.group.memory = self.memory
        self.group.files = SimpleNamespace(get=self._get_file)
        worker.group_of_pid = lambda pid: self.group if pid == 1 else None
        self.files: dict[int, PlainFile] = {}
        #: What is left to read of texts that are no host files.
        self.texts: dict[int, bytes] = {}
        #: What the program wrote.
        self.output = b""

    def map(self, length: int, prot: int = 3, flags: int = 0x22, address: int = 0, **kwargs: Any) -> int:
        """mmap, private anonymous read-write unless said otherwise."""
        return self.memory.map(self.task, address, length, prot, flags, **kwargs)

    def load(self, path: str, argv: list[bytes], envp: list[bytes]) -> None:
        """Load a program and its interpreter."""
        program = open_program(path, argv, envp)
        loader.load(self.task, program)
        program.release()

    def run(self, serve: Any) -> Event:
        """Run until ``serve(event)`` returns None, which ends the run, or the task faults or dies."""
        host = self.task.host
        host.resume()
        while True:
            event = self.next_event()
            if event.kind is not EventKind.SYSCALL:
                return event
            result = serve(event)
            if result is None:
                return event
            host.resume_with(result)

    def serve(self, event: Event) -> int | None:
        """Serve a static program: memory calls by their handlers, files of the host, output to ``output``."""
        number, args = event.number, event.args
        if number in _ENDINGS:
            return None
        if number in TABLE and TABLE[number].handler.__module__.endswith(".sys_memory"):
            try:
                result: int = TABLE[number].call(self.task, args)
            except OSError as error:
                return -(error.errno or 5)
            return result
        serve = _BASICS.get(number)
        return -ENOSYS if serve is None else serve(self, *args)

    def _write(self, _fd: int, address: int, length: int, *_: int) -> int:
        self.output += self.memory.read(address, length)
        return length

    def _read(self, fd: int, address: int, length: int, *_: int) -> int:
        data = self.texts[fd][:length] if fd in self.texts else os.read(fd, length)
        if fd in self.texts:
            self.texts[fd] = self.texts[fd][length:]
        self.memory.write(address, data)
        return len(data)

    def _open(self, _dirfd: int, path: int, flags: int, *_: int) -> int:
        name = self.memory.read_path(path).decode()
        if name == "/proc/self/maps":
            self.texts[_TEXT_FD] = proc_memory.maps(self.memory)
            return _TEXT_FD
        try:
            file = PlainFile(name, flags)
        except OSError as error:
            return -(error.errno or 5)
        self.files[file.host_fd] = file
        return file.host_fd

    def _get_file(self, fd: int) -> PlainFile:
        if fd not in self.files:
            raise OSError(EBADF, "")
        return self.files[fd]

    def next_event(self) -> Event:
        """Wait for one event."""
        while True:
            for fd in select.select(self.platform.filenos(), [], [], 10)[0]:
                for event in self.platform.poll(fd):
                    return event


_BASICS: dict[int, Any] = {
    0: Bench._read,
    1: Bench._write,
    3: lambda *_: 0,
    39: lambda *_: 1,
    218: lambda *_: 1,
    257: Bench._open,
}
