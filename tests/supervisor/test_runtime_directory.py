"""Names are unique among live supervisors, and what dead ones left is removed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from greenroom.actors.runtime.loop import Loop
from greenroom.supervisor.control import DescriptorSocket
from greenroom.supervisor.errors import NameInUse, SandboxNotFound, SupervisorError
from greenroom.supervisor.runtime_directory import RuntimeDirectory, find_supervisor, live_supervisors


def test_a_name_is_taken_once() -> None:
    first, second = RuntimeDirectory.create(), RuntimeDirectory.create()
    loop = Loop()
    listening = DescriptorSocket(loop, first)
    first.claim("box")
    for directory in (first, second):
        with pytest.raises(NameInUse, match="box"):
            directory.claim("box")
    assert find_supervisor("box").path == first.path
    first.release("box")
    second.claim("box")
    listening.close()
    first.remove()
    second.remove()


def test_a_dead_supervisor_s_name_and_directory_are_removed(runtime: str) -> None:
    script = (
        "from greenroom.supervisor.control import DescriptorSocket\n"
        "from greenroom.supervisor.runtime_directory import RuntimeDirectory\n"
        "from greenroom.actors.runtime.loop import Loop\n"
        "d = RuntimeDirectory.create(); s = DescriptorSocket(Loop(), d); d.claim('box'); d.claim('other')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert len(os.listdir(f"{runtime}/greenroom")) == 2
    mine = RuntimeDirectory.create()
    mine.claim("box")
    with pytest.raises(SandboxNotFound, match="has died"):
        find_supervisor("other")
    assert [directory.path for directory in live_supervisors()] == [mine.path]
    mine.remove()


def test_an_unknown_name_is_not_found() -> None:
    for name in ("nobody", "../names"):
        with pytest.raises(SandboxNotFound):
            find_supervisor(name)


def test_a_directory_that_others_may_enter_is_refused(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(f"{runtime}/greenroom")
    os.chmod(f"{runtime}/greenroom", 0o755)  # noqa: S103  # that is the mistake
    monkeypatch.setattr("greenroom.supervisor.runtime_directory.candidates", lambda: [f"{runtime}/greenroom"])
    with pytest.raises(SupervisorError, match="mode 0700"):
        RuntimeDirectory.create()
    os.rmdir(f"{runtime}/greenroom")


def test_a_path_that_is_too_long_for_sockets_is_refused(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(f"{runtime}/{'x' * 80}", 0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"{runtime}/{'x' * 80}")
    with pytest.raises(SupervisorError, match="shorter"):
        RuntimeDirectory.create()
