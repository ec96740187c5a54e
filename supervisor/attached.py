"""``greenroom exec``: a program in a sandbox of another supervisor, joined to this process's streams or terminal."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

from .errors import ExecError, GreenroomError
from .foreground import complain
from .session import GROUP_SIGNALS, shell_status, status_of_exec_error
from .streams import CLOSED_STREAM
from .terminal import relay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .program import Process
    from .sandbox import Sandbox

__all__ = ["run_attached", "run_in_terminal"]

_FORWARDED = GROUP_SIGNALS | {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
#: What the waiting thread wakes the main thread with: nobody else sends it to us.
_ENDED = signal.SIGALRM


def run_attached(
    sandbox: Sandbox,
    argv: Sequence[str],
    closed: frozenset[int],
    *,
    env: Mapping[str, str] | None,
    cwd: str | None,
    user: str | None,
) -> int:
    """Run a program on this process's own streams and pass signals on to it; return the exit status."""
    # Blocked from the start, so that each is taken by sigwait and none interrupts anything.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {_ENDED})
    streams = [CLOSED_STREAM if fd in closed else fd for fd in range(3)]
    try:
        process = sandbox.exec_with_streams(argv, streams, env=env, cwd=cwd, user=user)
        return shell_status(_wait_with_signals(process))
    except ExecError as error:
        complain(f"{argv[0]}: {error.strerror}")
        return status_of_exec_error(error.errno or 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_with_signals(process: Process) -> int:
    failures: list[GreenroomError] = []
    main = threading.get_ident()

    def wait() -> None:
        try:
            process.wait()
        except GreenroomError as error:
            failures.append(error)
        signal.pthread_kill(main, _ENDED)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    while (signo := signal.sigwait(_FORWARDED | {_ENDED})) != _ENDED:
        with contextlib.suppress(GreenroomError):  # it has just ended, as the thread will say
            process.forward(signo, to_group=signo in GROUP_SIGNALS)
    waiting.join()
    if failures:
        raise failures[0]
    assert process.returncode is not None
    return process.returncode


def run_in_terminal(
    sandbox: Sandbox,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None,
    cwd: str | None,
    user: str | None,
) -> int:
    """Run a program in a terminal of its own, joined to this process's; return the exit status."""
    try:
        process = sandbox.exec(*argv, tty=True, env=env, cwd=cwd, user=user)
    except ExecError as error:
        complain(f"{argv[0]}: {error.strerror}")
        return status_of_exec_error(error.errno or 0)
    return shell_status(relay(process, 0, 1))
