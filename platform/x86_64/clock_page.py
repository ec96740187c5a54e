"""The vDSO that guests get, and the parameter page before it: a host file of two pages that tracees map.

Linux counterpart: arch/x86/entry/vdso/vma.c, and vdso_update_begin and vdso_update_end (include/vdso/helpers.h).  The
page's layout is that of vdso/vdso.S.  The file is sealed: nobody who gets its descriptor can write to it; we can, by
the mapping that we made before.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .tick_clock import Scale

__all__ = ["PAGE_BYTES", "ClockPage", "image", "make_file"]

#: The parameter page, and where the image begins in the file.
PAGE_BYTES: Final = 4096
_IMAGE: Final = os.path.join(os.path.dirname(__file__), "vdso", "vdso.so")
_CLOCKS: Final = 12
#: CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_TAI, which greenroom keeps at UTC.
_REALTIME_CLOCKS: Final = (0, 5, 11)
#: CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME.
_MONOTONIC_CLOCKS: Final = (1, 4, 6, 7)
_NS_PER_S: Final = 1_000_000_000
#: F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE.
_SEALS: Final = 0x1 | 0x2 | 0x4 | 0x10
_WORD: Final = (1 << 64) - 1


class _Base(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


class _Page(ctypes.Structure):
    """Aligned words, each of which ctypes stores in one instruction, in the order in which we write them."""

    _fields_ = (
        ("sequence", ctypes.c_uint64),
        ("base_ticks", ctypes.c_uint64),
        ("most_ticks", ctypes.c_uint64),
        ("multiplier", ctypes.c_uint64),
        ("bases", _Base * _CLOCKS),
    )


def image() -> bytes:
    """Return the vDSO of this greenroom, an ELF shared object."""
    with open(_IMAGE, "rb") as file:
        return file.read()


def make_file(code: bytes) -> tuple[int, mmap.mmap]:
    """Return the descriptor of a file with a parameter page and *code*, and the page: "use the system call"."""
    fd = os.memfd_create("vdso", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, PAGE_BYTES + -(-len(code) // PAGE_BYTES) * PAGE_BYTES)
        os.pwrite(fd, b"\1", 0)
        os.pwrite(fd, code, PAGE_BYTES)
        page = mmap.mmap(fd, PAGE_BYTES)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd, page


class ClockPage:
    """A parameter page, and what the guest's clocks are ahead of the host's."""

    def __init__(self, page: mmap.mmap) -> None:
        self._page = _Page.from_buffer(page)
        #: What a thread that was saved between reading the page and looking again compares is of another page: no two
        #: begin alike.
        self._sequence = time.time_ns() & ~1
        self._monotonic_offset_ns = self._realtime_offset_ns = 0
        self._running = False
        self._scale: Scale | None = None

    def show(self, monotonic_offset_ns: int, realtime_offset_ns: int) -> None:
        """Let the guest's clocks be the host's plus these."""
        self.withdraw()
        self._monotonic_offset_ns, self._realtime_offset_ns = monotonic_offset_ns, realtime_offset_ns
        self._running = True
        self.publish(self._scale)

    def hide(self) -> None:
        """The guest's clocks stand still: it is to ask us."""
        self.withdraw()
        self._running = False

    def withdraw(self) -> None:
        """From now on guests make the system call."""
        self._page.sequence = (self._sequence | 1) & _WORD

    def publish(self, scale: Scale | None) -> None:
        """From now on guests count ticks by *scale*, if there is one and time does not stand still."""
        self._scale = scale
        if scale is None or not self._running:
            return
        page = self._page
        page.base_ticks, page.most_ticks, page.multiplier = scale.base_ticks, scale.most_ticks, scale.multiplier
        monotonic_ns = scale.base_ns + self._monotonic_offset_ns
        realtime_ns = scale.base_ns + scale.realtime_offset_ns + self._realtime_offset_ns
        for clocks, base_ns in ((_MONOTONIC_CLOCKS, monotonic_ns), (_REALTIME_CLOCKS, realtime_ns)):
            for clock in clocks:
                page.bases[clock].seconds, page.bases[clock].nanoseconds = divmod(base_ns, _NS_PER_S)
        self._sequence += 2
        page.sequence = self._sequence & _WORD
