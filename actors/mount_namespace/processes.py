"""The processes whose names /proc shows, as TaskSet tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...messages.mount_namespace import Credentials

__all__ = ["Process", "ProcessTable"]


class Process:
    """What /proc/PID's names depend on."""

    __slots__ = ("gid", "pid", "seen", "tids", "uid")

    def __init__(self, pid: int, uid: int, gid: int, tids: tuple[int, ...], seen: bool) -> None:
        self.pid = pid
        self.uid = uid
        self.gid = gid
        #: The keys are the threads, in no particular order.
        self.tids = dict.fromkeys(tids)
        #: TaskSet told of it; otherwise it was only met as the asker of a request that came before.
        self.seen = seen


class ProcessTable:
    """Visible processes by pid."""

    def __init__(self) -> None:
        self.by_pid: dict[int, Process] = {}

    def see(self, pid: int, uid: int, gid: int, tids: tuple[int, ...]) -> None:
        """TaskSet told of a birth or a change."""
        self.by_pid[pid] = Process(pid, uid, gid, tids, True)

    def see_thread(self, pid: int, tid: int, *, gone: bool) -> None:
        """TaskSet told of the birth or death of one thread among others."""
        process = self.by_pid.get(pid)
        if process is None:
            return
        if gone:
            process.tids.pop(tid, None)
        else:
            process.tids[tid] = None

    def forget(self, pid: int) -> None:
        """TaskSet told that it was reaped."""
        self.by_pid.pop(pid, None)

    def of(self, pid: int, who: Credentials) -> Process | None:
        """Return a visible process; the asker itself always is."""
        process = self.by_pid.get(pid)
        if process is None and pid == who.tgid:
            process = self.by_pid[pid] = Process(pid, who.fsuid, who.fsgid, (who.tid,), False)
        return process
