"""open(2): from MountNamespace's answer to an open file.

Linux counterpart: do_sys_openat2 (fs/open.c), fifo_open (fs/pipe.c), chrdev_open, proc_pid_get_link's jumps.  Asks
MountNamespace Open; which class of open file results is decided here.
"""

from __future__ import annotations

import os
import stat
from errno import ELOOP, ENOENT, ENOTDIR, ENXIO
from typing import TYPE_CHECKING, Any, Final

from ...messages.mount_namespace import FileStatus, GetStatus, KeepHandle, Open, Opened, ReleaseHandle
from ..runtime.actor import Ask
from . import terminal
from .device import DEVICES
from .directory import DescriptorDirectory, Directory, PathFile
from .leases import KEPT_DIRECTORY_FLAGS
from .open_file import ACCESS_MODE, O_LARGEFILE, Identity, OpenFile
from .paths import base_of, magic_target, who
from .pipe import PipeFile
from .regular_file import RegularFile
from .task import ERESTARTSYS, Block
from .text_file import MemoryImage, ProcessFile, TextFile

if TYPE_CHECKING:
    from ..runtime.actor import Asking
    from .leases import Key
    from .task import Task

__all__ = ["open_at", "open_handle", "release_handle"]

_O_TMPFILE_BIT: Final = os.O_TMPFILE & ~os.O_DIRECTORY
_MAX_LINKS: Final = 40
#: Classes of open files that may be used again after they were closed.
_KEPT_KINDS: Final = (RegularFile, Directory)
#: How often a FIFO's opener looks for its other end, which may be in another worker and cannot wake it then.
_FIFO_RETRY_NS: Final = 20_000_000


def open_at(task: Task, dirfd: int, path: bytes, flags: int, mode: int, resolve: int = 0) -> Any:
    """Open a path and return the new descriptor, or the wait for a FIFO's other end."""
    group = task.group
    parked = group.files.take_opening(task.tid)
    if parked is not None:
        return _open_fifo(task, parked, flags)
    group.files.free_descriptor(group)
    if not path:
        raise OSError(ENOENT, "")
    base = base_of(task, dirfd, path)
    key = None
    if not flags & ~KEPT_DIRECTORY_FLAGS and not resolve:
        key = task.worker.leases.key(task, base, path, not flags & os.O_NOFOLLOW)
        kept = task.worker.leases.take(key, flags)
        if kept is not None:
            return group.files.add(group, kept, close_on_exec=flags & os.O_CLOEXEC != 0)
    return _ask_and_open(task, base, path, flags, mode, resolve, key)


def _ask_and_open(task: Task, base: int, path: bytes, flags: int, mode: int, resolve: int, key: Key | None) -> Asking:
    group = task.group
    if not flags & (os.O_CREAT | _O_TMPFILE_BIT):
        mode = 0
    mode &= 0o7777 & ~group.fs.umask
    try:
        opened = yield _ask(task, base, path, flags, mode, resolve)
        if opened.magic:
            file = yield from _through_links(task, opened, flags, mode)
        else:
            if opened.lease or opened.missing:
                key = key or task.worker.leases.key(task, base, path, not flags & os.O_NOFOLLOW)
                task.worker.leases.learn(key, opened)
            file = make_file(task, opened, flags)
            task.worker.leases.attach(file, opened)
            if opened.lease and key is not None and type(file) in _KEPT_KINDS:
                task.worker.leases.may_open_again(file, key)
    except OSError as error:
        if error.errno != ENXIO or flags & (ACCESS_MODE | os.O_NONBLOCK | os.O_PATH) != os.O_WRONLY:
            raise
        return (yield from _wait_for_reader(task, base, path))
    # A pipe without a name never waits for its other end.
    if type(file) is PipeFile and file.handle and not file.flags & os.O_NONBLOCK:
        return _open_fifo(task, file, flags)
    return group.files.add(group, file, close_on_exec=flags & os.O_CLOEXEC != 0)


def _through_links(task: Task, opened: Opened, flags: int, mode: int) -> Asking:
    """The walk met a magic link: ask until none is left, and make the open file."""
    for _ in range(_MAX_LINKS - 1):
        target = magic_target(task, opened.proc_pid, opened.magic)
        if not opened.rest:
            return (yield from _jump(task, target, flags))
        if isinstance(target, OpenFile):
            raise OSError(ENOTDIR, "")
        opened = yield _ask(task, target, b"." if opened.rest == b"/" else opened.rest, flags, mode, 0)
        if not opened.magic:
            return make_file(task, opened, flags)
    raise OSError(ELOOP, "")


def _ask(task: Task, base: int, path: bytes, flags: int, mode: int, resolve: int) -> Ask:
    message = Open(
        root=task.group.fs.root,
        base=base,
        path=path,
        flags=flags,
        mode=mode,
        resolve=resolve,
        for_exec=False,
        who=who(task),
    )
    return Ask(task.group.mount_namespace, message)


def _jump(task: Task, target: int | OpenFile, flags: int) -> Asking:
    """The path ended in a magic link: open what it stands for once more."""
    if isinstance(target, OpenFile):
        if flags & os.O_DIRECTORY:
            raise OSError(ENOTDIR, "")
        return target.reopen(task, flags | O_LARGEFILE)
    if flags & os.O_PATH:
        return (yield from _path_file(task, target, flags))
    opened = yield _ask(task, target, b"", flags, 0, 0)
    return make_file(task, opened, flags)


def _path_file(task: Task, handle: int, flags: int) -> Asking:
    """O_PATH through a magic link: one more reference to the same place."""
    namespace = task.group.mount_namespace
    request = GetStatus(root=task.group.fs.root, base=handle, path=b"", follow=True, who=who(task))
    status = FileStatus.unpack((yield Ask(namespace, request)).status)
    task.worker.tell(namespace, KeepHandle(handle=handle))
    identity = Identity(mode=status.mode, ino=status.ino, dev=status.dev, handle=handle, namespace=namespace)
    file = PathFile(task.worker, identity, flags)
    file.quiet = True  # the close that is an event is that of the file whose handle it is
    return file


def open_handle(task: Task, handle: int, flags: int) -> Asking:
    """Return a new open file of what *handle* stands for."""
    return make_file(task, (yield _ask(task, handle, b"", flags, 0, 0)), flags)


# -- which kind of open file ----------------------------------------------------------------------------------------


def make_file(task: Task, opened: Opened, flags: int) -> OpenFile:
    """Make the open file of what MountNamespace opened. ENOENT; ENXIO for devices that are not there."""
    if opened.missing:
        raise OSError(ENOENT, "")
    identity = Identity(
        mode=opened.mode,
        ino=opened.ino,
        dev=opened.dev,
        rdev=opened.rdev,
        path=opened.path,
        handle=opened.handle,
        namespace=task.group.mount_namespace,
    )
    try:
        return _make(task, opened, identity, flags)
    except OSError:
        release_handle(task, opened.handle)
        raise


def release_handle(task: Task, handle: int) -> None:
    """Give a handle back to MountNamespace."""
    task.worker.tell(task.group.mount_namespace, ReleaseHandle(handles=(handle,)))


def _make(task: Task, opened: Opened, identity: Identity, flags: int) -> OpenFile:
    worker = task.worker
    kind = stat.S_IFMT(opened.mode)
    if opened.place:
        worker.leases.places[opened.handle] = opened.place
    if flags & os.O_PATH:
        return PathFile(worker, identity, flags)
    flags |= O_LARGEFILE
    if opened.token >= 0:
        fd = worker.node.descriptors.take(opened.token)
        if kind == stat.S_IFIFO:
            return PipeFile(worker, identity, flags, fd)
        return RegularFile(worker, identity, flags, fd).adopt(opened)
    if kind == stat.S_IFDIR:
        if opened.proc_file:
            return DescriptorDirectory(worker, identity, flags, opened.proc_pid, opened.proc_file)
        directory = Directory(worker, identity, flags)
        directory.watched = opened.watched
        return directory
    if kind == stat.S_IFCHR:
        return _character_device(task, identity, flags)
    if kind != stat.S_IFREG:
        raise OSError(ENXIO, "")
    if opened.proc_file:
        made = MemoryImage if opened.proc_file.endswith("mem") else ProcessFile
        return made(worker, identity, flags, opened.proc_pid, opened.proc_file)
    return TextFile(worker, identity, flags, opened.content)


def _character_device(task: Task, identity: Identity, flags: int) -> OpenFile:
    device = DEVICES.get(identity.rdev)
    if device is not None:
        return device(task.worker, identity, flags)
    return terminal.open_device(task, identity, flags)


# -- FIFOs ----------------------------------------------------------------------------------------------------------


def _open_fifo(task: Task, file: OpenFile, flags: int) -> Any:
    """Finish a blocking open of a FIFO, or park until its other end is open, too."""
    group = task.group
    assert isinstance(file, PipeFile)
    if task.interrupted:
        file.release()
        return ERESTARTSYS
    if file.flags & ACCESS_MODE == os.O_RDONLY and not file.has_writer():
        group.files.park_opening(task.tid, file)
        return file.wait_for_writer(task.worker.clock.monotonic_ns() + _FIFO_RETRY_NS)
    fd = group.files.add(group, file, close_on_exec=bool(flags & os.O_CLOEXEC))
    task.worker.wake(("fifo",))
    return fd


def _wait_for_reader(task: Task, base: int, path: bytes) -> Asking:
    """ENXIO of an opening for writing: a FIFO without readers is waited for, anything else stays an error."""
    request = GetStatus(root=task.group.fs.root, base=base, path=path, follow=True, who=who(task))
    reply = yield Ask(task.group.mount_namespace, request)
    if reply.missing:
        raise OSError(ENOENT, "")
    status = reply.status
    if not status or not stat.S_ISFIFO(FileStatus.unpack(status).mode):
        raise OSError(ENXIO, "")
    return Block(channels=(("fifo",),), deadline_ns=task.worker.clock.monotonic_ns() + _FIFO_RETRY_NS)
