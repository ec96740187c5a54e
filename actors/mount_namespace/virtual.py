"""Base of file systems whose files are made by the kernel: proc and sys.

Linux: fs/proc/generic.c, fs/kernfs.  Global files have a generator, called at open.  Nothing can be created, removed or
renamed; files without a write bit cannot be opened for writing even by root, as Linux's own.

The global files are made when somebody looks for the first: most sandboxes end before that.
"""

from __future__ import annotations

import stat
from errno import EACCES
from typing import TYPE_CHECKING, ClassVar

from .errors import fail
from .file_system import FileSystem
from .inode import Dentry, Inode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...messages.mount_namespace import Credentials
    from .file_data import DataStore
    from .host_files import HostFiles
    from .mounts import Place

    #: Makes a file's contents, for the asker and its root.
    Generator = Callable[[Credentials, Place], bytes]

__all__ = ["VirtualFileSystem", "constant"]


def constant(text: str) -> Generator:
    """Return a generator that always makes *text* and a line feed."""
    data = text.encode() + b"\n"
    return lambda _who, _root: data


class VirtualFileSystem(FileSystem):
    """A tree of generated files; a subclass makes the global ones in :meth:`add_files`."""

    is_virtual: ClassVar[bool] = True

    def __init__(self, host: HostFiles, store: DataStore, dev: int) -> None:
        super().__init__(host, store, dev)
        self._generators: dict[str, Generator] = {}
        self._has_files = False
        assert self.root.inode is not None
        self.root.inode.mode = stat.S_IFDIR | 0o555

    def add_files(self) -> None:
        """Make the global files."""

    def fill(self) -> None:
        """Make the global files now. Idempotent."""
        if not self._has_files:
            self._has_files = True
            self.add_files()

    def lookup(self, directory: Dentry, name: bytes, who: Credentials) -> Dentry | None:
        """Find a global file whose directory has had none so far."""
        if self._has_files:
            return None
        self.fill()
        return directory.children.get(name)

    def names(self, directory: Dentry, who: Credentials) -> list[tuple[bytes, int, int]]:
        """Every name of a directory."""
        self.fill()
        return super().names(directory, who)

    def refresh(self, inode: Inode) -> None:
        """The root counts its directories."""
        self.fill()

    def add_directory(self, path: bytes, mode: int = 0o555) -> Dentry:
        """Make a directory and those above it; return the one that exists when it does."""
        directory = self.root
        for name in path.split(b"/"):
            found = directory.children.get(name)
            if found is None:
                found = self._add(directory, name, stat.S_IFDIR | mode)
                assert directory.inode is not None
                directory.inode.nlink += 1
            directory = found
        return directory

    def add_file(self, path: bytes, generator: Generator, mode: int = 0o444) -> None:
        """Make a file whose contents *generator* makes at each open."""
        directory, _, name = path.rpartition(b"/")
        parent = self.add_directory(directory) if directory else self.root
        inode = self._add(parent, name, stat.S_IFREG | mode).inode
        assert inode is not None
        inode.content = path.decode()
        self._generators[inode.content] = generator

    def add_text(self, path: bytes, text: str, mode: int = 0o444) -> None:
        """Make a file of constant contents (a line feed is added)."""
        self.add_file(path, constant(text), mode)

    def add_link(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link."""
        directory, _, name = path.rpartition(b"/")
        parent = self.add_directory(directory) if directory else self.root
        inode = self._add(parent, name, stat.S_IFLNK | 0o777).inode
        assert inode is not None
        inode.target = target

    def _add(self, directory: Dentry, name: bytes, mode: int) -> Dentry:
        dentry = directory.children[name] = Dentry(name, directory, self.new_inode(mode, 0, 0))
        dentry.pinned = True
        return dentry

    def generate(self, inode: Inode, who: Credentials, root: Place) -> bytes | None:
        """Call the generator."""
        generator = self._generators.get(inode.content)
        return None if generator is None else generator(who, root)

    def truncate(self, dentry: Dentry, size: int) -> None:
        """Accepted and without effect, so that a shell's ``>`` works on writable files."""

    def create(self, directory: Dentry, name: bytes, mode: int, who: Credentials, rdev: int, target: bytes) -> Dentry:
        """Nobody creates files here; Linux refuses with EACCES."""
        fail(EACCES)
