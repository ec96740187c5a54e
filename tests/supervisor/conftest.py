"""Fixtures: a private runtime directory for every test, and hosts with fake sandboxes."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from greenroom.config.spec import SandboxSpec
from hosts import Server, TurnedHost

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A private runtime directory with a short path, which must be empty again at the end."""
    with tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp") as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", path)
        yield path
        base = f"{path}/greenroom"
        if os.path.isdir(base):
            assert os.listdir(base) == ["names"]
            assert os.listdir(f"{base}/names") == []


@pytest.fixture
def turned() -> Iterator[TurnedHost]:
    turned = TurnedHost()
    yield turned
    turned.host.close()


@pytest.fixture(params=["colocated", "split"])
def spec(request: pytest.FixtureRequest) -> SandboxSpec:
    return SandboxSpec(name="box", placement=request.param)


@pytest.fixture
def server(runtime: str) -> Iterator[Server]:
    server = Server()
    yield server
    server.close()
