r"""Sandboxes for Python programs: ``Sandbox`` and ``Snapshot``.

>>> with Sandbox.create() as sb:
...     sb.run("/bin/echo", "hello").stdout
b'hello\n'
"""

from __future__ import annotations

import builtins
import contextlib
import datetime as dt
import os
import shutil
import tempfile
import weakref
from typing import TYPE_CHECKING, NamedTuple

from ..config.logging import get_logger
from ..config.spec import DEFAULT_PLACEMENT, BindMount, Command, SandboxSpec, default_platform, parse_bind
from ..messages import supervisor as messages
from ..messages.base import Done
from .client import Connection, all_connections, connection_to, own_supervisor
from .errors import SandboxEnded, SandboxFailed, SandboxNotFound, SpecError, SupervisorError, TimedOut
from .program import Process, Result, returncode_of
from .streams import NULL_STREAM

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..messages.task_set import ProcessRow

__all__ = ["Sandbox", "SandboxInfo", "Snapshot"]

#: Seconds for a supervisor to say what it knows by heart.
_LIST_LIMIT_S = 10.0

log = get_logger(__name__)


class SandboxInfo(NamedTuple):
    """One sandbox in detail."""

    id: str
    #: "starting", "running", "paused", "saving", "ending" or "ended".
    state: str
    created: dt.datetime
    #: The first program with its arguments; "" while there was none.
    command: str
    #: Why it ended; "" while it runs.
    reason: str
    spec: SandboxSpec
    supervisor_pid: int
    #: How system calls are caught: "notify" or "ptrace"; "" while it starts.
    platform: str
    #: Host process ids of its other processes, by name.
    host_pids: dict[str, int]


class Sandbox:
    """A sandbox: a Linux of its own for programs that you do not trust.

    Use it as a context manager, which kills it at the end.  It ends with this process in any case.  Methods may be
    called from several threads.
    """

    def __init__(self, connection: Connection, name: str, spec: SandboxSpec) -> None:
        """Refer to a sandbox that runs; :meth:`create` and :meth:`get` are the ways to one."""
        self._connection = connection
        self._spec = spec
        #: Its name, by which ``greenroom`` commands and :meth:`get` know it.
        self.id = name

    @classmethod
    def create(
        cls,
        image: str | None = None,
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        user: str = "root",
        mounts: Iterable[BindMount | str] = (),
        network: str = "none",
        limits: Mapping[str, int] | None = None,
        timeout: float | None = None,
        record: str | os.PathLike[str] | None = None,
        hostname: str = "greenroom",
        platform: str | None = None,
        placement: str | None = None,
    ) -> Sandbox:
        """Start a sandbox.

        Args:
            image: Host directory whose files it sees below its own; None: the host's root. Nothing there changes.
            name: Its id, unique among your running sandboxes; None: one is made up.
            env: Variables on top of a small clean environment (PATH, HOME, LANG, TERM).
            cwd: Working directory of programs that name none.
            user: Who programs run as: a user's name, "UID" or "UID:GID".
            mounts: Host directories that it sees: BindMount, or "SRC:DST[:ro]".
            network: Only "none".
            limits: Soft resource limits of programs by name, such as {"nofile": 1024}; bytes, seconds or counts.
            timeout: Seconds until the sandbox is killed; None: never.
            record: Host file that gets the trace, for `greenroom trace`.
            hostname: Its host name.
            platform: How system calls are caught: "notify", "ptrace", or "auto", the faster that the host allows;
                None: what GREENROOM_PLATFORM says, else "auto".
            placement: "colocated" or "split"; None: the faster one.

        Raises SpecError, NameInUse, SandboxFailed, SupervisorError.

        """
        spec = SandboxSpec(
            name=name or "",
            hostname=hostname,
            root=os.path.abspath(image) if image is not None else "/",
            platform=platform or default_platform(),
            placement=placement or DEFAULT_PLACEMENT,
            mounts=tuple(parse_bind(mount) if isinstance(mount, str) else mount for mount in mounts),
            network=network,
            cwd=cwd,
            user=user,
            limits=dict(limits or {}),
            timeout_ns=_nanoseconds(timeout),
            trace=os.path.abspath(record) if record is not None else "",
        )
        spec.env.update(env or {})
        connection = own_supervisor()
        made = connection.request(messages.CreateSandbox(spec=spec), messages.SandboxCreated)
        return cls(connection, made.sandbox, spec)

    @classmethod
    def get(cls, id: str) -> Sandbox:  # noqa: A002  # the name that users of docker-py know
        """Return a running sandbox of yours, whoever started it. SandboxNotFound."""
        connection = connection_to(id)
        found = connection.request(messages.DescribeSandbox(sandbox=id), messages.SandboxDescription)
        return cls(connection, id, found.spec)

    @classmethod
    def list(cls) -> list[SandboxInfo]:
        """Return all running sandboxes of yours, oldest first. A supervisor that does not answer is warned of."""
        found = []
        for connection in all_connections():
            try:
                rows = connection.request(messages.ListSandboxes(), messages.SandboxList, _LIST_LIMIT_S).rows
                for row in rows:
                    with contextlib.suppress(SandboxNotFound):  # it ends just now
                        found.append(_info(connection, row.sandbox))
            except (SupervisorError, TimedOut) as error:
                log.warning("a supervisor was left out", pid=connection.supervisor_pid, reason=str(error))
            finally:
                connection.close()
        return sorted(found, key=lambda info: info.created)

    # -- programs -----------------------------------------------------------------------------------------------

    def run(
        self,
        *argv: str | bytes,
        input: bytes | None = None,  # noqa: A002  # as subprocess.run has it
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> Result:
        """Run a program to its end.

        *input* is its standard input, *env* is set on top of the sandbox's, *timeout* is in seconds. ExecError when it
        cannot be executed; TimedOut, when it and its process group have been killed; with *check* CommandFailed
        unless it returns 0; SandboxEnded, SandboxFailed.
        """
        process = self.exec(*argv, env=env, cwd=cwd, user=user)
        try:
            stdout, stderr = process.communicate(input, timeout)
        except TimedOut:
            raise TimedOut(f"{process.argv[0]} has not ended within {timeout} s and was killed") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(SandboxEnded, SandboxNotFound, SupervisorError):
                    process.kill_group()
            process.close()
        result = Result(process.argv, process.wait(), stdout, stderr)
        return result.check() if check else result

    def shell(
        self,
        script: str,
        *,
        input: bytes | None = None,  # noqa: A002
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> Result:
        """Run *script* with /bin/sh; the rest as :meth:`run`."""
        return self.run("/bin/sh", "-c", script, input=input, env=env, cwd=cwd, user=user, timeout=timeout, check=check)

    def exec(
        self,
        *argv: str | bytes,
        tty: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
    ) -> Process:
        """Start a program and return at once; its streams are pipes, or with *tty* a terminal of 24 by 80.

        ExecError when it cannot be executed; SandboxEnded, SandboxFailed.
        """
        return Process(self._connection, self.id, self._command(argv, tty=tty, env=env, cwd=cwd, user=user))

    def exec_with_streams(
        self,
        argv: Sequence[str | bytes],
        streams: Sequence[int],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
    ) -> Process:
        """Start a program on three descriptors of this process (NULL_STREAM, CLOSED_STREAM), which stay open here."""
        command = self._command(argv, tty=False, env=env, cwd=cwd, user=user)
        return Process(self._connection, self.id, command, streams)

    def _command(
        self,
        argv: Sequence[str | bytes],
        *,
        tty: bool,
        env: Mapping[str, str] | None,
        cwd: str | None,
        user: str | None,
    ) -> Command:
        return Command(
            argv=tuple(os.fsencode(argument) for argument in argv),
            envv=tuple(os.fsencode(f"{key}={value}") for key, value in {**self._spec.env, **(env or {})}.items()),
            cwd=self._spec.cwd if cwd is None else cwd,
            user=user or self._spec.user,
            terminal=tty,
            limits=self._spec.limits,
        )

    # -- the sandbox as a whole ---------------------------------------------------------------------------------

    def pause(self) -> None:
        """Stop every program and the clocks. Pauses nest: as many :meth:`resume` let it go on."""
        self._connection.request(messages.PauseSandbox(sandbox=self.id), Done)

    def resume(self) -> None:
        """Undo one :meth:`pause`. GreenroomError when there was none."""
        self._connection.request(messages.ResumeSandbox(sandbox=self.id), Done)

    def snapshot(self) -> Snapshot:
        """Save its state and let it go on. CheckpointError."""
        snapshot = Snapshot.temporary()
        self.save(snapshot.path)
        return snapshot

    def save(self, path: str | os.PathLike[str], *, leave_running: bool = True) -> None:
        """Write a checkpoint to *path*, which is replaced when it exists; then end it unless *leave_running*."""
        request = messages.SaveSandbox(sandbox=self.id, path=os.path.abspath(path), leave_running=leave_running)
        self._connection.request(request, messages.SandboxSaved)

    def send_signal(self, signal: int) -> None:
        """Send its first program a signal. ProcessLookupFailed when that has ended."""
        request = messages.SignalProcess(sandbox=self.id, pid=0, signo=signal, foreground=False)
        self._connection.request(request, Done)

    def kill(self) -> None:
        """End it and everything in it; returns when nothing is left. Harmless when it has ended."""
        with contextlib.suppress(SandboxEnded, SandboxNotFound):
            self._connection.request(messages.KillSandbox(sandbox=self.id), Done)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the sandbox has ended; return its first program's return code (-9 when it was killed).

        TimedOut after *timeout* seconds; SandboxFailed when greenroom or the host failed.
        """
        report = self._connection.request(messages.WaitSandbox(sandbox=self.id), messages.EndReport, timeout)
        if report.cause == "failed":
            raise SandboxFailed(f"sandbox {self.id!r} has ended: {report.reason}")
        return returncode_of(report.status) if report.status >= 0 else -9

    def info(self) -> SandboxInfo:
        """Return what is known about it. SandboxNotFound."""
        return _info(self._connection, self.id)

    def ps(self) -> builtins.list[ProcessRow]:
        """Return the processes in it, by process id."""
        found = self._connection.request(messages.ListGuestProcesses(sandbox=self.id), messages.GuestProcesses)
        return [*found.rows]

    def __enter__(self) -> Sandbox:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it."""
        self.kill()

    def __repr__(self) -> str:
        """Show its id."""
        return f"<Sandbox {self.id!r}>"


class Snapshot:
    """The saved state of a sandbox, in a file. It can be restored any number of times."""

    def __init__(self, path: str) -> None:
        """Refer to a checkpoint file; :meth:`load` verifies one."""
        #: Host path of the checkpoint file.
        self.path = path

    @classmethod
    def temporary(cls) -> Snapshot:
        """Return a snapshot whose file, yet to be written, goes with the object."""
        folder = tempfile.mkdtemp(prefix="greenroom-")
        snapshot = cls(f"{folder}/snapshot.grs")
        weakref.finalize(snapshot, shutil.rmtree, folder, ignore_errors=True)
        return snapshot

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Snapshot:
        """Return the snapshot in *path*. CheckpointError when it is damaged or does not fit this machine."""
        from .checkpoint import Checkpoint

        with Checkpoint.open(os.path.abspath(path)) as checkpoint:
            checkpoint.check_host()
        return cls(os.path.abspath(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Copy the snapshot to *path*, which is replaced as a whole when it exists."""
        target = os.path.abspath(path)
        partial = f"{target}.{os.getpid()}.partial"
        try:
            shutil.copyfile(self.path, partial)
            os.replace(partial, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)

    def restore(
        self, name: str | None = None, *, platform: str | None = None, streams: Sequence[int] | None = None
    ) -> Sandbox:
        """Start a sandbox that goes on where this one was saved. CheckpointError, NameInUse, SandboxFailed.

        Without *name* it has the saved one's, or a new one while that is in use.  What its programs had as standard
        input, output and error from outside is *streams* now: three descriptors of this process, which stay open here
        (or NULL_STREAM); without them it is /dev/null.  *platform* is as for Sandbox.create, whatever
        it was saved under.
        """
        connection = own_supervisor()
        made = connection.request_with_streams(
            (NULL_STREAM,) * 3 if streams is None else streams,
            lambda number: messages.RestoreSandbox(
                path=self.path, name=name or "", platform=platform or default_platform(), streams=number
            ),
            messages.SandboxCreated,
        )
        found = connection.request(messages.DescribeSandbox(sandbox=made.sandbox), messages.SandboxDescription)
        return Sandbox(connection, made.sandbox, found.spec)


def _nanoseconds(seconds: float | None) -> int:
    if seconds is None:
        return 0
    if seconds <= 0:
        raise SpecError.of("timeout", seconds, "a number of seconds above 0")
    return int(seconds * 1e9)


def _info(connection: Connection, name: str) -> SandboxInfo:
    request = messages.DescribeSandbox(sandbox=name)
    found = connection.request(request, messages.SandboxDescription, _LIST_LIMIT_S)
    row = found.row
    return SandboxInfo(
        id=row.sandbox,
        state=row.state,
        created=dt.datetime.fromtimestamp(row.created_ns / 1e9, dt.UTC),
        command=row.command,
        reason=found.reason,
        spec=found.spec,
        supervisor_pid=row.supervisor_pid,
        platform=row.platform,
        host_pids=found.host_pids,
    )
