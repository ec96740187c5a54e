"""What a sandbox calls itself and shows of its machine: names, cores, CPU features, namespaces, numbers.

Linux counterpart: struct uts_namespace, ipc_namespace, user_namespace (their identity only: one of each), cpuid.
Owned by Kernel; plain data that is saved as it is.
"""

from __future__ import annotations

from dataclasses import asdict, field
from typing import Any, Final, NamedTuple

from ...messages.base import owned
from ...messages.mount_namespace import Credentials
from ...messages.task_set import UtsName
from ..runtime.actor import Refused

__all__ = ["CpuFeatures", "Identity", "Numbers", "SupervisorContext"]

SYSNAME: Final = "Linux"
MACHINE: Final = "x86_64"
#: Bytes of a host or domain name (__NEW_UTS_LEN).
MAX_UTS_NAME: Final = 64
#: Inode numbers of the initial namespaces (include/linux/proc_ns.h), as /proc/PID/ns shows them.
NAMESPACE_INODES: Final = {
    "uts": 0xEFFFFFFE,
    "ipc": 0xEFFFFFFF,
    "user": 0xEFFFFFFD,
    "pid": 0xEFFFFFFC,
    "cgroup": 0xEFFFFFFB,
}
ALL_CAPABILITIES: Final = (1 << 41) - 1
_COOKIE_MASK: Final = 0xFFFF_FFFF


class CpuFeatures(NamedTuple):
    """What the guest was shown of the CPU; a checkpoint goes only where all of it exists."""

    names: frozenset[str]
    cores: int

    def demand_from(self, host: CpuFeatures) -> None:
        """Raise Refused unless *host* has every feature and as many cores."""
        missing = sorted(self.names - host.names)
        if missing:
            raise Refused(f"this host's CPU lacks {', '.join(missing)}, which the guest may be using")
        if host.cores < self.cores:
            raise Refused(f"the guest was shown {self.cores} cores; this host offers {host.cores}")


@owned
class Identity:
    """Names and machine of one sandbox."""

    sandbox: str
    hostname: str
    domainname: str
    release: str
    version: str
    #: Soft limits by RLIMIT_* number, for every process created from outside.
    limits: dict[int, int]
    namespaces: dict[str, int] = field(default_factory=lambda: dict(NAMESPACE_INODES))

    def uts(self) -> UtsName:
        """Return struct new_utsname."""
        return UtsName(
            sysname=SYSNAME,
            nodename=self.hostname,
            release=self.release,
            version=self.version,
            machine=MACHINE,
            domainname=self.domainname,
        )

    def rename(self, name: str, *, domain: bool) -> None:
        """sethostname(2), setdomainname(2); the caller has checked the length."""
        if domain:
            self.domainname = name[:MAX_UTS_NAME]
        else:
            self.hostname = name[:MAX_UTS_NAME]

    def as_plain(self) -> dict[str, Any]:
        """Return plain data to save."""
        return asdict(self)


@owned
class Numbers:
    """Numbers that the whole sandbox shares."""

    last_unique_id: int = 0
    last_inotify_cookie: int = 0

    def unique_id(self) -> int:
        """Return a number that was never returned before, from 1."""
        self.last_unique_id += 1
        return self.last_unique_id

    def inotify_cookie(self) -> int:
        """Return the next cookie of a rename: 32 bits, and never 0, which means none."""
        self.last_inotify_cookie = (self.last_inotify_cookie + 1) & _COOKIE_MASK or 1
        return self.last_inotify_cookie


class SupervisorContext(NamedTuple):
    """Who acts when the supervisor does something inside: no task (pid 0), root, in init's namespaces."""

    mount_namespace: str
    #: Handle on the root directory.
    root: int
    namespaces: dict[str, int]

    @staticmethod
    def credentials() -> Credentials:
        """Return root's credentials."""
        return Credentials(fsuid=0, fsgid=0, groups=(), capabilities=ALL_CAPABILITIES, tgid=0, tid=0)
