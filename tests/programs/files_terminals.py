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
    print(os.read(slave, 100), os.read(master, 100))
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
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            # Whoever runs the tests in the background has these ignored, which a shell hands on.
            for signo in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
                signal.signal(signo, signal.SIG_DFL)
            os.execvp("bash", ["bash", "--norc", "-i"])

    def expect(self, wanted: bytes, limit_s: float = 10.0) -> bool:
        """Read until *wanted* comes."""
        seen, end = b"", time.monotonic() + limit_s
        while wanted not in seen and time.monotonic() < end:
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    seen += os.read(self.master, 1000)
                except OSError:
                    break
        return wanted in seen

    def type(self, keys: bytes, then_s: float = 0.0) -> None:
        """Type *keys* and give the shell time where there is nothing to wait for."""
        os.write(self.master, keys)
        time.sleep(then_s)


def show_a_shell() -> None:
    """Job control. What is expected never stands in what is typed, since the terminal echoes that."""
    shell = Shell()
    print("prompt", shell.expect(b"# ") or shell.expect(b"$ "))
    shell.type(b"tty | head -c 9; echo mark$((1+1))\n")
    print("command", shell.expect(b"mark2"))
    shell.type(b"sleep 100; echo after\n", 0.5)
    shell.type(b"\x03echo int$((2+2))\n")
    print("Ctrl-C", shell.expect(b"int4"))
    shell.type(b"cat\n", 0.5)
    shell.type(b"abc\n\x1a")
    print("Ctrl-Z", shell.expect(b"topped"))
    shell.type(b"jobs; fg\n", 0.5)
    shell.type(b"more\n\x04echo st$?z\n")
    print("fg, Ctrl-D", shell.expect(b"st0z"))
    shell.type(b"(sleep 0.2; cat </dev/tty) & sleep 0.5; jobs; kill %1; echo bg$((3+3))\n")
    print("background reader", shell.expect(b"bg6"))
    shell.type(b"exit 7\n")
    print("exit", os.waitstatus_to_exitcode(os.waitpid(shell.pid, 0)[1]))


show_a_pair()
show_a_shell()
