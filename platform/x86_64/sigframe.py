"""The signal frame: what Linux pushes on the stack of a task that is about to run a signal handler, and its undoing.

Linux counterpart: ``arch/x86/kernel/signal_64.c`` and ``arch/x86/kernel/fpu/signal.c``.  Pure functions over bytes and
registers: no I/O of their own, no policy (which signal, which mask, whether to restart a call: the caller's).

From the lowest address: the return address (the restorer), struct ucontext, siginfo_t, padding, the XSAVE area on a
64-byte boundary with FP_XSTATE_MAGIC2 behind it.  A frame that comes back by rt_sigreturn is guest memory, hostile as
all of it: selectors are forced, flags masked, and an area that hardware would refuse is a :class:`FrameFault`.

The sequence for the caller::

    top = stack_top(registers.rsp, sa_flags, altstack)
    registers, address, frame = build_frame(registers, xstate, ..., stack_top=top, layout=layout)
    write the frame (a short write is a FrameFault), set_registers(registers), set_xstate(reset_area(layout))

The last step is Linux's too: a handler starts with a fresh FPU.
"""

from __future__ import annotations

import signal
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from . import xstate as xsave
from .registers import Registers

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "SA_ONSTACK",
    "SA_RESTORER",
    "SS_AUTODISARM",
    "SS_DISABLE",
    "SS_ONSTACK",
    "AltStack",
    "FrameFault",
    "RestoredContext",
    "build_frame",
    "on_altstack",
    "parse_frame",
    "stack_top",
]

SA_ONSTACK: Final = 0x0800_0000
SA_RESTORER: Final = 0x0400_0000
SS_ONSTACK: Final = 1
SS_DISABLE: Final = 2
SS_AUTODISARM: Final = 1 << 31

_UC_FLAGS: Final = 0x1 | 0x2 | 0x4  # UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
_USER_CS: Final = 0x33
_USER_DS: Final = 0x2B
_RED_ZONE: Final = 128
_MAGIC1: Final = 0x46505853
_MAGIC2: Final = 0x46505845
_SOFTWARE_OFFSET: Final = 464

#: Flags that a frame may set: AC OF DF TF SF ZF AF PF CF RF.
_RESTORED_FLAGS: Final = 0x5_0DD5
#: Flags that are clear when a handler starts: DF RF TF.
_HANDLER_CLEARS: Final = 0x1_0500

# struct sigcontext_64 up to fpstate, in the order of the kernel's names.
_GENERAL: Final = (
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp", "rip", "eflags"),
)
_SIGCONTEXT: Final = struct.Struct("=18Q4H5Q64x")
# uc_flags, uc_link; uc_stack: ss_sp, ss_flags, ss_size.
_UCONTEXT_HEAD: Final = struct.Struct("=QQQI4xQ")
_PRETCODE: Final = struct.Struct("=Q")
_SIGMASK: Final = struct.Struct("=Q")
# magic1, extended_size, xfeatures, xstate_size.
_SOFTWARE: Final = struct.Struct("=IIQI28x")

_UCONTEXT: Final = _PRETCODE.size
_MCONTEXT: Final = _UCONTEXT + _UCONTEXT_HEAD.size
_UC_SIGMASK: Final = _MCONTEXT + _SIGCONTEXT.size
_SIGINFO: Final = _UC_SIGMASK + _SIGMASK.size
_SIGINFO_SIZE: Final = 128
_FRAME_SIZE: Final = _SIGINFO + _SIGINFO_SIZE

_TRAP_PAGE_FAULT, _TRAP_PROTECTION = 14, 13
#: x86 trap numbers of faults that are not page faults.
_TRAPS: Final = {signal.SIGILL: 6, signal.SIGFPE: 0, signal.SIGTRAP: 3, signal.SIGSEGV: _TRAP_PROTECTION}
_SI_KERNEL: Final = 0x80
_ERROR_PRESENT, _ERROR_USER = 1, 4
_SEGV_ACCERR: Final = 2

#: (sp, flags, size) of sigaltstack(2).
AltStack = tuple[int, int, int]


class FrameFault(Exception):
    """The frame cannot be built or restored: the guest gets SIGSEGV, as from Linux."""


class RestoredContext(NamedTuple):
    """What rt_sigreturn finds in a frame."""

    registers: Registers
    #: A valid XSAVE area; the reset state when the frame has none.
    xstate: bytes
    #: The signal mask to return to; the caller removes SIGKILL and SIGSTOP.
    sigmask: int
    #: What sigaltstack(2) is to be called with; its errors are ignored, as in Linux.
    altstack: AltStack


def on_altstack(rsp: int, altstack: AltStack) -> bool:
    """Say whether *rsp* is on the alternate stack; one that disarms itself is never "on"."""
    return not altstack[1] & SS_AUTODISARM and _within(rsp, altstack)


def _within(rsp: int, altstack: AltStack) -> bool:
    base, _, size = altstack
    return base < rsp <= base + size


def stack_top(rsp: int, sa_flags: int, altstack: AltStack) -> int:
    """Return the address below which the frame goes: the alternate stack's top, or *rsp* below its red zone."""
    base, _, size = altstack
    if sa_flags & SA_ONSTACK and size and not on_altstack(rsp, altstack):
        return base + size
    return rsp - _RED_ZONE


def build_frame(
    registers: Registers,
    xstate: bytes,
    *,
    handler: int,
    restorer: int,
    flags: int,
    signo: int,
    siginfo: bytes,
    sigmask: int,
    altstack: AltStack,
    stack_top: int,
    layout: xsave.Layout,
) -> tuple[Registers, int, bytes]:
    """Return the registers at the handler's entry, and the address and bytes of the frame to write before.

    *flags* are the sigaction's; *sigmask* and *altstack* are those to return to.  FrameFault when there is no
    restorer, or the frame does not fit on the alternate stack.
    """
    if not flags & SA_RESTORER:
        raise FrameFault("no restorer")
    fpstate = _round_down(stack_top - len(xstate) - 4, 64)
    address = _round_down(fpstate - _FRAME_SIZE, 16) - 8
    _check_fits(address, registers.rsp, stack_top, altstack)
    frame = bytearray(fpstate - address + len(xstate) + 4)
    stack_flags = altstack[1] if altstack[2] else SS_DISABLE
    if altstack[2] and on_altstack(registers.rsp, altstack):
        stack_flags |= SS_ONSTACK
    _PRETCODE.pack_into(frame, 0, restorer)
    _UCONTEXT_HEAD.pack_into(frame, _UCONTEXT, _UC_FLAGS, 0, altstack[0], stack_flags, altstack[2])
    _pack_sigcontext(frame, registers, siginfo, sigmask, fpstate)
    _SIGMASK.pack_into(frame, _UC_SIGMASK, sigmask)
    frame[_SIGINFO:_FRAME_SIZE] = siginfo[:_SIGINFO_SIZE].ljust(_SIGINFO_SIZE, b"\0")
    frame[fpstate - address :] = _fpstate(xstate, layout.features)
    return _at_handler(registers, handler, signo, address), address, bytes(frame)


def _round_down(value: int, alignment: int) -> int:
    return value & -alignment


def _check_fits(address: int, rsp: int, stack_top: int, altstack: AltStack) -> None:
    """Do not let a frame run over the end of an alternate stack, nor below address 0."""
    uses_altstack = on_altstack(rsp, altstack) or stack_top == altstack[0] + altstack[2] and altstack[2]
    if address < 0 or uses_altstack and not _within(address, altstack):
        raise FrameFault("the signal stack overflows")


def _pack_sigcontext(frame: bytearray, registers: Registers, siginfo: bytes, sigmask: int, fpstate: int) -> None:
    general = [getattr(registers, name) for name in _GENERAL]
    error, trap, fault_address = _trap_of(siginfo)
    segments = (registers.cs & 0xFFFF, 0, 0, registers.ss & 0xFFFF)  # cs gs fs ss: Linux stores no gs and no fs
    _SIGCONTEXT.pack_into(frame, _MCONTEXT, *general, *segments, error, trap, sigmask, fault_address, fpstate)


def _trap_of(siginfo: bytes) -> tuple[int, int, int]:
    """Return err, trapno and cr2 as far as a siginfo tells: whether a page fault was a write, it does not."""
    signo, _errno, code, address = struct.unpack_from("=iii4xQ", siginfo.ljust(24, b"\0"))
    if code <= 0 or signo not in _TRAPS and signo != signal.SIGBUS:
        return 0, 0, 0
    if signo in (signal.SIGSEGV, signal.SIGBUS) and code != _SI_KERNEL:
        present = _ERROR_PRESENT if signo == signal.SIGSEGV and code == _SEGV_ACCERR else 0
        return _ERROR_USER | present, _TRAP_PAGE_FAULT, address
    return 0, _TRAPS.get(signo, _TRAP_PROTECTION), 0


def _fpstate(xstate: bytes, features: int) -> bytes:
    """Return the area as it lies in a frame: the software bytes say how much there is, a magic number ends it."""
    area = bytearray(xstate)
    software = _SOFTWARE.pack(_MAGIC1, len(xstate) + 4, features, len(xstate))
    area[_SOFTWARE_OFFSET : xsave.LEGACY_SIZE] = software
    area[xsave.LEGACY_SIZE] |= 3  # "for legacy compatible, we always set FP/SSE bits in the bit vector"
    return bytes(area) + struct.pack("=I", _MAGIC2)


def _at_handler(registers: Registers, handler: int, signo: int, address: int) -> Registers:
    entry = registers.copy()
    entry.rdi, entry.rsi, entry.rdx, entry.rax = signo, address + _SIGINFO, address + _UCONTEXT, 0
    entry.rip, entry.rsp = handler, address
    entry.cs, entry.ss = _USER_CS, _USER_DS
    entry.eflags &= ~_HANDLER_CLEARS
    return entry


def parse_frame(space_read: Callable[[int, int], bytes], registers: Registers, layout: xsave.Layout) -> RestoredContext:
    """Read back the frame of a task that calls rt_sigreturn with *registers*. FrameFault when it cannot be restored.

    *space_read* is AddressSpace.read.  What a frame does not hold (fs_base, gs_base, the data segments) stays as it
    is in *registers*.
    """
    frame = _read(space_read, registers.rsp - _PRETCODE.size, _SIGINFO)
    _uc_flags, _link, stack_pointer, stack_flags, stack_size = _UCONTEXT_HEAD.unpack_from(frame, _UCONTEXT)
    *general, _cs, _gs, _fs, _ss, _err, _trapno, _oldmask, _cr2, fpstate = _SIGCONTEXT.unpack_from(frame, _MCONTEXT)
    restored = registers.copy()
    for name, value in zip(_GENERAL, general, strict=True):
        setattr(restored, name, value)
    kept = registers.eflags & ~_RESTORED_FLAGS
    restored.eflags = kept | restored.eflags & _RESTORED_FLAGS
    restored.cs, restored.ss, restored.orig_rax = _USER_CS, _USER_DS, (1 << 64) - 1
    return RestoredContext(
        registers=restored,
        xstate=_parse_fpstate(space_read, fpstate, layout),
        sigmask=_SIGMASK.unpack_from(frame, _UC_SIGMASK)[0],
        altstack=(stack_pointer, stack_flags, stack_size),
    )


def _read(space_read: Callable[[int, int], bytes], address: int, length: int) -> bytes:
    try:
        data = space_read(address, length)
    except OSError:
        raise FrameFault("unreadable") from None
    if len(data) != length:
        raise FrameFault("cut off")
    return data


def _parse_fpstate(space_read: Callable[[int, int], bytes], address: int, layout: xsave.Layout) -> bytes:
    """Return the XSAVE area to load: all of the frame's, its first 512 bytes if it has no more, or the reset state."""
    if address == 0:
        return xsave.reset_area(layout)
    legacy = _read(space_read, address, xsave.LEGACY_SIZE)
    magic, extended_size, wanted, size = _SOFTWARE.unpack_from(legacy, _SOFTWARE_OFFSET)
    if magic != _MAGIC1 or not xsave.HEADER_END <= size <= min(layout.size, extended_size):
        return _fx_only(legacy, address, layout)
    area = _read(space_read, address, size + 4)
    if area[size:] != struct.pack("=I", _MAGIC2):
        return _fx_only(legacy, address, layout)
    if address % 64 or not xsave.validate(area[:size], layout):
        raise FrameFault("invalid extended state")
    return xsave.combine(area[:size].ljust(layout.size, b"\0"), wanted, layout)


def _fx_only(legacy: bytes, address: int, layout: xsave.Layout) -> bytes:
    """Return the area for a frame without extended state, as FXRSTOR loads it."""
    area = legacy + struct.pack("=Q", 3).ljust(xsave.HEADER_END - xsave.LEGACY_SIZE, b"\0")
    if address % 16 or not xsave.validate(area, layout):
        raise FrameFault("invalid FXSAVE area")
    return xsave.combine(area, 3, layout)
