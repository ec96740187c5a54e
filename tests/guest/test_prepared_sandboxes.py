"""Sandboxes from the stock are as isolated, and as specified, as those that are made when they are asked for."""

from __future__ import annotations

import os
import subprocess
import sys

_SCRIPT = """
import os, sys, time
from greenroom import Sandbox
from greenroom.supervisor import client

first = Sandbox.create()
boxes = [Sandbox.create(hostname=f"box{n}", user="1000:1000", limits={"nofile": 77}, cwd="/usr") for n in range(4)]
"""


def _in_a_client(body: str) -> list[str]:
    """Run *body* in a Python process that has sandboxes from a stock; return the lines that it prints."""
    script = f"{_SCRIPT}\n{body}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100)
    return done.stdout.splitlines()


def test_each_has_what_its_specification_says() -> None:
    lines = _in_a_client(
        "for box in boxes: print(box.shell('uname -n; id -u; ulimit -Sn; pwd').stdout.split())",
    )
    assert lines == [f"[b'box{n}', b'1000', b'77', b'/usr']" for n in range(4)]


def test_random_bytes_boot_ids_and_stack_addresses_differ() -> None:
    """They are forked from one process: none of these may come from what they share."""
    for source in (
        "od -An -N16 -tx1 /dev/urandom",
        "cat /proc/sys/kernel/random/boot_id",
        "python3 -c 'import ctypes; at = ctypes.CDLL(None).getauxval; at.restype = ctypes.c_void_p; print(ctypes.string_at(at(25), 16).hex())'",
    ):
        lines = _in_a_client(f"for box in boxes: print(box.shell({source!r}, check=True).stdout)")
        assert len(set(lines)) == len(lines) == 4, source


def test_files_and_processes_of_one_are_not_in_another() -> None:
    lines = _in_a_client(
        "boxes[0].shell('echo secret > /tmp/f; mkdir /srv/x; sleep 1000 >/dev/null 2>&1 & :')\n"
        "for box in boxes[1:]: print(box.shell('ls -A /tmp; ls -d /srv/x 2>/dev/null; ps -e | grep -c sleep').stdout.decode())"
    )
    assert [line for line in lines if line] == ["0"] * 3


def test_a_restored_sandbox_comes_from_the_stock_too() -> None:
    lines = _in_a_client(
        "boxes[0].shell('echo kept > /tmp/f')\n"
        "again = boxes[0].snapshot().restore('again')\n"
        "print(again.shell('cat /tmp/f; uname -n', user='root').stdout.split(), again.id)"
    )
    assert lines == ["[b'kept', b'box0'] again"]


def test_threads_may_create_sandboxes_side_by_side() -> None:
    lines = _in_a_client(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def one(n):\n"
        "    with Sandbox.create(hostname=f'h{n}') as box: return box.run('/bin/uname', '-n').stdout\n"
        "with ThreadPoolExecutor(6) as pool: print(list(pool.map(one, range(12))))"
    )
    assert lines == [str([f"h{n}\n".encode() for n in range(12)])]


def test_create_and_close_a_hundred_times_leaves_nothing() -> None:
    """Descriptors and processes of the supervisor are as many after as before."""
    lines = _in_a_client(
        "from greenroom.supervisor.client import own_supervisor\n"
        "pid = own_supervisor().supervisor_pid\n"
        "def count():\n"
        "    spawners = open(f'/proc/{pid}/task/{pid}/children').read().split()\n"
        "    return len(os.listdir(f'/proc/{pid}/fd')), len(spawners), len(os.listdir('/proc/self/fd'))\n"
        "def cycle():\n"
        "    with Sandbox.create() as box: assert box.run('/bin/true').returncode == 0\n"
        "for _ in range(20): cycle()\n"
        "before = count()\n"
        "for _ in range(100): cycle()\n"
        "after = count()\n"
        "print(before[1:] == after[1:], abs(after[0] - before[0]) < 40, before, after)"
    )
    assert lines[0].startswith("True True"), lines


def test_nothing_is_left_when_the_client_is_killed() -> None:
    """Prepared sandboxes end with their supervisor, and that with its client."""
    script = f"{_SCRIPT}\nprint(client.own_supervisor().supervisor_pid, flush=True); time.sleep(1000)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    supervisor = int(process.stdout.readline())
    left = [os.pidfd_open(pid) for pid in _descendants(supervisor)]
    process.kill()
    process.communicate()
    for pidfd in left:
        assert _ends(pidfd)
        os.close(pidfd)


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
            for child in file.read().split():
                found += _descendants(int(child))
    return found


def _ends(pidfd: int) -> bool:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(20_000))


def test_its_uptime_begins_when_it_is_created() -> None:
    """Not when it was prepared."""
    lines = _in_a_client(
        "time.sleep(0.5)  # in stock\n"
        "created = time.monotonic()\n"
        "again = Sandbox.create()\n"
        "uptime = float(again.shell('cat /proc/uptime').stdout.split()[0])\n"
        "print(uptime <= time.monotonic() - created + 0.01)"
    )
    assert lines == ["True"]
