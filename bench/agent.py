"""An agent: a program that performs operations on request, inside a sandbox or beside it, and times them itself.

A request is one line, its fields separated by tabs: the operation, microseconds that it may take, how many at most,
arguments.  The answer is one line of JSON: ``{"ns": per operation, "count": of them, "elapsed_ns": in all}`` or
``{"error": text}``.  The first line that an agent says is ``{"ready": true}``.

The time that an agent measures is that of its sandbox, which is the sandbox's own making; so it is held against the
time that passed outside.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from .processes import Failure, Program

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Agent"]

#: Seconds until an agent says that it is there.
_READY_S = 30.0
#: Seconds that it may take to end once its input is closed.
_END_S = 2.0
#: A sandbox's clock may go wrong by this part, and the way of request and answer takes this many seconds at most.
_CLOCK_TOLERANCE = 0.05
_LATENCY_S = 0.25


class Agent:
    """The host's end of an agent."""

    def __init__(self, argv: Sequence[str], directory: str) -> None:
        """Start *argv* in *directory* and wait until it is ready. Failure."""
        self.program = Program(argv, directory, talk=True)
        try:
            self._hear(_READY_S)
        except BaseException:
            self.program.close()
            raise

    @property
    def pid(self) -> int:
        """The host's process id of the program that was started."""
        return self.program.process.pid

    def ask(
        self, operation: str, timeout_s: float, *, budget_us: int = 0, most: int = 1, args: Sequence[str] = ()
    ) -> float:
        """Have *operation* performed; return the seconds that one took. Failure; then the agent is of no more use."""
        said, passed = self._ask("\t".join([operation, str(budget_us), str(most), *args]), timeout_s)
        elapsed = said["elapsed_ns"] / 1e9
        if not passed * (1 - _CLOCK_TOLERANCE) - _LATENCY_S <= elapsed <= passed * (1 + _CLOCK_TOLERANCE):
            raise Failure(f"its clock says {elapsed:.3f} s, the host's {passed:.3f} s")
        return float(said["ns"]) / 1e9

    def _ask(self, request: str, timeout_s: float) -> tuple[dict[str, Any], float]:
        stdin = self.program.process.stdin
        assert stdin is not None
        begin = time.monotonic()
        try:
            stdin.write(request.encode() + b"\n")
            stdin.flush()
        except OSError:
            raise Failure(self.program.complaint() or "ended without an answer") from None
        said = self._hear(timeout_s)
        if "error" in said:
            raise Failure(": ".join(filter(None, (str(said["error"]), self.program.complaint()))))
        return said, time.monotonic() - begin

    def _hear(self, timeout_s: float) -> dict[str, Any]:
        """Return the next line that the agent says."""
        line = self.program.read_line(timeout_s)
        try:
            return dict(json.loads(line))
        except ValueError:
            raise Failure(f"said {line[:80]!r}") from None

    def close(self) -> None:
        """End it."""
        self.program.close(_END_S)
