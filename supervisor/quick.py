"""``greenroom run`` with a running supervisor (``greenroom serve``): a client that imports next to nothing.

It hands its arguments, environment, directory and standard streams to the supervisor, which reads the arguments with
the very command line that this process would have used, and has all of it imported.  Whatever that cannot or will not
do (a mistake in the arguments, another mount namespace, no supervisor), this process does by itself, as if there were
no supervisor.  Afterwards it stands for the program: see ``session``.

The other side is ``front``, which has the protocol.
"""

from __future__ import annotations

# The bindings themselves: the enumerations that socket and signal wrap around them take 5 ms to import.
import _signal  # type: ignore[import-not-found]  # typeshed has none of it
import _socket
import os

from .places import FRONT_SOCKET, SERVICE, candidates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run_by_service"]

STATUS_FAILED = 125
_STATUS = b"e"
_STOP = b"t"
#: Bytes of the longest packet that is received: a status and an error text.
_MAX_PACKET = 65536
_FORWARDED = ("INT", "QUIT", "TSTP", "CONT", "WINCH", "HUP", "TERM", "USR1", "USR2")


def run_by_service(arguments: list[str], closed: frozenset[int]) -> int | None:
    """Have ``greenroom`` *arguments* carried out by the running supervisor; return the exit status.

    None when there is none, or it leaves this to us: nothing has happened then.
    """
    before_command = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--help" in before_command or "-h" in before_command:
        return None
    front = _connect()
    if front is None:
        return None
    try:
        _send_request(front, arguments, closed)
        return _stand_for_program(front)
    finally:
        front.close()


def _connect() -> _socket.socket | None:
    front = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    for base in candidates():
        try:
            # In somebody else's directory there is nobody whom we would trust.
            if os.lstat(base).st_uid == os.getuid():
                front.connect(f"{base}/{SERVICE}/{FRONT_SOCKET}")
                return front
        except OSError:
            continue
    front.close()
    return None


def _send_request(front: _socket.socket, arguments: list[str], closed: frozenset[int]) -> None:
    """Send the request in a memory file, since a packet has a size limit, and the standard streams beside it."""
    try:
        directory = os.getcwdb()
    except FileNotFoundError:
        directory = b""
    streams = bytes(fd not in closed for fd in range(3))
    environment = [name + b"=" + value for name, value in os.environb.items()]
    parts = [directory, b"%d" % len(arguments), *map(os.fsencode, arguments), *environment]
    memory = os.memfd_create("request")
    try:
        text = b"\0".join(parts)
        while text:
            text = text[os.write(memory, text) :]
        fds = b"".join(fd.to_bytes(4, "little") for fd in (memory, 0, 1, 2))
        front.sendmsg([streams], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
    finally:
        os.close(memory)


def _stand_for_program(front: _socket.socket) -> int | None:
    def forward(signo: int, _frame: object) -> None:
        front.send(bytes([signo]))

    # Until the supervisor has taken it on, signals are ours as ever.
    packet = front.recv(_MAX_PACKET)
    if packet[:1] not in (b"y", _STATUS):
        return None
    for name in _FORWARDED:
        _signal.signal(getattr(_signal, f"SIG{name}"), forward)
    restore_terminal = _terminal_keeper()
    while packet:
        if packet[:1] == _STATUS:
            restore_terminal()
            _complain(packet[2:])
            return packet[1]
        if packet == _STOP:
            restore_terminal()
            os.kill(os.getpid(), _signal.SIGSTOP)
        packet = front.recv(_MAX_PACKET)
    restore_terminal()
    _complain(b"the supervisor died")
    return STATUS_FAILED


def _complain(text: bytes) -> None:
    if text:
        try:
            os.write(2, b"greenroom: " + text + b"\n")
        except OSError:  # nobody listens
            return


def _terminal_keeper() -> Callable[[], None]:
    """Return what puts the terminal, if there is one, back as it is now."""
    terminal = next((fd for fd in range(3) if os.isatty(fd)), -1)
    if terminal < 0:
        return lambda: None
    import termios

    attributes = termios.tcgetattr(terminal)

    def restore() -> None:
        before = _signal.signal(_signal.SIGTTOU, _signal.SIG_IGN)
        try:
            if termios.tcgetattr(terminal) != attributes:
                termios.tcsetattr(terminal, termios.TCSADRAIN, attributes)
        except termios.error:
            pass
        _signal.signal(_signal.SIGTTOU, before)

    return restore
