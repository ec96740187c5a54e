"""statfs(2).

Linux: fs/statfs.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...messages.mount_namespace import FileSystemStatus
from .mounts import MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_RDONLY
from .walk import NAME_MAX

if TYPE_CHECKING:
    from ...messages.mount_namespace import GetFileSystemStatus
    from .tree import Tree

__all__ = ["get_file_system_status"]

_ST_VALID, _ST_RELATIME = 0x20, 0x1000
#: MS_* that are ST_* under the same number.
_SAME_FLAGS: Final = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME
_MS_RELATIME: Final = 1 << 21
_BLOCK_BYTES: Final = 4096


def get_file_system_status(tree: Tree, request: GetFileSystemStatus) -> FileSystemStatus:
    """What statfs shows of the file system that a path leads to."""
    mount, _ = tree.find(request.root, request.base, request.path, request.who)
    blocks, free, files, free_files = mount.fs.usage()
    flags = mount.flags & _SAME_FLAGS | _ST_VALID
    if mount.flags & _MS_RELATIME:
        flags |= _ST_RELATIME
    return FileSystemStatus(
        type=mount.fs.magic,
        bsize=_BLOCK_BYTES,
        blocks=blocks,
        bfree=free,
        bavail=free,
        files=files,
        ffree=free_files,
        namelen=NAME_MAX,
        flags=flags,
    )
