"""The guest's vDSO: it does what Linux's does, says what the system calls say, and nothing goes backwards."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from greenroom import Sandbox
from greenroom.config.build import is_compiled
from greenroom.platform.x86_64.tick_clock import is_trustworthy
from guest_programs import compiled
from oracle import AS_CALLER, ENVIRONMENT, Case, check_same, in_sandbox, natively, shell
from test_save_restore import Cli, finish, read_lines

if TYPE_CHECKING:
    from pathlib import Path

    from greenroom import Process

_TIMEOUT = 60.0
#: How often the counter's rate is measured anew, and more.
_LONGEST_TRUST_S = 1.1
_AGREES = [b"0 times backwards\n", b"page in force: %d\n" % is_trustworthy()]


@pytest.fixture
def cli(tmp_path: Path, placement: str) -> Cli:
    return Cli(tmp_path, placement)


@pytest.mark.parametrize("linkage", ["-rdynamic", "-no-pie"])
def test_it_does_what_linux_s_does(linkage: str, placement: str, tmp_path: Path) -> None:
    """Symbols, results, faults that unwind through it, and what may be done with its mappings."""
    case = Case((compiled("conform_vdso", "-rdynamic", linkage),))
    expected, said = natively(case, tmp_path), in_sandbox(case, placement, AS_CALLER)
    assert said.stdout.decode().split("\n") == expected.stdout.decode().split("\n")
    assert said == expected


@pytest.mark.parametrize("linkage", ["-static", "-static-pie", "-pie"])
def test_page_and_system_calls_agree_among_threads(linkage: str, placement: str) -> None:
    """Longer than a page is good for."""
    with Sandbox.create(placement=placement) as sandbox:
        process = sandbox.exec(compiled("clocks_agree", linkage))
        assert process.stdout.readline() == b"ready\n"
        _spend(process, _LONGEST_TRUST_S)
        assert process.communicate(timeout=_TIMEOUT)[0].splitlines(keepends=True) == _AGREES


def _spend(process: Process, span_s: float) -> None:
    """Let the guest run for a while, and hear from it that it has."""
    end = time.monotonic() + span_s
    while time.monotonic() < end:
        assert _ask(process) == b"here\n"


def _ask(process: Process) -> bytes:
    """Give the guest a line and return the one that it says."""
    process.stdin.write(b"\n")
    process.stdin.flush()
    return process.stdout.readline()


def test_nothing_goes_backwards_over_pauses(placement: str) -> None:
    with Sandbox.create(placement=placement) as sandbox:
        process = sandbox.exec(compiled("clocks_agree"))
        assert process.stdout.readline() == b"ready\n"
        for _ in range(20):
            sandbox.pause()
            sandbox.resume()
            _spend(process, 0.01)
        assert process.communicate(timeout=_TIMEOUT)[0].splitlines(keepends=True) == _AGREES


def test_nothing_goes_backwards_over_saves_and_restores(cli: Cli) -> None:
    """Threads are stopped anywhere, most often in the middle of the vDSO."""
    run = cli.run(compiled("clocks_agree"))
    assert read_lines(run, 1) == [b"ready\n"]
    cli.save()
    finish(run)
    after, status, stderr = finish(cli.restore(), b"\n\n\n")
    assert after == [b"here\n"] * 3 + _AGREES
    assert (status, stderr) == (0, b"")


_TELL = "import sys, time\nfor line in sys.stdin: print(time.monotonic_ns(), flush=True)"


def test_time_stands_still_in_a_pause(placement: str) -> None:
    with Sandbox.create(placement=placement) as sandbox:
        process = sandbox.exec("/usr/bin/python3", "-c", _TELL)
        _ask(process)
        begin = time.monotonic_ns()
        before = int(_ask(process))
        sandbox.pause()
        paused = time.monotonic_ns()
        time.sleep(0.3)
        paused = time.monotonic_ns() - paused
        sandbox.resume()
        after = int(_ask(process))
        passed = time.monotonic_ns() - begin
        assert 0 < after - before <= passed - paused + 1_000_000


def test_python_s_clocks_are_those_of_the_system_calls(placement: str) -> None:
    """Between two readings by call lies the one by page."""
    script = """if True:
        import ctypes, struct, time
        libc = ctypes.CDLL(None)
        def call(clock):
            buffer = ctypes.create_string_buffer(16)
            libc.syscall(228, clock, buffer)
            seconds, rest = struct.unpack("=qq", buffer)
            return seconds * 10**9 + rest
        for clock in (0, 1, 4, 7, 11):
            for _ in range(1000):
                first, page, last = call(clock), time.clock_gettime_ns(clock), call(clock)
                assert first <= page <= last, (clock, first, page, last)
        first, page, last = call(0), time.time_ns(), call(0)
        assert first <= page <= last
        print("ok")
    """
    assert in_sandbox(Case(("/usr/bin/python3", "-c", script)), placement).stdout == b"ok\n"


def test_static_busybox_reads_the_time(placement: str, tmp_path: Path) -> None:
    check_same(
        shell("busybox date +%Y; TZ=UTC busybox date -r /etc/passwd; busybox time -f %x true"), placement, tmp_path
    )


def test_addresses_are_random_and_fixed_without_randomisation(placement: str) -> None:
    """Programs that run again and again share addresses for a while (templates.py): the first ones have their own."""
    line = (
        "for i in 1 2; do grep vdso /proc/self/maps; done; for i in 1 2; do setarch -R grep vdso /proc/self/maps; done"
    )
    *random, first, second = in_sandbox(shell(line), placement).stdout.splitlines()
    assert len(random) == len(set(random)) == 2
    assert first == second


def test_auxiliary_vector_leads_to_it(placement: str) -> None:
    line = "LD_SHOW_AUXV=1 /bin/cat /proc/self/maps"
    lines = in_sandbox(shell(line), placement).stdout.decode().splitlines()
    (address,) = [int(line.split()[1], 16) for line in lines if line.startswith("AT_SYSINFO_EHDR")]
    (place,) = [line.split("-")[0] for line in lines if line.endswith("[vdso]")]
    assert int(place, 16) == address


@pytest.mark.skipif(is_compiled(), reason="machine code does not look for its constants, which this changes")
def test_clocks_are_system_calls_where_the_counter_is_not_trusted(placement: str) -> None:
    patch = "from greenroom.platform.x86_64 import tick_clock; tick_clock._CLOCK_SOURCE = '/nonexistent'"
    options = ("run", "--placement", placement, "--", compiled("clocks_agree"))
    assert _patched(patch, *options) == [b"ready\n", b"here\n", _AGREES[0], b"page in force: 0\n"]


def test_another_image_stays_with_who_was_saved_with_it(cli: Cli) -> None:
    """A greenroom whose vDSO is another restores threads that may be in the middle of this one."""
    run = cli.run(compiled("clocks_agree"))
    assert read_lines(run, 1) == [b"ready\n"]
    cli.save()
    finish(run)
    patch = (
        "from greenroom.platform.x86_64 import clock_page; own = clock_page.image(); "
        "clock_page.image = lambda: own + b'another'"
    )
    assert _patched(patch, "restore", cli.file) == [b"here\n", _AGREES[0], b"page in force: 0\n"]


def _patched(patch: str, *arguments: str) -> list[bytes]:
    """Run a command line of a greenroom that was changed, give the guest one line, and return what it says."""
    code = f"{patch}; from greenroom.supervisor.cli import main; main()"
    done = subprocess.run(
        (sys.executable, "-c", code, *arguments),
        input=b"\n",
        capture_output=True,
        timeout=_TIMEOUT,
        env=ENVIRONMENT,
        cwd="/",
        check=False,
    )
    assert done.stderr == b""
    return done.stdout.splitlines(keepends=True)
