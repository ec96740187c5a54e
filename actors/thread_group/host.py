"""The worker's port to the host: every host call that a thread group makes, one method each.

Arguments and results are plain data (ints, bytes, tuples, None) and errors are OSError: so a trace can record every
call and a replay can answer it with no host.  No other module of this folder calls ``os`` on host state.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import time
from typing import Any, Final

from ...platform.x86_64 import clock_page, cpuid, xstate
from ...platform.x86_64.clock_page import ClockPage
from ...platform.x86_64.tick_clock import HostTime, TickClock, is_trustworthy

__all__ = ["WorkerHost"]

#: Of a process's CPU clocks, the one that counts all of its time in ns (include/linux/posix-timers.h).
_CPUCLOCK_SCHED: Final = 2
_KIB_PER_PAGE: Final = 4
#: Of the ticks in which /proc counts CPU time.
_NS_PER_TICK: Final = 10_000_000
#: Pages that are looked up in /proc/TID/pagemap at once.
_PAGEMAP_PAGES: Final = 1 << 16


_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate64.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.tee.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)
_libc.tee.restype = ctypes.c_ssize_t
_libc.send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_libc.connect.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.send.restype = ctypes.c_ssize_t


#: Room for the one descriptor that accompanies a message of the guest (see socket_file.py).
_TICKET_SPACE_BYTES: Final = socket.CMSG_SPACE(4 * 4)


def _unix_name(address: Any) -> bytes:
    """Return a Unix socket's name as bytes, whichever way Python gives it."""
    return address if isinstance(address, bytes) else os.fsencode(address or "")


def _read_whole(path: bytes) -> bytes:
    """Return what a small file of /proc says."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def _check(result: int) -> int:
    """Return the result of a C library call, or raise what errno says."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class WorkerHost:
    """The real host."""

    def __init__(self) -> None:
        self._time: HostTime | TickClock = HostTime()
        self._clock_page: ClockPage | None = None
        self._epolls: dict[int, select.epoll] = {}
        self._sockets: dict[int, socket.socket] = {}

    def monotonic_ns(self) -> int:
        """Host CLOCK_MONOTONIC, as guests read it by their vDSO."""
        return self._time.monotonic_ns()

    def realtime_ns(self) -> int:
        """Host CLOCK_REALTIME, as guests read it by their vDSO."""
        return self._time.realtime_ns()

    def make_vdso(self) -> tuple[int, bytes]:
        """(descriptor, image) of a file to map: the parameter page, which we keep up to date, and the image."""
        code = clock_page.image()
        fd, page = clock_page.make_file(code)
        shown = self._clock_page = ClockPage(page)
        self._time = TickClock(HostTime(), trusted=is_trustworthy(), withdraw=shown.withdraw, publish=shown.publish)
        return fd, code

    def make_static_vdso(self, code: bytes) -> int:
        """Descriptor of a file to map: a page that says nothing but "use the system call", and an image."""
        fd, page = clock_page.make_file(code)
        page.close()
        return fd

    def show_clocks(self, monotonic_offset_ns: int, realtime_offset_ns: int) -> None:
        """Have the parameter page say that the guest's clocks are the host's plus these."""
        if self._clock_page is not None:
            self._clock_page.show(monotonic_offset_ns, realtime_offset_ns)

    def hide_clocks(self) -> int:
        """Have the parameter page say "use the system call"; how far in ns it may have been ahead of the host."""
        if self._clock_page is not None:
            self._clock_page.hide()
        return self._time.lead_ns() if isinstance(self._time, TickClock) else 0

    def cpu_time_ns(self, host_tid: int) -> int:
        """CPU time in ns of a host task: its process's CPU clock, since each is a process of its own."""
        return time.clock_gettime_ns(~host_tid << 3 | _CPUCLOCK_SCHED)

    def cpu_times_ns(self, host_tid: int) -> tuple[int, int]:
        """(user, system) CPU time in ns of a host task: the exact sum, split as /proc/TID/stat's ticks are."""
        total = self.cpu_time_ns(host_tid)
        if total < _NS_PER_TICK:
            return total, 0
        fields = _read_whole(b"/proc/%d/stat" % host_tid).rpartition(b")")[2].split()
        user, system = int(fields[11]), int(fields[12])
        in_system = total * system // (user + system) if system else 0
        return total - in_system, in_system

    def resident_kib(self, host_tid: int) -> int:
        """Resident set of a host task in KiB."""
        return int(_read_whole(b"/proc/%d/statm" % host_tid).split()[1]) * _KIB_PER_PAGE

    def cpu_auxv(self) -> dict[int, int]:
        """Auxiliary vector entries that depend on the CPU, by AT_* number."""
        return cpuid.host_auxv()

    def xstate_layout(self) -> tuple[int, int, tuple[tuple[int, int, int], ...]]:
        """Where the CPU keeps the extended state, as ``xstate.Layout.plain``."""
        return xstate.host_layout().plain()

    def random_bytes(self, count: int) -> bytes:
        """Bytes for getrandom(2), /dev/urandom and AT_RANDOM."""
        return os.urandom(count)

    # The calls that guests make all day are the module's own functions, without one of ours around them.
    #: read(2) at the descriptor's own offset.
    read = staticmethod(os.read)

    #: write(2) at the descriptor's own offset.
    write = staticmethod(os.write)

    #: close(2).
    close = staticmethod(os.close)

    # -- open files: descriptors of every kind ---------------------------------------------------------------------

    def reopen(self, fd: int, flags: int) -> int:
        """open(2) of what is behind *fd*: a new open file description of the same file."""
        return os.open(b"/proc/self/fd/%d" % fd, flags | os.O_CLOEXEC | os.O_NOCTTY)

    def duplicate(self, fd: int) -> int:
        """Another descriptor of the same open file description."""
        return os.dup(fd)

    def file_status(self, fd: int) -> tuple[int, ...]:
        """fstat(2): dev, ino, mode, nlink, uid, gid, rdev, size, blksize, blocks, atime, mtime, ctime in ns."""
        s = os.fstat(fd)
        return (
            *(s.st_dev, s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_rdev, s.st_size, s.st_blksize),
            *(s.st_blocks, s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns),
        )

    def file_flags(self, fd: int) -> int:
        """fcntl(F_GETFL)."""
        return fcntl.fcntl(fd, fcntl.F_GETFL)

    def set_file_flags(self, fd: int, flags: int) -> None:
        """fcntl(F_SETFL)."""
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)

    def file_control(self, fd: int, command: int, argument: int) -> int:
        """fcntl(2) with an integer: F_SETPIPE_SZ, F_GETPIPE_SZ, F_ADD_SEALS, F_GET_SEALS."""
        return fcntl.fcntl(fd, command, argument)

    def io_control(self, fd: int, request: int, data: bytes) -> bytes:
        """ioctl(2) with a structure that is read, written or both; returns it as it is afterwards."""
        return fcntl.ioctl(fd, request, data)

    def io_control_number(self, fd: int, request: int, argument: int) -> int:
        """ioctl(2) whose argument is a number."""
        return fcntl.ioctl(fd, request, argument)

    #: pread(2).
    pread = staticmethod(os.pread)

    #: pwrite(2).
    pwrite = staticmethod(os.pwrite)

    def pwrite_flags(self, fd: int, data: bytes, offset: int, flags: int) -> int:
        """pwritev2(2) with RWF_* flags; *offset* -1 for the own position."""
        return os.pwritev(fd, [data], offset, flags)

    def seek(self, fd: int, offset: int, whence: int) -> int:
        """lseek(2)."""
        return os.lseek(fd, offset, whence)

    def truncate(self, fd: int, size: int) -> None:
        """ftruncate(2)."""
        os.ftruncate(fd, size)

    def allocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        """fallocate(2)."""
        _check(_libc.fallocate64(fd, mode, offset, length))

    def sync_file(self, fd: int, data_only: bool) -> None:
        """fsync(2) or fdatasync(2)."""
        if data_only:
            os.fdatasync(fd)
        else:
            os.fsync(fd)

    def copy_file_range(self, source: int, target: int, count: int, source_offset: int, target_offset: int) -> int:
        """copy_file_range(2)."""
        return os.copy_file_range(source, target, count, source_offset, target_offset)

    def send_file(self, target: int, source: int, offset: int, count: int) -> int:
        """sendfile(2)."""
        return os.sendfile(target, source, offset, count)

    def splice(self, source: int, target: int, count: int, source_offset: int, target_offset: int) -> int:
        """splice(2) without waiting; offsets of -1 stand for the descriptors' own positions."""
        source_at = None if source_offset < 0 else source_offset
        target_at = None if target_offset < 0 else target_offset
        return os.splice(source, target, count, source_at, target_at, os.SPLICE_F_NONBLOCK)

    def tee(self, source: int, target: int, count: int) -> int:
        """tee(2) without waiting."""
        return _check(_libc.tee(source, target, count, os.SPLICE_F_NONBLOCK))

    def make_pipe(self) -> tuple[int, int]:
        """pipe2(2), both ends non-blocking: (reading, writing)."""
        return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def make_eventfd(self, value: int, flags: int) -> int:
        """eventfd2(2), non-blocking; *flags* holds EFD_SEMAPHORE or nothing."""
        return os.eventfd(value, flags | os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def make_memfd(self, name: bytes, flags: int) -> int:
        """memfd_create(2)."""
        return os.memfd_create(os.fsdecode(name), flags | os.MFD_CLOEXEC)

    def open_terminal_master(self) -> int:
        """A new pseudo-terminal's master, non-blocking; its slave is unlocked."""
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(master, 0x40045431, bytes(4))  # TIOCSPTLCK
        return master

    def descriptor_information(self, fd: int) -> bytes:
        """/proc/self/fdinfo/N of one of our descriptors."""
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            return file.read()

    def send(self, fd: int, data: bytes) -> int:
        """send(2) without waiting."""
        return _check(_libc.send(fd, data, len(data), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL))

    # -- sockets ------------------------------------------------------------------------------------------------

    def make_socket(self, family: int, kind: int, protocol: int) -> int:
        """socket(2), non-blocking."""
        return self._own_socket(socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol))

    def make_socket_pair(self, kind: int) -> tuple[int, int]:
        """socketpair(2) of Unix sockets, non-blocking."""
        first, second = socket.socketpair(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        return self._own_socket(first), self._own_socket(second)

    def _own_socket(self, made: socket.socket) -> int:
        made.setblocking(False)
        self._sockets[made.fileno()] = made
        return made.fileno()

    def close_socket(self, fd: int) -> None:
        """close(2) of a socket."""
        self._sockets.pop(fd).close()

    def bind_in_private(self, fd: int) -> tuple[int, bytes]:
        """bind(2) to a name that nobody else can reach, because it is gone at once.

        Returns an O_PATH descriptor of the socket, by which ``connect_socket`` and ``send_message`` find it, and the
        name as the host reports it to peers.
        """
        import tempfile  # with compression and random numbers, for those who bind

        directory = tempfile.mkdtemp(prefix="greenroom-")
        name = f"{directory}/s"
        try:
            self._sockets[fd].bind(name)
            found = os.open(name, os.O_PATH | os.O_CLOEXEC)
            os.unlink(name)
        finally:
            os.rmdir(directory)
        return found, os.fsencode(name)

    def listen_socket(self, fd: int, backlog: int) -> None:
        """listen(2)."""
        self._sockets[fd].listen(backlog)

    def accept_socket(self, fd: int) -> int:
        """accept4(2); the new socket is non-blocking."""
        return self._own_socket(self._sockets[fd].accept()[0])

    def connect_socket(self, fd: int, path_fd: int) -> None:
        """connect(2) to the socket behind an O_PATH descriptor; -1 dissolves a datagram socket's association."""
        if path_fd < 0:
            address = struct.pack("<H14x", socket.AF_UNSPEC)
            _check(_libc.connect(fd, address, len(address)))
        else:
            self._sockets[fd].connect(b"/proc/self/fd/%d" % path_fd)

    def peer_name(self, fd: int) -> bytes:
        """getpeername(2) of a Unix socket: the peer's name, b"" for none."""
        return _unix_name(self._sockets[fd].getpeername())

    def shut_down_socket(self, fd: int, how: int) -> None:
        """shutdown(2)."""
        self._sockets[fd].shutdown(how)

    def send_message(self, fd: int, data: bytes, fds: tuple[int, ...], path_fd: int, flags: int) -> int:
        """sendmsg(2) without waiting, with descriptors, to where *path_fd* leads (-1: to the peer)."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"<{len(fds)}i", *fds))] if fds else []
        flags |= socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        if path_fd < 0:
            return self._sockets[fd].sendmsg([data], ancillary, flags)
        return self._sockets[fd].sendmsg([data], ancillary, flags, b"/proc/self/fd/%d" % path_fd)

    def receive_message(self, fd: int, size: int, flags: int) -> tuple[bytes, tuple[int, ...], int, bytes]:
        """recvmsg(2) without waiting: data, the descriptors that came along, MSG_* flags, and the sender's name."""
        flags |= socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        data, ancillary, flags, source = self._sockets[fd].recvmsg(size, _TICKET_SPACE_BYTES, flags)
        fds: tuple[int, ...] = ()
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds += struct.unpack(f"<{len(content) // 4}i", content[: len(content) // 4 * 4])
        return data, fds, flags, _unix_name(source)

    def socket_option(self, fd: int, level: int, option: int, size: int) -> bytes:
        """getsockopt(2)."""
        return self._sockets[fd].getsockopt(level, option, size)

    def set_socket_option(self, fd: int, level: int, option: int, value: bytes) -> None:
        """setsockopt(2)."""
        self._sockets[fd].setsockopt(level, option, value)

    # -- open files: readiness ----------------------------------------------------------------------------------

    def poll(self, wanted: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        """poll(2) without waiting: (descriptor, POLL* events) of those that are ready."""
        poll = select.poll()
        for fd, events in wanted:
            poll.register(fd, events)
        return tuple(poll.poll(0))

    def make_epoll(self) -> int:
        """epoll_create1(2)."""
        epoll = select.epoll()
        self._epolls[epoll.fileno()] = epoll
        return epoll.fileno()

    def epoll_add(self, epoll: int, fd: int, events: int) -> None:
        """epoll_ctl(EPOLL_CTL_ADD); the event's data is *fd*."""
        self._epolls[epoll].register(fd, events)

    def epoll_modify(self, epoll: int, fd: int, events: int) -> None:
        """epoll_ctl(EPOLL_CTL_MOD)."""
        self._epolls[epoll].modify(fd, events)

    def epoll_remove(self, epoll: int, fd: int) -> None:
        """epoll_ctl(EPOLL_CTL_DEL)."""
        self._epolls[epoll].unregister(fd)

    def epoll_take(self, epoll: int, count: int) -> tuple[tuple[int, int], ...]:
        """epoll_wait(2) without waiting: (descriptor, EPOLL* events), *count* at most."""
        return tuple(self._epolls[epoll].poll(0, count))

    def close_epoll(self, epoll: int) -> None:
        """close(2) of an epoll descriptor."""
        self._epolls.pop(epoll).close()

    # -- the machine (sys_misc.py, proc_files.py) -----------------------------------------------------------------

    def memory_kib(self) -> dict[str, int]:
        """/proc/meminfo by name, in KiB."""
        with open("/proc/meminfo", encoding="ascii") as file:
            rows = (line.split() for line in file)
            return {row[0].rstrip(":"): int(row[1]) for row in rows}

    def load_averages(self) -> tuple[float, float, float]:
        """Load of the host over 1, 5 and 15 minutes."""
        return os.getloadavg()

    def task_memory_kib(self, host_tid: int) -> dict[str, int]:
        """The sizes in /proc/TID/status of a host task by name, in KiB."""
        with open(f"/proc/{host_tid}/status", "rb") as file:
            rows = (line.split() for line in file if line.endswith(b" kB\n"))
            return {row[0][:-1].decode(): int(row[1]) for row in rows}

    def task_mappings_kib(self, host_tid: int) -> list[tuple[int, int, dict[str, int]]]:
        """/proc/TID/smaps of a host task: (start, end, sizes by name in KiB) of each mapping."""
        rows: list[tuple[int, int, dict[str, int]]] = []
        with open(f"/proc/{host_tid}/smaps", "rb") as file:
            for line in file:
                words = line.split()
                if not words[0].endswith(b":"):
                    start, _, end = words[0].partition(b"-")
                    rows.append((int(start, 16), int(end, 16), {}))
                elif words[-1] == b"kB":
                    rows[-1][2][words[0][:-1].decode()] = int(words[1])
        return rows

    # -- memory (memory.py, advice.py, sys_memory.py) ------------------------------------------------------------------

    def present_pages(self, host_tid: int, first_page: int, count: int) -> bytes:
        """One byte for each page of a host task: 1 when it is in memory or in swap (/proc/TID/pagemap)."""
        fd = os.open(f"/proc/{host_tid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            entries = os.pread(fd, 8 * count, 8 * first_page)
        finally:
            os.close(fd)
        # The two highest bits of the 64 say swapped and present.
        return bytes(1 if entry & 0xC0 else 0 for entry in entries[7::8])

    def own_pages(self, host_tid: int, first_page: int, count: int) -> list[tuple[int, int]]:
        """(first, end) of the runs of pages of a host task that are in memory or in swap and belong to no file."""
        runs: list[tuple[int, int]] = []
        with open(f"/proc/{host_tid}/pagemap", "rb", buffering=0) as file:
            for begin in range(first_page, first_page + count, _PAGEMAP_PAGES):
                wanted = min(_PAGEMAP_PAGES, first_page + count - begin)
                entries = os.pread(file.fileno(), 8 * wanted, 8 * begin)
                # Of the highest byte: present, swapped, and a file's.
                states = entries[7::8]
                for page, state in enumerate(states, begin):
                    if state & 0xC0 and not state & 0x20:
                        if runs and runs[-1][1] == page:
                            runs[-1] = (runs[-1][0], page + 1)
                        else:
                            runs.append((page, page + 1))
        return runs

    def membarrier(self, command: int) -> int:
        """membarrier(2) with no flags: MEMBARRIER_CMD_QUERY and _GLOBAL."""
        return _check(_libc.syscall(324, command, 0, 0))
