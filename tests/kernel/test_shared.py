"""What the whole sandbox shares: numbers, netlink ports, the log, names, the CPU clock ticker."""

from __future__ import annotations

from errno import EADDRINUSE
from typing import Any

import pytest
from greenroom.actors.kernel import netlink_ports
from greenroom.actors.kernel.identity import Numbers
from greenroom.actors.kernel.netlink_ports import PortManager
from greenroom.actors.kernel.syslog import make_log
from greenroom.actors.kernel.ticker import CpuClockTicker
from greenroom.messages import kernel, task_set
from greenroom.messages.thread_group import Answer, CpuTick


def petition(stage: Any, message: Any) -> Answer:
    """Thread group 4 petitions; return the answer."""
    stage.group.tell("kernel", message)
    stage.settle()
    (answer,) = stage.group.take(Answer)
    assert (answer.tid, answer.petition) == (9, 3)
    return answer


# -- numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unique_id", "inotify_cookie"])
def test_numbers_never_repeat(stage: Any, kind: str) -> None:
    numbers = [petition(stage, kernel.RequestNumber(group=4, tid=9, petition=3, kind=kind)).value for _ in range(3)]
    assert numbers == [1, 2, 3]


def test_inotify_cookies_wrap_past_0() -> None:
    numbers = Numbers(last_inotify_cookie=0xFFFF_FFFE)
    assert [numbers.inotify_cookie() for _ in range(3)] == [0xFFFF_FFFF, 1, 2]


# -- netlink ports ----------------------------------------------------------------------------------------------


def test_a_free_hint_is_the_port(stage: Any) -> None:
    message = kernel.AllocatePort(group=4, tid=9, petition=3, protocol=0, hint=77)
    assert petition(stage, message).value == 77
    assert petition(stage, message).value == -(1 << 31)
    stage.group.tell("kernel", kernel.ReleasePort(protocol=0, port=77))
    assert petition(stage, message).value == 77


def test_protocols_have_their_own_ports() -> None:
    ports = PortManager()
    assert [ports.allocate(protocol, 5) for protocol in (0, 9, 15)] == [5, 5, 5]


def test_a_search_goes_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink_ports, "_FIRST", -4099)
    ports = PortManager()
    assert [ports.allocate(0, 1) for _ in range(4)] == [1, -4099, -4098, -4097]
    ports.release(0, -4098)
    assert ports.allocate(0, 1) == -4098
    with pytest.raises(OSError, match="in use") as caught:
        ports.allocate(0, 1)
    assert caught.value.errno == EADDRINUSE


def test_a_port_that_nobody_has_cannot_be_released() -> None:
    with pytest.raises(KeyError):
        PortManager().release(0, 5)


# -- the log ----------------------------------------------------------------------------------------------------


def test_the_log_is_the_same_at_every_boot_of_a_sandbox(stage: Any) -> None:
    stage.init()
    text = petition(stage, kernel.ReadSyslog(group=4, tid=9, petition=3)).text
    assert text == make_log("box") != make_log("other")
    lines = text.decode().splitlines()
    assert lines[0] == "<6>[   0.000000] Starting greenroom..."
    assert all(line.startswith("<6>[") for line in lines)


# -- names ------------------------------------------------------------------------------------------------------


def test_a_new_host_name_reaches_task_set_and_new_processes(stage: Any) -> None:
    stage.init()
    stage.group.tell("kernel", kernel.SetHostName(name="new", domain=False))
    stage.group.tell("kernel", kernel.SetHostName(name="area", domain=True))
    stage.settle()
    changed = [(m.uts.nodename, m.uts.domainname) for m in stage.asked(task_set.ChangeUts)]
    assert changed == [("new", "domain"), ("new", "area")]
    stage.create()
    assert stage.asked(task_set.CreateProcess)[0].arguments.uts.nodename == "new"


def test_the_supervisor_acts_as_root_and_no_process(stage: Any) -> None:
    stage.init()
    context = stage.kernel.supervisor_context()
    assert (context.mount_namespace, context.root) == ("mount_namespace:1", 7)
    assert (context.credentials().tgid, context.credentials().fsuid) == (0, 0)


# -- the CPU clock ticker -----------------------------------------------------------------------------------------


class FakeLoop:
    """Timers that a test fires."""

    def __init__(self) -> None:
        self.timers: list[Any] = []

    def call_at(self, deadline_ns: int, callback: Any) -> Any:
        timer = FakeTimer(deadline_ns, callback)
        self.timers.append(timer)
        return timer

    def armed(self) -> list[Any]:
        return [t for t in self.timers if not t.cancelled]


class FakeTimer:
    def __init__(self, deadline_ns: int, callback: Any) -> None:
        self.deadline_ns, self.callback, self.cancelled = deadline_ns, callback, False

    def cancel(self) -> None:
        self.cancelled = True

    def fire(self) -> None:
        self.cancelled = True
        self.callback()


def make_ticker(host: Any) -> tuple[CpuClockTicker, FakeLoop, list[tuple[str, Any]]]:
    loop = FakeLoop()
    told: list[tuple[str, Any]] = []
    return CpuClockTicker(loop, host, lambda *message: told.append(message)), loop, told  # type: ignore[arg-type]


def test_the_ticker_runs_only_while_someone_needs_it(stage: Any) -> None:
    ticker, loop, _ = make_ticker(stage.host)
    assert loop.armed() == []
    ticker.subscribe("thread_group:1", needed=True)
    ticker.subscribe("thread_group:2", needed=True)
    assert len(loop.armed()) == 1
    ticker.subscribe("thread_group:1", needed=False)
    assert len(loop.armed()) == 1
    ticker.subscribe("thread_group:2", needed=False)
    assert loop.armed() == []


def test_the_ticker_tells_everyone_100_times_a_second(stage: Any) -> None:
    ticker, loop, told = make_ticker(stage.host)
    ticker.subscribe("thread_group:1", needed=True)
    for _ in range(2):
        (timer,) = loop.armed()
        assert timer.deadline_ns - stage.host.monotonic == 10_000_000
        stage.host.pass_ns(10_000_000)
        timer.fire()
    assert told == [("thread_group:1", CpuTick(count=1)), ("thread_group:1", CpuTick(count=2))]


def test_the_ticker_stands_in_a_pause(stage: Any) -> None:
    stage.run()
    stage.group.tell("kernel", kernel.CpuTicker(needed=True))
    stage.settle()
    assert stage.kernel.ticker.running
    stage.ask(kernel.Pause())
    assert not stage.kernel.ticker.running
    stage.ask(kernel.Unpause())
    assert stage.kernel.ticker.running


def test_the_ticker_ends_with_the_sandbox(stage: Any) -> None:
    pid = stage.run()
    stage.group.tell("kernel", kernel.CpuTicker(needed=True))
    stage.exit(pid)
    assert not stage.kernel.ticker.running
