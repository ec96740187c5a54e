"""The compiled form of this package, which is built when GREENROOM_COMPILED is set: see ARCHITECTURE.md.

mypyc makes one shared object of actors/ and platform/, from the same source, by its type annotations.  Everything else,
and what is listed here, stays interpreted.  A wheel has the source of the compiled modules too, for tracebacks.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from setuptools import setup

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parent
#: The compiler wants the source in a folder that has the package's name, and gets the decoders of system calls with it.
_STAGE = _ROOT / "build" / "compiled"
_FOLDERS = ("actors", "platform")
_INTERPRETED = (
    # Recordings put other objects in the place of these; compiled code takes instances of compiled classes only.
    "actors/runtime/descriptors.py",
    "actors/thread_group/host.py",
    "actors/timekeeper/host.py",
    "actors/mount_namespace/host_files.py",
    # Classes that mypyc cannot make: of ctypes, and errors with an errno.
    "actors/mount_namespace/errors.py",
    "platform/ptrace/binding.py",
    "platform/x86_64/clock_page.py",
    "platform/x86_64/registers.py",
    # Saves and traces: nothing there is called often, and they look at the attributes of everything.
    "actors/mount_namespace/saving.py",
    "actors/runtime/replay.py",
    "actors/runtime/tape.py",
    "actors/thread_group/save*.py",
)


def _stage() -> Path:
    """Copy the package's source, and return the folder that is the package there."""
    shutil.rmtree(_STAGE, ignore_errors=True)
    package = _STAGE / "greenroom"
    for folder in ("actors", "config", "messages", "platform", "supervisor"):
        shutil.copytree(_ROOT / folder, package / folder, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy(_ROOT / "__init__.py", package)
    return package


def _append_decoders() -> None:
    """Write, behind each handler's module, what the interpreted form compiles at the first call of the handler."""
    sys.path.insert(0, str(_STAGE))
    from greenroom.actors.thread_group import families
    from greenroom.actors.thread_group.table import TABLE, decoded_arguments

    families.load()
    for number, entry in sorted(TABLE.items()):
        module = sys.modules[entry.handler.__module__]
        assert module.__file__ is not None
        arguments = ", ".join(filter(None, ("task", decoded_arguments(entry.handler))))
        with open(module.__file__, "a", encoding="utf-8") as source:
            source.write(
                f"\n\ndef _decode_{number}(task: Task, r: tuple[int, ...]) -> object:\n"
                f"    return {entry.handler.__name__}({arguments})\n"
                "\n\nfrom .table import TABLE\n"
                f"TABLE[{number}].call = _decode_{number}\n"
            )


def _compiled_modules(package: Path) -> Iterator[str]:
    gone = [pattern for pattern in _INTERPRETED if not any(package.glob(pattern))]
    if gone:
        raise SystemExit(f"setup.py keeps modules interpreted that are not there: {', '.join(gone)}")
    for folder in _FOLDERS:
        for path in sorted((package / folder).rglob("*.py")):
            relative = path.relative_to(package)
            if path.name != "__init__.py" and not any(relative.match(pattern) for pattern in _INTERPRETED):
                yield str(path)


def _compile() -> None:
    from mypyc.build import mypycify
    from pybind11.setup_helpers import ParallelCompile

    package = _stage()
    _append_decoders()
    os.environ["MYPYPATH"] = str(_STAGE)
    # As one object: calls between modules are C calls then, and a start maps one file.  More than -O1 takes gcc half as
    # long again, and nothing else that could be measured.
    extensions = mypycify(
        ["--config-file", str(_ROOT / "pyproject.toml"), "--explicit-package-bases", *_compiled_modules(package)],
        opt_level="1",
        debug_level="0",
        multi_file=True,
        group_name="greenroom",
        target_dir=str(_ROOT / "build" / "c"),
    )
    ParallelCompile("GREENROOM_JOBS", default=0).install()
    setup(ext_modules=extensions)


if os.environ.get("GREENROOM_COMPILED"):
    _compile()
else:
    setup()
