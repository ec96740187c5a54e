"""What a sandbox and a program in it are specified by, with every value checked where it is made.

The specifications are records: they travel in messages and lie in checkpoint files as they are, and the receiver's
copy passes the same checks.  Linux counterpart: the arguments of unshare(1), mount(2) and execve(2) together; OCI's
config.json is the same idea, wider.
"""

from __future__ import annotations

import dataclasses
import os
import re
import resource

from ..messages.base import Record, record
from ..supervisor.errors import SpecError

__all__ = [
    "DEFAULT_PATH",
    "DEFAULT_PLACEMENT",
    "LOG_LEVELS",
    "MAX_BINDS",
    "MAX_NAME_LENGTH",
    "MAX_WORKERS",
    "PLACEMENTS",
    "PLATFORMS",
    "PLATFORM_VARIABLE",
    "BindMount",
    "Command",
    "SandboxSpec",
    "clean_environment",
    "default_cwd",
    "default_platform",
    "limit_numbers",
    "parse_bind",
    "parse_user",
]

#: Characters of a sandbox's name. It is part of a host path and of socket names, which Linux cuts at 107 bytes.
MAX_NAME_LENGTH = 48
#: Characters of a host name, as sethostname(2) allows.
MAX_HOSTNAME_LENGTH = 64
#: Bind mounts of one sandbox.
MAX_BINDS = 1000
#: Worker processes of one sandbox.
MAX_WORKERS = 64
#: Nanoseconds that a sandbox's time limit may be: a year.
MAX_TIMEOUT_NS = 366 * 86400 * 10**9

#: "auto" is the fastest that the host allows.
PLATFORMS = ("auto", "notify", "ptrace")
#: Environment variable that says which platform to use where nothing else does.
PLATFORM_VARIABLE = "GREENROOM_PLATFORM"
PLACEMENTS = ("colocated", "split")
NETWORKS = ("none",)
LOG_LEVELS = ("debug", "info", "warning", "error")
#: The faster of the two.
DEFAULT_PLACEMENT = "colocated"

#: PATH of a program whose environment names none, as Debian's root has it.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Directories whose host contents a sandbox does not show, because it has file systems of its own there.
HIDDEN_DIRECTORIES = ("/dev", "/proc", "/sys", "/tmp")  # noqa: S108  # a path in the sandbox

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def clean_environment() -> dict[str, str]:
    """Return the environment of a program for which the caller's is not meant: small, and the same everywhere."""
    return {"PATH": DEFAULT_PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "xterm-256color"}


def default_platform() -> str:
    """Return the platform of a sandbox that names none: what the environment says, or the fastest."""
    return os.environ.get(PLATFORM_VARIABLE) or PLATFORMS[0]


def _check_path(field: str, path: str) -> None:
    if not path.startswith("/") or "\0" in path:
        raise SpecError.of(field, path, "an absolute path")


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SpecError.of(field, value, "one of " + ", ".join(choices))


def _check_environment(field: str, env: dict[str, str]) -> None:
    for key, value in env.items():
        if not key or "=" in key or "\0" in key or "\0" in value:
            raise SpecError.of(field, f"{key}={value}", "NAME=VALUE with a NAME that is not empty and no NUL byte")


@record
class BindMount(Record):
    """A host directory or file that the sandbox sees at a path of its own."""

    #: Absolute host path.
    source: str
    #: Absolute path in the sandbox.
    target: str
    #: Writes give EROFS; otherwise they change the host's files.
    read_only: bool = False

    def __post_init__(self) -> None:
        """Check both paths. SpecError when one is not absolute."""
        _check_path("mounts.source", self.source)
        _check_path("mounts.target", self.target)


@record
class SandboxSpec(Record):
    """All that a sandbox is made from. Every field has a default, so ``SandboxSpec()`` is a usable sandbox."""

    #: Identifier of the sandbox among this user's; "" lets the supervisor choose one.
    name: str = ""
    hostname: str = "greenroom"
    #: Host directory that is the read-only layer below the root's memory overlay.
    root: str = "/"
    #: How guest code is caught: one of PLATFORMS.
    platform: str = "auto"
    #: Which actors share a process: one of PLACEMENTS.
    placement: str = DEFAULT_PLACEMENT
    #: Worker processes when split.
    workers: int = 1
    mounts: tuple[BindMount, ...] = ()
    network: str = "none"
    #: What programs get that say nothing else: working directory, environment, user, soft limits by name ("nofile").
    cwd: str = "/"
    env: dict[str, str] = dataclasses.field(default_factory=clean_environment)
    user: str = "root"
    limits: dict[str, int] = dataclasses.field(default_factory=dict)
    #: Nanoseconds from the start until the sandbox is killed; 0: never.
    timeout_ns: int = 0
    #: Host file that gets the trace of all messages and host answers; "": no trace.
    trace: str = ""
    #: Host file that gets the log as JSON lines; "": warnings and errors go to standard error.
    log_json: str = ""
    #: Least level of what goes to *log_json*, one of LOG_LEVELS: "debug" has an event for every system call.
    log_level: str = "info"

    def __post_init__(self) -> None:
        """Check every field. SpecError names the field, its value and what is allowed."""
        if self.name and (len(self.name) > MAX_NAME_LENGTH or not _NAME.fullmatch(self.name)):
            allowed = f"1 to {MAX_NAME_LENGTH} letters, digits, '_', '.' or '-', the first a letter or digit"
            raise SpecError.of("name", self.name, allowed)
        if len(self.hostname) > MAX_HOSTNAME_LENGTH or not _HOSTNAME.fullmatch(self.hostname):
            raise SpecError.of("hostname", self.hostname, f"a host name of 1 to {MAX_HOSTNAME_LENGTH} characters")
        _check_choice("platform", self.platform, PLATFORMS)
        _check_choice("placement", self.placement, PLACEMENTS)
        _check_choice("network", self.network, NETWORKS)
        _check_choice("log_level", self.log_level, LOG_LEVELS)
        if not 1 <= self.workers <= MAX_WORKERS:
            raise SpecError.of("workers", self.workers, f"1 to {MAX_WORKERS}")
        if len(self.mounts) > MAX_BINDS:
            raise SpecError.of("mounts", len(self.mounts), f"at most {MAX_BINDS} bind mounts")
        if not 0 <= self.timeout_ns <= MAX_TIMEOUT_NS:
            raise SpecError.of("timeout", self.timeout_ns / 1e9, f"0 to {MAX_TIMEOUT_NS // 10**9} seconds")
        _check_path("root", self.root)
        _check_path("cwd", self.cwd)
        _check_environment("env", self.env)
        limit_numbers(self.limits)


@record
class Command(Record):
    """A program to run in a sandbox, as its specification fills it in."""

    argv: tuple[bytes, ...]
    #: The whole environment, NAME=VALUE.
    envv: tuple[bytes, ...]
    cwd: str
    #: "root", "1000" or "1000:1000".
    user: str
    #: Descriptor 0 is a terminal that becomes the controlling terminal of the program's new session.
    terminal: bool
    #: Soft limits by name.
    limits: dict[str, int]

    def __post_init__(self) -> None:
        """Check every field. SpecError names the field, its value and what is allowed."""
        if not self.argv or not self.argv[0]:
            raise SpecError.of("command", b" ".join(self.argv).decode(errors="replace"), "a program and its arguments")
        for text in (*self.argv, *self.envv):
            if b"\0" in text:
                raise SpecError.of("command", text.decode(errors="replace"), "without NUL bytes")
        _check_path("cwd", self.cwd)
        limit_numbers(self.limits)


def limit_numbers(limits: dict[str, int]) -> dict[int, int]:
    """Return soft limits by RLIMIT_* number. SpecError for a name that setrlimit(2) does not know, or a bad value."""
    numbers = {}
    for name, value in limits.items():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is None:
            known = sorted(n.removeprefix("RLIMIT_").lower() for n in dir(resource) if n.startswith("RLIMIT_"))
            raise SpecError.of("limits", name, "one of " + ", ".join(known))
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise SpecError.of(f"limits.{name}", value, "an integer from 0 to 2**63 - 1")
        numbers[number] = value
    return numbers


def parse_bind(text: str) -> BindMount:
    """Return the bind mount that ``SRC:DST[:ro]`` stands for. SpecError when it is none."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or parts[2:] not in ([], ["ro"], ["rw"]):
        raise SpecError.of("bind", text, "SRC:DST, SRC:DST:ro or SRC:DST:rw, both paths absolute")
    return BindMount(source=parts[0], target=parts[1], read_only=parts[2:] == ["ro"])


def default_cwd(mounts: tuple[BindMount, ...], cwd: str | None) -> str:
    """Return *cwd*, the caller's (None: it is gone), where a sandbox over the host's root shows it, else "/"."""
    if cwd is None:
        return "/"
    covers = [bind.target for bind in mounts if _is_below(cwd, bind.target)]
    hidden = [path for path in HIDDEN_DIRECTORIES if _is_below(cwd, path) and cwd != path]
    # The mount closest to it decides: a bind below /tmp shows again what the tmpfs on /tmp hides.
    return "/" if max(map(len, hidden), default=0) > max(map(len, covers), default=0) else cwd


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def parse_user(user: str) -> tuple[int, int, tuple[int, ...]]:
    """Return the uid, gid and groups of *user*: a name of the host's passwd file, ``UID`` or ``UID:GID``."""
    if user in ("root", "0"):
        return 0, 0, (0,)
    uid, colon, gid = user.partition(":")
    if uid.isdecimal() and (not colon or gid.isdecimal()):
        numbers = int(uid), int(gid or uid)
        if max(numbers) < 0xFFFF_FFFF:
            return *numbers, (numbers[1],)
    elif not colon:
        return _named_user(user)
    raise SpecError.of("user", user, "a user's name, UID or UID:GID")


def _named_user(user: str) -> tuple[int, int, tuple[int, ...]]:
    import pwd  # only for this rare form

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise SpecError.of("user", user, "a user's name, UID or UID:GID") from None
    return entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(user, entry.pw_gid))
