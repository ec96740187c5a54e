"""The first contents of a program's stack: strings, auxiliary vector, envp, argv, argc.

Linux counterpart: copy_strings (fs/exec.c) and create_elf_tables (fs/binfmt_elf.c).  Pure functions: the loader writes
the bytes.  From the top down: eight zero bytes, the program's path, the environment, the arguments, the platform's
name, 16 random bytes, and below them, aligned to 16, the vectors.
"""

from __future__ import annotations

import struct
from errno import E2BIG
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AT", "InitialStack", "build", "check_size"]

_MAX_ARG_STRLEN: Final = 131072
_ARG_MAX: Final = 131072
#: Three quarters of the default stack limit.
_MOST_ARGUMENT_BYTES: Final = (8 << 20) // 4 * 3
_PLATFORM: Final = b"x86_64\0"
_RANDOM_BYTES: Final = 16


class AT:
    """AT_* (include/uapi/linux/auxvec.h)."""

    NULL: Final = 0
    PHDR: Final = 3
    PHENT: Final = 4
    PHNUM: Final = 5
    PAGESZ: Final = 6
    BASE: Final = 7
    FLAGS: Final = 8
    ENTRY: Final = 9
    UID: Final = 11
    EUID: Final = 12
    GID: Final = 13
    EGID: Final = 14
    PLATFORM: Final = 15
    HWCAP: Final = 16
    CLKTCK: Final = 17
    SECURE: Final = 23
    RANDOM: Final = 25
    HWCAP2: Final = 26
    RSEQ_FEATURE_SIZE: Final = 27
    RSEQ_ALIGN: Final = 28
    EXECFN: Final = 31
    SYSINFO_EHDR: Final = 33
    MINSIGSTKSZ: Final = 51


class _Block(NamedTuple):
    """Strings with their NULs, where each begins, and the length of the longest."""

    data: bytes
    offsets: tuple[int, ...]
    longest: int


class InitialStack(NamedTuple):
    """Where things are, and the bytes from *pointer* up to the end of the stack."""

    pointer: int
    data: bytes
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int
    auxv: bytes


def check_size(filename: bytes, argv: Sequence[bytes], envp: Sequence[bytes], stack_limit: int) -> None:
    """E2BIG when a string or all of them are too long (bprm_stack_limits, copy_strings)."""
    limit = max(min(stack_limit // 4, _MOST_ARGUMENT_BYTES), _ARG_MAX)
    left = limit - 8 * (max(len(argv), 1) + len(envp)) - len(filename) - 1
    for strings in (argv, envp):
        block = _lay_out(tuple(strings))
        if block.longest >= _MAX_ARG_STRLEN:
            raise OSError(E2BIG, "argument too long")
        left -= len(block.data)
    if left < 0:
        raise OSError(E2BIG, "arguments too long")


def build(
    top: int,
    filename: bytes,
    argv: Sequence[bytes],
    envp: Sequence[bytes],
    vector: Sequence[tuple[int, int]],
    random: bytes,
    *,
    shift: int = 0,
) -> InitialStack:
    """Lay the stack out below *top*.

    *vector* is the auxiliary vector but for the entries that point into the stack, whose values are filled in;
    *random* are the 16 bytes of AT_RANDOM; *shift* (bytes) moves the vectors down, as arch_align_stack does.
    """
    arguments, environment = _lay_out(tuple(argv)), _lay_out(tuple(envp))
    strings = arguments.data + environment.data + filename + b"\0" + bytes(8)
    arg_start = top - len(strings)
    env_start = arg_start + len(arguments.data)
    filename_at = env_start + len(environment.data)
    platform_at = ((arg_start - shift) & ~15) - len(_PLATFORM)
    random_at = platform_at - _RANDOM_BYTES
    places = {AT.RANDOM: random_at, AT.EXECFN: filename_at, AT.PLATFORM: platform_at}
    auxv = _auxiliary(vector, places)
    words = [
        len(argv),
        *[arg_start + offset for offset in arguments.offsets],
        0,
        *[env_start + offset for offset in environment.offsets],
        0,
    ]
    table = struct.pack(f"<{len(words)}Q", *words) + auxv
    pointer = (random_at - len(table)) & ~15
    below = table.ljust(random_at - pointer, b"\0") + random + _PLATFORM
    data = below.ljust(arg_start - pointer, b"\0") + strings
    return InitialStack(pointer, data, arg_start, env_start, env_start, filename_at, auxv)


@lru_cache(maxsize=4)
def _lay_out(strings: tuple[bytes, ...]) -> _Block:
    """Put strings one behind the other. One environment comes many times."""
    lengths = [len(string) + 1 for string in strings]
    data = b"\0".join(strings) + b"\0" if strings else b""
    return _Block(data, tuple(accumulate(lengths, initial=0))[:-1], max(lengths, default=1) - 1)


def _auxiliary(vector: Sequence[tuple[int, int]], places: dict[int, int]) -> bytes:
    words = [word for key, value in vector for word in (key, places.get(key, value))]
    return struct.pack(f"<{len(words) + 2}Q", *words, AT.NULL, 0)
