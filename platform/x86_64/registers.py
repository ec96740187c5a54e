"""General registers of a guest task, as PTRACE_GETREGS lays them out (struct user_regs_struct)."""

from __future__ import annotations

from ..ptrace.binding import user_regs_struct

__all__ = ["REGISTER_NAMES", "Registers"]


class Registers(user_regs_struct):  # type: ignore[misc]  # python-ptrace ships no types
    """The 27 registers of struct user_regs_struct, each a 64-bit unsigned attribute (``rax``, ``rip``, ...)."""

    __slots__ = ()

    def copy(self) -> Registers:
        """Return an independent copy."""
        copied: Registers = Registers.from_buffer_copy(self)
        return copied

    def to_bytes(self) -> bytes:
        """Return the host's own layout: 27 little-endian 64-bit words."""
        return bytes(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Registers:
        """Inverse of ``to_bytes``. ValueError when *data* is too short."""
        registers: Registers = cls.from_buffer_copy(data)
        return registers


REGISTER_NAMES: tuple[str, ...] = tuple(name for name, _ in user_regs_struct._fields_)
