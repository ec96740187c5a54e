"""The log: one JSON object a line, with what an event is about."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def events(file: Path, level: str, *command: str) -> list[dict[str, Any]]:
    """Run *command* and return the events of its sandbox."""
    options = ["--log-json", str(file), "--log-level", level]
    subprocess.run([sys.executable, "-m", "greenroom", "run", *options, "--", *command], check=True)
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_births_and_deaths_are_logged(tmp_path: Path) -> None:
    """At level info there is an event for each program and its end, with sandbox, actor and process id."""
    logged = events(tmp_path / "log", "info", "/bin/sh", "-c", "/bin/true; exit 0")
    started = [e["command"] for e in logged if e["event"] == "program started"]
    ended = [e for e in logged if e["event"] == "process ended"]
    assert started[0] == "sh" and "true" in started
    assert len(ended) == 2
    assert all(e["sandbox"] and e["actor"].startswith("thread_group:") and e["tgid"] > 1 for e in ended)
    assert not [e for e in logged if e["event"] == "system call"]


def test_level_debug_logs_every_system_call_with_its_duration(tmp_path: Path) -> None:
    """write(2) of the greeting is there, with result and duration; so is the errno of a call that failed."""
    logged = events(tmp_path / "log", "debug", "/bin/sh", "-c", "echo hello >/dev/null; cat /missing 2>/dev/null || :")
    calls = [e for e in logged if e["event"] == "system call"]
    assert any(e["syscall"] == "write" and e["result"] == 6 for e in calls)
    assert any(e["syscall"] == "openat" and e["result"] == "ENOENT" for e in calls)
    assert all(e["duration_us"] >= 0 and e["tid"] >= e["tgid"] for e in calls)


def test_an_unsupported_call_is_logged_once(tmp_path: Path) -> None:
    """However often it is made, with its number and name."""
    program = "import ctypes; [ctypes.CDLL(None).syscall(248) for _ in range(3)]"
    logged = events(tmp_path / "log", "info", "/usr/bin/python3", "-c", program)
    unsupported = [e for e in logged if e["event"] == "unsupported system call" and e["number"] == 248]
    assert [e["syscall"] for e in unsupported] == ["add_key"]
