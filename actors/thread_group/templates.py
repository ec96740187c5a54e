"""Templates: parked address spaces in which a program that runs often is mapped already; its next execve clones one.

Linux counterpart: none; Android's zygote.  A fresh address space and some dozen injected mappings become one clone
of the host's.  The second execve of a program leaves a template behind, taken before the program's stack is
written and before it runs; the host copies on write, so a template stays as it is.  It owns host tasks that are never
resumed, and counts no references: each execve brings its own open files, and a file that is no longer the same by its
host inode, size and times has another key.

The clone for the next execve is made while the program of the last one runs.

What a program gets this way has the addresses of the template.  So one serves a limited number of times, then the next
execve chooses new addresses; the place of the heap, the stack's contents and the random bytes are each execve's own.
A program that gives more rights than its caller has (AT_SECURE) never shares its addresses with one that it must fear.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ...config.limits import EXECS_PER_TEMPLATE, MAX_TEMPLATE_FILE_BYTES, MAX_TEMPLATES, MAX_TEMPLATES_WANTED
from ...platform.interface import HostTaskDied
from . import loader
from .limits import RLIM_INFINITY, Resource
from .vma import Vma

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ...platform.interface import HostTask, Platform
    from .loader import Layout, Program
    from .memory import MemoryManager
    from .task import Task

__all__ = ["Template", "Templates", "key_of"]

#: What the loader has noted in a MemoryManager when everything is mapped.
_NOTED: Final = (
    "start_brk",
    "start_code",
    "end_code",
    "start_data",
    "end_data",
    "start_stack",
    "idle_stack_pages",
    "mmap_base",
    "natural_base",
    "bottom_up",
)
#: Where a program's identity has its size (see ``executable``).
_SIZE: Final = 3
_PROGRAM, _INTERPRETER = "program", "interpreter"


class _Mapping(NamedTuple):
    """One mapping; *file* is the program's or the interpreter's by its role, or something that lives as long as we."""

    start: int
    end: int
    flags: int
    file: Any
    offset: int
    name: str


def key_of(task: Task, program: Program) -> Hashable | None:
    """Return what two execve calls must have in common to share a template, or None when this one cannot."""
    credentials, limits = task.group.credentials, task.group.limits
    if program.identity is None or program.identity[_SIZE] > MAX_TEMPLATE_FILE_BYTES:
        return None
    if credentials.euid != credentials.ruid or credentials.egid != credentials.rgid:
        return None
    if limits.soft(Resource.AS) != RLIM_INFINITY or limits.soft(Resource.DATA) != RLIM_INFINITY:
        return None
    stack = limits.soft(Resource.STACK)
    return program.identity, task.memory.personality, stack, loader.stack_length(program, stack)


class _Spare:
    """One host task made ahead of its use, while the guest runs."""

    def __init__(self, make: Callable[[], HostTask]) -> None:
        self._make = make
        self._host: HostTask | None = None

    def take(self) -> HostTask:
        """Return the one that is ready, unless it died, or make one. OSError, HostTaskDied."""
        host, self._host = self._host, None
        return host if host is not None and host.host_tid >= 0 else self._make()

    def prepare(self) -> None:
        """Have one ready; a refusal of the host shows when one is needed."""
        if self._host is None:
            with contextlib.suppress(OSError, HostTaskDied):
                self._host = self._make()

    def end(self) -> None:
        """Give it up."""
        if self._host is not None:
            self._host.kill()
            self._host = None


class Template:
    """One parked address space, and what the loader and the list of mappings know of it."""

    def __init__(self, task: Task, program: Program, layout: Layout) -> None:
        """Clone *task*'s host task, which has everything mapped and has not run. OSError, HostTaskDied."""
        self._layout = layout
        self._noted = {name: getattr(task.memory, name) for name in _NOTED}
        roles: dict[Any, Any] = {program.file: _PROGRAM, program.interpreter: _INTERPRETER, None: None}
        self._mappings = [
            _Mapping(v.start, v.end, v.flags, roles.get(v.file, v.file), v.offset, v.name) for v in task.memory.vmas
        ]
        #: The same for the very files that it was made of; it does not hold them.
        self._files = program.file, program.interpreter
        self._vmas = task.memory.vmas.fork()
        #: How often it may serve still.
        self.left = EXECS_PER_TEMPLATE
        self.host: HostTask = task.host.clone(share_memory=False)
        self._spare = _Spare(self._clone)

    def _clone(self) -> HostTask:
        return self.host.clone(share_memory=False)

    def new_host(self) -> HostTask:
        """Return a clone. OSError, HostTaskDied."""
        return self._spare.take()

    def prepare(self) -> None:
        """Make the clone for the next time."""
        if self.left:
            self._spare.prepare()

    def end(self) -> None:
        """Nobody needs it any more."""
        self.left = 0
        self._spare.end()
        self.host.kill()

    def fill(self, memory: MemoryManager, program: Program) -> Layout:
        """Enter into the *memory* of a clone what is mapped there."""
        for name, value in self._noted.items():
            setattr(memory, name, value)
        if self._files == (program.file, program.interpreter):
            memory.share_mappings(self._vmas)
            return self._layout
        files = {_PROGRAM: program.file, _INTERPRETER: program.interpreter}
        memory.enter(
            [Vma(m.start, m.end, m.flags, files.get(m.file, m.file), m.offset, m.name) for m in self._mappings]
        )
        return self._layout


class Templates:
    """The templates of one worker."""

    def __init__(self, platform: Platform) -> None:
        self._empty = _Spare(platform.create_task)
        #: Least recently used first.
        self._templates: OrderedDict[Hashable, Template] = OrderedDict()
        #: What was loaded once and may be loaded again.
        self._wanted: OrderedDict[Hashable, None] = OrderedDict()

    def new_host(self, key: Hashable | None) -> tuple[HostTask, Template | None]:
        """Return a host task for an execve: a clone of the template, or an empty one. OSError from the host."""
        template = self._templates.get(key) if key is not None else None
        if template is not None:
            self._templates.move_to_end(key)
            try:
                host = template.new_host()
            except HostTaskDied:
                self._drop(key)
            else:
                template.left -= 1
                if not template.left:
                    self._drop(key)
                return host, template
        return self._empty.take(), None

    def prepare(self, template: Template | None) -> None:
        """An execve has used a host task, of *template* if it had one: make the next one ready."""
        if template is not None:
            template.prepare()
        else:
            self._empty.prepare()

    def loaded(self, key: Hashable | None, task: Task, program: Program, layout: Layout) -> None:
        """*task* has mapped everything by itself: keep a template of it if it is not the first to do so."""
        if key is None or key in self._templates:
            return
        if key not in self._wanted:
            self._wanted[key] = None
            if len(self._wanted) > MAX_TEMPLATES_WANTED:
                self._wanted.popitem(last=False)
            return
        if len(self._templates) >= MAX_TEMPLATES:
            self._drop(next(iter(self._templates)))
        self._templates[key] = Template(task, program, layout)

    def _drop(self, key: Hashable) -> None:
        self._templates.pop(key).end()
