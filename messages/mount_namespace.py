"""Messages that a MountNamespace receives, and its replies.

A *handle* is a number by which a worker refers to an open directory entry (an open file, a working directory, a root).
MountNamespace counts references to it; the worker tells it when the last one goes.  A *token* names a host descriptor
that was passed beside the message (see ``actors/runtime/descriptors.py``); -1 means none.

Every path operation starts at *base* (a handle: working directory or dirfd) unless *path* is absolute, and never
leaves *root*.  A worker keeps a file's handle for as long as it maps the file.

A walk that meets a magic link of /proc ends there: replies with *magic* fields say where.  Other requests fail with
ELOOP and the text ``magic-link SIDE PID NAME REST``: *SIDE* is "old", "new" (requests with two paths) or "path", *REST*
is the path that remains, in hexadecimal.  The ThreadGroup resolves NAME to a handle and asks again with that as *base*.
"""

from __future__ import annotations

import struct
from typing import Final

from .base import Done, Message, Mode, PackedRecord, Record, message, record

__all__ = [
    "ENTRY_NAME_OFFSET",
    "STAT_BYTES",
    "Access",
    "AddWatch",
    "BecomeWorkingDirectory",
    "ChangeAttributes",
    "CloseWatches",
    "Credentials",
    "DirectoryEntries",
    "DirectoryEntry",
    "FileStatus",
    "FileSystemStatus",
    "FileUsed",
    "GetFileSystemStatus",
    "GetPath",
    "GetStatus",
    "GrantSpace",
    "HandleOpened",
    "HostNameChanged",
    "Link",
    "LockChange",
    "LockHeld",
    "MakeNode",
    "Mount",
    "NameRemoved",
    "Open",
    "Opened",
    "PathText",
    "ProcessGone",
    "ProcessSeen",
    "ReadDirectory",
    "ReadLink",
    "ReleaseHandle",
    "ReleaseLocks",
    "RemoveWatch",
    "Rename",
    "SpaceGranted",
    "Symlink",
    "TakeEvents",
    "TerminalGone",
    "TerminalSeen",
    "Unlink",
    "Unmount",
    "WatchAdded",
    "WatchEvent",
    "WatchEvents",
    "XattrChange",
    "XattrValue",
    "inode_of",
    "mode_of",
    "pack_entry",
    "unpack_entry",
    "with_contents",
]


@record
class Credentials(PackedRecord):
    """Who asks: what Linux keeps in struct cred, as far as names and inodes are concerned."""

    #: File-system user and group id, and supplementary groups.
    fsuid: int
    fsgid: int
    groups: tuple[int, ...]
    #: Effective capabilities, a bit mask by CAP_* number.
    capabilities: int
    #: Process and thread id, for /proc/self and /proc/thread-self.
    tgid: int
    tid: int


#: Bytes of struct stat of x86-64; a packed status has the birth time in ns and the mount id behind it.
STAT_BYTES: Final = 144
_STATUS: Final = struct.Struct("<QQQIII4xQqqqqQqQqQ24xqQ")
_NS: Final = 1_000_000_000


@record
class FileStatus(Record):
    """struct statx in plain integers; times in ns since the epoch, size in bytes, blocks of 512 bytes.

    Messages carry it packed, so that stat(2) has nothing to do but copy the first STAT_BYTES.
    """

    dev: int
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blksize: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    mount_id: int

    def pack(self) -> bytes:
        """Return what messages carry."""
        return _STATUS.pack(
            *(self.dev, self.ino, self.nlink, self.mode, self.uid, self.gid, self.rdev),
            *(self.size, self.blksize, self.blocks),
            *divmod(self.atime_ns, _NS),
            *divmod(self.mtime_ns, _NS),
            *divmod(self.ctime_ns, _NS),
            *(self.btime_ns, self.mount_id),
        )

    @staticmethod
    def unpack(packed: bytes) -> FileStatus:
        """Inverse of ``pack``."""
        dev, ino, nlink, mode, uid, gid, rdev, size, blksize, blocks, *times = _STATUS.unpack(packed)
        return FileStatus(
            dev=dev,
            ino=ino,
            mode=mode,
            nlink=nlink,
            uid=uid,
            gid=gid,
            rdev=rdev,
            size=size,
            blksize=blksize,
            blocks=blocks,
            atime_ns=times[0] * _NS + times[1],
            mtime_ns=times[2] * _NS + times[3],
            ctime_ns=times[4] * _NS + times[5],
            btime_ns=times[6],
            mount_id=times[7],
        )


@message(tag=0x601, receiver="mount_namespace", mode=Mode.REPLY)
class Opened(Message):
    """mount_namespace -> thread_group, reply: what the name led to, now open.

    If *magic* is not empty, nothing was opened: the walk met /proc/PID/<magic> (``fd/3``, ``exe``, ``cwd``, ``root``),
    which only PID's own ThreadGroup can follow; *rest* is the path that remains behind it (b"" at its end).
    """

    handle: int
    #: File type and permission bits (st_mode).
    mode: int
    #: Inode number and device, as stat would show.
    ino: int
    dev: int
    rdev: int
    #: Host descriptor of a regular file's or a FIFO's data, opened with the right access; -1 for other kinds.
    token: int
    #: Absolute path in the namespace, as /proc/self/fd shows it.
    path: bytes
    #: Contents of a file that is made at open (global files of /proc and /sys), or None.
    content: bytes | None
    #: Name of a file of one process, below /proc/PID/ ("status", "task/12/stat"): its ThreadGroup makes it; or "".
    proc_file: str
    proc_pid: int
    magic: str
    rest: bytes
    #: IN_ACCESS and IN_MODIFY as far as somebody watches this file: the worker tells FileUsed of them.
    watched: int = 0
    #: The contents are in the memory of a file system with a limit: ask GrantSpace before writing.
    limited: bool = False
    #: As in StatusReply, of the opened file; a lease also says that the same opening for reading would succeed again.
    status: bytes = b""
    lease: int = 0
    host_ctime_ns: int = -1
    #: As in StatusReply; nothing was opened then.
    missing: bytes = b""
    #: Of a directory, as in HandleOpened.
    place: int = 0


@message(tag=0x602, receiver="mount_namespace", mode=Mode.ASK, reply=Opened)
class Open(Message):
    """thread_group -> mount_namespace, ask: open(2), openat(2), openat2(2), creat(2), and the lookups of execve, chdir.

    Fails with open(2)'s errnos.  An empty *path* opens the file of the handle *base* anew, also when it has no name any
    more (/proc/self/fd/N, and files after a restore).  FIFOs are opened without waiting (ENXIO as with O_NONBLOCK; the
    caller parks the task and asks again).
    """

    root: int
    base: int
    path: bytes
    #: O_* as the guest gave them (O_PATH, O_DIRECTORY, O_NOFOLLOW, O_CREAT, O_EXCL, O_TRUNC...).
    flags: int
    #: Permission bits for a new file, umask already applied.
    mode: int
    #: openat2's RESOLVE_* bits.
    resolve: int
    #: execve: demand a regular file with an execute permission on a mount without noexec (else EACCES).
    for_exec: bool
    who: Credentials


@message(tag=0x603, receiver="mount_namespace", mode=Mode.REPLY)
class HandleOpened(Message):
    """mount_namespace -> thread_group, reply: a new reference to a directory."""

    handle: int
    path: bytes
    #: Number of the place where paths begin that start at this handle, the same for all handles of the directory and
    #: less than 0; 0: nothing is granted about paths from there.
    place: int = 0


@message(tag=0x604, receiver="mount_namespace", mode=Mode.ASK, reply=HandleOpened)
class BecomeWorkingDirectory(Message):
    """thread_group -> mount_namespace, ask: chdir(2), fchdir(2) (path b""), chroot(2); needs search permission."""

    root: int
    base: int
    path: bytes
    who: Credentials


@message(tag=0x606, receiver="mount_namespace", mode=Mode.REPLY)
class StatusReply(Message):
    """mount_namespace -> thread_group, reply: the attributes, or the magic link that the walk met."""

    #: A packed FileStatus; b"" when *magic* says where the walk ended.
    status: bytes
    magic: str
    proc_pid: int
    rest: bytes
    #: Number of a lease, 0 for none: until LeasesEnded names it, the same request would be answered the same.
    lease: int = 0
    #: Somebody has the contents open: change time of the host's file as the attributes were taken, by which its users
    #: see whether size and times are still these; else -1.
    host_ctime_ns: int = -1
    #: ENOENT for want of this name: the same request fails again until LeasesEnded tells that such a name was made.
    missing: bytes = b""


@message(tag=0x607, receiver="mount_namespace", mode=Mode.ASK, reply=StatusReply)
class GetStatus(Message):
    """thread_group -> mount_namespace, ask: stat, lstat, fstatat, statx; with path b"" the handle *base* itself."""

    root: int
    base: int
    path: bytes
    #: AT_SYMLINK_NOFOLLOW means: the link itself.
    follow: bool
    who: Credentials


@message(tag=0x608, receiver="mount_namespace", mode=Mode.ASK, reply=StatusReply)
class Access(Message):
    """thread_group -> mount_namespace, ask: access, faccessat(2): EACCES, EROFS, ENOENT... or the file's status."""

    root: int
    base: int
    path: bytes
    #: R_OK | W_OK | X_OK, or 0 for existence.
    want: int
    follow: bool
    who: Credentials


@message(tag=0x609, receiver="mount_namespace", mode=Mode.REPLY)
class PathText(Message):
    """mount_namespace -> thread_group, reply: a symbolic link's target, a handle's absolute path, or a magic link."""

    text: bytes
    magic: str
    proc_pid: int
    rest: bytes
    #: As in StatusReply, of the link; with an empty *text* it is of something that is no link: EINVAL.
    lease: int = 0
    missing: bytes = b""


@message(tag=0x60A, receiver="mount_namespace", mode=Mode.ASK, reply=PathText)
class ReadLink(Message):
    """thread_group -> mount_namespace, ask: readlink(2). EINVAL when it is no symbolic link."""

    root: int
    base: int
    path: bytes
    who: Credentials


@message(tag=0x60B, receiver="mount_namespace", mode=Mode.ASK, reply=PathText)
class GetPath(Message):
    """thread_group -> mount_namespace, ask: *handle*'s path as seen from *root*: getcwd(2). ENOENT when deleted."""

    root: int
    handle: int


@message(tag=0x60C, receiver="mount_namespace", mode=Mode.ASK, reply=Done)
class MakeNode(Message):
    """thread_group -> mount_namespace, ask: mkdir(2) (S_IFDIR), mknod(2): *mode* holds type and permission bits."""

    root: int
    base: int
    path: bytes
    mode: int
    rdev: int
    who: Credentials


@message(tag=0x632, receiver="mount_namespace", mode=Mode.REPLY)
class NameRemoved(Message):
    """mount_namespace -> thread_group, reply: the name is gone."""

    #: As LeasesEnded says it of other changes: number of the lease that ends with the name, 0 for none.
    lease: int = 0


@message(tag=0x60D, receiver="mount_namespace", mode=Mode.ASK, reply=NameRemoved)
class Unlink(Message):
    """thread_group -> mount_namespace, ask: unlink(2), or rmdir(2) when *directory*."""

    root: int
    base: int
    path: bytes
    directory: bool
    who: Credentials


@message(tag=0x60E, receiver="mount_namespace", mode=Mode.ASK, reply=Done)
class Rename(Message):
    """thread_group -> mount_namespace, ask: rename(2), renameat2(2) with RENAME_* *flags*."""

    root: int
    old_base: int
    old_path: bytes
    new_base: int
    new_path: bytes
    flags: int
    who: Credentials


@message(tag=0x60F, receiver="mount_namespace", mode=Mode.ASK, reply=Done)
class Link(Message):
    """thread_group -> mount_namespace, ask: link(2), linkat(2); *old_path* b"" means the handle *old_base* itself."""

    root: int
    old_base: int
    old_path: bytes
    new_base: int
    new_path: bytes
    follow: bool
    who: Credentials


@message(tag=0x610, receiver="mount_namespace", mode=Mode.ASK, reply=Done)
class Symlink(Message):
    """thread_group -> mount_namespace, ask: symlink(2)."""

    root: int
    base: int
    path: bytes
    target: bytes
    who: Credentials


@message(tag=0x611, receiver="mount_namespace", mode=Mode.ASK, reply=StatusReply)
class ChangeAttributes(Message):
    """thread_group -> mount_namespace, ask: chmod, chown, utimensat, truncate on a path, or (path b"") on a handle.

    A field that is None stays as it is.  chown's uid or gid of -1 stays too, but the call still takes set-id bits away.
    The reply's status is what the file is afterwards.
    """

    root: int
    base: int
    path: bytes
    follow: bool
    mode: int | None
    uid: int | None
    gid: int | None
    #: Times in ns since the epoch; -1 means now (UTIME_NOW).
    atime_ns: int | None
    mtime_ns: int | None
    size: int | None
    who: Credentials


#: What of a packed status belongs to the contents: size to st_ctim.
_CONTENTS: Final = struct.Struct("<qqqqQqQqQ")
_CONTENTS_START, _CTIME, _CONTENTS_END = 48, 104, 120
_DEV_INO: Final = struct.Struct("<QQ")
_MODE: Final = struct.Struct("<24xI")
_TIMESPEC: Final = struct.Struct("<qQ")


def inode_of(status: bytes) -> tuple[int, int]:
    """Return st_dev and st_ino of a packed status."""
    dev, ino = _DEV_INO.unpack_from(status)
    return dev, ino


def mode_of(status: bytes) -> int:
    """Return st_mode of a packed status."""
    mode: int = _MODE.unpack_from(status)[0]
    return mode


def with_contents(status: bytes, seen: tuple[int, ...], host_ctime_ns: int) -> bytes:
    """Return a packed status with what the host says of the contents.

    *seen* is size, st_blksize, blocks, access, modification and change time; the last counts if it is not
    *host_ctime_ns*, which it was when *status* was made.
    """
    size, _, blocks, atime_ns, mtime_ns, seen_ctime_ns = seen
    ctime = status[_CTIME:_CONTENTS_END]
    if seen_ctime_ns != host_ctime_ns:
        seconds, ns = _TIMESPEC.unpack(ctime)
        ctime = _TIMESPEC.pack(*divmod(max(seconds * _NS + ns, seen_ctime_ns), _NS))
    made = _CONTENTS.pack(size, 4096, blocks, *divmod(atime_ns, _NS), *divmod(mtime_ns, _NS), *_TIMESPEC.unpack(ctime))
    return status[:_CONTENTS_START] + made + status[_CONTENTS_END:]


#: struct linux_dirent64 before the name.
_DIRENT64: Final = struct.Struct("<QqHB")
ENTRY_NAME_OFFSET: Final = _DIRENT64.size
#: Returns inode number, position behind it, bytes and DT_* of the entry at an offset of a run.
unpack_entry = _DIRENT64.unpack_from


@record
class DirectoryEntry(Record):
    """One entry as getdents64(2) gives it; messages carry them packed."""

    ino: int
    #: Position to continue from after this entry.
    offset: int
    #: DT_*.
    type: int
    name: bytes

    @staticmethod
    def packed_size(name: bytes) -> int:
        """Return the bytes of an entry: 19 of header, the name with a NUL, up to a multiple of 8."""
        return len(name) + 27 & -8

    def pack(self) -> bytes:
        """Return struct linux_dirent64."""
        return pack_entry(self.ino, self.offset, self.type, self.name)

    @staticmethod
    def unpack(packed: bytes) -> list[DirectoryEntry]:
        """Return the entries of a run of struct linux_dirent64."""
        entries, position = [], 0
        while position < len(packed):
            ino, offset, length, kind = unpack_entry(packed, position)
            name = packed[position + _DIRENT64.size : position + length].partition(b"\0")[0]
            entries.append(DirectoryEntry(ino=ino, offset=offset, type=kind, name=name))
            position += length
        return entries


def pack_entry(ino: int, offset: int, kind: int, name: bytes) -> bytes:
    """Return struct linux_dirent64 of one entry."""
    length = len(name) + 27 & -8
    return (_DIRENT64.pack(ino, offset, length, kind) + name).ljust(length, b"\0")


@message(tag=0x612, receiver="mount_namespace", mode=Mode.REPLY)
class DirectoryEntries(Message):
    """mount_namespace -> thread_group, reply: entries from the position on; none at the end."""

    #: A run of struct linux_dirent64.
    entries: bytes
    #: Position to continue from.
    offset: int
    #: Nothing is behind it.
    end: bool
    #: Number of the directory's lease: these are all entries, until LeasesEnded names it; 0 for none.
    lease: int = 0


@message(tag=0x613, receiver="mount_namespace", mode=Mode.ASK, reply=DirectoryEntries)
class ReadDirectory(Message):
    """thread_group -> mount_namespace, ask: getdents64(2) from *offset*; ENOENT when the directory was removed."""

    handle: int
    offset: int
    #: Bytes that the reply's entries may fill as struct linux_dirent64.
    max_bytes: int


@message(tag=0x614, receiver="mount_namespace", mode=Mode.REPLY)
class FileSystemStatus(Message):
    """mount_namespace -> thread_group, reply: struct statfs."""

    type: int
    bsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    namelen: int
    flags: int


@message(tag=0x615, receiver="mount_namespace", mode=Mode.ASK, reply=FileSystemStatus)
class GetFileSystemStatus(Message):
    """thread_group -> mount_namespace, ask: statfs(2), fstatfs(2) (path b"")."""

    root: int
    base: int
    path: bytes
    who: Credentials


@message(tag=0x616, receiver="mount_namespace", mode=Mode.REPLY)
class XattrValue(Message):
    """mount_namespace -> thread_group, reply: an attribute's value, or the NUL-separated list of names."""

    value: bytes


@message(tag=0x617, receiver="mount_namespace", mode=Mode.ASK, reply=XattrValue)
class XattrChange(Message):
    """thread_group -> mount_namespace, ask: {get,set,list,remove}xattr(2), by *operation*."""

    #: "get", "set", "list" or "remove".
    operation: str
    root: int
    base: int
    path: bytes
    follow: bool
    name: bytes
    value: bytes
    flags: int
    who: Credentials


@message(tag=0x618, receiver="mount_namespace", mode=Mode.TELL)
class ReleaseHandle(Message):
    """thread_group -> mount_namespace, tell: the last reference to these handles is gone."""

    handles: tuple[int, ...]
    #: The guest has closed them long ago: who watches shall see nothing.
    quiet: bool = False


@message(tag=0x619, receiver="mount_namespace", mode=Mode.REPLY)
class LockHeld(Message):
    """mount_namespace -> thread_group, reply: granted, or the lock that is in the way (F_GETLK's answer).

    With *granted* false and *wait* asked for, ``thread_group.LockReleased`` is told when it is worth asking again.
    """

    granted: bool
    #: F_RDLCK, F_WRLCK or F_UNLCK, range in bytes (length 0: to the end) and owner's process id of the conflict.
    type: int
    start: int
    length: int
    pid: int


@message(tag=0x61A, receiver="mount_namespace", mode=Mode.ASK, reply=LockHeld)
class LockChange(Message):
    """thread_group -> mount_namespace, ask: fcntl(2) F_SETLK/F_GETLK, F_OFD_*, flock(2), on the inode of *handle*."""

    handle: int
    #: "posix", "ofd" or "flock".
    family: str
    #: Who holds it: the thread group (posix) or the open file description (ofd, flock).
    owner: int
    pid: int
    type: int
    start: int
    length: int
    #: Only look (F_GETLK).
    test: bool
    #: Tell LockReleased to this thread group and thread when a conflicting lock goes (F_SETLKW); 0: do not.
    wait_group: int
    wait_tid: int


@message(tag=0x61B, receiver="mount_namespace", mode=Mode.TELL)
class ReleaseLocks(Message):
    """thread_group -> mount_namespace, tell: an owner is gone, or closed a descriptor of the file (posix locks go).

    *handle* 0 means: on every file.
    """

    handle: int
    family: str
    owner: int


@message(tag=0x61C, receiver="mount_namespace", mode=Mode.ASK, reply=Done)
class Mount(Message):
    """thread_group or kernel -> mount_namespace, ask: mount(2). EPERM without CAP_SYS_ADMIN, ENODEV: unknown type."""

    root: int
    #: Where *target* and *source* start; an empty *source* of a bind is the handle *source_base* itself.
    base: int
    source_base: int
    source: bytes
    target: bytes
    type: str
    flags: int
    data: bytes
    who: Credentials


@message(tag=0x61D, receiver="mount_namespace", mode=Mode.ASK, reply=Done)
class Unmount(Message):
    """thread_group -> mount_namespace, ask: umount2(2). EBUSY while something below is open."""

    root: int
    base: int
    target: bytes
    flags: int
    who: Credentials


@message(tag=0x61E, receiver="mount_namespace", mode=Mode.TELL)
class ProcessSeen(Message):
    """task_set -> mount_namespace, tell: a process was born or changed; what /proc's names show."""

    pid: int
    #: Owner shown for /proc/PID.
    uid: int
    gid: int
    tids: tuple[int, ...]


@message(tag=0x61F, receiver="mount_namespace", mode=Mode.TELL)
class ProcessGone(Message):
    """task_set -> mount_namespace, tell: a process was reaped; its /proc names go."""

    pid: int


@record
class MountSpec(Record):
    """A mount to make at set-up."""

    #: "bind", "tmpfs", "overlay", "proc", "sysfs", "devtmpfs", "devpts".
    type: str
    #: Host directory or file of a bind or of the overlay's lower layer; "" for others.
    source: str
    target: str
    read_only: bool
    #: Bytes that a tmpfs or the overlay's upper layer may hold; 0: the default of config/limits.py.
    size_limit: int


@message(tag=0x620, receiver="mount_namespace", mode=Mode.ASK, reply=HandleOpened)
class SetUpMounts(Message):
    """kernel -> mount_namespace, ask: make the initial tree; the reply is a handle on its root."""

    mounts: tuple[MountSpec, ...]
    hostname: str


@message(tag=0x621, receiver="mount_namespace", mode=Mode.REPLY)
class SavedState(Message):
    """mount_namespace -> kernel, reply: its state, msgpack; data of files goes through the descriptor *token*."""

    state: bytes


@message(tag=0x622, receiver="mount_namespace", mode=Mode.ASK, reply=SavedState)
class SaveMounts(Message):
    """kernel -> mount_namespace, ask: write tree and inodes; file data is appended to the host file behind *token*."""

    token: int


@message(tag=0x623, receiver="mount_namespace", mode=Mode.ASK, reply=Done)
class LoadMounts(Message):
    """kernel -> mount_namespace, ask: the inverse of SaveMounts, on a fresh actor."""

    state: bytes
    token: int


@message(tag=0x624, receiver="mount_namespace", mode=Mode.TELL)
class KeepHandle(Message):
    """thread_group -> mount_namespace, tell: one more reference to *handle* (balanced by ReleaseHandle)."""

    handle: int


@message(tag=0x625, receiver="mount_namespace", mode=Mode.TELL)
class TerminalSeen(Message):
    """worker -> mount_namespace, tell: a pseudo-terminal was opened, or its owner or mode changed (/dev/pts)."""

    index: int
    uid: int
    gid: int
    #: Permission bits.
    mode: int


@message(tag=0x626, receiver="mount_namespace", mode=Mode.TELL)
class TerminalGone(Message):
    """worker -> mount_namespace, tell: a pseudo-terminal's master was closed; /dev/pts/<index> goes."""

    index: int


@message(tag=0x627, receiver="mount_namespace", mode=Mode.REPLY)
class WatchAdded(Message):
    """mount_namespace -> thread_group, reply: the watch descriptor."""

    wd: int


@message(tag=0x628, receiver="mount_namespace", mode=Mode.ASK, reply=WatchAdded)
class AddWatch(Message):
    """thread_group -> mount_namespace, ask: inotify_add_watch(2) on the inotify open file *file* of *worker*."""

    #: Address of the worker whose open file it is, and the file's number there.
    worker: str
    file: int
    root: int
    base: int
    path: bytes
    follow: bool
    #: IN_* as the guest gave them.
    mask: int
    who: Credentials


@message(tag=0x629, receiver="mount_namespace", mode=Mode.ASK, reply=Done)
class RemoveWatch(Message):
    """thread_group -> mount_namespace, ask: inotify_rm_watch(2). EINVAL."""

    worker: str
    file: int
    wd: int


@record
class WatchEvent(Record):
    """struct inotify_event."""

    wd: int
    mask: int
    cookie: int
    name: bytes


@message(tag=0x62A, receiver="mount_namespace", mode=Mode.REPLY)
class WatchEvents(Message):
    """mount_namespace -> thread_group, reply: events in order, and the serial of the last EventsReady before."""

    events: tuple[WatchEvent, ...]
    serial: int


@message(tag=0x62B, receiver="mount_namespace", mode=Mode.ASK, reply=WatchEvents)
class TakeEvents(Message):
    """thread_group -> mount_namespace, ask: every event that waits for an inotify open file."""

    worker: str
    file: int


@message(tag=0x62C, receiver="mount_namespace", mode=Mode.TELL)
class CloseWatches(Message):
    """worker -> mount_namespace, tell: an inotify open file is closed."""

    worker: str
    file: int


@message(tag=0x62D, receiver="mount_namespace", mode=Mode.TELL)
class FileUsed(Message):
    """worker -> mount_namespace, tell: the contents of a watched file were read (IN_ACCESS) or changed (IN_MODIFY)."""

    handle: int
    cause: int


@message(tag=0x62E, receiver="mount_namespace", mode=Mode.REPLY)
class SpaceGranted(Message):
    """mount_namespace -> thread_group, reply: bytes that the worker may write before it asks again; 0: it is full."""

    granted: int


@message(tag=0x62F, receiver="mount_namespace", mode=Mode.ASK, reply=SpaceGranted)
class GrantSpace(Message):
    """thread_group -> mount_namespace, ask: *worker* has used up what it may write to the file system *dev*."""

    worker: str
    dev: int


@message(tag=0x630, receiver="mount_namespace", mode=Mode.TELL)
class HostNameChanged(Message):
    """kernel -> mount_namespace, tell: what /proc/sys/kernel/hostname shows from now on."""

    hostname: str


@message(tag=0x631, receiver="mount_namespace", mode=Mode.TELL)
class ThreadSeen(Message):
    """task_set -> mount_namespace, tell: a process that was seen has a thread more, or one less (*gone*)."""

    pid: int
    tid: int
    gone: bool
