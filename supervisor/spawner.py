"""The spawner: a small process that forks the processes of sandboxes.

It is forked from the supervisor process before that has any thread or ZeroMQ context, and has imported what a sandbox
needs.  So each child is forked from a clean single-threaded image: that is quick, and children share its pages.

The supervisor asks over a SOCK_SEQPACKET socket; descriptors go beside by SCM_RIGHTS.  The answer is the child's
process id, with a pidfd; its exit is reported when it has been reaped.  A child is made in two steps, *prepare* (fork,
own session, nothing inherited) and *assign* (entry point, configuration, descriptors), so that prepared children can
be kept in stock.

Nobody outlives anybody by accident: children die with the spawner (PR_SET_PDEATHSIG), and the spawner, when the
supervisor's end of the socket closes, kills its children, waits until they and their orphans are gone (it is their
subreaper), removes the supervisor's runtime directory and exits.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pkgutil
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import msgpack  # type: ignore[import-untyped]  # ships no types

from ..actors.runtime.descriptors import receive_fds
from .runtime_directory import RuntimeDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..actors.runtime.loop import Loop

__all__ = ["Prepared", "Spawner", "prepare", "set_process_name"]

#: Descriptors of one spawn request: configuration, report pipe, a socket per peer, a pidfd.
_MAX_DESCRIPTORS = 128
_MAX_REQUEST_BYTES = 4096

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, argument: int | bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    value = argument if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def set_process_name(name: str) -> None:
    """Set this process's comm, which ``ps`` and ``top`` of the host show; Linux keeps 15 bytes."""
    _prctl(_PR_SET_NAME, name.encode()[:15] + b"\0")


class Prepared(NamedTuple):
    """What a supervisor begins with."""

    directory: RuntimeDirectory
    spawner: Spawner

    def abandon(self) -> None:
        """Undo it before it was used."""
        self.spawner.kill()
        self.directory.remove()


def prepare(preload: Sequence[str]) -> Prepared:
    """Make a runtime directory and fork a spawner. As :meth:`Spawner.fork`."""
    directory = RuntimeDirectory.create()
    return Prepared(directory, Spawner.fork(directory, preload))


class Spawner:
    """The supervisor's side: requests, and what has become of them."""

    def __init__(self, channel: socket.socket, pid: int = -1) -> None:
        """Use :meth:`fork`, or :meth:`spawn_spawner`, whose process is not our child and has no *pid* here."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid) if pid > 0 else -1
        self._channel = channel
        self._count = 0
        self._spawned: dict[int, Callable[[int, int], None]] = {}
        self._exited: dict[int, Callable[[int], None]] = {}
        self._lost: Callable[[], None] = lambda: None
        self._called: Callable[[], None] = lambda: None
        self._loop: Loop | None = None

    @classmethod
    def fork(cls, directory: RuntimeDirectory, preload: Sequence[str]) -> Spawner:
        """Fork the spawner process, which imports the modules *preload* and will remove *directory* at the end.

        Call it before this process makes a thread or a ZeroMQ context.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            _run_to_exit(lambda: _SpawnerProcess(theirs, directory, preload).run())
        theirs.close()
        return cls(ours, pid)

    def attach(self, loop: Loop, lost: Callable[[], None]) -> None:
        """Handle answers on *loop*; *lost* is called once when the spawner has died."""
        self._loop, self._lost = loop, lost
        loop.watch(self._channel.fileno(), select.EPOLLIN, lambda _mask: self._receive())

    def spawn_spawner(self) -> Spawner:
        """Return a spawner that is a child of this one, with everything that this one has imported.

        When it dies, only what it forked dies with it. OSError when this spawner is gone.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            with theirs:
                self.spawn(f"{__name__}:serve_another", b"", [null, theirs.fileno()], _let_go, lambda _status: None)
        except OSError:
            ours.close()
            raise
        finally:
            os.close(null)
        return Spawner(ours)

    def call(self, entry: str, argument: str, called: Callable[[], None]) -> None:
        """Make the spawner itself call *entry* ("module:function"): what that leaves behind, later children begin with.

        It must have no children yet, because *entry* may wait for any; *called* is called when it has returned or
        failed. OSError when the spawner is gone.
        """
        self._called = called
        self._channel.send(msgpack.packb((0, entry, argument)))

    def spawn(
        self,
        entry: str,
        config: bytes,
        fds: Sequence[int],
        spawned: Callable[[int, int], None],
        exited: Callable[[int], None],
    ) -> None:
        """Fork a child that calls *entry* ("module:function") with *config* and copies of *fds*.

        The first of *fds* becomes its descriptor 2.  *spawned* gets the process id (or a negative errno) and a pidfd;
        *exited* gets the wait status once the child has been reaped.  OSError when the spawner is gone.
        """
        self._count += 1
        self._spawned[self._count] = lambda pid, pidfd: self._note(pid, pidfd, spawned, exited)
        # In a memory file, because a packet has a size limit which a long list of mounts could exceed.
        memory = os.memfd_create("config")
        try:
            os.write(memory, config)
            request = msgpack.packb((self._count, entry, ""))
            socket.send_fds(self._channel, [request], [memory, *fds])
        finally:
            os.close(memory)

    def _note(self, pid: int, pidfd: int, spawned: Callable[[int, int], None], exited: Callable[[int], None]) -> None:
        if pid > 0:
            self._exited[pid] = exited
        spawned(pid, pidfd)

    def _receive(self) -> None:
        try:
            data, fds = receive_fds(self._channel, _MAX_REQUEST_BYTES, 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self._detach()
            self._lost()
            return
        what, number, value = msgpack.unpackb(data)
        if what == "spawned":
            self._spawned.pop(number)(value, fds[0] if fds else -1)
        elif what == "called":
            self._called()
        elif number in self._exited:
            self._exited.pop(number)(value)

    def _detach(self) -> None:
        if self._loop is not None:
            self._loop.unwatch(self._channel.fileno())
            self._loop = None

    def kill(self) -> None:
        """End a spawner that has forked nothing, whatever it is doing; its directory is left."""
        os.kill(self.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """End the spawner and all that it forked; returns when it is gone, if it is our child. Idempotent."""
        self._detach()
        if self.pidfd < 0:
            self._channel.close()
            return
        self._channel.close()
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.pidfd = -1


def serve_another(_config: bytes, fds: list[int]) -> int:
    """Be the spawner of :meth:`Spawner.spawn_spawner`: the entry point of a child."""
    return _SpawnerProcess(socket.socket(fileno=fds[0]), None, ()).run()


def _let_go(_pid: int, pidfd: int) -> None:
    """Its channel tells of its death."""
    if pidfd >= 0:
        os.close(pidfd)


def _run_to_exit(body: Callable[[], int]) -> NoReturn:
    """Run the whole life of a forked process: no exception and no exit handler of its parent's code gets past here."""
    status = 70  # EX_SOFTWARE of sysexits.h
    try:
        status = body()
    except BaseException:  # noqa: BLE001  # also SystemExit and KeyboardInterrupt end here
        import traceback

        with contextlib.suppress(OSError):
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


class _SpawnerProcess:
    """The spawner process itself: one loop over its socket and its children's deaths."""

    def __init__(self, channel: socket.socket, directory: RuntimeDirectory | None, preload: Sequence[str]) -> None:
        self._channel = channel
        self._directory = directory
        self._preload = preload
        self._children: set[int] = set()
        self._wake_out, self._wake_in = -1, -1

    def run(self) -> int:
        """Serve until the supervisor is gone; return the exit status."""
        if os.getsid(0) != os.getpid():
            os.setsid()
        set_process_name("gr-spawner")
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _close_all_but(self._channel.fileno())
        self._wake_out, self._wake_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wake_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)
        # Whoever started us may have had it blocked, and a mask is inherited.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        self._import()
        _open_null(2)
        self._serve()
        self._end()
        return 0

    def _import(self) -> None:
        for module in self._preload:
            # A module that cannot be imported is reported by the child that needs it.
            with contextlib.suppress(Exception):
                importlib.import_module(module)
        # What exists now is for ever: keeping the collector off it keeps its pages shared.
        gc.freeze()
        gc.enable()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._wake_out, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._wake_out in ready:
                os.read(self._wake_out, 4096)
                self._reap()
            if self._channel.fileno() in ready and not self._handle_request():
                return

    def _handle_request(self) -> bool:
        try:
            data, fds = receive_fds(self._channel, _MAX_REQUEST_BYTES, _MAX_DESCRIPTORS)
        except OSError:
            return False
        if not data:
            return False
        number, entry, argument = msgpack.unpackb(data)
        if number == 0:
            self._call(entry, argument)
            return self._report("called", 0, 0)
        try:
            pid, assignments = self._prepare()
            with assignments:
                socket.send_fds(assignments, [entry.encode()], fds)
        except OSError as error:
            return self._report("spawned", number, -(error.errno or 1))
        finally:
            for fd in fds:
                os.close(fd)
        pidfd = os.pidfd_open(pid)
        try:
            return self._report("spawned", number, pid, pidfd)
        finally:
            os.close(pidfd)

    def _call(self, entry: str, argument: str) -> None:
        with contextlib.suppress(Exception):  # children are then made without what it would have left behind
            pkgutil.resolve_name(entry)(argument)
        gc.collect()
        gc.freeze()

    def _prepare(self) -> tuple[int, socket.socket]:
        """Fork a child that waits for its assignment; return its process id and where to send that."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        spawner = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            _run_to_exit(lambda: _be_child(theirs, spawner))
        theirs.close()
        self._children.add(pid)
        return pid, ours

    def _report(self, what: str, number: int, value: int, *fds: int) -> bool:
        try:
            socket.send_fds(self._channel, [msgpack.packb((what, number, value))], fds)
        except OSError:
            return False
        return True

    def _reap(self) -> None:
        """Reap what has ended. What a child of ours leaves behind is killed: it was part of the same sandbox."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid in self._children:
                    self._children.discard(pid)
                    _kill(_children_of_this_process() - self._children)
                    self._report("exited", pid, status)

    def _end(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                _kill(self._children | _children_of_this_process())
                pid, _ = os.waitpid(-1, 0)
                self._children.discard(pid)
        if self._directory is not None:
            self._directory.remove()


def _children_of_this_process() -> set[int]:
    """Return the children of this process, orphans that it has adopted among them."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return {int(pid) for pid in file.read().split()}
    except FileNotFoundError:
        return set()  # a host kernel without CONFIG_PROC_CHILDREN; tracees die with their tracer in any case


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _be_child(assignments: socket.socket, spawner: int) -> int:
    """Cut every tie with the spawner's process, wait for the assignment and carry it out; return the exit status."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != spawner:
        return 1  # it died before prctl took effect
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _close_all_but(assignments.fileno())
    data, fds = receive_fds(assignments, _MAX_REQUEST_BYTES, _MAX_DESCRIPTORS)
    assignments.close()
    if not data:
        return 0  # kept in stock and not needed
    config, report, *others = fds
    os.dup2(report, 2)
    os.close(report)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115  # for as long as the process lives
    with open(config, "rb") as file:
        file.seek(0)
        content = file.read()
    entry: Callable[[bytes, list[int]], int] = pkgutil.resolve_name(data.decode())
    return entry(content, others)


def _ignore(*_: object) -> None:
    """Handle a signal whose arrival is all that matters: the wake-up descriptor has it."""


def _open_null(fd: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    if null != fd:
        os.dup2(null, fd)
        os.close(null)


def _close_all_but(kept: int) -> None:
    """Close every inherited descriptor except *kept* (above 2) and standard error; put 0 and 1 on /dev/null."""
    _open_null(0)
    _open_null(1)
    os.closerange(3, kept)
    os.closerange(kept + 1, 1 << 20)
