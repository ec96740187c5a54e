"""The base of all actors: a pykka actor without a thread, scheduled on its process's loop.

pykka gives the actor its life cycle, registry, reference and failure hooks; this module replaces the four places where
pykka would block a thread: the inbox (fed by ZeroMQ frames), the future, the start of the loop and the loop itself.

A handler is a method decorated with :func:`handles`.  It handles its message to the end before the loop takes the next;
or it is a generator that yields :class:`Ask` (or a list of them, asked at once) and is resumed with the answers; or it
returns a :class:`Promise` that the actor itself keeps later.
Between the yields other messages of the same actor are handled, unless the handler is *exclusive*: then they wait in
order, which is what a lock on the actor would have done.

Failure: a guest's error is an OSError raised by the handler of an ask, answered to the asker.  Anything else is a bug:
the asker gets an answer that says so, the actor stops, and its node ends the sandbox with a reason.
"""

from __future__ import annotations

import collections
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pykka
from mypy_extensions import mypyc_attr

from ...messages.base import Done, Failed, Message, Mode
from ...messages.codec import EnvelopeKind
from ...messages.ordering import check_ask

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pykka._envelope import Envelope as PykkaEnvelope

    from ...messages.codec import Parts
    from .node import Node

    #: What an asking handler is: it yields asks and returns its reply.
    Asking = Generator["Ask | list[Ask] | Promise", Any, Any]

__all__ = ["Actor", "ActorFailed", "Ask", "Promise", "Refused", "handlers_of", "handles"]

_F = TypeVar("_F", bound="Callable[..., Any]")

_TELL, _ASK = int(EnvelopeKind.TELL), int(EnvelopeKind.ASK)
_DONE: Final = Done()

#: The method that handles a type of messages, and whether it is exclusive.
Handlers = dict[type[Message], tuple[str, bool]]

#: What :func:`handles` said of methods, which have no attributes of their own when they are compiled.
_marks: dict[Any, list[tuple[type[Message], bool]]] = {}
_handlers: dict[type, Handlers] = {}


class ActorFailed(Exception):
    """The asked actor stopped over a bug of ours, or is not there; the text says which and why."""


class Refused(Exception):
    """An ask was refused for a reason that is no errno; the text tells people what to do."""


class Ask:
    """One question on its way; a handler yields it to wait for the answer."""

    __slots__ = ("message", "receiver")

    def __init__(self, receiver: str, message: Message) -> None:
        self.receiver = receiver
        self.message = message


class Promise:
    """An answer that the actor itself will give later: a handler returns or yields it, ``resolve`` ends the wait."""

    __slots__ = ("_resume", "_settled", "_value")

    def __init__(self) -> None:
        self._resume: Callable[[Any], None] | None = None
        self._settled = False
        self._value: Any = None

    def resolve(self, value: Any = None) -> None:
        """Give the answer; a second one is a bug."""
        if self._settled:
            raise RuntimeError("this promise is kept already")
        self._settled, self._value = True, value
        if self._resume is not None:
            self._resume(value)

    def then(self, resume: Callable[[Any], None]) -> None:
        """Call *resume* with the value, now or when it comes."""
        self._resume = resume
        if self._settled:
            resume(self._value)


def handles(message_type: type[Message], *, exclusive: bool = False) -> Callable[[_F], _F]:
    """Register a method as the handler of *message_type*."""

    def mark(method: _F) -> _F:
        _marks.setdefault(method, []).append((message_type, exclusive))
        return method

    return mark


def handlers_of(actor_class: type) -> Handlers:
    """Return the handlers of a class of actors, with those that it inherits; found once."""
    found = _handlers.get(actor_class)
    if found is None:
        found = _handlers[actor_class] = {}
        for cls in reversed(actor_class.__mro__):
            for name, member in vars(cls).items():
                for message_type, exclusive in _marks_of(member):
                    found[message_type] = (name, exclusive)
    return found


def _marks_of(member: Any) -> list[tuple[type[Message], bool]]:
    return _marks.get(member, []) if callable(member) else []


class _Inbox:
    """What waits for the actor: frames behind an exclusive handler, and what pykka's own references put in."""

    def __init__(self) -> None:
        self.waiting: collections.deque[Parts | PykkaEnvelope[Any]] = collections.deque()
        self.wake: Callable[[], None] = lambda: None

    def put(self, envelope: PykkaEnvelope[Any]) -> None:
        """What pykka's own references call: the actor handles it in the loop's next round."""
        self.waiting.append(envelope)
        self.wake()

    def get(self) -> Any:
        return self.waiting.popleft()

    def empty(self) -> bool:
        return not self.waiting


class _Stopped:
    """Stands for the threading.Event that pykka wants: an actor has no thread that could wait for its end."""

    __slots__ = ("_set",)

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set


class _NoFuture(pykka.Future[Any]):
    """What pykka's own asks get: actors never wait by blocking, they yield an Ask."""

    def get(self, *, timeout: float | None = None) -> Any:
        raise RuntimeError("an actor does not wait on a future: yield an Ask")

    def set(self, value: Any = None) -> None:
        """Nobody waits."""

    def set_exception(self, exc_info: Any = None) -> None:
        """Nobody waits."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Actor(pykka.Actor):
    """An actor with an address on a node. Subclasses own one kind of state and handle messages."""

    def __init__(self, address: str, node: Node) -> None:
        """Do what pykka does, without a random name and an event of threads: 15 us of each fork."""
        self.actor_urn = address
        self.actor_inbox = self._create_actor_inbox()
        self.actor_stopped = _Stopped()  # type: ignore[assignment]
        self._actor_ref = pykka.ActorRef(self)
        self.address = address
        self.node = node
        #: Address of the actor whose message is being handled (valid until the handler's first yield).
        self.sender = ""
        #: Number of exclusive handlers in progress: 0 or 1.
        self._exclusive = 0
        self._scheduled = False
        #: The handlers of messages that have come before, bound.
        self._bound: dict[type[Message], Callable[[Any], Any]] = {}
        self._backlog = self.actor_inbox.waiting  # type: ignore[attr-defined]
        node.add(self)

    # -- for subclasses -----------------------------------------------------------------------------------------

    def tell(self, receiver: str, message: Message) -> None:
        """Send *message* without waiting."""
        self.node.send(_TELL, self.address, receiver, 0, message)

    def ask(self, receiver: str, message: Message, resume: Callable[[Message], None]) -> None:
        """Send *message*; *resume* is called with the reply, in a later turn.

        Handlers rather yield :class:`Ask`, which comes here. WrongAsk when the order forbids it.
        """
        check_ask(self.address, receiver)
        if message.MODE is not Mode.ASK:
            raise TypeError(f"{type(message).__name__} is not an ask")
        self.node.ask(self.address, receiver, message, resume)

    def drive(self, asking: Asking, finish: Callable[[Any, BaseException | None], None]) -> None:
        """Run an asking generator to its end; *finish* gets its return value, or the exception that ended it."""
        _Drive(self, asking, finish).step(None)

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> pykka.ActorRef[Any]:
        """Make an actor and let it run. The node is its registry: pykka's is a list, which each death would search."""
        actor = cls(*args, **kwargs)
        actor._start_actor_loop()
        return actor.actor_ref

    def stop(self) -> None:
        """End now, not in a later turn as pykka does by a message: 20 us of each exit."""
        if not self.actor_stopped.is_set():
            self._stop()
            self._refuse_waiting()

    def _stop(self) -> None:
        self.actor_stopped.set()
        self.on_stop()

    # -- pykka's extension points -------------------------------------------------------------------------------

    @staticmethod
    def _create_actor_inbox() -> Any:
        return _Inbox()

    @staticmethod
    def _create_future() -> pykka.Future[Any]:
        return _NoFuture()

    def _start_actor_loop(self) -> None:
        self.actor_inbox.wake = self._schedule  # type: ignore[attr-defined]
        self._actor_loop_setup()
        if not self.actor_inbox.empty():
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.node.loop.call_soon(self._actor_loop)

    def receive(self, envelope: Parts) -> None:
        """Take a message from the node and handle it now, unless others come first. Never called by a handler."""
        if self._exclusive or self._scheduled:
            self._backlog.append(envelope)
            return
        kind, _, self.sender, _, _, message = envelope
        try:
            result = (self._bound.get(type(message)) or self.on_receive)(message)
        except Exception as error:  # noqa: BLE001  # every failure has its answer
            self._conclude(envelope, None, error)
            return
        if result is None or isinstance(result, Message):
            if kind == _ASK:
                self.node.answer(envelope, result or _DONE)
        elif isinstance(result, Promise):
            result.then(lambda value: self._conclude(envelope, value, None))
        else:
            self.drive(result, partial(self._conclude, envelope))

    def _actor_loop(self) -> None:
        """Handle what is in the inbox; messages behind an exclusive handler wait until it ends."""
        self._scheduled = False
        waiting = self._backlog
        while not self._exclusive and not self.actor_stopped.is_set() and waiting:
            envelope = waiting.popleft()
            if isinstance(envelope, tuple):
                self.receive(envelope)
            else:
                super()._handle_receive(envelope.message)
        if self.actor_stopped.is_set():
            self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        """The actor has stopped: whoever still asks it learns so."""
        while self._backlog:
            envelope = self._backlog.popleft()
            if isinstance(envelope, tuple) and envelope[0] == _ASK:
                self.node.answer(envelope, _failed(ActorFailed(f"{self.address} has stopped")))

    def _conclude(self, envelope: Parts, value: Any, error: BaseException | None) -> None:
        """A handler has ended: answer an ask; a failure that is not the asker's stops the actor."""
        if envelope[0] == _ASK:
            self.node.answer(envelope, (value or _DONE) if error is None else _failed(error))
        if error is not None and (envelope[0] != _ASK or not isinstance(error, (OSError, Refused))):
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Stop over a bug of ours: log it, and let the node end the sandbox."""
        text = "".join(traceback.format_exception(error))
        self.actor_stopped.set()
        self.on_failure(type(error), error, error.__traceback__)
        self.node.actor_failed(self.address, f"{type(error).__name__}: {error}", text)

    def on_stop(self) -> None:
        """Leave the node."""
        self.node.remove(self)

    def on_receive(self, message: Any) -> Any:
        """Dispatch to the handler; an unhandled message type is a bug of the sender."""
        return self._bind(type(message))(message)

    def _bind(self, message_type: type[Message]) -> Callable[[Any], Any]:
        found = handlers_of(type(self)).get(message_type)
        if found is None:
            raise TypeError(f"{self.address} does not handle {message_type.__name__}")
        name, exclusive = found
        handler: Callable[[Any], Any] = getattr(self, name)
        if exclusive:
            handler = partial(self._handle_alone, handler)
        if type(self).on_receive is Actor.on_receive:
            # From now on they come here without it.
            self._bound[message_type] = handler
        return handler

    def _handle_alone(self, handler: Callable[[Any], Any], message: Message) -> Any:
        result = handler(message)
        return self._hold_inbox(result) if hasattr(result, "send") else result

    def _hold_inbox(self, asking: Asking) -> Asking:
        """Run an exclusive handler: other messages wait in the inbox until it ends."""
        self._exclusive += 1
        try:
            return (yield from asking)
        finally:
            self._exclusive -= 1
            self._schedule()


def _failed(error: BaseException) -> Failed:
    """Return what an exception of a handler is to its asker."""
    if isinstance(error, OSError):
        return Failed(errno=error.errno or 0, text=error.strerror or str(error), kind=type(error).__name__)
    return Failed(errno=0, text=str(error), kind=type(error).__name__)


class _Drive:
    """One asking generator in progress. Lives only for bounded waits; nothing here is saved."""

    __slots__ = ("_actor", "_asking", "_finish", "_missing", "_replies")

    def __init__(self, actor: Actor, asking: Asking, finish: Callable[[Any, BaseException | None], None]) -> None:
        self._actor = actor
        self._asking = asking
        self._finish = finish
        self._replies: list[Message | None] = []
        self._missing = 0

    def step(self, reply: Any) -> None:
        asking = self._asking
        try:
            wanted = asking.throw(exception_of(reply)) if type(reply) is Failed else asking.send(reply)
        except StopIteration as stop:
            self._finish(stop.value, None)
        except Exception as error:  # noqa: BLE001  # every failure has its answer
            self._finish(None, error)
        else:
            if not isinstance(wanted, Ask):
                self._wait_for(wanted)
                return
            try:
                self._actor.ask(wanted.receiver, wanted.message, self.step)
            except Exception as error:  # noqa: BLE001  # raise it where the question was asked
                self.step(Failed(errno=0, text=str(error), kind=type(error).__name__))

    def _wait_for(self, wanted: list[Ask] | Promise) -> None:
        if isinstance(wanted, Promise):
            wanted.then(self.step)
        elif not wanted:
            self._actor.node.loop.call_soon(lambda: self.step([]))
        else:
            self._gather(wanted)

    def _gather(self, asks: list[Ask]) -> None:
        """Ask all at once; resume with the replies in order, Failed ones as exceptions in their place."""
        self._replies = [None] * len(asks)
        self._missing = len(asks)
        for index, ask in enumerate(asks):
            self._actor.ask(ask.receiver, ask.message, self._collector(index))

    def _collector(self, index: int) -> Callable[[Message], None]:
        def collect(reply: Message) -> None:
            self._replies[index] = reply
            self._missing -= 1
            if self._missing == 0:
                self.step([exception_of(r) if isinstance(r, Failed) else r for r in self._replies])

        return collect


def exception_of(failed: Failed) -> Exception:
    """Return the exception that a Failed stands for at the asker."""
    if failed.errno:
        return OSError(failed.errno, failed.text)
    if failed.kind == "Refused":
        return Refused(failed.text)
    return ActorFailed(f"{failed.kind}: {failed.text}")
