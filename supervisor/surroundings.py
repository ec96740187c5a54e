"""What a command finds around it: directory, environment, standard streams of the process that it is given in."""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = ["Surroundings"]


class Surroundings(NamedTuple):
    """Those of this process, or of one that asks this process to act for it."""

    #: Working directory; None when it has been removed.
    directory: str | None
    environment: dict[str, str]
    #: Standard streams that are closed.
    closed: frozenset[int]
    #: Standard input is a terminal.
    terminal: bool

    @classmethod
    def of_this_process(cls, closed: frozenset[int]) -> Surroundings:
        """Return those of this process, whose streams *closed* were closed when it started."""
        try:
            directory = os.getcwd()
        except FileNotFoundError:
            directory = None
        return cls(directory, dict(os.environ), closed, 0 not in closed and os.isatty(0))

    def path(self, name: str) -> str:
        """Return the absolute path of a file that was named in these surroundings."""
        return os.path.normpath(os.path.join(self.directory or "/", name))
