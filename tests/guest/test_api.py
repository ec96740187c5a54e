"""The Python API on real programs: what docker-py's and subprocess's users expect of run, shell, exec and the rest."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from greenroom import CommandFailed, Sandbox, SandboxNotFound, Snapshot, TimedOut

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.create(cwd="/tmp", env={"GREETING": "hello"}) as made:
        yield made


def test_run_gives_status_and_output(sandbox: Sandbox) -> None:
    result = sandbox.run("/bin/sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.returncode, result.stdout, result.stderr) == (3, b"out\n", b"err\n")


def test_death_by_signal_is_negative(sandbox: Sandbox) -> None:
    """As subprocess has it."""
    assert sandbox.shell("kill -SEGV $$").returncode == -11


def test_shell_takes_input_environment_and_directory(sandbox: Sandbox) -> None:
    result = sandbox.shell("cat; pwd; echo $GREETING $OTHER", input=b"in\n", env={"OTHER": "you"}, cwd="/usr")
    assert result.stdout == b"in\n/usr\nhello you\n"


def test_check_raises_with_the_output(sandbox: Sandbox) -> None:
    with pytest.raises(CommandFailed, match="exited with status 1"):
        sandbox.run("/bin/false", check=True)


def test_a_time_limit_kills_the_program_and_not_the_sandbox(sandbox: Sandbox) -> None:
    with pytest.raises(TimedOut):
        sandbox.shell("sleep 60", timeout=0.2)
    assert sandbox.run("/bin/echo", "alive").stdout == b"alive\n"


def test_files_stay_between_programs(sandbox: Sandbox) -> None:
    sandbox.shell("echo kept >/tmp/kept", check=True)
    assert sandbox.run("/bin/cat", "/tmp/kept").stdout == b"kept\n"
    assert not os.path.exists("/tmp/kept")


def test_a_terminal_program_is_talked_to_and_its_output_ends(sandbox: Sandbox) -> None:
    """isatty, the window's size, and the end of the output when the program is gone."""
    process = sandbox.exec(
        "/usr/bin/python3", "-c", "import os; input(); print(os.isatty(0), os.get_terminal_size())", tty=True
    )
    process.resize(50, 132)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"\n")
    assert process.wait(timeout=30) == 0
    assert b"True os.terminal_size(columns=132, lines=50)" in process.stdout.read()


def test_communicate_with_a_pipeline(sandbox: Sandbox) -> None:
    process = sandbox.exec("/bin/sh", "-c", "sort | uniq -c | tr -s ' '")
    assert process.communicate(b"b\na\nb\n") == (b" 1 a\n 2 b\n", b"")
    assert process.poll() == 0


def test_a_paused_sandbox_stands_still(sandbox: Sandbox) -> None:
    """Its clock does, too: between two readings the guest misses the time of the pause."""
    program = "import time\nwhile True: input(); print(time.monotonic(), flush=True)"
    with sandbox.exec("/usr/bin/python3", "-c", program) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"\n")
        first = float(process.stdout.read(100))
        sandbox.pause()
        process.stdin.write(b"\n")
        began = time.monotonic()
        while time.monotonic() - began < 0.5:
            assert sandbox.info().state == "paused"
        paused = time.monotonic() - began
        sandbox.resume()
        last = float(process.stdout.read(100))
        elapsed = time.monotonic() - began
        process.kill()
    assert last - first <= elapsed - paused + 0.2


def test_snapshots_go_on_side_by_side(tmp_path: Path) -> None:
    with Sandbox.create(cwd="/tmp") as original:
        original.shell("echo before >state", check=True)
        original.snapshot().save(str(tmp_path / "snapshot"))
        original.shell("echo after >state", check=True)
        copies = [Snapshot.load(str(tmp_path / "snapshot")).restore() for _ in range(2)]
        try:
            assert [c.run("/bin/cat", "/tmp/state").stdout for c in copies] == [b"before\n"] * 2
        finally:
            for copy in copies:
                copy.kill()
        assert original.run("/bin/cat", "/tmp/state").stdout == b"after\n"


def test_sandboxes_are_found_by_name(guest_platform: str) -> None:
    name = f"api-{os.getpid()}"
    with Sandbox.create(name=name) as made:
        info = Sandbox.get(name).info()
        assert (info.id, info.platform) == (made.id, guest_platform) == (name, guest_platform)
        assert name in [row.id for row in Sandbox.list()]
        assert [row.command for row in made.ps()] == ["init"]
    with pytest.raises(SandboxNotFound):
        Sandbox.get(name)
