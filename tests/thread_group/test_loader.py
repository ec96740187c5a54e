"""Loading programs on the real platform, and what their first stack and headers are made of."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from greenroom.actors.thread_group import elf, initial_stack, script
from greenroom.actors.thread_group.initial_stack import AT
from memory_bench import Bench, PlainFile

if TYPE_CHECKING:
    import pathlib

_HELLO = """
#include <stdio.h>
int zeros[100000], data = 5;
int main(int argc, char **argv, char **envp)
{
    printf("%d %s %s %d %d\\n", argc, argv[1], envp[0], zeros[77777], data);
    return 7;
}
"""


@pytest.mark.parametrize("linkage", ["-static", "-static-pie"])
def test_a_program_runs_with_its_arguments(linkage: str, bench: Bench, tmp_path: pathlib.Path) -> None:
    source, program = tmp_path / "hello.c", tmp_path / "hello"
    source.write_text(_HELLO)
    subprocess.run(["gcc", linkage, "-o", program, source], check=True)
    bench.load(str(program), [b"hello", b"one"], [b"A=b"])
    event = bench.run(bench.serve)
    assert bench.output == b"2 one A=b 0 5\n"
    assert event.args[0] == 7


def test_files_are_released_with_the_memory(bench: Bench) -> None:
    bench.load("/bin/sh", [b"sh"], [])
    files = [file for file in bench.memory.vmas.file_users if isinstance(file, PlainFile)]
    assert len(files) == 2
    bench.memory.drop(bench.group)
    assert [file.users for file in files] == [0, 0]


def test_of_the_host_s_vdso_nothing_is_visible(bench: Bench) -> None:
    """The host says what it has mapped, and the program finds ours where its auxiliary vector leads."""
    bench.load("/bin/sh", [b"sh"], [])
    with open(f"/proc/{bench.task.host.host_tid}/maps", encoding="ascii") as file:
        text = file.read()
    assert "[vdso]" not in text
    assert "[vvar" not in text
    auxv = dict(struct.iter_unpack("<QQ", bench.memory.auxv))
    own = bench.task.worker.vdsos.own.image
    assert bench.memory.read(auxv[AT.SYSINFO_EHDR], len(own)) == own
    names = [vma.file.path for vma in bench.memory.vmas if vma.file is not None and vma.file.path.startswith(b"[")]
    assert names == [b"[vvar]", b"[vdso]"]


def test_fork_holds_the_files_once_more(bench: Bench) -> None:
    bench.load("/bin/sh", [b"sh"], [])
    host = bench.task.host.clone(share_memory=False)
    child = bench.memory.fork(host.space, bench.group)
    assert [repr(v) for v in child.vmas] == [repr(v) for v in bench.memory.vmas]
    bench.memory.drop(bench.group)
    file = next(iter(child.vmas.file_users))
    assert file.users == 1  # type: ignore[attr-defined]
    assert child.read(child.start_code, 4) == b"\x7fELF"


def test_state_returns_from_a_save(bench: Bench) -> None:
    bench.load("/bin/sh", [b"sh"], [])
    files = {id(file): file for file in bench.memory.vmas.file_users}
    state = bench.memory.snapshot_state(id)
    other = Bench(bench.platform)
    other.memory.load_state(other.task, state, files.__getitem__)
    assert [repr(v) for v in other.memory.vmas] == [repr(v) for v in bench.memory.vmas]
    assert other.memory.read(other.memory.start_code, 4) == b"\x7fELF"
    assert other.memory.snapshot_state(id) == state


def test_hostile_headers_are_refused_or_parsed_but_never_crash() -> None:
    """Random damage to a real header ends in a parse or in an errno."""
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stderr.write(f"seed {seed}\n")
    chance = random.Random(seed)  # noqa: S311  # a seed that can be repeated is what is wanted
    with open("/bin/sh", "rb") as file:
        whole = file.read(8192)
    for _ in range(3000):
        image = bytearray(whole)
        for _ in range(chance.randrange(1, 8)):
            image[chance.randrange(0, 900)] = chance.randrange(256)
        assert _errno_of_parsing(bytes(image)) in (0, errno.ENOEXEC, errno.EIO, errno.EINVAL)


def _errno_of_parsing(image: bytes) -> int:
    try:
        elf.parse(lambda count, offset: image[offset : offset + count])
    except OSError as error:
        return error.errno or -1
    return 0


def test_loading_a_damaged_program_raises_only_os_errors(bench: Bench, tmp_path: pathlib.Path) -> None:
    """Whatever the headers say, the loader maps it or raises an errno, and the stub page stays."""
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stderr.write(f"seed {seed}\n")
    chance = random.Random(seed)  # noqa: S311  # a seed that can be repeated is what is wanted
    with open("/bin/busybox" if os.path.exists("/bin/busybox") else "/bin/true", "rb") as file:
        whole = file.read()
    count = struct.unpack_from("<H", whole, 56)[0]
    for number in range(60):
        image = bytearray(whole[:65536])
        for _ in range(chance.randrange(1, 4)):
            header = 64 + 56 * chance.randrange(count)
            value = chance.choice([0, 1, 4095, 4096, 1 << 31, 1 << 46, 0x7FFF_FFFF_D000, (1 << 64) - 1])
            struct.pack_into("<Q", image, header + 8 * chance.randrange(1, 7), value)
        path = tmp_path / str(number)
        path.write_bytes(image)
        other = Bench(bench.platform)
        with contextlib.suppress(OSError):
            other.load(str(path), [b"x"], [])
        other.memory.vmas.check()
        # An injected call still works: nothing was mapped over the stub.
        other.task.host.mmap(0x10000, 4096, 3, 0x22)
        other.task.host.kill()


class TestScriptLine:
    """The first line of a script, cut as Linux cuts it."""

    @pytest.mark.parametrize(
        ("head", "expected"),
        [
            (b"#!/bin/sh\n", (b"/bin/sh", None)),
            (b"#! \t/bin/sh \t \nmore", (b"/bin/sh", None)),
            (b"#!/bin/sh -e  -x \n", (b"/bin/sh", b"-e  -x")),
            (b"#!/bin/sh", (b"/bin/sh", None)),
            (b"#!/bin/sh\t-e", (b"/bin/sh", b"-e")),
            (b"#!/bin/sh\0-e\n", (b"/bin/sh", None)),
            (b"#!   ", (b"", None)),
            (b"#!/a " + b"b" * 300, (b"/a", b"b" * 250)),
        ],
    )
    def test_is_cut(self, head: bytes, expected: tuple[bytes, bytes | None]) -> None:
        assert script.parse(head[:256]) == expected

    @pytest.mark.parametrize("head", [b"#!\n", b"#!  \t\n/bin/sh", b"#!" + b"a" * 300, b"#!" + b" " * 300])
    def test_without_a_whole_name_is_ENOEXEC(self, head: bytes) -> None:
        with pytest.raises(OSError, match="interpreter") as caught:
            script.parse(head[:256])
        assert caught.value.errno == errno.ENOEXEC

    def test_anything_else_is_no_script(self) -> None:
        assert script.parse(b"\x7fELF") is None
        assert script.parse(b"") is None


class TestInitialStack:
    """The layout that create_elf_tables makes."""

    def test_vectors_lead_to_their_strings(self) -> None:
        top = 0x7FFF_0000_0000
        vector = [(AT.PAGESZ, 4096), (AT.RANDOM, 0), (AT.EXECFN, 0), (AT.PLATFORM, 0)]
        stack = initial_stack.build(top, b"/p", [b"a", b"bc"], [b"X=1"], vector, b"r" * 16, shift=48)

        def string(address: int) -> bytes:
            return stack.data[address - stack.pointer :].partition(b"\0")[0]

        words = struct.unpack_from("<8Q", stack.data)
        assert stack.pointer % 16 == 0
        assert stack.pointer + len(stack.data) == top
        assert words[0] == 2
        assert [string(w) for w in (words[1], words[2], words[4])] == [b"a", b"bc", b"X=1"]
        assert (words[3], words[5]) == (0, 0)
        auxv = dict(struct.iter_unpack("<QQ", stack.auxv))
        assert string(auxv[AT.EXECFN]) == b"/p"
        assert string(auxv[AT.PLATFORM]) == b"x86_64"
        assert string(auxv[AT.RANDOM])[:16] == b"r" * 16
        assert stack.data.endswith(b"a\0bc\0X=1\0/p\0" + bytes(8))

    def test_one_long_string_is_E2BIG(self) -> None:
        with pytest.raises(OSError, match="too long"):
            initial_stack.check_size(b"/p", [b"a" * 131072], [], 8 << 20)

    def test_a_quarter_of_the_stack_is_the_limit(self) -> None:
        words = [b"a" * 99] * 9000
        initial_stack.check_size(b"/p", words, [], 8 << 20)
        with pytest.raises(OSError, match="too long"):
            initial_stack.check_size(b"/p", words, [], 2 << 20)
