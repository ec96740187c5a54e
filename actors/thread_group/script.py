"""The first line of a script: ``#!interpreter argument``.

Linux counterpart: load_script (fs/binfmt_script.c), whose way of cutting the line is kept to the letter.
"""

from __future__ import annotations

from errno import ENOEXEC
from typing import Final, NamedTuple

__all__ = ["HEAD_BYTES", "ScriptLine", "parse"]

#: How much of a file is looked at (BINPRM_BUF_SIZE).
HEAD_BYTES: Final = 256
_BLANKS: Final = b" \t"


class ScriptLine(NamedTuple):
    """What the first line names."""

    interpreter: bytes
    #: Everything behind it up to the end of the line, as one argument; None when there is nothing.
    argument: bytes | None


def parse(head: bytes) -> ScriptLine | None:
    """Return the interpreter and argument, or None when this is no script. ENOEXEC for a line without a whole name.

    *head* is the file's first HEAD_BYTES bytes, or all of it when it is shorter.
    """
    if not head.startswith(b"#!"):
        return None
    line = head.ljust(HEAD_BYTES, b"\0")
    end = line.find(b"\n")
    if end >= 0:
        line = line[2:end].strip(_BLANKS)
        if not line:
            raise OSError(ENOEXEC, "no interpreter")
    else:
        line = line[2 : HEAD_BYTES - 1].strip(_BLANKS)
        # The line may go on beyond what was read: its argument may be cut off, the interpreter's name may not.
        if not any(byte in line for byte in b" \t\0"):
            raise OSError(ENOEXEC, "interpreter name cut off")
    name, separator, rest = _cut(line)
    argument = rest.lstrip(_BLANKS).partition(b"\0")[0] if separator in (b" ", b"\t") else b""
    return ScriptLine(name, argument or None)


def _cut(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Split at the first blank or NUL."""
    for index, byte in enumerate(line):
        if byte in b" \t\0":
            return line[:index], line[index : index + 1], line[index + 1 :]
    return line, b"", b""
