"""An agent that counts messages: ``python messages.py colocated|split``.

Two actors on the project's own runtime, on one node or in two processes as the sandbox's placement has them.
Operations, in batches of the given count: ``tell`` (many are sent, then one ask answered) and ``ask`` (each is answered
before the next).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from greenroom.actors.runtime.actor import Actor, Ask, handles
from greenroom.actors.runtime.loop import Loop
from greenroom.actors.runtime.node import Node, Placement
from greenroom.messages.timekeeper import ClockState, ReadClocks, SetRealtime

if TYPE_CHECKING:
    from collections.abc import Generator

#: Tells between two asks: no queue grows without limit.
_BURST = 1000
#: Between them stands a process boundary when the placement is split.
_SENDER = "worker:0"
_RECEIVER = "mount_namespace"


class Receiver(Actor):
    """Is told a time and asked for it, as the actors of the kernel's process are by a worker."""

    now = 0

    @handles(SetRealtime)
    def set(self, message: SetRealtime) -> None:
        self.now = message.realtime_ns

    @handles(ReadClocks)
    def read(self, _message: ReadClocks) -> ClockState:
        return ClockState(monotonic_ns=self.now, realtime_ns=self.now, boot_realtime_ns=0)


class Sender(Actor):
    """Has the place of a worker."""

    def tells(self, count: int) -> Generator[Any, Any, None]:
        for first in range(0, count, _BURST):
            last = min(first + _BURST, count) - 1
            for number in range(first, last + 1):
                self.tell(_RECEIVER, SetRealtime(realtime_ns=number))
            state = yield Ask(_RECEIVER, ReadClocks())
            assert state.realtime_ns == last

    def asks(self, count: int) -> Generator[Any, Any, None]:
        for _ in range(count):
            yield Ask(_RECEIVER, ReadClocks())


def _serve(placement: Placement) -> None:
    """Be the receiver's process for as long as the sender's lives."""
    parent = os.getppid()
    loop = Loop()
    with Node("kernel", loop, placement) as node:
        Receiver.start(_RECEIVER, node)
        while os.getppid() == parent:
            loop.turn(1.0)


def _time(sender: Sender, asking: Generator[Any, Any, None]) -> int:
    """Return the nanoseconds that *asking* takes to its end."""
    ended: list[BaseException | None] = []
    begin = time.monotonic_ns()
    # In the loop, as handlers are: what they send to their own process is delivered after them.
    sender.node.loop.call_soon(lambda: sender.drive(asking, lambda _value, error: ended.append(error)))
    while not ended:
        sender.node.loop.turn(None)
    if ended[0] is not None:
        raise ended[0]
    return time.monotonic_ns() - begin


def _answer(sender: Sender) -> None:
    print('{"ready": true}', flush=True)
    for line in sys.stdin:
        operation, _, most = line.split("\t")[:3]
        begin = time.monotonic_ns()
        took = _time(sender, {"tell": sender.tells, "ask": sender.asks}[operation](int(most)))
        answer = {"ns": took / int(most), "count": int(most), "elapsed_ns": time.monotonic_ns() - begin}
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Answer until the input ends."""
    with tempfile.TemporaryDirectory() as directory:
        ends = {name: f"ipc://{directory}/{name}" for name in ("kernel", "worker:0")}
        colocated = sys.argv[1] == "colocated"
        placement = Placement({"sandbox": "inproc://sandbox"} if colocated else ends)
        if not colocated and os.fork() == 0:
            _serve(placement)
            os._exit(0)
        process = placement.process_of(_SENDER)
        with Node(process, Loop(), placement) as node:
            if colocated:
                Receiver.start(_RECEIVER, node)
            Sender.start(_SENDER, node)
            sender = node.actor(_SENDER)
            assert isinstance(sender, Sender)
            _time(sender, sender.asks(1))
            _answer(sender)


if __name__ == "__main__":
    main()
