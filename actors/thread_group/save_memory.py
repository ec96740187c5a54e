"""The pages of guest memory in a checkpoint's memory file, and back.

Linux counterpart: none; CRIU's mem.c.  Saved are the pages that a process has of its own: those of private mappings
that are in memory or swap and do not belong to a file.  A run is (address, length, offset in the memory file), page-
aligned; pages of zeros are left out, and short gaps of them become holes in the file.  A restore maps the runs
privately from the file, so it costs what the runs cost and not what the pages do, and several restores share the
pages that they do not change.

The host does not tell a page that was restored and never touched from a hole, so the restored runs are remembered
(``VmaList.restored``) and saved again from there.
"""

from __future__ import annotations

import os
from errno import ENXIO
from typing import TYPE_CHECKING, Any, Final

from .memory import MAP_NORESERVE, MAP_PRIVATE, host_prot
from .ranges import Ranges
from .vma import PAGE_SIZE, VM_DONTCOPY, VM_MAYSHARE, VM_WIPEONFORK, page_align

if TYPE_CHECKING:
    from .host import WorkerHost
    from .task import Task
    from .vma import Vma

__all__ = ["MemoryFile", "Run", "fingerprint", "load_pages", "restore_contents", "save_pages"]

#: (address, length, offset in the memory file); for the contents of a file the first is the offset in it.
Run = tuple[int, int, int]

_CHUNK_BYTES: Final = 1 << 20
_ZERO_PAGE: Final = bytes(PAGE_SIZE)
#: A gap up to this many bytes does not end a run.
_SMALL_GAP_BYTES: Final = 64 * PAGE_SIZE
_MADV_DONTFORK: Final = 10
_MADV_WIPEONFORK: Final = 18
_SEEK_DATA: Final = 3
_SEEK_HOLE: Final = 4


class MemoryFile:
    """The memory file of a checkpoint in the making."""

    def __init__(self, host: WorkerHost, fd: int) -> None:
        """Write to *fd*, which becomes ours, from its beginning."""
        self._host = host
        self._fd = fd
        self._end = 0

    def close(self) -> None:
        """Close it, at its full length."""
        self._host.truncate(self._fd, self._end)
        self._host.close(self._fd)

    def put(self, runs: list[Run], address: int, data: bytes, *, skip_zeros: bool) -> None:
        """Append pages, which begin at *address*, behind those of *runs*, and note them there."""
        if not skip_zeros:
            self._append(runs, address, data, 0)
            return
        first = -1
        for at in range(0, len(data), PAGE_SIZE):
            if data[at : at + PAGE_SIZE] == _ZERO_PAGE:
                if first >= 0:
                    self._append(runs, address + first, data[first:at], _SMALL_GAP_BYTES)
                first = -1
            elif first < 0:
                first = at
        if first >= 0:
            self._append(runs, address + first, data[first:], _SMALL_GAP_BYTES)

    def _append(self, runs: list[Run], address: int, data: bytes, most_gap: int) -> None:
        if runs:
            start, length, offset = runs[-1]
            gap = address - start - length
            if offset + length == self._end and 0 <= gap <= most_gap:
                self._end += gap
                runs[-1] = (start, length + gap + page_align(len(data)), offset)
                self._write(data)
                return
        runs.append((address, page_align(len(data)), self._end))
        self._write(data)

    def _write(self, data: bytes) -> None:
        done = 0
        while done < len(data):
            done += self._host.pwrite(self._fd, data[done:], self._end + done)
        self._end += page_align(len(data))

    def copy(self, source: int) -> tuple[int, list[Run]]:
        """Append the contents of the host file *source*; return its size and where its data lie."""
        host, runs = self._host, list[Run]()
        size, offset = host.file_status(source)[7], 0
        position = host.seek(source, 0, os.SEEK_CUR)
        while offset < size:
            try:
                start = host.seek(source, offset, _SEEK_DATA) & -PAGE_SIZE
            except OSError as error:
                if error.errno != ENXIO:
                    raise
                break
            offset = min(host.seek(source, start, _SEEK_HOLE), size)
            for at in range(start, offset, _CHUNK_BYTES):
                self.put(runs, at, host.pread(source, min(_CHUNK_BYTES, offset - at), at), skip_zeros=True)
        host.seek(source, position, os.SEEK_SET)
        return size, runs


def restore_contents(host: WorkerHost, memory_fd: int, target: int, size: int, runs: list[Run]) -> None:
    """Make the host file *target* what ``MemoryFile.copy`` saved."""
    host.truncate(target, size)
    for start, length, offset in runs:
        end = min(start + length, size)
        for at in range(start, end, _CHUNK_BYTES):
            data = host.pread(memory_fd, min(_CHUNK_BYTES, end - at), offset + at - start)
            done = 0
            while done < len(data):
                done += host.pwrite(target, data[done:], at + done)


# -- pages of processes -------------------------------------------------------------------------------------------


def save_pages(task: Task, file: MemoryFile) -> list[Run]:
    """Append the private pages of *task*'s memory to *file*."""
    runs: list[Run] = []
    own = _own_pages(task)
    for vma in task.memory.vmas:
        if vma.flags & VM_MAYSHARE:
            continue
        pages = Ranges(own.within(vma.start, vma.end))
        for start, end in task.memory.vmas.restored.within(vma.start, vma.end):
            pages.add(start, end)
        of_vma: list[Run] = []
        for start, end in pages.within(vma.start, vma.end):
            for at in range(start, end, _CHUNK_BYTES):
                data = task.memory.space.read(at, min(_CHUNK_BYTES, end - at))
                # A page of zeros over a file is not what the file has there.
                file.put(of_vma, at, data, skip_zeros=vma.file is None)
        runs += of_vma
    return runs


def _own_pages(task: Task) -> Ranges:
    """Return where the host has pages that belong to no file, looking only where it says that there are some."""
    host, host_tid = task.worker.host, task.host.host_tid
    found: list[tuple[int, int]] = []
    for start, end, sizes in host.task_mappings_kib(host_tid):
        if sizes.get("Anonymous", 0) or sizes.get("Swap", 0):
            pages = host.own_pages(host_tid, start // PAGE_SIZE, (end - start) // PAGE_SIZE)
            found += [(first * PAGE_SIZE, last * PAGE_SIZE) for first, last in pages]
    return Ranges(found)


def load_pages(task: Task, runs: list[Run], memory_fd: int) -> None:
    """Give *task*'s memory, whose mappings are there, its pages; and tell the host what advice is in force."""
    memory = task.memory
    for address, length, offset in runs:
        vma = memory.vmas.find(address)
        assert vma is not None, "a saved page lies in a mapping"
        if vma.flags & VM_WIPEONFORK:
            _write_pages(task, address, length, memory_fd, offset)
            continue
        flags = MAP_PRIVATE | MAP_NORESERVE
        task.host.mmap(address, length, host_prot(vma.flags), flags, memory_fd, offset)
        memory.vmas.restored.add(address, address + length)
    for vma in memory.vmas:
        _advise(task, vma)


def _write_pages(task: Task, address: int, length: int, memory_fd: int, offset: int) -> None:
    """The host wipes anonymous memory only, so these pages cannot be mapped from the file."""
    for at in range(0, length, _CHUNK_BYTES):
        data = task.worker.host.pread(memory_fd, min(_CHUNK_BYTES, length - at), offset + at)
        task.memory.space.write(address + at, data)


def _advise(task: Task, vma: Vma) -> None:
    for flag, advice in ((VM_DONTCOPY, _MADV_DONTFORK), (VM_WIPEONFORK, _MADV_WIPEONFORK)):
        if vma.flags & flag:
            task.host.madvise(vma.start, vma.end - vma.start, advice)


def fingerprint(host: WorkerHost, host_fd: int) -> tuple[Any, ...]:
    """Return what changes when a host file does: size and modification time."""
    status = host.file_status(host_fd)
    return status[7], status[11]
