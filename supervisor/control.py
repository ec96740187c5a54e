"""The control API's two sockets: requests as messages over ZeroMQ, descriptors beside them over a Unix socket.

A request is one frame of :mod:`greenroom.messages.codec` on a ROUTER socket, an ask from ``client`` to ``supervisor``;
its answer has the same request number.  Both sockets lie in the supervisor's directory, which only its user may
enter.

Descriptors of a program's standard streams come first, as one packet on the descriptor socket: a random 64-bit number,
by which the request then names them, and a byte per stream.  They are dropped when the connection closes before the
request.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from typing import TYPE_CHECKING

import zmq

from ..actors.runtime.descriptors import receive_fds
from ..config.logging import get_logger
from ..messages.base import Failed, Message, Mode
from ..messages.codec import Envelope, EnvelopeKind, MalformedFrame, decode, encode
from .errors import GreenroomError, SupervisorError
from .places import CONTROL_SOCKET, DESCRIPTOR_SOCKET
from .streams import CLOSED_STREAM, NULL_STREAM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..actors.runtime.loop import Loop
    from .host import Host
    from .runtime_directory import RuntimeDirectory

__all__ = ["ControlSocket", "DescriptorSocket", "send_streams"]

#: Packet: the number, and for each stream "f" (a descriptor follows), "n" (null) or "c" (closed).
_PACKET = struct.Struct("<Q3s")
_FLAGS = {NULL_STREAM: b"n", CLOSED_STREAM: b"c"}
_STREAMS = {ord("n"): NULL_STREAM, ord("c"): CLOSED_STREAM}

_BACKLOG = 128

log = get_logger(__name__)


def send_streams(connection: socket.socket, number: int, streams: Sequence[int]) -> None:
    """Send three streams (descriptors, NULL_STREAM or CLOSED_STREAM) under *number*. The caller's copies stay open."""
    flags = b"".join(_FLAGS.get(stream, b"f") for stream in streams)
    socket.send_fds(connection, [_PACKET.pack(number, flags)], [stream for stream in streams if stream >= 0])


class ControlSocket:
    """Requests of clients in other processes."""

    def __init__(
        self, loop: Loop, host: Host, directory: RuntimeDirectory, context: zmq.Context[zmq.Socket[bytes]]
    ) -> None:
        """Serve *host*'s sandboxes at *directory*'s control socket."""
        self._loop = loop
        self._host = host
        self._router: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        path = f"{directory.path}/{CONTROL_SOCKET}"
        self._router.bind(f"ipc://{path}")
        os.chmod(path, 0o600)
        self._fd = int(self._router.getsockopt(zmq.FD))
        loop.watch(self._fd, select.EPOLLIN, lambda _mask: self._receive())
        self._receive()

    def _receive(self) -> None:
        """Take every request that has come (ZeroMQ's descriptor is edge-triggered: stop only when there is none)."""
        while True:
            try:
                parts = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(parts) == 2:
                self._handle(parts[0], parts[1])

    def _handle(self, client: bytes, frame: bytes) -> None:
        try:
            envelope = decode(frame)
            if envelope.kind != EnvelopeKind.ASK or envelope.message.MODE is not Mode.ASK:
                raise MalformedFrame("a request is an ask")  # noqa: TRY301  # answered as any other
        except (MalformedFrame, GreenroomError) as error:
            # The frame may be that of another protocol version, so nothing in it can be answered to but its sender.
            log.warning("request dropped", reason=str(error))
            failed = Failed(errno=0, text=f"the supervisor dropped a request: {error}", kind=type(error).__name__)
            self._send(client, 0, failed)
            return
        self._host.request(envelope.message, lambda reply: self._send(client, envelope.request, reply))

    def _send(self, client: bytes, request: int, reply: Message) -> None:
        frame = encode(Envelope(EnvelopeKind.REPLY, 0, "supervisor", "client", request, reply))
        with contextlib.suppress(zmq.Again):  # a client that does not read
            self._router.send_multipart((client, frame), zmq.NOBLOCK)
        # Sending may have swallowed the edge of a request that came meanwhile.
        if int(self._router.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._loop.call_soon(self._receive)

    def close(self) -> None:
        """Close the socket once the answers are out; they get half a second."""
        self._loop.unwatch(self._fd)
        self._router.close(linger=500)


class DescriptorSocket:
    """Descriptors of clients in other processes. That it accepts connections shows that this supervisor lives."""

    def __init__(self, loop: Loop, directory: RuntimeDirectory) -> None:
        """Listen at *directory*'s descriptor socket."""
        self._loop = loop
        #: Streams that no request has named yet, by number, with the connection that they came on.
        self._streams: dict[int, tuple[int, list[int]]] = {}
        self._connections: dict[int, socket.socket] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = f"{directory.path}/{DESCRIPTOR_SOCKET}"
        # It gets its name when it listens: a name that refuses connections is a dead supervisor's.
        self._listener.bind(f"{path}.new")
        os.chmod(f"{path}.new", 0o600)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        os.rename(f"{path}.new", path)
        loop.watch(self._listener.fileno(), select.EPOLLIN, lambda _mask: self._accept())

    def put(self, number: int, streams: Sequence[int]) -> None:
        """Add streams of this process itself; they now belong to the socket."""
        self._streams[number] = (-1, list(streams))

    def take(self, number: int) -> list[int]:
        """Return the streams that came under *number*, which the caller now owns. SupervisorError when none did."""
        if number not in self._streams:
            self._accept()
            for fd in list(self._connections):
                self._receive(fd)
        if number not in self._streams:
            raise SupervisorError("the descriptors of a request did not arrive")
        return self._streams.pop(number)[1]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            fd = connection.fileno()
            self._connections[fd] = connection
            self._loop.watch(fd, select.EPOLLIN, lambda _mask, fd=fd: self._receive(fd))  # type: ignore[misc]

    def _receive(self, fd: int) -> None:
        connection = self._connections.get(fd)
        while connection is not None:
            try:
                data, fds = receive_fds(connection, _PACKET.size, 3, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not self._keep(fd, data, fds):
                self._drop(fd)
                return

    def _keep(self, connection: int, data: bytes, fds: list[int]) -> bool:
        """Note the streams of one packet; False when it is none, and the connection is to be dropped."""
        if len(data) == _PACKET.size:
            number, flags = _PACKET.unpack(data)
            if flags.count(b"f") == len(fds) and number and number not in self._streams:
                left = iter(fds)
                streams = [_STREAMS[flag] if flag in _STREAMS else next(left) for flag in flags]
                self._streams[number] = (connection, streams)
                return True
        for fd in fds:
            os.close(fd)
        return False

    def _drop(self, connection: int) -> None:
        self._loop.unwatch(connection)
        self._connections.pop(connection).close()
        for number in [n for n, (owner, _) in self._streams.items() if owner == connection]:
            for fd in self._streams.pop(number)[1]:
                if fd >= 0:
                    os.close(fd)

    def close(self) -> None:
        """Stop listening and drop what nobody took."""
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        for connection in list(self._connections):
            self._drop(connection)
