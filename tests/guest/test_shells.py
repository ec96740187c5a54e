"""Shell scripts in dash, bash and busybox's shell do in a sandbox what they do natively."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from oracle import Case, check_same, replacing, shell

if TYPE_CHECKING:
    from pathlib import Path

_PIDS = replacing((rb" +\d+(?= +(Killed|Terminated|Stopped))", b" PID"), (rb"\[(\d)\] \d+", rb"[\1] PID"))

_PORTABLE = {
    "pipeline": "echo hello | tr a-z A-Z | rev | cat",
    "long-pipeline": "seq 2000 | cat | sort -rn | cat | head -n 3 | cat | tac",
    "pipeline-status": "false | true; echo $?; true | false; echo $?; ! true; echo $?",
    "redirections": "echo a >f; echo b >>f; cat <f; ls nothing 2>e; cat e; ls nothing >o 2>&1; cat o; echo x >&2; : >f; cat f",
    "descriptor-shuffle": "exec 3>&1 4>f; echo to-3 >&3; echo to-4 >&4; exec 4>&-; cat f; echo bad >&4; echo $?",
    "read-write": "printf 'one\\ntwo\\n' >f; exec 5<>f; read a <&5; echo X >&5; cat f; echo $a",
    "noclobber": "set -C; echo a >f; echo b >f; echo $?; echo c >|f; cat f",
    "subshell": "a=1; (a=2; cd /usr; pwd; exit 7); echo $? $a; { echo group; }; echo $(echo nested $(echo deep))",
    "here-document": "a=v; cat <<EOF\nx $a $(echo y)\nEOF\ncat <<'EOF'\n$a\nEOF\ncat <<-EOF\n\ttab\n\tEOF\n",
    "large-here-document": "cat <<EOF | md5sum\n" + "0123456789abcdef\n" * 5000 + "EOF\n",
    "trap-exit": "trap 'echo bye' EXIT; echo hi; exit 3",
    "trap-signal": "trap 'echo got TERM' TERM; kill -TERM $$; echo after; trap - TERM; kill -TERM $$; echo not reached",
    "trap-ignore": "trap '' INT TERM; kill -INT $$; sh -c 'kill -TERM $$; echo ignored is inherited'; echo alive",
    "trap-in-wait": "trap 'echo usr1' USR1; (sleep 0.2; kill -USR1 $$; sleep 0.3) & wait; echo $?; wait; echo $?",
    "background": "for i in 9 1 5; do (sleep 0.$i; echo $i) & done; wait; echo done",
    "wait-status": "(exit 5) & a=$!; sh -c 'kill -9 $$' & b=$!; sleep 0.2; wait $a; echo $?; wait $b; echo $?; wait 99999; echo $?",
    "kill-background": "sleep 100 & sleep 0.1; kill $!; sleep 0.1; wait $!; echo $?; sleep 100 & kill -KILL $!; sleep 0.2; wait $!; echo $?",
    "kill-errors": "kill -0 $$; echo $?; kill -0 99999; echo $?; kill -l | head -c 20; kill -FOO $$; echo $?",
    "stop-and-continue": "sleep 0.3 & p=$!; kill -STOP $p; kill -CONT $p; wait $p; echo $?",
    "loops": "i=0; while [ $i -lt 200 ]; do i=$((i + 1)); done; echo $i; for f in /usr/*bin; do echo $f; done",
    "many-commands": "i=0; while [ $i -lt 50 ]; do /bin/true; i=$((i + 1)); done; echo $i",
    "programs-change": "cp /bin/true x; ./x; echo $?; ./x; cp /bin/false x; ./x; echo $?; mv x y; ./x; echo $?; chmod -x y; "
    "./y; echo $?; cp /bin/echo y; chmod +x y; ./y a; ln -s y z; ./z b; ln -sf /bin/true z; ./z c; echo $?; mkdir d; "
    "cp /bin/echo d/p; d/p e; mv d f; cp -r f d; cp /bin/false d/p; d/p; echo $?; f/p g; rm f/p; f/p; echo $?",
    "programs-appear": "./q; echo $?; ./q; echo $?; cp /bin/echo q; ./q a; rm q; ./q; echo $?; ln -s none k; ./k; echo $?; "
    "cp /bin/echo none; ./k b; printf '#!./in\\n' >s; chmod +x s; ./s; echo $?; cp /bin/echo in; ./s c; d/p; mkdir d; d/p; "
    "echo $?; cp /bin/echo d/p; d/p d; mv d e; d/p; echo $?; mkdir d; cp /bin/echo d/p; d/p e",
    "functions": 'f() { echo "$1:$#"; return 4; }; f a b; echo $?; case abc in a*) echo star;; esac',
    "read": "printf 'a b c\\nd\\n' | { read x y; read z; echo \"$y-$x-$z\"; read w; echo $?; }",
    "globs": "touch a.c b.c .h; echo *.c .* [!a].c; echo 'no'*; set -- *; echo $#",
    "cd": "mkdir -p a/b; ln -s a/b l; cd l; pwd -P | sed 's/.*a/a/'; cd ../..; cd - >/dev/null; pwd -L | grep -o l$; cd nothing",
    "umask": "umask; umask 077; touch f; mkdir d; stat -c '%a' f d; umask 0; touch g; stat -c %a g",
    "ulimit": "ulimit -S -n 64; ulimit -S -n; ulimit -S -c; (ulimit -S -f 1; head -c 4096 /dev/zero >f; echo $?) 2>/dev/null",
    "exec": "exec /bin/echo replaced",
    "exec-failure": "(exec nothing); echo $?; (exec /etc/passwd); echo $?; (exec /usr); echo $?; nothing; echo $?; ./x; echo $?",
    "script": "printf '#!/bin/sh\\necho \"$0 $# $1\"\\n' >s; chmod +x s; ./s 'a b'; PATH=. s; sh s x; printf 'echo bare $1\\n' >t;"
    "chmod +x t; ./t y",
    "script-of-scripts": "printf '#!/bin/cat\\ntext\\n' >a; chmod +x a; printf '#!./a -n\\n2\\n' >b; chmod +x b; ./b; "
    "printf '#!/nonexistent/x\\n' >c; chmod +x c; ./c; echo $?",
    "exit-inside-pipeline": "echo x | { read a; exit 9; }; echo $?; exit 8",
    "set-e": "set -e; false || echo kept; (false; echo not reached); echo not reached either",
    "stdin-of-background": "cat & wait; echo $?",
    "times": "times >/dev/null; echo $?",
    "dev": "echo x >/dev/null; cat /dev/null; head -c 3 /dev/zero | od -An -tx1; echo x >/dev/full; echo $?",
    "dev-fd": "echo x | cat /dev/stdin; echo y | cat /dev/fd/0; echo z >/dev/stdout; echo w >/dev/stderr",
    "deep-recursion": "f() { [ $1 -eq 0 ] || (f $(($1 - 1))); }; f 20; echo $?",
    "orphan": "sh -c '(sleep 0.2; echo orphan) &'; echo parent; sleep 0.5",
    "hundred-pipes": "for i in $(seq 100); do echo $i | cat; done | tail -n 1",
}

_BASH = {
    "pipestatus": "false | true | (exit 3); echo ${PIPESTATUS[@]}; set -o pipefail; false | true; echo $?",
    "process-substitution": "diff <(seq 3) <(seq 2 4); cat <(echo a) <(echo b); echo x > >(cat); wait; sleep 0.1",
    "here-string": "cat <<< \"one $((1 + 1))\"; read a b <<< 'x y'; echo $b",
    "arrays": "a=(1 2 3); a+=(4); echo ${a[@]:1:2} ${#a[@]}; declare -A m=([k]=v); echo ${m[k]}; mapfile -t l < <(seq 3); echo ${l[2]}",
    "coproc": "coproc cat; echo through >&${COPROC[1]}; read l <&${COPROC[0]}; echo $l; kill $COPROC_PID",
    "wait-n": "(sleep 0.3; exit 3) & (sleep 0.05; exit 2) & wait -n; echo $?; wait -n; echo $?; wait -n; echo $?",
    "jobs": "set -m; sleep 0.2 & jobs; fg; echo $?; sleep 100 & kill %1; sleep 0.2; wait; jobs",
    "stop-a-job": "set -m; sleep 100 & sleep 0.1; kill -STOP %1; sleep 0.1; jobs; kill -CONT %1; kill %1; sleep 0.2; wait; echo $?",
    "trap-err-and-debug": "trap 'echo err' ERR; false; trap 'echo ret' RETURN; f() { :; }; f; trap 'echo exit $?' EXIT; exit 4",
    "printf": "printf '%s|%05d|%x\\n' a 42 255; printf '%(%F)T\\n' 0; printf '%q\\n' 'a b'",
    "time": "TIMEFORMAT=timed; time true",
    "read-timeout": "read -t 0.1 x < <(sleep 5); echo $((($? > 128)))",
    "brace-and-regex": "echo {1..5} {a,b}{x,y}; [[ abc123 =~ ([0-9]+) ]] && echo ${BASH_REMATCH[1]}; echo $((2**40))",
    "exec-a": "exec -a other sh -c 'echo $0'; ",
    "command-substitution-nul": "x=$(printf 'a\\nb\\n\\n'); echo \"[$x]\"",
}


@pytest.mark.parametrize("program", ["/bin/dash", "/bin/bash"])
@pytest.mark.parametrize("line", _PORTABLE.values(), ids=_PORTABLE.keys())
def test_line_equals_native(program: str, line: str, placement: str, tmp_path: Path) -> None:
    """A shell names the process that a signal ended by its id; the rest is the same."""
    check_same(shell(line, program=program, normalise=_PIDS), placement, tmp_path)


@pytest.mark.parametrize("line", _BASH.values(), ids=_BASH.keys())
def test_line_of_bash_equals_native(line: str, placement: str, tmp_path: Path) -> None:
    """A shell names the process that a signal ended by its id; the rest is the same."""
    check_same(shell(line, program="/bin/bash", normalise=_PIDS), placement, tmp_path)


def test_script_from_stdin_equals_native(placement: str, tmp_path: Path) -> None:
    """The shell reads its script from a pipe byte by byte, so that a command in it can read what follows."""
    script = b"echo one\nread line\nthis is data\necho got $line\nexit 6\n"
    check_same(Case(("/bin/sh",), stdin=script), placement, tmp_path)
    check_same(Case(("/bin/bash", "-s", "arg"), stdin=script + b"echo $1\n"), placement, tmp_path)


def test_two_hundred_children_equal_native(placement: str, tmp_path: Path) -> None:
    """All live at the same time."""
    start = 'i=0; while [ $i -lt 200 ]; do (read x <&4; exit $i) & all="$all $!"; i=$((i + 1)); done'
    end = "yes | head -n 200 >&4; n=0; for i in $all; do wait $i; n=$((n + $?)); done; echo $n"
    line = f"mkfifo p; exec 4<>p; {start}; {end}"
    said = check_same(shell(line, program="/bin/bash"), placement, tmp_path).stdout
    assert said == b"%d\n" % sum(range(200))


def test_two_hundred_forks_in_a_row_equal_native(placement: str, tmp_path: Path) -> None:
    check_same(shell("n=0; for i in $(seq 200); do (exit $i) || n=$((n + $?)); done; echo $n"), placement, tmp_path)
