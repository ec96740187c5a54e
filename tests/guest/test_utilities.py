"""The utilities that every shell script uses say in a sandbox what they say natively."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from oracle import Case, check_same, in_sandbox, replacing, shell

if TYPE_CHECKING:
    from pathlib import Path

_FILES = "printf 'b 2\\na 1\\nc 3\\na 1\\n' >f; mkdir d; printf 'x\\n' >d/x; "

#: One line for each utility; what it prints is the same on every machine.
_LINES = {
    "true": "/bin/true",
    "false": "/bin/false",
    "echo": "/bin/echo one 'two  three' -n",
    "echo-without-newline": "/bin/echo -n one; /bin/echo two",
    "cat-files": _FILES + "cat f d/x f",
    "cat-number": _FILES + "cat -n f",
    "cat-missing": "cat nothing",
    "cat-directory": "mkdir d; cat d",
    "cp": _FILES + "cp f g; cp -r d e; cmp f g && cat g e/x",
    "cp-preserve": _FILES + "touch -d @1000000000.5 f; chmod 640 f; cp -p f g; stat -c '%a %Y' g",
    "mv": _FILES + "mv f g; mv g d; ls d; cat d/g; ls f",
    "mv-between-file-systems": _FILES + "mv f /dev/shm/f.$$ && cat /dev/shm/f.$$ && rm /dev/shm/f.$$ && ls -A",
    "rm": _FILES + "rm f; rm -r d; ls -A; rm f",
    "mkdir": "mkdir -p a/b/c; mkdir a; mkdir -m 700 z; stat -c %a z; find a",
    "rmdir": "mkdir a; touch a/f; rmdir a; rm a/f; rmdir a; ls -A",
    "ln-s": _FILES + "ln -s f l; cat l; ls -F; ln -s nowhere broken; cat broken; ln -s loop loop; cat loop",
    "ln": _FILES + "ln f g; stat -c '%h %n' f g; rm f; stat -c %h g; cat g",
    "readlink": "ln -s ../x l; readlink l; readlink -f /bin/../bin/sh; readlink nothing",
    "realpath": "mkdir -p d; ln -s d e; cd e; realpath --relative-to=.. .",
    "stat": _FILES + "chmod 4751 f; stat -c '%s %F %a %h %n' f d/x; stat -c '%F %n' d /dev/null /bin/sh",
    "stat-of-the-root": "stat -c '%F %a %n' / /etc /usr/bin/env /etc/passwd",
    "stat-missing": "stat nothing",
    "touch": "touch a; touch -d @1234567890.123456789 a; stat -c '%Y %y' a; touch -c b; ls; touch -r a c; stat -c %Y c",
    "chmod": "touch a; chmod u=rwx,g=rx,o= a; stat -c %A a; chmod +t a; stat -c %a a; chmod 0 nothing",
    "find": _FILES + "ln -s f l; find . | sort; find . -type f -size -3c; find . -name '?' -newer /etc/passwd | sort",
    "find-exec": _FILES + "find . -type f -exec wc -c {} + | sort; find . -type f -delete; ls -A d",
    "sort": _FILES + "sort f; sort -ru f; sort -k2,2n f; sort nothing",
    "sort-large": "seq 100000 | sort -R --random-source=/bin/sh | sort -n | sha256sum",
    "uniq": _FILES + "sort f | uniq -c",
    "wc": _FILES + "wc f d/x; wc -l <f",
    "head": _FILES + "head -n 2 f; head -c 3 f; seq 10 | head -n -8",
    "tail": _FILES + "tail -n 2 f; tail -c 3 f; seq 10 | tail -n +9",
    "cut": _FILES + "cut -d ' ' -f 2 f; cut -c 1 f",
    "tr": "echo hello | tr a-z A-Z; echo aabb | tr -s a-z | tr -d b",
    "sed": _FILES + "sed -n '2,3s/a/X/p' f; sed -i s/a/Z/ f; cat f; ls -A",
    "awk": _FILES + "awk '{ n += $2 } END { print NR, n }' f",
    "gawk": _FILES + "gawk '{ s[$1] += $2 } END { n = asorti(s, k); for (i = 1; i <= n; i++) print k[i], s[k[i]] }' f",
    "mawk": _FILES + "mawk -F ' ' '{ print $2 $1 | \"sort\" }' f",
    "grep": _FILES + "grep -n a f; grep -r x . ; grep -c '[0-9]' f; grep nothing f",
    "diff": _FILES + "sed s/a/A/ f >g; diff f g; diff -u --label f --label g f g; diff f f; diff f nothing",
    "cmp": _FILES + "sed s/c/C/ f >g; cmp f g; cmp f f",
    "comm": "seq 5 >a; seq 3 7 >b; comm a b; join a b; paste a b",
    "tar": _FILES + "tar --sort=name --owner=0 --group=0 --mtime=@0 -cf t f d; tar tvf t --utc; sha256sum <t;"
    "mkdir e; tar xf t -C e; find e | sort; cat e/f",
    "tar-gzip": _FILES + "tar czf t.tgz f d; tar tzf t.tgz; mkdir e; tar xzf t.tgz -C e; diff -r d e/d && echo same",
    "gzip": _FILES + "gzip -n f; sha256sum <f.gz; gzip -l f.gz | tail -n 1; gunzip f.gz; cat f; gzip nothing",
    "xz": "seq 50000 >n; xz -T1 n; xz -dc n.xz | sha256sum; ls",
    "bzip2": "seq 50000 | bzip2 | bunzip2 | sha256sum",
    "sha256sum": _FILES + "sha256sum f d/x >s; cat s; sha256sum -c s; echo >>f; sha256sum -c s",
    "md5sum": "echo x | md5sum; echo x | cksum; echo x | sha1sum; echo x | b2sum",
    "base64": "seq 30 | base64 | tee e | base64 -d | md5sum; cat e",
    "od": "printf '\\0\\1\\377abc' | od -An -tx1; printf '\\0\\1' | od -c",
    "date": "date -d @0 +'%F %T %Z'; date -u -d '2024-02-29 + 1 year' +%F; TZ=Europe/Berlin date -d @1700000000",
    "env": "env -i A=1 B=2 env | sort; env -u A sh -c 'echo ${A-unset}'; env nothing",
    "printenv": "printenv HOME LANG nothing; echo $?",
    "id": "id root; id -un 0; id nobody; id nobodyelse",
    "seq": "seq 3; seq -s, 1 2 9; seq -w 8 11; seq 0 .1 .3",
    "xargs": "seq 20 | xargs -n 6 echo; printf 'a b\\0c\\0' | xargs -0 -n 1 echo; seq 3 | xargs -I{} echo '<{}>'",
    "xargs-parallel": "seq 12 | xargs -P 4 -n 1 sh -c 'echo $((1 * $0))' | sort -n",
    "tee": "seq 3 | tee a b; cat a b; seq 4 5 | tee -a a >/dev/null; cat a",
    "dd": "seq 1000 >n; dd if=n of=o bs=100 skip=2 count=3 status=none; cat o; dd if=n of=o bs=7 seek=9 conv=notrunc "
    "status=none; sha256sum <o; dd if=/dev/zero bs=1M count=3 status=none | wc -c",
    "dd-report": "dd if=/dev/zero of=/dev/null bs=1 count=3 2>&1 | head -n 2",
    "du": _FILES + "du -ab f d/x; truncate -s 1M sparse; du -k sparse; du -bk sparse",
    "truncate": "truncate -s 5 a; od -c a; seq 9 >b; truncate -s 3 b; cat b; truncate -s +2 b; wc -c <b",
    "split": "seq 10 >n; split -l 4 n p; ls; cat pab",
    "tac": "seq 3 | tac; seq 3 | rev; seq 3 | nl; echo abc | fold -w 1; printf 'a\\tb\\n' | expand",
    "shuf": "seq 10 | shuf | sort -n | md5sum; seq 5 | shuf -n 2 | wc -l",
    "expr": "expr 6 '*' 7; expr abc : 'a\\(.\\)'; expr 1 = 2; test 1 -lt 2; echo $?; [ -e nothing ]; echo $?",
    "basename": "basename /a/b.c .c; dirname /a/b.c; pathchk -p a:b; echo $?",
    "nproc": "nproc; nproc --all; nproc --ignore=1000",
    "arch": "arch; uname -s -m -o",
    "timeout": "timeout 0.2 sleep 9; echo $?; timeout 9 true; echo $?; timeout -s KILL 0.1 sleep 9; echo $?",
    "nice": "nice; nice -n 3 nice; nice -n 99 nice",
    "nohup": "nohup echo hi",
    "sleep": "sleep 0.01; sleep x",
    "mktemp": "f=$(mktemp ./XXXXXX); stat -c '%a %s' $f; d=$(mktemp -d ./XXXXXX); stat -c %a $d; mktemp /nonexistent/X",
    "mkfifo": "mkfifo p; stat -c '%F' p; (echo through >p &); cat p; rm p; ls -A",
    "install": _FILES + "install -m 755 f g; stat -c %a g; install -d x/y; find x",
    "ls": _FILES + "ln -s f l; ls; ls -1F; ls -a d; ls nothing; ls -d /usr /etc; ls -R",
    "ls-l": _FILES + "chmod 640 f; touch -d @0 f; ln -s f l; touch -hd @0 l; ls -lgo --time-style=long-iso f l",
    "ls-sorted": "for i in 3 1 2; do touch -d @$i $i; done; ls -t; ls -tr; truncate -s 9 2; ls -S",
    "sync": "echo x >a; sync a; sync; cat a",
    "stty": "stty </dev/null",
    "tty": "tty </dev/null",
    "which": "which sh env nothing; command -v sh",
    "getent": "getent passwd root; getent group root; getent hosts 127.0.0.1",
    "locale": "locale charmap; printf 'aä' | wc -m",
    "flock": "flock l echo locked; (flock -n 9 && echo one; flock -n l echo two; echo $?) 9>l",
    "setsid": "setsid sh -c 'test $(ps -o sid= -p $$) = $$ && echo leader'",
    "xxd-free-compare": "head -c 65536 /bin/sh | sha256sum; tail -c 1000 /bin/sh | md5sum; wc -c </bin/sh",
}


@pytest.mark.parametrize("line", _LINES.values(), ids=_LINES.keys())
def test_utility_equals_native(line: str, placement: str, tmp_path: Path) -> None:
    check_same(shell(line), placement, tmp_path)


def test_cat_copies_stdin(placement: str, tmp_path: Path) -> None:
    text = bytes(range(256)) * 300
    assert check_same(Case(("/bin/cat",), stdin=text), placement, tmp_path).stdout == text


def test_listing_of_the_root_equals_native(placement: str, tmp_path: Path) -> None:
    """What a sandbox has of its own differs in size, links and time, and so the width of the columns does."""
    own = rb"^(\S{10})\S? \d+ (\w+ \w+) .*(?<= )(proc|sys|dev|tmp)$"
    tidy = replacing((rb" +", b" "), (own, rb"\1 \2 \3"), (rb"^total .*", b""))
    check_same(Case(("/bin/ls", "-l", "/"), normalise=tidy), placement, tmp_path)


def test_root_of_the_sandbox_is_root(placement: str) -> None:

    assert in_sandbox(shell("id -u; id -un; id -g"), placement).stdout == b"0\nroot\n0\n"


def test_uname_says_greenroom(placement: str) -> None:

    said = in_sandbox(shell("uname -s; uname -r; uname -v; uname -n; uname -m"), placement).stdout.decode().split("\n")
    assert said[0] == "Linux"
    assert said[1].startswith("6.18")
    assert "greenroom" in said[2]
    assert said[3:5] == ["greenroom", "x86_64"]


def test_date_is_now(placement: str) -> None:

    before = int(time.time())
    said = int(in_sandbox(Case(("/bin/date", "+%s")), placement).stdout)
    assert before <= said <= time.time()


def test_environment_is_inherited(placement: str, tmp_path: Path) -> None:
    """The shell's own variables say where it is and what it ran last."""
    own = replacing((rb"^(PWD|OLDPWD|_|SHLVL)=.*\n", b""))
    case = Case(("/usr/bin/env",), env=(("ODD", "a=b c\nd"), ("EMPTY", "")), normalise=own)
    check_same(case, placement, tmp_path)


def test_init_has_the_usual_policy_and_nice_value(placement: str) -> None:
    """Natively they are what its starter has chosen, so conform_time does not show them."""
    text = "import os; print(os.sched_getscheduler(1), os.getpriority(os.PRIO_PROCESS, 1))"
    assert in_sandbox(Case(("/usr/bin/python3", "-c", text)), placement).stdout == b"0 0\n"
