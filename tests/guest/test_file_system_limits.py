"""A file system in memory holds what its mount says and no more, whichever call writes: as natively, step by step."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from oracle import Case, check_same, in_sandbox, natively, shell

if TYPE_CHECKING:
    from pathlib import Path

#: Natively in a mount namespace of its own, so that nothing is left.
_LINE = """
mkdir m && mount -t tmpfs -o size=10M none m && cd m || exit 9
full() { grep -c 'No space'; }
dd if=/dev/zero of=a bs=1M count=6 2>/dev/null; dd if=/dev/zero of=b bs=1M count=6 2>&1 | full; stat -c '%n %s' a b
dd if=/dev/zero of=a bs=1M count=6 conv=notrunc 2>&1 | full; stat -c %s a
cp a c 2>&1 | full; stat -c '%n %s' c
rm b c; cp a d 2>&1 | full; stat -c '%n %s' d; rm d
fallocate -l 5M e 2>&1 | full; fallocate -l 3M e; stat -c %s e; rm e
i=0; while [ $i -lt 20 ]; do cat a >d; i=$((i+1)); done 2>&1 | full
rm d; cat a | head -c 3000000 >d; stat -c %s d; cmp -n 3000000 a d && echo same
rm *; for i in 1 2 3 4 5 6 7 8 9; do dd if=/dev/zero of=x bs=1M count=9 2>/dev/null; rm x; done
dd if=/dev/zero of=x bs=1M count=9 2>&1 | full; truncate -s 1G y; stat -c '%s %b' y
python3 -c "
import os
a, y = os.open('x', os.O_RDONLY), os.open('y', os.O_WRONLY)
for call in (lambda: os.sendfile(y, a, 0, 5 << 20), lambda: os.copy_file_range(a, y, 2 << 20, 0, 0), lambda: os.pwrite(y, b'x', 5 << 20)):
    try: print(call() > 0)
    except OSError as error: print(error.errno)
"
df --output=size,avail . | tail -n 1
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_every_way_to_write_stops_at_the_limit(placement: str, tmp_path: Path) -> None:
    native = natively(Case(("/usr/bin/unshare", "-m", "/bin/sh", "-c", _LINE)), tmp_path)
    if native.status == 9 or not native.stdout:
        pytest.skip("this machine lets nobody mount")
    assert in_sandbox(shell(_LINE), placement) == native


def test_size_of_a_file_that_many_processes_write(placement: str, tmp_path: Path) -> None:
    """Grants do not get lost between writers."""
    line = "for i in 1 2 3 4; do (dd if=/dev/zero bs=64k count=100 2>/dev/null >>f) & done; wait; stat -c %s f"
    check_same(shell(line), placement, tmp_path)
