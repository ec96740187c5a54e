"""Who may do what with an inode.

Linux: fs/namei.c generic_permission, may_delete, check_sticky, may_linkat, may_follow_link.  The sysctls
fs.protected_symlinks and fs.protected_hardlinks are 1, as on Debian; protected_fifos and protected_regular are 0.
"""

from __future__ import annotations

import stat
from errno import EACCES, EPERM
from typing import TYPE_CHECKING, Final

from .errors import fail

if TYPE_CHECKING:
    from ...messages.mount_namespace import Credentials
    from .inode import Inode

__all__ = ["EXECUTE", "READ", "WRITE", "capable", "check_access", "check_sticky", "in_group", "is_owner", "may_access"]
__all__ += ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_SYS_ADMIN"]
__all__ += ["may_follow", "may_link"]

READ, WRITE, EXECUTE = 4, 2, 1

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID = 0, 1, 2, 3, 4
CAP_SYS_ADMIN, CAP_MKNOD = 21, 27

_FORMAT: Final = 0o170000


def capable(who: Credentials, capability: int) -> bool:
    """Tell whether *who* has the effective capability."""
    return bool(who.capabilities >> capability & 1)


def is_owner(inode: Inode, who: Credentials) -> bool:
    """Linux: inode_owner_or_capable."""
    return who.fsuid == inode.uid or capable(who, CAP_FOWNER)


def in_group(gid: int, who: Credentials) -> bool:
    """Linux: in_group_p."""
    return gid == who.fsgid or gid in who.groups


def may_access(inode: Inode, who: Credentials, want: int) -> bool:
    """Tell whether the permission bits or a capability grant all of *want* (READ | WRITE | EXECUTE)."""
    mode = inode.mode
    if who.fsuid == inode.uid:
        granted = mode >> 6
    elif in_group(inode.gid, who):
        granted = mode >> 3
    else:
        granted = mode
    if want & ~granted & 7 == 0:
        return True
    return _capability_grants(mode, who, want)


def _capability_grants(mode: int, who: Credentials, want: int) -> bool:
    if mode & _FORMAT == stat.S_IFDIR:
        if not want & WRITE and capable(who, CAP_DAC_READ_SEARCH):
            return True
        return capable(who, CAP_DAC_OVERRIDE)
    if want == READ and capable(who, CAP_DAC_READ_SEARCH):
        return True
    return capable(who, CAP_DAC_OVERRIDE) and (not want & EXECUTE or bool(mode & 0o111))


def check_access(inode: Inode, who: Credentials, want: int) -> None:
    """EACCES unless *who* has all of *want*."""
    if not may_access(inode, who, want):
        fail(EACCES)


def check_sticky(directory: Inode, inode: Inode, who: Credentials) -> None:
    """EPERM for deleting another's file in a sticky directory that is not one's own."""
    if directory.mode & stat.S_ISVTX and who.fsuid not in (inode.uid, directory.uid) and not capable(who, CAP_FOWNER):
        fail(EPERM)


def may_follow(directory: Inode, link: Inode, who: Credentials) -> bool:
    """fs.protected_symlinks: in a world-writable sticky directory, only one's own links or those of its owner."""
    if directory.mode & 0o1002 != 0o1002:
        return True
    return link.uid in (who.fsuid, directory.uid)


def may_link(inode: Inode, who: Credentials) -> bool:
    """fs.protected_hardlinks: another's file only if it could be read and written and is nothing special."""
    if is_owner(inode, who):
        return True
    mode = inode.mode
    if mode & _FORMAT != stat.S_IFREG or mode & stat.S_ISUID or mode & 0o2010 == 0o2010:
        return False
    return may_access(inode, who, READ | WRITE)
