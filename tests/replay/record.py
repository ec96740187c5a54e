"""Record the golden traces anew: ``make golden``, after a change that alters what the actors say or ask.

Look at what changed (``greenroom trace show``) before you commit new ones: one that changed by itself is a bug.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

__all__ = ["GOLDEN", "HERE", "record"]

HERE = pathlib.Path(__file__).parent
#: Name, placement and command of each golden trace.
GOLDEN: dict[str, tuple[str, list[str]]] = {
    "pipeline": ("colocated", ["/bin/sh", "-c", "echo hello | tr a-z A-Z; exit 3"]),
    "files": (
        "split",
        ["/bin/sh", "-c", "cd /tmp && mkdir d && echo data >d/a && mv d/a d/b && cat d/b && ls -l d/missing; rm -r d"],
    ),
    "python": ("split", ["/usr/bin/python3", "-I", "-S", "-c", "import os; os.waitpid(os.fork() or os._exit(7), 0)"]),
}


def record(name: str, file: pathlib.Path) -> int:
    """Run one program with tracing on and return its exit status."""
    placement, command = GOLDEN[name]
    greenroom = [sys.executable, "-m", "greenroom", "run", "--placement", placement, "--cwd", "/", "--trace", str(file)]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    return subprocess.run([*greenroom, "--", *command], env=environment, check=False, capture_output=True).returncode


if __name__ == "__main__":
    for golden in GOLDEN:
        status = record(golden, HERE / f"{golden}.grt")
        sys.stdout.write(f"{golden}: exit status {status}\n")
