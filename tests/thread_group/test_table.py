"""The system call table: what is compiled at the first call of each would compile."""

from __future__ import annotations

from greenroom.actors.thread_group import families
from greenroom.actors.thread_group.table import S32, TABLE, U64, Entry, Support

families.load()


def test_rare_families_are_found_by_the_calls_that_they_register() -> None:
    """Else a call would be refused until another one of its family has come."""
    for name, numbers in families.RARE.items():
        registered = [number for number, entry in TABLE.items() if entry.handler.__module__.endswith(f".{name}")]
        assert sorted(numbers) == sorted(registered)


def test_every_entry_compiles() -> None:
    """A wrong annotation would show at the first call only."""
    for number, entry in TABLE.items():
        entry.compile()
        assert entry.number == number


def _handler(task: object, fd: S32, mask: U64) -> tuple[object, int, int]:
    return task, fd, mask


def test_the_first_call_decodes_as_every_other() -> None:
    entry = Entry(0, "x", _handler, Support.FULL, "")
    registers = (0xFFFF_FFFF_FFFF_FFFF, 1 << 63, 0, 0, 0, 0)
    assert entry.call(None, registers) == entry.call(None, registers) == (None, -1, 1 << 63)
