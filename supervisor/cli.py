"""The way into the command line: what must happen before, and beside, the reading of its arguments.

A cold ``greenroom run`` spends most of its time importing.  So the spawner is forked as soon as what it shares with the
supervisor is there; it imports the actors while this process reads the command line on another core.
"""

from __future__ import annotations

import gc
import os
import sys

from .errors import GreenroomError, SpecError
from .streams import fill_closed_streams

TYPE_CHECKING = False  # typing takes 2 ms to import
if TYPE_CHECKING:
    from typing import NoReturn

    from .spawner import Prepared
    from .surroundings import Surroundings

__all__ = ["Caller", "main"]

STATUS_USAGE = 2
STATUS_FAILED = 125
STATUS_INTERRUPTED = 130

#: The commands whose process is a supervisor itself.
_SUPERVISING = ("run", "restore", "serve")


class Caller:
    """What the commands need to know about the process that they run in."""

    def __init__(self, arguments: list[str], closed: frozenset[int]) -> None:
        """*closed*: the standard streams that were closed when the process was started."""
        self.closed = closed
        self._prepared: Prepared | None = None
        if arguments[:1] and arguments[0] in _SUPERVISING and "--help" not in arguments:
            from .sandbox_process import PRELOAD
            from .spawner import prepare

            self._prepared = prepare(PRELOAD)

    def surroundings(self) -> Surroundings:
        """Return what a command finds around it in this process."""
        from .surroundings import Surroundings

        return Surroundings.of_this_process(self.closed)

    def take_prepared(self) -> Prepared | None:
        """Return the spawner that was forked early, once."""
        prepared, self._prepared = self._prepared, None
        return prepared

    def close(self) -> None:
        """Let go of a spawner that nobody took: the arguments were wrong."""
        if self._prepared is not None:
            self._prepared.abandon()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    # Imports make many objects and no garbage.
    gc.disable()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        closed = fill_closed_streams()
        if given[:1] == ["run"]:
            from .quick import run_by_service

            status = run_by_service(given, closed)
            if status is not None:
                _leave(status)
        caller = Caller(given, closed)
        try:
            status = _run(given, caller)
        finally:
            caller.close()
        if given[:1] == ["run"]:
            _leave(status)
        return status
    except SpecError as error:
        sys.stderr.write(f"greenroom: {error}\n")
        return STATUS_USAGE
    except (GreenroomError, OSError) as error:
        sys.stderr.write(f"greenroom: {error}\n")
        return STATUS_FAILED


def _leave(status: int) -> NoReturn:
    """End here and now: Python would take 10 ms to forget its modules, and nothing is buffered that it would write."""
    os._exit(status)


def _run(arguments: list[str], caller: Caller) -> int:
    import click

    from .commands import cli

    if arguments[:1] and arguments[0] not in _SUPERVISING:
        gc.enable()
    try:
        result = cli.main(arguments, prog_name="greenroom", standalone_mode=False, obj=caller)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return STATUS_INTERRUPTED
    return result if isinstance(result, int) else 0
