"""FIFOs and pseudo-terminals by name: opening waits for the other end as natively, whoever comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from oracle import check_same, shell

if TYPE_CHECKING:
    from pathlib import Path

_PYTHON = """python3 -c "
import errno, os
os.mkfifo('q')
try: os.open('q', os.O_WRONLY | os.O_NONBLOCK)
except OSError as e: print(e.errno == errno.ENXIO)
r = os.open('q', os.O_RDONLY | os.O_NONBLOCK); print(os.read(r, 9))
w = os.open('q', os.O_WRONLY | os.O_NONBLOCK)
try: os.read(r, 9)
except BlockingIOError: print('nothing yet')
os.write(w, b'abc'); os.close(w); print(os.read(r, 9), os.read(r, 9))
"
"""
_LINES = {
    "reader-first": "mkfifo p; cat p & sleep 0.2; echo x >p; wait",
    "writer-first": "mkfifo p; echo x >p & sleep 0.2; cat p; wait",
    "several-writers": "mkfifo p; (for i in 1 2 3; do (echo $i >p) & done; wait) & sleep 0.2; cat p | wc -c; wait",
    "process-substitution": "bash -c 'cat <(echo hi) <(echo there); echo out > >(cat); wait'",
    "both-ways": "mkfifo p; exec 3<>p; echo x >&3; read a <p; echo $a",
    "not-blocking": _PYTHON,
    "script": "script -q -c 'tty | cut -c 1-9; echo hi' /dev/null </dev/null",
    "pty": "python3 -c \"import pty; pty.spawn(['/bin/echo', 'x'])\" </dev/null",
}


@pytest.mark.parametrize("line", _LINES.values(), ids=_LINES.keys())
def test_line_equals_native(line: str, placement: str, tmp_path: Path) -> None:
    check_same(shell(line), placement, tmp_path)
