"""Where a process's paths begin: root, working directory, umask.

Linux counterpart: struct fs_struct (fs/fs_struct.c).  A context is shared between thread groups by CLONE_FS; forks copy
it.  The worker has one reference to each handle of MountNamespace, on which all contexts with that directory count: so
a fork and the end of its child send no message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ...messages.mount_namespace import ReleaseHandle

if TYPE_CHECKING:
    from .actor import ThreadGroup
    from .save import Numbers

__all__ = ["DirectoryReference", "FsContext"]

_DEFAULT_UMASK: Final = 0o022


class DirectoryReference:
    """A handle of a directory and how many contexts begin there."""

    __slots__ = ("handle", "owned", "users")

    def __init__(self, handle: int, *, owned: bool) -> None:
        """*owned*: the last user gives it back; else it is on loan from whoever has it for the sandbox's whole life."""
        self.handle = handle
        self.owned = owned
        self.users = 1

    def hold(self) -> DirectoryReference:
        """Count one more user."""
        self.users += 1
        return self

    def release(self, group: ThreadGroup) -> None:
        """Count one less; the last one tells MountNamespace."""
        self.users -= 1
        if self.owned and not self.users:
            group.worker.leases.places.pop(self.handle, None)
            group.worker.tell(group.mount_namespace, ReleaseHandle(handles=(self.handle,)))


class FsContext:
    """Root and working directory, and the umask."""

    __slots__ = ("_cwd", "_root", "_users", "cwd", "root", "umask")

    def __init__(self, root: DirectoryReference, cwd: DirectoryReference, umask: int = _DEFAULT_UMASK) -> None:
        """Take over the caller's use of both."""
        self._root, self._cwd = root, cwd
        #: Their handles.
        self.root, self.cwd = root.handle, cwd.handle
        self.umask = umask
        self._users = 1

    @classmethod
    def at(cls, root: int) -> FsContext:
        """Return the context of a first process: both are the directory with that handle, which is on loan."""
        reference = DirectoryReference(root, owned=False)
        return cls(reference, reference.hold())

    def set_root(self, group: ThreadGroup, handle: int) -> None:
        """chroot(2): take over the caller's reference to *handle*."""
        before, self._root, self.root = self._root, DirectoryReference(handle, owned=True), handle
        before.release(group)

    def set_cwd(self, group: ThreadGroup, handle: int) -> None:
        """chdir(2): take over the caller's reference to *handle*."""
        before, self._cwd, self.cwd = self._cwd, DirectoryReference(handle, owned=True), handle
        before.release(group)

    def share(self) -> FsContext:
        """CLONE_FS: one more group uses this context."""
        self._users += 1
        return self

    def fork(self) -> FsContext:
        """Return an independent copy."""
        return FsContext(self._root.hold(), self._cwd.hold(), self.umask)

    def unshare(self) -> FsContext:
        """Return a context that nobody else uses."""
        if self._users == 1:
            return self
        self._users -= 1
        return self.fork()

    def drop(self, group: ThreadGroup) -> None:
        """A group ends: release the directories with the last one."""
        self._users -= 1
        if self._users == 0:
            self._root.release(group)
            self._cwd.release(group)

    def state(self, directories: Numbers[DirectoryReference]) -> dict[str, Any]:
        """Return plain data for a save; *directories* numbers what contexts share."""
        return {"root": directories.of(self._root), "cwd": directories.of(self._cwd), "umask": self.umask}
