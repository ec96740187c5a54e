"""Templates: what an execve gets from one is what it would have mapped itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from greenroom.actors.thread_group import loader, templates
from greenroom.actors.thread_group.credentials import Credentials
from greenroom.actors.thread_group.limits import Resource
from greenroom.actors.thread_group.memory import MemoryManager
from greenroom.actors.thread_group.templates import Templates
from memory_bench import Bench, PlainFile, open_program

if TYPE_CHECKING:
    import pathlib

    from greenroom.actors.thread_group.loader import Program

_COUNTER = """
#include <stdio.h>
int data = 5, zero;
int main(int argc, char **argv) { printf("%d %d %d %s\\n", argc, data++, zero++, argv[1]); return 0; }
"""


@pytest.fixture
def program(tmp_path: pathlib.Path) -> str:
    """A static program that changes its data and its zeros."""
    source, made = tmp_path / "counter.c", tmp_path / "counter"
    source.write_text(_COUNTER)
    subprocess.run(["gcc", "-static-pie", "-o", made, source], check=True)
    return str(made)


def _exec(stock: Templates, bench: Bench, program: Program) -> bool:
    """Do what execve does; return whether there was a template."""
    key = templates.key_of(bench.task, program)
    host, template = stock.new_host(key)
    bench.task.host.kill()
    bench.task.host, host.owner = host, bench.task
    bench.task.memory = bench.memory = bench.group.memory = MemoryManager(host.space)
    if template is None:
        layout = loader.map_program(bench.task, program)
        stock.loaded(key, bench.task, program, layout)
    else:
        layout = template.fill(bench.memory, program)
    loader.begin(bench.task, program, layout)
    program.release()
    return template is not None


def test_the_third_execve_has_a_template_and_runs_from_clean_data(program: str, bench: Bench) -> None:
    stock = Templates(bench.platform)
    served = []
    for word in (b"one", b"two", b"three", b"four"):
        served.append(_exec(stock, bench, open_program(program, [b"x", word], [])))
        bench.memory.vmas.check()
        bench.output = b""
        bench.run(bench.serve)
        assert bench.output == b"2 5 0 %s\n" % word
    assert served == [False, False, True, True]


def test_mappings_are_those_of_an_ordinary_load(bench: Bench) -> None:
    stock = Templates(bench.platform)
    shapes = []
    for _ in range(3):
        _exec(stock, bench, open_program("/bin/sh", [b"sh"], []))
        low = bench.memory.vmas.at_or_above(0)
        assert low is not None
        shapes.append([(v.end - v.start, v.flags, v.offset, v.file and v.file.path) for v in bench.memory.vmas])
        assert bench.memory.read(bench.memory.start_code, 4) == b"\x7fELF"
    assert shapes[0] == shapes[1] == shapes[2]


def test_files_are_released_with_the_memory(bench: Bench) -> None:
    stock = Templates(bench.platform)
    for _ in range(3):
        _exec(stock, bench, open_program("/bin/sh", [b"sh"], []))
    files: list[Any] = [file for file in bench.memory.vmas.file_users if isinstance(file, PlainFile)]
    assert [file.users for file in files] == [1, 1]
    bench.memory.drop(bench.group)
    assert [file.users for file in files] == [0, 0]


def test_a_changed_program_has_no_template(program: str, bench: Bench, tmp_path: pathlib.Path) -> None:
    stock = Templates(bench.platform)
    for _ in range(2):
        _exec(stock, bench, open_program(program, [b"x", b"y"], []))
    other = tmp_path / "other"
    shutil.copy(program, other)
    os.replace(other, program)
    assert not _exec(stock, bench, open_program(program, [b"x", b"y"], []))


def test_addresses_change_now_and_then(program: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "EXECS_PER_TEMPLATE", 3)
    stock = Templates(bench.platform)
    places = []
    for _ in range(9):
        _exec(stock, bench, open_program(program, [b"x", b"y"], []))
        places.append(bench.memory.start_code)
    assert len(set(places)) > 2
    assert places[1] == places[2] == places[3] == places[4] != places[5]


def test_least_recently_used_makes_room(program: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MAX_TEMPLATES", 1)
    stock = Templates(bench.platform)
    for path in (program, program, "/bin/true", "/bin/true"):
        _exec(stock, bench, open_program(path, [b"x", b"y"], []))
    assert _exec(stock, bench, open_program("/bin/true", [b"x"], []))
    assert not _exec(stock, bench, open_program(program, [b"x", b"y"], []))


def test_a_template_that_died_is_replaced(bench: Bench, program: str) -> None:
    stock = Templates(bench.platform)
    for _ in range(2):
        _exec(stock, bench, open_program(program, [b"x", b"y"], []))
    for template in stock._templates.values():
        template.host.kill()
    assert not _exec(stock, bench, open_program(program, [b"x", b"y"], []))
    bench.run(bench.serve)
    assert bench.output.startswith(b"2 5 0")


def test_who_changes_rights_or_is_limited_shares_no_addresses(bench: Bench) -> None:
    program = open_program("/bin/true", [b"x"], [])
    assert templates.key_of(bench.task, program) is not None
    bench.group.credentials = Credentials.of_user(5, 5, ())
    bench.group.credentials.euid = 0
    assert templates.key_of(bench.task, program) is None
    bench.group.credentials = Credentials.root()
    bench.group.limits.set(Resource.AS, 1 << 30, 1 << 30)
    assert templates.key_of(bench.task, program) is None
    program.release()
