"""The MountNamespace actor: names, inodes, permissions, mounts and locks of one sandbox.

Linux: struct mnt_namespace with the VFS below it.  It owns a :class:`~.tree.Tree` and what hangs on it; it is asked by
ThreadGroups (path operations) and by Kernel (set-up, save, load), told by TaskSet of processes, asks nobody, and tells
``LockReleased`` to waiting ThreadGroups.  Every message has one line here; the work is in the modules named after it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...messages import mount_namespace as m
from ...messages.thread_group import ClockParameters, LockReleased
from ..runtime.actor import Actor, Refused, handles
from . import attributes, directories, mounting, naming, opening, statfs, xattrs
from .host_files import HostFiles
from .locks import LockTable
from .tree import Tree

if TYPE_CHECKING:
    from ..runtime.node import Node

__all__ = ["MountNamespace"]


class MountNamespace(Actor):
    """Message to method, nothing else."""

    def __init__(self, address: str, node: Node, *, host: HostFiles | None = None) -> None:
        super().__init__(address, node)
        self.tree = Tree(host if host is not None else HostFiles())
        self.locks = LockTable()
        self.tree.watches.post = self.tell
        self.tree.watches.workers = tuple(f"worker:{number}" for number in range(node.placement.workers))
        if node.placement.workers == 1:
            self.tree.store.leases.post = partial(self.tell, "worker:0")

    def _give(self, fd: int) -> int:
        """Pass *fd* to the actor whose message is being handled."""
        node = self.node
        here = node.actor(self.sender) is not None
        return node.descriptors.give(None if here else node.placement.process_of(self.sender), fd)

    def check(self) -> None:
        """Assert the invariants of everything owned."""
        self.tree.check()
        self.locks.check()

    # -- set-up, save, load -------------------------------------------------------------------------------------

    @handles(m.SetUpMounts)
    def set_up(self, message: m.SetUpMounts) -> m.HandleOpened:
        return mounting.set_up(self.tree, message)

    @handles(m.SaveMounts)
    def save(self, message: m.SaveMounts) -> m.SavedState:
        from . import saving  # for those who save

        fd = self.node.descriptors.take(message.token)
        return m.SavedState(state=saving.save(self.tree, self.locks, fd))

    @handles(m.LoadMounts)
    def load(self, message: m.LoadMounts) -> None:
        from . import saving

        fd = self.node.descriptors.take(message.token)
        try:
            saving.load(self.tree, self.locks, message.state, fd)
        except saving.CannotLoad as error:
            raise Refused(str(error)) from error

    @handles(ClockParameters)
    def clock_parameters(self, message: ClockParameters) -> None:
        self.tree.store.time.set_parameters(message)

    # -- looking ------------------------------------------------------------------------------------------------

    @handles(m.Open)
    def open(self, message: m.Open) -> m.Opened:
        return opening.open_path(self.tree, message, self._give)

    @handles(m.GetStatus)
    def get_status(self, message: m.GetStatus) -> m.StatusReply:
        return self.tree.get_status(message)

    @handles(m.Access)
    def access(self, message: m.Access) -> m.StatusReply:
        return self.tree.access(message)

    @handles(m.ReadLink)
    def read_link(self, message: m.ReadLink) -> m.PathText:
        return self.tree.read_link(message)

    @handles(m.GetPath)
    def get_path(self, message: m.GetPath) -> m.PathText:
        return self.tree.get_path(message)

    @handles(m.BecomeWorkingDirectory)
    def become_working_directory(self, message: m.BecomeWorkingDirectory) -> m.HandleOpened:
        return self.tree.become_working_directory(message)

    @handles(m.ReadDirectory)
    def read_directory(self, message: m.ReadDirectory) -> m.DirectoryEntries:
        return directories.read_directory(self.tree, message)

    @handles(m.GrantSpace)
    def grant_space(self, message: m.GrantSpace) -> m.SpaceGranted:
        return self.tree.grant_space(message)

    @handles(m.GetFileSystemStatus)
    def get_file_system_status(self, message: m.GetFileSystemStatus) -> m.FileSystemStatus:
        return statfs.get_file_system_status(self.tree, message)

    # -- changing names and attributes --------------------------------------------------------------------------

    @handles(m.MakeNode)
    def make_node(self, message: m.MakeNode) -> None:
        naming.make_node(self.tree, message)

    @handles(m.Symlink)
    def symlink(self, message: m.Symlink) -> None:
        naming.symlink(self.tree, message)

    @handles(m.Link)
    def link(self, message: m.Link) -> None:
        naming.link(self.tree, message)

    @handles(m.Unlink)
    def unlink(self, message: m.Unlink) -> m.NameRemoved:
        return naming.unlink(self.tree, message)

    @handles(m.Rename)
    def rename(self, message: m.Rename) -> None:
        naming.rename(self.tree, message)

    @handles(m.ChangeAttributes)
    def change_attributes(self, message: m.ChangeAttributes) -> m.StatusReply:
        return attributes.change_attributes(self.tree, message)

    @handles(m.XattrChange)
    def change_xattr(self, message: m.XattrChange) -> m.XattrValue:
        return xattrs.change_xattr(self.tree, message)

    @handles(m.Mount)
    def mount(self, message: m.Mount) -> None:
        mounting.mount(self.tree, message)

    @handles(m.Unmount)
    def unmount(self, message: m.Unmount) -> None:
        mounting.unmount(self.tree, message)

    # -- handles, locks, processes ------------------------------------------------------------------------------

    @handles(m.KeepHandle)
    def keep_handle(self, message: m.KeepHandle) -> None:
        self.tree.handles.keep(message.handle)

    @handles(m.ReleaseHandle)
    def release_handle(self, message: m.ReleaseHandle) -> None:
        self.tree.release(message.handles, quiet=message.quiet)
        self.tree.prune()

    @handles(m.LockChange)
    def change_lock(self, message: m.LockChange) -> m.LockHeld:
        held, woken = self.locks.change(self.tree.handles.inode(message.handle), message)
        self._wake(woken)
        return held

    @handles(m.ReleaseLocks)
    def release_locks(self, message: m.ReleaseLocks) -> None:
        inode = self.tree.handles.inode(message.handle) if message.handle else None
        self._wake(self.locks.release(inode, message.family, message.owner))

    def _wake(self, woken: list[tuple[int, int]]) -> None:
        for group, tid in woken:
            self.tell(f"thread_group:{group}", LockReleased(tid=tid))

    # -- watches ------------------------------------------------------------------------------------------------

    @handles(m.AddWatch)
    def add_watch(self, message: m.AddWatch) -> m.WatchAdded:
        place = self.tree.find(message.root, message.base, message.path, message.who, message.follow)
        # While somebody watches, every open and close is told.
        self.tree.store.leases.end_all()
        return self.tree.watches.add(message, place)

    @handles(m.RemoveWatch)
    def remove_watch(self, message: m.RemoveWatch) -> None:
        self.tree.watches.remove(message)

    @handles(m.TakeEvents)
    def take_events(self, message: m.TakeEvents) -> m.WatchEvents:
        return self.tree.watches.take(message.worker, message.file)

    @handles(m.CloseWatches)
    def close_watches(self, message: m.CloseWatches) -> None:
        self.tree.watches.close(message.worker, message.file)

    @handles(m.FileUsed)
    def file_used(self, message: m.FileUsed) -> None:
        handle = self.tree.handles.by_number.get(message.handle)
        if handle is not None:
            self.tree.watches.changed(handle.dentry, message.cause)

    @handles(m.ProcessSeen)
    def process_seen(self, message: m.ProcessSeen) -> None:
        self.tree.processes.see(message.pid, message.uid, message.gid, message.tids)

    @handles(m.ThreadSeen)
    def thread_seen(self, message: m.ThreadSeen) -> None:
        self.tree.processes.see_thread(message.pid, message.tid, gone=message.gone)

    @handles(m.ProcessGone)
    def process_gone(self, message: m.ProcessGone) -> None:
        self.tree.forget_process(message.pid)

    @handles(m.HostNameChanged)
    def host_name_changed(self, message: m.HostNameChanged) -> None:
        self.tree.rename_host(message.hostname)

    @handles(m.TerminalSeen)
    def terminal_seen(self, message: m.TerminalSeen) -> None:
        self.tree.see_terminal(message.index, message.uid, message.gid, message.mode)

    @handles(m.TerminalGone)
    def terminal_gone(self, message: m.TerminalGone) -> None:
        self.tree.forget_terminal(message.index)
