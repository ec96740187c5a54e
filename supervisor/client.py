"""The client's side of the control API: requests to a supervisor in another process.

A :class:`Connection` may be used from several threads at once: each thread has a socket of its own.  A wait that the
caller gives up (Ctrl-C, a time limit) leaves its answer behind, which is dropped when it comes.

``own_supervisor`` is the supervisor of this process's sandboxes: a new interpreter, started with the first sandbox and
never forked from the caller, whose threads a fork would break.  It ends when this process does, however that ends.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, TypeVar

import zmq

from ..messages.base import Failed, Message
from ..messages.codec import Envelope, EnvelopeKind, MalformedFrame, decode, encode
from .control import send_streams
from .errors import SupervisorError, TimedOut, error_from
from .places import CONTROL_SOCKET, DESCRIPTOR_SOCKET
from .runtime_directory import RuntimeDirectory, find_supervisor, live_supervisors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Connection", "all_connections", "connection_to", "own_supervisor"]

_R = TypeVar("_R", bound=Message)

#: Seconds for a new supervisor to start.
_START_LIMIT_S = 60.0


class Connection:
    """One supervisor, as seen from a client."""

    def __init__(self, directory: RuntimeDirectory) -> None:
        """Connect to the supervisor of *directory*. SupervisorError when it has gone."""
        self._directory = directory
        try:
            self._pidfd = os.pidfd_open(directory.supervisor_pid)
        except ProcessLookupError:
            raise SupervisorError("the supervisor has gone") from None
        self._context = zmq.Context()
        self._local = threading.local()
        self._numbers = itertools.count(1)

    @property
    def supervisor_pid(self) -> int:
        """Host process id of the supervisor."""
        return self._directory.supervisor_pid

    def request(self, message: Message, reply: type[_R], timeout_s: float | None = None) -> _R:
        """Send *message* and return its reply. The supervisor's refusal is raised as what it is; TimedOut."""
        number = next(self._numbers)
        dealer = self._socket()
        dealer.send(encode(Envelope(EnvelopeKind.ASK, number, "client", "supervisor", number, message)))
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            envelope = self._receive(dealer, deadline)
            if envelope.request not in (number, 0):
                continue  # the answer to a wait that was given up
            answer = envelope.message
            if isinstance(answer, Failed):
                raise error_from(answer.kind, answer.errno, answer.text)
            if not isinstance(answer, reply):
                raise SupervisorError(f"the supervisor answered with {type(answer).__name__}")
            return answer

    def request_with_streams(self, streams: Sequence[int], make: Callable[[int], Message], reply: type[_R]) -> _R:
        """Pass descriptors and send the message that *make* makes from their number."""
        number = int.from_bytes(os.urandom(8)) | 1
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as side:
            try:
                side.connect(f"{self._directory.path}/{DESCRIPTOR_SOCKET}")
                send_streams(side, number, streams)
            except OSError as error:
                raise SupervisorError(f"the supervisor has gone: {error.strerror}") from None
            return self.request(make(number), reply)

    def _socket(self) -> zmq.Socket[bytes]:
        dealer: zmq.Socket[bytes] | None = getattr(self._local, "dealer", None)
        if dealer is None:
            dealer = self._local.dealer = self._context.socket(zmq.DEALER)
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.connect(f"ipc://{self._directory.path}/{CONTROL_SOCKET}")
        return dealer

    def _receive(self, dealer: zmq.Socket[bytes], deadline: float | None) -> Envelope:
        poller = zmq.Poller()
        poller.register(dealer, zmq.POLLIN)
        poller.register(self._pidfd, zmq.POLLIN)
        wait_ms = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000) + 1)
        ready = dict(poller.poll(wait_ms))
        if dealer in ready:
            try:
                return decode(dealer.recv())
            except MalformedFrame as error:
                raise SupervisorError(f"the supervisor speaks another protocol: {error}") from None
        if ready:
            raise SupervisorError("the supervisor died; whether it carried the request out is not known")
        raise TimedOut("the time limit has passed")

    def close(self) -> None:
        """Close every socket of this connection; no thread may be using one."""
        self._context.destroy(linger=0)
        os.close(self._pidfd)


def connection_to(name: str) -> Connection:
    """Return a connection to the supervisor that runs the sandbox *name*. SandboxNotFound."""
    directory = find_supervisor(name)
    own = _own.get(os.getpid())
    return own.connection if own is not None and own.path == directory.path else Connection(directory)


def all_connections() -> list[Connection]:
    """Return a new connection to each live supervisor of this user."""
    connections = []
    for directory in live_supervisors():
        with contextlib.suppress(SupervisorError):  # it has gone between the two
            connections.append(Connection(directory))
    return connections


class _OwnSupervisor:
    """The supervisor process of this client."""

    def __init__(self) -> None:
        # -P: a file of the current directory must not be taken for a module. The pipe on its standard input tells it
        # that this process has gone; a session of its own keeps the terminal's signals from it.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "greenroom.supervisor.service", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        with self._process.stdout as ready:
            self.path = ready.readline().decode().rstrip("\n")
        if not self.path:
            raise SupervisorError(f"the supervisor did not start: exit status {self._process.wait()}")
        self.connection = Connection(RuntimeDirectory(self.path))

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End it, and wait until nothing of it is left."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self.connection.close()


#: By process id: a forked child of the user's has none of its parent's.
_own: dict[int, _OwnSupervisor] = {}
_own_lock = threading.Lock()


def own_supervisor() -> Connection:
    """Return a connection to this process's own supervisor, which is started when there is none. SupervisorError."""
    with _own_lock:
        own = _own.get(os.getpid())
        if own is None or not own.alive:
            own = _own[os.getpid()] = _OwnSupervisor()
            atexit.register(_close_own)
        return own.connection


def _close_own() -> None:
    own = _own.pop(os.getpid(), None)
    if own is not None:
        own.close()
