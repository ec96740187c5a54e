"""sysfs: the few files of /sys that programs look at.

Linux: fs/sysfs, drivers/base/cpu.c.  Processors, the loopback device, and an empty cgroup directory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from .virtual import VirtualFileSystem

if TYPE_CHECKING:
    from .file_data import DataStore
    from .host_files import HostFiles

__all__ = ["SysFs"]

_CPU: Final = b"devices/system/cpu"
_DIRECTORIES: Final = (
    b"block",
    b"bus",
    b"class/net",
    b"dev",
    b"devices/virtual/net",
    b"devices/system/node/node0",
    b"firmware",
    b"fs/cgroup",
    b"kernel/debug",
    b"kernel/mm",
    b"module",
    b"power",
)
_LOOPBACK: Final = {
    "address": "00:00:00:00:00:00",
    "addr_len": "6",
    "carrier": "1",
    "flags": "0x9",
    "ifindex": "1",
    "iflink": "1",
    "mtu": "65536",
    "operstate": "unknown",
    "tx_queue_len": "1000",
    "type": "772",
}


class SysFs(VirtualFileSystem):
    """/sys."""

    type: ClassVar[str] = "sysfs"
    magic: ClassVar[int] = 0x62656572

    def __init__(self, host: HostFiles, store: DataStore, dev: int) -> None:
        super().__init__(host, store, dev)
        self._processors = len(host.processors())

    def add_files(self) -> None:
        """Make all files."""
        for path in _DIRECTORIES:
            self.add_directory(path, 0o755)
        self._add_processors(self._processors)
        for name, text in _LOOPBACK.items():
            self.add_text(b"devices/virtual/net/lo/" + name.encode(), text)
        self.add_link(b"class/net/lo", b"../../devices/virtual/net/lo")
        self.add_text(b"kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
        self.add_text(b"kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152")

    def _add_processors(self, count: int) -> None:
        span = f"0-{count - 1}" if count > 1 else "0"
        for name in (b"online", b"possible", b"present"):
            self.add_text(_CPU + b"/" + name, span)
        self.add_text(_CPU + b"/offline", "")
        self.add_text(_CPU + b"/isolated", "")
        self.add_text(_CPU + b"/kernel_max", "8191")
        for number in range(count):
            topology = _CPU + b"/cpu%d/topology" % number
            self.add_text(topology + b"/core_id", str(number))
            self.add_text(topology + b"/physical_package_id", "0")
            self.add_text(topology + b"/thread_siblings_list", str(number))
            self.add_text(topology + b"/core_siblings_list", span)
            self.add_text(topology + b"/thread_siblings", _mask(1 << number))
            self.add_text(topology + b"/core_siblings", _mask((1 << count) - 1))
        self.add_text(b"devices/system/node/online", "0")
        self.add_text(b"devices/system/node/possible", "0")
        self.add_text(b"devices/system/node/node0/cpulist", span)
        self.add_text(b"devices/system/node/node0/cpumap", _mask((1 << count) - 1))


def _mask(cpus: int) -> str:
    """Return a CPU mask as bitmaps are printed: groups of 32 bits in hex, the highest first."""
    groups = [f"{cpus >> 32 * index & 0xFFFFFFFF:08x}" for index in range(max(1, (cpus.bit_length() + 31) // 32))]
    return ",".join(reversed(groups)).lstrip("0") or "0"
