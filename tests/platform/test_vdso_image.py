"""The vDSO's image and parameter page, outside of any guest: what is in them, and how they are made."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import subprocess
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from greenroom.config.identity import RELEASE
from greenroom.platform.x86_64 import clock_page
from greenroom.platform.x86_64.clock_page import PAGE_BYTES, ClockPage
from greenroom.platform.x86_64.instructions import tick_reader
from greenroom.platform.x86_64.tick_clock import SHIFT, Scale

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOURCE = Path(clock_page.__file__).parent / "vdso"
_FUNCTIONS = ("clock_gettime", "gettimeofday", "time", "clock_getres", "getcpu")
_CLOCKS = {
    "REALTIME": 0,
    "MONOTONIC": 1,
    "RAW": 4,
    "REALTIME_COARSE": 5,
    "MONOTONIC_COARSE": 6,
    "BOOTTIME": 7,
    "TAI": 11,
}
_REALTIME = {0, 5, 11}
_NS = 1_000_000_000


def _readelf(*options: str) -> str:
    command = ("readelf", "--wide", *options, str(_SOURCE / "vdso.so"))
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_committed_image_is_what_the_source_makes(tmp_path: Path) -> None:
    made = tmp_path / "vdso.so"
    subprocess.run(("make", "-s", "-f", str(_SOURCE / "Makefile"), f"IMAGE={made}"), check=True, cwd=tmp_path)
    assert made.read_bytes() == clock_page.image()


def test_symbols_are_those_of_linux() -> None:
    rows = [line.split() for line in _readelf("--dyn-syms").splitlines() if "@@" in line]
    found = {(row[4], row[7]) for row in rows if row[3] == "FUNC"}
    assert found == {
        *(("GLOBAL", f"__vdso_{name}@@LINUX_2.6") for name in _FUNCTIONS),
        *(("WEAK", f"{name}@@LINUX_2.6") for name in _FUNCTIONS),
    }


def test_dynamic_section_has_what_libraries_look_for() -> None:
    """musl and Go want the hash tables and versions; nothing is to be relocated."""
    tags = {line.split("(")[1].split(")")[0] for line in _readelf("--dynamic").splitlines() if "(" in line}
    assert tags >= {"SONAME", "HASH", "GNU_HASH", "STRTAB", "SYMTAB", "VERSYM", "VERDEF"}
    assert not tags & {"NEEDED", "RELA", "REL", "JMPREL", "TEXTREL", "INIT", "INIT_ARRAY"}


def test_segments_are_those_of_linux() -> None:
    rows = [line.split() for line in _readelf("--segments").splitlines()]
    kinds = [row[0] for row in rows if row and row[0] in ("LOAD", "DYNAMIC", "NOTE", "GNU_EH_FRAME")]
    assert kinds == ["LOAD", "DYNAMIC", "NOTE", "GNU_EH_FRAME"]


def test_note_says_the_release_that_uname_does() -> None:
    major, minor, patch = (int(part) for part in RELEASE.split("."))
    code = (major << 16 | minor << 8 | patch).to_bytes(4, "little")
    assert "Linux 0x00000004" in " ".join(_readelf("--notes").split())
    assert code.hex(" ") in _readelf("--notes")


def test_every_instruction_can_be_unwound() -> None:
    """The frames cover .text, function after function."""
    ranges = [
        tuple(int(bound, 16) for bound in line.split("pc=")[1].split(".."))
        for line in _readelf("--debug-dump=frames").splitlines()
        if "pc=" in line
    ]
    symbols = [line.split() for line in _readelf("--dyn-syms").splitlines() if "@@" in line and "FUNC" in line]
    for symbol in symbols:
        start, size = int(symbol[1], 16), int(symbol[2], 0)
        assert (start, start + size) in ranges


# -- the image at work, in this process ------------------------------------------------------------------------------


class _Mapped:
    """The vDSO's file, mapped as a guest has it."""

    def __init__(self) -> None:
        self.fd, page = clock_page.make_file(clock_page.image())
        self.page = ClockPage(page)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
        prot = mmap.PROT_READ | mmap.PROT_EXEC
        self._start = libc.mmap(None, 2 * PAGE_BYTES, prot, mmap.MAP_PRIVATE, self.fd, 0)
        rows = [line.split() for line in _readelf("--dyn-syms").splitlines() if "__vdso_" in line]
        self._symbols = {row[7].split("@")[0]: int(row[1], 16) for row in rows}
        self._libc = libc

    def close(self) -> None:
        self._libc.munmap(ctypes.c_void_p(self._start), ctypes.c_size_t(2 * PAGE_BYTES))
        os.close(self.fd)

    def call(self, name: str, *arguments: object) -> int:
        kinds = [ctypes.c_int if isinstance(a, int) else ctypes.c_void_p for a in arguments]
        function = ctypes.CFUNCTYPE(ctypes.c_long, *kinds)(self._start + PAGE_BYTES + self._symbols[f"__vdso_{name}"])
        return function(*(a if a is None or isinstance(a, int) else ctypes.addressof(a) for a in arguments))

    def gettime(self, clock: int) -> int:
        time_ = (ctypes.c_int64 * 2)()
        assert self.call("clock_gettime", clock, time_) == 0
        return time_[0] * _NS + time_[1]


@pytest.fixture
def vdso() -> Iterator[_Mapped]:
    mapped = _Mapped()
    yield mapped
    mapped.close()


def _scale(*, ns_per_tick: float = 1e-6, most_ticks: int = 1 << 62) -> Scale:
    """By default so slow that hardly any time passes in a test."""
    return Scale(
        base_ticks=tick_reader()(),
        most_ticks=most_ticks,
        multiplier=int(ns_per_tick * (1 << SHIFT)),
        base_ns=5 * _NS - 1,
        realtime_offset_ns=1000 * _NS,
    )


@pytest.mark.parametrize("name", _CLOCKS)
def test_clock_is_base_plus_scaled_ticks(name: str, vdso: _Mapped) -> None:
    vdso.page.publish(_scale())
    vdso.page.show(7 * _NS, 50 * _NS)
    expected = (1055 if _CLOCKS[name] in _REALTIME else 12) * _NS - 1
    assert expected <= vdso.gettime(_CLOCKS[name]) < expected + 1_000_000


def test_other_clocks_are_system_calls(vdso: _Mapped) -> None:
    """This process's own here."""
    vdso.page.publish(_scale())
    vdso.page.show(0, 0)
    for clock in (2, 3, -2):
        first = time.clock_gettime_ns(clock)
        assert first <= vdso.gettime(clock) <= time.clock_gettime_ns(clock)
    assert vdso.call("clock_gettime", 10, (ctypes.c_int64 * 2)()) == -errno.EINVAL
    assert vdso.call("clock_gettime", 32, (ctypes.c_int64 * 2)()) == -errno.EINVAL


def test_seconds_and_microseconds(vdso: _Mapped) -> None:
    vdso.page.publish(_scale())
    vdso.page.show(0, 123_456_789)
    moment, zone, seconds = (ctypes.c_int64 * 2)(), (ctypes.c_int64 * 1)(7), (ctypes.c_int64 * 1)()
    assert vdso.call("gettimeofday", moment, zone) == 0
    assert (moment[0], zone[0]) == (1005, 0)
    assert 123_456 <= moment[1] < 130_000
    assert vdso.call("time", seconds) == seconds[0] == 1005
    assert vdso.call("time", None) == 1005


@pytest.mark.parametrize("nanoseconds", [0, 999, 1000, 1999, 999_999_999, 999_999_000, 499_999_999])
def test_microseconds_are_rounded_down(nanoseconds: int, vdso: _Mapped) -> None:
    """The division is a multiplication."""
    vdso.page.publish(_scale(ns_per_tick=1e-16))
    vdso.page.show(0, nanoseconds + 1)
    moment = (ctypes.c_int64 * 2)()
    vdso.call("gettimeofday", moment, None)
    assert (moment[0], moment[1]) == (1005, nanoseconds // 1000)


def test_outdated_page_hidden_page_and_no_scale_mean_the_system_call(vdso: _Mapped) -> None:
    def is_the_hosts() -> bool:
        return time.monotonic_ns() <= vdso.gettime(1) <= time.monotonic_ns()

    assert is_the_hosts(), "a new page says nothing"
    vdso.page.show(0, 0)
    assert is_the_hosts(), "there is no scale"
    vdso.page.publish(_scale())
    assert not is_the_hosts()
    vdso.page.publish(_scale(most_ticks=0))
    assert is_the_hosts(), "the scale holds no more"
    vdso.page.publish(_scale())
    vdso.page.hide()
    assert is_the_hosts(), "time stands still"
    vdso.page.publish(_scale())
    assert is_the_hosts(), "it still does"
    vdso.page.show(0, 0)
    assert not is_the_hosts()
    vdso.page.withdraw()
    assert is_the_hosts(), "the page is about to change"
    vdso.page.publish(None)
    assert is_the_hosts()


def test_no_first_word_comes_twice() -> None:
    """Or a thread that was stopped in the middle of reading would believe what it has read."""
    seen: list[int] = []
    for _ in range(2):
        fd, page = clock_page.make_file(b"")
        os.close(fd)
        shown = ClockPage(page)
        for _ in range(3):
            shown.publish(_scale())
            shown.show(0, 0)
            seen.append(int.from_bytes(page[:8], "little"))
            shown.hide()
    assert len(set(seen)) == 6
    assert not [word for word in seen if word & 1]


def test_resolution(vdso: _Mapped) -> None:
    for clock in _CLOCKS.values():
        resolution = (ctypes.c_int64 * 2)()
        assert vdso.call("clock_getres", clock, resolution) == 0
        assert tuple(resolution) == (0, 4_000_000 if clock in (5, 6) else 1)
        assert vdso.call("clock_getres", clock, None) == 0
    assert vdso.call("clock_getres", 10, None) == -errno.EINVAL


def test_who_has_the_descriptor_cannot_write(vdso: _Mapped) -> None:
    with pytest.raises(PermissionError):
        os.pwrite(vdso.fd, b"\1", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(vdso.fd, PAGE_BYTES)
    with pytest.raises(PermissionError):
        os.ftruncate(vdso.fd, 0)
    with pytest.raises(PermissionError):
        fcntl.fcntl(vdso.fd, fcntl.F_ADD_SEALS, 0)


def test_page_and_python_count_alike(vdso: _Mapped) -> None:
    """Python, the page, Python: in this order, by any scale."""
    random = Random(1)  # noqa: S311  # it is to be the same each time
    ticks = tick_reader()
    vdso.page.show(0, 0)
    for _ in range(2000):
        scale = Scale(
            base_ticks=ticks() - random.getrandbits(random.randrange(1, 40)),
            most_ticks=1 << 62,
            multiplier=random.getrandbits(random.randrange(SHIFT - 16, SHIFT + 7)),
            base_ns=random.getrandbits(random.randrange(1, 62)),
            realtime_offset_ns=random.getrandbits(60),
        )
        vdso.page.publish(scale)
        before = scale.monotonic_ns(ticks())
        assert before <= vdso.gettime(1) <= scale.monotonic_ns(ticks())
        realtime = vdso.gettime(0) - scale.realtime_offset_ns
        assert before <= realtime <= scale.monotonic_ns(ticks())
