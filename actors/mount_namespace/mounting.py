"""Making mounts: the sandbox's initial ones, mount(2) and umount2(2).

Linux: fs/namespace.c do_mount, path_umount.  Initial mounts are locked, as those that a user namespace inherits.
"""

from __future__ import annotations

import os
import stat
from errno import EACCES, EBUSY, EINVAL, ENODEV, ENOENT, ENOTDIR, EPERM
from typing import TYPE_CHECKING, Final

from ...messages.mount_namespace import Credentials, HandleOpened
from .bind import BindFileSystem
from .dev import DevPts, DevTmpFs
from .errors import MagicLinkMet, fail
from .mounts import MOUNT_FLAGS, MS_RDONLY, MS_RELATIME
from .overlay import Overlay
from .permissions import CAP_SYS_ADMIN, capable
from .proc import ProcFs
from .sysfs import SysFs
from .tmpfs import TmpFs
from .walk import Walk, ends_walks

if TYPE_CHECKING:
    from ...messages.mount_namespace import Mount as MountRequest
    from ...messages.mount_namespace import MountSpec, SetUpMounts, Unmount
    from .file_system import FileSystem
    from .inode import Dentry
    from .mounts import Mount, Place
    from .tree import Tree

__all__ = ["KERNEL", "make", "mount", "set_up", "unmount"]

_FORMAT: Final = 0o170000
_MS_REMOUNT, _MS_BIND, _MS_MOVE, _MS_REC, _MS_SILENT = 32, 4096, 8192, 16384, 32768
_MS_PROPAGATION: Final = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20
_MNT_FORCE, _MNT_DETACH, _MNT_EXPIRE, _UMOUNT_NOFOLLOW = 1, 2, 4, 8
#: The kernel itself: may everything.
KERNEL: Final = Credentials(fsuid=0, fsgid=0, groups=(), capabilities=(1 << 64) - 1, tgid=0, tid=0)
_SHARED_MEMORY_DIRECTORIES: Final = (b"/tmp", b"/dev/shm", b"/var/tmp")


# -- set-up -----------------------------------------------------------------------------------------------------


@ends_walks
def set_up(tree: Tree, request: SetUpMounts) -> HandleOpened:
    """Make the initial tree; mount points that are missing are created."""
    tree.hostname = request.hostname
    for spec in request.mounts:
        _set_up_one(tree, spec)
    root = tree.root_place()
    handle = tree.handles.add(*root, os.O_PATH)
    return HandleOpened(handle=handle.number, path=b"/")


def _set_up_one(tree: Tree, spec: MountSpec) -> None:
    fs = make(tree, spec.type, tree.new_dev(), spec.source, spec.size_limit, spec.read_only)
    tree.add_file_system(fs)
    target = os.fsencode(spec.target)
    if not tree.mounts.by_id:
        if target != b"/":
            fail(EINVAL, b"the first mount must be /, not " + target)
        place = None
    else:
        root = fs.root.inode
        assert root is not None
        place = _mount_point(tree, target, root.mode & _FORMAT == stat.S_IFDIR)
    made = tree.mounts.add(fs, fs.root, place)
    made.locked = True
    made.set_flags(MS_RELATIME | (MS_RDONLY if spec.read_only else 0))
    made.source = fs.type.encode() if spec.type != "bind" else b"bind"


def make(tree: Tree, kind: str, dev: int, source: str, size_limit: int, read_only: bool = False) -> FileSystem:
    """Make a file system. ENODEV for an unknown type; the host's error when *source* is missing."""
    host, store = tree.host, tree.store
    if kind == "overlay":
        return Overlay(host, store, dev, source, size_limit)
    if kind == "bind":
        return BindFileSystem(host, store, dev, source, read_only)
    if kind in ("tmpfs", "ramfs", "mqueue"):
        return TmpFs(host, store, dev, size_limit)
    if kind == "proc":
        return ProcFs(host, store, dev, tree.processes, tree.mounts, tree.hostname)
    if kind == "sysfs":
        return SysFs(host, store, dev)
    if kind == "devtmpfs":
        return DevTmpFs(host, store, dev, size_limit)
    if kind != "devpts":
        fail(ENODEV, kind.encode())
    return DevPts(host, store, dev)


def _mount_point(tree: Tree, target: bytes, directory: bool) -> Place:
    """Return the place of an absolute path, made with everything above it where it is missing."""
    place = tree.root_place()
    parts = [part for part in target.split(b"/") if part]
    for index in range(1, len(parts) + 1):
        path = b"/" + b"/".join(parts[:index])
        walk = Walk(tree.mounts, tree.root_place(), tree.root_place(), path, KERNEL)
        try:
            place = walk.to_end()
        except OSError as error:
            if error.errno != ENOENT:
                raise
            place = _make_mount_point(tree, path, directory or index < len(parts))
    return place


def _make_mount_point(tree: Tree, path: bytes, directory: bool) -> Place:
    walk = Walk(tree.mounts, tree.root_place(), tree.root_place(), path, KERNEL)
    name = walk.to_parent()
    at = walk.dentry
    assert at.inode is not None
    if at.inode.fs.is_virtual or isinstance(at.inode.fs, BindFileSystem):
        fail(EACCES, b"no mount point can be made at " + path)
    mode = stat.S_IFDIR | 0o755 if directory else stat.S_IFREG | 0o644
    if path in _SHARED_MEMORY_DIRECTORIES:
        mode |= 0o1777
    return walk.mount, at.inode.fs.create(at, name, mode, KERNEL, 0, b"")


# -- mount(2) ---------------------------------------------------------------------------------------------------


@ends_walks
def mount(tree: Tree, request: MountRequest) -> None:
    """mount(2): tmpfs, proc, sysfs, devpts, mqueue, a bind of a place of this tree, a move, or a change of flags."""
    if not capable(request.who, CAP_SYS_ADMIN):
        fail(EPERM)
    place = _find_side(tree, request, request.base, request.target, "new")
    flags = request.flags & ~_MS_SILENT
    if flags & _MS_REMOUNT:
        _remount(tree, place, flags)
    elif flags & _MS_BIND:
        _bind(tree, request, place, flags)
    elif flags & _MS_PROPAGATION:
        _check_is_root(place)
    elif flags & _MS_MOVE:
        _move(tree, request, place)
    else:
        _mount_new(tree, request, place, flags)


def _find_side(tree: Tree, request: MountRequest, base: int, path: bytes, side: str) -> Place:
    """Find the source or the target, and say which of them met a magic link."""
    try:
        return tree.find(request.root, base, path, request.who)
    except MagicLinkMet as met:
        raise MagicLinkMet(met.pid, met.magic, met.rest, side) from None


def _check_is_root(place: Place) -> None:
    """EINVAL unless the place is a mount's root."""
    if place[1] is not place[0].root:
        fail(EINVAL)


def _remount(tree: Tree, place: Place, flags: int) -> None:
    _check_is_root(place)
    changed = place[0]
    if changed.locked and changed.read_only and not flags & MS_RDONLY:
        fail(EPERM)
    changed.set_flags(flags & MOUNT_FLAGS)


def _bind(tree: Tree, request: MountRequest, place: Place, flags: int) -> None:
    source = _find_side(tree, request, request.source_base, request.source, "old")
    _check_kinds(source[1], place[1])
    copied = [(source[0], source[1], place)]
    if flags & _MS_REC:
        copied += _mounts_below(tree, source, place)
    made: dict[int, Mount] = {}
    for original, root, at in copied:
        parent = made.get(at[0].id, at[0])
        mounted = tree.mounts.add(original.fs, root, (parent, at[1]))
        mounted.set_flags(original.flags)
        mounted.source = original.source
        made[original.id] = mounted


def _mounts_below(tree: Tree, source: Place, place: Place) -> list[tuple[Mount, Dentry, Place]]:
    """Return the mounts below *source* in order, each with the place that it has in the original tree."""
    others = [child for child in tree.mounts.by_id.values() if child.parent is not child and child is not source[0]]
    below = [child for child in others if tree.mounts.path(source, (child, child.root))]
    return [(child, child.root, (child.parent, child.dentry)) for child in below]


def _check_kinds(source: Dentry, target: Dentry) -> None:
    """ENOTDIR: a directory goes on a directory, anything else on anything else."""
    assert source.inode is not None
    assert target.inode is not None
    kinds = [d.inode.mode & _FORMAT == stat.S_IFDIR for d in (source, target) if d.inode is not None]
    if kinds[0] != kinds[1]:
        fail(ENOTDIR)
    if target.gone or source.gone:
        fail(ENOENT)


def _move(tree: Tree, request: MountRequest, place: Place) -> None:
    source = _find_side(tree, request, request.source_base, request.source, "old")
    _check_is_root(source)
    moved = source[0]
    if moved.locked or moved.parent is moved:
        fail(EINVAL)
    _check_kinds(source[1], place[1])
    at: Mount = place[0]
    while at.parent is not at:
        if at is moved:
            fail(40)
        at = at.parent
    _, old = tree.mounts.drop(moved)
    tree.let_go(old)
    tree.let_go(moved.root)
    moved.parent, moved.dentry = place
    tree.mounts.insert(moved)


def _mount_new(tree: Tree, request: MountRequest, place: Place, flags: int) -> None:
    if request.type in ("overlay", "bind", "devtmpfs"):
        fail(ENODEV if request.type == "bind" else EPERM)
    options = dict(_options(request.data))
    fs = make(tree, request.type, tree.new_dev(), "", _size(options.get(b"size", b"0")))
    _check_kinds(fs.root, place[1])
    root = fs.root.inode
    assert root is not None
    if b"mode" in options:
        root.mode = root.mode & _FORMAT | int(options[b"mode"], 8) & 0o7777
    tree.add_file_system(fs)
    made = tree.mounts.add(fs, fs.root, place)
    made.set_flags(flags & MOUNT_FLAGS | MS_RELATIME)
    made.source = request.source or b"none"


def _options(data: bytes) -> list[tuple[bytes, bytes]]:
    """Split mount(2)'s data into names and values."""
    split = [item.partition(b"=") for item in data.rstrip(b"\0").split(b",") if item]
    return [(key, value) for key, _, value in split]


def _size(text: bytes) -> int:
    """Read "10M", "50%". EINVAL."""
    units = {b"k": 10, b"m": 20, b"g": 30}
    try:
        if text.endswith(b"%"):
            return 0
        shift = units.get(text[-1:].lower(), 0)
        return int(text[:-1] if shift else text) << shift
    except ValueError:
        fail(EINVAL)


# -- umount2(2) -------------------------------------------------------------------------------------------------


@ends_walks
def unmount(tree: Tree, request: Unmount) -> None:
    """umount2(2): EINVAL for what is no mount point or is locked, EBUSY while something below is open."""
    if request.flags & ~(_MNT_FORCE | _MNT_DETACH | _MNT_EXPIRE | _UMOUNT_NOFOLLOW):
        fail(EINVAL)
    follow = not request.flags & _UMOUNT_NOFOLLOW
    place = tree.find(request.root, request.base, request.target, request.who, follow)
    if not capable(request.who, CAP_SYS_ADMIN):
        fail(EPERM)
    _check_is_root(place)
    top = place[0]
    if request.flags & _MNT_DETACH:
        _detach(tree, top)
        return
    tree.mounts.check_unmount(top)
    tree.drop_mount(top)


def _detach(tree: Tree, top: Mount) -> None:
    """MNT_DETACH: it goes from the tree now, with what is mounted below it; open handles go on."""
    if top.locked or top.parent is top:
        fail(EINVAL)
    children = tree.mounts.children(top)
    if any(child.locked for child in children):
        fail(EBUSY)
    for child in children:
        _detach(tree, child)
    tree.drop_mount(top)
