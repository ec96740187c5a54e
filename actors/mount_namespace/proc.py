"""proc: the names below /proc, and the contents of its global files.

Linux: fs/proc/{root,base,fd,self,thread_self,namespaces}.c.  What a process's files show is made by the actor that owns
the process: here they are inodes with ``proc_file`` (the name of the text) or ``magic`` (a link that only the process
can resolve).  A process is visible once TaskSet told of it; a request by a process that is not known yet makes it
visible, since its own messages may come before TaskSet's.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, ClassVar, Final

from ...config import identity
from . import proc_text
from .inode import Dentry, Inode
from .virtual import VirtualFileSystem, constant

if TYPE_CHECKING:
    from ...messages.mount_namespace import Credentials
    from .file_data import DataStore
    from .host_files import HostFiles
    from .mounts import MountTable
    from .processes import Process, ProcessTable

__all__ = ["ProcFs"]

_DIR, _REG, _LNK = stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK
#: Names in /proc/PID/task/TID, with their mode.
_TASK_NAMES: dict[bytes, int] = {
    b"auxv": _REG | 0o400,
    b"cgroup": _REG | 0o444,
    b"children": _REG | 0o444,
    b"cmdline": _REG | 0o444,
    b"comm": _REG | 0o644,
    b"cwd": _LNK | 0o777,
    b"environ": _REG | 0o400,
    b"exe": _LNK | 0o777,
    b"fd": _DIR | 0o500,
    b"fdinfo": _DIR | 0o555,
    b"gid_map": _REG | 0o644,
    b"io": _REG | 0o400,
    b"limits": _REG | 0o444,
    b"loginuid": _REG | 0o644,
    b"maps": _REG | 0o444,
    b"mem": _REG | 0o600,
    b"mountinfo": _REG | 0o444,
    b"mounts": _REG | 0o444,
    b"net": _DIR | 0o555,
    b"ns": _DIR | 0o511,
    b"oom_adj": _REG | 0o644,
    b"oom_score": _REG | 0o444,
    b"oom_score_adj": _REG | 0o644,
    b"personality": _REG | 0o400,
    b"root": _LNK | 0o777,
    b"schedstat": _REG | 0o444,
    b"sessionid": _REG | 0o444,
    b"setgroups": _REG | 0o644,
    b"smaps": _REG | 0o444,
    b"smaps_rollup": _REG | 0o444,
    b"stat": _REG | 0o444,
    b"statm": _REG | 0o444,
    b"status": _REG | 0o444,
    b"syscall": _REG | 0o400,
    b"uid_map": _REG | 0o644,
    b"wchan": _REG | 0o444,
}
_PROCESS_NAMES: Final = {name: mode for name, mode in _TASK_NAMES.items() if name != b"children"}
_PROCESS_NAMES[b"task"] = _DIR | 0o555
_PROCESS_NAMES[b"coredump_filter"] = _REG | 0o644
_PROCESS_NAMES[b"timerslack_ns"] = _REG | 0o666
#: Files of a process that are made here.
_MADE_HERE: Final = {b"mounts": "PID/mounts", b"mountinfo": "PID/mountinfo"}
_NAMESPACES: Final = tuple(b"cgroup ipc mnt net pid pid_for_children time time_for_children user uts".split())
_FIRST_NAMESPACE_INO: Final = 4026531834
_FIRST_NUMBERED_INO: Final = 1 << 40
_SOCKETS: Final = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
_INTERFACES: Final = (
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier"
    " compressed\n"
    "    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0"
    "          0"
)
#: Contents of /proc/PID/net: there is only the loopback device.
_NETWORK_FILES: Final = {
    "arp": "IP address       HW type     Flags       HW address            Mask     Device",
    "dev": _INTERFACES,
    "if_inet6": "00000000000000000000000000000001 01 80 10 80       lo",
    "netlink": "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode",
    "packet": "sk       RefCnt Type Proto  Iface R Rmem   User   Inode",
    "raw": _SOCKETS,
    "raw6": _SOCKETS,
    "route": "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT",
    "tcp": _SOCKETS,
    "tcp6": _SOCKETS,
    "udp": _SOCKETS,
    "udp6": _SOCKETS,
    "unix": "Num       RefCount Protocol Flags    Type St Inode Path",
}
_SYSCTLS: Final = {
    "fs/aio-max-nr": "65536",
    "fs/file-max": "9223372036854775807",
    "fs/file-nr": "0\t0\t9223372036854775807",
    "fs/inotify/max_queued_events": "16384",
    "fs/inotify/max_user_instances": "128",
    "fs/inotify/max_user_watches": "65536",
    "fs/mount-max": "100000",
    "fs/nr_open": "1048576",
    "fs/overflowgid": "65534",
    "fs/overflowuid": "65534",
    "fs/pipe-max-size": "1048576",
    "fs/pipe-user-pages-hard": "0",
    "fs/pipe-user-pages-soft": "16384",
    "fs/protected_fifos": "0",
    "fs/protected_hardlinks": "1",
    "fs/protected_regular": "0",
    "fs/protected_symlinks": "1",
    "fs/suid_dumpable": "0",
    "kernel/cap_last_cap": "40",
    "kernel/core_pattern": "core",
    "kernel/core_uses_pid": "0",
    "kernel/domainname": identity.DOMAIN_NAME,
    "kernel/dmesg_restrict": "1",
    "kernel/io_uring_disabled": "2",
    "kernel/kptr_restrict": "1",
    "kernel/msgmax": "8192",
    "kernel/msgmnb": "16384",
    "kernel/msgmni": "32000",
    "kernel/ngroups_max": "65536",
    "kernel/osrelease": identity.RELEASE,
    "kernel/ostype": identity.SYSTEM_NAME,
    "kernel/overflowgid": "65534",
    "kernel/overflowuid": "65534",
    "kernel/perf_event_paranoid": "3",
    "kernel/pid_max": "4194304",
    "kernel/pty/max": "4096",
    "kernel/pty/nr": "0",
    "kernel/random/entropy_avail": "256",
    "kernel/random/poolsize": "256",
    "kernel/randomize_va_space": "2",
    "kernel/sem": "32000\t1024000000\t500\t32000",
    "kernel/shmall": "18446744073692774399",
    "kernel/shmmax": "18446744073692774399",
    "kernel/shmmni": "4096",
    "kernel/tainted": "0",
    "kernel/threads-max": "30000",
    "kernel/version": identity.VERSION,
    "kernel/yama/ptrace_scope": "0",
    "net/core/somaxconn": "4096",
    "net/core/rmem_max": "212992",
    "net/core/wmem_max": "212992",
    "net/ipv4/ip_local_port_range": "32768\t60999",
    "net/ipv4/tcp_fin_timeout": "60",
    "net/ipv6/conf/all/disable_ipv6": "0",
    "vm/dirty_ratio": "20",
    "vm/max_map_count": "65530",
    "vm/mmap_min_addr": "65536",
    "vm/nr_hugepages": "0",
    "vm/overcommit_memory": "0",
    "vm/overcommit_ratio": "50",
    "vm/swappiness": "60",
}


class ProcDirectory(Inode):
    """A directory of one process or thread."""

    __slots__ = ("kind", "prefix", "process")

    #: "process", "task", "thread", "fd", "fdinfo", "ns" or "net".
    kind: str
    #: What stands before a name in ``proc_file`` and ``magic``: "" or "task/TID/".
    prefix: str
    process: Process


class ProcFs(VirtualFileSystem):
    """/proc."""

    type: ClassVar[str] = "proc"
    magic: ClassVar[int] = 0x9FA0

    def __init__(
        self, host: HostFiles, store: DataStore, dev: int, processes: ProcessTable, mounts: MountTable, hostname: str
    ) -> None:
        super().__init__(host, store, dev)
        self._processes = processes
        self._mounts = mounts
        self.hostname = hostname
        self.boot_id = _uuid(host.random_bytes(16))
        self._processors = len(host.processors())
        self._pids: dict[int, Dentry] = {}
        self._threads: dict[tuple[int, int], Dentry] = {}

    # -- global files -------------------------------------------------------------------------------------------

    def add_files(self) -> None:
        """Make the global files, and what generates those of processes."""
        self._add_process_generators()
        host, count = self.host, self._processors
        self.add_link(b"self", b"")
        self.add_link(b"thread-self", b"")
        self.add_link(b"mounts", b"self/mounts")
        self.add_file(b"meminfo", lambda _w, _r: proc_text.memory_information(*host.memory_bytes()))
        self.add_file(b"cpuinfo", lambda _w, _r: proc_text.cpu_information(host.cpu_information(), count))
        self.add_file(b"uptime", lambda _w, _r: proc_text.uptime(self.store.time.uptime_ns(), count))
        self.add_file(b"stat", lambda _w, _r: self._statistics())
        self.add_file(b"loadavg", lambda who, _r: proc_text.load_average(len(self._processes.by_pid), self._last(who)))
        self.add_text(b"version", proc_text.version().decode().rstrip("\n"))
        names = ("sysfs", "tmpfs", "proc", "devtmpfs", "devpts", "overlay", "mqueue")
        self.add_text(b"filesystems", proc_text.file_systems(names).decode().rstrip("\n"))
        self.add_text(b"cmdline", "")
        self.add_text(b"swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority")
        self.add_text(b"partitions", "major minor  #blocks  name\n")
        self.add_text(b"devices", "Character devices:\n  1 mem\n  5 tty\n136 pts\n\nBlock devices:")
        self.add_text(b"misc", "")
        self.add_text(b"modules", "")
        self.add_text(b"cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled")
        self.add_text(b"vmstat", "nr_free_pages 0")
        self.add_text(b"locks", "")
        self.add_text(b"sysvipc/shm", "")
        self.add_link(b"net", b"self/net")
        self._add_sysctls()

    def _add_sysctls(self) -> None:
        for name, text in _SYSCTLS.items():
            self.add_text(b"sys/" + name.encode(), text, 0o644)
        random = b"sys/kernel/random/"
        self.add_file(random + b"uuid", lambda _w, _r: _uuid(self.host.random_bytes(16)))
        self.add_file(random + b"boot_id", lambda _w, _r: self.boot_id)
        self.add_file(b"sys/kernel/hostname", lambda _w, _r: self.hostname.encode() + b"\n", 0o644)

    def _statistics(self) -> bytes:
        time = self.store.time
        return proc_text.statistics(
            self._processors, time.uptime_ns(), time.now_ns(), max(self._processes.by_pid, default=1)
        )

    def _last(self, who: Credentials) -> int:
        return max(self._processes.by_pid, default=who.tgid)

    # -- files of processes that are made here -------------------------------------------------------------------

    def _add_process_generators(self) -> None:
        self._generators["PID/mounts"] = lambda _w, root: b"".join(
            proc_text.mount_line(mount, path) for mount, path in self._mounts.below(root)
        )
        self._generators["PID/mountinfo"] = lambda _w, root: b"".join(
            proc_text.mount_information_line(mount, path, self._root_in_file_system(mount.root))
            for mount, path in self._mounts.below(root)
        )
        for name, text in _NETWORK_FILES.items():
            self._generators["PID/net/" + name] = constant(text)

    @staticmethod
    def _root_in_file_system(dentry: Dentry) -> bytes:
        names: list[bytes] = []
        while dentry.parent is not dentry:
            names.append(dentry.name)
            dentry = dentry.parent
        return b"/" + b"/".join(reversed(names))

    # -- names --------------------------------------------------------------------------------------------------

    def lookup(self, directory: Dentry, name: bytes, who: Credentials) -> Dentry | None:
        """Find a process, a thread, or a file of one; made when first looked up."""
        found = super().lookup(directory, name, who)
        if found is not None:
            return found
        inode = directory.inode
        if directory is self.root:
            number = _number(name)
            return None if number < 0 else self._process(number, who)
        if not isinstance(inode, ProcDirectory) or directory.gone:
            return None
        match inode.kind:
            case "process" | "thread":
                return self._find_in_process(directory, inode, name, who)
            case "task":
                return self._find_thread(directory, inode, name, who)
            case "fd" | "fdinfo":
                return self._find_descriptor(directory, inode, name, who)
            case "ns":
                return self._find_namespace(directory, inode, name, who)
            case _:
                return self._find_network(directory, inode, name, who)

    def _process(self, pid: int, who: Credentials) -> Dentry | None:
        process = self._processes.of(pid, who)
        if process is None:
            return None
        dentry = self._pids.get(pid)
        if dentry is not None and dentry.inode is not None and dentry.inode.uid == process.uid:
            return dentry
        inode = self._new_directory(_DIR | 0o555, process, "process", "")
        dentry = self._pids[pid] = Dentry(b"%d" % pid, self.root, inode)
        return dentry

    def _new_directory(self, mode: int, process: Process, kind: str, prefix: str) -> ProcDirectory:
        inode = ProcDirectory(self, self.new_ino(), mode, process.uid, process.gid, self.store.time.now_ns())
        inode.process, inode.kind, inode.prefix, inode.pid = process, kind, prefix, process.pid
        if kind in ("fd", "fdinfo"):
            inode.proc_file = prefix + kind
        return inode

    def _find_in_process(self, directory: Dentry, at: ProcDirectory, name: bytes, who: Credentials) -> Dentry | None:
        mode = (_PROCESS_NAMES if at.kind == "process" else _TASK_NAMES).get(name)
        if mode is None:
            return None
        process, text = at.process, at.prefix + name.decode()
        if stat.S_ISDIR(mode):
            inode: Inode = self._new_directory(mode, process, name.decode(), at.prefix)
        else:
            inode = self._new_file(mode, process, self.new_ino())
            if stat.S_ISLNK(mode):
                inode.magic = text
            elif name in _MADE_HERE:
                inode.content = _MADE_HERE[name]
            else:
                inode.proc_file = text
        child = directory.children[name] = Dentry(name, directory, inode)
        return child

    def _new_file(self, mode: int, process: Process, number: int) -> Inode:
        inode = Inode(self, number, mode, process.uid, process.gid, self.store.time.now_ns())
        inode.pid = process.pid
        return inode

    def _find_thread(self, directory: Dentry, at: ProcDirectory, name: bytes, who: Credentials) -> Dentry | None:
        tid = _number(name)
        process = self._processes.of(at.pid, who)
        if process is None or tid not in process.tids and (tid, at.pid) != (who.tid, who.tgid):
            return None
        known = self._threads.get((at.pid, tid))
        if known is None or known.parent is not directory:
            inode = self._new_directory(_DIR | 0o555, process, "thread", f"task/{tid}/")
            known = self._threads[at.pid, tid] = Dentry(name, directory, inode)
        return known

    def _find_descriptor(self, directory: Dentry, at: ProcDirectory, name: bytes, who: Credentials) -> Dentry | None:
        number = _number(name)
        if number < 0 or len(name) > 10:
            return None
        ino = _FIRST_NUMBERED_INO + (at.pid << 32) + number * 2
        if at.kind == "fd":
            inode = self._new_file(_LNK | 0o700, at.process, ino)
            inode.magic = f"{at.prefix}fd/{number}"
            inode.size = 64
        else:
            inode = self._new_file(_REG | 0o444, at.process, ino + 1)
            inode.proc_file = f"{at.prefix}fdinfo/{number}"
        return Dentry(name, directory, inode)

    def _find_namespace(self, directory: Dentry, at: ProcDirectory, name: bytes, who: Credentials) -> Dentry | None:
        """A link such as "net -> net:[4026531840]"; its target is a hidden empty file here, so it can be opened."""
        kind = name.split(b":")[0]
        if kind not in _NAMESPACES:
            return None
        real = kind.removesuffix(b"_for_children")
        number = _FIRST_NAMESPACE_INO + _NAMESPACES.index(real)
        target = b"%s:[%d]" % (real, number)
        if name == target:
            inode = Inode(self, number, _REG | 0o444, 0, 0, self.store.time.now_ns())
        elif name == kind:
            inode = self._new_file(_LNK | 0o777, at.process, self.new_ino())
            inode.target = target
        else:
            return None
        child = directory.children[name] = Dentry(name, directory, inode)
        return child

    def _find_network(self, directory: Dentry, at: ProcDirectory, name: bytes, who: Credentials) -> Dentry | None:
        if name.decode(errors="replace") not in _NETWORK_FILES:
            return None
        inode = self._new_file(_REG | 0o444, at.process, self.new_ino())
        inode.content = "PID/net/" + name.decode()
        child = directory.children[name] = Dentry(name, directory, inode)
        return child

    def names(self, directory: Dentry, who: Credentials) -> list[tuple[bytes, int, int]]:
        """Every name of a directory; those of open descriptors are only known to the process."""
        inode = directory.inode
        if directory is self.root:
            pids = [b"%d" % pid for pid in sorted(self._processes.by_pid)]
            return super().names(directory, who) + self._listed(directory, pids, who)
        if not isinstance(inode, ProcDirectory):
            return super().names(directory, who)
        process = self._processes.by_pid.get(inode.pid)
        if process is None or directory.gone:
            return []
        known = {
            "process": list(_PROCESS_NAMES),
            "thread": list(_TASK_NAMES),
            "task": [b"%d" % tid for tid in sorted(process.tids)],
            "ns": list(_NAMESPACES),
            "net": [name.encode() for name in _NETWORK_FILES],
        }
        return self._listed(directory, known.get(inode.kind, []), who)

    def _listed(self, directory: Dentry, names: list[bytes], who: Credentials) -> list[tuple[bytes, int, int]]:
        entries = []
        for name in names:
            child = directory.children.get(name) or self.lookup(directory, name, who)
            if child is not None and child.inode is not None:
                entries.append((name, child.inode.ino, child.inode.mode >> 12))
        return entries

    def read_link(self, inode: Inode, who: Credentials) -> bytes:
        """/proc/self and /proc/thread-self depend on the asker."""
        if inode is self.root.children[b"self"].inode:
            return b"%d" % who.tgid
        if inode is self.root.children[b"thread-self"].inode:
            return b"%d/task/%d" % (who.tgid, who.tid)
        return inode.target

    def forget(self, pid: int) -> None:
        """A process was reaped: what is still open of it leads nowhere."""
        dentry = self._pids.pop(pid, None)
        if dentry is not None:
            _mark_gone(dentry)
        for key in [key for key in self._threads if key[0] == pid]:
            _mark_gone(self._threads.pop(key))


def _mark_gone(dentry: Dentry) -> None:
    dentry.gone = True
    for child in dentry.children.values():
        _mark_gone(child)
    if dentry.children:
        dentry.children.clear()


def _number(name: bytes) -> int:
    """Return the number that a name is in the one way that Linux writes it, or -1."""
    return int(name) if name.isdigit() and (name[0] != 48 or name == b"0") and len(name) < 11 else -1


def _uuid(random: bytes) -> bytes:
    """Return a random UUID of version 4 and a line feed."""
    value = bytearray(random)
    value[6] = value[6] & 0x0F | 0x40
    value[8] = value[8] & 0x3F | 0x80
    text = bytes(value).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}\n".encode()
