"""Tiny guests in machine code, and a loop that answers their system calls: what the platform's tests run."""

from __future__ import annotations

import select
import signal
import struct
from typing import TYPE_CHECKING

from greenroom.platform.interface import Event, EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenroom.platform.ptrace.platform import PtracePlatform
    from greenroom.platform.ptrace.task import PtraceTask

CODE = 0x400000
DATA = 0x500000
STACK_TOP = 0x600000
PAGE = 4096

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS = 1, 2, 0x20
PRIVATE = MAP_PRIVATE | MAP_ANONYMOUS

SYSCALL = b"\x0f\x05"
SPIN = b"\xeb\xfe"
GETPPID, EXIT = 110, 60

#: Longest that a test waits for an event that must come.
PATIENCE_MS = 10_000


def mov(register: str, value: int) -> bytes:
    """Machine code of ``mov register, imm64``."""
    number = {"rax": 0, "rdx": 2, "rsi": 6, "rdi": 7, "r10": 10, "r8": 8, "r9": 9}[register]
    return bytes([0x48 | number >> 3, 0xB8 | number & 7]) + struct.pack("=Q", value & (1 << 64) - 1)


def call(number: int, *arguments: int) -> bytes:
    """Machine code of one system call."""
    names = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
    loads = b"".join(mov(name, value) for name, value in zip(names, arguments, strict=False))
    return loads + mov("rax", number) + SYSCALL


def load(task: PtraceTask, code: bytes) -> None:
    """Give a fresh task code, a data page and a stack, and point it at the code."""
    task.mmap(CODE, PAGE, PROT_READ | PROT_EXEC, PRIVATE)
    task.mmap(DATA, PAGE, PROT_READ | PROT_WRITE, PRIVATE)
    task.mmap(STACK_TOP - 4 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE, PRIVATE)
    task.space.write(CODE, code)
    registers = task.get_registers()
    registers.rip, registers.rsp = CODE, STACK_TOP - 64
    task.set_registers(registers)


class Driver:
    """Waits for the platform's events, one at a time, in the order in which they come."""

    def __init__(self, platform: PtracePlatform) -> None:
        self.platform = platform
        self._ready: list[Event] = []

    def event(self, task: PtraceTask | None = None, patience_ms: int = PATIENCE_MS) -> Event:
        """Return the next event, of *task* if one is given. AssertionError when none comes in time."""
        while True:
            for index, event in enumerate(self._ready):
                if task is None or event.task is task:
                    return self._ready.pop(index)
            assert self._wait(patience_ms), "no event came"

    def quiet(self, patience_ms: int = 50) -> bool:
        """Say whether no event comes."""
        return not self._ready and not self._wait(patience_ms)

    def _wait(self, patience_ms: int) -> bool:
        poller = select.poll()
        for fd in self.platform.filenos():
            poller.register(fd, select.POLLIN)
        while ready := poller.poll(patience_ms):
            for fd, _mask in ready:
                self._ready += self.platform.poll(fd)
            if self._ready:
                return True
        return False

    def run(self, task: PtraceTask, code: bytes) -> Event:
        """Load *code* into a fresh task, run it and return its first event."""
        load(task, code)
        task.resume()
        return self.event(task)

    def serve(self, count: int, answer: Callable[[Event], int]) -> list[Event]:
        """Answer *count* system calls, and return them."""
        served = []
        for _ in range(count):
            event = self.event()
            assert event.kind is EventKind.SYSCALL, event
            served.append(event)
            event.task.resume_with(answer(event))
        return served


def fault_of(event: Event) -> tuple[int, int, int]:
    """Return (signo, si_code, si_addr) of a FAULT."""
    assert event.kind is EventKind.FAULT, event
    signo, _errno, code, address = struct.unpack_from("=iii4xQ", event.siginfo)
    assert len(event.siginfo) == 128
    return signal.Signals(signo), code, address
