"""The systems that are compared: native, greenroom's platforms, and what users would pick instead.

A system is a *prefix* that is put before a program's arguments; ``{work}`` in it stands for the program's working
directory.  Which of the peers are sandboxes and which are not, and how they work:

* runsc is gVisor, in the mode that needs no root, with the network off, as ``runsc do`` starts it: host files below,
  writes in memory.  Debian's package is the platform ptrace of 2022; another one on PATH is a system of its own.
* proot and strace -f also stop a program at its system calls with ptrace, and let the host execute them.
* bwrap has namespaces and the host's own kernel: what isolation costs when system calls are left alone.
* sandlock is Landlock, seccomp and user notification, from Python.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .processes import ENVIRONMENT, Failure, run

__all__ = ["GREENROOM_SYSTEMS", "KNOWN_NAMES", "NATIVE", "RUNTIME", "System", "known_systems", "select_systems"]

NATIVE = "native"
#: The names for ``--systems``.
KNOWN_NAMES = (NATIVE, "notify", "ptrace", "runsc", "proot", "strace", "bwrap", "sandlock")
#: No sandbox at all: greenroom's actors alone. Its rows have no other column.
RUNTIME = "runtime"
GREENROOM_SYSTEMS = ("notify", "ptrace")

_GREENROOM = str(Path(sys.executable).with_name("greenroom"))
_SANDLOCK_RUN = str(Path(__file__).resolve().parent / "programs" / "sandlock_run.py")
_MISSING = "not installed: run make peers"
#: Seconds for /bin/true, which shows that a system works at all.
_PROBE_S = 30.0


@dataclasses.dataclass(frozen=True)
class System:
    """A way to run a program."""

    #: The name for ``--systems``, and in JSON.
    name: str
    title: str
    prefix: tuple[str, ...] = ()
    #: Arguments of ``programs/warm.py``: how Python makes sandboxes of it; without, by *prefix*.
    warm: tuple[str, ...] = ()
    version: str = ""
    #: Why it cannot be measured here; "" when it can.
    unavailable: str = ""

    def argv(self, program: tuple[str, ...], work: str) -> list[str]:
        """Return the command that runs *program* in directory *work*."""
        return [part.replace("{work}", work) for part in self.prefix] + list(program)

    def warm_arguments(self, work: str) -> list[str]:
        """Return how ``programs/warm.py`` is told to make sandboxes of this system."""
        return [part.replace("{work}", work) for part in self.warm or ("command", *self.prefix)]


def _greenroom(platform: str, version: str) -> System:
    prefix = (_GREENROOM, "run", "--platform", platform, "--cwd", "{work}", "--")
    return System(platform, f"greenroom {platform}", prefix, ("greenroom", platform), version)


def _version(*command: str) -> str:
    """Return what a program says of its version: the first number with dots."""
    try:
        done = subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT, text=True, timeout=_PROBE_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d[\w.+~-]*\.[\w.+~-]+", done.stdout + done.stderr)
    return found.group() if found else ""


def _runsc(name: str, path: str) -> System:
    # Its state goes with the working directory; log lines of its own would be in the way.
    prefix = (path, "--rootless", "--network=none", "--root={work}.runsc", "do", "--quiet")
    version = _version(path, "--version")
    title = "runsc" if name == "runsc" else f"runsc {version}"
    return System(name, title, prefix, version=version)


def _runsc_systems() -> list[System]:
    """Return Debian's runsc, and those that stand elsewhere on the caller's PATH."""
    debian = "/usr/bin/runsc"
    systems = [_runsc("runsc", debian)] if os.access(debian, os.X_OK) else [_missing("runsc", "runsc")]
    places = {os.path.realpath(f"{folder}/runsc") for folder in os.environ.get("PATH", "").split(":")}
    others = sorted(path for path in places - {os.path.realpath(debian)} if os.access(path, os.X_OK))
    return systems + [_runsc(f"runsc-{number}", path) for number, path in enumerate(others, 2)]


def _missing(name: str, title: str) -> System:
    return System(name, title, unavailable=_MISSING)


def _sandlock() -> System:
    try:
        from importlib.metadata import version

        found = version("sandlock")
    except ImportError:
        return _missing("sandlock", "sandlock")
    prefix = (sys.executable, "-I", _SANDLOCK_RUN, "{work}")
    return System("sandlock", "sandlock", prefix, ("sandlock", "{work}"), found)


def known_systems() -> list[System]:
    """Return all systems, those that are not installed too, in the order of the tables."""
    from greenroom.config.build import build_name

    # The host's root read-only, a /tmp of its own, the working directory writable; no network, no host processes.
    own = ("--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--bind", "{work}", "{work}", "--unshare-all")
    bwrap = ("bwrap", "--ro-bind", "/", "/", *own, "--die-with-parent")
    programs = [
        System("proot", "proot", ("proot",), version=_version("proot", "--version")),
        System("strace", "strace -f", ("strace", "-f", "-o", "/dev/null"), version=_version("strace", "--version")),
        System("bwrap", "bwrap", bwrap, version=_version("bwrap", "--version")),
    ]
    return [
        System(NATIVE, "native"),
        *(_greenroom(platform, build_name()) for platform in GREENROOM_SYSTEMS),
        *_runsc_systems(),
        *(s if shutil.which(s.prefix[0], path=ENVIRONMENT["PATH"]) else _missing(s.name, s.title) for s in programs),
        _sandlock(),
        System(RUNTIME, "greenroom's runtime"),
    ]


def select_systems(names: tuple[str, ...]) -> list[System]:
    """Return the systems with these names (all, when there is none), after a try of each that is installed.

    Native and the runtime are always among them. "runsc" stands for all that are found. KeyError for a name unknown.
    """
    for name in names:
        if name not in KNOWN_NAMES:
            raise KeyError(name)
    wanted = {*(names or KNOWN_NAMES), NATIVE, RUNTIME}
    return [_probed(system) for system in known_systems() if system.name.partition("-")[0] in wanted]


def _probed(system: System) -> System:
    """Return *system*, marked unavailable unless it can run /bin/true."""
    if system.unavailable:
        return system
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        work = f"{folder}/work"
        os.mkdir(work)
        try:
            run(system.argv(("/bin/true",), work), work, _PROBE_S)
        except Failure as failure:
            return dataclasses.replace(system, unavailable=str(failure))
    return system
