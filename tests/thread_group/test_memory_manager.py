"""The list of mappings against a model of single pages, and checked access to guest memory."""

from __future__ import annotations

import errno
import itertools
import random
import struct
import sys

import pytest
from greenroom.actors.thread_group.limits import Resource
from greenroom.actors.thread_group.vma import PAGE_SIZE, VM_LOCKED, VM_READ, VM_WRITE, Vma, VmaList
from memory_bench import Bench

_BASE = 0x10_0000


def test_mappings_agree_with_a_model_of_pages() -> None:
    """Random maps, unmaps and changes of flags leave every page as a dictionary of pages says."""
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stderr.write(f"seed {seed}\n")
    chance = random.Random(seed)  # noqa: S311  # a seed that can be repeated is what is wanted
    vmas, model = VmaList(), dict[int, int]()
    for _ in range(5000):
        first = chance.randrange(60)
        last = first + chance.randrange(1, 8)
        start, end = _BASE + first * PAGE_SIZE, _BASE + last * PAGE_SIZE
        flags = chance.choice([VM_READ, VM_READ | VM_WRITE, VM_LOCKED | VM_READ])
        action = chance.randrange(3)
        if action == 0:
            vmas.cut(start, end)
            vmas.insert(Vma(start, end, flags))
            model |= dict.fromkeys(range(first, last), flags)
        elif action == 1:
            vmas.cut(start, end)
            for page in range(first, last):
                model.pop(page, None)
        else:
            vmas.set_flags(start, end, VM_LOCKED, VM_WRITE)
            for page in range(first, last):
                if page in model:
                    model[page] = model[page] & ~VM_LOCKED | VM_WRITE
        vmas.check()
        for page in range(70):
            found = vmas.find(_BASE + page * PAGE_SIZE + chance.randrange(PAGE_SIZE))
            assert (None if found is None else found.flags) == model.get(page)
    neighbours = list(vmas)
    assert not any(a.joins(b) for a, b in itertools.pairwise(neighbours)), "all that can merge has"


class TestAccess:
    """read, write and their kin raise EFAULT exactly where Linux does."""

    def test_nothing_is_written_when_part_of_the_range_is_read_only(self, bench: Bench) -> None:
        memory = bench.memory
        address = bench.map(2 * PAGE_SIZE)
        memory.protect(bench.task, address + PAGE_SIZE, address + 2 * PAGE_SIZE, VM_READ)
        with pytest.raises(OSError, match="bad address"):
            memory.write(address + PAGE_SIZE - 2, b"four")
        assert memory.read(address + PAGE_SIZE - 2, 4) == bytes(4)
        assert memory.write_partial(address + PAGE_SIZE - 2, b"four") == 2
        assert memory.read(address + PAGE_SIZE - 2, 4) == b"fo\0\0"

    def test_a_string_may_end_right_before_a_hole(self, bench: Bench) -> None:
        address = bench.map(PAGE_SIZE)
        bench.memory.write(address + PAGE_SIZE - 4, b"abc\0")
        assert bench.memory.read_path(address + PAGE_SIZE - 4) == b"abc"
        bench.memory.write(address + PAGE_SIZE - 1, b"d")
        with pytest.raises(OSError, match="bad address"):
            bench.memory.read_path(address + PAGE_SIZE - 4)

    def test_a_path_of_4096_bytes_is_too_long(self, bench: Bench) -> None:
        address = bench.map(2 * PAGE_SIZE)
        bench.memory.write(address, b"a" * 4095)
        assert bench.memory.read_path(address) == b"a" * 4095
        bench.memory.write(address, b"a" * 4096)
        with pytest.raises(OSError, match="too long") as caught:
            bench.memory.read_path(address)
        assert caught.value.errno == errno.ENAMETOOLONG

    def test_what_was_unmapped_is_no_longer_remembered(self, bench: Bench) -> None:
        address = bench.map(PAGE_SIZE)
        assert bench.memory.read(address, 1) == b"\0"
        bench.memory.unmap(bench.task, address, PAGE_SIZE)
        with pytest.raises(OSError, match="bad address"):
            bench.memory.read(address, 1)

    @pytest.mark.parametrize("address", [0, 0x7FFF_FFFF_D000, (1 << 64) - 1, 1 << 63])
    def test_no_address_outside_the_mappings_is_reached(self, address: int, bench: Bench) -> None:
        for length in (1, PAGE_SIZE, (1 << 64) - 1):
            with pytest.raises(OSError, match="bad address"):
                bench.memory.read(address, length)
        with pytest.raises(OSError, match="bad address"):
            bench.memory.write(address, b"x")

    def test_iovecs_are_cut_to_what_one_call_transfers(self, bench: Bench) -> None:
        address = bench.map(PAGE_SIZE)
        bench.memory.write(address, struct.pack("<6Q", 1, 0x7FFF_0000, 2, 0x10000, 3, 5))
        assert bench.memory.read_iovec(address, 3) == [(1, 0x7FFF_0000), (2, 0xF000), (3, 0)]
        with pytest.raises(OSError, match="count"):
            bench.memory.read_iovec(address, 1025)


class TestStack:
    """Mappings that grow down by faults."""

    _FLAGS = 0x2 | 0x20 | 0x100 | 0x10

    def _stack(self, bench: Bench) -> int:
        room = bench.map(4096 * PAGE_SIZE)
        bench.memory.unmap(bench.task, room, 4096 * PAGE_SIZE)
        return bench.map(PAGE_SIZE, flags=self._FLAGS, address=room + 4000 * PAGE_SIZE)

    def test_grows_to_the_page_that_faulted(self, bench: Bench) -> None:
        stack = self._stack(bench)
        assert bench.memory.grow_stack(bench.task, stack - 20 * PAGE_SIZE + 8)
        bench.memory.write(stack - 20 * PAGE_SIZE, b"deep")
        bench.memory.vmas.check()

    def test_stays_within_the_limit(self, bench: Bench) -> None:
        stack = self._stack(bench)
        bench.group.limits.set(Resource.STACK, 10 * PAGE_SIZE, 10 * PAGE_SIZE)
        assert not bench.memory.grow_stack(bench.task, stack - 10 * PAGE_SIZE)
        assert bench.memory.grow_stack(bench.task, stack - 9 * PAGE_SIZE)

    def test_keeps_its_distance_from_what_is_below(self, bench: Bench) -> None:
        stack = self._stack(bench)
        bench.map(PAGE_SIZE, flags=0x32, address=stack - 300 * PAGE_SIZE)
        assert not bench.memory.grow_stack(bench.task, stack - 44 * PAGE_SIZE)
        assert bench.memory.grow_stack(bench.task, stack - 43 * PAGE_SIZE)

    def test_nothing_else_grows(self, bench: Bench) -> None:
        address = bench.map(PAGE_SIZE)
        assert not bench.memory.grow_stack(bench.task, address - 8)


def test_shared_memory_is_freed_with_its_last_mapping(bench: Bench) -> None:
    address = bench.map(4 * PAGE_SIZE, flags=0x21)
    (shared,) = bench.memory.vmas.file_users
    bench.memory.unmap(bench.task, address + PAGE_SIZE, PAGE_SIZE)
    assert shared.host_fd >= 0
    bench.memory.unmap(bench.task, address, 4 * PAGE_SIZE)
    assert shared.host_fd == -1
