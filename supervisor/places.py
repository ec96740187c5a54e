"""Where the user's runtime directory may be, and the names in it that a client looks for.

It imports next to nothing: ``greenroom run`` with a running supervisor has no time for more.
"""

from __future__ import annotations

import os

__all__ = ["CONTROL_SOCKET", "DESCRIPTOR_SOCKET", "FRONT_SOCKET", "SERVICE", "candidates"]

#: Sockets in a supervisor's directory.
CONTROL_SOCKET = "control"
DESCRIPTOR_SOCKET = "descriptors"
FRONT_SOCKET = "front"
#: Symbolic link in the user's directory to that of the supervisor that serves ``greenroom run``.
SERVICE = "service"


def candidates() -> list[str]:
    """Return the paths at which the user's directory may be, the best one first."""
    shared = [f"/tmp/greenroom-{os.getuid()}"]  # noqa: S108  # its users check ownership and mode
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if session.startswith("/"):
        return [f"{session}/greenroom", *shared]
    return ["/run/greenroom", *shared] if os.getuid() == 0 else shared
