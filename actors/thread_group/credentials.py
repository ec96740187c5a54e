"""The credentials of a process: user and group ids and capabilities.

Linux counterpart: struct cred (kernel/cred.c, security/commoncap.c).  greenroom keeps one set per process; Linux keeps
one per thread, which glibc and musl make to look like one per process.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import TYPE_CHECKING, Final

from ...messages.base import owned
from ...messages.mount_namespace import Credentials as FileCredentials

if TYPE_CHECKING:
    from .task import Task

__all__ = [
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "FULL_CAPABILITIES",
    "SECURE_KEEP_CAPS",
    "SECURE_NOROOT",
    "SECURE_NO_AMBIENT_RAISE",
    "SECURE_NO_SETUID_FIXUP",
    "Credentials",
]

CAP_KILL: Final = 5
CAP_SETGID: Final = 6
CAP_SETUID: Final = 7
CAP_SETPCAP: Final = 8
CAP_SYS_CHROOT: Final = 18
CAP_SYS_ADMIN: Final = 21
CAP_SYS_NICE: Final = 23
CAP_SYS_RESOURCE: Final = 24
CAP_SYS_TIME: Final = 25
#: CAP_CHOWN..CAP_CHECKPOINT_RESTORE.
FULL_CAPABILITIES: Final = (1 << 41) - 1

#: Bits of PR_SET_SECUREBITS; each has a lock at the next higher bit.
SECURE_NOROOT: Final = 1
SECURE_NO_SETUID_FIXUP: Final = 4
SECURE_KEEP_CAPS: Final = 16
SECURE_NO_AMBIENT_RAISE: Final = 64


@owned
class Credentials:
    """struct cred, in plain integers. Ids are those that the guest sees."""

    ruid: int
    euid: int
    suid: int
    fsuid: int
    rgid: int
    egid: int
    sgid: int
    fsgid: int
    groups: tuple[int, ...]
    permitted: int
    effective: int
    inheritable: int
    bounding: int
    ambient: int
    securebits: int = 0
    no_new_privs: bool = False

    @classmethod
    def of_user(cls, uid: int, gid: int, groups: tuple[int, ...]) -> Credentials:
        """Return the credentials that a login as *uid* has: all capabilities for root, none for others."""
        capabilities = FULL_CAPABILITIES if uid == 0 else 0
        return cls(
            ruid=uid,
            euid=uid,
            suid=uid,
            fsuid=uid,
            rgid=gid,
            egid=gid,
            sgid=gid,
            fsgid=gid,
            groups=groups,
            permitted=capabilities,
            effective=capabilities,
            inheritable=0,
            bounding=FULL_CAPABILITIES,
            ambient=0,
        )

    @classmethod
    def root(cls) -> Credentials:
        """Return root's credentials."""
        return cls.of_user(0, 0, ())

    def copy(self) -> Credentials:
        """Return an independent copy, as fork does."""
        return Credentials(*_values(self))

    def has(self, capability: int) -> bool:
        """Return whether the capability with that number is effective."""
        return bool(self.effective >> capability & 1)

    def for_files(self, task: Task, *, real: bool = False) -> FileCredentials:
        """Return what MountNamespace needs to know about the caller.

        *real*: as access(2) asks, by the real ids, with root's capabilities only if the real uid is root.
        """
        capabilities = self.effective
        if real:
            capabilities = self.permitted if self.ruid == 0 else 0
        uid, gid = (self.ruid, self.rgid) if real else (self.fsuid, self.fsgid)
        made_of = (uid, gid, self.groups, capabilities, task.group.pid, task.tid)
        known = task.file_credentials
        if known is None or known[0] != made_of:
            made = FileCredentials(
                fsuid=uid, fsgid=gid, groups=self.groups, capabilities=capabilities, tgid=task.group.pid, tid=task.tid
            )
            known = task.file_credentials = made_of, made
        return known[1]

    # -- changes of user ids (cap_task_fix_setuid) --------------------------------------------------------------

    def fix_capabilities(self, old: Credentials) -> None:
        """After a change of uids: drop or gain capabilities as cap_emulate_setxuid does. *old*: before the change."""
        if self.securebits & SECURE_NO_SETUID_FIXUP:
            return
        was_root = 0 in (old.ruid, old.euid, old.suid)
        if was_root and 0 not in (self.ruid, self.euid, self.suid):
            if not self.securebits & SECURE_KEEP_CAPS:
                self.permitted = self.effective = 0
            # Who drops root so and execs expects to have none left, whatever it keeps until then.
            self.ambient = 0
        if old.euid == 0 and self.euid != 0:
            self.effective = 0
        if old.euid != 0 and self.euid == 0:
            self.effective = self.permitted
        self.fix_file_capabilities(old)

    def fix_file_capabilities(self, old: Credentials) -> None:
        """A change of fsuid from or to 0 drops or gains the file capabilities (CAP_FS_SET)."""
        if self.securebits & SECURE_NO_SETUID_FIXUP:
            return
        if old.fsuid == 0 and self.fsuid != 0:
            self.effective &= ~_FS_CAPABILITIES
        if old.fsuid != 0 and self.fsuid == 0:
            self.effective |= self.permitted & _FS_CAPABILITIES

    def on_exec(self, *, set_uid: int | None, set_gid: int | None) -> None:
        """Become what execve makes of us; *set_uid* and *set_gid* are the file's owner when it has the bit."""
        ids = self.euid, self.egid
        if set_gid is not None and not self.no_new_privs:
            self.egid = set_gid
        if set_uid is not None and not self.no_new_privs:
            self.euid = set_uid
        self.suid = self.fsuid = self.euid
        self.sgid = self.fsgid = self.egid
        if ids != (self.euid, self.egid):
            self.ambient = 0
        # With SECURE_NOROOT uid 0 is nobody special.
        privileged = not self.securebits & SECURE_NOROOT
        self.permitted = self.ambient
        if privileged and 0 in (self.euid, self.ruid):
            self.permitted |= self.inheritable | self.bounding
        self.effective = self.permitted if privileged and self.euid == 0 else self.ambient
        self.securebits &= ~SECURE_KEEP_CAPS


#: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, LINUX_IMMUTABLE, MKNOD, MAC_OVERRIDE.
_FS_CAPABILITIES: Final = 0b11111 | 1 << 9 | 1 << 27 | 1 << 32
_values = operator.attrgetter(*(field.name for field in dataclasses.fields(Credentials)))
