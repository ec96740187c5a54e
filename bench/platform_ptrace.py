"""Cost of the ptrace platform's operations, in microseconds: ``python bench/platform_ptrace.py``.

Each figure is the best of several rounds, because everything else on the machine can only add to it.  "pinned" has the
worker and its tracees on one CPU, "free" lets the host's scheduler place them, "adaptive" is the default.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

from greenroom.platform.ptrace.platform import PtracePlatform

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenroom.platform.interface import Event
    from greenroom.platform.ptrace.placement import Affinity
    from greenroom.platform.ptrace.task import PtraceTask

CODE, DATA = 0x400000, 0x500000
PAGE = 4096
PRIVATE_ANONYMOUS = 0x22
MAP_PRIVATE = 2
ROUNDS = 5
# mov eax, 110 (getppid); syscall; jmp to the mov
GETPPID_LOOP = bytes.fromhex("b86e000000 0f05 ebf7")


def best(operation: Callable[[], object], count: int) -> float:
    """Return microseconds per call of *operation*."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        for _ in range(count):
            operation()
        times.append((time.perf_counter_ns() - start) / count / 1000)
    return min(times)


def guest(platform: PtracePlatform) -> PtraceTask:
    """Return a task that calls getppid for ever."""
    task = platform.create_task()
    task.mmap(CODE, PAGE, 7, PRIVATE_ANONYMOUS)
    task.space.write(CODE, GETPPID_LOOP)
    registers = task.get_registers()
    registers.rip = CODE
    task.set_registers(registers)
    return task


def dispatch(platform: PtracePlatform, tasks: list[PtraceTask], count: int) -> float:
    """Answer *count* calls through a poll loop and a table, and return microseconds per call."""
    table: dict[int, Callable[[Event], int]] = {110: lambda _event: 1}
    poller = select.epoll()
    for fd in platform.filenos():
        poller.register(fd, select.EPOLLIN)
    for task in tasks:
        task.resume()
    answered, running = 0, len(tasks)
    start = time.perf_counter_ns()
    while running:
        for event in [event for fd, _mask in poller.poll() for event in platform.poll(fd)]:
            answered += 1
            if answered > count:
                running -= 1
            else:
                event.task.resume_with(table[event.number](event))
    poller.close()
    return (time.perf_counter_ns() - start) / answered / 1000


def births(platform: PtracePlatform, make: Callable[[], PtraceTask]) -> tuple[float, float]:
    """Return microseconds per birth and per death, with the birth's list of tasks small."""
    made, born, died = [], [], []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        made = [make() for _ in range(50)]
        middle = time.perf_counter_ns()
        for task in made:
            task.kill()
        born.append((middle - start) / 50_000)
        died.append((time.perf_counter_ns() - middle) / 50_000)
    return min(born), min(died)


def report(name: str, *figures: float) -> None:
    print(f"{name:42}" + "".join(f"{figure:9.1f}" for figure in figures))


def measure_calls(affinity: Affinity) -> None:
    """Time a system call with one, two and four tasks that make nothing else."""
    figures = []
    for count in (1, 2, 4):
        platform = PtracePlatform(affinity=affinity)
        platform.start()
        tasks = [guest(platform) for _ in range(count)]
        dispatch(platform, tasks, 500)
        figures.append(min(dispatch(platform, tasks, 4000) for _ in range(ROUNDS)))
        platform.close()
    report(f"getppid, 1 / 2 / 4 tasks, {affinity}", *figures)


def measure_operations(affinity: Affinity) -> None:
    """Time what a stopped task can be asked for."""
    platform = PtracePlatform(affinity=affinity)
    platform.start()
    task = guest(platform)
    print(f"-- {affinity}")
    report("start of the platform", _start_time(affinity))
    report("injected call (madvise)", best(lambda: task.madvise(CODE, PAGE, 0), 1000))
    report("get_registers, set_registers", best(task.get_registers, 1000), best(_setter(task), 1000))
    report("get_xstate, set_xstate", best(task.get_xstate, 1000), best(_xsetter(task), 1000))
    report("read, write 64 bytes", best(lambda: task.space.read(CODE, 64), 1000), best(_writer(task), 1000))
    report("create_task, kill", *births(platform, platform.create_task))
    report("clone shared, kill", *births(platform, lambda: task.clone(share_memory=True)))
    report("clone copied, kill", *births(platform, lambda: task.clone(share_memory=False)))
    _measure_files(platform, task)
    platform.close()


def _start_time(affinity: Affinity) -> float:
    def start_and_close() -> None:
        other = PtracePlatform(affinity=affinity)
        other.start()
        other.close()

    return best(start_and_close, 3)


def _setter(task: PtraceTask) -> Callable[[], None]:
    registers = task.get_registers()
    return lambda: task.set_registers(registers)


def _xsetter(task: PtraceTask) -> Callable[[], None]:
    area = task.get_xstate()
    return lambda: task.set_xstate(area)


def _writer(task: PtraceTask) -> Callable[[], int]:
    return lambda: task.space.write(CODE + 64, bytes(64))


def _measure_files(platform: PtracePlatform, task: PtraceTask) -> None:
    fd = os.open("/proc/self/exe", os.O_RDONLY)
    shelf = platform.shelf

    def map_and_unmap() -> None:
        task.mmap(DATA, PAGE, 1, MAP_PRIVATE, fd)
        task.munmap(DATA, PAGE)

    def pass_map_and_unmap() -> None:
        shelf.remove(shelf._places.popitem()[1])  # noqa: SLF001  # whatever it holds
        map_and_unmap()

    report("file mmap + munmap, from the shelf", best(map_and_unmap, 300))
    report("file mmap + munmap, descriptor passed anew", best(pass_map_and_unmap, 300))
    os.close(fd)


def main() -> None:
    affinities: tuple[Affinity, ...] = ("free", "pinned", "adaptive")
    for affinity in affinities:
        measure_calls(affinity)
    for affinity in affinities[:2]:
        measure_operations(affinity)


if __name__ == "__main__":
    main()
