"""Saving and loading what a worker owns: the parts of Worker and ThreadGroup in a checkpoint.

Linux counterpart: none; CRIU's dump and restore.  Everything is stopped meanwhile: a task is held, blocked, an embryo
or waits for TaskSet, and what it does next is plain data.  Handles BeginSave, SaveGroup, SaveWorker, and LoadWorker,
LoadGroup: a process's own state is its ThreadGroup's part; what several may share (memory, descriptor tables, signal
actions, open files) is the worker's, where each thing has a number.  Nothing is consumed by a save: it may be refused
or abandoned at any point, and the sandbox goes on.

After a load a blocked call is called again by its handler, which looks like a spurious wake-up; one that waited for
TaskSet petitions again, because TaskSet forgets who waits.  That happens before any guest instruction
(``dispatch.retry_held``).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ...messages.base import Done
from ...messages.task_set import UtsName
from ...messages.thread_group import GroupState, WorkerState
from ..runtime.actor import Refused
from . import save_group as groups
from .file_table import FileTable
from .fs_context import DirectoryReference, FsContext
from .memory import MemoryManager, SharedMemory
from .open_file import OpenFile
from .plain import pack, unpack
from .save_files import FilesLoader, save_files
from .save_memory import MemoryFile, load_pages, restore_contents, save_pages
from .signal_state import SignalHandlers
from .vdso import VdsoPart
from .vma import VM_MAYSHARE

if TYPE_CHECKING:
    from ...messages import thread_group as messages
    from ..runtime.actor import Asking
    from .actor import ThreadGroup
    from .task import Task
    from .vdso import Vdso
    from .vma import Backing
    from .worker import Worker

__all__ = ["Loading", "Saving", "begin", "load_group", "load_worker", "save_group", "save_worker"]

_T = TypeVar("_T")


# -- save -----------------------------------------------------------------------------------------------------------


class Numbers(Generic[_T]):
    """Things that processes share, each with the number by which a saved state names it."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._things: list[_T] = []

    def of(self, thing: _T) -> int:
        """Return the number of *thing*, the next one when it is new."""
        number = self._numbers.setdefault(id(thing), len(self._things))
        if number == len(self._things):
            self._things.append(thing)
        return number

    def __iter__(self) -> Any:
        # More may be found while the things are looked at.
        index = 0
        while index < len(self._things):
            yield self._things[index]
            index += 1


class Saving:
    """A save in progress."""

    def __init__(self, worker: Worker, memory_fd: int) -> None:
        self.worker = worker
        self.file = MemoryFile(worker.host, memory_fd)
        self.memories: Numbers[MemoryManager] = Numbers()
        self.tables: Numbers[FileTable] = Numbers()
        self.contexts: Numbers[FsContext] = Numbers()
        self.directories: Numbers[DirectoryReference] = Numbers()
        self.handlers: Numbers[SignalHandlers] = Numbers()
        self._shared: Numbers[SharedMemory] = Numbers()
        self._vdsos: Numbers[Vdso] = Numbers()

    def name_backing(self, backing: Backing) -> tuple[str, int]:
        """Return how a saved mapping names its file."""
        if isinstance(backing, OpenFile):
            return "file", backing.number
        if isinstance(backing, VdsoPart):
            return backing.path.decode(), self._vdsos.of(backing.vdso)
        assert isinstance(backing, SharedMemory)
        return "shared", self._shared.of(backing)

    def state(self) -> dict[str, Any]:
        """Return what the groups saved so far share."""
        worker = self.worker
        memories = [self._memory(memory) for memory in self.memories]
        return {
            "memories": memories,
            "shared": [self.file.copy(shared.host_fd) for shared in self._shared],
            "vdsos": [vdso.image for vdso in self._vdsos],
            "tables": [table.state() for table in self.tables],
            "contexts": [context.state(self.directories) for context in self.contexts],
            "directories": [(directory.handle, directory.owned) for directory in self.directories],
            "handlers": [handlers.state() for handlers in self.handlers],
            "files": save_files(worker, self.file, self._mapped()),
            "groups": sorted(worker.groups),
            "uts": dataclasses.asdict(worker.uts),
            "application_cores": worker.application_cores,
        }

    def _mapped(self) -> set[int]:
        """Return the numbers of the files of which private mappings show pages."""
        vmas = (vma for memory in self.memories for vma in memory.vmas if not vma.flags & VM_MAYSHARE)
        return {vma.file.number for vma in vmas if isinstance(vma.file, OpenFile)}

    def _memory(self, memory: MemoryManager) -> dict[str, Any]:
        task = next(t for g in self.worker.groups.values() for t in g.tasks.values() if t.memory is memory)
        return {"state": memory.snapshot_state(self.name_backing), "pages": save_pages(task, self.file)}


def begin(worker: Worker, message: messages.BeginSave) -> Done:
    """Take the memory file; a save that was begun and never ended is forgotten."""
    if worker.saving is not None:
        worker.saving.file.close()
    worker.saving = Saving(worker, worker.node.descriptors.take(message.token))
    worker.leases.drop()
    return Done()


def save_group(group: ThreadGroup) -> GroupState:
    """Return the state of a stopped process. Refused when no save has begun."""
    saving = group.worker.saving
    if saving is None:
        raise Refused("no save has begun")
    return GroupState(state=pack(groups.state_of(group, saving)))


def save_worker(worker: Worker) -> WorkerState:
    """Return what its groups share, and write their memory. Refused when something cannot be saved."""
    saving, worker.saving = worker.saving, None
    if saving is None:
        raise Refused("no save has begun")
    try:
        return WorkerState(state=pack(saving.state()))
    finally:
        saving.file.close()


# -- load -----------------------------------------------------------------------------------------------------------


class Loading:
    """A load in progress: shared things by their numbers, made when the first group wants them."""

    def __init__(self, worker: Worker, state: dict[str, Any], memory_fd: int, files: FilesLoader) -> None:
        self.worker = worker
        self.files = files
        self._state = state
        self._memory_fd = memory_fd
        self._left = set(state["groups"])
        #: The first task of each memory: those that follow are cloned from its host task.
        self._first_tasks: dict[int, Task] = {}
        self._tables: dict[int, FileTable] = {}
        self._contexts: dict[int, FsContext] = {}
        self._directories: dict[int, DirectoryReference] = {}
        self._handlers: dict[int, SignalHandlers] = {}
        self._shared: dict[int, SharedMemory] = {}

    def sibling(self, number: int) -> Task | None:
        """Return a task that runs in that memory already."""
        return self._first_tasks.get(number)

    def fill_memory(self, number: int, task: Task) -> None:
        """Map everything in *task*'s fresh address space."""
        saved = self._state["memories"][number]
        self._first_tasks[number] = task
        task.memory.load_state(task, saved["state"], self.backing)
        load_pages(task, saved["pages"], self._memory_fd)

    def backing(self, name: tuple[str, int]) -> Backing:
        """Return the file that a saved mapping names."""
        kind, number = name
        if kind == "file":
            return self.files.files[number]
        return self._shared_memory(number) if kind == "shared" else self._vdso_part(kind, number)

    def _vdso_part(self, kind: str, number: int) -> VdsoPart:
        """A thread may be in the middle of the image that was saved: it must be the very same."""
        vdso = self.worker.vdsos.with_image(self._state["vdsos"][number])
        return next(part for part in (vdso.page, vdso.code) if part.path.decode() == kind)

    def _shared_memory(self, number: int) -> SharedMemory:
        if number not in self._shared:
            size, runs = self._state["shared"][number]
            shared = self._shared[number] = SharedMemory(self.worker.host, size)
            restore_contents(self.worker.host, self._memory_fd, shared.host_fd, size, runs)
        return self._shared[number]

    def table(self, number: int, group: ThreadGroup) -> FileTable:
        """Return a descriptor table, shared by those who had it together."""
        if number in self._tables:
            return self._tables[number].share(group)
        state = self._state["tables"][number]
        table = self._tables[number] = FileTable(state["lock_owner"])
        table.load(state, self.files.find)
        return table

    def context(self, number: int) -> FsContext:
        """Return root, working directory and umask, shared by those who had them together."""
        if number in self._contexts:
            return self._contexts[number].share()
        state = self._state["contexts"][number]
        root, cwd = self._directory(state["root"]), self._directory(state["cwd"])
        context = self._contexts[number] = FsContext(root, cwd, state["umask"])
        return context

    def _directory(self, number: int) -> DirectoryReference:
        if number in self._directories:
            return self._directories[number].hold()
        handle, owned = self._state["directories"][number]
        directory = self._directories[number] = DirectoryReference(handle, owned=owned)
        return directory

    def signal_handlers(self, number: int) -> SignalHandlers:
        """Return a table of signal actions."""
        if number not in self._handlers:
            self._handlers[number] = SignalHandlers.of_state(self._state["handlers"][number])
        return self._handlers[number]

    def loaded(self, group: ThreadGroup) -> None:
        """*group* is there; with the last one the loading ends."""
        self._left.discard(group.group)
        if not self._left:
            self.finish()

    def finish(self) -> None:
        """Everybody has what is theirs: let go of it."""
        self.files.finish()
        self.worker.host.close(self._memory_fd)
        self.worker.loading = None


def load_worker(worker: Worker, message: messages.LoadWorker) -> Asking:
    """Make the open files, for the groups that follow. Refused for a damaged state, or for what this host lacks."""
    take = worker.node.descriptors.take
    memory_fd = take(message.token)
    streams = [take(token) if token >= 0 else -1 for token in message.stdio]
    state = _unpack(message.state)
    worker.uts = UtsName(**state["uts"])
    worker.application_cores = state["application_cores"]
    files = FilesLoader(worker, state["files"], memory_fd, streams)
    worker.loading = Loading(worker, state, memory_fd, files)
    yield from files.load()
    if not state["groups"]:
        worker.loading.finish()
    return Done()


def load_group(group: ThreadGroup, message: messages.LoadGroup) -> Done:
    """Become the process that was saved, stopped. Refused when the state is damaged."""
    loading = group.worker.loading
    if loading is None:
        raise Refused("the worker is not loading")
    group.stop_epoch = message.epoch
    groups.become(group, _unpack(message.state), loading)
    loading.loaded(group)
    return Done()


def _unpack(data: bytes) -> Any:
    try:
        return unpack(data)
    except ValueError as error:
        raise Refused(f"a saved state is damaged: {error}") from None
