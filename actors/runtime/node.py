"""A node: the actors of one process, their loop, and the ZeroMQ sockets that join them to other processes.

Every node binds a PULL socket, its inbox; whoever sends to it connects a PUSH socket, so the frames of one sender
arrive in the order sent.  Actors of one node reach each other through a second pair of sockets, over inproc: the same
frames, the same code and the same order as between processes.  How many of those are on their way is known, so they
cost no look at ZeroMQ's events and no turn of the loop: they are delivered after the callback that has sent them.
Each frame carries the number that it has between its sender and its receiver; a gap or a repeat stops the receiver.

Linux counterpart: none; this is the interconnect that takes the place of shared kernel memory.
"""

from __future__ import annotations

import collections
import select
from typing import TYPE_CHECKING, Any, Final

import zmq
from mypy_extensions import mypyc_attr

from ...config.limits import FRAMES_PER_CALLBACK, MAX_QUEUED_FRAMES, REMEMBERED_GROUPS
from ...config.logging import get_logger
from ...messages.base import Failed, Message
from ...messages.codec import EnvelopeKind, MalformedFrame, Parts, decode_parts, encode
from ...messages.trace import RecordKind
from .descriptors import Descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .actor import Actor
    from .loop import Loop
    from .tape import Tape

__all__ = ["Node", "Placement"]

_NOBLOCK: Final = int(zmq.NOBLOCK)
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
_ASK, _REPLY = int(EnvelopeKind.ASK), int(EnvelopeKind.REPLY)

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


class _Way:
    """What a sender needs to know about a receiver."""

    __slots__ = ("own", "process", "send", "sent")

    def __init__(self, process: str, send: Callable[[bytes, int], Any], own: bool) -> None:
        self.process = process
        self.send = send
        #: It leads to this very process.
        self.own = own
        #: Number of the last frame.
        self.sent = 0


@mypyc_attr(allow_interpreted_subclasses=True)
class Node:
    """The actors of this process and their way to the others."""

    def __init__(
        self,
        process: str,
        loop: Loop,
        placement: Placement,
        descriptors: Descriptors | None = None,
        on_failure: Callable[[str, str], None] | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        """*process* is this process's name in *placement*; *on_failure* gets (address, reason) when an actor fails.

        A process with many nodes has one *context*, whose threads are theirs, and which outlives them.
        """
        self.process = process
        self.loop = loop
        self.placement = placement
        self.descriptors = self._own_descriptors = descriptors or Descriptors(process, {})
        self._on_failure = on_failure
        self._actors: dict[str, Actor] = {}
        self._ways: dict[tuple[str, str], _Way] = {}
        self._seen: dict[tuple[str, str], int] = {}
        #: The keys of both, by each of the two addresses.
        self._pairs: collections.defaultdict[str, set[tuple[str, str]]] = collections.defaultdict(set)
        #: Addresses of stopped actors whose numbers are still known, oldest first.
        self._gone: collections.deque[str] = collections.deque()
        self._waiting: dict[int, tuple[str, str, Callable[[Message], None]]] = {}
        self._requests = 0
        self._pushes: dict[str, zmq.Socket[bytes]] = {}
        #: Set when this process is traced or replayed: gets every frame that is sent or arrives.
        self.tape: Tape | None = None
        self._has_own_context = context is None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context() if context is None else context
        self._inbox = self._pull(placement.endpoints[process])
        # The binding's own methods: what pyzmq wraps around them is for features that are not used here.
        self._recv: Callable[[int], bytes] = super(zmq.Socket, self._inbox).recv
        self._events: Callable[[int], Any] = super(zmq.Socket, self._inbox).get
        self._own_endpoint = f"inproc://{process} {id(self)} to itself"
        #: Made with the first frame.
        self._own_inbox: zmq.Socket[bytes] | None = None
        self._recv_own: Callable[[int], bytes]
        #: Frames that this process has sent to itself and not received yet.
        self._own_frames = 0
        self._inbox_fd = int(self._inbox.getsockopt(zmq.FD))
        loop.untaped.add(self._inbox_fd)
        loop.watch(self._inbox_fd, select.EPOLLIN, lambda _mask: self._receive())
        loop.settlers.append(self.settle)

    def _pull(self, endpoint: str) -> zmq.Socket[bytes]:
        pull: zmq.Socket[bytes] = self._context.socket(zmq.PULL)
        pull.setsockopt(zmq.RCVHWM, MAX_QUEUED_FRAMES)
        pull.bind(endpoint)
        return pull

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
        for pair in self._pairs.pop(address, ()):
            self._ways.pop(pair, None)
            self._seen.pop(pair, None)
            self._pairs[pair[pair[0] == address]].discard(pair)

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
        """Put one frame on its way. LookupError when the receiver's process is not there (any more)."""
        way = self._ways.get((sender, receiver)) or self._open_way(sender, receiver)
        way.sent = sequence = way.sent + 1
        frame = encode((kind, sequence, sender, receiver, request, message))
        if self.tape is None:
            way.send(frame, _NOBLOCK)
        else:
            self.tape.note(RecordKind.SENT, frame)
            if not self.tape.replaying:
                way.send(frame, _NOBLOCK)
        if way.own:
            self._own_frames += 1

    def _open_way(self, sender: str, receiver: str) -> _Way:
        process = self.placement.process_of(receiver)
        push = self._pushes.get(process) or self._connect(process)
        # The binding's own method, as for receiving.
        way = self._ways[sender, receiver] = _Way(process, super(zmq.Socket, push).send, process == self.process)
        self._note_pair((sender, receiver))
        return way

    def _note_pair(self, pair: tuple[str, str]) -> None:
        for address in pair:
            self._pairs[address].add(pair)

    def ask(self, asker: str, receiver: str, message: Message, resume: Callable[[Message], None]) -> None:
        """Send an ask; *resume* gets the reply, or a Failed when the receiver or its process is gone."""
        self._requests = request = self._requests + 1
        self._waiting[request] = (asker, receiver, resume)
        try:
            self.send(_ASK, asker, receiver, request, message)
        except LookupError as error:
            del self._waiting[request]
            failed = Failed(errno=0, text=str(error), kind="ActorFailed")
            self.loop.call_soon(lambda: resume(failed))

    def answer(self, ask: Parts, message: Message) -> None:
        """Send the reply to an ask."""
        self.send(_REPLY, ask[3], ask[2], ask[4], message)

    def connect(self, process: str) -> None:
        """Connect to a peer process now, so that the first message does not wait for it."""
        if process not in self._pushes:
            self._connect(process)

    def _connect(self, process: str) -> zmq.Socket[bytes]:
        endpoint = self._open_own_inbox() if process == self.process else self.placement.endpoints.get(process)
        if endpoint is None:
            raise LookupError(f"process {process} is gone")
        push: zmq.Socket[bytes] = self._context.socket(zmq.PUSH)
        push.setsockopt(zmq.SNDHWM, MAX_QUEUED_FRAMES)
        push.setsockopt(zmq.LINGER, 500)
        push.connect(endpoint)
        self._pushes[process] = push
        return push

    def _open_own_inbox(self) -> str:
        self._own_inbox = self._pull(self._own_endpoint)
        self._recv_own = super(zmq.Socket, self._own_inbox).recv
        return self._own_endpoint

    def process_lost(self, process: str) -> None:
        """A peer process died: answer every ask that waits for it."""
        for request, (_, receiver, resume) in list(self._waiting.items()):
            if self._lives_in(receiver, process):
                del self._waiting[request]
                resume(Failed(errno=0, text=f"process {process} died; {receiver} may have run it", kind="PeerLost"))
        push = self._pushes.pop(process, None)
        for pair in [pair for pair, way in self._ways.items() if way.process == process]:
            del self._ways[pair]
        if push is not None:
            push.close(linger=0)
        self.placement.endpoints.pop(process, None)

    def _lives_in(self, address: str, process: str) -> bool:
        try:
            return self.placement.process_of(address) == process
        except LookupError:
            return False

    # -- receiving ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Deliver what this process's actors have sent to each other, and what they then send, in order."""
        if not self._own_frames:
            return
        left = FRAMES_PER_CALLBACK
        while self._own_frames and left:
            if self.tape is None:
                self._own_frames -= 1
                left -= 1
                self.deliver(self._recv_own(_NOBLOCK))
            else:
                left -= self._settle_taped(left)
        if self._own_frames:
            self.loop.call_soon(self.settle)

    def _settle_taped(self, limit: int) -> int:
        """Record the next frames as one input, or take them from the record; deliver them and return their number."""
        assert self.tape is not None
        count = min(limit, self._own_frames)
        self._own_frames -= count
        for frame in self.tape.input(RecordKind.FRAMES, lambda: [self._recv_own(_NOBLOCK) for _ in range(count)]):
            self.deliver(frame)
        return count

    def _receive(self) -> None:
        """Take every frame that has come (ZeroMQ's descriptor is edge-triggered: stop only when there is none)."""
        frames = self._drain() if self.tape is None else self.tape.input(RecordKind.FRAMES, self._drain)
        for frame in frames:
            self.deliver(frame)

    def _drain(self) -> list[bytes]:
        """Receive everything. Asking for EVENTS costs a third of a recv that raises Again."""
        frames: list[bytes] = []
        while self._events(_EVENTS) & _POLLIN:
            frames.append(self._recv(_NOBLOCK))
        return frames

    def replay_frames(self) -> None:
        """The next record is frames that woke the loop, or that were on their way before it first turned."""
        if not self._own_frames:
            self._receive()
        self.settle()

    def deliver(self, frame: bytes) -> None:
        """Hand one frame's envelope to its actor, or a reply to the handler that waits for it."""
        try:
            envelope = decode_parts(frame)
        except MalformedFrame as error:
            size = len(frame)
            log.error("malformed frame dropped", process=self.process, reason=str(error), size=size)  # noqa: TRY400  # the reason is enough
            return
        kind, sequence, sender, receiver, request, message = envelope
        pair = (sender, receiver)
        expected = self._seen.get(pair, 0) + 1
        self._seen[pair] = sequence
        if expected == 1:
            self._note_pair(pair)
        actor = self._actors.get(receiver)
        if sequence != expected and actor is not None:
            actor.fail(RuntimeError(f"frame {sequence} from {sender}, expected {expected}"))
        elif kind == _REPLY:
            waiting = self._waiting.pop(request, None)
            if waiting is not None:
                waiting[2](message)
        elif actor is not None:
            actor.receive(envelope)
        else:
            self._refuse(envelope)

    def _refuse(self, envelope: Parts) -> None:
        """Nobody has this address: a tell to the dead is dropped, an ask is answered."""
        kind, _, sender, receiver, _, _ = envelope
        self._seen.pop((sender, receiver), None)
        if kind == _ASK:
            text = f"there is no actor {receiver}"
            self.answer(envelope, Failed(errno=0, text=text, kind="ActorFailed"))

    def close(self) -> None:
        """Close sockets and context; frames already sent get half a second to leave."""
        self.loop.unwatch(self._inbox_fd)
        self.loop.settlers.remove(self.settle)
        for push in self._pushes.values():
            push.close()
        self._inbox.close(linger=0)
        if self._own_inbox is not None:
            self._own_inbox.close(linger=0)
        if self._has_own_context:
            self._context.term()
        self._own_descriptors.close()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
