"""Saving and loading a namespace: its state as msgpack, the contents of its files appended to a host file.

Linux: nothing; CRIU's mounts, regular and ghost files come near.  What a lower layer or a bind's source can give again
is not saved: an overlay is saved as its differences (pinned entries, dirty inodes, whiteouts) with the directories that
lead to them, and places of ``proc``, ``sys``, ``devpts`` and binds as names to look up again.  Contents stay in the
saved file until a file is first opened, so loading costs what the tree costs and not what the data does.

FIFOs come back empty.  Handles come back without host descriptors: a worker opens its files anew with an ``Open`` whose
path is empty and whose base is the handle.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import msgpack  # type: ignore[import-untyped]  # ships no types

from . import mounting
from .bind import BindFileSystem
from .checking import entries_below
from .dev import DevPts
from .file_data import FileData
from .handles import Handle
from .host_files import S_MODE, S_SIZE
from .inode import Dentry, Inode
from .locks import Lock, Waiter
from .mounts import Mount
from .overlay import Overlay
from .proc import ProcFs
from .tmpfs import TmpFs
from .virtual import VirtualFileSystem

if TYPE_CHECKING:
    from .file_system import FileSystem
    from .locks import LockTable
    from .tree import Tree

__all__ = ["CannotLoad", "load", "save"]

VERSION: Final = 2
_FORMAT: Final = 0o170000
_PAGE_BYTES: Final = 4096
#: Fields of an inode that are saved as they are.
_INODE_FIELDS: Final = (
    *("ino", "mode", "uid", "gid", "nlink", "rdev", "size", "blocks"),
    *("atime_ns", "mtime_ns", "ctime_ns", "btime_ns", "target", "xattrs", "lower", "dirty"),
)
#: Instead of an inode's number in a saved entry: it is negative; it is looked up again.
_NEGATIVE, _LOOKED_UP = -1, -2


class CannotLoad(Exception):
    """The saved state does not fit this host; the text says what is missing."""


# -- save -------------------------------------------------------------------------------------------------------


def save(tree: Tree, locks: LockTable, fd: int) -> bytes:
    """Return the state; contents are appended to the host file *fd*, which is closed."""
    try:
        state = _Saver(tree, fd).state(locks)
    finally:
        tree.host.close(fd)
    packed: bytes = msgpack.packb(state)
    return packed


class _Saver:
    """Numbers inodes and entries while it writes them down."""

    def __init__(self, tree: Tree, fd: int) -> None:
        self.tree = tree
        self.fd = fd
        self.end = -(-tree.host.status(fd)[S_SIZE] // _PAGE_BYTES) * _PAGE_BYTES
        self.inodes: dict[Inode, int] = {}
        self.inode_records: list[Any] = []
        self.dentries: dict[Dentry, int] = {}
        self.dentry_records: list[Any] = []

    def state(self, locks: LockTable) -> dict[str, Any]:
        tree = self.tree
        for fs in tree.file_systems.values():
            self._save_entries(fs)
        handles = [self._handle(handle) for handle in tree.handles.by_number.values()]
        mounts = [self._mount(mount) for mount in self._all_mounts()]
        held = self._locks(locks)
        file_systems = [self._file_system(fs) for fs in tree.file_systems.values()]
        tree.host.truncate(self.fd, self.end)
        return {
            "version": VERSION,
            "hostname": tree.hostname,
            "file_systems": file_systems,
            "inodes": self.inode_records,
            "dentries": self.dentry_records,
            "mounts": mounts,
            "handles": handles,
            "next_handle": tree.handles.next_number,
            "locks": held,
            "watches": tree.watches.state(),
            "processes": [(p.pid, p.uid, p.gid, tuple(p.tids)) for p in tree.processes.by_pid.values()],
        }

    def _file_system(self, fs: FileSystem) -> dict[str, Any]:
        record: dict[str, Any] = {"dev": fs.dev, "type": fs.type, "source": "", "read_only": False, "size_limit": 0}
        if isinstance(fs, TmpFs):
            record["size_limit"] = fs.size_limit
            record["inodes"] = fs.inodes
        if isinstance(fs, Overlay):
            record["source"] = fs.lower.source
            record["devices"] = fs.devices
            changed = [inode for inode in fs.linked.values() if inode.dirty and inode.nlink]
            record["linked"] = [self._inode(inode) for inode in changed]
        elif isinstance(fs, BindFileSystem):
            record["source"], record["read_only"] = fs.tree.source, fs.read_only
        elif isinstance(fs, ProcFs):
            record["boot_id"] = fs.boot_id
        elif isinstance(fs, DevPts):
            record["terminals"] = fs.terminals()
        record["next_ino"] = fs.next_ino
        return record

    # -- entries and inodes -------------------------------------------------------------------------------------

    def _save_entries(self, fs: FileSystem) -> None:
        """Write down the root, and of a file system in memory what cannot be looked up again."""
        self._dentry(fs.root)
        if not fs.in_memory:
            return
        needed: set[Dentry] = set()
        for dentry in entries_below(fs.root):
            inode = dentry.inode
            if dentry.pinned or dentry.mounts or inode is not None and (inode.dirty or inode.opens):
                at = dentry
                while at not in needed and at is not fs.root:
                    needed.add(at)
                    at = at.parent
        for dentry in entries_below(fs.root):
            if dentry in needed:
                self._dentry(dentry)

    def _dentry(self, dentry: Dentry) -> int:
        """Return the number of an entry, written down after its parents."""
        known = self.dentries.get(dentry)
        if known is not None:
            return known
        is_root = dentry.parent is dentry
        parent = -1 if is_root else self._dentry(dentry.parent)
        inode, fs = dentry.inode, _file_system_of(dentry)
        number = _NEGATIVE if inode is None else _LOOKED_UP
        if inode is not None and fs.in_memory:
            number = self._inode(inode)
        record = (fs.dev, parent, dentry.name, number, dentry.pinned, dentry.gone)
        self.dentries[dentry] = len(self.dentry_records)
        self.dentry_records.append(record)
        return self.dentries[dentry]

    def _inode(self, inode: Inode) -> int:
        known = self.inodes.get(inode)
        if known is not None:
            return known
        inode.fs.refresh(inode)
        number = self.inodes[inode] = len(self.inode_records)
        fields = [getattr(inode, name) for name in _INODE_FIELDS]
        self.inode_records.append((inode.fs.dev, fields, self._data(inode)))
        return number

    def _data(self, inode: Inode) -> tuple[int, int] | None:
        """Append an inode's contents; return offset and length in the saved file."""
        if inode.data is None:
            return None
        offset, size = self.end, inode.size
        self.tree.store.write_out(inode, self.fd, offset)
        self.end = -(-(offset + size) // _PAGE_BYTES) * _PAGE_BYTES
        return offset, size

    # -- what refers to them ------------------------------------------------------------------------------------

    def _all_mounts(self) -> list[Mount]:
        """Return the mounts, parents first, with those that were detached and still have open files."""
        found: dict[Mount, None] = {}
        lazily = [handle.mount for handle in self.tree.handles.by_number.values()]
        for mount in [*self.tree.mounts.by_id.values(), *lazily]:
            chain = [mount]
            while chain[-1].parent not in (chain[-1], *found):
                chain.append(chain[-1].parent)
            found.update(dict.fromkeys(reversed(chain)))
        return list(found)

    def _mount(self, mount: Mount) -> tuple[Any, ...]:
        root, at = self._dentry(mount.root), self._dentry(mount.dentry)
        attached = mount.id in self.tree.mounts.by_id
        return mount.id, mount.fs.dev, mount.parent.id, root, at, mount.flags, mount.source, mount.locked, attached

    def _handle(self, handle: Handle) -> tuple[Any, ...]:
        dentry = self._dentry(handle.dentry)
        return handle.number, handle.mount.id, dentry, handle.references, handle.flags, handle.listing

    def _locks(self, locks: LockTable) -> dict[str, Any]:
        held = [
            (self._lock_inode(inode), is_flock, family, owner, [tuple(lock) for lock in ranges])
            for (inode, is_flock), owners in locks.held.items()
            for (family, owner), ranges in owners.items()
        ]
        waiters = [
            (self._lock_inode(inode), is_flock, family, w.group, w.tid, w.owner, tuple(w.lock))
            for (inode, is_flock), waiting in locks.waiters.items()
            for family, w in waiting
        ]
        return {"held": held, "waiters": waiters}

    def _lock_inode(self, inode: Inode) -> int:
        """Return the number of an entry that leads to a locked inode: its file is open, so a handle has one."""
        for handle in self.tree.handles.by_number.values():
            if handle.dentry.inode is inode:
                return self._dentry(handle.dentry)
        raise AssertionError(f"inode {inode.ino} is locked, but nobody has it open")


def _file_system_of(dentry: Dentry) -> FileSystem:
    while dentry.inode is None:
        dentry = dentry.parent
    return dentry.inode.fs


# -- load -------------------------------------------------------------------------------------------------------


def load(tree: Tree, locks: LockTable, packed: bytes, fd: int) -> None:
    """Fill a fresh tree. *fd* is kept for contents that are not read yet. :class:`CannotLoad` says what is missing."""
    state = msgpack.unpackb(packed, strict_map_key=False, use_list=False)
    if state["version"] != VERSION:
        raise CannotLoad(f"mount namespace state of version {state['version']}; this is {VERSION}")
    if tree.file_systems:
        raise CannotLoad("the mount namespace is in use already")
    _Loader(tree, state, fd).run(locks)
    tree.check()


class _Loader:
    """Rebuilds objects in the order of their numbers."""

    def __init__(self, tree: Tree, state: dict[str, Any], fd: int) -> None:
        self.tree = tree
        self.state = state
        self.inodes: list[Inode] = []
        self.dentries: list[Dentry] = []
        self.mounts: dict[int, Mount] = {}
        tree.store.saved_fd = fd

    def run(self, locks: LockTable) -> None:
        tree, state = self.tree, self.state
        tree.hostname = state["hostname"]
        for pid, uid, gid, tids in state["processes"]:
            tree.processes.see(pid, uid, gid, tids)
        for record in state["file_systems"]:
            self._file_system(record)
        for record in state["inodes"]:
            self.inodes.append(self._inode(*record))
        for record in state["dentries"]:
            self.dentries.append(self._dentry(*record))
        for record in state["file_systems"]:
            self._finish_file_system(record)
        for record in state["mounts"]:
            self._mount(*record)
        for record in state["handles"]:
            self._handle(*record)
        tree.handles.next_number = state["next_handle"]
        self._locks(locks)
        tree.watches.load(state["watches"])

    def _file_system(self, record: dict[str, Any]) -> None:
        tree, source = self.tree, record["source"]
        try:
            fs = mounting.make(tree, record["type"], record["dev"], source, record["size_limit"], record["read_only"])
        except OSError as error:
            raise CannotLoad(f"{record['type']} of the host's {source}: {os.strerror(error.errno or 0)}") from error
        tree.add_file_system(fs)
        if isinstance(fs, VirtualFileSystem) and record["next_ino"] > fs.next_ino:
            fs.fill()  # as it was, so that inodes have the numbers that they had
        if isinstance(fs, TmpFs):
            fs.root.children.clear()
        if isinstance(fs, Overlay):
            root_device = next(iter(fs.devices))
            fs.devices.update({dev: index for dev, index in record["devices"].items() if index})
            fs.devices[root_device] = 0
        elif isinstance(fs, ProcFs):
            fs.boot_id = record["boot_id"]
        elif isinstance(fs, DevPts):
            for terminal in record["terminals"]:
                fs.see(*terminal)

    def _finish_file_system(self, record: dict[str, Any]) -> None:
        """Restore counters, which making the inodes has moved, and the shared inodes of lower hard links."""
        fs = self.tree.file_systems[record["dev"]]
        fs.next_ino = max(fs.next_ino, record["next_ino"])
        if isinstance(fs, TmpFs):
            fs.inodes = record["inodes"]
        if isinstance(fs, Overlay):
            for number in record["linked"]:
                fs.remember_linked(self.inodes[number])

    def _inode(self, dev: int, fields: tuple[Any, ...], data: tuple[int, int] | None) -> Inode:
        fs = self.tree.file_systems[dev]
        inode = Inode(fs, 0, 0, 0, 0, 0)
        for name, value in zip(_INODE_FIELDS, fields, strict=True):
            setattr(inode, name, value)
        if data is not None:
            inode.data = FileData(saved_offset=data[0])
            fs.used_blocks += inode.blocks
        elif isinstance(fs, Overlay) and inode.lower is not None:
            self._check_lower(fs, inode)
        return inode

    @staticmethod
    def _check_lower(fs: Overlay, inode: Inode) -> None:
        """What is still below must still be there, and of the same kind."""
        assert inode.lower is not None
        path = os.fsdecode(os.path.join(os.fsencode(fs.lower.source), inode.lower))
        try:
            mode = fs.lower.status(inode.lower)[S_MODE]
        except OSError as error:
            raise CannotLoad(f"the host's {path}: {os.strerror(error.errno or 0)}") from error
        if (mode ^ inode.mode) & _FORMAT:
            raise CannotLoad(f"the host's {path} is of another kind than it was")

    def _dentry(self, dev: int, parent: int, name: bytes, number: int, pinned: bool, gone: bool) -> Dentry:
        fs = self.tree.file_systems[dev]
        if number == _LOOKED_UP:
            return fs.root if parent < 0 else self._look_up(fs, self.dentries[parent], name, gone)
        inode = None if number == _NEGATIVE else self.inodes[number]
        if parent < 0:
            fs.root.inode = inode
            return fs.root
        above = self.dentries[parent]
        dentry = Dentry(name, above, inode)
        dentry.pinned, dentry.gone = pinned, gone
        if not gone:
            above.children[name] = dentry
        return dentry

    @staticmethod
    def _look_up(fs: FileSystem, parent: Dentry, name: bytes, gone: bool) -> Dentry:
        found = None
        if not gone:
            found = parent.children.get(name) or fs.lookup(parent, name, mounting.KERNEL)
        if found is not None and found.inode is not None:
            return found
        if isinstance(fs, BindFileSystem):
            path = os.path.join(fs.tree.source, os.fsdecode(fs.path(parent)), os.fsdecode(name))
            raise CannotLoad(f"the host's {path} is missing, but the sandbox had it open")
        dentry = Dentry(name, parent, fs.new_inode(0o100444, 0, 0))
        dentry.gone = True
        return dentry

    # -- what refers to them ------------------------------------------------------------------------------------

    def _mount(
        self,
        number: int,
        dev: int,
        parent: int,
        root: int,
        at: int,
        flags: int,
        source: bytes,
        locked: bool,
        attached: bool,
    ) -> None:
        above = None if parent == number else self.mounts[parent]
        mount = Mount(number, self.tree.file_systems[dev], self.dentries[root], above, self.dentries[at])
        mount.set_flags(flags)
        mount.source, mount.locked = source, locked
        self.mounts[number] = mount
        if attached:
            self.tree.mounts.insert(mount)

    def _handle(self, number: int, mount: int, dentry: int, references: int, flags: int, listing: bytes | None) -> None:
        handle = Handle(number, self.mounts[mount], self.dentries[dentry])
        handle.references, handle.flags = references, flags
        handle.listing = listing
        self.tree.handles.insert(handle)

    def _locks(self, locks: LockTable) -> None:
        for number, is_flock, family, owner, ranges in self.state["locks"]["held"]:
            owners = locks.held.setdefault((self._inode_at(number), is_flock), {})
            owners[family, owner] = [Lock(*lock) for lock in ranges]
            locks.count += len(ranges)
        for number, is_flock, family, group, tid, owner, lock in self.state["locks"]["waiters"]:
            waiting = locks.waiters.setdefault((self._inode_at(number), is_flock), [])
            waiting.append((family, Waiter(group, tid, owner, Lock(*lock))))

    def _inode_at(self, number: int) -> Inode:
        inode = self.dentries[number].inode
        assert inode is not None
        return inode
