"""An agent that makes sandboxes from one Python process that lives on: ``python warm.py KIND [ARGUMENT...]``.

KIND is ``greenroom PLATFORM`` or ``sandlock WRITABLE``, which have an interface for Python, or ``command PREFIX...``
for those that are started as programs each time.  Operations:

* ``sandbox``: make one, run /bin/true in it, close it; the median of as many as the budget has room for;
* ``throughput``: the same COUNT times, from as many threads as the argument says; the time is that of one;
* ``idle``: have COUNT sandboxes with an idle shell in each, beyond this answer.
"""

from __future__ import annotations

import concurrent.futures
import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_TRUE = "/bin/true"
_IDLE = ("/bin/sh", "-c", "echo ready; read line")


class Kind(Protocol):
    """A way to have sandboxes."""

    def once(self) -> None:
        """Make a sandbox, run /bin/true, close it."""

    def idle(self) -> Any:
        """Return a sandbox in which a shell has started that waits for input."""


class Greenroom:
    """greenroom's own interface."""

    def __init__(self, platform: str) -> None:
        from greenroom import Sandbox

        self._create: Callable[[], Any] = lambda: Sandbox.create(platform=platform)

    def once(self) -> None:
        with self._create() as sandbox:
            sandbox.run(_TRUE, check=True)

    def idle(self) -> Any:
        sandbox = self._create()
        process = sandbox.exec(*_IDLE)
        assert process.stdout is not None
        _expect_ready(process.stdout.readline())
        return sandbox, process


class Sandlock:
    """sandlock's interface."""

    def __init__(self, writable: str) -> None:
        from sandlock import Sandbox, StdioMode

        self._create: Callable[[], Any] = lambda: Sandbox(fs_readable=["/"], fs_writable=["/tmp", "/dev", writable])
        self._pipe = StdioMode.PIPED

    def once(self) -> None:
        with self._create() as sandbox:
            if not sandbox.run([_TRUE]).success:
                raise RuntimeError("sandlock has failed")

    def idle(self) -> Any:
        sandbox = self._create()
        process = sandbox.popen(list(_IDLE), stdin=self._pipe, stdout=self._pipe)
        _expect_ready(process.stdout.readline())
        return sandbox, process


class Command:
    """A program that is put before the one to run."""

    def __init__(self, *prefix: str) -> None:
        self._prefix = prefix

    def once(self) -> None:
        subprocess.run([*self._prefix, _TRUE], check=True, stdin=subprocess.DEVNULL)

    def idle(self) -> Any:
        process = subprocess.Popen([*self._prefix, *_IDLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        _expect_ready(process.stdout.readline())
        return process


_KINDS: dict[str, Callable[..., Kind]] = {"greenroom": Greenroom, "sandlock": Sandlock, "command": Command}


def _expect_ready(line: bytes | str) -> None:
    if line not in (b"ready\n", "ready\n"):
        raise RuntimeError(f"the idle program said {line!r}")


def _repeat(operation: Callable[[], None], budget_ns: int, most: int) -> tuple[float, int]:
    """Return the median of the nanoseconds for one operation, as many as the budget has room for, and how many."""
    operation()
    took: list[int] = []
    while len(took) < most and sum(took) < budget_ns:
        begin = time.monotonic_ns()
        operation()
        took.append(time.monotonic_ns() - begin)
    return statistics.median(took), len(took)


def _throughput(operation: Callable[[], None], count: int, threads: int) -> tuple[float, int]:
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: operation(), range(threads)))
        begin = time.monotonic_ns()
        list(pool.map(lambda _: operation(), range(count)))
        return (time.monotonic_ns() - begin) / count, count


def _idle(kind: Kind, held: list[Any], count: int) -> tuple[float, int]:
    begin = time.monotonic_ns()
    missing = count - len(held)
    held += [kind.idle() for _ in range(missing)]
    return (time.monotonic_ns() - begin) / max(missing, 1), count


def _perform(kind: Kind, held: list[Any], fields: list[str]) -> tuple[float, int]:
    operation, budget_us, most = fields[0], int(fields[1]), int(fields[2])
    if operation == "sandbox":
        return _repeat(kind.once, budget_us * 1000, most)
    if operation == "throughput":
        return _throughput(kind.once, most, int(fields[3]))
    if operation == "idle":
        return _idle(kind, held, most)
    raise ValueError(f"no such operation: {operation}")


def main() -> None:
    """Answer until the input ends."""
    name, *arguments = sys.argv[1:]
    held: list[Any] = []
    print('{"ready": true}', flush=True)
    kind: Kind | None = None
    for line in sys.stdin:
        begin = time.monotonic_ns()
        try:
            kind = kind or _KINDS[name](*arguments)
            ns, count = _perform(kind, held, line.rstrip("\n").split("\t"))
            answer: dict[str, Any] = {"ns": ns, "count": count, "elapsed_ns": time.monotonic_ns() - begin}
        except Exception as error:  # noqa: BLE001  # the benchmark notes it in its table
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
