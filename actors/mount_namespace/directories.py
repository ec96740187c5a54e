"""Reading directories.

Linux: fs/readdir.c.  A handle takes a listing when reading starts at offset 0 and keeps it, so that an offset stays
valid while entries come and go; entries removed meanwhile are left out.
"""

from __future__ import annotations

import stat
from errno import EINVAL, ENOENT, ENOTDIR
from typing import TYPE_CHECKING

from ...messages.mount_namespace import Credentials, DirectoryEntries, pack_entry
from .watches import Cause

if TYPE_CHECKING:
    from ...messages.mount_namespace import ReadDirectory
    from .handles import Handle
    from .tree import Tree

from .attributes import touch_atime
from .errors import fail

__all__ = ["read_directory"]

_FORMAT = 0o170000
_DT_DIR = 4
#: Nobody in particular: listing needs no permission after open.
_NOBODY = Credentials(fsuid=0, fsgid=0, groups=(), capabilities=0, tgid=0, tid=0)


def read_directory(tree: Tree, request: ReadDirectory) -> DirectoryEntries:
    """getdents64(2): ENOTDIR, ENOENT for a removed directory, EINVAL when not even one entry fits."""
    handle = tree.handles.get(request.handle)
    inode = handle.dentry.inode
    assert inode is not None
    if inode.mode & _FORMAT != stat.S_IFDIR:
        fail(ENOTDIR)
    if handle.dentry.gone:
        fail(ENOENT)
    if handle.listing is None or request.offset == 0:
        handle.listing = _take_listing(tree, handle)
    touch_atime(handle.mount, inode)
    tree.watches.changed(handle.dentry, Cause.ACCESS)
    return _fitting(handle, max(0, request.offset), request.max_bytes)


def _take_listing(tree: Tree, handle: Handle) -> list[tuple[bytes, int, int]]:
    mount, dentry = handle.mount, handle.dentry
    inode = dentry.inode
    assert inode is not None
    parent = mount.dentry.parent if dentry is mount.root else dentry.parent
    up = parent.inode.ino if parent.inode is not None else inode.ino
    dots = [(b".", inode.ino, _DT_DIR), (b"..", up, _DT_DIR)]
    return dots + inode.fs.names(dentry, _NOBODY)


def _fitting(handle: Handle, offset: int, max_bytes: int) -> DirectoryEntries:
    """Return the entries from *offset* on that fit, without those that are gone."""
    listing = handle.listing
    assert listing is not None
    assert handle.dentry.inode is not None
    children = handle.dentry.children
    only_children = handle.dentry.inode.fs.in_memory and handle.dentry.inode.lower is None
    entries: list[bytes] = []
    end = True
    for position in range(offset, len(listing)):
        name, ino, kind = listing[position]
        if position > 1 and (only_children or name in children):
            child = children.get(name)
            if child is None or child.inode is None:
                continue
        entry = pack_entry(ino, position + 1, kind, name)
        max_bytes -= len(entry)
        if max_bytes < 0:
            if not entries:
                fail(EINVAL)
            end = False
            break
        entries.append(entry)
        offset = position + 1
    return DirectoryEntries(entries=b"".join(entries), offset=offset, end=end)
