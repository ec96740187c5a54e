"""A path that was walked before is walked again after whatever may change where it ends."""

from __future__ import annotations

from errno import EACCES, ENOENT
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sides import Guest


@pytest.fixture
def known(guest: Guest) -> Guest:
    """A tree in which /d/f and, by the link /l, /l/f were looked up, by root and by a user."""
    guest.run_all([("mkdir", b"/d", 0o755), ("mkdir", b"/e", 0o755), ("write", b"/d/f", b"one")])
    guest.run_all([("write", b"/e/f", b"three"), ("symlink", b"d", b"/l")])
    for uid in (1000, 0):
        guest.become(uid)
        assert {guest.status(path).size for path in (b"/d/f", b"/l/f", b"/d/../d/f")} == {3}
    return guest


def _errno(guest: Guest, path: bytes) -> int:
    try:
        guest.status(path)
    except OSError as error:
        return error.errno or -1
    return 0


def test_unlinked_name_is_gone(known: Guest) -> None:
    known.unlink(b"/d/f")
    assert (_errno(known, b"/d/f"), _errno(known, b"/l/f")) == (ENOENT, ENOENT)


def test_name_made_anew_is_another_file(known: Guest) -> None:
    known.run_all([("unlink", b"/d/f"), ("write", b"/d/f", b"another")])
    assert known.status(b"/l/f").size == 7


def test_renamed_directory_takes_its_paths_along(known: Guest) -> None:
    known.rename(b"/d", b"/new")
    assert (_errno(known, b"/d/f"), known.status(b"/new/f").size) == (ENOENT, 3)


def test_file_that_was_renamed_over_is_not_found(known: Guest) -> None:
    known.rename(b"/e/f", b"/d/f")
    assert known.status(b"/d/f").size == 5


def test_link_that_leads_elsewhere_is_followed_there(known: Guest) -> None:
    known.run_all([("unlink", b"/l"), ("symlink", b"e", b"/l")])
    assert known.status(b"/l/f").size == 5


def test_directory_that_was_closed_to_a_user_is_closed(known: Guest) -> None:
    """Also by a path that the request itself has walked: "/d/." needs to search /d."""
    known.chmod(b"/d/.", 0o700)
    known.become(1000)
    assert [_errno(known, path) for path in (b"/d/f", b"/l/f", b"/d/.")] == [EACCES] * 3


def test_mount_covers_and_uncovers(known: Guest) -> None:
    known.mount(b"none", b"/d", "tmpfs")
    assert _errno(known, b"/d/f") == ENOENT
    known.unmount(b"/d")
    assert known.status(b"/d/f").size == 3


def test_what_a_bind_shows_is_never_known(known: Guest) -> None:
    """The host changes it without a request."""
    ends = {path for _, _, path, *_ in known.tree.places}
    in_memory = known.tree.root_place()[0].fs.in_memory
    assert (b"/d/f" in ends) == in_memory
