"""The seed of the notify platform, whose filter has a listener, and the key of injected calls.

Linux counterpart: none.  It owns the key until every tracee has it, and passes the listener to the worker: through the
shelf's socket, because a container's usual profile has no place for pidfd_getfd(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, ClassVar, Final

from ..interface import STUB_ADDRESS
from ..ptrace.binding import PTRACE_O_TRACESECCOMP
from ..ptrace.seed import MESSAGE_PAGE, SHELF_SOCKET, Seed
from ..x86_64.syscall_numbers import SYSCALL_NUMBERS as SYS
from .filter import MOST_PLACED, filter_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..ptrace.placement import Placement

__all__ = ["FILE_TRAMPOLINE", "TRAMPOLINE", "NotifySeed"]

#: In the stub page: ``mov rdi, r11; jmp rcx``.
TRAMPOLINE: Final = STUB_ADDRESS + 8
TRAMPOLINE_CODE: Final = bytes.fromhex("4c89df ffe1") + b"\xcc" * 3
#: Behind it, for a call whose descriptor was changed too: ``mov rdi, r11; bswap r8; mov r8d, r8d; jmp rcx``.
FILE_TRAMPOLINE: Final = TRAMPOLINE + len(TRAMPOLINE_CODE)
FILE_TRAMPOLINE_CODE: Final = bytes.fromhex("4c89df 490fc8 4589c0 ffe1") + b"\xcc" * 5

_ASK_PERSONALITY: Final = 0xFFFF_FFFF
_ADDR_NO_RANDOMIZE: Final = 0x0040000

_FILTER_FLAG_NEW_LISTENER: Final = 1 << 3
_FILTER_FLAG_WAIT_KILLABLE_RECV: Final = 1 << 5
_MMAP: Final = SYS["mmap"]
_PAGE: Final = 4096
_MAP_PRIVATE, _MAP_ANONYMOUS = 0x02, 0x20

# In the message page: struct msghdr, one iovec, one byte of data, one control message with one descriptor.
_IOVEC, _DATA, _CONTROL = MESSAGE_PAGE + 64, MESSAGE_PAGE + 96, MESSAGE_PAGE + 128
_CONTROL_MESSAGE: Final = struct.Struct("=QiiI4x")


@contextlib.contextmanager
def _addresses_not_random() -> Iterator[None]:
    """Have what this thread executes placed as high as can be, if the host lets us. Guests get random places anyway."""
    personality = ctypes.PyDLL(None).personality
    before = personality(_ASK_PERSONALITY)
    personality(before | _ADDR_NO_RANDOMIZE)
    try:
        yield
    finally:
        personality(before)


class NotifySeed(Seed):
    """The parked process that every tracee is cloned from."""

    options: ClassVar[int] = Seed.options | PTRACE_O_TRACESECCOMP
    mmap_base: int
    takes_hints: bool

    def __init__(self, shelf_socket: int, placement: Placement) -> None:
        #: What injected calls carry and the filter asks for.
        self.key = int.from_bytes(os.urandom(8), "little")
        self._listener = -1
        with _addresses_not_random():
            super().__init__(shelf_socket, placement, self.key)

    def _map_stub(self) -> None:
        super()._map_stub()
        self._poke(TRAMPOLINE, TRAMPOLINE_CODE + FILE_TRAMPOLINE_CODE)

    def _empty_memory(self) -> None:
        super()._empty_memory()
        self.takes_hints = self._tries_a_hint()
        self.mmap_base = self._find_mmap_base()

    def _find_mmap_base(self) -> int:
        """Return below which address the host places mappings from the highest down; 0 when it does otherwise.

        The clones have it from the seed, and the seed from its own execve: as high as can be.
        """
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS
        first = self.inject(_MMAP, 0, _PAGE, 0, flags, 0xFFFF_FFFF)
        second = self.inject(_MMAP, 0, 2 * _PAGE, 0, flags, 0xFFFF_FFFF)
        self.inject(SYS["munmap"], first, _PAGE)
        third = self.inject(_MMAP, 0, 2 * _PAGE, 0, flags, 0xFFFF_FFFF)
        fourth = self.inject(_MMAP, 0, _PAGE, 0, flags, 0xFFFF_FFFF)
        top = first + _PAGE
        self.inject(SYS["munmap"], MESSAGE_PAGE + _PAGE, STUB_ADDRESS - MESSAGE_PAGE - _PAGE)
        return top if (second, third, fourth) == (first - 2 * _PAGE, first - 4 * _PAGE, first) else 0

    def _tries_a_hint(self) -> bool:
        """Say whether a large anonymous mapping is made where the hint says, when there is just room for it."""
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS
        behind = self.inject(_MMAP, 0, _PAGE, 0, flags, 0xFFFF_FFFF)
        hint = behind - 2 * MOST_PLACED
        place = self.inject(_MMAP, hint, 2 * MOST_PLACED, 0, flags, 0xFFFF_FFFF)
        self.inject(SYS["munmap"], place, 2 * MOST_PLACED)
        self.inject(SYS["munmap"], behind, _PAGE)
        return place == hint

    def _seal(self) -> None:
        flags = _FILTER_FLAG_NEW_LISTENER | _FILTER_FLAG_WAIT_KILLABLE_RECV
        try:
            self._listener = self._install_filter(filter_program(self.key), flags)
        except OSError as error:
            reasons = {
                errno.EBUSY: "a seccomp filter above this process has a listener already",
                errno.EINVAL: "seccomp notifications as this platform needs them came with Linux 5.19",
            }
            reason = reasons.get(error.errno or 0, "the host refuses a seccomp listener")
            raise OSError(error.errno, f"{reason}: {error.strerror}") from error

    def pass_listener(self, ours: socket.socket) -> int:
        """Return the worker's descriptor of the listener, *ours* being its end of the shelf's socket."""
        control = _CONTROL_MESSAGE.pack(20, socket.SOL_SOCKET, socket.SCM_RIGHTS, self._listener)
        header = struct.pack("=QIxxxxQQQQIxxxx", 0, 0, _IOVEC, 1, _CONTROL, len(control), 0)
        self._poke(MESSAGE_PAGE, header.ljust(64, b"\0") + struct.pack("=QQ", _DATA, 1))
        self._poke(_CONTROL, control)
        self.inject(SYS["sendmsg"], SHELF_SOCKET, MESSAGE_PAGE, 0)
        self.inject(SYS["close"], self._listener)
        _data, descriptors, _flags, _address = socket.recv_fds(ours, 1, 1)
        return descriptors[0]
