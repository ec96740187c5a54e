"""Logging: structlog events as JSON lines, and as readable lines on standard error for people.

Every process of a sandbox writes its events as JSON lines to its report pipe (descriptor 2); the supervisor process
adds nothing to them but the place where they go: the file of ``--log-json``, and, from warnings up, standard error.
Events carry ``sandbox`` and ``process`` always, and ``actor``, ``tgid``, ``syscall`` and ``duration`` where they apply.

structlog takes long to import and most runs log nothing, so it is imported with the first event.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, BinaryIO, TextIO

__all__ = ["LogSink", "configure_child", "configure_host", "get_logger", "is_logged"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

#: What :func:`configure_child` or :func:`configure_host` chose, applied when the first event comes.
_settings: dict[str, Any] = {"level": "warning", "child": None, "applied": False, "configuration": 0}


class _LazyLogger:
    """A structlog logger that is made when it is first used, and anew after each configuration.

    A forked child must not keep the one that writes where its parent did.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger: Any = None
        self._configuration = -1

    def __getattr__(self, method: str) -> Any:
        if method in _LEVELS and not is_logged(method):
            return _ignore
        if self._configuration != _settings["configuration"]:
            self._logger = _structlog().get_logger().bind(logger=self._name)
            self._configuration = _settings["configuration"]
        return getattr(self._logger, method)


def _ignore(_event: str, **_context: object) -> None:
    """Take an event below the level."""


def get_logger(name: str) -> Any:
    """Return structlog's logger for the module *name*."""
    return _LazyLogger(name)


def is_logged(level: str) -> bool:
    """Return whether events of *level* are written, so that nothing is gathered for those that are not."""
    return _LEVELS[level] >= _LEVELS[_settings["level"]]


def configure_child(level: str, **context: str) -> None:
    """Make this process write events from *level* up to descriptor 2 as JSON lines with *context* in each."""
    _configure(level=level, child=context)


def configure_host(level: str = "warning") -> None:
    """Make this process write its own events from *level* up to standard error, for people."""
    _configure(level=level, child=None)


def _configure(**settings: Any) -> None:
    _settings.update(settings, applied=False, configuration=_settings["configuration"] + 1)


def _structlog() -> Any:
    import structlog

    if not _settings["applied"]:
        _settings["applied"] = True
        structlog.configure(
            processors=_processors(structlog, _settings["child"]),
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[_settings["level"]]),
            logger_factory=_factory(structlog, _settings["child"]),
            cache_logger_on_first_use=False,
        )
    return structlog


def _processors(structlog: Any, child: dict[str, str] | None) -> list[Any]:
    common = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if child is None:
        return [*common, structlog.dev.ConsoleRenderer(colors=sys.stderr is not None and sys.stderr.isatty())]

    def add_context(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        return {**child, **event}

    return [
        *common,
        add_context,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_json_line),
    ]


def _json_line(event: Any, **kwargs: Any) -> bytes:
    import json

    return json.dumps(event, **kwargs).encode()


def _factory(structlog: Any, child: dict[str, str] | None) -> Any:
    if child is None:
        return structlog.PrintLoggerFactory(file=sys.stderr)
    # Unbuffered and non-blocking: when the supervisor does not read, an event is dropped rather than the guest held up.
    os.set_blocking(2, False)
    return structlog.BytesLoggerFactory(file=open(2, "wb", buffering=0, closefd=False))  # for ever


class LogSink:
    """Where the supervisor process puts the events of one sandbox's processes."""

    def __init__(self, path: str = "", sandbox: str = "") -> None:
        """*path* is the file that gets every line, "" for none. OSError when it cannot be opened for appending.

        *sandbox* is added to what people see of processes that were made before their sandbox had a name.
        """
        self.sandbox = sandbox
        #: Who reads warnings and errors: None for this process's standard error.
        self.people: TextIO | None = None
        self._file: BinaryIO | None = open(path, "ab", buffering=0) if path else None  # noqa: SIM115  # see close

    def write(self, line: bytes) -> None:
        """Take one line that a process wrote to its report pipe: an event, or raw text such as a traceback."""
        event = _parse(line)
        if self._file is not None:
            self._file.write(line + b"\n" if event is not None else _json_line(_raw(line)) + b"\n")
        if _LEVELS.get(str((event or {}).get("level", "error")), 40) >= _LEVELS["warning"]:
            self._show(event or _raw(line))

    def _show(self, event: dict[str, Any]) -> None:
        people = self.people or sys.stderr
        if people is None:
            return
        event["sandbox"] = event.get("sandbox") or self.sandbox
        renderer = _structlog().dev.ConsoleRenderer(colors=people.isatty())
        with contextlib.suppress(OSError):  # nobody reads
            people.write(f"greenroom: {renderer(None, '', event)}\n")
            people.flush()

    def close(self) -> None:
        """Close the file."""
        if self.people is not None:
            self.people.close()
            self.people = None
        if self._file is not None:
            self._file.close()
            self._file = None


def _parse(line: bytes) -> dict[str, Any] | None:
    import json

    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _raw(line: bytes) -> dict[str, Any]:
    return {"event": line.decode(errors="replace"), "level": "error"}
