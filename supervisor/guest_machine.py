"""The machine that a guest is shown: its mounts, CPUs, CPU features and what uname(2) says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..config.identity import DOMAIN_NAME, RELEASE, VERSION
from ..messages.mount_namespace import MountSpec

if TYPE_CHECKING:
    from ..config.spec import SandboxSpec

__all__ = ["DOMAIN_NAME", "RELEASE", "application_cores", "cpu_features", "mount_table", "version_text"]

#: Bytes of /proc/cpuinfo that surely hold the first CPU's entry.
_CPUINFO_BYTES = 16384


def version_text() -> str:
    """Return the version field of uname(2)."""
    return VERSION


def application_cores() -> int:
    """Return the number of CPUs that the guest may see: those that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_features() -> tuple[str, ...]:
    """Return the host's CPU features by the names of /proc/cpuinfo."""
    with open("/proc/cpuinfo", "rb", buffering=0) as file:
        text = file.read(_CPUINFO_BYTES)
    for line in text.splitlines():
        if line.startswith(b"flags"):
            return tuple(line.decode().partition(":")[2].split())
    return ()


def mount_table(spec: SandboxSpec) -> tuple[MountSpec, ...]:
    """Return the mounts of a new sandbox, in the order in which they are made."""
    table = [
        _mount("overlay", "/", spec.root),
        _mount("proc", "/proc"),
        _mount("sysfs", "/sys"),
        _mount("devtmpfs", "/dev"),
        _mount("devpts", "/dev/pts"),
        _mount("tmpfs", "/dev/shm"),  # noqa: S108  # a path in the sandbox
        _mount("tmpfs", "/tmp"),  # noqa: S108  # as above
    ]
    binds = [_mount("bind", bind.target, bind.source, read_only=bind.read_only) for bind in spec.mounts]
    return (*table, *binds)


def _mount(type_: str, target: str, source: str = "", *, read_only: bool = False) -> MountSpec:
    return MountSpec(type=type_, source=source, target=target, read_only=read_only, size_limit=0)
