"""May one process look into another?  The rule of ptrace(2), which /proc and process_vm_readv(2) share.

Linux counterpart: __ptrace_may_access (kernel/ptrace.c), with PTRACE_MODE_FSCREDS.  Processes of one worker look at
each other's plain state directly, between two messages, as Linux does under the target's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .actor import ThreadGroup

__all__ = ["may_inspect"]

_CAP_SYS_PTRACE: Final = 19


def may_inspect(caller: ThreadGroup, target: ThreadGroup) -> bool:
    """Tell whether *caller* may: the same process, the same user and group all through, or CAP_SYS_PTRACE."""
    if caller is target:
        return True
    mine, theirs = caller.credentials, target.credentials
    same_uid = {mine.fsuid} == {theirs.ruid, theirs.euid, theirs.suid}
    same_gid = {mine.fsgid} == {theirs.rgid, theirs.egid, theirs.sgid}
    return same_uid and same_gid and target.dumpable == 1 or mine.has(_CAP_SYS_PTRACE)
