"""The oracle of the guest tests: a program must say in a sandbox what it says natively.

A :class:`Case` is a program with its input; :func:`natively` and :func:`in_sandbox` run it and return an :class:`Outcome`,
which must be equal.  Both start in an empty directory with the same small environment: natively a directory of its own,
in the sandbox its /tmp.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from guest_programs import AS_CALLER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "AS_CALLER",
    "ENVIRONMENT",
    "GREENROOM",
    "PLACEMENTS",
    "Case",
    "Outcome",
    "check_same",
    "in_sandbox",
    "natively",
    "replacing",
    "shell",
]

PLACEMENTS = ("colocated", "split")
GREENROOM = str(Path(sys.executable).with_name("greenroom"))
#: Small and the same everywhere: nothing of the machine that runs the tests shows in an output.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
}
#: Seconds for one program: it is over in less than one, but both cores of a small machine may be busy with others.
TIMEOUT = 60.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a program ended and what it said."""

    status: int
    stdout: bytes
    stderr: bytes


@dataclasses.dataclass(frozen=True)
class Case:
    """A program and its input."""

    argv: tuple[str, ...]
    stdin: bytes | None = None
    env: tuple[tuple[str, str], ...] = ()
    #: Turns what must differ (process ids, times) into what must not: the test says why.
    normalise: Callable[[bytes], bytes] | None = None
    timeout: float = TIMEOUT

    def environment(self) -> dict[str, str]:
        """Return the whole environment."""
        return {**ENVIRONMENT, **dict(self.env)}


def shell(
    line: str,
    *,
    program: str = "/bin/sh",
    stdin: bytes | None = None,
    normalise: Callable[[bytes], bytes] | None = None,
) -> Case:
    """Return a shell line as a case."""
    return Case((program, "-c", line), stdin=stdin, normalise=normalise)


def natively(case: Case, directory: Path) -> Outcome:
    """Run *case* on this machine, in *directory*."""
    return _run(case.argv, case, directory)


def in_sandbox(case: Case, placement: str, options: Sequence[str] = ()) -> Outcome:
    """Run *case* in a sandbox, in its /tmp."""
    argv = (GREENROOM, "run", "--placement", placement, "--cwd", "/tmp", *options, "--", *case.argv)
    return _run(argv, case, None)


def _run(argv: Sequence[str], case: Case, directory: Path | None) -> Outcome:
    done = subprocess.run(
        argv,
        input=case.stdin,
        stdin=subprocess.DEVNULL if case.stdin is None else None,
        capture_output=True,
        env=case.environment(),
        cwd=directory,
        timeout=case.timeout,
        check=False,
    )
    tidy = case.normalise or bytes
    # A shell's way to say that a signal ended a program, which is greenroom's too.
    status = 128 - done.returncode if done.returncode < 0 else done.returncode
    return Outcome(status, tidy(done.stdout), tidy(done.stderr))


def check_same(case: Case, placement: str, directory: Path) -> Outcome:
    """Run *case* both ways; fail unless status, output and errors are equal. Return the outcome."""
    expected = natively(case, directory)
    assert in_sandbox(case, placement, AS_CALLER) == expected
    return expected


def replacing(*pairs: tuple[bytes, bytes]) -> Callable[[bytes], bytes]:
    """Return a normaliser that replaces each regular expression."""

    def replace(text: bytes) -> bytes:
        for pattern, text_instead in pairs:
            text = re.sub(pattern, text_instead, text, flags=re.MULTILINE)
        return text

    return replace
