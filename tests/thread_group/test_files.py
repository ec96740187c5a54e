"""Files: random calls and terminals as natively, and the descriptor table against a model."""

from __future__ import annotations

import random
import subprocess
import sys
from errno import EBADF, EMFILE
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from greenroom.actors.thread_group.file_table import FileTable
from greenroom.actors.thread_group.limits import Resource, ResourceLimits
from guest_programs import SOURCES, compiled

if TYPE_CHECKING:
    from collections.abc import Callable

_GREENROOM = Path(sys.executable).with_name("greenroom")
_CALLS = "1500"


def _output(argv: list[str | Path], directory: Path) -> str:
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    done = subprocess.run(
        argv,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=True,
        text=True,
        capture_output=True,
    )
    return done.stdout + done.stderr


def _in_sandbox(argv: list[str | Path], directory: Path) -> str:
    return _output([_GREENROOM, "run", "--cwd", "/tmp", "--", *argv], directory)


@pytest.mark.parametrize("seed", ["1", "7", "15", "40", "51", "64"])
def test_random_calls_on_descriptors_equal_native(seed: str, tmp_path: Path) -> None:
    """A failing seed repeats exactly: ``files_random SEED CALLS``."""
    argv: list[str | Path] = [compiled("files_random"), seed, _CALLS]
    tmp_path.chmod(0o1777)  # as a sandbox's /tmp
    native = _output(argv, tmp_path).splitlines()
    for line, (ours, theirs) in enumerate(zip(_in_sandbox(argv, tmp_path).splitlines(), native, strict=True)):
        assert ours == theirs, f"seed {seed}, line {line}"


def test_shell_on_a_pseudo_terminal_has_job_control(tmp_path: Path) -> None:
    """Echo, line editing, window size, Ctrl-C, Ctrl-Z, fg, a background reader, hang-up."""
    argv: list[str | Path] = ["/usr/bin/python3", SOURCES / "files_terminals.py"]
    assert _in_sandbox(argv, tmp_path) == _output(argv, tmp_path)


# -- the descriptor table -------------------------------------------------------------------------------------------


class _File:
    """Stands in for an OpenFile: it counts its references."""

    flags = 0
    handle = 0

    def __init__(self) -> None:
        self.references = 1

    def hold(self) -> _File:
        self.references += 1
        return self

    def release(self) -> None:
        self.references -= 1
        assert self.references >= 0


@pytest.fixture
def group() -> SimpleNamespace:
    limits = ResourceLimits()
    limits.set(Resource.NOFILE, 16, 16)
    return SimpleNamespace(limits=limits, group=1)


def _errno_of(call: Callable[[], object]) -> int | None:
    try:
        call()
    except OSError as error:
        return error.errno
    return None


def test_lowest_free_descriptor_is_taken(group: SimpleNamespace) -> None:
    table = FileTable(1)
    assert [table.add(group, _File()) for _ in range(4)] == [0, 1, 2, 3]
    table.close(2)
    table.close(1)
    assert [table.add(group, _File()) for _ in range(3)] == [1, 2, 4]


def test_full_table_is_EMFILE_and_drops_the_reference(group: SimpleNamespace) -> None:
    table = FileTable(1)
    for _ in range(16):
        table.add(group, _File())
    file = _File()
    assert _errno_of(lambda: table.add(group, file)) == EMFILE
    assert file.references == 0


def test_put_beyond_the_limit_is_EBADF(group: SimpleNamespace) -> None:
    file = _File()
    assert _errno_of(lambda: FileTable(1).put(group, 16, file)) == EBADF
    assert file.references == 0


def test_close_on_exec_closes_only_what_is_marked(group: SimpleNamespace) -> None:
    table = FileTable(1)
    kept, closed = _File(), _File()
    table.add(group, kept)
    table.add(group, closed, close_on_exec=True)
    table.close_on_exec()
    assert (kept.references, closed.references, table.descriptors()) == (1, 0, [0])


def test_fork_shares_files_and_not_descriptors(group: SimpleNamespace) -> None:
    table, file = FileTable(1), _File()
    table.add(group, file, close_on_exec=True)
    copy = table.fork(SimpleNamespace(group=2))
    table.close(0)
    assert (file.references, copy.get(0), copy.is_close_on_exec(0)) == (1, file, True)


@pytest.mark.parametrize("seed", range(20))
def test_random_changes_agree_with_a_model(seed: int, group: SimpleNamespace) -> None:
    """add, put, close, close_range and fork against a dictionary and "the lowest number that it has not"."""
    chance = random.Random(seed)  # noqa: S311  # repeatable is what it must be
    table, model, files = FileTable(1), dict[int, _File](), list[_File]()
    for _ in range(400):
        fd, other = chance.randrange(18), chance.randrange(18)
        what = chance.choice(["add", "minimum", "put", "close", "range", "fork"])
        if what in ("add", "minimum"):
            minimum = fd if what == "minimum" else 0
            file = _File()
            files.append(file)
            free = next(n for n in range(minimum, 99) if n not in model)
            if _errno_of(lambda: table.add(group, file, minimum=minimum)) is None:  # noqa: B023  # called at once
                model[free] = file
            else:
                assert free >= 16
        elif what == "put" and fd < 16:
            model[fd] = _File()
            files.append(model[fd])
            table.put(group, fd, model[fd])
        elif what == "close":
            assert (_errno_of(lambda: table.close(fd)) is None) == (fd in model)  # noqa: B023
            model.pop(fd, None)
        elif what == "range":
            first, last = sorted((fd, other))
            table.close_range(first, last)
            model = {n: f for n, f in model.items() if not first <= n <= last}
        elif what == "fork":
            old, table = table, table.fork(group)
            old.drop(group)
        assert table.descriptors() == sorted(model)
        assert all(table.get(n) is f for n, f in model.items())
        assert all(f.references == list(model.values()).count(f) for f in files)
