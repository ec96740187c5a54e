"""The stock of prepared sandboxes: limits, refill, death of a member, and that nothing is left of it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from greenroom.config.spec import SandboxSpec
from greenroom.messages import supervisor as messages
from greenroom.messages.base import Done
from greenroom.supervisor.stock import Shape
from hosts import TurnedHost, command, start_script, wait_for_death

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenroom.supervisor.actor import Supervisor

LIMIT = 2


@pytest.fixture
def stocked() -> Iterator[TurnedHost]:
    turned = TurnedHost(stock_limit=LIMIT)
    yield turned
    turned.host.close()


def create(turned: TurnedHost, spec: SandboxSpec | None = None) -> Supervisor:
    reply = turned.request(messages.CreateSandbox(spec=spec or SandboxSpec()))
    assert isinstance(reply, messages.SandboxCreated), reply
    return turned.host.sandboxes[reply.sandbox]


def fill(turned: TurnedHost, count: int) -> list[Supervisor]:
    """Turn until *count* members are prepared; return them."""
    members = turned.host.stock.members
    turned.until(lambda: [member.prepared for member in members] == [True] * count)
    return list(members)


def pid_of(sandbox: Supervisor) -> int:
    return next(iter(sandbox.host_pids.values()))


def test_the_first_sandbox_makes_a_member_and_the_second_one_is_it(stocked: TurnedHost) -> None:
    create(stocked, SandboxSpec(name="first"))
    [member] = fill(stocked, 1)
    assert member.spec.name == ""
    second = create(stocked, SandboxSpec(name="second", hostname="other"))
    assert second is member
    assert (second.spec.name, second.spec.hostname) == ("second", "other")


def test_without_a_stock_every_sandbox_is_made_when_it_is_asked_for(turned: TurnedHost) -> None:
    create(turned)
    assert turned.host.stock.members == []
    create(turned)
    assert turned.host.stock.members == []


def test_the_stock_grows_with_demand_up_to_its_limit(stocked: TurnedHost) -> None:
    for _ in range(LIMIT + 2):
        create(stocked)
    fill(stocked, LIMIT)
    stocked.host.loop.turn(0.0)
    assert len(stocked.host.stock.members) == LIMIT


def test_a_member_that_was_taken_is_replaced(stocked: TurnedHost) -> None:
    create(stocked)
    [first] = fill(stocked, 1)
    create(stocked)
    [second] = fill(stocked, 1)
    assert pid_of(first) != pid_of(second)


def test_nobody_gets_a_member_that_has_died(stocked: TurnedHost) -> None:
    """Not even when its death has not been read yet."""
    create(stocked)
    [member] = fill(stocked, 1)
    pid = pid_of(member)
    os.kill(pid, signal.SIGKILL)
    wait_for_death(pid)
    sandbox = create(stocked)
    assert sandbox is not member
    fill(stocked, stocked.host.stock.wanted)


def test_a_member_that_died_is_replaced(stocked: TurnedHost) -> None:
    create(stocked)
    [member] = fill(stocked, 1)
    os.kill(pid_of(member), signal.SIGKILL)
    stocked.until(lambda: member not in stocked.host.stock.members)
    [other] = fill(stocked, 1)
    assert other is not member


def test_members_that_die_again_and_again_are_not_replaced_until_somebody_asks(stocked: TurnedHost) -> None:
    create(stocked)
    for _ in range(LIMIT + 1):
        [member] = fill(stocked, 1)
        os.kill(pid_of(member), signal.SIGKILL)
        stocked.until(lambda dead=member: dead not in stocked.host.stock.members)
    assert stocked.host.stock.wanted == 0
    create(stocked)
    fill(stocked, 1)


def test_the_limit_of_its_preparation_is_not_that_of_its_start(stocked: TurnedHost) -> None:
    """A member that is given away late has all the time that others have."""
    create(stocked)
    [member] = fill(stocked, 1)
    [limit] = member._timers
    create(stocked)
    assert limit.cancelled


def test_a_killed_spawner_of_members_ends_what_came_from_it_and_no_more(stocked: TurnedHost) -> None:
    """The next member has a new one."""
    first = create(stocked, SandboxSpec(name="first"))
    fill(stocked, 1)
    second = create(stocked, SandboxSpec(name="second"))
    fill(stocked, 1)
    with open(f"/proc/{pid_of(second)}/stat", encoding="ascii") as file:
        spawner = int(file.read().rpartition(")")[2].split()[1])
    assert spawner != stocked.spawner.pid
    os.kill(spawner, signal.SIGKILL)
    stocked.until(lambda: "second" not in stocked.host.sandboxes)
    assert "first" in stocked.host.sandboxes
    assert first.state.value == "running"
    fill(stocked, 1)
    assert isinstance(create(stocked, SandboxSpec(name="third")), type(first))


def test_a_sandbox_that_finds_no_member_comes_from_the_spawner_that_has_rehearsed(stocked: TurnedHost) -> None:
    stocked.host.roles = {**stocked.host.roles, "rehearsal": "fake_sandbox:rehearse"}
    assert create(stocked).spawner is stocked.spawner
    [member] = fill(stocked, 1)
    assert create(stocked) is member
    other = stocked.host.create(SandboxSpec())
    assert other is not member
    assert other.spawner is member.spawner
    stocked.host.boot(other, lambda _reply: None)


def test_whoever_expects_the_stock_to_be_filled_is_told_once(stocked: TurnedHost) -> None:
    told: list[int] = []
    stocked.host.stock.expect(SandboxSpec(), lambda: told.append(len(stocked.host.stock.members)))
    assert told == []
    stocked.until(lambda: bool(told))
    create(stocked)
    fill(stocked, 1)
    assert told == [1]


def test_whoever_expects_a_stock_that_cannot_be_filled_is_told_so(stocked: TurnedHost) -> None:
    told: list[str] = []
    stocked.host.stock.expect(SandboxSpec(trace="/nowhere"), lambda: told.append("no"))
    assert told == ["no"]


def test_a_sandbox_of_another_shape_is_no_member(stocked: TurnedHost) -> None:
    """Its kind of process is another; the stock is of its shape from then on."""
    create(stocked)
    [member] = fill(stocked, 1)
    split = create(stocked, SandboxSpec(placement="split"))
    assert split is not member
    assert set(split.host_pids) == {"kernel", "worker:0"}
    [other] = fill(stocked, 1)
    assert other.spec.placement == "split"
    assert create(stocked, SandboxSpec(placement="split")) is other


@pytest.mark.parametrize("field", ["trace", "log_json"])
def test_a_sandbox_that_writes_a_record_is_made_for_it(field: str) -> None:
    assert Shape.of(SandboxSpec(**{field: "/somewhere"})) is None


def test_members_are_no_sandboxes_to_clients(stocked: TurnedHost) -> None:
    sandbox = create(stocked)
    fill(stocked, 1)
    listed = stocked.request(messages.ListSandboxes())
    assert isinstance(listed, messages.SandboxList)
    assert [row.sandbox for row in listed.rows] == [sandbox.spec.name]


def test_an_idle_stock_is_dropped_and_comes_back(stocked: TurnedHost) -> None:
    create(stocked)
    [member] = fill(stocked, 1)
    pid = pid_of(member)
    stocked.host.stock.drop()
    wait_for_death(pid)
    stocked.until(lambda: stocked.host.stock.leaving == [])
    assert stocked.host.stock.members == []
    create(stocked)
    fill(stocked, 1)


def test_sandboxes_from_the_stock_run_programs_and_end(stocked: TurnedHost) -> None:
    """A hundred, one after the other: neither descriptors nor processes add up."""
    create(stocked)
    fill(stocked, 1)
    before = 0
    for number in range(100):
        sandbox = create(stocked)
        started = stocked.request(messages.Execute(sandbox=sandbox.spec.name, command=command("exit:3"), streams=0))
        assert isinstance(started, messages.ProcessStarted)
        assert stocked.request(messages.KillSandbox(sandbox=sandbox.spec.name)) == Done()
        fill(stocked, stocked.host.stock.wanted)
        if number == 10:
            before = len(os.listdir("/proc/self/fd"))
    assert len(os.listdir("/proc/self/fd")) <= before
    assert len(stocked.host.sandboxes) == 1


_SUPERVISOR = """
from hosts import TurnedHost
from greenroom.config.spec import SandboxSpec
from greenroom.messages import supervisor as messages
turned = TurnedHost(stock_limit=2)
turned.request(messages.CreateSandbox(spec=SandboxSpec()))
stock = turned.host.stock
turned.until(lambda: bool(stock.members) and stock.members[0].prepared)
print(*stock.members[0].host_pids.values(), turned.spawner.pid, flush=True)
input()
"""


def test_members_do_not_outlive_a_killed_supervisor() -> None:
    script = start_script(_SUPERVISOR)
    assert script.stdout is not None
    pids = [int(pid) for pid in script.stdout.readline().split()]
    script.kill()
    script.communicate()
    for pid in pids:
        wait_for_death(pid)
