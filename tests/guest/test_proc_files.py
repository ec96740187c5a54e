"""The files of a process in /proc look as Linux makes them, field by field.

What a program finds depends on the machine, so shapes are compared: the names of the lines, the count and kind of the fields.
Values are compared where the program itself decides them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from oracle import Case, Outcome, check_same, in_sandbox, natively, shell

if TYPE_CHECKING:
    from pathlib import Path

#: Lines of /proc/PID/status that depend on how the host's kernel was built.
_OPTIONAL_LINES = {"x86_Thread_features", "x86_Thread_features_locked"}


def _both(line: str, placement: str, directory: Path) -> tuple[Outcome, Outcome]:
    case = shell(line)
    return natively(case, directory), in_sandbox(case, placement)


def _shape(line: bytes) -> bytes:
    """Replace hexadecimal addresses and numbers by their kind."""
    return re.sub(rb"\b[0-9a-f]{8,16}\b", b"H", re.sub(rb"\b\d+\b", b"N", line))


def test_status_has_the_lines_of_linux(placement: str, tmp_path: Path) -> None:
    native, guest = _both("cat /proc/self/status", placement, tmp_path)
    expected, said = ([line.partition(":")[0] for line in o.stdout.decode().splitlines()] for o in (native, guest))
    assert said == [name for name in expected if name not in _OPTIONAL_LINES]


_SAYS = """
import os, re, signal, threading
if os.fork():  # a descriptor table has room for what is open at the fork: in whoever runs the tests, many
    os.wait()
    os._exit(0)
os.umask(0o27)
signal.signal(10, signal.SIG_IGN)
signal.signal(12, lambda *a: 0)
signal.pthread_sigmask(0, [15])
os.kill(os.getpid(), 15)
os.dup2(0, 70)
threading.Thread(target=signal.pause, daemon=True).start()
lines = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
lines["SigIgn"] = int(lines["SigIgn"], 16) & ~(3 << 31)  # the C library's own two, which may be inherited
lines["Pid"] = int(lines["Pid"]) == int(lines["Tgid"]) == os.getpid()
print(lines[FIELD], flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    "field",
    [
        "Name",
        "Umask",
        "State",
        "Pid",
        "TracerPid",
        "FDSize",
        "Threads",
        "SigPnd",
        "ShdPnd",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "NoNewPrivs",
        "Cpus_allowed",
        "Cpus_allowed_list",
        "VmLck",
        "VmPin",
        "VmSwap",
        "CoreDumping",
    ],
)
def test_status_says_what_the_program_did(field: str, placement: str, tmp_path: Path) -> None:
    text = f"FIELD = {field!r}{_SAYS}"
    assert check_same(Case(("/usr/bin/python3", "-c", text)), placement, tmp_path).status == 0


def test_stat_has_52_fields_of_the_right_kind(placement: str, tmp_path: Path) -> None:
    native, guest = _both("cat /proc/self/stat", placement, tmp_path)
    kinds = re.compile(rb"-?\d+( \(cat\) R)( -?\d+){49}\n")
    assert kinds.fullmatch(native.stdout)
    assert kinds.fullmatch(guest.stdout)


def test_stat_and_status_tell_the_same_ids(placement: str) -> None:
    line = "read pid comm state ppid pgrp session rest </proc/$$/stat; echo $pid $comm $ppid; grep -E '^(Pid|PPid)' /proc/$$/status"
    pid, comm, ppid, *_, status_pid, _, status_ppid = in_sandbox(shell(line), placement).stdout.split()
    assert (pid, comm, ppid) == (status_pid, b"(sh)", status_ppid)


def test_maps_have_the_columns_of_linux(placement: str, tmp_path: Path) -> None:
    native, guest = _both("cat /proc/self/maps", placement, tmp_path)
    column = re.compile(
        rb"[0-9a-f]{8,}-[0-9a-f]{8,} [r-][w-][x-][ps] [0-9a-f]{8} [0-9a-f]{2}:[0-9a-f]{2} \d+ (?: *(\S.*))?"
    )
    for outcome in (native, guest):
        for line in outcome.stdout.splitlines():
            found = column.fullmatch(line)
            assert found, line
            assert not found[1] or line.index(found[1]) == 73, line


def test_maps_name_the_program_heap_and_stack(placement: str, tmp_path: Path) -> None:
    """Of the vDSO's data pages there is one; the host has more."""
    line = "awk '{ print $2, $6 }' /proc/self/maps | grep -E 'awk|libc|ld-|heap|stack|vdso|vvar' | sort -u"
    native, guest = _both(line, placement, tmp_path)
    expected = [row for row in native.stdout.splitlines() if b"[vvar_" not in row]
    assert guest.stdout.splitlines() == expected


def test_smaps_have_the_lines_of_linux(placement: str, tmp_path: Path) -> None:
    """The CPU that a sandbox shows has no protection keys; the host's may have."""
    native, guest = _both("sed -n '2,/VmFlags/p' /proc/self/smaps | cut -d : -f 1", placement, tmp_path)
    assert guest.stdout.splitlines() == [name for name in native.stdout.splitlines() if name != b"ProtectionKey"]
    assert (guest.status, guest.stderr) == (native.status, native.stderr)


def test_smaps_rollup_has_the_lines_of_linux(placement: str, tmp_path: Path) -> None:
    check_same(shell("tail -n +2 /proc/self/smaps_rollup | cut -d : -f 1"), placement, tmp_path)


def test_resident_memory_is_counted(placement: str) -> None:
    text = (
        "import re; f = lambda: int(re.search(r'VmRSS:\\s+(\\d+)', open('/proc/self/status').read())[1]); a = f(); "
        "b = bytearray(50 << 20); b[::4096] = bytes(len(b[::4096])); print(45000 < f() - a < 60000); "
        "s = open('/proc/self/statm').read().split(); print(len(s), abs(int(s[1]) * 4 - f()) < 2000)"
    )
    assert in_sandbox(Case(("/usr/bin/python3", "-c", text)), placement).stdout == b"True\n7 True\n"


@pytest.mark.parametrize(
    "line",
    [
        "cat /proc/self/cmdline | tr '\\0' '|'",
        "env -i A=1 B='x y' cat /proc/self/environ | tr '\\0' '|'",
        "cat /proc/self/comm; echo renamed >/proc/$$/comm; cat /proc/$$/comm; head -c 6 /proc/$$/cmdline | tr '\\0' '|'",
        "ulimit -S -n 77; ulimit -S -s 4000; grep -E 'open files|stack size' /proc/self/limits | cut -c 1-46; head -n 1 /proc/self/limits",
        "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; cat /proc/self/loginuid; cat /proc/self/personality",
        "echo 500 >/proc/self/oom_score_adj; echo 9999 >/proc/self/oom_score_adj; cat /proc/self/oom_score_adj",
        "exec 5</etc/passwd; read a <&5; grep -E 'pos|flags' /proc/$$/fdinfo/5; cat /proc/self/fdinfo/77",
        "readlink /proc/self/exe; readlink /proc/self/cwd | sed 's,/.*/,,' | wc -l; readlink /proc/self/root; cat /proc/self/nothing",
        "sleep 9 & until grep -q sleep /proc/$!/comm; do :; done; tr '\\0' ' ' </proc/$!/cmdline; kill $!; wait; cat /proc/$!/comm 2>&1 | grep -c 'No such'",
        "ls /proc/self/task | wc -l; ls -d /proc/$$/task/$$ | grep -c $$; cat /proc/$$/task/$$/comm; test -d /proc/99999; echo $?",
        "cat /proc/self/wchan; echo; cat /proc/self/sessionid; echo; cat /proc/self/timerslack_ns",
        "od -An -tu8 -w16 -v /proc/self/auxv | awk '{ print $1 }' | grep -wE '3|4|5|6|7|8|9|11|12|13|14|16|17|23|25|31|0' | sort -n",
    ],
    ids=[
        "cmdline",
        "environ",
        "comm",
        "limits",
        "maps-of-ids",
        "oom",
        "fdinfo",
        "links",
        "another",
        "task",
        "small",
        "auxv",
    ],
)
def test_file_equals_native(line: str, placement: str, tmp_path: Path) -> None:
    check_same(shell(line), placement, tmp_path)


def test_file_of_a_child_is_read_by_another_process(placement: str, tmp_path: Path) -> None:
    text = (
        "import subprocess, threading\n"
        "p = subprocess.Popen(['sleep', '100'])\n"
        "read = lambda name: open(f'/proc/{p.pid}/{name}', 'rb').read()\n"
        "while b'sleep' not in read('cmdline'): pass\n"
        "print(read('comm'), read('cmdline'), len(read('stat').split()) == 52, b'VmRSS' in read('status'), b'[stack]' in read('maps'))\n"
        "p.kill(); p.wait()\n"
        "try: read('comm')\nexcept OSError as e: print(e.errno)\n"
    )
    check_same(Case(("/usr/bin/python3", "-c", text)), placement, tmp_path)


def test_files_of_the_whole_system_are_there(placement: str, tmp_path: Path) -> None:
    line = (
        "grep -c ^processor /proc/cpuinfo; grep -E '^(MemTotal|SwapTotal)' /proc/meminfo; cat /proc/sys/kernel/ostype;"
    )
    line += (
        "cat /sys/devices/system/cpu/online /sys/devices/system/cpu/possible; wc -w </proc/loadavg; wc -w </proc/uptime"
    )
    check_same(shell(line), placement, tmp_path)


def test_proc_and_uname_name_one_kernel(placement: str) -> None:
    line = "uname -r; cat /proc/sys/kernel/osrelease; uname -v; cat /proc/sys/kernel/version; cat /proc/version"
    said = in_sandbox(shell(line), placement).stdout.decode().splitlines()
    assert said[0] == said[1] == "6.18.0"
    assert said[2] == said[3]
    assert said[4].startswith(f"Linux version {said[0]} ")
    assert said[4].endswith(f" {said[2]}")


def test_uptime_and_boot_time_are_the_guests_own(placement: str) -> None:
    """A sandbox has just begun, whatever the host's uptime; what ps(1) computes from them is now."""
    text = (
        "import os, time\n"
        "up = float(open('/proc/uptime').read().split()[0])\n"
        "boot = [int(l.split()[1]) for l in open('/proc/stat') if l.startswith('btime')][0]\n"
        "print(up < 60, abs(up - time.clock_gettime(time.CLOCK_MONOTONIC)) < 2, abs(boot + up - time.time()) < 3)\n"
        "time.clock_settime(time.CLOCK_REALTIME, 1e9)\n"
        # Setting the clock is a message to whom it concerns: it is in force a moment later.
        "while os.mkdir('d') or abs(os.stat('d').st_mtime - 1e9) > 50: os.rmdir('d')\n"
        "print(True)\n"
    )
    assert in_sandbox(Case(("/usr/bin/python3", "-c", text)), placement).stdout == b"True True True\nTrue\n"
