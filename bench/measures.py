"""How a row is measured on a system: one sample each time.

A *session* is what a round has of one system: the guest's agent inside a sandbox, and the warm process that makes
sandboxes.  Both are started when first asked, live for the round and are replaced after a failure, so a fresh sandbox
every round is part of the noise that is seen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .agent import Agent
from .processes import Failure, Program, proportional_bytes, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .fixtures import Fixtures
    from .systems import System

__all__ = [
    "Budget",
    "FromOutside",
    "Growth",
    "Idle",
    "IdleFurther",
    "InGuest",
    "Measure",
    "Messages",
    "Served",
    "Session",
    "Throughput",
    "WarmSandbox",
]

_PROGRAMS = Path(__file__).resolve().parent / "programs"
#: More than fit in any budget.
_NO_LIMIT = 1_000_000_000
#: Sandboxes that are made before those that count.
_WARM_SANDBOXES = 2
#: Runs with a service that make one sample.
_SERVED = 5
_TRUE = ("/bin/true",)
_FIXTURE = re.compile(r"\{(\w+)\}")


@dataclasses.dataclass(frozen=True)
class Budget:
    """What one sample may take."""

    #: Microseconds for one kernel operation in a loop; and for whole programs, and computing.
    call_us: int = 20_000
    program_us: int = 150_000
    #: Numbers of idle sandboxes, ascending.
    idle: tuple[int, ...] = (1, 10)
    #: Sandboxes that are made for one sample of the throughput.
    throughput: int = 20


class Session:
    """One system during one round."""

    def __init__(self, system: System, fixtures: Fixtures, budget: Budget) -> None:
        """Nothing is started yet."""
        self.system = system
        self.fixtures = fixtures
        self.budget = budget
        self.work = fixtures.new_work()
        self._agents: dict[str, Agent] = {}
        self._idle: dict[int, int] = {}

    def guest(self) -> Agent:
        """Return the agent inside a sandbox of the system. Failure."""
        return self._agent("guest", self.system.argv((self.fixtures.guest,), self.work))

    def grown(self, kind: str) -> Agent:
        """Return the agent that has made many of a kind, and is no measure of anything else any more. Failure.

        The stacks of a thousand threads stay with a process, and make each later fork of it ten times as dear.
        """
        return self._agent(kind, self.system.argv((self.fixtures.guest,), self.work))

    def warm(self) -> Agent:
        """Return the process that makes sandboxes. Failure."""
        return self._agent("warm", self._warm_command())

    def messages(self, placement: str) -> Agent:
        """Return the process that counts messages. Failure."""
        return self._agent(placement, [sys.executable, "-I", str(_PROGRAMS / "messages.py"), placement])

    @contextlib.contextmanager
    def service(self, timeout_s: float) -> Iterator[None]:
        """Have greenroom's supervisor run, which its command line then finds. Failure."""
        with Program([self.system.prefix[0], "serve"], self.work, talk=True) as program:
            program.read_line(timeout_s)
            yield
            # As who ends a service does; then it leaves nothing behind for the rows that want none.
            program.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.process.wait(timeout_s)

    def _warm_command(self) -> list[str]:
        return [sys.executable, "-I", str(_PROGRAMS / "warm.py"), *self.system.warm_arguments(self.work)]

    def _agent(self, name: str, argv: list[str]) -> Agent:
        if name not in self._agents:
            self._agents[name] = Agent(argv, self.work)
        return self._agents[name]

    def idle_bytes(self, timeout_s: float) -> dict[int, int]:
        """Return the PSS of numbers of idle sandboxes, in bytes; measured once. Failure.

        The process that holds them counts for what it has grown: greenroom's supervisor is in it, the harness is not.
        """
        if not self._idle:
            with contextlib.closing(Agent(self._warm_command(), self.work)) as agent:
                before = proportional_bytes(agent.pid)
                deadline = time.monotonic() + timeout_s
                for count in self.budget.idle:
                    agent.ask("idle", deadline - time.monotonic(), most=count)
                    self._idle[count] = proportional_bytes(agent.pid) - before
        return self._idle

    def give_up(self) -> None:
        """After a failure: agents are of no more use, and nobody knows what they have left in the directory."""
        self.close()
        self.work = self.fixtures.new_work()

    def close(self) -> None:
        """End what was started."""
        while self._agents:
            self._agents.popitem()[1].close()


class Measure(Protocol):
    """A way to get one sample."""

    def sample(self, session: Session, timeout_s: float) -> float:
        """Return one: seconds, bytes or a rate, as its row says. Failure."""


@dataclasses.dataclass(frozen=True)
class InGuest:
    """An operation of the guest's agent, in a loop: seconds for one."""

    operation: str
    #: A program to run; names in braces are attributes of the fixtures.
    args: tuple[str, ...] = ()
    #: Whether it is a whole program, or computes.
    program: bool = False

    def sample(self, session: Session, timeout_s: float) -> float:
        """Return seconds for one."""
        budget = session.budget.program_us if self.program else session.budget.call_us
        args = _filled(self.args, session)
        return session.guest().ask(self.operation, timeout_s, budget_us=budget, most=_NO_LIMIT, args=args)


@dataclasses.dataclass(frozen=True)
class Growth:
    """COUNT of a kind are made, used and removed: seconds for one of them."""

    kind: str
    count: int

    def sample(self, session: Session, timeout_s: float) -> float:
        """Return seconds for one."""
        return session.grown(self.kind).ask(f"many-{self.kind}", timeout_s, most=self.count)


@dataclasses.dataclass(frozen=True)
class FromOutside:
    """A whole run of a program, the system's start and end included: seconds."""

    argv: tuple[str, ...]

    def sample(self, session: Session, timeout_s: float) -> float:
        """Return seconds."""
        return run(session.system.argv(self.argv, session.work), session.work, timeout_s)


@dataclasses.dataclass(frozen=True)
class Served:
    """A whole run of a program by greenroom's command line while ``greenroom serve`` runs: seconds.

    A service is there for long, so the first runs after its start do not count, as with sandboxes of a warm process.
    """

    argv: tuple[str, ...]

    def sample(self, session: Session, timeout_s: float) -> float:
        """Return seconds."""
        with session.service(timeout_s):
            for _ in range(_WARM_SANDBOXES):
                run(session.system.argv(_TRUE, session.work), session.work, timeout_s)
            argv = session.system.argv(self.argv, session.work)
            return statistics.median(run(argv, session.work, timeout_s) for _ in range(_SERVED))


@dataclasses.dataclass(frozen=True)
class WarmSandbox:
    """A sandbox made, used for /bin/true and closed, from a Python process that lives on: seconds."""

    def sample(self, session: Session, timeout_s: float) -> float:
        """Return seconds for one."""
        agent = session.warm()
        agent.ask("throughput", timeout_s, most=_WARM_SANDBOXES, args=["1"])
        return agent.ask("sandbox", timeout_s, budget_us=session.budget.program_us, most=_NO_LIMIT)


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Sandboxes per second, from several threads of a Python process."""

    threads: int = 4

    def sample(self, session: Session, timeout_s: float) -> float:
        """Return a rate."""
        agent = session.warm()
        return 1 / agent.ask("throughput", timeout_s, most=session.budget.throughput, args=[str(self.threads)])


@dataclasses.dataclass(frozen=True)
class Idle:
    """Memory of COUNT sandboxes with an idle shell in each: bytes, shared pages by their part."""

    count: int

    def sample(self, session: Session, timeout_s: float) -> float:
        """Return bytes."""
        found = session.idle_bytes(timeout_s)
        if self.count not in found:
            raise Failure(f"{self.count} are for --full", final=True)
        return found[self.count]


@dataclasses.dataclass(frozen=True)
class IdleFurther:
    """Memory of each further idle sandbox, between the two greatest numbers: bytes."""

    def sample(self, session: Session, timeout_s: float) -> float:
        """Return bytes."""
        found = session.idle_bytes(timeout_s)
        few, many = sorted(found)[-2:]
        return (found[many] - found[few]) / (many - few)


@dataclasses.dataclass(frozen=True)
class Messages:
    """Messages per second from one actor to another: a tell, or an ask with its answer."""

    operation: str
    placement: str
    count: int = 5000

    def sample(self, session: Session, timeout_s: float) -> float:
        """Return a rate."""
        return 1 / session.messages(self.placement).ask(self.operation, timeout_s, most=self.count)


def _filled(args: Sequence[str], session: Session) -> list[str]:
    """Return *args* with the paths of fixtures in the places of their names."""
    return [_FIXTURE.sub(lambda found: str(getattr(session.fixtures, found[1])), arg) for arg in args]
