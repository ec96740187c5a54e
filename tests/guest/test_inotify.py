"""inotify: programs that watch files see the same events, in the same order, as natively."""

from __future__ import annotations

from pathlib import Path

import pytest
from guest_programs import SOURCES
from oracle import Case, check_same, in_sandbox, shell

_FOLLOW = """
echo 1 >log; tail -n +1 -f log >out & sleep 0.5; echo 2 >>log
until grep -q 2 out; do sleep 0.05; done; echo 3 >>log; until grep -q 3 out; do sleep 0.05; done; cat out; kill $!
"""
_TOOL = """
mkdir w; inotifywait -m -q -r --format '%w %e %f' w >out 2>&1 & sleep 0.8
 echo a >w/f; mv w/f w/g; rm w/g; until grep -q DELETE out; do sleep 0.05; done; kill $!; cat out
"""


def test_events_equal_native(placement: str, tmp_path: Path) -> None:
    """The program prints every event of some forty operations."""
    outcome = check_same(Case(("/usr/bin/python3", str(SOURCES / "inotify_events.py"))), placement, tmp_path)
    assert outcome.stdout.count(b"\n") > 60


def test_tail_follows_a_growing_file(placement: str, tmp_path: Path) -> None:
    check_same(shell(_FOLLOW), placement, tmp_path)


def test_two_processes_watch_each_other(placement: str) -> None:
    line = 'mkdir d; (sleep 0.3; touch d/x) & python3 -c "import ctypes, os\nl = ctypes.CDLL(None)\n'
    line += "f = l.inotify_init()\nl.inotify_add_watch(f, b'd', 0x100)\nprint(os.read(f, 100)[16:17])\""
    assert in_sandbox(shell(line), placement).stdout == b"b'x'\n"


@pytest.mark.skipif(not Path("/usr/bin/inotifywait").exists(), reason="inotify-tools is not installed")
def test_inotifywait_names_the_events(placement: str, tmp_path: Path) -> None:
    check_same(shell(_TOOL), placement, tmp_path)
