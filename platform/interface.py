"""The Platform interface: what a ThreadGroup may do to the host threads that run guest code.

Linux counterpart: the architecture's entry code, ``switch_to`` and ``mm/mmap.c``; in gVisor,
``pkg/sentry/platform``.  A platform owns host threads ("host tasks") and host address spaces.  It knows nothing of
system call semantics, signals' dispositions or files: it reports what a host task did and does what it is told.

Vocabulary
----------
host task
    One host process or thread that executes the code of exactly one guest task.
stopped
    A host task that reported an event and has not been resumed.  Every operation but ``interrupt`` and ``kill``
    needs a stopped host task.
stub
    One page, mapped at :data:`STUB_ADDRESS` in every address space, from which allowed host calls are injected.
    Guests never map, unmap or protect it; the address is above everything that a guest may use.

Errors: a host call that fails raises ``OSError`` with the host's errno, which is also Linux's answer to the guest.
A host task that died under our hands raises :class:`HostTaskDied`; its EXITED event follows or has been reported.
"""

from __future__ import annotations

import abc
import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mypy_extensions import mypyc_attr, trait

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .x86_64.registers import Registers

__all__ = [
    "GUEST_TOP",
    "STUB_ADDRESS",
    "AddressSpace",
    "Event",
    "EventKind",
    "HostTask",
    "HostTaskDied",
    "Platform",
]

#: First address that no guest mapping may reach (exclusive upper bound of guest addresses).
GUEST_TOP: Final = 0x7FFF_FFFF_D000
#: Address of the stub page, the same in every address space.
STUB_ADDRESS: Final = 0x7FFF_FFFF_D000


class HostTaskDied(Exception):
    """The host task is gone (killed from outside, or by the host's out-of-memory killer)."""


class EventKind(enum.IntEnum):
    """What a host task reports when it stops."""

    #: it is at a system call that the host has not executed; ``number`` (a signed int, as Linux reads it) and ``args``
    #: (unsigned) are set
    SYSCALL = 1
    #: its instruction raised a synchronous signal; ``siginfo`` is the host's 128-byte siginfo_t.  A call by the 32-bit
    #: ABI (int 0x80) is a SIGSEGV at that instruction, as from a kernel without CONFIG_IA32_EMULATION
    FAULT = 2
    STOPPED = 3  #: it stopped because of ``interrupt`` (may also be spurious: resume it)
    EXITED = 4  #: the host task is dead and reaped; ``number`` is its host wait status


class Event(NamedTuple):
    """One report of one host task, which is stopped (or, for EXITED, gone)."""

    kind: EventKind
    task: "HostTask"  # noqa: UP037  # evaluated when it is compiled
    number: int = 0
    args: tuple[int, ...] = (0, 0, 0, 0, 0, 0)
    siginfo: bytes = b""


@mypyc_attr(allow_interpreted_subclasses=True)
class AddressSpace(abc.ABC):
    """One host address space, shared by the host tasks that were cloned with shared memory.

    Reads and writes ignore page protection: the caller has checked its own list of mappings first.
    """

    @abc.abstractmethod
    def read(self, address: int, length: int) -> bytes:
        """Copy *length* bytes out of the guest; shorter when the range runs into unmapped memory.

        Raises OSError(EFAULT) when not even the first byte can be read.
        """

    @abc.abstractmethod
    def write(self, address: int, data: bytes | bytearray | memoryview) -> int:
        """Copy *data* into the guest and return the number of bytes written.

        Raises OSError(EFAULT) when not even the first byte can be written.
        """


@trait
class HostTask(abc.ABC):
    """One host thread that runs the code of one guest task."""

    #: Host thread id; -1 once the task is dead and reaped.
    host_tid: int
    space: AddressSpace
    #: Whatever the creator attached (the guest task); the platform only carries it.
    owner: Any

    # -- running ------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def resume(self) -> None:
        """Let it run guest code with its current registers until the next event."""

    @abc.abstractmethod
    def resume_with(self, result: int) -> None:
        """Finish a SYSCALL event: put *result* (negative errno or value) in the result register and resume."""

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Make a running host task stop soon.

        At least one event follows.  If another event of this task came first, the STOPPED may come later or
        never; a STOPPED that nobody wants is resumed by the receiver.  No effect on a stopped host task.
        """

    @abc.abstractmethod
    def kill(self) -> None:
        """End this host task (SIGKILL); no event follows. Idempotent, never raises.

        It executes nothing more.  The host may still be freeing its memory when this returns: the platform reaps it
        later.  Other host tasks that share its memory go on.
        """

    # -- registers ----------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def get_registers(self) -> Registers:
        """Return a copy of the general registers, including fs_base and gs_base."""

    @abc.abstractmethod
    def set_registers(self, registers: Registers) -> None:
        """Set the general registers; ``orig_rax`` is set to -1 so that the host restarts nothing.

        OSError(EIO) when fs_base or gs_base is changed to something that is no user address.
        """

    @abc.abstractmethod
    def get_xstate(self) -> bytes:
        """Return the XSAVE area (standard format, length depends on the CPU)."""

    @abc.abstractmethod
    def set_xstate(self, area: bytes) -> None:
        """Set the XSAVE area. OSError(EINVAL) when the bytes are no valid area for this CPU."""

    # -- memory: host calls injected into this stopped host task -------------------------------------------------

    @abc.abstractmethod
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
        """Map at exactly *address* (MAP_FIXED is added). *host_fd* is a descriptor of this worker, or -1.

        MAP_FIXED in *flags* says that something may be mapped there already.

        *natural* says that *address* is the highest free one below ``Platform.mmap_base``: the host would choose it.
        """

    @abc.abstractmethod
    def munmap(self, address: int, length: int) -> None:
        """Unmap a range."""

    @abc.abstractmethod
    def mprotect(self, address: int, length: int, prot: int) -> None:
        """Change the protection of a range."""

    @abc.abstractmethod
    def madvise(self, address: int, length: int, advice: int) -> None:
        """Give advice on a range (MADV_DONTNEED, MADV_DONTFORK, ...)."""

    @abc.abstractmethod
    def mremap(self, old: int, old_length: int, new: int, new_length: int) -> None:
        """Move or resize a mapping to exactly *new* (MREMAP_MAYMOVE | MREMAP_FIXED when it moves)."""

    # -- births -------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def clone(self, *, share_memory: bool) -> HostTask:
        """Return a new stopped host task with the same registers, but 0 as its call's result, and extended state.

        With *share_memory* it runs in the same :class:`AddressSpace` object (threads, vfork), else in a
        copy-on-write copy of it (fork).  Raises OSError(EAGAIN or ENOMEM) when the host refuses.
        """


@mypyc_attr(allow_interpreted_subclasses=True)
class Platform(abc.ABC):
    """Creates host tasks and reports their events. All calls from one host thread only."""

    #: "ptrace" or "notify".
    name: str
    #: Below which address the host places mappings, the highest first, when it chooses; 0 when that does not help.
    mmap_base: int

    @abc.abstractmethod
    def start(self) -> None:
        """Prepare the platform in this thread. OSError or RuntimeError with advice when the host forbids it."""

    @abc.abstractmethod
    def close(self) -> None:
        """Kill and reap every host task and release every descriptor. Idempotent."""

    @abc.abstractmethod
    def filenos(self) -> Sequence[int]:
        """Return descriptors that become readable when ``poll`` of them may have events."""

    @abc.abstractmethod
    def poll(self, fileno: int) -> list[Event]:
        """Return the events that *fileno*, one of ``filenos``, is readable for; an empty list when there is none.

        *fileno* was found readable since it was last polled; what it had may have been taken since, by ``interrupt``.
        """

    @abc.abstractmethod
    def create_task(self) -> HostTask:
        """Return a stopped host task in a new address space that holds nothing but the stub page.

        Its general registers are zero and its extended state is the CPU's reset state.
        """
