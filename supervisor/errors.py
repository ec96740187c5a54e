"""The errors that users of greenroom see: a small hierarchy under :class:`GreenroomError`.

Every error crosses the control API as its class name and its text, so each can be rebuilt from its text alone; the
attributes that some have beside it are set where they are raised locally.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "CommandFailed",
    "ExecError",
    "GreenroomError",
    "NameInUse",
    "ProcessLookupFailed",
    "SandboxEnded",
    "SandboxFailed",
    "SandboxNotFound",
    "SpecError",
    "SupervisorError",
    "TimedOut",
    "error_from",
]


class GreenroomError(Exception):
    """Base of all errors that greenroom raises on purpose."""


class SpecError(GreenroomError, ValueError):
    """A value of a sandbox specification is not allowed; the text names the field, the value and what is allowed."""

    @classmethod
    def of(cls, field: str, value: object, allowed: str) -> SpecError:
        """Return the error for *value* of *field*, which should have been *allowed*."""
        return cls(f"{field}: {value!r} is not allowed; it must be {allowed}")


class SandboxNotFound(GreenroomError, LookupError):
    """There is no running sandbox of that name."""


class NameInUse(GreenroomError):
    """A running sandbox has that name already."""


class SandboxEnded(GreenroomError):
    """The sandbox has ended, so it cannot do what was asked; the text says why it ended."""


class SandboxFailed(SandboxEnded):
    """The sandbox ended over a failure of greenroom or of the host: a process of ours died or an actor stopped."""


class SupervisorError(GreenroomError):
    """The supervisor process cannot be started, has gone, or does not understand this client."""


class ExecError(GreenroomError, OSError):
    """A program cannot be executed in the sandbox; ``errno`` is what execve(2) gave."""


class ProcessLookupFailed(GreenroomError, ProcessLookupError):
    """The sandbox has no process of that id."""


class TimedOut(GreenroomError, TimeoutError):
    """The time that the caller allowed has passed."""


class CommandFailed(GreenroomError):
    """A program that was run with ``check=True`` did not exit with status 0."""

    def __init__(self, argv: tuple[str, ...], returncode: int, stdout: bytes, stderr: bytes) -> None:
        """Keep the program's arguments, status and output beside the text."""
        super().__init__(f"{argv[0] if argv else '?'} exited with status {returncode}")
        self.argv = argv
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr


class TraceError(GreenroomError):
    """A trace file is damaged, or its replay went another way than the record."""


class CheckpointError(GreenroomError):
    """A checkpoint file cannot be written, is damaged, or does not fit this machine; the text says what to do."""


_BY_NAME: dict[str, type[GreenroomError]] = {
    cls.__name__: cls
    for cls in (
        GreenroomError,
        SpecError,
        SandboxNotFound,
        NameInUse,
        SandboxEnded,
        SandboxFailed,
        SupervisorError,
        ProcessLookupFailed,
        TimedOut,
        CheckpointError,
    )
}


def error_from(kind: str, errno: int, text: str) -> Exception:
    """Return the exception that a refused request stands for: *kind* is its class name at the supervisor."""
    if kind == "ExecError":
        return ExecError(errno, text)
    if kind in _BY_NAME:
        return _BY_NAME[kind](text)
    if errno:
        return OSError(errno, text)
    return SandboxFailed(text) if kind in ("ActorFailed", "PeerLost") else GreenroomError(text)
