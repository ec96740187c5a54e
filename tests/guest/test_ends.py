"""How a program ends is what ``greenroom run`` reports: exit statuses, signals, errors of execve, the time limit."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from oracle import ENVIRONMENT, GREENROOM, Case, check_same, in_sandbox, shell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("status", [0, 1, 2, 42, 77, 124, 125, 126, 127, 128, 137, 254, 255])
def test_exit_status_is_exact(status: int, placement: str) -> None:
    assert in_sandbox(shell(f"exit {status}"), placement).status == status


def test_every_exit_status_reaches_the_parent(placement: str, tmp_path: Path) -> None:
    line = 'i=0; while [ $i -lt 256 ]; do sh -c "exit $i"; echo $?; i=$((i + 1)); done'
    said = check_same(shell(line), placement, tmp_path).stdout
    assert said == b"".join(b"%d\n" % status for status in range(256))


def test_exit_status_is_cut_to_eight_bits(placement: str, tmp_path: Path) -> None:
    case = Case(("/usr/bin/python3", "-c", "import os; os._exit(0x1234)"))
    assert check_same(case, placement, tmp_path).status == 0x34


@pytest.mark.parametrize(
    "signal", ["SEGV", "KILL", "PIPE", "TERM", "ABRT", "INT", "HUP", "USR1", "ALRM", "BUS", "FPE", "ILL"]
)
def test_death_by_signal_is_reported(signal: str, placement: str, tmp_path: Path) -> None:
    status = check_same(shell(f"kill -{signal} $$"), placement, tmp_path).status
    assert status > 128


@pytest.mark.parametrize(
    "fault", ["null", "write-to-code", "jump-to-data", "divide", "illegal", "stack", "abort", "bus", "trap"]
)
def test_fault_ends_the_program(fault: str, program: Callable[..., str], placement: str, tmp_path: Path) -> None:
    assert check_same(Case((program("faults"), fault)), placement, tmp_path).status > 128


def test_signal_of_a_child_reaches_the_shell(program: Callable[..., str], placement: str, tmp_path: Path) -> None:
    line = f"for f in null divide abort; do {program('faults')} $f; echo $?; done; yes | head -n 1; sh -c 'kill -9 $$'; echo $?"
    check_same(shell(line), placement, tmp_path)


def test_broken_pipe_ends_the_writer(placement: str, tmp_path: Path) -> None:
    line = "yes | head -n 1; echo ${PIPESTATUS[@]}; python3 -c 'while True: print(1)' 2>/dev/null | head -n 1; echo ${PIPESTATUS[@]}"
    check_same(shell(line, program="/bin/bash"), placement, tmp_path)


def test_missing_program_is_127(placement: str) -> None:
    outcome = in_sandbox(Case(("/nonexistent/program",)), placement)
    assert outcome.status == 127
    assert b"/nonexistent/program" in outcome.stderr


def test_missing_name_is_127(placement: str) -> None:
    assert in_sandbox(Case(("no-such-program-anywhere",)), placement).status == 127


def test_unexecutable_file_is_126(placement: str) -> None:
    assert in_sandbox(Case(("/etc/passwd",)), placement).status == 126


def test_directory_is_126(placement: str) -> None:
    assert in_sandbox(Case(("/usr",)), placement).status == 126


def test_script_without_interpreter_line_is_126(placement: str) -> None:
    """execve gives ENOEXEC; only shells run such a file themselves."""
    case = shell("echo 'echo hi' >/tmp/x; chmod +x /tmp/x; exec python3 -c 'import os; os.execv(\"/tmp/x\", [\"x\"])'")
    assert b"Exec format error" in in_sandbox(case, placement).stderr


@pytest.mark.parametrize(
    "line",
    [
        "sleep 1000",
        "while :; do :; done",
        "sleep 1000 & sleep 1000",
        "trap '' TERM INT HUP; sleep 1000; sleep 1000",
        "kill -STOP $$",
    ],
    ids=["asleep", "spinning", "two", "stubborn", "stopped"],
)
def test_timeout_ends_a_hung_guest_with_124(line: str, placement: str) -> None:
    begin = time.monotonic()
    outcome = in_sandbox(shell(line), placement, ("--timeout", "1"))
    assert outcome.status == 124
    assert time.monotonic() - begin < 15


def test_output_before_the_timeout_is_kept(placement: str) -> None:
    outcome = in_sandbox(shell("echo said; echo also >&2; sleep 1000"), placement, ("--timeout", "1"))
    assert (outcome.status, outcome.stdout) == (124, b"said\n")
    assert b"also" in outcome.stderr


def test_end_of_the_main_program_ends_the_sandbox(placement: str) -> None:
    """As in a container: what the first program leaves behind in the background does not hold up the caller."""
    begin = time.monotonic()
    done = subprocess.run(
        [GREENROOM, "run", "--placement", placement, "--", "/bin/sh", "-c", "sleep 1000 & echo said"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=ENVIRONMENT,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"said\n")
    assert time.monotonic() - begin < 15


def test_unknown_option_is_a_usage_error() -> None:
    done = subprocess.run(
        [GREENROOM, "run", "--no-such-option"], capture_output=True, env=ENVIRONMENT, timeout=30, check=False
    )
    assert done.returncode == 2
    assert b"--no-such-option" in done.stderr


def test_no_command_is_a_usage_error() -> None:
    done = subprocess.run([GREENROOM, "run"], capture_output=True, env=ENVIRONMENT, timeout=30, check=False)
    assert done.returncode == 2
