"""Where the guest programs of the tests are: sources and scripts, and what is compiled from the sources.

A sandbox has a /tmp of its own, so from a checkout below the host's /tmp it could not see them: then they are copied to
a directory in /var/tmp, which goes when the tests end.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["AS_CALLER", "SOURCES", "compiled"]

#: Options of ``greenroom run``: who natively is not root is to be the same user in the sandbox, where everybody may be.
AS_CALLER = () if os.geteuid() == 0 else ("--user", f"{os.geteuid()}:{os.getegid()}")

_CHECKOUT = Path(__file__).resolve().parent.parent


def _visible_checkout() -> Path:
    if not _CHECKOUT.is_relative_to("/tmp"):
        return _CHECKOUT
    copy = Path(tempfile.mkdtemp(prefix="greenroom-tests-", dir="/var/tmp"))
    atexit.register(shutil.rmtree, copy)
    shutil.copytree(_CHECKOUT / "tests" / "programs", copy / "tests" / "programs")
    return copy


_VISIBLE = _visible_checkout()
#: C sources and scripts, at a path that sandboxes see.
SOURCES = _VISIBLE / "tests" / "programs"
_COMPILED = _VISIBLE / "build" / "programs"
#: Bad arguments and endless recursion are what the programs are for.
_WANTED = ("-Wno-nonnull", "-Wno-stringop-overflow", "-Wno-stringop-overread", "-Wno-infinite-recursion")
_FLAGS = ("-O1", "-Wall", "-Werror", "-Wno-unused-result", *_WANTED, "-pthread")


def compiled(name: str, *flags: str) -> str:
    """Compile ``tests/programs/NAME.c`` once for each content, and return the program's path."""
    source = SOURCES / f"{name}.c"
    parts = (source.read_bytes(), (SOURCES / "check.h").read_bytes(), " ".join((*_FLAGS, *flags)).encode())
    path = _COMPILED / hashlib.sha256(b"".join(parts)).hexdigest()[:16] / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        subprocess.run(["gcc", *_FLAGS, *flags, "-o", unfinished, source], check=True)
        unfinished.replace(path)
    return str(path)
