"""What the guest is told about its kernel: uname(2), /proc/version and /proc/sys/kernel say the same.

A program may compare them, and decides by the release which interfaces it tries.
"""

from __future__ import annotations

from .. import __version__

__all__ = ["DOMAIN_NAME", "HOST_NAME", "MACHINE", "RELEASE", "SYSTEM_NAME", "VERSION"]

SYSTEM_NAME = "Linux"
MACHINE = "x86_64"
#: The kernel release whose interfaces greenroom follows.
RELEASE = "6.18.0"
VERSION = f"#1 SMP PREEMPT_DYNAMIC greenroom {__version__}"
#: Until the sandbox is given others.
HOST_NAME = "greenroom"
DOMAIN_NAME = "(none)"
