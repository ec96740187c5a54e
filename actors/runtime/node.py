"""A node: the actors of one process, their loop, and the ZeroMQ sockets that join them to other processes.

Every node binds one PULL socket, its inbox; whoever sends to it connects a PUSH socket, so the frames of one sender
arrive in the order sent.  Actors of one node also reach each other through that inbox (over inproc): the same code
and the same order as between processes.  Each frame carries the number that it has between its sender and its receiver;
a gap or a repeat stops the receiver.

Linux counterpart: none; this is the interconnect that takes the place of shared kernel memory.
"""

from __future__ import annotations

import collections
import select
from typing import TYPE_CHECKING, Any

import zmq
from pykka._envelope import Envelope as PykkaEnvelope

from ...config.limits import MAX_QUEUED_FRAMES, REMEMBERED_GROUPS
from ...config.logging import get_logger
from ...messages.base import Failed, Message
from ...messages.codec import Envelope, EnvelopeKind, MalformedFrame, decode, encode
from ...messages.trace import RecordKind
from .actor import Actor, Reply
from .descriptors import Descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .loop import Loop
    from .tape import Tape

__all__ = ["Node", "Placement"]

_NOBLOCK = int(zmq.NOBLOCK)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)

log = get_logger(__name__)


class Placement:
    """Which process an actor lives in.

    *endpoints* maps process names to ZeroMQ endpoints.  With one sandbox process the map has "sandbox" for all of its
    actors; split, it has "kernel" and "worker:0"...  A thread group lives in the worker of its serial number modulo the
    number of workers, which is how TaskSet chooses the number.
    """

    def __init__(self, endpoints: Mapping[str, str], workers: int = 1) -> None:
        self.endpoints = dict(endpoints)
        self.workers = workers
        self._known: dict[str, str] = {}

    def process_of(self, address: str) -> str:
        """Return the name of the process that *address* lives in. LookupError when there is none."""
        process = self._known.get(address)
        if process is None:
            process = self._find(address)
            if not address.startswith("thread_group"):
                self._known[address] = process
        return process

    def _find(self, address: str) -> str:
        kind, _, number = address.partition(":")
        if kind in ("supervisor", "client"):
            name = kind
        elif "sandbox" in self.endpoints:
            name = "sandbox"
        elif kind in ("worker", "thread_group"):
            name = f"worker:{int(number) % self.workers}"
        else:
            name = "kernel"
        if name not in self.endpoints:
            raise LookupError(f"no process for actor {address!r}")
        return name


class Node:
    """The actors of this process and their way to the others."""

    def __init__(
        self,
        process: str,
        loop: Loop,
        placement: Placement,
        descriptors: Descriptors | None = None,
        on_failure: Callable[[str, str], None] | None = None,
    ) -> None:
        """*process* is this process's name in *placement*; *on_failure* gets (address, reason) when an actor fails."""
        self.process = process
        self.loop = loop
        self.placement = placement
        self.descriptors = self._own_descriptors = descriptors or Descriptors(process, {})
        self._on_failure = on_failure
        self._actors: dict[str, Actor] = {}
        self._sent: dict[tuple[str, str], int] = {}
        self._seen: dict[tuple[str, str], int] = {}
        #: Addresses of stopped actors whose numbers are still known, oldest first.
        self._gone: collections.deque[str] = collections.deque()
        self._waiting: dict[int, tuple[str, str, Callable[[Message], None]]] = {}
        self._requests = 0
        self._pushes: dict[str, zmq.Socket[bytes]] = {}
        self._sends: dict[str, Callable[[bytes, int], Any]] = {}
        #: Set when this process is traced or replayed: gets every frame that is sent or arrives.
        self.tape: Tape | None = None
        self._context = zmq.Context()
        self._receiving = False
        self._inbox: zmq.Socket[bytes] = self._context.socket(zmq.PULL)
        self._recv: Callable[[int], bytes] = super(zmq.Socket, self._inbox).recv
        self._events: Callable[[int], Any] = super(zmq.Socket, self._inbox).get
        #: Frames that this process has sent to itself and not received yet.
        self._own_frames = 0
        self._inbox.setsockopt(zmq.RCVHWM, MAX_QUEUED_FRAMES)
        self._inbox.bind(placement.endpoints[process])
        self._own_endpoint = f"inproc://{process}"
        if placement.endpoints[process] != self._own_endpoint:
            self._inbox.bind(self._own_endpoint)
        self._inbox_fd = int(self._inbox.getsockopt(zmq.FD))
        loop.untaped.add(self._inbox_fd)
        loop.watch(self._inbox_fd, select.EPOLLIN, lambda _mask: self._receive())

    # -- actors -------------------------------------------------------------------------------------------------

    def add(self, actor: Actor) -> None:
        """Make *actor* reachable by its address."""
        if actor.address in self._actors:
            raise ValueError(f"there is an actor {actor.address} already")
        self._actors[actor.address] = actor

    def remove(self, actor: Actor) -> None:
        """Forget a stopped actor; later asks to it are answered with a failure.

        Its last frames may be on their way still, so its numbers are kept until some more actors have gone.
        """
        self._actors.pop(actor.address, None)
        self._gone.append(actor.address)
        if len(self._gone) > REMEMBERED_GROUPS:
            self.forget(self._gone.popleft())

    def forget(self, address: str) -> None:
        """Drop the sequence numbers of an address that is never used again."""
        for table in (self._sent, self._seen):
            for pair in [p for p in table if address in p]:
                del table[pair]

    def actor(self, address: str) -> Actor | None:
        """Return the actor of this node with that address."""
        return self._actors.get(address)

    def addresses(self) -> list[str]:
        """Return the addresses of this node's actors."""
        return list(self._actors)

    def actor_failed(self, address: str, reason: str, details: str) -> None:
        """An actor stopped over a bug: log it once, in full, and tell whoever ends the sandbox."""
        log.error("actor failed", actor=address, reason=reason, traceback=details)
        actor = self._actors.pop(address, None)
        if actor is not None and self._on_failure is not None:
            self._on_failure(address, reason)

    # -- sending ------------------------------------------------------------------------------------------------

    def send(self, kind: int, sender: str, receiver: str, request: int, message: Message) -> None:
        """Put one frame on its way."""
        pair = (sender, receiver)
        sequence = self._sent[pair] = self._sent.get(pair, 0) + 1
        envelope = Envelope(kind, sequence, sender, receiver, request, message)
        process = self.placement.process_of(receiver)
        frame = encode(envelope)
        if self.tape is not None:
            self.tape.note(RecordKind.SENT, frame)
        if self.tape is None or not self.tape.replaying:
            send = self._sends.get(process) or self._connect(process)
            send(frame, _NOBLOCK)
        if process == self.process:
            self._own_frames += 1
            if not self._receiving:
                # The inbox's descriptor would wake the loop too, but a turn of epoll later.
                self._receiving = True
                self.loop.call_soon(self._receive)

    def ask(self, asker: str, receiver: str, message: Message, resume: Callable[[Message], None]) -> None:
        """Send an ask; *resume* gets the reply, or a Failed when the receiver or its process is gone."""
        self._requests += 1
        self._waiting[self._requests] = (asker, receiver, resume)
        try:
            self.send(EnvelopeKind.ASK, asker, receiver, self._requests, message)
        except LookupError as error:
            del self._waiting[self._requests]
            failed = Failed(errno=0, text=str(error), kind="ActorFailed")
            self.loop.call_soon(lambda: resume(failed))

    def answer(self, request: Envelope, message: Message) -> None:
        """Send the reply to an ask."""
        self.send(EnvelopeKind.REPLY, request.receiver, request.sender, request.request, message)

    def _connect(self, process: str) -> Callable[[bytes, int], Any]:
        push: zmq.Socket[bytes] = self._context.socket(zmq.PUSH)
        push.setsockopt(zmq.SNDHWM, MAX_QUEUED_FRAMES)
        push.setsockopt(zmq.LINGER, 500)
        push.connect(self._own_endpoint if process == self.process else self.placement.endpoints[process])
        self._pushes[process] = push
        # The binding's own method: what pyzmq wraps around it is for features that are not used here.
        send: Callable[[bytes, int], Any] = super(zmq.Socket, push).send
        self._sends[process] = send
        return send

    def process_lost(self, process: str) -> None:
        """A peer process died: answer every ask that waits for it."""
        for request, (_, receiver, resume) in list(self._waiting.items()):
            if self._lives_in(receiver, process):
                del self._waiting[request]
                resume(Failed(errno=0, text=f"process {process} died; {receiver} may have run it", kind="PeerLost"))
        push = self._pushes.pop(process, None)
        self._sends.pop(process, None)
        if push is not None:
            push.close(linger=0)
        self.placement.endpoints.pop(process, None)

    def _lives_in(self, address: str, process: str) -> bool:
        try:
            return self.placement.process_of(address) == process
        except LookupError:
            return False

    # -- receiving ----------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        """Take every frame that has come (ZeroMQ's descriptor is edge-triggered: stop only when there is none)."""
        self._receiving = False
        frames = self._drain() if self.tape is None else self.tape.input(RecordKind.FRAMES, self._drain)
        for frame in frames:
            self.deliver(frame)

    def _drain(self) -> list[bytes]:
        """Receive everything: our own frames, whose number we know, then what else there is.

        Asking for EVENTS costs a third of a recv that raises Again, and it too makes ZeroMQ look at its mailbox.
        """
        frames: list[bytes] = []
        try:
            for _ in range(self._own_frames):
                frames.append(self._recv(_NOBLOCK))  # noqa: PERF401  # those before an Again have come
            while self._events(_EVENTS) & _POLLIN:
                frames.append(self._recv(_NOBLOCK))
        except zmq.Again:
            pass
        self._own_frames = 0
        return frames

    def replay_frames(self) -> None:
        """The next record is frames that woke the loop."""
        self._receive()

    def deliver(self, frame: bytes) -> None:
        """Hand one frame's envelope to its actor, or a reply to the handler that waits for it."""
        try:
            envelope = decode(frame)
        except MalformedFrame as error:
            size = len(frame)
            log.error("malformed frame dropped", process=self.process, reason=str(error), size=size)  # noqa: TRY400  # the reason is enough
            return
        if not self._in_order(envelope):
            return
        if envelope.kind == EnvelopeKind.REPLY:
            waiting = self._waiting.pop(envelope.request, None)
            if waiting is not None:
                waiting[2](envelope.message)
            return
        actor = self._actors.get(envelope.receiver)
        if actor is None:
            self._refuse(envelope)
            return
        reply_to = Reply(self, envelope) if envelope.kind == EnvelopeKind.ASK else None
        actor.receive(PykkaEnvelope(envelope, reply_to=reply_to))

    def _in_order(self, envelope: Envelope) -> bool:
        pair = (envelope.sender, envelope.receiver)
        expected = self._seen.get(pair, 0) + 1
        self._seen[pair] = envelope.sequence
        if envelope.sequence == expected or envelope.receiver not in self._actors:
            return True
        actor = self._actors[envelope.receiver]
        actor.fail(RuntimeError(f"frame {envelope.sequence} from {envelope.sender}, expected {expected}"))
        return False

    def _refuse(self, envelope: Envelope) -> None:
        """Nobody has this address: a tell to the dead is dropped, an ask is answered."""
        self._seen.pop((envelope.sender, envelope.receiver), None)
        if envelope.kind == EnvelopeKind.ASK:
            text = f"there is no actor {envelope.receiver}"
            self.answer(envelope, Failed(errno=0, text=text, kind="ActorFailed"))

    def close(self) -> None:
        """Close sockets and context; frames already sent get half a second to leave."""
        self.loop.unwatch(self._inbox_fd)
        for push in self._pushes.values():
            push.close()
        self._inbox.close(linger=0)
        self._context.term()
        self._own_descriptors.close()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
