"""What only the notify platform does: notifications that stop, vanish or are answered by the host, and the key."""

from __future__ import annotations

import errno
import os
import select
import signal
from typing import TYPE_CHECKING

import pytest
from greenroom.platform.interface import GUEST_TOP, STUB_ADDRESS, EventKind, HostTaskDied
from greenroom.platform.notify.platform import NotifyPlatform
from greenroom.platform.notify.seed import FILE_TRAMPOLINE, TRAMPOLINE
from greenroom.platform.notify.task import NotifyTask
from greenroom.platform.ptrace.task import PtraceTask
from guests import (
    CODE,
    DATA,
    EXIT,
    GETPPID,
    MAP_PRIVATE,
    PAGE,
    PRIVATE,
    PROT_READ,
    PROT_WRITE,
    SPIN,
    SYSCALL,
    Driver,
    call,
    load,
    mov,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Operation = Callable[[NotifyTask], object]

MMAP, MPROTECT, MUNMAP, MADVISE, CLONE, FORK, CLOSE = 9, 10, 11, 28, 56, 57, 3
MASK = (1 << 64) - 1
MADV_DONTNEED = 4
#: mov rdi, rax; and the call that hands the result of the one before to the test.
TELL = b"\x48\x89\xc7" + mov("rax", EXIT) + SYSCALL


@pytest.fixture
def platform(request: pytest.FixtureRequest) -> Iterator[NotifyPlatform]:
    if "notify" not in request.config.getoption("platforms").split(","):
        pytest.skip("notify was not asked for")
    platform = NotifyPlatform()
    platform.start()
    try:
        yield platform
    finally:
        platform.close()


def unread(platform: NotifyPlatform, task: NotifyTask) -> None:
    """Let the task run until it is in a notification that nobody has received."""
    task.resume()
    assert select.select([platform.listener], [], [], 10)[0]


# -- stops ------------------------------------------------------------------------------------------------------


def test_registers_in_a_notification_are_those_of_a_system_call(platform: NotifyPlatform, driver: Driver) -> None:
    """As PTRACE_SYSEMU has them: rip behind the instruction, rax -ENOSYS, orig_rax the number."""
    task = platform.create_task()
    driver.run(task, call(GETPPID) + TELL)
    registers = task.get_registers()
    assert (registers.rip, registers.orig_rax) == (CODE + len(call(GETPPID)), GETPPID)
    assert registers.rax == -errno.ENOSYS & MASK
    task.resume_with(17)
    assert driver.event(task).args[0] == 17


def test_an_answer_after_any_operation_on_a_notification(platform: NotifyPlatform, driver: Driver) -> None:
    operations: tuple[Operation, ...] = (
        lambda task: task.get_xstate(),
        lambda task: task.set_xstate(task.get_xstate()),
        lambda task: task.set_registers(task.get_registers()),
        lambda task: task.mprotect(DATA, PAGE, PROT_READ),
        lambda task: task.clone(share_memory=False).kill(),
    )
    for operation in operations:
        task = platform.create_task()
        driver.run(task, call(GETPPID) + TELL)
        operation(task)
        task.resume_with(-errno.EPERM)
        assert driver.event(task).args[0] == -errno.EPERM & MASK
        task.kill()


def test_resume_without_a_result_is_ENOSYS(platform: NotifyPlatform, driver: Driver) -> None:
    task = platform.create_task()
    driver.run(task, call(GETPPID) + TELL)
    task.resume()
    assert driver.event(task).args[0] == -errno.ENOSYS & MASK


# -- interrupts -------------------------------------------------------------------------------------------------


def test_interrupt_receives_an_unread_notification(platform: NotifyPlatform, driver: Driver) -> None:
    """It is reported rather than cancelled, so that no flood of interrupts keeps a task from its call."""
    task = platform.create_task()
    load(task, call(GETPPID) + SPIN)
    unread(platform, task)
    task.interrupt()
    event = driver.event(task)
    assert (event.kind, event.number) == (EventKind.SYSCALL, GETPPID)
    assert driver.quiet()


def test_what_an_interrupt_receives_is_not_lost_to_another_stop(platform: NotifyPlatform, driver: Driver) -> None:
    """The wake-up for it and the stop's SIGCHLD are not one: ours is sent to the thread, the host's to the process."""
    one, other = platform.create_task(), platform.create_task()
    load(one, call(GETPPID) + SPIN)
    load(other, call(FORK) + SPIN)
    unread(platform, one)
    other.resume()
    os.waitid(os.P_PID, other.host_tid, os.WSTOPPED | os.WNOWAIT | 0x40000000)
    one.interrupt()
    assert {driver.event().task, driver.event().task} == {one, other}


def test_a_cancelled_notification_is_a_call_not_yet_made(platform: NotifyPlatform, driver: Driver) -> None:
    """A signal from outside takes an unread notification back; the call is made again, once."""
    task = platform.create_task()
    load(task, call(GETPPID) + TELL)
    unread(platform, task)
    os.kill(task.host_tid, signal.SIGTERM)
    event = driver.event(task)
    assert (event.kind, event.number) == (EventKind.SYSCALL, GETPPID)
    task.resume_with(3)
    event = driver.event(task)
    assert (event.number, event.args[0]) == (EXIT, 3)


def test_registers_of_a_cancelled_call_are_those_before_it(platform: NotifyPlatform, driver: Driver) -> None:
    task = platform.create_task()
    load(task, call(GETPPID) + TELL)
    task.resume()
    # Straight to ptrace's interrupt, as when the notification comes a moment after interrupt() has looked.
    assert select.select([platform.listener], [], [], 10)[0]
    PtraceTask.interrupt(task)
    event = driver.event(task)
    if event.kind is EventKind.STOPPED:
        registers = task.get_registers()
        assert (registers.rip, registers.rax) == (CODE + len(call(GETPPID)) - 2, GETPPID)
        task.set_registers(registers)
        task.resume()
        event = driver.event(task)
    assert (event.kind, event.number) == (EventKind.SYSCALL, GETPPID)
    task.resume_with(3)
    while (event := driver.event(task)).kind is EventKind.STOPPED:
        task.resume()
    assert (event.number, event.args[0]) == (EXIT, 3)


def test_no_call_is_lost_or_made_twice_in_a_storm_of_interrupts(platform: NotifyPlatform, driver: Driver) -> None:
    """The guest counts its calls in rbx and passes the count: the numbers come in order."""
    count = b"\x48\xff\xc3\x48\x89\xdf" + mov("rax", GETPPID) + SYSCALL  # inc rbx; mov rdi, rbx
    task = platform.create_task()
    load(task, count + b"\xeb" + bytes([256 - len(count) - 2]))
    task.resume()
    seen = 0
    while seen < 300:
        task.interrupt()
        event = driver.event(task)
        if event.kind is EventKind.SYSCALL:
            seen += 1
            assert event.args[0] == seen
            if seen % 3 == 0:
                task.set_registers(task.get_registers())
            task.resume_with(0)
        else:
            assert event.kind is EventKind.STOPPED
            if seen % 2:
                task.set_registers(task.get_registers())
            task.resume()


# -- deaths -----------------------------------------------------------------------------------------------------


def test_death_in_a_notification(platform: NotifyPlatform, driver: Driver) -> None:
    task = platform.create_task()
    driver.run(task, call(GETPPID))
    os.kill(task.host_tid, signal.SIGKILL)
    event = driver.event(task)
    assert (event.kind, os.WTERMSIG(event.number)) == (EventKind.EXITED, signal.SIGKILL)
    with pytest.raises(HostTaskDied):
        task.resume_with(0)


def test_death_that_only_the_answer_finds(platform: NotifyPlatform, driver: Driver) -> None:
    operations: tuple[Operation, ...] = (lambda task: task.resume_with(0), lambda task: task.get_registers())
    for operation in operations:
        task = platform.create_task()
        driver.run(task, call(GETPPID))
        os.kill(task.host_tid, signal.SIGKILL)
        os.waitid(os.P_PID, task.host_tid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(HostTaskDied):
            operation(task)
        assert driver.event(task).kind is EventKind.EXITED


@pytest.mark.parametrize("received", [False, True])
def test_kill_in_a_notification_reports_nothing(platform: NotifyPlatform, driver: Driver, received: bool) -> None:
    task = platform.create_task()
    load(task, call(GETPPID))
    unread(platform, task)
    if received:
        driver.event(task)
    else:
        platform.drain()
    task.kill()
    assert driver.quiet()


def test_a_storm_of_births_and_deaths(platform: NotifyPlatform, driver: Driver) -> None:
    """Children of both kinds make a call each and die in it, or after it, or before."""
    parent = platform.create_task()
    driver.run(parent, call(FORK) + call(GETPPID) + SPIN)
    before = set(os.listdir("/proc/self/fd"))
    for index in range(60):
        child = parent.clone(share_memory=index % 2 == 0)
        child.resume_with(0)
        if index % 3:
            assert driver.event(child).number == GETPPID
        if index % 3 == 1:
            child.resume_with(0)
        child.kill()
    assert set(os.listdir("/proc/self/fd")) == before
    parent.resume_with(0)
    assert driver.event(parent).number == GETPPID


def test_one_task_that_floods_starves_no_other(platform: NotifyPlatform, driver: Driver) -> None:
    flood = call(GETPPID) + b"\xeb\xf2"
    for _ in range(3):
        task = platform.create_task()
        load(task, flood)
        task.resume()
    other = platform.create_task()
    load(other, call(EXIT))
    other.resume()
    for _ in range(10_000):
        event = driver.event()
        if event.task is other:
            return
        event.task.resume_with(0)
    pytest.fail("10000 calls of others came first")


# -- calls that the host makes ------------------------------------------------------------------------------------


def test_munmap_is_left_to_the_host_and_the_stub_stays(platform: NotifyPlatform, driver: Driver) -> None:
    task = platform.create_task()
    event = driver.run(task, call(MUNMAP, DATA, PAGE) + call(MUNMAP, STUB_ADDRESS, PAGE) + TELL)
    task.munmap(*event.args[:2])
    task.resume_with(0)
    event = driver.event(task)
    with pytest.raises(OSError, match="Bad address"):
        task.space.read(DATA, 1)
    with pytest.raises(OSError, match="Invalid argument"):
        task.munmap(*event.args[:2])
    task.resume_with(-errno.EINVAL)
    assert driver.event(task).args[0] == -errno.EINVAL & MASK
    with open(f"/proc/{task.host_tid}/maps", encoding="ascii") as maps:
        assert any(line.startswith(f"{STUB_ADDRESS:x}-{STUB_ADDRESS + PAGE:x} r-xp") for line in maps)


@pytest.mark.parametrize("disturb", [False, True])
def test_deferred_protection_and_advice(platform: NotifyPlatform, driver: Driver, *, disturb: bool) -> None:
    """Whether the answer is as expected, or something wants the registers first."""
    task = platform.create_task()
    fault = mov("rax", DATA) + b"\x88\x00"  # mov [rax], al
    event = driver.run(task, call(MADVISE, DATA, PAGE, MADV_DONTNEED) + call(MPROTECT, DATA, PAGE, PROT_READ) + fault)
    task.space.write(DATA, b"discard me")
    task.madvise(DATA, PAGE, MADV_DONTNEED)
    if disturb:
        task.get_registers()
        assert task.space.read(DATA, 10) == bytes(10)
    task.resume_with(0)
    event = driver.event(task)
    assert task.space.read(DATA, 10) == bytes(10)
    task.mprotect(DATA, PAGE, PROT_READ)
    if disturb:
        task.get_registers()
    task.resume_with(0)
    event = driver.event(task)
    assert event.kind is EventKind.FAULT


@pytest.mark.parametrize("disturb", [False, True])
@pytest.mark.parametrize("flags", [0x22, 0x20022, 0x32])
def test_mmap_in_place_keeps_every_register(
    platform: NotifyPlatform, driver: Driver, flags: int, *, disturb: bool
) -> None:
    task = platform.create_task()
    place = DATA + 16 * PAGE
    hint = place if flags & 0x10 else 0x1230
    event = driver.run(task, call(MMAP, hint, PAGE - 5, 3, flags, -1, 0) + mov("rax", EXIT) + SYSCALL)
    before = task.get_registers()
    task.mmap(place, PAGE, PROT_READ | PROT_WRITE, PRIVATE)
    if disturb:
        task.get_registers()
    task.resume_with(place)
    event = driver.event(task)
    assert event.args == (hint, PAGE - 5, 3, flags, MASK, 0)
    after = task.get_registers()
    names = ("rbx", "rbp", "rsp", "r12", "r13", "r14", "r15", "eflags", "fs_base")
    assert {name: getattr(after, name) for name in names} == {name: getattr(before, name) for name in names}
    assert task.space.write(place, b"mapped") == 6


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("test")
    os.write(fd, b"first page".ljust(PAGE, b".") + b"second page")
    yield fd
    os.close(fd)


@pytest.mark.parametrize("disturb", [False, True])
@pytest.mark.parametrize("flags", [0x02, 0x802, 0x12])
def test_mmap_of_a_file_in_place_keeps_every_register(
    platform: NotifyPlatform, driver: Driver, file: int, flags: int, *, disturb: bool
) -> None:
    """The first one is made for the guest, and shows that the second may be left to the host."""
    place = DATA + 16 * PAGE
    hint = place if flags & 0x10 else 0
    guest_fd = 0x1234_5678
    task = platform.create_task()
    one_call = call(MMAP, hint, PAGE - 5, 3, flags, guest_fd, PAGE)
    event = driver.run(task, one_call + one_call + mov("rax", EXIT) + SYSCALL)
    for deferred in (False, True):
        before = task.get_registers()
        if deferred and not hint:
            place += PAGE  # whoever places it chooses a free one
        task.mmap(place, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, PAGE)
        assert isinstance(task, NotifyTask)
        assert (task._deferred is not None) == deferred
        if disturb:
            task.get_registers()
        task.resume_with(place)
        event = driver.event(task)
        assert event.args == (hint, PAGE - 5, 3, flags, guest_fd, PAGE)
        after = task.get_registers()
        names = ("rbx", "rbp", "rsp", "r12", "r13", "r14", "r15", "eflags", "fs_base")
        assert {name: getattr(after, name) for name in names} == {name: getattr(before, name) for name in names}
        assert task.space.read(place, 11) == b"second page"
        assert task.space.write(place, b"private") == 7


def test_a_file_that_is_about_to_be_mapped_stays_on_the_shelf(
    platform: NotifyPlatform, driver: Driver, file: int
) -> None:
    task = platform.create_task()
    one_call = call(MMAP, 0, PAGE, 1, 2, 3, 0)
    driver.run(task, one_call + one_call + TELL)
    task.mmap(DATA + PAGE, PAGE, PROT_READ, MAP_PRIVATE, file, 0)
    task.resume_with(DATA + PAGE)
    driver.event(task)
    task.mmap(DATA + 2 * PAGE, PAGE, PROT_READ, MAP_PRIVATE, file, 0)
    assert isinstance(task, NotifyTask)
    place = task.shelf_place
    platform.shelf._limit = 1
    other = os.memfd_create("other")
    assert platform.shelf.place(other) != (place, True)
    assert platform.shelf.place(file) == (place, True)
    os.close(other)
    task.resume_with(DATA + 2 * PAGE)
    assert driver.event(task).args[0] == DATA + 2 * PAGE
    assert task.space.read(DATA + 2 * PAGE, 5) == b"first"


@pytest.mark.parametrize("of_file", [False, True])
def test_interrupts_never_show_a_trampoline(
    platform: NotifyPlatform, driver: Driver, file: int, *, of_file: bool
) -> None:
    flags, fd = (MAP_PRIVATE, 5) if of_file else (PRIVATE, -1)
    task = platform.create_task()
    loop = call(MMAP, 0x1230, PAGE, 3, flags, fd, 0)
    load(task, loop + b"\xe9" + (-len(loop) - 5).to_bytes(4, "little", signed=True))
    task.resume()
    for _ in range(200):
        task.interrupt()
        event = driver.event(task)
        registers = task.get_registers()
        assert CODE <= registers.rip < CODE + PAGE
        if event.kind is EventKind.STOPPED:
            task.set_registers(registers)
            task.resume()
        else:
            assert event.args == (0x1230, PAGE, 3, flags, fd & MASK, 0)
            task.mmap(DATA, PAGE, 3, flags, file if of_file else -1)
            task.resume_with(DATA)


def test_rest_of_the_trampoline_is_done_for_whoever_looks(platform: NotifyPlatform, driver: Driver) -> None:
    """Wherever in it a stop comes."""
    for offset, rdi in ((0, 7), (3, 5)):
        task = platform.create_task()
        load(task, SPIN)
        registers = task.get_registers()
        registers.rip, registers.rcx, registers.r11 = TRAMPOLINE + offset, CODE, 7
        registers.rdi = 5
        task.set_registers(registers)
        task._known = False
        registers = task.get_registers()
        assert (registers.rip, registers.rdi) == (CODE, rdi)


def test_rest_of_the_trampoline_of_files_is_done_for_whoever_looks(platform: NotifyPlatform, driver: Driver) -> None:
    """The upper half of r8 holds the guest's in the opposite order of bytes, the lower one the host's descriptor."""
    held, turned = 0x7856_3412_0000_0009, 0x0900_0000_1234_5678
    for offset, rdi, r8 in ((0, 7, held), (3, 5, held), (6, 5, turned), (9, 5, 0x1234_5678)):
        task = platform.create_task()
        load(task, SPIN)
        registers = task.get_registers()
        registers.rip, registers.rcx, registers.r11 = FILE_TRAMPOLINE + offset, CODE, 7
        registers.rdi, registers.r8 = 5, r8
        task.set_registers(registers)
        task._known = False
        registers = task.get_registers()
        assert (registers.rip, registers.rdi, registers.r8) == (CODE, rdi, 0x1234_5678)


def with_a_munmap_in_flight(platform: NotifyPlatform, driver: Driver, behind: bytes) -> tuple[PtraceTask, PtraceTask]:
    """Return a task whose munmap of DATA was left to the host and that goes on with *behind*, and a stopped thread."""
    task = platform.create_task()
    driver.run(task, call(GETPPID) + call(MUNMAP, DATA, PAGE) + behind)
    other = task.clone(share_memory=True)
    task.resume_with(0)
    event = driver.event(task)
    task.munmap(*event.args[:2])
    task.resume_with(0)
    return task, other


def test_calls_in_flight_keep_their_order(platform: NotifyPlatform, driver: Driver) -> None:
    """A thread's munmap is left to the host; whoever maps there next does so after it, and a fork copies neither."""
    for rounds in range(100):
        task, other = with_a_munmap_in_flight(platform, driver, SPIN)
        if rounds % 2:
            other.mmap(DATA, PAGE, PROT_READ | PROT_WRITE, PRIVATE)
            task.kill()
            assert other.space.write(DATA, b"mapped") == 6
        else:
            child = other.clone(share_memory=False)
            with pytest.raises(OSError, match="Bad address"):
                child.space.read(DATA, 1)
            child.kill()
            task.kill()
        other.kill()


def test_a_task_that_was_waited_for_goes_on(platform: NotifyPlatform, driver: Driver) -> None:
    """Whatever it did behind the call in flight is reported once."""
    task, other = with_a_munmap_in_flight(platform, driver, TELL)
    other.mmap(DATA, PAGE, PROT_READ, PRIVATE)
    while (event := driver.event(task)).kind is EventKind.STOPPED:
        task.resume()
    assert (event.number, event.args[0]) == (EXIT, 0)
    assert driver.quiet()


# -- the key ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [MMAP, MUNMAP, CLONE, CLOSE, EXIT])
def test_a_jump_into_the_stub_makes_no_host_call(platform: NotifyPlatform, driver: Driver, number: int) -> None:
    """It is a call of the guest's like any other, whatever its registers hold but the key."""
    task = platform.create_task()
    registers = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
    code = b"".join(mov(name, value) for name, value in zip(registers, (0, PAGE, 0, 0x22, 0, 0), strict=True))
    load(task, code + mov("rax", number) + b"\xff\xe3")  # jmp rbx
    state = task.get_registers()
    state.rbx = STUB_ADDRESS
    task.set_registers(state)
    task.resume()
    event = driver.event(task)
    assert (event.kind, event.number) == (EventKind.SYSCALL, number)
    before = os.listdir(f"/proc/{task.host_tid}/fd")
    task.resume_with(0)
    assert driver.event(task).kind is EventKind.FAULT
    assert os.listdir(f"/proc/{task.host_tid}/fd") == before


def test_injected_calls_leave_no_key_behind(platform: NotifyPlatform, driver: Driver) -> None:
    task = platform.create_task()
    driver.run(task, call(GETPPID) + call(EXIT))
    task.mmap(GUEST_TOP - PAGE, PAGE, PROT_READ, PRIVATE)
    child = task.clone(share_memory=False)
    for each in (task, child):
        each.resume_with(0)
        assert driver.event(each).number == EXIT
        registers = each.get_registers()
        halves = (platform.key & 0xFFFF_FFFF, platform.key >> 32)
        values = [getattr(registers, name) for name in ("rdi", "rsi", "rdx", "r10", "r8", "r9", "rcx", "r11", "rax")]
        assert not any(half in (value & 0xFFFF_FFFF, value >> 32) for half in halves for value in values if half)


def test_two_platforms_have_different_keys(platform: NotifyPlatform) -> None:
    other = NotifyPlatform()
    other.start()
    try:
        assert other.key != platform.key
    finally:
        other.close()
