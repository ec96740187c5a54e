"""A directory tree of the host, seen from one descriptor and never left.

What ``overlay`` reads below and ``bind`` shows.  Paths are relative, without "..", and no component is followed when it
is a symbolic link: the guest's links are resolved by our own walk, inside the sandbox's root.  Directories that were
used lately stay open; in a tree that is shared with the host they are opened anew each time, since a descriptor
follows a directory that was moved, and the name may mean another one by now.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from errno import EPERM
from typing import TYPE_CHECKING, Final

from ...config.limits import MAX_HOST_DIRECTORIES
from .host_files import S_MODE

if TYPE_CHECKING:
    from .host_files import HostFiles, HostStatus

__all__ = ["HostTree", "join"]

_DIRECTORY_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW


def join(directory: bytes, name: bytes) -> bytes:
    """Return the relative path of *name* in *directory* (b"": the root)."""
    return directory + b"/" + name if directory else name


class HostTree:
    """The host files below one root."""

    def __init__(self, host: HostFiles, source: str, *, shared: bool = False) -> None:
        """Open the root. OSError when there is none. *shared*: the host may rename directories at any time."""
        self.host = host
        self._shared = shared
        self.source = source
        self.root = host.open_root(os.fsencode(source))
        self.is_directory = host.status(self.root)[S_MODE] & 0o170000 == 0o040000
        self._limit = min(MAX_HOST_DIRECTORIES, host.raise_descriptor_limit() // 16)
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def directory(self, path: bytes) -> int:
        """Return an O_PATH descriptor of a directory, which stays this object's."""
        if not path:
            return self.root
        fd = self._open.get(path, -1)
        if fd >= 0:
            self._open.move_to_end(path)
            if self._shared:
                self.host.replace(self.host.open_beneath(self.root, path, _DIRECTORY_FLAGS), fd)
            return fd
        fd = self._open[path] = self._descend(path, _DIRECTORY_FLAGS)
        if len(self._open) > self._limit:
            self.host.close(self._open.popitem(last=False)[1])
        return fd

    def _descend(self, path: bytes, flags: int) -> int:
        """Open a directory: from its parent, when that is open, rather than all the way from the root."""
        parent, _, name = path.rpartition(b"/")
        at = self._open.get(parent, -1) if parent else self.root
        if at < 0 or self._shared or not name:
            return self.host.open_beneath(self.root, path, flags)
        return self.host.open_at(at, name, flags, 0)

    def place(self, path: bytes) -> tuple[int, bytes]:
        """Return the descriptor of the directory that *path* is in, and its name there."""
        parent, _, name = path.rpartition(b"/")
        return self.directory(parent), name

    def status(self, path: bytes) -> HostStatus:
        """Return the attributes of *path* itself."""
        if not path:
            return self.host.status(self.root)
        directory, name = self.place(path)
        return self.host.status_at(directory, name)

    def open(self, path: bytes, flags: int) -> int:
        """Open a regular file; without touching its access time where the host lets us."""
        if not path:
            return self.host.reopen(self.root, flags)
        directory, name = self.place(path)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            try:
                return self.host.open_at(directory, name, flags | os.O_NOATIME, 0)
            except OSError as error:
                if error.errno != EPERM:
                    raise
        return self.host.open_at(directory, name, flags, 0)

    def open_path(self, path: bytes) -> int:
        """Return an O_PATH descriptor of anything but a symbolic link's target."""
        if not path:
            return self.host.duplicate(self.root)
        directory, name = self.place(path)
        return self.host.open_at(directory, name, os.O_PATH, 0)

    def read_link(self, path: bytes) -> bytes:
        """Return a symbolic link's target."""
        directory, name = self.place(path)
        return self.host.read_link_at(directory, name)

    def names(self, path: bytes) -> tuple[tuple[bytes, int, int], ...]:
        """Return (name, inode number, DT_*) of a directory's entries."""
        fd = self._descend(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            return self.host.list_directory(fd)
        finally:
            self.host.close(fd)

    def forget(self, path: bytes) -> None:
        """Close cached descriptors of *path* and everything below: a directory was moved or removed."""
        below = path + b"/"
        for known in [p for p in self._open if p == path or p.startswith(below)]:
            self.host.close(self._open.pop(known))

    def close(self) -> None:
        """Close every descriptor."""
        for fd in self._open.values():
            self.host.close(fd)
        self._open.clear()
        self.host.close(self.root)
