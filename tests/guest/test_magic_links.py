"""Paths through /proc/PID/{cwd,root,exe,fd/N}: each request follows them as Linux does, in the middle and at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from oracle import check_same, replacing, shell

if TYPE_CHECKING:
    from pathlib import Path

_HERE = "/proc/self/cwd"

_LINES = {
    "mkdir": f"mkdir {_HERE}/d; ls -d d; mkdir {_HERE}; mkdir {_HERE}/d/; rmdir {_HERE}/d; ls",
    "mknod": f"mkfifo {_HERE}/p; test -p p; echo $?",
    "rename": f"touch f; mv {_HERE}/f {_HERE}/g; mv g {_HERE}/h; mv {_HERE}/h i; ls",
    "link": f"echo x >f; ln {_HERE}/f g; ln f {_HERE}/h; ln {_HERE}/f {_HERE}/i; stat -c %h f; ls",
    "symlink": f"ln -s t {_HERE}/l; readlink l; readlink {_HERE}/l",
    "unlink": f"touch f; rm {_HERE}/f; ls -A; rm {_HERE}/f",
    "attributes": f"touch f; chmod 640 {_HERE}/f; truncate -s 7 {_HERE}/f; touch -d @5 {_HERE}/f; stat -c '%a %s %Y' f",
    "end-of-path": "echo hello >f; exec 3<>f; truncate -s 2 /proc/self/fd/3; chmod 600 /proc/$$/fd/3; "
    "stat -c '%a %s' f",
    "access": f"touch f; test -w {_HERE}/f; echo $?; test -e {_HERE}/g; echo $?",
    "chdir": "mkdir d; cd d; touch x; cd /proc/self/root/bin/..; test -e bin && echo root; cd /proc/self/fd/0/x",
    "statfs": f"touch f; stat -f -c %l {_HERE}/f {_HERE} /proc/self/root/proc",
    "xattr": f"touch f; python3 -c \"import os; os.setxattr('{_HERE}/f', 'user.a', b'1'); print(os.listxattr('f'))\"",
    "through-a-file": "touch f; exec 3<f; cat /proc/self/fd/3/x; mkdir /proc/self/fd/3/x; ls /proc/self/fd/9/x",
    "through-a-pipe": "echo | sh -c 'mkdir /proc/self/fd/0/x; rm /proc/self/fd/0/x; cat /proc/self/fd/0/x'",
    "list": "ls -d /proc/self/root/etc/passwd; ls /proc/self/cwd; ls -d /proc/self/root/",
    "stat-exe": "stat -L -c '%F' /proc/self/exe; cmp /proc/self/exe /usr/bin/cmp && echo same",
    "stdin": "echo hi | cat /proc/self/fd/0; echo there | cat /dev/stdin /dev/fd/0",
    "another-process": "mkdir d; echo x >d/f; cd d; sleep 9 & cd ..; "
    "cat /proc/$!/cwd/f; touch /proc/$!/cwd/g; ls d; kill $!",
    "another-process-links": "sleep 9 & until readlink /proc/$!/exe | grep -q sleep; do :; done; "
    "ls /proc/$!/fd | head -n 3; readlink /proc/$!/root /proc/$!/fd/0; test /proc/$!/cwd -ef . && echo here; kill $!",
    "another-process-pipe": "echo text | sleep 9 & sleep 0.3; cat /proc/$!/fd/0; kill $!",
    "process-that-is-gone": "true & wait; ls /proc/$!/cwd/; cat /proc/$!/fd/0",
}


@pytest.mark.parametrize("line", _LINES.values(), ids=_LINES.keys())
def test_line_equals_native(line: str, placement: str, tmp_path: Path) -> None:
    """Process ids differ."""
    check_same(shell(line, normalise=replacing((rb"/proc/\d+", b"/proc/N"))), placement, tmp_path)
