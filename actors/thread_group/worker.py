"""The Worker actor: what the thread groups of one worker process share.

It owns the platform and its events, the channels and descriptors on which tasks wait, the guest's clocks as Timekeeper
told them, and it creates the ThreadGroup actors of processes that come from outside.

Linux counterpart: the scheduler's wait queues.  Handles CreateThreadGroup, ClockParameters and the worker's part of
save and restore; tells TaskSet nothing by itself.
"""

from __future__ import annotations

import contextlib
import select
from functools import partial
from typing import TYPE_CHECKING, Final

from ...config.limits import MAX_TIMER_NS
from ...messages import thread_group as messages
from ...messages.base import Done
from ...platform.x86_64.xstate import Layout
from ..runtime.actor import Actor, handles
from . import alarm, dispatch, families, file_table, fs_context, ids, leases, templates, vdso
from .actor import ThreadGroup
from .clocks import GuestClock
from .directory import Directory
from .inotify_file import InotifyFile
from .regular_file import RegularFile
from .sys_misc import DEFAULT_UTS
from .syscall_log import SyscallLog

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ...platform.interface import Platform
    from ..runtime.actor import Asking
    from ..runtime.loop import Timer
    from ..runtime.node import Node
    from . import save
    from .host import WorkerHost
    from .pid_file import PidFile
    from .task import Task

__all__ = ["Worker"]

#: How long what a process has in use is taken for the same, in ns.
_RECENT_NS: Final = 10_000_000

families.load_common()


class Worker(Actor):
    """The shared ground of one worker process's thread groups."""

    def __init__(self, address: str, node: Node, *, platform: Platform, host: WorkerHost) -> None:
        super().__init__(address, node)
        self.platform = platform
        #: Every host call of the thread groups goes through this port, so that traces can record and replay it.
        self.host = host
        self.clock = GuestClock(host)
        #: The live thread groups of this worker, by serial number.
        self.groups: dict[int, ThreadGroup] = {}
        #: What uname(2) shows, and the CPUs that the guest is shown: Kernel says both with the first program.
        self.uts = DEFAULT_UTS
        self.application_cores = 1
        self.unsupported_seen: set[int] = set()
        self.syscall_log = SyscallLog.if_wanted()
        #: Alarms that are set, in the order set: they are armed again when the clock changes.
        self.alarms: dict[alarm.Alarm, None] = {}
        #: Tasks that wait for a lock that the kernel hands over, or did not long ago (see ``futex_pi``).
        self.pi_waiters: dict[Task, None] = {}
        self._channels: dict[Hashable, list[Task]] = {}
        self._fd_waits: dict[int, dict[Task, int]] = {}
        self.files = file_table.OpenFiles(self)
        self.leases = leases.Leases(self)
        self.vdsos = vdso.Vdsos(host)
        self.xstate_layout = Layout.of_plain(host.xstate_layout())
        self.ids = ids.GrantedIds(self)
        self.templates = templates.Templates(platform)
        #: The pidfds of processes that have not exited, by the serial of their group.
        self.pid_files: dict[int, list[PidFile]] = {}
        #: A save or a load in progress.
        self.saving: save.Saving | None = None
        self.loading: save.Loading | None = None
        for fd in platform.filenos():
            node.loop.watch(fd, select.EPOLLIN, partial(self._on_platform, fd))

    # -- messages -----------------------------------------------------------------------------------------------

    @handles(messages.CreateThreadGroup)
    def create_thread_group(self, message: messages.CreateThreadGroup) -> Done:
        """Make an empty process; Execute or LoadGroup follows."""
        group = self.new_group(message.group, message.pid)
        group.ppid, group.pgid, group.sid = message.ppid, message.pgid, message.sid
        group.terminal, group.stop_epoch = message.terminal, message.epoch
        group.mount_namespace = message.mount_namespace
        group.fs = fs_context.FsContext.at(message.root)
        return Done()

    @handles(messages.ClockParameters)
    def clock_parameters(self, message: messages.ClockParameters) -> None:
        """Timekeeper has spoken: from now on the guest's clocks read so."""
        self.clock.set_parameters(message)
        alarm.clock_changed(self)

    @handles(messages.GrantIds)
    def grant_ids(self, message: messages.GrantIds) -> None:
        """Ids for births to come."""
        self.ids.granted(message)

    @handles(messages.WatchedExited)
    def watched_exited(self, message: messages.WatchedExited) -> None:
        """The process of some pidfds has exited."""
        for file in self.pid_files.pop(message.group, ()):
            file.process_exited()

    @handles(messages.BeginSave)
    def begin_save(self, message: messages.BeginSave) -> Done:
        """Take the checkpoint's memory file."""
        from . import save  # with five modules, for those who save

        return save.begin(self, message)

    @handles(messages.SaveWorker)
    def save_worker(self, _message: messages.SaveWorker) -> messages.WorkerState:
        """Give the state that the thread groups share."""
        from . import save

        return save.save_worker(self)

    @handles(messages.LoadWorker)
    def load_worker(self, message: messages.LoadWorker) -> Asking:
        """Take it back, on a fresh worker."""
        from . import save

        return save.load_worker(self, message)

    @handles(messages.EventsReady)
    def events_ready(self, message: messages.EventsReady) -> None:
        """Files that an inotify descriptor watches have changed."""
        file = self.files.get(message.file)
        if isinstance(file, InotifyFile):
            file.ready(message.serial)

    @handles(messages.FilesWatched)
    def files_watched(self, message: messages.FilesWatched) -> None:
        """Report from now on what is done to these files."""
        wanted = set(message.handles)
        for file in self.files:
            if file.handle in wanted and isinstance(file, (Directory, RegularFile)):
                file.watched = message.mask

    @handles(messages.LeasesEnded)
    def leases_ended(self, message: messages.LeasesEnded) -> None:
        """What MountNamespace allowed to answer is not so any more."""
        self.leases.ended(message)

    def new_group(self, serial: int, pid: int, forker: ThreadGroup | None = None) -> ThreadGroup:
        """Start a ThreadGroup actor on this node, for a child of *forker*."""
        address = f"thread_group:{serial}"
        ThreadGroup.start(address, self.node, worker=self, group=serial, pid=pid, forker=forker)
        group = self.node.actor(address)
        assert isinstance(group, ThreadGroup)
        self.groups[serial] = group
        return group

    def group(self, serial: int) -> ThreadGroup | None:
        """Return the live ThreadGroup with that serial number, if it is one of this worker's."""
        return self.groups.get(serial)

    def group_of_pid(self, pid: int) -> ThreadGroup | None:
        """Return the live ThreadGroup with that process id, if it is one of this worker's."""
        return next((group for group in self.groups.values() if group.pid == pid), None)

    def cpu_times_ns(self, task: Task) -> tuple[int, int]:
        """Return (user, system) CPU time in ns of a task's host task; zeros when it is gone."""
        try:
            return self.host.cpu_times_ns(task.host.host_tid)
        except OSError:
            return (0, 0)

    def note_resident(self, task: Task) -> None:
        """Look how much memory a task's process has in use, for the peak of it that getrusage(2) reports."""
        with contextlib.suppress(OSError):
            task.memory.max_rss_kib = max(task.memory.max_rss_kib, self.host.resident_kib(task.host.host_tid))

    def recent_resident_kib(self, task: Task, now_ns: int) -> int:
        """Return what a task's process has in use in KiB, as of the last 10 ms: a look takes 15 us of a fork's 400."""
        seen_ns, resident_kib = task.memory.recent_rss
        if not resident_kib or now_ns - seen_ns > _RECENT_NS:
            with contextlib.suppress(OSError):
                resident_kib = self.host.resident_kib(task.host.host_tid)
            task.memory.recent_rss = now_ns, resident_kib
        return resident_kib

    # -- the platform's events ------------------------------------------------------------------------------------

    def _on_platform(self, fileno: int, _mask: int) -> None:
        """Handle what the platform has."""
        settle = self.node.settle
        for event in self.platform.poll(fileno):
            task: Task | None = event.task.owner
            if task is not None:
                try:
                    dispatch.on_event(task, event)
                except Exception as error:  # noqa: BLE001  # a bug in a handler ends this sandbox, not this process
                    task.group.fail(error)
                # What it asks an actor of this process is answered before the next event.
                settle()

    # -- waiting ------------------------------------------------------------------------------------------------

    def wait_on(self, channel: Hashable, task: Task) -> None:
        """Queue *task* on *channel*, in order."""
        self._channels.setdefault(channel, []).append(task)

    def forget(self, channel: Hashable, task: Task) -> None:
        """Take *task* off *channel*."""
        waiting = self._channels.get(channel)
        if waiting is not None and task in waiting:
            waiting.remove(task)
            if not waiting:
                del self._channels[channel]

    def waiters(self, channel: Hashable) -> list[Task]:
        """Return the tasks that wait on *channel*, in order."""
        return list(self._channels.get(channel, ()))

    def wake(self, channel: Hashable, count: int | None = None) -> int:
        """Wake the first *count* tasks (None: all) that wait on *channel*; return how many."""
        woken = self.waiters(channel)[:count]
        for task in woken:
            dispatch.wake(task)
        return len(woken)

    def wait_for_fd(self, fd: int, events: int, task: Task) -> None:
        """Wake *task* when host descriptor *fd* has any of *events* (EPOLLHUP and EPOLLERR always count)."""
        waiting = self._fd_waits.setdefault(fd, {})
        waiting[task] = waiting.get(task, 0) | events
        self._watch(fd, waiting)

    def forget_fd(self, fd: int, task: Task) -> None:
        """Take *task* off *fd*."""
        waiting = self._fd_waits.get(fd)
        if waiting is None or waiting.pop(task, None) is None:
            return
        if waiting:
            self._watch(fd, waiting)
        else:
            del self._fd_waits[fd]
            self.node.loop.unwatch(fd)

    def _watch(self, fd: int, waiting: dict[Task, int]) -> None:
        mask = 0
        for events in waiting.values():
            mask |= events
        self.node.loop.watch(fd, mask, lambda ready: self._on_fd(fd, ready))

    def _on_fd(self, fd: int, ready: int) -> None:
        for task, events in list(self._fd_waits.get(fd, {}).items()):
            if ready & (events | select.EPOLLERR | select.EPOLLHUP):
                dispatch.wake(task)

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Call back when the guest's CLOCK_MONOTONIC reaches *deadline_ns*.

        Early calls are possible, after a pause and for a deadline that is very far away: look again.
        """
        latest = self.host.monotonic_ns() + MAX_TIMER_NS
        return self.node.loop.call_at(min(self.clock.to_host(deadline_ns), latest), callback)
