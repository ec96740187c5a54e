"""Terminals from the inside: prints what a shell on a pseudo-terminal does; the same natively and in a sandbox."""

import fcntl
import os
import pty
import select
import struct
import termios
import time


def show_a_pair() -> None:
    """Names, settings, the line discipline, the window size, and the end of the slave side."""
    master, slave = pty.openpty()
    print(os.ttyname(slave)[:9], os.isatty(slave), os.isatty(master))
    print("echo", bool(termios.tcgetattr(slave)[3] & termios.ECHO))
    os.write(master, b"line\n")
    print(os.read(slave, 100), os.read(master, 100))
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    print(os.get_terminal_size(master))
    os.close(slave)
    try:
        print(os.read(master, 10))
    except OSError as error:
        print(error)


PROMPT = b"READY> "


class Shell:
    """bash on a terminal of its own."""

    def __init__(self) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execvpe("bash", ["bash", "--norc", "-i"], {**os.environ, "PS1": PROMPT.decode(), "TERM": "dumb"})

    def expect(self, wanted: bytes, limit_s: float = 60.0) -> bool:
        """Read until *wanted* comes."""
        seen, end = b"", time.monotonic() + limit_s
        while wanted not in seen and time.monotonic() < end:
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    seen += os.read(self.master, 1000)
                except OSError:
                    break
        return wanted in seen

    def show(self, what: str, keys: bytes, wanted: bytes) -> None:
        """Type *keys* and print whether *wanted* comes."""
        os.write(self.master, keys)
        print(what, self.expect(wanted))


def show_a_shell() -> None:
    """Job control.

    What is expected never stands in what is typed, since the terminal echoes that; and nothing is typed before its
    reader is known to be there: the shell by its prompt, a program by what it says.
    """
    shell = Shell()
    shell.show("start", b"", PROMPT)
    shell.show("command", b"tty | head -c 9; echo mark$((1+1))\n", b"mark2\r\n" + PROMPT)
    shell.show("foreground", b"sh -c 'echo run$((3-1)); sleep 100; echo after'\n", b"run2")
    shell.show("Ctrl-C", b"\x03", PROMPT)
    shell.show("status", b"echo status $?\n", b"status 130\r\n" + PROMPT)
    shell.show("reader", b"sh -c 'echo loop$((1+1)); while read -r x; do echo got-$x; done'\n", b"loop2")
    shell.show("line", b"abc\n", b"got-abc")
    shell.show("Ctrl-Z", b"\x1a", PROMPT)
    shell.show("jobs", b"jobs\n", b"Stopped")
    shell.show("prompt", b"", PROMPT)
    shell.show("fg", b"fg\n", b"got-$x")
    shell.show("line", b"more\n", b"got-more")
    shell.show("Ctrl-D", b"\x04", PROMPT)
    shell.show("status", b"echo status $?\n", b"status 0\r\n" + PROMPT)
    shell.show("background reader", b"cat </dev/tty & until [[ $(jobs -s) ]]; do sleep 0.1; done\n", PROMPT)
    shell.show("killed", b"kill -9 %1; wait; echo end$((3+3))\n", b"end6")
    shell.show("prompt", b"", PROMPT)
    os.write(shell.master, b"exit 7\n")
    print("exit", os.waitstatus_to_exitcode(os.waitpid(shell.pid, 0)[1]))


show_a_pair()
show_a_shell()
