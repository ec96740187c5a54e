"""Open files as plain data, and back.

Linux counterpart: none; CRIU's files.c and its relatives.  What a file is comes from its ``state``; what several
descriptions share is saved once: a pipe's contents, a memfd's.  Asks MountNamespace to open regular files and FIFOs
anew.

What cannot be saved because it is the host's is replaced by what the restoring caller gives: its standard streams
take the place of those that the processes were started with, and /dev/null where it gives none.  Contents of pseudo-
terminals' queues are lost, as by a flush.  A kind of file that is not in ``_MAKERS`` refuses the save.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Final

from ...messages.mount_namespace import Credentials, Open, ReleaseHandle
from ..runtime.actor import Ask, Refused
from .device import DEVICES, NullDevice
from .directory import IN_ACCESS, DescriptorDirectory, Directory, PathFile
from .epoll_file import EpollFile
from .event_file import EventFile
from .guest_clocks import ClockKey
from .inotify_file import InotifyFile
from .open_file import ACCESS_MODE, IDENTITY_FIELDS, Identity, OpenFile
from .pid_file import PidFile
from .pipe import PipeFile
from .regular_file import MemoryFile, RegularFile
from .save_memory import fingerprint, restore_contents
from .save_sockets import SocketsLoader, save_sockets
from .signal_file import SignalFile
from .socket_file import SocketFile
from .stdio import adopt
from .terminal import PtyMaster, Terminal, is_host_terminal
from .text_file import MemoryImage, ProcessFile, TextFile
from .timer_file import TimerFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..runtime.actor import Asking
    from . import save_memory
    from .worker import Worker

__all__ = ["FilesLoader", "save_files"]

_F_SETPIPE_SZ, _F_GETPIPE_SZ = 1031, 1032
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_MFD_ALLOW_SEALING: Final = 2
_NULL_RDEV: Final = 1 << 8 | 3
#: The kernel itself opens restored files: it may everything.
_KERNEL: Final = Credentials(fsuid=0, fsgid=0, groups=(), capabilities=(1 << 64) - 1, tgid=0, tid=0)


# -- save -----------------------------------------------------------------------------------------------------------


def save_files(worker: Worker, memory: save_memory.MemoryFile, mapped: set[int]) -> dict[str, Any]:
    """Return every open file of *worker*; contents of memfds go to *memory*. Refused for what cannot be saved.

    Of the files with the numbers *mapped* pages are in somebody's memory: they must be the same after a load.
    """
    files = list(worker.files)
    for file in files:
        if file.kind not in (*_MAKERS, RegularFile.kind) and _standard_index(file) is None:
            raise Refused(f"an open file of kind {file.kind!r} ({os.fsdecode(file.link_text())}) cannot be saved yet")
    return {
        "files": [_file_state(file, mapped) for file in files],
        "pipes": _pipes(files),
        "memfds": _memfds(files, memory),
        "sockets": save_sockets(worker, files),
        "counters": worker.files.counters(),
        "boot_ns": worker.files.boot_ns,
    }


def _standard_index(file: OpenFile) -> int | None:
    """Return which standard stream of the host *file* is; None for a file of the guest's own."""
    if isinstance(file, Terminal) and is_host_terminal(file.device):
        return file.worker.files.standard.get(file.ino, 0)
    return None if file.host_fd < 0 or file.handle else file.worker.files.standard.get(file.ino)


def _file_state(file: OpenFile, mapped: set[int]) -> dict[str, Any]:
    index = _standard_index(file)
    if index is not None:
        return {
            "number": file.number,
            "kind": "standard",
            "index": index,
            "handle": file.handle,
            "namespace": file.identity.namespace,
        }
    state = file.state()
    if isinstance(file, MemoryFile):
        state["inode"] = _host_inode(file)
    elif isinstance(file, RegularFile):
        state["fingerprint"] = fingerprint(file.worker.host, file.host_fd) if file.number in mapped else None
    return state


def _host_inode(file: OpenFile) -> tuple[int, int]:
    dev, ino = file.worker.host.file_status(file.host_fd)[:2]
    return dev, ino


def _pipes(files: list[OpenFile]) -> dict[tuple[int, int], dict[str, Any]]:
    """Return capacity and contents of each pipe of the guest by device and inode."""
    pipes: dict[tuple[int, int], dict[str, Any]] = {}
    for file in files:
        if isinstance(file, PipeFile) and _standard_index(file) is None:
            pipe = pipes.setdefault((file.dev, file.ino), {"content": b"", "fifo": bool(file.handle)})
            pipe["capacity"] = file.worker.host.file_control(file.host_fd, _F_GETPIPE_SZ, 0)
            if file.readable:
                pipe["content"] = _peek(file, pipe["capacity"])
    return pipes


def _peek(file: PipeFile, capacity: int) -> bytes:
    """Return what is in a pipe, and leave it there: tee(2) copies from the beginning."""
    host = file.worker.host
    reading, writing = host.make_pipe()
    try:
        host.file_control(writing, _F_SETPIPE_SZ, capacity)
        count = host.tee(file.host_fd, writing, capacity)
        content = b""
        while len(content) < count:
            content += host.read(reading, count - len(content))
        return content
    except BlockingIOError:
        return b""
    finally:
        host.close(reading)
        host.close(writing)


def _memfds(files: list[OpenFile], memory: save_memory.MemoryFile) -> dict[tuple[int, int], dict[str, Any]]:
    """Return size, data and seals of each memfd by the host's device and inode."""
    memfds: dict[tuple[int, int], dict[str, Any]] = {}
    for file in files:
        if isinstance(file, MemoryFile) and _host_inode(file) not in memfds:
            size, runs = memory.copy(file.host_fd)
            seals = file.worker.host.file_control(file.host_fd, _F_GET_SEALS, 0)
            memfds[_host_inode(file)] = {"size": size, "runs": runs, "seals": seals}
    return memfds


# -- load -----------------------------------------------------------------------------------------------------------


class FilesLoader:
    """The files of one worker on their way back. Each has one reference, dropped by ``finish``."""

    def __init__(self, worker: Worker, state: dict[str, Any], memory_fd: int, streams: Sequence[int]) -> None:
        """*streams*: host descriptors for 0, 1 and 2, which become ours; -1 or missing ones are /dev/null."""
        self.worker = worker
        self.state = state
        #: By the numbers that they had.
        self.files: dict[int, OpenFile] = {}
        self._made: list[OpenFile] = []
        #: Handles of files that were opened anew: old to new.
        self.handles: dict[int, int] = {}
        self._memory_fd = memory_fd
        #: Numbers of files that were standard streams of the host.
        self._replaced: set[int] = set()
        self._standard = self._adopt(streams)
        #: Host descriptors of pipes and memfds that are opened again for each description.
        self._pipes: dict[tuple[int, int], tuple[int, int]] = {}
        self._memfds: dict[tuple[int, int], int] = {}
        numbers = {file["number"] for file in state["files"]}
        self.sockets = SocketsLoader(worker, state["sockets"], numbers)

    def _adopt(self, streams: Sequence[int]) -> list[OpenFile]:
        worker, terminals = self.worker, dict[int, OpenFile]()
        # What a save counts as the guest's own must not meet the numbers of these.
        worker.files.skip(self.state["counters"])
        identity = Identity(
            mode=stat.S_IFCHR | 0o666, ino=worker.files.new_ino(), dev=0, rdev=_NULL_RDEV, path=b"/dev/null"
        )
        given = [*streams, -1, -1, -1][:3]
        return [
            adopt(worker, number, fd, terminals, (0, 0)) if fd >= 0 else NullDevice(worker, identity, os.O_RDWR)
            for number, fd in enumerate(given)
        ]

    def load(self) -> Asking:
        """Make every file. Refused for what this host has not."""
        self.worker.files.boot_ns = self.state["boot_ns"]
        for state in self.state["files"]:
            if state["kind"] == "standard":
                self._replace(state)
            else:
                file = yield from self._make(state)
                self._take_over(file, state)
        self._fill_pipes()
        self.sockets.finish([file for file in self.state["files"] if file["kind"] == SocketFile.kind], self.files)
        for state in self.state["files"]:
            if state["kind"] == "epoll":
                self._watch(state)

    def _replace(self, state: dict[str, Any]) -> None:
        """A standard stream of the host: what the caller gave takes its place."""
        number, index, handle = state["number"], state["index"], state["handle"]
        self._replaced.add(number)
        self.files[number] = self._standard[index]
        if handle:
            self.worker.tell(state["namespace"], ReleaseHandle(handles=(handle,)))

    def find(self, fd: int, number: int) -> OpenFile:
        """Return the file that had *number*, for descriptor *fd*."""
        if number in self._replaced and fd in (0, 1, 2):
            # One terminal was all three; what takes its place may be three different things.
            return self._standard[fd]
        return self.files[number]

    def finish(self) -> None:
        """Everybody who refers to a file does so: drop our own references."""
        for file in (*self._made, *self._standard):
            file.release()
        for fd in (*(fd for pair in self._pipes.values() for fd in pair), *self._memfds.values()):
            self.worker.host.close(fd)

    def _make(self, state: dict[str, Any]) -> Asking:
        identity = Identity(**{name: state[name] for name in IDENTITY_FIELDS})
        if state["kind"] == "regular":
            return (yield from self._open_regular(state, identity))
        if state["kind"] == "pipe" and identity.handle:
            yield from self._open_fifo(identity)
        return _MAKERS[state["kind"]](self, state, identity)

    def _take_over(self, file: OpenFile, state: dict[str, Any]) -> None:
        self.worker.files.renumber(file, state["number"])
        file.flags, file.owner = state["flags"], tuple(state["owner"])
        file.lock_families = set(state["lock_families"])
        self.files[state["number"]] = file
        self._made.append(file)

    # -- files with a name --------------------------------------------------------------------------------------

    def _open(self, identity: Identity, flags: int) -> Asking:
        """Open a handle's file anew; the new handle takes the old one's place. Refused when that is impossible."""
        request = Open(
            root=identity.handle,
            base=identity.handle,
            path=b"",
            flags=flags,
            mode=0,
            resolve=0,
            for_exec=False,
            who=_KERNEL,
        )
        try:
            opened = yield Ask(identity.namespace, request)
        except OSError as error:
            raise Refused(f"{os.fsdecode(identity.path)} cannot be opened: {error.strerror}") from None
        self.worker.tell(identity.namespace, ReleaseHandle(handles=(identity.handle,)))
        self.handles[identity.handle] = identity.handle = opened.handle
        return opened

    def _open_regular(self, state: dict[str, Any], identity: Identity) -> Asking:
        flags = state["flags"] & (ACCESS_MODE | os.O_APPEND | os.O_SYNC | os.O_DSYNC)
        opened = yield from self._open(identity, flags)
        fd = self.worker.node.descriptors.take(opened.token)
        self.worker.host.seek(fd, state["position"], os.SEEK_SET)
        if state["fingerprint"] not in (None, fingerprint(self.worker.host, fd)):
            raise Refused(
                f"the host's file behind {os.fsdecode(identity.path)}, which is mapped, has changed since the save"
            )
        return RegularFile(self.worker, identity, state["flags"], fd).adopt(opened)

    def _open_fifo(self, identity: Identity) -> Asking:
        """A FIFO's body is MountNamespace's: get hold of it by its reading end, which can always be opened."""
        key = (identity.dev, identity.ino)
        opened = yield from self._open(identity, os.O_RDONLY | os.O_NONBLOCK)
        fd = self.worker.node.descriptors.take(opened.token)
        if key in self._pipes:
            self.worker.host.close(fd)
        else:
            self._pipes[key] = fd, self.worker.host.reopen(fd, os.O_WRONLY | os.O_NONBLOCK)

    # -- pipes and memfds ---------------------------------------------------------------------------------------

    def pipe(self, key: tuple[int, int]) -> tuple[int, int]:
        """Return both ends of the pipe that was *key*."""
        if key not in self._pipes:
            self._pipes[key] = self.worker.host.make_pipe()
        return self._pipes[key]

    def _fill_pipes(self) -> None:
        host = self.worker.host
        for key, pipe in self.state["pipes"].items():
            _, writing = self._pipes[key]
            host.file_control(writing, _F_SETPIPE_SZ, pipe["capacity"])
            if pipe["content"]:
                host.write(writing, pipe["content"])

    def memfd(self, key: tuple[int, int], name: bytes) -> int:
        """Return a host descriptor of the memfd that was *key*."""
        if key not in self._memfds:
            host, saved = self.worker.host, self.state["memfds"][key]
            fd = self._memfds[key] = host.make_memfd(name, _MFD_ALLOW_SEALING)
            restore_contents(host, self._memory_fd, fd, saved["size"], saved["runs"])
            host.file_control(fd, _F_ADD_SEALS, saved["seals"])
        return self._memfds[key]

    def _watch(self, state: dict[str, Any]) -> None:
        epoll = self.files[state["number"]]
        assert isinstance(epoll, EpollFile)
        for fd, number, events, data, spent in state["registrations"]:
            file = self.find(fd, number)
            if file.pollable and file.host_fd >= 0:
                epoll.add(fd, file, events, data)
                if spent:
                    epoll.spend(fd, file)


# -- one maker for each kind ------------------------------------------------------------------------------------------


def _make_pipe(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    worker, flags = loader.worker, state["flags"]
    host_fd = worker.host.reopen(loader.pipe((identity.dev, identity.ino))[0], flags & ACCESS_MODE | os.O_NONBLOCK)
    if flags & os.O_DIRECT:
        worker.host.set_file_flags(host_fd, worker.host.file_flags(host_fd) | os.O_DIRECT)
    return PipeFile(worker, identity, flags, host_fd)


def _make_memfd(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    host, flags = loader.worker.host, state["flags"]
    name = identity.path.removeprefix(b"/memfd:").removesuffix(b" (deleted)")
    fd = host.reopen(loader.memfd(state["inode"], name), flags & (ACCESS_MODE | os.O_APPEND))
    host.seek(fd, state["position"], os.SEEK_SET)
    return MemoryFile(loader.worker, identity, flags, fd)


def _make_device(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    return DEVICES[identity.rdev](loader.worker, identity, state["flags"])


def _make_directory(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    directory = Directory(loader.worker, identity, state["flags"])
    directory.offset = state["position"]
    directory.watched = IN_ACCESS  # for all that is known here
    return directory


def _make_descriptors(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    directory = DescriptorDirectory(loader.worker, identity, state["flags"], state["pid"], state["name"])
    directory.offset = state["position"]
    return directory


def _make_path(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    return PathFile(loader.worker, identity, state["flags"])


def _make_text(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    return TextFile(loader.worker, identity, state["flags"], None).load(state)


def _make_process_file(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    made = MemoryImage if state["kind"] == MemoryImage.kind else ProcessFile
    return made(loader.worker, identity, state["flags"], state["pid"], state["name"]).load(state)


def _make_eventfd(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    flags = os.EFD_SEMAPHORE if state["semaphore"] else 0
    file = EventFile(loader.worker, identity, state["flags"], loader.worker.host.make_eventfd(0, flags))
    if state["count"]:
        loader.worker.host.write(file.host_fd, state["count"].to_bytes(8, "little"))
    return file


def _make_epoll(loader: FilesLoader, _state: dict[str, Any], identity: Identity) -> OpenFile:
    file = EpollFile(loader.worker)
    file.identity = identity
    return file


def _make_signalfd(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    groups = loader.worker.groups
    # Whoever reads next is watched; the process that was may be gone.
    group = groups.get(state["group"]) or next(iter(groups.values()))
    file = SignalFile(loader.worker, state["mask"], state["flags"], group)
    file.identity = identity
    return file


def _make_pidfd(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    file = PidFile(loader.worker, state["pid"], state["serial"], state["flags"], exited=state["exited"])
    file.identity = identity
    return file


def _make_timerfd(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    file = TimerFile(loader.worker, ClockKey(*state["alarm"]["key"]), state["flags"])
    file.identity = identity
    file.load(state)
    return file


def _make_inotify(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    file = InotifyFile(loader.worker, identity.namespace, state["flags"])
    file.identity = identity
    file.load(state)
    return file


def _make_socket(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    return loader.sockets.make(state, identity)


def _make_pty_master(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    worker = loader.worker
    host_fd = worker.host.open_terminal_master()
    return PtyMaster(worker, identity, state["flags"], host_fd, state["index"]).load(state)


def _make_terminal(loader: FilesLoader, state: dict[str, Any], identity: Identity) -> OpenFile:
    master = loader.worker.files.masters.get(state["device"] & 0xFF)
    if master is None:
        return NullDevice(loader.worker, identity, state["flags"])
    return master.open_slave(identity, state["flags"])


#: By kind. A file is made after those that were opened before it, so a terminal after its master.
_MAKERS: Final[dict[str, Callable[[FilesLoader, dict[str, Any], Identity], OpenFile]]] = {
    "inotify": _make_inotify,
    "pty_master": _make_pty_master,
    "terminal": _make_terminal,
    "pipe": _make_pipe,
    "memfd": _make_memfd,
    "null": _make_device,
    "zero": _make_device,
    "full": _make_device,
    "random": _make_device,
    "directory": _make_directory,
    "descriptors": _make_descriptors,
    "path": _make_path,
    "text": _make_text,
    "process": _make_process_file,
    "mem": _make_process_file,
    "eventfd": _make_eventfd,
    "epoll": _make_epoll,
    "signalfd": _make_signalfd,
    "timerfd": _make_timerfd,
    "pidfd": _make_pidfd,
    "socket": _make_socket,
}
