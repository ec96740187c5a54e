"""Registers, XSAVE areas, signal frames, CPU features and the system call table."""

from __future__ import annotations

import errno
import os
import re
import signal
import struct
from collections.abc import Callable

import pytest
from greenroom.platform.interface import EventKind
from greenroom.platform.ptrace.platform import PtracePlatform
from greenroom.platform.x86_64 import cpuid, sigframe, xstate
from greenroom.platform.x86_64.registers import REGISTER_NAMES, Registers
from greenroom.platform.x86_64.sigframe import FrameFault, build_frame, parse_frame, stack_top
from greenroom.platform.x86_64.syscall_numbers import SYSCALL_NAMES
from guests import CODE, DATA, GETPPID, STACK_TOP, SYSCALL, Driver, call, load, mov

SA_SIGINFO = 4
SA_FLAGS = sigframe.SA_RESTORER | SA_SIGINFO
NO_ALTSTACK = (0, sigframe.SS_DISABLE, 0)
RT_SIGRETURN = 15
LAYOUT = xstate.host_layout()
SIZE = LAYOUT.size


# -- registers and extended state of a tracee --------------------------------------------------------------------


def test_every_register_goes_round(platform: PtracePlatform, driver: Driver) -> None:
    task = platform.create_task()
    load(task, SYSCALL)
    registers = task.get_registers()
    wanted = {name: 0x0101_0101 * (index + 1) for index, name in enumerate(REGISTER_NAMES)}
    fixed = {"cs", "ss", "ds", "es", "fs", "gs", "eflags", "orig_rax"}
    for name in set(wanted) - fixed:
        setattr(registers, name, wanted[name])
    task.set_registers(registers)
    task.mprotect(DATA, 4096, 1)  # borrows the registers
    task.resume()  # to a fault at a meaningless rip
    assert driver.event(task).kind is EventKind.FAULT
    after = task.get_registers()
    assert {name: getattr(after, name) for name in set(wanted) - fixed} == {
        name: wanted[name] for name in set(wanted) - fixed
    }
    assert after.orig_rax == (1 << 64) - 1


def test_xstate_goes_round(platform: PtracePlatform, driver: Driver) -> None:
    task = platform.create_task()
    area = bytearray(xstate.reset_area(LAYOUT))
    area[160:416] = bytes(range(256))  # xmm0 to xmm15
    area[512] |= 4
    area[576:832] = bytes(reversed(range(256)))  # their upper halves
    task.set_xstate(bytes(area))
    driver.run(task, call(GETPPID))
    after = task.get_xstate()
    assert len(after) == SIZE
    assert after[160:416] == area[160:416]
    assert after[576:832] == area[576:832]


def test_fresh_task_has_the_reset_state(platform: PtracePlatform) -> None:
    assert xstate.validate(platform.create_task().get_xstate(), LAYOUT)
    reset = xstate.reset_area(LAYOUT)
    state = platform.create_task().get_xstate()
    assert (state[:24], state[24:28], state[32:416]) == (reset[:24], reset[24:28], reset[32:416])
    assert state[576:] == reset[576:]


def spoil(offset: int, fmt: str, value: int) -> bytes:
    area = bytearray(xstate.reset_area(LAYOUT))
    struct.pack_into(fmt, area, offset, value)
    return bytes(area)


SPOILT = {
    "unknown component": spoil(512, "=Q", 1 << 62),
    "supervisor component": spoil(512, "=Q", 1 << 8),
    "compacted": spoil(520, "=Q", 1 << 63),
    "reserved header bytes": spoil(528, "=Q", 1),
    "reserved MXCSR bits": spoil(24, "=I", 1 << 16),
}


@pytest.mark.parametrize("area", SPOILT.values(), ids=SPOILT.keys())
def test_invalid_area_is_EINVAL_by_us_and_by_the_host(platform: PtracePlatform, area: bytes) -> None:
    assert not xstate.validate(area, LAYOUT)
    with pytest.raises(OSError, match="Invalid argument") as caught:
        platform.create_task().set_xstate(area)
    assert caught.value.errno == errno.EINVAL


def test_combine_resets_what_is_not_wanted() -> None:
    area = bytearray(xstate.reset_area(LAYOUT))
    area[160:176] = b"x" * 16
    area[512] |= 4
    area[576:592] = b"y" * 16
    sse_only = xstate.combine(bytes(area), 3, LAYOUT)
    assert (sse_only[160:176], sse_only[576:592], sse_only[512]) == (b"x" * 16, bytes(16), 3)
    both = xstate.combine(bytes(area), 7, LAYOUT)
    assert (both[576:592], both[512]) == (b"y" * 16, 7)


# -- signal frames ------------------------------------------------------------------------------------------------


def frame_for(registers: Registers, **changes: object) -> tuple[Registers, int, bytes]:
    settings = {
        "handler": CODE + 0x100,
        "restorer": CODE + 0x200,
        "flags": SA_FLAGS,
        "signo": 10,
        "siginfo": bytes([10]).ljust(128, b"\0"),
        "sigmask": 0x1234,
        "altstack": NO_ALTSTACK,
        "stack_top": stack_top(registers.rsp, SA_FLAGS, NO_ALTSTACK),
        "layout": LAYOUT,
        **changes,
    }
    return build_frame(registers, xstate.reset_area(LAYOUT), **settings)  # type: ignore[arg-type]


def reader(address: int, data: bytes) -> Callable[[int, int], bytes]:
    """Return a space_read over one piece of memory."""

    def read(at: int, length: int) -> bytes:
        if not address <= at < address + len(data):
            raise OSError(errno.EFAULT, "")
        return data[at - address :][:length]

    return read


def returning(frame: int, registers: Registers) -> Registers:
    """Return the registers at rt_sigreturn: the handler's ``ret`` has popped the restorer's address."""
    at_return = registers.copy()
    at_return.rsp = frame + 8
    return at_return


@pytest.mark.parametrize("rsp", range(STACK_TOP - 64, STACK_TOP, 4))
def test_frame_is_laid_out_as_the_abi_wants(rsp: int) -> None:
    entry, address, frame = frame_for(Registers(rsp=rsp, eflags=0x10F46))
    assert address % 16 == 8, "as after a call instruction"
    assert entry.rsp == address
    assert address + len(frame) <= rsp - 128, "the red zone is left alone"
    assert (entry.rdi, entry.rsi, entry.rdx, entry.rip) == (10, address + 312, address + 8, CODE + 0x100)
    assert entry.eflags == 0x10F46 & ~0x10500
    (fpstate,) = struct.unpack_from("=Q", frame, 8 + 40 + 184)
    assert fpstate % 64 == 0
    magic1, extended, features, size = struct.unpack_from("=IIQI", frame, fpstate - address + 464)
    assert (magic1, extended, size, features) == (0x46505853, SIZE + 4, SIZE, LAYOUT.features)
    assert frame[-4:] == struct.pack("=I", 0x46505845)


def test_frame_goes_back_unchanged() -> None:
    registers = Registers(rip=CODE, rsp=STACK_TOP, eflags=0x202, cs=0x33, ss=0x2B, fs_base=77, rax=5, r15=15, rcx=9)
    registers.orig_rax = (1 << 64) - 1
    _entry, address, frame = frame_for(registers, altstack=(DATA, 0, 8192))
    context = parse_frame(reader(address, frame), returning(address, registers), LAYOUT)
    assert context.registers.to_bytes() == registers.to_bytes()
    assert (context.sigmask, context.altstack) == (0x1234, (DATA, 0, 8192))
    assert context.xstate == xstate.reset_area(LAYOUT)


def test_hostile_frame_gets_no_privileged_selector_or_flag() -> None:
    registers = Registers(rsp=STACK_TOP, eflags=0x202, cs=0x33, ss=0x2B)
    _entry, address, frame = frame_for(registers)
    hostile = bytearray(frame)
    struct.pack_into("=Q", hostile, 48 + 17 * 8, (1 << 64) - 1)  # eflags
    struct.pack_into("=HHHH", hostile, 48 + 18 * 8, 0x10, 0x18, 0x20, 0x28)  # cs gs fs ss
    restored = parse_frame(reader(address, bytes(hostile)), returning(address, registers), LAYOUT).registers
    assert (restored.cs, restored.ss, restored.fs, restored.gs) == (0x33, 0x2B, 0, 0)
    assert restored.eflags == 0x202 | 0x50DD5


@pytest.mark.parametrize("length", [0, 1, 100, 311, 439, 900, -1])
def test_unreadable_frame_is_a_fault(length: int) -> None:
    registers = Registers(rsp=STACK_TOP)
    _entry, address, frame = frame_for(registers)
    with pytest.raises(FrameFault):
        parse_frame(reader(address, frame[:length]), returning(address, registers), LAYOUT)


@pytest.mark.parametrize(
    ("offset", "fmt", "value"), [(512, "=Q", 1 << 62), (520, "=Q", 1), (528, "=Q", 1), (24, "=I", 1 << 31)]
)
def test_extended_state_that_hardware_refuses_is_a_fault(offset: int, fmt: str, value: int) -> None:
    registers = Registers(rsp=STACK_TOP)
    _entry, address, frame = frame_for(registers)
    hostile = bytearray(frame)
    struct.pack_into(fmt, hostile, len(frame) - SIZE - 4 + offset, value)
    with pytest.raises(FrameFault):
        parse_frame(reader(address, bytes(hostile)), returning(address, registers), LAYOUT)


def test_frame_without_magic_restores_x87_and_sse_only() -> None:
    registers = Registers(rsp=STACK_TOP)
    area = bytearray(xstate.reset_area(LAYOUT))
    area[512] |= 4
    area[160:162], area[576:578] = b"lo", b"hi"
    _entry, address, frame = build_frame(
        registers,
        bytes(area),
        handler=0,
        restorer=0,
        flags=SA_FLAGS,
        signo=1,
        siginfo=b"",
        sigmask=0,
        altstack=NO_ALTSTACK,
        stack_top=STACK_TOP,
        layout=LAYOUT,
    )
    spoilt = frame[:-4] + bytes(4)
    for data, upper in ((frame, b"hi"), (spoilt, bytes(2))):
        state = parse_frame(reader(address, data), returning(address, registers), LAYOUT).xstate
        assert (state[160:162], state[576:578]) == (b"lo", upper)


def test_frame_without_extended_state_resets_it() -> None:
    registers = Registers(rsp=STACK_TOP)
    _entry, address, frame = frame_for(registers)
    cleared = bytearray(frame)
    struct.pack_into("=Q", cleared, 8 + 40 + 184, 0)
    assert parse_frame(
        reader(address, bytes(cleared)), returning(address, registers), LAYOUT
    ).xstate == xstate.reset_area(LAYOUT)


def test_random_frames_never_break_the_parser() -> None:
    registers = Registers(rsp=STACK_TOP, eflags=0x202)
    _entry, address, frame = frame_for(registers)
    for seed in range(300):
        noise = os.urandom(len(frame))
        hostile = bytes(a if n & 31 else b for a, b, n in zip(frame, noise, reversed(noise), strict=True))
        try:
            context = parse_frame(reader(address, hostile), returning(address, registers), LAYOUT)
        except FrameFault:
            continue
        assert xstate.validate(context.xstate, LAYOUT), seed


def test_alternate_stack_is_used_once() -> None:
    altstack = (DATA, 0, 8192)
    assert stack_top(STACK_TOP, sigframe.SA_ONSTACK, altstack) == DATA + 8192
    assert stack_top(STACK_TOP, 0, altstack) == STACK_TOP - 128
    assert stack_top(DATA + 4096, sigframe.SA_ONSTACK, altstack) == DATA + 4096 - 128
    assert stack_top(DATA + 4096, sigframe.SA_ONSTACK, (DATA, sigframe.SS_AUTODISARM, 8192)) == DATA + 8192


def test_alternate_stack_that_is_too_small_is_a_fault() -> None:
    registers = Registers(rsp=STACK_TOP)
    flags = SA_FLAGS | sigframe.SA_ONSTACK
    for altstack, rsp in (((DATA, 0, 1024), STACK_TOP), ((DATA, 0, 8192), DATA + 1024)):
        registers.rsp = rsp
        with pytest.raises(FrameFault):
            frame_for(registers, flags=flags, altstack=altstack, stack_top=stack_top(rsp, flags, altstack))


def test_no_restorer_is_a_fault() -> None:
    with pytest.raises(FrameFault):
        frame_for(Registers(rsp=STACK_TOP), flags=SA_SIGINFO)


def test_handler_and_sigreturn_on_a_real_tracee(platform: PtracePlatform, driver: Driver) -> None:
    """A fault, a handler that spoils every register it may, a sigreturn, and the fault again with all as it was."""
    task = platform.create_task()
    load(task, mov("rax", 0x1122334455667788) + b"\x66\x48\x0f\x6e\xf8" + b"\x0f\x0b")  # movq xmm7, rax; ud2
    spoil_all = mov("rax", 0) + b"\x0f\x57\xff" + mov("r8", 1) + mov("r9", 2)  # xorps xmm7, xmm7
    task.space.write(CODE + 0x100, spoil_all + b"\xc3")
    task.space.write(CODE + 0x200, call(RT_SIGRETURN))
    task.resume()
    event = driver.event(task)
    assert event.kind is EventKind.FAULT
    before, area = task.get_registers(), task.get_xstate()
    entry, address, frame = build_frame(
        before,
        area,
        handler=CODE + 0x100,
        restorer=CODE + 0x200,
        flags=SA_FLAGS,
        signo=signal.SIGILL,
        siginfo=event.siginfo,
        sigmask=0,
        altstack=NO_ALTSTACK,
        stack_top=stack_top(before.rsp, SA_FLAGS, NO_ALTSTACK),
        layout=LAYOUT,
    )
    assert task.space.write(address, frame) == len(frame)
    task.set_registers(entry)
    task.set_xstate(xstate.reset_area(LAYOUT))
    task.resume()
    event = driver.event(task)
    assert (event.kind, event.number) == (EventKind.SYSCALL, RT_SIGRETURN)
    assert task.get_xstate()[272:280] == bytes(8)
    context = parse_frame(task.space.read, task.get_registers(), LAYOUT)
    task.set_registers(context.registers)
    task.set_xstate(context.xstate)
    task.resume()
    assert driver.event(task).kind is EventKind.FAULT
    assert task.get_registers().to_bytes() == before.to_bytes()
    assert task.get_xstate()[272:280] == struct.pack("=Q", 0x1122334455667788)


# -- CPU features and the table ----------------------------------------------------------------------------------


def test_layout_is_what_ptrace_uses(platform: PtracePlatform) -> None:
    (features,) = struct.unpack_from("=Q", platform.create_task().get_xstate(), 464)
    assert features & ~(1 << 18) == LAYOUT.features


def test_hwcap_is_cpuid_1_edx() -> None:
    from greenroom.platform.x86_64.instructions import cpuid as execute

    hwcap = cpuid.host_auxv()[cpuid.AT_HWCAP]
    assert hwcap & (1 << 26), "SSE2 is part of x86-64"
    assert hwcap & ~execute(1)[3] == 0


def test_feature_sets_compare() -> None:
    host = cpuid.host_features()
    assert host.missing_on(host) == []
    richer = host._replace(flags=host.flags | {"amx_tile"}, xfeatures=host.xfeatures | 1 << 17)
    assert richer.missing_on(host) == ["amx_tile", "xfeatures 0x20000"]
    assert host.missing_on(richer) == []
    moved = host._replace(xstate_layout=((2, 640, 256),))
    assert host.missing_on(moved) == ["the layout of the XSAVE area"]


def test_table_agrees_with_the_hosts_header() -> None:
    try:
        with open("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", encoding="ascii") as file:
            header = re.findall(r"#define __NR_(\w+) (\d+)", file.read())
    except FileNotFoundError:
        pytest.skip("no kernel headers here")
    assert {SYSCALL_NAMES[int(number)] for _, number in header} == {name for name, _ in header}
