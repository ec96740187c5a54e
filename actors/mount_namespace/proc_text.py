"""The text of /proc's global files.

Linux: fs/proc/{meminfo,stat,uptime,loadavg,version,cpuinfo...}.c and proc_namespace.c.  Each function takes plain data
and returns what a read shows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ...config.identity import RELEASE, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .mounts import Mount

__all__ = ["cpu_information", "escape", "memory_information", "mount_line", "statistics"]
__all__ += ["mount_information_line"]

_NANOSECONDS: Final = 1_000_000_000


def memory_information(total: int, available: int) -> bytes:
    """/proc/meminfo from bytes."""
    available = min(available, total)
    values = {
        "MemTotal": total,
        "MemFree": available,
        "MemAvailable": available,
        "Buffers": 0,
        "Cached": 0,
        "SwapCached": 0,
        "Active": total - available,
        "Inactive": 0,
        "SwapTotal": 0,
        "SwapFree": 0,
        "Dirty": 0,
        "Writeback": 0,
        "AnonPages": total - available,
        "Mapped": 0,
        "Shmem": 0,
        "Slab": 0,
        "SReclaimable": 0,
        "SUnreclaim": 0,
        "PageTables": 0,
        "CommitLimit": total,
        "Committed_AS": total - available,
        "VmallocTotal": 34359738367 << 10,
        "VmallocUsed": 0,
        "VmallocChunk": 0,
    }
    lines = [f"{name + ':':<15} {value >> 10:>8} kB\n" for name, value in values.items()]
    pages = "".join(f"HugePages_{name + ':':<7}       0\n" for name in ("Total", "Free", "Rsvd", "Surp"))
    return ("".join(lines) + pages + "Hugepagesize:       2048 kB\n").encode()


def cpu_information(host_text: bytes, count: int) -> bytes:
    """/proc/cpuinfo: the host's first *count* processors, numbered from 0."""
    blocks = [block for block in host_text.decode(errors="replace").split("\n\n") if block.strip()]
    shown = []
    for number, block in enumerate(blocks[:count]):
        values = dict.fromkeys(("processor", "core id", "apicid", "initial apicid"), number)
        values.update(dict.fromkeys(("siblings", "cpu cores"), count))
        lines = [_renumbered(line, values) for line in block.strip("\n").split("\n")]
        shown.append("\n".join(lines) + "\n\n")
    return "".join(shown).encode()


def _renumbered(line: str, values: dict[str, int]) -> str:
    """Replace the value of a "key : value" line whose key is in *values*."""
    label, colon, _ = line.partition(":")
    value = values.get(label.strip())
    return line if value is None else f"{label}{colon} {value}"


def statistics(processors: int, uptime_ns: int, now_ns: int, processes: int) -> bytes:
    """/proc/stat: all time counts as idle."""
    idle = uptime_ns // 10_000_000
    lines = [f"cpu  0 0 0 {idle * processors} 0 0 0 0 0 0"]
    lines += [f"cpu{number} 0 0 0 {idle} 0 0 0 0 0 0" for number in range(processors)]
    lines += ["intr 0", "ctxt 0", f"btime {(now_ns - uptime_ns) // _NANOSECONDS}", f"processes {processes}"]
    lines += ["procs_running 1", "procs_blocked 0", "softirq 0 0 0 0 0 0 0 0 0 0 0"]
    return ("\n".join(lines) + "\n").encode()


def uptime(uptime_ns: int, processors: int) -> bytes:
    """/proc/uptime."""
    seconds = uptime_ns / _NANOSECONDS
    return f"{seconds:.2f} {seconds * processors:.2f}\n".encode()


def load_average(processes: int, last_pid: int) -> bytes:
    """/proc/loadavg."""
    return f"0.00 0.00 0.00 1/{max(1, processes)} {last_pid}\n".encode()


def version() -> bytes:
    """/proc/version."""
    return f"Linux version {RELEASE} (greenroom@greenroom) (Python) {VERSION}\n".encode()


def escape(text: bytes) -> bytes:
    """Write white space and backslashes as octal, as /proc/mounts does."""
    return re.sub(rb"[ \t\n\\#]", lambda m: b"\\%03o" % m[0][0], text)


def mount_line(mount: Mount, path: bytes) -> bytes:
    """One line of /proc/PID/mounts."""
    options = mount.options()
    extra = mount.fs.options()
    options = options + b"," + extra if extra else options
    return b" ".join((escape(mount.source), escape(path), mount.fs.type.encode(), options, b"0 0\n"))


def mount_information_line(mount: Mount, path: bytes, root: bytes) -> bytes:
    """One line of /proc/PID/mountinfo; *root* is the mounted directory's path in its file system."""
    extra = mount.fs.options()
    return b"%d %d %d:%d %s %s %s - %s %s %s\n" % (
        mount.id,
        mount.parent.id if mount.parent is not mount else 1,
        mount.fs.dev >> 8,
        mount.fs.dev & 0xFF,
        escape(root),
        escape(path),
        mount.options(),
        mount.fs.type.encode(),
        escape(mount.source),
        b"rw," + extra if extra else b"rw",
    )


def file_systems(names: Iterable[str]) -> bytes:
    """/proc/filesystems."""
    return "".join(f"nodev\t{name}\n" for name in names).encode()
