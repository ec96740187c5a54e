"""Reading directories.

Linux: fs/readdir.c.  A handle takes a listing when reading starts at offset 0 and keeps it, so that an offset stays
valid while entries come and go; entries removed meanwhile are left out.
"""

from __future__ import annotations

import stat
from errno import EINVAL, ENOENT, ENOTDIR
from typing import TYPE_CHECKING, Final

from ...messages.mount_namespace import (
    ENTRY_NAME_OFFSET,
    Credentials,
    DirectoryEntries,
    pack_entry,
    unpack_entry,
)
from .watches import Cause

if TYPE_CHECKING:
    from ...messages.mount_namespace import ReadDirectory
    from .handles import Handle
    from .tree import Tree

from .attributes import touch_atime
from .errors import fail

__all__ = ["read_directory"]

_FORMAT: Final = 0o170000
_DT_DIR: Final = 4
#: Nobody in particular: listing needs no permission after open.
_NOBODY: Final = Credentials(fsuid=0, fsgid=0, groups=(), capabilities=0, tgid=0, tid=0)


def read_directory(tree: Tree, request: ReadDirectory) -> DirectoryEntries:
    """getdents64(2): ENOTDIR, ENOENT for a removed directory, EINVAL when not even one entry fits."""
    handle = tree.handles.get(request.handle)
    inode = handle.dentry.inode
    assert inode is not None
    if inode.mode & _FORMAT != stat.S_IFDIR:
        fail(ENOTDIR)
    if handle.dentry.gone:
        fail(ENOENT)
    offset, count = max(0, request.offset), 0
    if handle.listing is None or offset == 0:
        handle.listing, count = _take_listing(handle)
        handle.cursor = 0, 0
    touch_atime(handle.mount, inode)
    tree.watches.changed(handle.dentry, Cause.ACCESS)
    if offset == 0 and len(handle.listing) <= request.max_bytes:
        return _whole(tree, handle, handle.listing, count)
    return _fitting(handle, offset, request.max_bytes)


def _take_listing(handle: Handle) -> tuple[bytes, int]:
    """Return every entry as struct linux_dirent64, with the position behind it, and their number."""
    mount, dentry = handle.mount, handle.dentry
    inode = dentry.inode
    assert inode is not None
    parent = mount.dentry.parent if dentry is mount.root else dentry.parent
    up = parent.inode.ino if parent.inode is not None else inode.ino
    listed = [(b".", inode.ino, _DT_DIR), (b"..", up, _DT_DIR), *inode.fs.names(dentry, _NOBODY)]
    packed = [pack_entry(ino, position, kind, name) for position, (name, ino, kind) in enumerate(listed, 1)]
    return b"".join(packed), len(packed)


def _whole(tree: Tree, handle: Handle, listing: bytes, count: int) -> DirectoryEntries:
    """Everything fits: that may be given again until the directory changes, unless somebody watches for readings."""
    inode = handle.dentry.inode
    assert inode is not None
    stable = handle.mount.fs.in_memory and not tree.watches.by_inode
    lease = tree.store.leases.grant(inode) if stable else 0
    return DirectoryEntries(entries=listing, offset=count, end=True, lease=lease)


def _fitting(handle: Handle, offset: int, max_bytes: int) -> DirectoryEntries:
    """Return the entries from *offset* on that fit, without those that are gone."""
    listing = handle.listing
    assert listing is not None
    assert handle.dentry.inode is not None
    children = handle.dentry.children
    only_children = handle.dentry.inode.fs.in_memory and handle.dentry.inode.lower is None
    entries: list[bytes] = []
    end = True
    read_to, at = handle.cursor if handle.cursor[0] <= offset else (0, 0)
    while at < len(listing):
        _, position, length, _ = unpack_entry(listing, at)
        if position > max(2, offset):
            start = at + ENTRY_NAME_OFFSET
            name = listing[start : listing.index(0, start)]
            if only_children or name in children:
                child = children.get(name)
                if child is None or child.inode is None:
                    at += length
                    continue
        if position > offset:
            max_bytes -= length
            if max_bytes < 0:
                if not entries:
                    fail(EINVAL)
                end = False
                break
            entries.append(listing[at : at + length])
            read_to = position
        at += length
    offset = max(offset, read_to)
    handle.cursor = offset, at
    return DirectoryEntries(entries=b"".join(entries), offset=offset, end=end)
