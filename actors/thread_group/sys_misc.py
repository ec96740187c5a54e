"""The system as a whole: its names, memory and log, random bytes, capabilities, and what a sandbox refuses.

Linux counterpart: kernel/sys.c, kernel/printk/printk.c, drivers/char/random.c, kernel/capability.c.
"""

from __future__ import annotations

import dataclasses
import struct
from errno import EFAULT, EINVAL, ENOSYS, EPERM, ESRCH
from typing import TYPE_CHECKING, Final

from ...config import identity
from ...messages.kernel import ReadSyslog, SetHostName
from ...messages.task_set import UtsName
from .credentials import CAP_SETPCAP, CAP_SYS_ADMIN, FULL_CAPABILITIES, Credentials
from .table import S32, U32, U64, Address, syscall
from .task import Petition

if TYPE_CHECKING:
    from .task import Task

__all__ = ["DEFAULT_UTS"]

#: What uname(2) shows until Kernel says otherwise.
DEFAULT_UTS: Final = UtsName(
    sysname=identity.SYSTEM_NAME,
    nodename=identity.HOST_NAME,
    release=identity.RELEASE,
    version=identity.VERSION,
    machine=identity.MACHINE,
    domainname=identity.DOMAIN_NAME,
)

_UTS_FIELD_BYTES: Final = 65
_MAX_NAME_BYTES: Final = 64
_CAP_SYSLOG: Final = 34


# -- names ------------------------------------------------------------------------------------------------------


@syscall(63)
def uname(task: Task, buffer: Address) -> int:
    """uname(2): names and version of the system. EFAULT."""
    names = dataclasses.astuple(task.worker.uts)
    task.memory.write(
        buffer, b"".join(n.encode()[: _UTS_FIELD_BYTES - 1].ljust(_UTS_FIELD_BYTES, b"\0") for n in names)
    )
    return 0


@syscall(170)
def sethostname(task: Task, name: Address, length: S32) -> int:
    """sethostname(2): change the sandbox's host name. EFAULT, EINVAL for more than 64 bytes, EPERM."""
    text = _read_name(task, name, length)
    task.worker.uts = dataclasses.replace(task.worker.uts, nodename=text)
    task.group.tell("kernel", SetHostName(name=text, domain=False))
    return 0


@syscall(171)
def setdomainname(task: Task, name: Address, length: S32) -> int:
    """setdomainname(2): change the sandbox's NIS domain name. EFAULT, EINVAL for more than 64 bytes, EPERM."""
    text = _read_name(task, name, length)
    task.worker.uts = dataclasses.replace(task.worker.uts, domainname=text)
    task.group.tell("kernel", SetHostName(name=text, domain=True))
    return 0


def _read_name(task: Task, address: int, length: int) -> str:
    if not task.group.credentials.has(CAP_SYS_ADMIN):
        raise OSError(EPERM, "")
    if not 0 <= length <= _MAX_NAME_BYTES:
        raise OSError(EINVAL, "")
    return task.memory.read(address, length).split(b"\0")[0].decode(errors="replace")


# -- memory, load, log ------------------------------------------------------------------------------------------

#: struct sysinfo: uptime, loads, total, free, shared, buffers, swap total and free, procs, pad, high, unit, pad.
_SYSINFO: Final = struct.Struct("<q3Q6QHH4x2QI4x")
#: sysinfo(2) counts load in units of 1 / 65536.
_LOAD_SCALE: Final = 1 << 16


@syscall(99, partial="procs counts the threads of the caller's worker")
def sysinfo(task: Task, buffer: Address) -> int:
    """sysinfo(2): uptime of the sandbox, memory and load of the host. EFAULT."""
    worker = task.worker
    memory = worker.host.memory_kib()
    names = ("MemTotal", "MemFree", "Shmem", "Buffers", "SwapTotal", "SwapFree")
    data = _SYSINFO.pack(
        worker.clock.monotonic_ns() // 10**9,
        *(int(load * _LOAD_SCALE) for load in worker.host.load_averages()),
        *(memory.get(name, 0) << 10 for name in names),
        min(sum(len(group.tasks) for group in worker.groups.values()), 0xFFFF),
        0,
        0,
        0,
        1,
    )
    task.memory.write(buffer, data)
    return 0


_SYSLOG_READ, _SYSLOG_READ_ALL, _SYSLOG_READ_CLEAR, _SYSLOG_SIZE_UNREAD, _SYSLOG_SIZE_BUFFER = 2, 3, 4, 9, 10
_SYSLOG_BUFFER_BYTES: Final = 1 << 17


@syscall(103, partial="reading and sizes; clearing and console levels are accepted and do nothing")
def syslog(task: Task, action: S32, buffer: Address, length: S32) -> int | Petition:
    """syslog(2): read the sandbox's kernel log. EFAULT, EINVAL, EPERM without CAP_SYSLOG."""
    if not task.group.credentials.has(_CAP_SYSLOG):  # as with dmesg_restrict, for every action
        raise OSError(EPERM, "")
    if not 0 <= action <= _SYSLOG_SIZE_BUFFER:
        raise OSError(EINVAL, "")
    if action == _SYSLOG_SIZE_BUFFER:
        return _SYSLOG_BUFFER_BYTES
    if action in (_SYSLOG_READ, _SYSLOG_READ_ALL, _SYSLOG_READ_CLEAR):
        return _read_log(task, buffer, length)
    return 0


def _read_log(task: Task, buffer: int, length: int) -> int | Petition:
    if not buffer or length < 0:
        raise OSError(EINVAL, "")
    answer = task.take_answer()
    if answer is None:
        return Petition(ReadSyslog, {})
    text = answer.text[-length:] if length else b""
    task.memory.write(buffer, text)
    return len(text)


# -- random bytes -----------------------------------------------------------------------------------------------

_GRND_NONBLOCK, _GRND_RANDOM, _GRND_INSECURE = 1, 2, 4
#: Bytes that one call gives at most: Linux goes on until a signal comes; here other tasks wait meanwhile.
_MAX_RANDOM_BYTES: Final = (1 << 25) - 1


@syscall(318, partial="at most 32 MiB at once")
def getrandom(task: Task, buffer: Address, count: U64, flags: U32) -> int:
    """getrandom(2): random bytes of the host. EFAULT, EINVAL for unknown or contradicting flags."""
    if flags & ~(_GRND_NONBLOCK | _GRND_RANDOM | _GRND_INSECURE) or flags & 6 == _GRND_RANDOM | _GRND_INSECURE:
        raise OSError(EINVAL, "")
    count = min(count, _MAX_RANDOM_BYTES)
    task.memory.check_writable(buffer, count)
    task.memory.write(buffer, task.worker.host.random_bytes(count))
    return count


# -- capabilities -----------------------------------------------------------------------------------------------

_CAP_V1, _CAP_V2, _CAP_V3 = 0x19980330, 0x20071026, 0x20080522
#: 32-bit words per set, by version.
_CAP_WORDS: Final = {_CAP_V1: 1, _CAP_V2: 2, _CAP_V3: 2}


def _capability_header(task: Task, header: int) -> tuple[int, int]:
    """Return (words per set, pid). EINVAL for an unknown version, after writing the one that we like best."""
    version, pid = struct.unpack("<Ii", task.memory.read(header, 8))
    if version not in _CAP_WORDS:
        task.memory.write(header, struct.pack("<I", _CAP_V3))
        raise OSError(EINVAL, "")
    return _CAP_WORDS[version], pid


@syscall(125, partial="other processes: those of the same worker")
def capget(task: Task, header: Address, data: Address) -> int:
    """capget(2): effective, permitted and inheritable capabilities. EFAULT, EINVAL, ESRCH."""
    try:
        words, pid = _capability_header(task, header)
    except OSError as error:
        if error.errno == EINVAL and not data:
            return 0  # this is how programs ask for the version
        raise
    if pid < 0:
        raise OSError(EINVAL, "")
    owner = _credentials_of(task, pid)
    sets = (owner.effective, owner.permitted, owner.inheritable)
    if data:
        task.memory.write(
            data, b"".join(struct.pack("<3I", *(s >> 32 * i & 0xFFFFFFFF for s in sets)) for i in range(words))
        )
    return 0


def _credentials_of(task: Task, pid: int) -> Credentials:
    if pid in (0, task.tid):
        return task.group.credentials
    for group in task.worker.groups.values():
        if pid in group.tasks:
            return group.credentials
    raise OSError(ESRCH, "")


@syscall(126)
def capset(task: Task, header: Address, data: Address) -> int:
    """capset(2): change the caller's capabilities. EFAULT, EINVAL, EPERM for what it may not have or another's."""
    words, pid = _capability_header(task, header)
    if pid not in (0, task.tid):
        raise OSError(EPERM, "")
    if not data:
        raise OSError(EFAULT, "")
    values = struct.unpack(f"<{3 * words}I", task.memory.read(data, 12 * words))
    effective, permitted, inheritable = (
        sum(values[3 * i + kind] << 32 * i for i in range(words)) & FULL_CAPABILITIES for kind in range(3)
    )
    own = task.group.credentials
    _check_capset(own, effective, permitted, inheritable)
    own.effective, own.permitted, own.inheritable = effective, permitted, inheritable
    own.ambient &= permitted & inheritable
    return 0


def _check_capset(own: Credentials, effective: int, permitted: int, inheritable: int) -> None:
    """cap_capset's rules. EPERM."""
    may_inherit = own.inheritable | (own.bounding if own.has(CAP_SETPCAP) else own.permitted)
    if inheritable & ~may_inherit or inheritable & ~(own.inheritable | own.bounding):
        raise OSError(EPERM, "")
    if permitted & ~own.permitted or effective & ~permitted:
        raise OSError(EPERM, "")


# -- what a sandbox refuses -------------------------------------------------------------------------------------

#: Calls that change the machine, and their errno: what root gets in a container without the capability.
_REFUSED: dict[int, tuple[str, int, str]] = {
    101: (
        "ptrace",
        EPERM,
        "no process may trace another. EPERM, as for a process without CAP_SYS_PTRACE under a strict policy.",
    ),
    153: ("vhangup", EPERM, "EPERM, as without CAP_SYS_TTY_CONFIG."),
    163: ("acct", EPERM, "EPERM, as without CAP_SYS_PACCT."),
    167: ("swapon", EPERM, "EPERM, as without CAP_SYS_ADMIN."),
    168: ("swapoff", EPERM, "EPERM, as without CAP_SYS_ADMIN."),
    169: ("reboot", EPERM, "EPERM, as without CAP_SYS_BOOT."),
    172: ("iopl", EPERM, "EPERM, as without CAP_SYS_RAWIO."),
    173: ("ioperm", EPERM, "EPERM, as without CAP_SYS_RAWIO."),
    175: ("init_module", EPERM, "EPERM, as without CAP_SYS_MODULE."),
    176: ("delete_module", EPERM, "EPERM, as without CAP_SYS_MODULE."),
    179: ("quotactl", ENOSYS, "ENOSYS, as without CONFIG_QUOTA."),
    246: ("kexec_load", EPERM, "EPERM, as without CAP_SYS_BOOT."),
    300: ("fanotify_init", EPERM, "EPERM, as without CAP_SYS_ADMIN."),
    313: ("finit_module", EPERM, "EPERM, as without CAP_SYS_MODULE."),
    317: ("seccomp", EINVAL, "no filters. EINVAL, as without CONFIG_SECCOMP_FILTER."),
    321: ("bpf", EPERM, "EPERM, as without CAP_BPF."),
    334: ("rseq", ENOSYS, "ENOSYS, as without CONFIG_RSEQ; C libraries then do without."),
}


def refuse(task: Task) -> int:
    """Refuse the call with its errno."""
    return -_REFUSED[task.number][1]


for _number, (_name, _errno, _why) in _REFUSED.items():
    syscall(_number, _name, partial=f"always refused: {_why}")(refuse)
