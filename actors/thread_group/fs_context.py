"""Where a process's paths begin: root, working directory, umask.

Linux counterpart: struct fs_struct (fs/fs_struct.c).  It owns one reference to each of two handles of MountNamespace,
and is shared between thread groups by CLONE_FS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ...messages.mount_namespace import KeepHandle, ReleaseHandle

if TYPE_CHECKING:
    from .actor import ThreadGroup

__all__ = ["FsContext"]

_DEFAULT_UMASK: Final = 0o022


class FsContext:
    """Handles of root and working directory, and the umask."""

    __slots__ = ("_borrowed", "_users", "cwd", "root", "umask")

    def __init__(self, *, root: int, cwd: int, umask: int = _DEFAULT_UMASK) -> None:
        """The handles are on loan from their giver until they are changed or forked: see ``own``."""
        self.root = root
        self.cwd = cwd
        self.umask = umask
        self._users = 1
        #: Names of the handles whose references belong to somebody else.
        self._borrowed = {"root", "cwd"}

    def set_root(self, group: ThreadGroup, handle: int) -> None:
        """chroot(2): take over the caller's reference to *handle*."""
        self._replace(group, "root", handle)

    def set_cwd(self, group: ThreadGroup, handle: int) -> None:
        """chdir(2): take over the caller's reference to *handle*."""
        self._replace(group, "cwd", handle)

    def _replace(self, group: ThreadGroup, name: str, handle: int) -> None:
        old = getattr(self, name)
        setattr(self, name, handle)
        if name in self._borrowed:
            self._borrowed.discard(name)
        else:
            group.worker.tell(group.mount_namespace, ReleaseHandle(handles=(old,)))

    def own(self) -> FsContext:
        """Take over the references to both handles."""
        self._borrowed = set()
        return self

    def share(self, group: ThreadGroup) -> FsContext:
        """CLONE_FS: one more group uses this context."""
        self._users += 1
        return self

    def fork(self, group: ThreadGroup) -> FsContext:
        """Return an independent copy with references of its own."""
        for handle in (self.root, self.cwd):
            group.worker.tell(group.mount_namespace, KeepHandle(handle=handle))
        return FsContext(root=self.root, cwd=self.cwd, umask=self.umask).own()

    def unshare(self, group: ThreadGroup) -> FsContext:
        """Return a context that nobody else uses."""
        if self._users == 1:
            return self
        self._users -= 1
        return self.fork(group)

    def drop(self, group: ThreadGroup) -> None:
        """A group ends: release the handles with the last one."""
        self._users -= 1
        if self._users == 0:
            handles = tuple(getattr(self, name) for name in ("root", "cwd") if name not in self._borrowed)
            if handles:
                group.worker.tell(group.mount_namespace, ReleaseHandle(handles=handles))

    def state(self) -> dict[str, Any]:
        """Return plain data for a save."""
        return {"root": self.root, "cwd": self.cwd, "umask": self.umask, "borrowed": sorted(self._borrowed)}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> FsContext:
        """Inverse of ``state``."""
        made = cls(root=state["root"], cwd=state["cwd"], umask=state["umask"])
        made._borrowed = set(state["borrowed"])
        return made
