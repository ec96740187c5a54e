"""The invariants of the tree, one fact per assertion.

Called by tests after every sequence of operations, and before a save.
"""

from __future__ import annotations

import stat
from collections import Counter
from typing import TYPE_CHECKING, Final

from .bind import BindDentry
from .inode import NO_CHILDREN
from .overlay import Overlay
from .tmpfs import TmpFs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .file_system import FileSystem
    from .inode import Dentry, Inode
    from .tree import Tree

__all__ = ["check_tree", "entries_below"]

_FORMAT: Final = 0o170000


def entries_below(directory: Dentry) -> Iterator[Dentry]:
    """Yield every known entry below *directory*, negative ones too; a directory before what is in it."""
    pending = [directory]
    while pending:
        at = pending.pop()
        for child in at.children.values():
            yield child
            if child.children:
                pending.append(child)


def check_tree(tree: Tree) -> None:
    """Assert everything."""
    _check_references(tree)
    _check_mounts(tree)
    for fs in tree.file_systems.values():
        if isinstance(fs, TmpFs):
            _check_names(fs)
            _check_link_counts(fs)
            _check_usage(fs)
    _check_memfds(tree)
    assert not NO_CHILDREN, "the shared empty directory has children"


def _check_references(tree: Tree) -> None:
    held: Counter[Inode] = Counter()
    for handle in tree.handles.by_number.values():
        assert handle.references > 0, "a handle without references is listed"
        assert handle.dentry.inode is not None, "a handle on a negative entry"
        held[handle.dentry.inode] += 1
    for mount in tree.mounts.by_id.values():
        places = [mount.root] if mount.parent is mount else [mount.root, mount.dentry]
        for dentry in places:
            assert dentry.inode is not None, "a mount on a negative entry"
            held[dentry.inode] += 1
    for inode, count in held.items():
        assert inode.opens == count, f"inode {inode.ino} has {inode.opens} references, {count} were found"
    for fs in tree.file_systems.values():
        for dentry in entries_below(fs.root):
            found = dentry.inode
            assert found is None or found.opens == held[found], f"{dentry.name!r} has references that nobody holds"


def _check_mounts(tree: Tree) -> None:
    handles = Counter(handle.mount for handle in tree.handles.by_number.values())
    points = Counter(mount.dentry for mount in tree.mounts.by_id.values() if mount.parent is not mount)
    for mount in tree.mounts.by_id.values():
        assert mount.handles == handles[mount], f"mount {mount.id} counts {mount.handles} handles"
        assert mount.parent.id in tree.mounts.by_id, f"mount {mount.id} has no parent"
        if mount.parent is not mount:
            assert mount.dentry.mounts == points[mount.dentry], "a mount point counts its mounts wrongly"


def _check_names(fs: FileSystem) -> None:
    assert fs.root.parent is fs.root, "the root has a parent"
    for dentry in (fs.root, *entries_below(fs.root)):
        assert not dentry.gone, f"{dentry.name!r} is unlinked and still there"
        assert not isinstance(dentry, BindDentry), "a bind's entry in memory"
        for name, child in dentry.children.items():
            assert child.name == name, f"{child.name!r} is listed as {name!r}"
            assert child.parent is dentry, f"{name!r} has another parent"
        if dentry.inode is not None:
            is_directory = dentry.inode.mode & _FORMAT == stat.S_IFDIR
            assert is_directory or dentry.children is NO_CHILDREN, f"{dentry.name!r} is a file with children"
            assert dentry.inode.fs is fs, f"{dentry.name!r} belongs to another file system"


def _check_link_counts(fs: TmpFs) -> None:
    names: Counter[Inode] = Counter()
    for dentry in entries_below(fs.root):
        if dentry.inode is not None:
            names[dentry.inode] += 1
    for dentry in (fs.root, *entries_below(fs.root)):
        inode = dentry.inode
        if inode is None or isinstance(fs, Overlay) and inode.lower is not None:
            continue
        if inode.mode & _FORMAT == stat.S_IFDIR:
            kinds = [c.inode.mode & _FORMAT for c in dentry.children.values() if c.inode is not None]
            expected = 2 + kinds.count(stat.S_IFDIR)
        else:
            expected = names[inode]
        assert inode.nlink == expected, f"{dentry.name!r} has {inode.nlink} links, {expected} were found"


def _check_usage(fs: TmpFs) -> None:
    assert fs.used_blocks >= 0, "a file system holds less than nothing"
    assert fs.inodes >= 1, "a file system without a root"


def _check_memfds(tree: Tree) -> None:
    inodes = {h.dentry.inode for h in tree.handles.by_number.values()}
    for fs in tree.file_systems.values():
        inodes |= {d.inode for d in entries_below(fs.root)}
        if isinstance(fs, Overlay):
            inodes |= set(fs.linked.values())
    open_now = sum(1 for i in inodes if i is not None and i.data is not None and i.data.fd >= 0)
    assert open_now == tree.store.count, f"{tree.store.count} memfds are counted, {open_now} were found"
