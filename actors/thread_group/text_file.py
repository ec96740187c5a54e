"""Files of /proc and /sys: text that is made when it is read.

Linux counterpart: fs/seq_file.c.  The text is taken once, when reading starts at position 0, so that pieces of one
reading fit together.  The text of a file of one process is made by that process's ThreadGroup: the own one here,
another's by a petition to TaskSet.
"""

from __future__ import annotations

import os
from errno import EACCES, EINVAL, EIO
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ...messages.task_set import ReadProc
from . import proc_files
from .open_file import Identity, OpenFile
from .task import Petition

if TYPE_CHECKING:
    from .task import Task
    from .worker import Worker

__all__ = ["MemoryImage", "ProcessFile", "TextFile"]

_ADDRESS_MAX: Final = (1 << 63) - 1


class TextFile(OpenFile):
    """A file whose text came with its opening."""

    __slots__ = ("_position", "_text")
    kind: ClassVar[str] = "text"
    seekable: ClassVar[bool] = True
    splice_target: ClassVar[bool] = False

    def __init__(self, worker: Worker, identity: Identity, flags: int, text: bytes | None) -> None:
        super().__init__(worker, identity, flags)
        self._text = text
        self._position = 0

    def pull(self, task: Task, count: int, offset: int | None) -> Any:
        """Cut a piece out of the text."""
        if not self.readable:
            return super().pull(task, count, offset)
        start = self._position if offset is None else offset
        if start == 0 or self._text is None:
            made = self.make(task)
            if type(made) is not bytes:
                return made
            self._text = made
        assert self._text is not None
        piece = self._text[start : start + count]
        if offset is None:
            self._position += len(piece)
        return piece

    def make(self, task: Task) -> Any:
        """Return the text as of now, or the Petition that asks for it."""
        return self._text or b""

    def push(self, task: Task, data: bytes, offset: int | None) -> Any:
        """Settings of the system are accepted and have no effect, as in a container that may not change its host's."""
        return len(data) if self.writable else super().push(task, data, offset)

    def unread(self, count: int) -> None:
        """Step back."""
        self._position -= count

    def seek(self, task: Task, offset: int, whence: int) -> int:
        """SEEK_SET and SEEK_CUR; the size is not known before the end is reached. EINVAL."""
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence != os.SEEK_SET:
            raise OSError(EINVAL, "")
        if offset < 0:
            raise OSError(EINVAL, "")
        self._position = offset
        return offset

    def truncate(self, task: Task, size: int) -> int:
        """Such files have no size to set; Linux lets O_TRUNC and ftruncate pass."""
        return 0 if self.writable else super().truncate(task, size)

    def position(self) -> int:
        """Return the reading position."""
        return self._position

    def state(self) -> dict[str, Any]:
        """Add the snapshot."""
        return {**super().state(), "text": self._text}

    def load(self, state: dict[str, Any]) -> TextFile:
        """Go on reading where a saved file was; return the file."""
        self._text, self._position = state["text"], state["position"]
        return self


class ProcessFile(TextFile):
    """A file of one process: /proc/PID/<name>."""

    __slots__ = ("name", "pid")
    kind: ClassVar[str] = "process"

    def __init__(self, worker: Worker, identity: Identity, flags: int, pid: int, name: str) -> None:
        super().__init__(worker, identity, flags, None)
        self.pid = pid
        self.name = name

    def make(self, task: Task) -> Any:
        """Make it here for the own process; else petition. ESRCH when the process is gone."""
        if self.pid == task.group.pid:
            return proc_files.text_of(task.group, self.name)
        answer = task.take_answer()
        if answer is None:
            return Petition(ReadProc, {"pid": self.pid, "name": self.name})
        return answer.text

    def push(self, task: Task, data: bytes, offset: int | None) -> Any:
        """Settings of the own process."""
        if not self.writable:
            return super().push(task, data, offset)
        if self.pid != task.group.pid:
            raise OSError(EACCES, "")
        return proc_files.write_text(task.group, self.name, data)

    def state(self) -> dict[str, Any]:
        """Add whose it is."""
        return {**super().state(), "pid": self.pid, "name": self.name}


class MemoryImage(ProcessFile):
    """/proc/self/mem: the memory of the own process by address."""

    __slots__ = ()
    kind: ClassVar[str] = "mem"

    def pull(self, task: Task, count: int, offset: int | None) -> bytes:
        """Read at an address. EIO where nothing is mapped, EACCES in another process."""
        start = self._start(task, offset)
        try:
            data = task.memory.read_partial(start, count)
        except OSError:
            raise OSError(EIO, "") from None
        if offset is None:
            self._position += len(data)
        return data

    def push(self, task: Task, data: bytes, offset: int | None) -> int:
        """Write at an address. EIO."""
        start = self._start(task, offset)
        try:
            written = task.memory.write_partial(start, data)
        except OSError:
            raise OSError(EIO, "") from None
        if offset is None:
            self._position += written
        return written

    def _start(self, task: Task, offset: int | None) -> int:
        if self.pid != task.group.pid:
            raise OSError(EACCES, "")
        return self._position if offset is None else offset

    def seek(self, task: Task, offset: int, whence: int) -> int:
        """Any address is a position."""
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence != os.SEEK_SET or not 0 <= offset <= _ADDRESS_MAX:
            raise OSError(EINVAL, "")
        self._position = offset
        return offset
