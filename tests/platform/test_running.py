"""Running guests on each platform: calls, faults, interrupts, births and deaths."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest
from greenroom.platform.interface import GUEST_TOP, STUB_ADDRESS, EventKind, HostTaskDied
from guests import (
    CODE,
    DATA,
    EXIT,
    GETPPID,
    PAGE,
    PRIVATE,
    PROT_READ,
    PROT_WRITE,
    SPIN,
    STACK_TOP,
    SYSCALL,
    Driver,
    call,
    fault_of,
    load,
    mov,
)

if TYPE_CHECKING:
    from greenroom.platform.ptrace.platform import PtracePlatform
    from greenroom.platform.ptrace.task import PtraceTask

MASK = (1 << 64) - 1


def test_syscall_reports_number_and_six_unsigned_arguments(platform: PtracePlatform, driver: Driver) -> None:
    event = driver.run(platform.create_task(), call(9, 1, 2, 3, -1, 5, 1 << 63))
    assert (event.kind, event.number, event.args) == (EventKind.SYSCALL, 9, (1, 2, 3, MASK, 5, 1 << 63))


def test_number_is_the_low_half_of_rax_as_an_int(platform: PtracePlatform, driver: Driver) -> None:
    """entry_SYSCALL_64 sign-extends eax: the upper half of rax does not matter."""
    assert driver.run(platform.create_task(), call(0x1_0000_0027)).number == 39
    assert driver.run(platform.create_task(), call(0xFFFF_FFFF)).number == -1


def test_resume_with_puts_the_result_in_rax(platform: PtracePlatform, driver: Driver) -> None:
    """The guest passes each result on as the next call's argument."""
    pass_on = b"\x48\x89\xc7" + mov("rax", GETPPID) + SYSCALL  # mov rdi, rax
    task = platform.create_task()
    event = driver.run(task, call(GETPPID) + pass_on + pass_on)
    for result in (42, -errno.ENOENT):
        task.resume_with(result)
        event = driver.event(task)
        assert event.args[0] == result & MASK


def test_only_rax_rcx_and_r11_change_across_a_call(platform: PtracePlatform, driver: Driver) -> None:
    task = platform.create_task()
    load(task, SYSCALL + SPIN)
    before = task.get_registers()
    for index, name in enumerate(("rbx", "rbp", "r12", "r13", "r14", "r15", "rdi", "rsi", "rdx", "r10", "r8", "r9")):
        setattr(before, name, 0x1111 * (index + 1))
    before.rax = GETPPID
    task.set_registers(before)
    task.resume()
    driver.event(task)
    task.mprotect(DATA, PAGE, PROT_READ)  # an injected call in between must leave no trace
    task.resume_with(7)
    task.interrupt()
    assert driver.event(task).kind is EventKind.STOPPED
    after = task.get_registers()
    assert (after.rax, after.rip, after.rcx) == (7, CODE + 2, CODE + 2)
    unchanged = {"rbx", "rbp", "r12", "r13", "r14", "r15", "rdi", "rsi", "rdx", "r10", "r8", "r9", "rsp", "cs", "ss"}
    assert {name: getattr(after, name) for name in unchanged} == {name: getattr(before, name) for name in unchanged}


def test_fresh_task_has_zero_registers_and_only_the_stub(platform: PtracePlatform) -> None:
    task = platform.create_task()
    registers = task.get_registers()
    named = {name: getattr(registers, name) for name in ("rax", "rbx", "rsp", "rip", "fs_base", "gs_base", "r15")}
    assert set(named.values()) == {0}
    with open(f"/proc/{task.host_tid}/maps", encoding="ascii") as maps:
        lines = [line for line in maps if "[vsyscall]" not in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"{STUB_ADDRESS:x}-{STUB_ADDRESS + PAGE:x} r-xp")


def test_fresh_task_inherits_nothing_of_the_worker(platform: PtracePlatform) -> None:
    task = platform.create_task()
    with open(f"/proc/{task.host_tid}/status", encoding="ascii") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    for mask in ("SigBlk", "SigIgn", "SigCgt"):
        assert int(status[mask], 16) == 0, mask
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert os.readlink(f"/proc/{task.host_tid}/cwd") == "/"
    assert os.listdir(f"/proc/{task.host_tid}/fd") == ["0"]
    assert os.getsid(task.host_tid) != os.getsid(0)


def test_operation_on_a_running_task_is_our_bug(platform: PtracePlatform) -> None:
    task = platform.create_task()
    load(task, SPIN)
    task.resume()
    for operation in (task.get_registers, task.resume, lambda: task.munmap(DATA, PAGE)):
        with pytest.raises(RuntimeError, match="is running"):
            operation()


# -- faults -----------------------------------------------------------------------------------------------------


def test_unmapped_address_is_SIGSEGV_with_the_address(platform: PtracePlatform, driver: Driver) -> None:
    event = driver.run(platform.create_task(), mov("rax", 0x1234000) + b"\x8a\x00")  # mov al, [rax]
    assert fault_of(event) == (signal.SIGSEGV, 1, 0x1234000)


def test_write_to_read_only_page_is_SEGV_ACCERR(platform: PtracePlatform, driver: Driver) -> None:
    event = driver.run(platform.create_task(), mov("rax", CODE) + b"\x88\x00")  # mov [rax], al
    assert fault_of(event) == (signal.SIGSEGV, 2, CODE)


def test_ud2_is_SIGILL(platform: PtracePlatform, driver: Driver) -> None:
    assert fault_of(driver.run(platform.create_task(), b"\x0f\x0b"))[0] == signal.SIGILL


def test_division_by_zero_is_SIGFPE(platform: PtracePlatform, driver: Driver) -> None:
    event = driver.run(platform.create_task(), b"\x31\xc9\xf7\xf1")  # xor ecx, ecx; div ecx
    assert fault_of(event) == (signal.SIGFPE, 1, CODE + 2)


def test_int3_is_SIGTRAP(platform: PtracePlatform, driver: Driver) -> None:
    task = platform.create_task()
    assert fault_of(driver.run(task, b"\xcc"))[0] == signal.SIGTRAP
    assert task.get_registers().rip == CODE + 1


def test_own_trap_flag_is_SIGTRAP(platform: PtracePlatform, driver: Driver) -> None:
    """A guest that sets TF steps itself: TRAP_TRACE after the next instruction."""
    code = b"\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d\x90\x90"  # pushf; or dword [rsp], 0x100; popf; nop; nop
    assert fault_of(driver.run(platform.create_task(), code))[:2] == (signal.SIGTRAP, 2)


def test_non_canonical_rip_is_SIGSEGV_and_not_our_failure(platform: PtracePlatform, driver: Driver) -> None:
    for rip in (1 << 63, 1 << 47, MASK):
        task = platform.create_task()
        registers = task.get_registers()
        registers.rip = rip
        task.set_registers(registers)
        task.resume()
        assert fault_of(driver.event(task))[0] == signal.SIGSEGV


def test_fault_can_be_repaired_and_repeated(platform: PtracePlatform, driver: Driver) -> None:
    task = platform.create_task()
    fault_of(driver.run(task, mov("rax", DATA + PAGE) + b"\x8a\x18" + call(EXIT)))
    task.mmap(DATA + PAGE, PAGE, PROT_READ, PRIVATE)
    task.resume()
    assert driver.event(task).number == EXIT


def test_int_0x80_is_SIGSEGV_at_the_instruction(platform: PtracePlatform, driver: Driver) -> None:
    """As on a host without CONFIG_IA32_EMULATION; the registers are those before the instruction."""
    task = platform.create_task()
    event = driver.run(task, mov("rax", 4) + b"\xcd\x80")
    assert fault_of(event) == (signal.SIGSEGV, 0x80, 0)
    registers = task.get_registers()
    assert (registers.rip, registers.rax) == (CODE + 10, 4)


def test_vsyscall_page_is_a_system_call(platform: PtracePlatform, driver: Driver) -> None:
    """time() in the vsyscall page: reported, not emulated by the host, and returns to the caller."""
    task = platform.create_task()
    code = mov("rax", 0xFFFF_FFFF_FF60_0400) + mov("rdi", 0x77) + b"\xff\xd0"  # call rax
    event = driver.run(task, code + b"\x48\x89\xc7" + mov("rax", EXIT) + SYSCALL)
    if event.kind is EventKind.FAULT:
        pytest.skip("this host has no vsyscall page")
    assert (event.kind, event.number, event.args[0]) == (EventKind.SYSCALL, 201, 0x77)
    task.resume_with(1234)
    event = driver.event(task)
    assert (event.number, event.args[0]) == (EXIT, 1234)


# -- interrupts and signals from outside -----------------------------------------------------------------------


def test_interrupt_stops_a_spinning_task(platform: PtracePlatform, driver: Driver) -> None:
    task = platform.create_task()
    load(task, SPIN)
    for _ in range(3):
        task.resume()
        task.interrupt()
        assert driver.event(task).kind is EventKind.STOPPED
        assert task.get_registers().rip == CODE


def test_interrupt_of_a_stopped_task_has_no_effect(platform: PtracePlatform, driver: Driver) -> None:
    task = platform.create_task()
    load(task, call(GETPPID) + SPIN)
    task.interrupt()
    assert driver.quiet()
    task.resume()
    assert driver.event(task).kind is EventKind.SYSCALL


def test_interrupt_may_lose_against_another_event(platform: PtracePlatform, driver: Driver) -> None:
    """Whatever comes first, an event comes; an injected call meanwhile absorbs the stop."""
    task = platform.create_task()
    load(task, call(GETPPID) + b"\xeb\xf2")  # and again, from its mov
    for _ in range(50):
        task.resume()
        task.interrupt()
        event = driver.event(task)
        assert event.kind in (EventKind.SYSCALL, EventKind.STOPPED)
        task.madvise(DATA, PAGE, 4)


@pytest.mark.parametrize("signo", [signal.SIGSTOP, signal.SIGTSTP, signal.SIGCONT, signal.SIGTERM, signal.SIGTRAP])
def test_signals_from_outside_are_suppressed(platform: PtracePlatform, driver: Driver, signo: int) -> None:
    task = platform.create_task()
    load(task, SPIN)
    task.resume()
    os.kill(task.host_tid, signo)
    assert driver.quiet()
    task.interrupt()
    assert driver.event(task).kind is EventKind.STOPPED
    os.kill(task.host_tid, signo)
    task.mprotect(DATA, PAGE, PROT_READ)  # in the way of an injected call
    task.resume()
    assert driver.quiet()


def test_SIGSEGV_sent_from_outside_is_no_fault(platform: PtracePlatform, driver: Driver) -> None:
    task = platform.create_task()
    load(task, SPIN)
    task.resume()
    os.kill(task.host_tid, signal.SIGSEGV)
    assert driver.quiet()


# -- births -----------------------------------------------------------------------------------------------------


def test_clone_without_shared_memory_copies(platform: PtracePlatform, driver: Driver) -> None:
    parent = platform.create_task()
    driver.run(parent, call(GETPPID) + call(EXIT))
    parent.space.write(DATA, b"before")
    child = parent.clone(share_memory=False)
    assert child.space is not parent.space
    parent.space.write(DATA, b"parent")
    assert child.space.read(DATA, 6) == b"before"
    child.resume_with(0)
    assert driver.event().task is child
    parent.resume_with(5)
    assert driver.event().task is parent


def test_clone_with_shared_memory_shares(platform: PtracePlatform, driver: Driver) -> None:
    parent = platform.create_task()
    driver.run(parent, call(GETPPID) + call(EXIT))
    child = parent.clone(share_memory=True)
    assert child.space is parent.space
    child.mmap(DATA + PAGE, PAGE, PROT_READ | PROT_WRITE, PRIVATE)
    parent.space.write(DATA + PAGE, b"both")
    parent.kill()
    assert child.space.read(DATA + PAGE, 4) == b"both"
    child.resume_with(0)
    assert driver.event(child).number == EXIT


def test_clone_copies_registers_and_extended_state_but_returns_0(platform: PtracePlatform, driver: Driver) -> None:
    parent = platform.create_task()
    driver.run(parent, mov("rax", 0x1122) + b"\x66\x48\x0f\x6e\xe8" + call(GETPPID))  # movq xmm5, rax
    child = parent.clone(share_memory=False)
    registers = parent.get_registers()
    registers.rax = 0
    assert child.get_registers().to_bytes() == registers.to_bytes()
    assert child.get_xstate() == parent.get_xstate()
    assert b"\x22\x11" in child.get_xstate()


def test_clones_of_clones(platform: PtracePlatform, driver: Driver) -> None:
    task = platform.create_task()
    driver.run(task, call(GETPPID) + call(EXIT))
    for depth in range(6):
        child = task.clone(share_memory=depth % 2 == 0)
        task.kill()
        task = child
    task.resume_with(0)
    assert driver.event(task).number == EXIT


# -- deaths -----------------------------------------------------------------------------------------------------


def test_kill_is_idempotent_and_reports_nothing(platform: PtracePlatform, driver: Driver) -> None:
    for running in (False, True):
        task = platform.create_task()
        load(task, SPIN)
        tid = task.host_tid
        if running:
            task.resume()
        task.kill()
        task.kill()
        while os.path.exists(f"/proc/{tid}"):
            assert driver.quiet()
    assert driver.quiet()


def test_death_of_a_running_task_is_reported(platform: PtracePlatform, driver: Driver) -> None:
    task = platform.create_task()
    load(task, SPIN)
    task.resume()
    os.kill(task.host_tid, signal.SIGKILL)
    event = driver.event(task)
    assert event.kind is EventKind.EXITED
    assert os.WTERMSIG(event.number) == signal.SIGKILL
    with pytest.raises(HostTaskDied):
        task.resume()
    task.kill()


def test_death_of_a_stopped_task_is_reported(platform: PtracePlatform, driver: Driver) -> None:
    task = platform.create_task()
    os.kill(task.host_tid, signal.SIGKILL)
    assert driver.event(task).kind is EventKind.EXITED


def _map_often(task: PtraceTask) -> None:
    for _ in range(10_000):
        task.mmap(DATA, PAGE, PROT_READ, PRIVATE)


def test_death_under_our_hands_raises_and_is_reported_once(platform: PtracePlatform, driver: Driver) -> None:
    task = platform.create_task()
    os.kill(task.host_tid, signal.SIGKILL)
    with pytest.raises(HostTaskDied):
        _map_often(task)  # the first request that finds it gone
    assert driver.event(task).kind is EventKind.EXITED
    assert driver.quiet()


def test_foreign_children_keep_their_status(platform: PtracePlatform, driver: Driver) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    task = platform.create_task()
    load(task, call(GETPPID))
    while not platform.foreign_exits:
        driver.quiet(20)
    found, status = platform.foreign_exits[0]
    assert (found, os.waitstatus_to_exitcode(status)) == (pid, 7)


# -- the stub is out of reach -------------------------------------------------------------------------------------


def test_ranges_that_touch_the_stub_are_refused(platform: PtracePlatform) -> None:
    task = platform.create_task()
    for address, length in ((STUB_ADDRESS, PAGE), (STUB_ADDRESS - PAGE, 2 * PAGE), (0, GUEST_TOP + PAGE), (-1, PAGE)):
        for operation in (
            lambda a, n: task.mmap(a, n, 7, PRIVATE),
            task.munmap,
            lambda a, n: task.mprotect(a, n, 7),
            lambda a, n: task.madvise(a, n, 4),
            lambda a, n: task.mremap(a, n, DATA, n),
            lambda a, n: task.mremap(DATA, n, a, n),
        ):
            with pytest.raises(OSError, match="Invalid argument"):
                operation(address, length)


def test_memory_writes_stop_short_of_the_stub(platform: PtracePlatform) -> None:
    task = platform.create_task()
    task.mmap(GUEST_TOP - PAGE, PAGE, PROT_READ | PROT_WRITE, PRIVATE)
    assert task.space.write(GUEST_TOP - 4, b"12345678") == 4
    assert task.space.read(GUEST_TOP - 4, 8) == b"1234"
    for address in (STUB_ADDRESS, 1 << 63, MASK):
        with pytest.raises(OSError, match="Bad address"):
            task.space.write(address, b"x")
        with pytest.raises(OSError, match="Bad address"):
            task.space.read(address, 1)


def test_jump_into_the_stub_gains_nothing(platform: PtracePlatform, driver: Driver) -> None:
    """The stub's ``syscall`` is a system call like any other when a guest executes it."""
    task = platform.create_task()
    event = driver.run(task, mov("rax", EXIT) + mov("rdx", STUB_ADDRESS) + b"\xff\xe2")  # jmp rdx
    assert (event.kind, event.number) == (EventKind.SYSCALL, EXIT)
    task.resume_with(0)
    assert fault_of(driver.event(task))[0] == signal.SIGTRAP


# -- memory -----------------------------------------------------------------------------------------------------


def test_reads_and_writes_are_short_at_unmapped_memory(platform: PtracePlatform) -> None:
    task = platform.create_task()
    load(task, b"\x90")
    assert len(task.space.read(DATA, 3 * PAGE)) == PAGE
    assert task.space.write(DATA + PAGE - 2, b"abcd") == 2
    for address in (0, DATA + PAGE, STACK_TOP):
        with pytest.raises(OSError, match="Bad address"):
            task.space.read(address, 1)
    assert task.space.read(DATA, 0) == b""


def test_mremap_moves_and_resizes(platform: PtracePlatform) -> None:
    task = platform.create_task()
    task.mmap(DATA, 2 * PAGE, PROT_READ | PROT_WRITE, PRIVATE)
    task.space.write(DATA, b"moved")
    task.mremap(DATA, 2 * PAGE, DATA + 16 * PAGE, 4 * PAGE)
    assert task.space.read(DATA + 16 * PAGE, 5) == b"moved"
    task.mremap(DATA + 16 * PAGE, 4 * PAGE, DATA + 16 * PAGE, PAGE)
    assert len(task.space.read(DATA + 16 * PAGE, 4 * PAGE)) == PAGE


def test_host_errors_are_the_guests_errors(platform: PtracePlatform) -> None:
    task = platform.create_task()
    with pytest.raises(OSError, match="Cannot allocate memory") as caught:
        task.mprotect(DATA, PAGE, PROT_READ)
    assert caught.value.errno == errno.ENOMEM
    task.mmap(DATA, PAGE, PROT_READ, PRIVATE)  # and the task goes on


def test_segments_that_ptrace_cannot_write_survive_injected_calls(platform: PtracePlatform, driver: Driver) -> None:
    """A hostile guest puts a kernel address in fs_base and the null selector 1 in ds: its registers, its problem."""
    kernel_half = 0xFFFF_8000_0000_0000
    wrfsbase = b"\xf3\x48\x0f\xae\xd0"  # wrfsbase rax
    task = platform.create_task()
    event = driver.run(
        task, mov("rax", kernel_half) + wrfsbase + mov("rax", 1) + b"\x8e\xd8" + call(GETPPID) + call(EXIT)
    )
    if event.kind is EventKind.FAULT:
        pytest.skip("this CPU has no FSGSBASE")
    task.mmap(DATA + PAGE, PAGE, PROT_READ, PRIVATE)
    child = task.clone(share_memory=True)
    registers = child.get_registers()
    assert (registers.fs_base, registers.ds) == (kernel_half, 1)
    child.set_registers(registers)
    for each in (task, child):
        each.resume_with(0)
        assert driver.event(each).number == EXIT
        assert each.get_registers().fs_base == kernel_half
    registers.gs_base, registers.ds = 0x1234, 3
    child.set_registers(registers)
    assert child.get_registers().gs_base == 0x1234
    registers.gs_base = kernel_half
    with pytest.raises(OSError, match="Input/output error"):
        child.set_registers(registers)
