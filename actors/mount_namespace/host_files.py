"""The host port of MountNamespace: every host call that it makes about files, the clock and random bytes.

Arguments and results are plain msgpack data (descriptors are ints, a file's attributes a tuple of ints), failures are
OSError: a trace records the calls and a replay answers them, with no host at all.  No other module of this folder may
touch the host.  Names below a directory are single components or relative paths that never follow a symbolic link.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import select
import stat
import struct
import time
from typing import Final

__all__ = ["HostFiles", "HostStatus"]

#: Attributes of a host file, by the S_* positions below; times in ns.
HostStatus = tuple[int, ...]
S_MODE, S_INO, S_DEV, S_NLINK, S_UID, S_GID, S_RDEV = range(7)
S_SIZE, S_BLKSIZE, S_BLOCKS, S_ATIME, S_MTIME, S_CTIME = range(7, 13)

_CLOCK_REALTIME_COARSE: Final = 5
_SYS_OPENAT2, _SYS_GETDENTS64 = 437, 217
#: Bytes of a directory that one host call gives.
_LISTING_BYTES: Final = 1 << 16
#: struct linux_dirent64: inode number, length and DT_*; where the name begins.
_unpack_entry = struct.Struct("<Q8xHB").unpack_from
_NAME_OFFSET: Final = 19
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 2, 4, 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.fstatfs.restype = ctypes.c_int


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _plain(s: os.stat_result) -> HostStatus:
    return (
        s.st_mode,
        s.st_ino,
        s.st_dev,
        s.st_nlink,
        s.st_uid,
        s.st_gid,
        s.st_rdev,
        s.st_size,
        s.st_blksize,
        s.st_blocks,
        s.st_atime_ns,
        s.st_mtime_ns,
        s.st_ctime_ns,
    )


def _entries(run: bytes) -> list[tuple[bytes, int, int]]:
    """Return (name, inode number, DT_*) of a run of struct linux_dirent64, without "." and ".."."""
    entries = []
    position, end = 0, len(run)
    while position < end:
        ino, length, kind = _unpack_entry(run, position)
        name = run[position + _NAME_OFFSET : run.index(0, position + _NAME_OFFSET)]
        if name not in (b".", b".."):
            entries.append((name, ino, kind))
        position += length
    return entries


class HostFiles:
    """Host calls. Each method says what it returns; all raise OSError with the host's errno."""

    def __init__(self) -> None:
        self._no_openat2 = False
        self._entries = ctypes.create_string_buffer(_LISTING_BYTES)

    # -- process ------------------------------------------------------------------------------------------------

    def raise_descriptor_limit(self) -> int:
        """Raise RLIMIT_NOFILE's soft limit to the hard one; return it."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard if hard != resource.RLIM_INFINITY else 1 << 20

    def now_ns(self) -> int:
        """Return CLOCK_REALTIME_COARSE, the clock that stamps memfds, so that all times of a tree compare."""
        return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)

    def monotonic_ns(self) -> int:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def random_bytes(self, count: int) -> bytes:
        """Return *count* unpredictable bytes."""
        return os.urandom(count)

    def user_id(self) -> int:
        """Return the effective user id that the host's permission checks apply to."""
        return os.geteuid()

    def processors(self) -> tuple[int, ...]:
        """Return the processors that this process may run on."""
        return tuple(sorted(os.sched_getaffinity(0)))

    def memory_bytes(self) -> tuple[int, int]:
        """Return total and available memory of the host."""
        page = os.sysconf("SC_PAGE_SIZE")
        return os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page

    def cpu_information(self) -> bytes:
        """Return the host's /proc/cpuinfo, or nothing where it cannot be read."""
        try:
            with open("/proc/cpuinfo", "rb") as file:
                return file.read()
        except OSError:
            return b""

    # -- descriptors --------------------------------------------------------------------------------------------

    def open_root(self, path: bytes) -> int:
        """Return an O_PATH descriptor of the host file or directory *path*, symbolic links followed."""
        return os.open(path, os.O_PATH | os.O_CLOEXEC)

    def open_beneath(self, root: int, path: bytes, flags: int) -> int:
        """Open *path*, which has no ".." and no symbolic link (ELOOP), below the directory *root* (b"": itself)."""
        if not path:
            return os.open(b"/proc/self/fd/%d" % root, flags & ~os.O_NOFOLLOW | os.O_CLOEXEC)
        if not self._no_openat2:
            with contextlib.suppress(NotImplementedError):
                return self._openat2(root, path, flags | os.O_CLOEXEC)
        return self._open_by_components(root, path, flags)

    def _openat2(self, root: int, path: bytes, flags: int) -> int:
        how = _OpenHow(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
        fd: int = _libc.syscall(_SYS_OPENAT2, root, path, ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number == errno.ENOSYS:
            self._no_openat2 = True
        if number in (errno.ENOSYS, errno.ENAMETOOLONG):
            raise NotImplementedError
        raise OSError(number, os.strerror(number))

    def _open_by_components(self, root: int, path: bytes, flags: int) -> int:
        """What openat2 does, for hosts without it and for paths beyond PATH_MAX."""
        *parents, last = path.split(b"/")
        at = os.dup(root)
        for name in parents:
            try:
                at, old = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at), at
            except OSError:
                os.close(at)
                raise
            os.close(old)
        try:
            return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        finally:
            os.close(at)

    def open_at(self, directory: int, name: bytes, flags: int, mode: int) -> int:
        """Open one name in *directory* without following it; never waits (FIFOs) nor takes a terminal."""
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, mode, dir_fd=directory)

    def reopen(self, fd: int, flags: int) -> int:
        """Return a new open file description of the file behind *fd*."""
        return os.open(b"/proc/self/fd/%d" % fd, flags | os.O_CLOEXEC)

    def duplicate(self, fd: int) -> int:
        """Return another descriptor of the same open file description."""
        return os.dup(fd)

    def replace(self, source: int, target: int) -> None:
        """Let the descriptor *target* be what *source* was."""
        os.dup2(source, target, inheritable=False)
        os.close(source)

    def close(self, fd: int) -> None:
        """Close *fd*."""
        os.close(fd)

    # -- attributes ---------------------------------------------------------------------------------------------

    def status(self, fd: int) -> HostStatus:
        """Return the attributes behind *fd*."""
        return _plain(os.stat(fd))

    def is_regular(self, fd: int) -> bool:
        """Tell whether a regular file is behind *fd*."""
        return stat.S_ISREG(os.fstat(fd).st_mode)

    def status_at(self, directory: int, name: bytes) -> HostStatus:
        """Return the attributes of one name in *directory*, of a symbolic link itself."""
        return _plain(os.stat(name, dir_fd=directory, follow_symlinks=False))

    def read_link_at(self, directory: int, name: bytes) -> bytes:
        """Return the target of a symbolic link."""
        return os.readlink(name, dir_fd=directory)

    def list_directory(self, fd: int) -> tuple[tuple[bytes, int, int], ...]:
        """Return (name, inode number, DT_*) of the directory behind the readable descriptor *fd*."""
        entries: list[tuple[bytes, int, int]] = []
        while True:
            count: int = _libc.syscall(_SYS_GETDENTS64, fd, self._entries, len(self._entries))
            if count < 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            if count == 0:
                return tuple(entries)
            entries += _entries(ctypes.string_at(self._entries, count))

    def file_system_status(self, fd: int) -> tuple[int, ...]:
        """Return statfs: type, bsize, blocks, bfree, bavail, files, ffree, namelen."""
        buffer = (ctypes.c_ulong * 16)()
        if _libc.fstatfs(fd, buffer) != 0:
            raise OSError(ctypes.get_errno(), "fstatfs")
        return (*buffer[:7], buffer[8])

    # -- contents -----------------------------------------------------------------------------------------------

    def make_memfd(self, name: str) -> int:
        """Return a new anonymous file, not sealed."""
        return os.memfd_create(name, os.MFD_CLOEXEC)

    def make_pipe(self) -> int:
        """Return an O_PATH descriptor of an anonymous pipe without readers and writers: a FIFO's body."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            return os.open(b"/proc/self/fd/%d" % reading, os.O_PATH | os.O_CLOEXEC)
        finally:
            os.close(reading)
            os.close(writing)

    def has_readers(self, fd: int) -> bool:
        """Tell whether the pipe behind the writable *fd* has a reader."""
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        return not any(events & select.POLLERR for _, events in poll.poll(0))

    def truncate(self, fd: int, size: int) -> None:
        """Set the size of the file behind *fd*."""
        os.ftruncate(fd, size)

    def set_times(self, fd: int, atime_ns: int, mtime_ns: int) -> None:
        """Set access and modification time of the file behind *fd*, which is not O_PATH."""
        os.utime(fd, ns=(atime_ns, mtime_ns))

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """Return up to *size* bytes from *offset*."""
        return os.pread(fd, size, offset)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of *data* at *offset*."""
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], offset + done)

    def copy(self, source: int, source_offset: int, target: int, target_offset: int, size: int) -> int:
        """Copy bytes between files, holes kept; return how many there were (fewer at the source's end)."""
        end, position = source_offset + size, source_offset
        while position < end:
            try:
                start = os.lseek(source, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return size
                start = position
            position = self._copy_extent(source, start, target, target_offset + start - source_offset, end)
            if position < 0:
                break
        return size

    def _copy_extent(self, source: int, start: int, target: int, target_offset: int, end: int) -> int:
        """Copy from *start* to the next hole or *end*; return where that was, -1 at the end of the file."""
        try:
            hole = min(end, os.lseek(source, start, os.SEEK_HOLE))
        except OSError:
            hole = end
        position = start
        os.lseek(target, target_offset, os.SEEK_SET)
        while position < hole:
            count = os.sendfile(target, source, position, hole - position)
            if count == 0:
                return -1
            position += count
        return position

    # -- names, for writable binds ------------------------------------------------------------------------------

    def make_directory_at(self, directory: int, name: bytes, mode: int) -> None:
        """mkdirat(2)."""
        os.mkdir(name, mode, dir_fd=directory)
        os.chmod(name, mode, dir_fd=directory)

    def make_node_at(self, directory: int, name: bytes, mode: int, rdev: int) -> None:
        """mknodat(2)."""
        os.mknod(name, mode, rdev, dir_fd=directory)

    def make_symlink_at(self, directory: int, name: bytes, target: bytes) -> None:
        """symlinkat(2)."""
        os.symlink(target, name, dir_fd=directory)

    def link_at(self, old_directory: int, old_name: bytes, directory: int, name: bytes) -> None:
        """linkat(2), of a symbolic link itself."""
        os.link(old_name, name, src_dir_fd=old_directory, dst_dir_fd=directory, follow_symlinks=False)

    def link_descriptor(self, fd: int, directory: int, name: bytes) -> None:
        """linkat(2) of the file behind *fd*."""
        os.link(b"/proc/self/fd/%d" % fd, name, dst_dir_fd=directory)

    def unlink_at(self, directory: int, name: bytes) -> None:
        """unlinkat(2)."""
        os.unlink(name, dir_fd=directory)

    def remove_directory_at(self, directory: int, name: bytes) -> None:
        """unlinkat(2) with AT_REMOVEDIR."""
        os.rmdir(name, dir_fd=directory)

    def rename_at(self, old_directory: int, old_name: bytes, directory: int, name: bytes, flags: int) -> None:
        """renameat2(2)."""
        if _libc.renameat2(old_directory, old_name, directory, name, ctypes.c_uint(flags)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def set_mode_at(self, directory: int, name: bytes, mode: int) -> None:
        """chmod(2) of one name in *directory*. EOPNOTSUPP for a symbolic link, which is never followed."""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.chmod(b"/proc/self/fd/%d" % fd, mode)
        finally:
            os.close(fd)

    def set_owner_at(self, directory: int, name: bytes, uid: int, gid: int) -> None:
        """fchownat(2), of a symbolic link itself; -1 keeps an id."""
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)

    def set_times_at(self, directory: int, name: bytes, atime_ns: int, mtime_ns: int) -> None:
        """utimensat(2), of a symbolic link itself."""
        os.utime(name, ns=(atime_ns, mtime_ns), dir_fd=directory, follow_symlinks=False)
