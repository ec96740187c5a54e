"""greenroom run by an ordinary user: what the host refuses, the guest's root is refused too, and nothing more."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sides import Guest, needs_root, spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def as_nobody(check: Callable[[], Any]) -> None:
    """Run *check* in a child without privileges."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            check()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


@needs_root
def test_host_permissions_hold_for_the_guest(tmp_path: Path) -> None:
    """Unreadable files answer EACCES at open, unreadable directories at look-up; all else works, chown too."""
    lower = tmp_path / "lower"
    (lower / "closed").mkdir(parents=True)
    (lower / "closed" / "f").write_bytes(b"x")
    (lower / "closed").chmod(0o700)
    (lower / "secret").write_bytes(b"x")
    (lower / "secret").chmod(0o600)
    (lower / "open").write_bytes(b"x")
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and directory.stat().st_mode & 0o005 != 0o005 and "pytest" in str(directory):
            directory.chmod(0o755)

    def check() -> None:
        guest = Guest(spec("overlay", "/", str(lower)))
        assert guest.stat(b"/secret")[0] & 0o777 == 0o600
        assert guest.run(("read", b"/secret")) == "EACCES"
        assert guest.run(("write", b"/secret", b"y")) == "EACCES"
        assert guest.run(("write", b"/secret", b"y", os.O_WRONLY | os.O_TRUNC)) == 1
        assert guest.run(("stat", b"/closed/f")) == "EACCES"
        assert guest.run(("read", b"/open")) == b"x"
        assert guest.run(("chown", b"/open", 5, 6)) == guest.stat(b"/open")[0]
        guest.tree.check()

    as_nobody(check)
