"""The report pipe of one process: its log events, line by line, and the reason when it fails."""

from __future__ import annotations

import json
import os
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..actors.runtime.loop import Loop
    from ..config.logging import LogSink

__all__ = ["ReportPipe"]

#: Bytes of one line; a longer one is cut.
_MAX_LINE_BYTES = 1 << 20
_READ_BYTES = 1 << 16


class ReportPipe:
    """The supervisor's end of a process's descriptor 2."""

    def __init__(self, loop: Loop, sink: LogSink) -> None:
        """Make the pipe and read it on *loop*; lines go to *sink*."""
        self._loop = loop
        self._sink = sink
        self._fd, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)
        self._rest = b""
        #: Why the process failed, once it has said so.
        self.failure = ""
        loop.watch(self._fd, select.EPOLLIN, lambda _mask: self.drain())

    def close_write_end(self) -> None:
        """Let go of the child's end, which the child has now."""
        os.close(self.write_end)
        self.write_end = -1

    def drain(self) -> None:
        """Take all that has been written so far."""
        while self._fd >= 0:
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._loop.unwatch(self._fd)
                return
            self._split(data)

    def _split(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[:_MAX_LINE_BYTES]
        for line in lines:
            if line:
                self._note_failure(line)
                self._sink.write(line)

    def _note_failure(self, line: bytes) -> None:
        if b'"fatal": true' not in line:
            return
        try:
            event = json.loads(line)
        except ValueError:
            return
        actor, reason = event.get("actor"), str(event.get("reason", ""))
        self.failure = f"{actor}: {reason}" if actor else reason

    def close(self) -> None:
        """Read the rest and close. Idempotent."""
        if self._fd < 0:
            return
        self.drain()
        if self._rest:
            self._split(b"\n")
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1
        if self.write_end >= 0:
            self.close_write_end()
