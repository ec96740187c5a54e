"""A platform whose every answer goes through a tape: recorded from a real platform, or replayed with none.

It owns the numbering of host tasks and address spaces by which records name them; host thread ids are recorded too,
since they are what the caller sees.
"""

# ruff: noqa: PLW0108  # in a replay there is no real object: its method is looked up only when a recorder runs the call

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .interface import AddressSpace, Event, EventKind, HostTask, HostTaskDied, Platform
from .x86_64.registers import Registers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..actors.runtime.tape import Tape

__all__ = ["TapedPlatform"]

#: Stands for HostTaskDied among the errnos of a trace: an errno that Linux never gives.
_DIED: Final = 4095


def _call(tape: Tape, port: str, method: str, arguments: tuple[Any, ...], run: Callable[[], Any]) -> Any:
    """Tape a call that may end in HostTaskDied."""

    def guarded() -> Any:
        try:
            return run()
        except HostTaskDied as error:
            raise OSError(_DIED, str(error)) from None

    try:
        return tape.call(port, method, arguments, guarded)
    except OSError as error:
        if error.errno == _DIED:
            raise HostTaskDied(error.strerror) from None
        raise


class _TapedSpace(AddressSpace):
    def __init__(self, platform: TapedPlatform, number: int, real: AddressSpace | None) -> None:
        self._tape = platform.tape
        self._port = f"space:{number}"
        self._behind: Any = real

    def read(self, address: int, length: int) -> bytes:
        data: bytes = _call(
            self._tape, self._port, "read", (address, length), lambda: self._behind.read(address, length)
        )
        return data

    def write(self, address: int, data: bytes | bytearray | memoryview) -> int:
        plain = bytes(data)
        count: int = _call(
            self._tape, self._port, "write", (address, plain), lambda: self._behind.write(address, plain)
        )
        return count


class _TapedTask(HostTask):
    def __init__(self, platform: TapedPlatform, number: int, real: HostTask | None, space: AddressSpace) -> None:
        self._platform = platform
        self._number = number
        self._port = f"task:{number}"
        self._behind: Any = real
        self.space = space
        self.owner = None
        self.host_tid = self._ask("host_tid", lambda: self._behind.host_tid)

    def _ask(self, method: str, run: Callable[[], Any], *arguments: Any) -> Any:
        return _call(self._platform.tape, self._port, method, arguments, run)

    def resume(self) -> None:
        self._ask("resume", lambda: self._behind.resume())

    def resume_with(self, result: int) -> None:
        self._ask("resume_with", lambda: self._behind.resume_with(result), result)

    def interrupt(self) -> None:
        self._ask("interrupt", lambda: self._behind.interrupt())

    def kill(self) -> None:
        self._ask("kill", lambda: self._behind.kill())
        self._platform.forget(self._number, self._behind)

    def get_registers(self) -> Registers:
        return Registers.from_bytes(self._ask("get_registers", lambda: self._behind.get_registers().to_bytes()))

    def set_registers(self, registers: Registers) -> None:
        self._ask("set_registers", lambda: self._behind.set_registers(registers), registers.to_bytes())

    def get_xstate(self) -> bytes:
        area: bytes = self._ask("get_xstate", lambda: self._behind.get_xstate())
        return area

    def set_xstate(self, area: bytes) -> None:
        self._ask("set_xstate", lambda: self._behind.set_xstate(area), area)

    def mmap(
        self,
        address: int,
        length: int,
        prot: int,
        flags: int,
        host_fd: int = -1,
        offset: int = 0,
        *,
        natural: bool = False,
    ) -> None:
        arguments = (address, length, prot, flags, host_fd, offset)
        self._ask("mmap", lambda: self._behind.mmap(*arguments, natural=natural), *arguments, natural)

    def munmap(self, address: int, length: int) -> None:
        self._ask("munmap", lambda: self._behind.munmap(address, length), address, length)

    def mprotect(self, address: int, length: int, prot: int) -> None:
        self._ask("mprotect", lambda: self._behind.mprotect(address, length, prot), address, length, prot)

    def madvise(self, address: int, length: int, advice: int) -> None:
        self._ask("madvise", lambda: self._behind.madvise(address, length, advice), address, length, advice)

    def mremap(self, old: int, old_length: int, new: int, new_length: int) -> None:
        arguments = (old, old_length, new, new_length)
        self._ask("mremap", lambda: self._behind.mremap(*arguments), *arguments)

    def clone(self, *, share_memory: bool) -> HostTask:
        made: list[HostTask] = []
        self._ask("clone", lambda: made.append(self._behind.clone(share_memory=share_memory)), share_memory)
        space = self.space if share_memory else None
        return self._platform.adopt(made[0] if made else None, space)


class TapedPlatform(Platform):
    """Records *real*, or stands for it in a replay (*real* is None)."""

    def __init__(self, tape: Tape, real: Platform | None) -> None:
        self.tape = tape
        self._behind: Any = real
        self.name = tape.call("platform", "name", (), lambda: self._behind.name)
        self.mmap_base = tape.call("platform", "mmap_base", (), lambda: self._behind.mmap_base)
        self._tasks: dict[int, _TapedTask] = {}
        #: Number of each real task, for its events.
        self._numbers: dict[int, int] = {}
        self._count = 0

    def start(self) -> None:
        """Nothing: what is recorded has been started."""

    def close(self) -> None:
        if self._behind is not None:
            self._behind.close()

    def filenos(self) -> Sequence[int]:
        filenos: Sequence[int] = self.tape.call("platform", "filenos", (), lambda: list(self._behind.filenos()))
        return filenos

    def poll(self, fileno: int) -> list[Event]:
        rows = self.tape.call("platform", "poll", (fileno,), lambda: self._poll_real(fileno))
        return [
            Event(EventKind(kind), self._tasks[number], value, tuple(args), siginfo)
            for kind, number, value, args, siginfo in rows
            if number in self._tasks
        ]

    def _poll_real(self, fileno: int) -> list[tuple[int, int, int, tuple[int, ...], bytes]]:
        return [
            (int(e.kind), self._numbers[id(e.task)], e.number, e.args, e.siginfo)
            for e in self._behind.poll(fileno)
            if id(e.task) in self._numbers
        ]

    def create_task(self) -> HostTask:
        made: list[HostTask] = []
        self.tape.call("platform", "create_task", (), lambda: made.append(self._behind.create_task()))
        return self.adopt(made[0] if made else None, None)

    def adopt(self, real: HostTask | None, space: AddressSpace | None) -> HostTask:
        """Number a new host task; *space* is given when it shares one."""
        self._count += 1
        if space is None:
            space = _TapedSpace(self, self._count, real.space if real is not None else None)
        task = self._tasks[self._count] = _TapedTask(self, self._count, real, space)
        if real is not None:
            self._numbers[id(real)] = self._count
        return task

    def forget(self, number: int, real: HostTask | None) -> None:
        """A host task is gone; nothing of it is reported any more."""
        self._tasks.pop(number, None)
        if real is not None:
            self._numbers.pop(id(real), None)
