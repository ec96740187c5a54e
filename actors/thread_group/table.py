"""The system call table: number, name, handler, argument decoders, support level.

Linux counterpart: arch/x86/entry/syscalls/syscall_64.tbl and the SYSCALL_DEFINE macros.  A handler is a function
declared with :func:`syscall`; its annotations say how each 64-bit register becomes an argument, and one function per
handler is compiled from them, so that nothing is interpreted per call.

A handler gets the calling :class:`~.task.Task` and its arguments, never waits, and returns

* an ``int`` in -4095..2**63-1 (the result), or raises ``OSError`` (the errno);
* a :class:`~.task.Block` or :class:`~.task.Petition`: the task is parked, and the handler is called again on wake-up;
* a generator that yields asks (of bounded duration) and returns one of these;
* :data:`~.task.NO_RESULT`: the handler has set the registers itself (rt_sigreturn, execve), or the task is gone.
"""

from __future__ import annotations

import enum
import typing
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .task import Task

__all__ = [
    "S32",
    "S64",
    "TABLE",
    "U16",
    "U32",
    "U64",
    "Address",
    "Entry",
    "PathName",
    "Support",
    "decoded_arguments",
    "syscall",
]

# Argument types. The string is an expression over ``a`` (the register) and ``task``.
S32 = Annotated[int, "((a & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000"]
U32 = Annotated[int, "a & 0xFFFFFFFF"]
U16 = Annotated[int, "a & 0xFFFF"]
S64 = Annotated[int, "(a ^ 0x8000000000000000) - 0x8000000000000000"]
U64 = Annotated[int, "a"]
#: A guest address, unchecked: it is checked when it is used.
Address = Annotated[int, "a"]
#: A NUL-terminated path copied from the guest: EFAULT, ENAMETOOLONG (4096 with the NUL).
PathName = Annotated[bytes, "task.memory.read_path(a)"]


class Support(enum.Enum):
    """How much of a call is there."""

    FULL = "full"
    PARTIAL = "partial"


class Entry:
    """One system call of the table."""

    __slots__ = ("call", "handler", "name", "note", "number", "support")

    def __init__(self, number: int, name: str, handler: Callable[..., Any], support: Support, note: str) -> None:
        self.number = number
        self.name = name
        self.handler = handler
        self.support = support
        #: What is missing, when partial.
        self.note = note
        #: Decodes the six registers and calls the handler. Compiled at the first call: most are never called, and to
        #: compile all of them took a tenth of a start.
        self.call: Callable[[Task, tuple[int, ...]], Any] = self._first_call

    def _first_call(self, task: Task, registers: tuple[int, ...]) -> Any:
        self.compile()
        return self.call(task, registers)

    def compile(self) -> None:
        """Make :attr:`call` what it is after the first call."""
        source = f"lambda task, r: handler(task, {decoded_arguments(self.handler)})"
        self.call = eval(source, {"handler": self.handler})  # noqa: S307  # our own text


#: Every supported system call by its number.
TABLE: dict[int, Entry] = {}

_F = typing.TypeVar("_F", bound="Callable[..., Any]")


def syscall(number: int, name: str | None = None, *, partial: str = "") -> Callable[[_F], _F]:
    """Register a handler for system call *number*; *partial* says what is missing of it.

    The call's name is the function's, less a trailing underscore, unless *name* is given.
    """

    def register(handler: _F) -> _F:
        if number in TABLE:
            raise ValueError(f"system call {number} is registered as {TABLE[number].name} already")
        support = Support.PARTIAL if partial else Support.FULL
        call_name = name or handler.__name__.rstrip("_")
        TABLE[number] = Entry(number, call_name, handler, support, partial)
        return handler

    return register


def decoded_arguments(handler: Callable[..., Any]) -> str:
    """Return the text of the arguments behind ``task``, as expressions over ``task`` and the registers ``r``."""
    code = handler.__code__
    names = code.co_varnames[1 : code.co_argcount]
    terms = []
    for index, name in enumerate(names):
        # Annotations are text; those of the registers name the types above, imported into the handler's module.
        annotation = eval(handler.__annotations__[name], handler.__globals__)  # noqa: S307  # our own text
        expression = annotation.__metadata__[0]
        terms.append(_on_register(expression, index))
    return ", ".join(terms)


def _on_register(expression: str, index: int) -> str:
    """Substitute the register for the lone ``a`` of a decoder expression."""
    padded = expression.replace("(a ", f"(r[{index}] ").replace("(a)", f"(r[{index}])")
    if padded == "a" or padded.startswith("a "):
        padded = f"r[{index}]" + padded[1:]
    return padded
