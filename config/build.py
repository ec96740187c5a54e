"""Which build of greenroom this is."""

from __future__ import annotations

import importlib.util

from .. import __version__

__all__ = ["build_name", "is_compiled"]


def is_compiled() -> bool:
    """Whether actors and platforms are machine code: setup.py makes one shared object of them."""
    return importlib.util.find_spec("greenroom__mypyc") is not None


def build_name() -> str:
    """Return the version, and "compiled" if it is."""
    return f"{__version__}, compiled" if is_compiled() else __version__
