"""Terminals from the inside: prints what a shell on a pseudo-terminal does; the same natively and in a sandbox."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time


def show_a_pair() -> None:
    """Names, settings, the line discipline, the window size, and the end of the slave side."""
    master, slave = pty.openpty()
    print(os.ttyname(slave)[:9], os.isatty(slave), os.isatty(master))
    print("echo", bool(termios.tcgetattr(slave)[3] & termios.ECHO))
    os.write(master, b"line\n")
    line, echo = os.read(slave, 100), b""
    while not echo.endswith(b"\n"):  # the host passes the echo on bit by bit
        echo += os.read(master, 100)
    print(line, echo)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    print(os.get_terminal_size(master))
    os.close(slave)
    try:
        print(os.read(master, 10))
    except OSError as error:
        print(error)


class Shell:
    """bash on a terminal of its own."""

    def __init__(self) -> None:
        self.unread = b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            # Whoever runs the tests in the background has these ignored, which a shell hands on.
            for signo in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
                signal.signal(signo, signal.SIG_DFL)
            os.environ["PS1"] = "prompt:"
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])

    def expect_prompt(self) -> bool:
        """Read until the shell asks for the next command, which it does once the terminal is its own again."""
        return self.expect(b"prompt:")

    def expect(self, wanted: bytes, limit_s: float = 10.0) -> bool:
        """Read until *wanted* comes; what comes behind it is for the next one."""
        end = time.monotonic() + limit_s
        while wanted not in self.unread and time.monotonic() < end:
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.unread += os.read(self.master, 1000)
                except OSError:
                    break
        _, found, self.unread = self.unread.partition(wanted)
        return bool(found)

    def type(self, keys: bytes) -> None:
        """Type *keys*, whoever reads them."""
        os.write(self.master, keys)


def show_a_shell() -> None:
    """Job control. What is expected never stands in what is typed, since the terminal echoes that."""
    shell = Shell()
    print("prompt", shell.expect_prompt())
    shell.type(b"tty | head -c 9; echo mark$((1+1))\n")
    print("command", shell.expect(b"mark2"))
    shell.expect_prompt()
    shell.type(b"sh -c 'echo ru$((5+5))n; exec sleep 100'; echo after\n")
    shell.expect(b"ru10n")
    shell.type(b"\x03")
    shell.expect_prompt()
    shell.type(b"echo int$((2+2))\n")
    print("Ctrl-C", shell.expect(b"int4"))
    shell.expect_prompt()
    shell.type(b"sh -c 'echo ru$((6+6))n; exec cat'\n")
    shell.expect(b"ru12n")
    shell.type(b"abc\n\x1a")
    print("Ctrl-Z", shell.expect(b"topped"))
    shell.expect_prompt()
    shell.type(b"jobs; fg\n")
    shell.type(b"more\n")
    shell.expect(b"more")  # an echo or cat's own: the terminal is no longer the line editor's
    shell.type(b"\x04")
    shell.expect_prompt()
    shell.type(b"echo st$?z\n")
    print("fg, Ctrl-D", shell.expect(b"st0z"))
    shell.expect_prompt()
    shell.type(b"stopped() { jobs | grep -q topped; }\n")
    shell.expect_prompt()
    shell.type(b"cat </dev/tty & until stopped; do :; done; kill -9 %1; while stopped; do :; done; echo bg$((3+3))\n")
    print("background reader", shell.expect(b"bg6"))
    shell.expect_prompt()
    shell.type(b"exit 7\n")
    print("exit", os.waitstatus_to_exitcode(os.waitpid(shell.pid, 0)[1]))


show_a_pair()
show_a_shell()
