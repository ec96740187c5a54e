"""Opening a program: its scripts' interpreters, its loader, and their headers, all before the point of no return.

Linux counterpart: do_open_execat and exec_binprm (fs/exec.c).  Asks MountNamespace Open for each file.  Owns a cache
of parsed headers per worker.
"""

from __future__ import annotations

import contextlib
import os
import stat
from errno import EACCES, ELOOP, ENOENT, EPERM
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from ...config.limits import MAX_CACHED_EXECUTABLES
from ...messages.mount_namespace import Open
from ..runtime.actor import Ask
from . import elf, opening, script
from .initial_stack import check_size
from .limits import Resource
from .loader import Program
from .open_file import OpenFile
from .paths import AT_FDCWD, ask_path, base_of, who
from .task import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..runtime.actor import Asking
    from .elf import Elf
    from .script import ScriptLine
    from .task import Task
    from .worker import Worker

    #: Copies argv and envp from wherever they are.
    ReadArguments = Callable[[], tuple[list[bytes], list[bytes]]]

__all__ = ["ExecRequest", "open_program"]

_MAX_SCRIPT_DEPTH: Final = 5
#: Tells what is known of paths for execve from what is for open(2).
_FOR_EXEC: Final = "exec"


class ExecRequest(NamedTuple):
    """What is to be executed."""

    #: Handle where *path* starts; the file itself when *path* is empty.
    base: int
    path: bytes
    #: Open flags: O_NOFOLLOW or 0.
    flags: int
    #: What the program sees as AT_EXECFN, and a script as its argument.
    filename: bytes
    #: A script could not be opened by that name: its descriptor closes on exec.
    unreachable: bool = False
    #: The file itself (execveat with an empty path).
    file: OpenFile | None = None

    @property
    def name(self) -> bytes:
        """Where comm comes from: the path's last component, or the open file's own name."""
        path = self.filename if self.file is None else self.file.path
        return path.rpartition(b"/")[2]


def open_program(task: Task, request: ExecRequest, read_arguments: ReadArguments) -> Asking:
    """Open and check everything that *request* leads to; return a Program. execve(2)'s errnos."""
    file = yield from _open(task, request)
    with _released_on_failure(file):
        argv, envp = read_arguments()
        argv = argv or [b""]
        check_size(request.filename, argv, envp, task.group.limits.soft(Resource.STACK))
    file, argv, headers, identity = yield from _through_scripts(task, request, file, argv)
    with _released_on_failure(file):
        interpreter, its_headers, its_identity = yield from _open_interpreter(task, headers)
    return Program(
        file,
        headers,
        interpreter,
        its_headers,
        request.filename,
        request.name,
        argv,
        envp,
        identity=identity + its_identity,
    )


@contextlib.contextmanager
def _released_on_failure(file: OpenFile) -> Iterator[None]:
    try:
        yield
    except BaseException:
        file.release()
        raise


def _check_alive(task: Task) -> None:
    """The task may have been killed while it waited for an answer; then its memory is gone."""
    if task.state is RunState.DEAD:
        raise OSError(EPERM, "killed during execve")


def _open(task: Task, request: ExecRequest) -> Asking:
    """Open a program for execution and return its open file, which others may have too.

    open(2)'s errnos; EACCES for what is no regular file.
    """
    group = task.group
    if request.file is not None and not request.file.handle:
        return _reopen(task, request.file)
    leases, follow = task.worker.leases, not request.flags & os.O_NOFOLLOW
    key = _FOR_EXEC, *leases.key(task, request.base, request.path, follow)
    known = leases.program(key) if request.path else None
    if known is not None:
        return known
    credentials = who(task)

    def open_from(base: int, path: bytes) -> Open:
        return Open(
            root=group.fs.root,
            base=base,
            path=path,
            flags=request.flags,
            mode=0,
            resolve=0,
            for_exec=True,
            who=credentials,
        )

    reply: Any = yield Ask(group.mount_namespace, open_from(request.base, request.path))
    if reply.missing:
        # Where a shell looks for a program along PATH, it finds none most of the time. Raises ENOENT.
        leases.learn(key, reply)
    through_links = bool(reply.magic)  # a link of /proc leads each process elsewhere
    if through_links:
        reply = yield from ask_path(task, request.base, request.path, open_from)
    if isinstance(reply, OpenFile):
        _check_alive(task)
        return _reopen(task, reply)
    if reply.token < 0:
        opening.release_handle(task, reply.handle)
        raise OSError(EACCES, "not a regular file")
    file = opening.make_file(task, reply, os.O_RDONLY)
    with _released_on_failure(file):
        _check_alive(task)
    if request.path and not through_links:
        leases.keep_program(key, file, reply)
    return file


def _reopen(task: Task, file: OpenFile) -> OpenFile:
    """Return a new open file of one that MountNamespace does not know: a memfd. EACCES unless it is executable."""
    if not stat.S_ISREG(file.mode) or file.host_fd < 0 or not file.mode & 0o111:
        raise OSError(EACCES, "")
    return file.reopen(task, os.O_RDONLY)


def _through_scripts(task: Task, request: ExecRequest, file: OpenFile, argv: list[bytes]) -> Asking:
    """Follow ``#!`` lines from *file*, which is taken over.

    Return the file at their end, the arguments it gets, its headers and its identity.
    """
    name = request.filename
    for _ in range(_MAX_SCRIPT_DEPTH + 1):
        with _released_on_failure(file):
            line, identity = _headers(task.worker, file)
            if isinstance(line, elf.Elf):
                return file, argv, line, identity
            if request.unreachable:
                raise OSError(ENOENT, "the script's descriptor closes on exec")
            argv = [line.interpreter, *([] if line.argument is None else [line.argument]), name, *argv[1:]]
            name = line.interpreter
            # An empty name leads to the working directory, which is no program (EACCES).
            opened = yield from _open(task, ExecRequest(base_of(task, AT_FDCWD, name), name or b".", 0, name))
        file.release()
        file = opened
    file.release()
    raise OSError(ELOOP, "too many interpreters")


def _open_interpreter(task: Task, headers: Elf) -> Asking:
    """Open the loader that a dynamic program names; return (open file, headers, identity), or Nones."""
    path = headers.interpreter
    if path is None:
        return None, None, ()
    if not path:
        raise OSError(ENOENT, "empty PT_INTERP")
    file = yield from _open(task, ExecRequest(base_of(task, AT_FDCWD, path), path, 0, path))
    with _released_on_failure(file):
        return file, *_interpreter_headers(task.worker, file)


# -- parsed headers ------------------------------------------------------------------------------------------------

#: Headers and script lines by (interpreter?, dev, ino, size, mtime, ctime): the same few programs run all the time.
_parsed: WeakKeyDictionary[Worker, dict[tuple[int, ...], Elf | ScriptLine]] = WeakKeyDictionary()


def _headers(worker: Worker, file: OpenFile) -> tuple[Elf | ScriptLine, tuple[int, ...]]:
    """Return what the program's first bytes say, and the file's identity. ENOEXEC, EIO."""
    return _cached(worker, file, 0, _parse)


def _interpreter_headers(worker: Worker, file: OpenFile) -> tuple[Elf, tuple[int, ...]]:
    """Return the headers of a program's loader, and its identity. ELIBBAD, EIO."""
    parsed, identity = _cached(worker, file, 1, lambda read: elf.parse(read, interpreter=True))
    assert isinstance(parsed, elf.Elf)
    return parsed, identity


def _parse(read: Callable[[int, int], bytes]) -> Elf | ScriptLine:
    return script.parse(read(script.HEAD_BYTES, 0)) or elf.parse(read)


def _cached(
    worker: Worker,
    file: OpenFile,
    role: int,
    parse: Callable[[Callable[[int, int], bytes]], Elf | ScriptLine],
) -> tuple[Elf | ScriptLine, tuple[int, ...]]:
    host, fd = worker.host, file.host_fd
    dev, ino, _, _, _, _, _, size, _, _, _, mtime_ns, ctime_ns = host.file_status(fd)
    key = (role, dev, ino, size, mtime_ns, ctime_ns)
    cache = _parsed.setdefault(worker, {})
    found = cache.get(key)
    if found is None:
        found = parse(lambda count, offset: host.pread(fd, count, offset))
        if len(cache) >= MAX_CACHED_EXECUTABLES:
            del cache[next(iter(cache))]
        cache[key] = found
    return found, key
