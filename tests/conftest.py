"""What all tests share: on which platforms those that run guests run them, and how signals stand."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from greenroom.platform.ptrace.platform import PtracePlatform


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller choose, where a host allows only one of them."""
    parser.addoption("--platforms", default="notify,ptrace", help="platforms to test, separated by commas")


def pytest_configure() -> None:
    """Handle signals as a program in the foreground does: a shell ignores some for one in the background.

    What is ignored is inherited by the programs that run natively, but not by those in sandboxes.
    """
    for signo, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(signo) is signal.SIG_IGN:
            signal.signal(signo, handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run on each platform what asks for one."""
    for fixture in ("make_platform", "guest_platform"):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, metafunc.config.getoption("platforms").split(","), indirect=True)


@pytest.fixture
def make_platform(request: pytest.FixtureRequest) -> type[PtracePlatform]:
    """Each platform in turn; both keep the same contract."""
    from greenroom.platform.notify.platform import NotifyPlatform
    from greenroom.platform.ptrace.platform import PtracePlatform

    return {"notify": NotifyPlatform, "ptrace": PtracePlatform}[request.param]
