"""The machine that was measured on, in general terms: no name, no address, no paths."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["describe"]


def _processor() -> str:
    """Return maker, family and model name of the processor."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name", platform.machine())
    return f"{name}, family {fields['cpu family']}" if "cpu family" in fields else name


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def describe() -> dict[str, str | float | bool]:
    """Return what matters for figures of time."""
    return {
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text(encoding="utf-8"),
        "memory_gib": _memory_gib(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "distribution": _distribution(),
        "python": platform.python_version(),
        "root": os.geteuid() == 0,
        # How many programs wanted a CPU before the benchmark began: its figures are as good as this is near 0.
        "load": round(os.getloadavg()[0], 1),
    }
