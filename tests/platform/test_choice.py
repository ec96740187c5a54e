"""Which platform a worker gets, and why."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from greenroom.platform.choice import start_platform

if TYPE_CHECKING:
    from greenroom.platform.ptrace.platform import PtracePlatform

#: Puts itself under a seccomp filter with FLAGS that allows everything, then says which platform it gets.
FILTERED = """
import ctypes, os, struct, sys
from greenroom.platform import choice
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 1, ctypes.addressof(code)))
assert libc.syscall(317, 1, int(sys.argv[1]), program) >= 0
if sys.argv[2] == "blindly":
    choice._obstacle = lambda: ""
try:
    platform, reason = choice.start_platform(sys.argv[3])
except RuntimeError as error:
    print("refused:", error)
else:
    print(platform.name, reason)
    platform.close()
"""
NEW_LISTENER = "8"


def filtered(*arguments: str) -> str:
    """Return what a process under a filter of its own says."""
    command = [sys.executable, "-c", FILTERED, *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout


def test_the_fastest_is_the_default(make_platform: type[PtracePlatform]) -> None:
    for wanted in ("auto", make_platform.name):
        platform, reason = start_platform(wanted)
        try:
            assert (platform.name, reason) == ("notify" if wanted == "auto" else wanted, "")
        finally:
            platform.close()


def test_an_unknown_platform_is_ValueError() -> None:
    with pytest.raises(ValueError, match="no platform 'kvm'"):
        start_platform("kvm")


def test_a_process_under_a_filter_gets_ptrace() -> None:
    assert filtered("0", "as is", "auto").startswith("ptrace this process is under a seccomp filter already")


def test_a_filter_that_hides_nothing_is_no_obstacle_to_who_insists() -> None:
    assert filtered("0", "as is", "notify") == "notify \n"


def test_a_listener_above_is_told_of() -> None:
    said = filtered(NEW_LISTENER, "blindly", "auto")
    assert said.startswith("ptrace cannot start the notify platform")
    assert "a seccomp filter above this process has a listener already" in said
    assert filtered(NEW_LISTENER, "as is", "notify").startswith("refused: cannot start the notify platform")
