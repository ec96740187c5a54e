"""Real programs do in a sandbox what they do natively: busybox, Python, git, gcc, perl, sqlite3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from oracle import Case, check_same, replacing, shell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_BUSYBOX = {
    "echo": "busybox echo static",
    "sh": "busybox sh -c 'echo $((6 * 7)); for i in 1 2; do echo $i; done | wc -l; exit 5'",
    "ls": "touch a b; busybox ls; busybox ls -l a | cut -c 1-10",
    "text": "seq 30 | busybox sort -rn | busybox head -n 3 | busybox sed s/2/X/ | busybox awk '{ print $1 * 2 \"x\" }'",
    "find": "mkdir -p a/b; touch a/b/c; busybox find a | busybox sort",
    "tar": "mkdir d; echo x >d/f; busybox tar cf t d; rm -r d; busybox tar xf t; cat d/f",
    "gzip": "seq 1000 | busybox gzip | busybox gunzip | busybox md5sum",
    "vi": "echo abc >f; busybox grep -c b f; busybox cmp f f; busybox diff f /dev/null | busybox wc -l",
    "xargs": "seq 5 | busybox xargs -n 2 busybox echo",
    "ash-jobs": "busybox sh -c 'sleep 0.1 & wait; echo $?; trap \"echo t\" TERM; kill -TERM $$; echo end'",
    "date": "busybox date -u -d @0; busybox id -u root; busybox uname -s",
    "dd": "busybox dd if=/dev/zero bs=1k count=5 2>/dev/null | busybox wc -c; busybox stat -c %s /bin/busybox",
}

_PYTHON = {
    "print": "print(6 * 7)",
    "exit": "import sys; sys.exit(9)",
    "traceback": "1 / 0",
    "stdin": "import sys; print(len(sys.stdin.read()), sys.argv, sys.flags.utf8_mode)",
    "json": "import json; print(json.dumps({'a': [1, 2.5, None, 'ä']}, sort_keys=True), json.loads('[1]'))",
    "hashlib": "import hashlib; print(hashlib.sha256(b'x' * 10**6).hexdigest(), hashlib.blake2b(b'').hexdigest()[:8])",
    "sqlite3": "import sqlite3; c = sqlite3.connect('db'); c.execute('create table t (a integer primary key, b)'); "
    "c.executemany('insert into t (b) values (?)', [(i * i,) for i in range(1000)]); c.commit(); c.close(); "
    "c = sqlite3.connect('db'); print(c.execute('select sum(b), count(*) from t').fetchall())",
    "sqlite3-wal": "import sqlite3; c = sqlite3.connect('db'); print(c.execute('pragma journal_mode=wal').fetchall()); "
    "c.execute('create table t (a)'); c.execute('insert into t values (1)'); c.commit(); "
    "d = sqlite3.connect('db'); print(d.execute('select * from t').fetchall())",
    "subprocess": "import subprocess as s; print(s.run(['sh', '-c', 'cat; echo err >&2; exit 3'], input=b'in', capture_output=True)); "
    "print(s.check_output('echo $0 | tr s S', shell=True)); p = s.Popen(['sleep', '100']); p.terminate(); print(p.wait()); "
    "print(s.run(['true'], close_fds=False).returncode)",
    "subprocess-missing": "import subprocess as s\ntry: s.run(['nothing'])\nexcept OSError as e: print(repr(e))",
    "subprocess-timeout": "import subprocess as s\ntry: s.run(['sleep', '100'], timeout=0.2)\nexcept s.TimeoutExpired as e: print(e.cmd)",
    "threading": "import threading as t; l = t.Lock(); n = [0]\ndef f():\n for _ in range(1000):\n  with l: n[0] += 1\n"
    "ts = [t.Thread(target=f) for _ in range(8)]; [x.start() for x in ts]; [x.join() for x in ts]; print(n)",
    "thread-pool": "from concurrent.futures import ThreadPoolExecutor as P\nwith P(4) as p: print(list(p.map(lambda x: x * x, range(20))))",
    "queue": "import queue, threading as t; q = queue.Queue(2); r = []\n"
    "def f():\n while (x := q.get()) is not None: r.append(x)\nh = t.Thread(target=f); h.start(); [q.put(i) for i in range(100)]; "
    "q.put(None); h.join(); print(sum(r))",
    "multiprocessing": "import multiprocessing as m\ndef f(x): return x * x\n"
    "if __name__ == '__main__':\n with m.Pool(3) as p: print(p.map(f, range(10)))\n q = m.Queue(); "
    "p = m.Process(target=q.put, args=('hi',)); p.start(); print(q.get()); p.join(); print(p.exitcode)",
    "shared-memory": "from multiprocessing import shared_memory as s, Process\n"
    "def f(n):\n x = s.SharedMemory(n); x.buf[0] = 42; x.close()\n"
    "m = s.SharedMemory(create=True, size=10); p = Process(target=f, args=(m.name,)); p.start(); p.join(); "
    "print(m.buf[0]); m.close(); m.unlink()",
    "tempfile": "import tempfile, os\nwith tempfile.TemporaryDirectory() as d:\n f = os.path.join(d, 'f'); open(f, 'w').write('x'); "
    "print(os.listdir(d))\nprint(os.path.exists(d))\nwith tempfile.TemporaryFile() as t: t.write(b'abc'); t.seek(1); print(t.read())\n"
    "print(os.stat(tempfile.NamedTemporaryFile().name if 0 else '/').st_nlink > 1)",
    "asyncio": "import asyncio\nasync def main():\n p = await asyncio.create_subprocess_exec('echo', 'x', stdout=-1); "
    "print(await p.communicate(), p.returncode); print(await asyncio.gather(*(asyncio.sleep(0.01, i) for i in range(5))))\n"
    "asyncio.run(main())",
    "socketpair": "import socket; a, b = socket.socketpair(); a.sendall(b'hi'); print(b.recv(9)); a.close(); print(b.recv(9))",
    "signal": "import signal, os; signal.signal(signal.SIGUSR1, lambda s, f: print('got', s)); os.kill(os.getpid(), 10); "
    "signal.setitimer(0, 0.05); signal.signal(14, lambda *a: print('alarm')); signal.pause()",
    "fork": "import os; r, w = os.pipe(); p = os.fork()\nif p == 0: os.write(w, b'child'); os._exit(7)\n"
    "print(os.read(r, 9), os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]))",
    "mmap": "import mmap, os; m = mmap.mmap(-1, 8192); p = os.fork()\nif p == 0: m[:5] = b'hello'; os._exit(0)\n"
    "os.waitpid(p, 0); print(m[:5]); f = open('f', 'w+b'); f.truncate(5000); n = mmap.mmap(f.fileno(), 0); n[4999:] = b'z'; "
    "n.flush(); print(open('f', 'rb').read()[-2:])",
    "select": "import select, os; r, w = os.pipe(); print(select.select([r], [w], [], 0)[0]); e = select.epoll(); e.register(r, 1); "
    "print(e.poll(0.01)); os.write(w, b'x'); print(len(e.poll()), select.poll() is not None)",
    "pathlib": "import pathlib as p; d = p.Path('a/b'); d.mkdir(parents=True); (d / 'f').write_text('x'); "
    "print(sorted(map(str, p.Path().rglob('*')))); (d / 'f').rename('g'); print(p.Path('g').read_text()); d.rmdir()",
    "shutil": "import shutil, os; os.makedirs('a/b'); open('a/b/f', 'w').write('x'); shutil.copytree('a', 'c'); "
    "shutil.make_archive('z', 'zip', 'a'); shutil.rmtree('a'); print(sorted(os.listdir())); shutil.move('c', 'd'); "
    "print(os.path.isfile('d/b/f')); shutil.disk_usage('/')",
    "zipfile": "import zipfile as z, io; b = io.BytesIO(); f = z.ZipFile(b, 'w', z.ZIP_DEFLATED); f.writestr('n', 'x' * 9999); f.close(); "
    "print(len(z.ZipFile(b).read('n')))",
    "locale-and-time": "import time, locale; print(time.strftime('%F %Z', time.gmtime(0)), time.tzname, locale.getpreferredencoding())",
    "getpass": "import getpass, pwd, grp, os; print(pwd.getpwuid(0).pw_name, grp.getgrgid(0).gr_name, os.cpu_count(), len(os.urandom(9)))",
    "ctypes": "import ctypes; c = ctypes.CDLL(None); print(c.abs(-5), c.strlen(b'abc'))",
    "decimal-and-fractions": "from decimal import *; from fractions import *; print(Decimal(1) / 7, Fraction(1, 3) + 1, 2.0**0.5)",
    "deep-recursion": "import sys; sys.setrecursionlimit(30000); f = lambda n: 0 if n == 0 else 1 + f(n - 1); print(f(9000))",
    "big-memory": "b = bytearray(200 << 20); b[::4096] = b'x' * len(b[::4096]); print(b.count(b'x')); del b",
    "importtime": "import http.server, email, xml.dom.minidom, unittest, logging, argparse, ssl; print('imported')",
}


@pytest.mark.parametrize("line", _BUSYBOX.values(), ids=_BUSYBOX.keys())
def test_busybox_equals_native(line: str, placement: str, tmp_path: Path) -> None:
    check_same(shell(line), placement, tmp_path)


@pytest.mark.parametrize("text", _PYTHON.values(), ids=_PYTHON.keys())
def test_python_equals_native(text: str, placement: str, tmp_path: Path) -> None:
    check_same(Case(("/usr/bin/python3", "-c", text), stdin=b"some input"), placement, tmp_path)


def test_large_files_are_mapped_where_we_say(placement: str, tmp_path: Path) -> None:
    """A host that may use huge pages likes to align them, from the second time on when the mapping is left to it."""
    text = """
import mmap, os
file = os.open("/usr/bin/python3", os.O_RDONLY)
for _ in range(4):
    memory = mmap.mmap(file, 5 << 20, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    print(os.preadv(file, [memory], 4096))
"""
    check_same(Case(("/usr/bin/python3", "-c", text)), placement, tmp_path)


def test_python_script_equals_native(placement: str, tmp_path: Path) -> None:
    """Byte code is written beside the modules and used the second time."""
    line = "echo 'x = 5' >m.py; echo 'import m; print(m.x)' >s.py; python3 s.py; ls __pycache__ | wc -l; python3 -X importtime s.py 2>&1 | grep -c m$"
    check_same(shell(line), placement, tmp_path)


def test_venv_without_pip_equals_native(placement: str, tmp_path: Path) -> None:
    line = "python3 -m venv --without-pip v && v/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)' && ls v v/bin"
    check_same(shell(line), placement, tmp_path)


def test_git_equals_native(placement: str, tmp_path: Path) -> None:
    """Commit ids depend on names, times and contents only, so they are equal too."""
    line = (
        "git init -q -b main r && cd r && echo one >f && git add f && git commit -q -m first && echo two >>f && git status -s &&"
        "git commit -qam second && git log --oneline --stat && git checkout -q -b side HEAD~1 && echo x >g && git add g &&"
        "git commit -qm third && git merge -q main -m merged && git log --graph --format=%H && git diff HEAD~1 --stat &&"
        "git gc -q && git fsck && git clone -q . ../c && ls -A ../c && git stash list && git tag v1 && git describe"
    )
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in _SOMEBODY.items()}
    env = (("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1"), *who.items())
    check_same(Case(("/bin/sh", "-c", line), env=env), placement, tmp_path)


_SOMEBODY = {"NAME": "A U Thor", "EMAIL": "author@example.com", "DATE": "2024-01-02T03:04:05Z"}


def test_gcc_equals_native(placement: str, tmp_path: Path) -> None:
    line = (
        "printf '#include <stdio.h>\\nint main(void) { puts(\"hello\"); return 3; }\\n' >hello.c;"
        "gcc hello.c && ./a.out; echo $?; gcc -O2 -static -o s hello.c && ./s; echo 'int main( {' | gcc -x c - ; echo $?"
    )
    check_same(shell(line, normalise=replacing((rb"/tmp/cc\w+", b"OBJECT"))), placement, tmp_path)


def test_make_equals_native(placement: str, tmp_path: Path) -> None:
    line = "printf 'all: a b\\n\\t@cat a b\\na b:\\n\\t@sleep 0.1; echo $@ >$@\\n' >Makefile; make -j 2; make; touch -d @9 a; make c"
    check_same(shell(line), placement, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "print join(',', map { $_ * 2 } grep { $_ % 2 } 1..9), qq(\\n)",
        "open my $p, '-|', 'echo from a child' or die; print <$p>; close $p; print `sh -c 'exit 3'`, $? >> 8, qq(\\n)",
        "$SIG{ALRM} = sub { print qq(alarm\\n); exit 4 }; alarm 1; sleep 10",
        "my $pid = fork; if (!$pid) { exit 6 } waitpid $pid, 0; print $? >> 8, qq(\\n); exec 'echo', 'exec'",
        "die qq(dead\\n)",
    ],
    ids=["map", "pipe", "alarm", "fork", "die"],
)
def test_perl_equals_native(text: str, placement: str, tmp_path: Path) -> None:
    check_same(Case(("/usr/bin/perl", "-e", text)), placement, tmp_path)


def test_sqlite_shell_equals_native(placement: str, tmp_path: Path) -> None:
    script = (
        b"create table t (a, b);\ninsert into t values (1, 'x'), (2, 'y');\nselect * from t order by b desc;\n.tables\n"
    )
    check_same(Case(("/usr/bin/sqlite3", "db"), stdin=script), placement, tmp_path)


def test_ps_shows_the_processes_of_the_sandbox(placement: str, tmp_path: Path) -> None:
    """Natively, the same processes are picked out by their parent."""
    line = "sleep 9 & until grep -q sleep /proc/$!/comm; do :; done; ps -o stat=,args= --ppid $$ >p; grep sleep p; "
    line += "ps -o ppid= -p $! | grep -cw $$; kill $!"
    check_same(shell(line, normalise=replacing((rb"^([SR])\S* +", rb"\1 "))), placement, tmp_path)


def test_eight_threads_with_mutexes_equal_native(program: Callable[..., str], placement: str, tmp_path: Path) -> None:
    check_same(Case((program("threads"),)), placement, tmp_path)
