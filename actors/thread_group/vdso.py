"""The vDSO as guests have it: which files [vvar] and [vdso] show, and where execve puts them.

Linux counterpart: arch/x86/entry/vdso/vma.c.  A worker has one host file with the parameter page and the image, which
``WorkerHost`` fills; every process maps both by one host call.  The page is never writable; the image is private and
may become so, for debuggers.  A process that was saved with another image keeps that, since a thread may be in the
middle of it, before a page that always says "use the system call".

Differences from Linux: [vvar] is one page, and there is no [vvar_vclock]; getcpu is always a system call, because the
CPU that a thread runs on is the host's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from .vma import (
    PAGE_SIZE,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_EXEC,
    VM_IO,
    VM_MAYACCESS,
    VM_MAYREAD,
    VM_PFNMAP,
    VM_READ,
    Vma,
    page_align,
)

if TYPE_CHECKING:
    from .host import WorkerHost
    from .task import Task

__all__ = ["Vdso", "VdsoPart", "Vdsos"]

_PAGE_FLAGS: Final = VM_READ | VM_MAYREAD | VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP
_CODE_FLAGS: Final = VM_READ | VM_EXEC | VM_MAYACCESS | VM_DONTEXPAND


class VdsoPart:
    """What [vvar] or [vdso] shows: a part of the worker's file, which lives as long as the worker."""

    __slots__ = ("dev", "flags", "host_fd", "ino", "path", "vdso")

    def __init__(self, vdso: Vdso, host_fd: int, path: bytes) -> None:
        self.vdso = vdso
        self.host_fd = host_fd
        self.flags = os.O_RDONLY
        self.path = path
        #: In /proc/PID/maps it looks like no file.
        self.dev = self.ino = 0

    def hold(self) -> Any:
        """It is not counted."""

    def release(self) -> None:
        """It is not counted."""


class Vdso:
    """An image with a parameter page."""

    def __init__(self, host_fd: int, image: bytes) -> None:
        self.image = image
        self.page = VdsoPart(self, host_fd, b"[vvar]")
        self.code = VdsoPart(self, host_fd, b"[vdso]")

    def map(self, task: Task) -> int:
        """Map both into *task*'s memory (map_vdso); return where the image is. ENOMEM."""
        length = page_align(len(self.image))
        start = task.memory.find_gap(PAGE_SIZE + length)
        code = start + PAGE_SIZE
        parts = (
            Vma(start, code, _PAGE_FLAGS, self.page),
            Vma(code, code + length, _CODE_FLAGS, self.code, PAGE_SIZE),
        )
        task.memory.map_special(task, parts)
        return code


class Vdsos:
    """The worker's own vDSO, which new programs get, and those that restored programs still have."""

    def __init__(self, host: WorkerHost) -> None:
        self._host = host
        self.own = Vdso(*host.make_vdso())
        self._by_image = {self.own.image: self.own}

    def with_image(self, image: bytes) -> Vdso:
        """Return the vDSO with that very image."""
        if image not in self._by_image:
            self._by_image[image] = Vdso(self._host.make_static_vdso(image), image)
        return self._by_image[image]
