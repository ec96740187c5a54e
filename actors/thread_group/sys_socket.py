"""Sockets: Unix sockets within the sandbox.

Linux counterpart: net/socket.c, net/unix/af_unix.c, net/core/scm.c, net/core/sock.c.  A path that a socket is bound
to is a node in MountNamespace; which socket it stands for is known to the worker (``unix_names.py``).
"""

from __future__ import annotations

import os
import stat
import struct
from errno import (
    EADDRINUSE,
    EAFNOSUPPORT,
    EAGAIN,
    ECONNREFUSED,
    EDOM,
    EEXIST,
    EINVAL,
    EISCONN,
    EMSGSIZE,
    ENOENT,
    ENOPROTOOPT,
    ENOTSOCK,
    EOPNOTSUPP,
    EPERM,
    EPROTONOSUPPORT,
    EPROTOTYPE,
    ESOCKTNOSUPPORT,
)
from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ...messages.mount_namespace import Access, FileStatus, GetStatus, MakeNode
from ..runtime.actor import Ask
from . import signals, transfer
from .credentials import CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN
from .open_file import OpenFile
from .paths import AT_FDCWD, ask_path, base_of, who
from .socket_file import Connecting, SocketFile, credentials_of, make_socket
from .sys_fd import add_pair
from .sys_time import monotonic_deadline, read_timespec
from .table import S32, U32, U64, Address, syscall
from .task import ERESTARTSYS, Block
from .transfer import Buffers
from .unix_names import Bound, PeerCredentials

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..runtime.actor import Asking
    from .task import Task

_AF_UNSPEC, _AF_UNIX, _AF_MAX = 0, 1, 46
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_RAW, _SOCK_SEQPACKET, _SOCK_MAX = 1, 2, 3, 5, 11
_SOCK_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK
_TYPE_MASK: Final = 0xF
_FAMILY: Final = struct.Struct("<H")
_SUN_PATH_MAX: Final = 108
_UNIX_ADDRESS_MAX: Final = _FAMILY.size + _SUN_PATH_MAX
_ADDRESS_STORAGE: Final = 128
_SOMAXCONN: Final = 4096
#: A full backlog cannot be waited for on the host: connect(2) looks again after so long.
_CONNECT_RETRY_NS: Final = 2_000_000

_MSG_PEEK, _MSG_CTRUNC, _MSG_TRUNC, _MSG_DONTWAIT = 0x2, 0x8, 0x20, 0x40
_MSG_WAITALL, _MSG_ERRQUEUE, _MSG_NOSIGNAL, _MSG_OOB = 0x100, 0x2000, 0x4000, 0x1
_MSG_WAITFORONE, _MSG_CMSG_CLOEXEC = 0x10000, 0x40000000
#: Flags that the host is told of; MSG_EOR has no meaning for Unix sockets.
_HOST_SEND_FLAGS: Final = _MSG_OOB
_HOST_RECEIVE_FLAGS: Final = _MSG_PEEK | _MSG_OOB


def _socket(task: Task, fd: int) -> SocketFile:
    file = transfer.file_of(task, fd)
    if not isinstance(file, SocketFile):
        raise OSError(ENOTSOCK, "")
    return file


# -- making ---------------------------------------------------------------------------------------------------------


def _checked_type(domain: int, type_: int, protocol: int) -> int:
    """Return the plain type of a Unix socket; the checks of __sock_create and unix_create."""
    kind = type_ & _TYPE_MASK
    if type_ & ~(_TYPE_MASK | _SOCK_FLAGS):
        raise OSError(EINVAL, "")
    if not 0 <= domain < _AF_MAX:
        raise OSError(EAFNOSUPPORT, "")
    if kind >= _SOCK_MAX:
        raise OSError(EINVAL, "")
    if domain != _AF_UNIX:
        raise OSError(EAFNOSUPPORT, "")
    if protocol not in (0, _AF_UNIX):
        raise OSError(EPROTONOSUPPORT, "")
    if kind == _SOCK_RAW:
        return _SOCK_DGRAM
    if kind not in (_SOCK_STREAM, _SOCK_DGRAM, _SOCK_SEQPACKET):
        raise OSError(ESOCKTNOSUPPORT, "")
    return kind


@syscall(41, "socket", partial="AF_UNIX within one worker; other families are refused with EAFNOSUPPORT")
def socket_(task: Task, domain: S32, type_: S32, protocol: S32) -> int:
    """socket(2): EAFNOSUPPORT, EINVAL, EMFILE, EPROTONOSUPPORT, ESOCKTNOSUPPORT."""
    kind = _checked_type(domain, type_, protocol)
    file = make_socket(task, kind, type_, task.worker.host.make_socket(_AF_UNIX, kind, 0))
    return task.group.files.add(task.group, file, close_on_exec=bool(type_ & os.O_CLOEXEC))


@syscall(53, partial="AF_UNIX only")
def socketpair(task: Task, domain: S32, type_: S32, protocol: S32, address: Address) -> int:
    """socketpair(2): EAFNOSUPPORT, EFAULT, EINVAL, EMFILE, EPROTONOSUPPORT, ESOCKTNOSUPPORT."""
    kind = _checked_type(domain, type_, protocol)
    first, second = [make_socket(task, kind, type_, fd) for fd in task.worker.host.make_socket_pair(kind)]
    first.peer = second.peer = credentials_of(task)
    first.other, second.other = second.number, first.number
    add_pair(task, (first, second), address, type_)
    return 0


# -- addresses ------------------------------------------------------------------------------------------------------


def _read_address(task: Task, address: int, length: int) -> bytes:
    """Return sun_path as the guest gave it: b"" (autobind), a path without its NUL, or NUL and an abstract name.

    EINVAL, EFAULT; EAFNOSUPPORT is left to the caller's call.
    """
    if length < 0 or length > _ADDRESS_STORAGE:
        raise OSError(EINVAL, "")
    data = task.memory.read(address, length)
    if len(data) < _FAMILY.size:
        raise OSError(EINVAL, "")
    (family,) = _FAMILY.unpack_from(data)
    if family != _AF_UNIX or len(data) > _UNIX_ADDRESS_MAX:
        raise OSError(EINVAL, "")
    name = data[_FAMILY.size :]
    return name if name[:1] == b"\0" else name.split(b"\0", 1)[0]


def _write_address(task: Task, name: bytes, address: int, length_address: int) -> None:
    """Store a sockaddr_un and its whole length, cut to the room that the guest has. EFAULT, EINVAL."""
    room = task.memory.read_s32(length_address)
    if room < 0:
        raise OSError(EINVAL, "")
    data = _pack_address(name)
    task.memory.write(address, data[:room])
    task.memory.write_s32(length_address, len(data))


def _pack_address(name: bytes) -> bytes:
    """struct sockaddr_un: a path has its NUL, an abstract name none, no name no more than the family."""
    terminator = b"\0" if name and name[:1] != b"\0" else b""
    return _FAMILY.pack(_AF_UNIX) + name + terminator


@syscall(49)
def bind(task: Task, fd: S32, address: Address, length: S32) -> Any:
    """bind(2): give a socket a name. EACCES, EADDRINUSE, EBADF, EFAULT, EINVAL, ENOTSOCK and mknod(2)'s errnos."""
    file = _socket(task, fd)
    name = _read_address(task, address, length)
    if file.key is not None:
        if not name:
            return 0
        raise OSError(EINVAL, "")
    names = task.worker.files.unix_names
    if not name:
        name = names.unused_abstract_name(file.type)
    if name[:1] == b"\0":
        names.bind(file, ("abstract", file.type, name), name)
        return 0
    return _bind_path(task, file, name)


def _bind_path(task: Task, file: SocketFile, path: bytes) -> Asking:
    group, caller = task.group, who(task)
    root, base = group.fs.root, base_of(task, AT_FDCWD, path)
    mode = stat.S_IFSOCK | 0o777 & ~group.fs.umask
    try:
        yield Ask(group.mount_namespace, MakeNode(root=root, base=base, path=path, mode=mode, rdev=0, who=caller))
    except FileExistsError as error:
        raise OSError(EADDRINUSE if error.errno == EEXIST else error.errno, "") from None
    request = GetStatus(root=root, base=base, path=path, follow=False, who=caller)
    reply = yield Ask(group.mount_namespace, request)
    if reply.missing:
        raise OSError(ENOENT, "")
    status = FileStatus.unpack(reply.status)
    task.worker.files.unix_names.bind(file, ("inode", status.dev, status.ino), path)
    return 0


def _find(task: Task, name: bytes, type_: int) -> Asking:
    """Return the Bound that has a name; a path needs write permission.

    ECONNREFUSED, EACCES, ENOENT...; EPROTOTYPE for a path of another type (abstract names are apart by type).
    """
    names = task.worker.files.unix_names
    key: Hashable = ("abstract", type_, name)
    if name[:1] != b"\0":
        caller, root = who(task), task.group.fs.root
        reply = yield from ask_path(
            task,
            base_of(task, AT_FDCWD, name),
            name,
            lambda base, rest: Access(root=root, base=base, path=rest, want=os.W_OK, follow=True, who=caller),
        )
        status = None if isinstance(reply, OpenFile) else FileStatus.unpack(reply.status)
        if status is None or not stat.S_ISSOCK(status.mode):
            raise OSError(ECONNREFUSED, "")
        key = ("inode", status.dev, status.ino)
    bound = names.find(key)
    if bound is None:
        raise OSError(ECONNREFUSED, "")
    if bound.file.type != type_:
        raise OSError(EPROTOTYPE, "")
    return bound


@syscall(51)
def getsockname(task: Task, fd: S32, address: Address, length: Address) -> int:
    """getsockname(2): EBADF, EFAULT, EINVAL, ENOTSOCK."""
    _write_address(task, _socket(task, fd).name, address, length)
    return 0


@syscall(52)
def getpeername(task: Task, fd: S32, address: Address, length: Address) -> int:
    """getpeername(2): EBADF, EFAULT, EINVAL, ENOTCONN, ENOTSOCK."""
    file = _socket(task, fd)
    name = task.worker.files.unix_names.guest_name(task.worker.host.peer_name(file.host_fd))
    _write_address(task, name, address, length)
    return 0


# -- connecting -----------------------------------------------------------------------------------------------------


@syscall(50)
def listen(task: Task, fd: S32, backlog: S32) -> int:
    """listen(2): EBADF, EINVAL without a name, ENOTSOCK, EOPNOTSUPP for datagrams."""
    file = _socket(task, fd)
    if backlog < 0 or backlog > _SOMAXCONN:
        backlog = _SOMAXCONN
    task.worker.host.listen_socket(file.host_fd, backlog)
    file.is_listening, file.backlog = True, backlog
    file.peer = credentials_of(task)
    return 0


@syscall(42)
def connect(task: Task, fd: S32, address: Address, length: S32) -> Asking:
    """connect(2): EACCES, EAGAIN, ECONNREFUSED, EFAULT, EINVAL, EISCONN, ENOENT, ENOTSOCK, EPROTOTYPE."""
    file = _socket(task, fd)
    if _is_unspecified(task, address, length):
        if file.type != _SOCK_DGRAM:
            raise OSError(EINVAL, "")
        task.worker.host.connect_socket(file.host_fd, -1)
        file.other = 0
        return 0
    name = _read_address(task, address, length)
    if not name:
        raise OSError(EINVAL, "")
    bound: Bound = yield from _find(task, name, file.type)
    return _connect_to(task, file, bound)


def _is_unspecified(task: Task, address: int, length: int) -> bool:
    return length >= _FAMILY.size and task.memory.read_u16(address) == _AF_UNSPEC


def _connect_to(task: Task, file: SocketFile, bound: Bound) -> Any:
    names = task.worker.files.unix_names
    if file.pass_credentials and file.key is None:
        name = names.unused_abstract_name(file.type)
        names.bind(file, ("abstract", file.type, name), name)
    try:
        task.worker.host.connect_socket(file.host_fd, bound.path_fd)
    except BlockingIOError:
        if file.flags & os.O_NONBLOCK:
            raise
        deadline = task.worker.clock.monotonic_ns() + _CONNECT_RETRY_NS
        return Block(files=(file,), deadline_ns=deadline)
    if file.type == _SOCK_DGRAM:
        file.other = bound.file.number
    else:
        bound.file.connecting.append(Connecting(credentials_of(task), file.number))
        file.peer = bound.file.peer
    return 0


@syscall(43)
def accept(task: Task, fd: S32, address: Address, length: Address) -> Any:
    """accept(2): EAGAIN, EBADF, EFAULT, EINVAL, EMFILE, ENOTSOCK, EOPNOTSUPP."""
    return _accept(task, fd, address, length, 0)


@syscall(288)
def accept4(task: Task, fd: S32, address: Address, length: Address, flags: S32) -> Any:
    """accept4(2): accept with SOCK_CLOEXEC and SOCK_NONBLOCK. EINVAL and accept(2)'s errnos."""
    if flags & ~_SOCK_FLAGS:
        raise OSError(EINVAL, "")
    return _accept(task, fd, address, length, flags)


def _accept(task: Task, fd: int, address: int, length: int, flags: int) -> Any:
    listener = _socket(task, fd)
    group, host = task.group, task.worker.host
    group.files.free_descriptor(group)
    if listener.type == _SOCK_DGRAM:
        raise OSError(EOPNOTSUPP, "")
    try:
        host_fd = host.accept_socket(listener.host_fd)
    except BlockingIOError:
        return listener.wait_within(task, EPOLLIN)
    file = make_socket(task, listener.type, flags, host_fd)
    file.name = listener.name
    if listener.connecting:
        file.accept_from(listener.connecting.popleft())
    try:
        if address:
            name = task.worker.files.unix_names.guest_name(_peer_name_or_none(task, host_fd))
            _write_address(task, name, address, length)
    except OSError:
        file.release()
        raise
    return group.files.add(group, file, close_on_exec=bool(flags & os.O_CLOEXEC))


def _peer_name_or_none(task: Task, host_fd: int) -> bytes:
    """The one who connected may be gone already."""
    try:
        return task.worker.host.peer_name(host_fd)
    except OSError:
        return b""


@syscall(48)
def shutdown(task: Task, fd: S32, how: S32) -> int:
    """shutdown(2): EBADF, EINVAL, ENOTCONN, ENOTSOCK."""
    file = _socket(task, fd)
    if not 0 <= how <= 2:
        raise OSError(EINVAL, "")
    task.worker.host.shut_down_socket(file.host_fd, how)
    return 0


# -- messages -------------------------------------------------------------------------------------------------------

_MSGHDR: Final = struct.Struct("<QI4xQQQQI4x")
_CMSGHDR: Final = struct.Struct("<Qii")
_MMSGHDR_BYTES: Final = 64
_UCRED: Final = struct.Struct("<iII")
_SOL_SOCKET, _SCM_RIGHTS, _SCM_CREDENTIALS = 1, 1, 2
_SCM_MAX_FD: Final = 253
_CONTROL_MAX: Final = 65536
_MAX_MESSAGES: Final = 1024


class _Header(NamedTuple):
    """struct msghdr."""

    name: int
    name_length: int
    vector: int
    vector_length: int
    control: int
    control_length: int
    flags: int


class _Ancillary(NamedTuple):
    """What a message carries beside its data."""

    files: tuple[OpenFile, ...]
    sender: PeerCredentials | None


def _read_header(task: Task, address: int) -> _Header:
    header = _Header(*_MSGHDR.unpack(task.memory.read(address, _MSGHDR.size)))
    if header.vector_length > 1024:
        raise OSError(EMSGSIZE, "")
    return header


def _read_control(task: Task, header: _Header) -> _Ancillary:
    """Parse the control messages of sendmsg(2). EBADF, EINVAL, EPERM. The files are not held yet."""
    data = b""
    if header.control and header.control_length:
        if header.control_length > _CONTROL_MAX:
            raise OSError(EINVAL, "")
        data = task.memory.read(header.control, header.control_length)
    files: tuple[OpenFile, ...] = ()
    sender = None
    at = 0
    while at + _CMSGHDR.size <= len(data):
        length, level, kind = _CMSGHDR.unpack_from(data, at)
        if length < _CMSGHDR.size or length > len(data) - at:
            raise OSError(EINVAL, "")
        content = data[at + _CMSGHDR.size : at + length]
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
            files += _files_of(task, content)
        elif level == _SOL_SOCKET and kind == _SCM_CREDENTIALS:
            sender = _checked_credentials(task, content)
        elif level == _SOL_SOCKET:
            raise OSError(EINVAL, "")
        at += (length + 7) & -8
    if len(files) > _SCM_MAX_FD:
        raise OSError(EINVAL, "")
    return _Ancillary(files, sender)


def _files_of(task: Task, content: bytes) -> tuple[OpenFile, ...]:
    count = len(content) // 4
    if count > _SCM_MAX_FD:
        raise OSError(EINVAL, "")
    return tuple([task.group.files.get_any(fd) for fd in struct.unpack(f"<{count}i", content[: count * 4])])


def _checked_credentials(task: Task, content: bytes) -> PeerCredentials:
    """scm_check_creds: one's own ids, or anyone's with the capabilities."""
    if len(content) != _UCRED.size:
        raise OSError(EINVAL, "")
    sender = PeerCredentials(*_UCRED.unpack(content))
    own = task.group.credentials
    if sender.pid != task.group.pid and not own.has(CAP_SYS_ADMIN):
        raise OSError(EPERM, "")
    if sender.uid not in (own.ruid, own.euid, own.suid) and not own.has(CAP_SETUID):
        raise OSError(EPERM, "")
    if sender.gid not in (own.rgid, own.egid, own.sgid) and not own.has(CAP_SETGID):
        raise OSError(EPERM, "")
    return sender


@syscall(44)
def sendto(task: Task, fd: S32, buffer: Address, count: U64, flags: U32, address: Address, length: S32) -> Any:
    """sendto(2): EAGAIN, EBADF, ECONNREFUSED, EDESTADDRREQ, EFAULT, EINVAL, EISCONN, EMSGSIZE, ENOTCONN, EPIPE."""
    file = _socket(task, fd)
    name = _read_address(task, address, length) if address else None
    buffers = [(buffer, min(count, transfer.MAX_RW_COUNT))]
    return _send(task, file, buffers, flags, name, _Ancillary((), None))


@syscall(46)
def sendmsg(task: Task, fd: S32, message: Address, flags: U32) -> Any:
    """sendmsg(2): send with descriptors or credentials. EBADF, EINVAL, EPERM and sendto(2)'s errnos."""
    return _sendmsg(task, _socket(task, fd), message, flags)


def _sendmsg(task: Task, file: SocketFile, message: int, flags: int) -> Any:
    header = _read_header(task, message)
    name = _read_address(task, header.name, header.name_length) if header.name and header.name_length else None
    ancillary = _read_control(task, header)
    buffers = task.memory.read_iovec(header.vector, header.vector_length)
    return _send(task, file, buffers, flags, name, ancillary)


def _send(task: Task, file: SocketFile, buffers: Buffers, flags: int, name: bytes | None, ancillary: _Ancillary) -> Any:
    if name is None:
        return _send_pieces(task, file, buffers, flags, -1, ancillary)
    if file.type != _SOCK_DGRAM:
        # A stream ignores no address: it is connected, or it cannot be.
        connected = file.peer.pid != 0
        raise OSError(EISCONN if connected else EOPNOTSUPP, "")
    return _send_to(task, file, buffers, flags, name, ancillary)


def _send_to(task: Task, file: SocketFile, buffers: Buffers, flags: int, name: bytes, ancillary: _Ancillary) -> Asking:
    if not name:
        raise OSError(EINVAL, "")
    bound = yield from _find(task, name, file.type)
    return _send_pieces(task, file, buffers, flags, bound.path_fd, ancillary)


def _send_pieces(
    task: Task, file: SocketFile, buffers: Buffers, flags: int, path_fd: int, ancillary: _Ancillary
) -> Any:
    """Send all of it; descriptors and credentials go with the first piece."""
    total = sum([length for _, length in buffers])
    done = task.memo.get("done", 0)
    limit = min(total, 16 << 20) if file.atomic else file.piece_bytes
    while True:
        first = done == 0
        files = ancillary.files if first else ()
        try:
            data = transfer.gather(task, buffers, done, limit) if total else b""
            done += _send_piece(task, file, data, path_fd, flags, files, ancillary.sender)
        except BlockingIOError:
            if flags & _MSG_DONTWAIT or file.flags & os.O_NONBLOCK:
                if done:
                    return done
                raise
            task.memo["done"] = done
            return file.wait_within(task, EPOLLOUT, done or ERESTARTSYS)
        except BrokenPipeError:
            if not flags & _MSG_NOSIGNAL and file.type != _SOCK_DGRAM:
                signals.send_sigpipe(task)
            if done:
                return done
            raise
        except OSError:
            if done:
                return done
            raise
        if done >= total or file.atomic:
            return done


def _send_piece(
    task: Task,
    file: SocketFile,
    data: bytes,
    path_fd: int,
    flags: int,
    files: tuple[OpenFile, ...],
    sender: PeerCredentials | None,
) -> int:
    """Send one piece; its open files are held for as long as they travel."""
    held = tuple([f.hold() for f in files])
    try:
        return file.send(
            data,
            path_fd,
            flags & _HOST_SEND_FLAGS,
            held,
            sender or credentials_of(task),
            explicit=sender is not None,
        )
    except OSError:
        for f in held:
            f.release()
        raise


@syscall(307)
def sendmmsg(task: Task, fd: S32, messages: Address, count: U32, flags: U32) -> Any:
    """sendmmsg(2): several messages; the number that were sent. sendmsg(2)'s errnos when none was."""
    file = _socket(task, fd)
    return _many(task, messages, min(count, _MAX_MESSAGES), lambda at: _sendmsg(task, file, at, flags))


def _many(task: Task, messages: int, count: int, step: Any) -> Any:
    """Do *step* for each struct mmsghdr; a wait or an error after the first ends the round."""
    done = task.memo.get("messages", 0)
    while done < count:
        at = messages + done * _MMSGHDR_BYTES
        try:
            result = step(at)
        except OSError:
            if done:
                return done
            raise
        if type(result) is not int:
            if isinstance(result, Block):
                if done:
                    result.on_signal = done
                task.memo["messages"] = done
                return result
            return _many_asking(task, messages, count, done, result, step)
        if result < 0:
            return done or result
        task.memory.write_u32(at + _MSGHDR.size, result)
        task.memo.pop("done", None)
        done += 1
    return done


def _many_asking(task: Task, messages: int, count: int, done: int, asking: Any, step: Any) -> Asking:
    """The rest of a round one of whose messages has to ask where its address leads."""
    while True:
        try:
            result = yield from asking
        except OSError:
            if done:
                return done
            raise
        if type(result) is not int or result < 0:
            return done or result
        task.memory.write_u32(messages + done * _MMSGHDR_BYTES + _MSGHDR.size, result)
        done += 1
        if done == count:
            return done
        asking = step(messages + done * _MMSGHDR_BYTES)
        if type(asking) is int:
            return done


@syscall(45)
def recvfrom(task: Task, fd: S32, buffer: Address, count: U64, flags: U32, address: Address, length: Address) -> Any:
    """recvfrom(2): EAGAIN, EBADF, EFAULT, EINVAL, ENOTCONN, ENOTSOCK."""
    file = _socket(task, fd)
    outcome = _receive(task, file, [(buffer, min(count, transfer.MAX_RW_COUNT))], flags)
    if not isinstance(outcome, _Delivered):
        return outcome
    _release(outcome.files)
    if address:
        _write_address(task, outcome.source, address, length)
    return outcome.length


class _Delivered(NamedTuple):
    """A message whose data is in guest memory."""

    length: int
    files: list[OpenFile]
    sender: PeerCredentials
    flags: int
    source: bytes


def _release(files: list[OpenFile]) -> None:
    for file in files:
        file.release()


def _receive(task: Task, file: SocketFile, buffers: Buffers, flags: int) -> Any:
    """Receive into *buffers*: a _Delivered, or the outcome of a call that waits."""
    if flags & _MSG_ERRQUEUE:
        raise OSError(EAGAIN, "")
    total = sum([length for _, length in buffers])
    got = task.memo.get("got", 0)
    try:
        received = file.receive(min(total - got, file.piece_bytes * 8), flags & _HOST_RECEIVE_FLAGS)
    except BlockingIOError:
        if flags & _MSG_DONTWAIT:
            if got:
                return _Delivered(got, [], file.peer, 0, b"")
            raise
        return file.wait_within(task, EPOLLIN, got or ERESTARTSYS)
    room = total - got
    data = received.data[:room]
    try:
        count = got + transfer.deliver(task, file, _after(buffers, got), data, 0) if data else got
    except OSError:
        _release(received.files)
        raise
    if flags & _MSG_WAITALL and file.is_stream and not flags & _MSG_PEEK and data and count < total:
        if received.files:
            return _Delivered(count, received.files, received.sender, received.flags, received.source)
        task.memo["got"] = count
        return _receive(task, file, buffers, flags)
    if flags & _MSG_TRUNC and not file.is_stream:
        count = len(received.data)
    return _Delivered(count, received.files, received.sender, received.flags, received.source)


def _after(buffers: Buffers, skip: int) -> Buffers:
    """Return what is left of *buffers* after *skip* bytes."""
    left: Buffers = []
    for address, length in buffers:
        passed = min(skip, length)
        skip -= passed
        if length > passed:
            left.append((address + passed, length - passed))
    return left


@syscall(47)
def recvmsg(task: Task, fd: S32, message: Address, flags: U32) -> Any:
    """recvmsg(2): receive with descriptors and credentials. EFAULT, EMSGSIZE and recvfrom(2)'s errnos."""
    return _recvmsg(task, _socket(task, fd), message, flags)


def _recvmsg(task: Task, file: SocketFile, message: int, flags: int) -> Any:
    header = _read_header(task, message)
    buffers = task.memory.read_iovec(header.vector, header.vector_length)
    outcome = _receive(task, file, buffers, flags)
    if not isinstance(outcome, _Delivered):
        return outcome
    shown = outcome.flags | flags & _MSG_CMSG_CLOEXEC
    control, truncated = _make_control(task, file, outcome, header.control_length, flags)
    name = _pack_address(outcome.source) if outcome.source else b""
    if header.name:
        task.memory.write(header.name, name[: header.name_length])
    if control:
        task.memory.write(header.control, control)
    task.memory.write_u32(message + 8, len(name))
    task.memory.write_u64(message + 40, len(control))
    task.memory.write_u32(message + 48, shown | (_MSG_CTRUNC if truncated else 0))
    return outcome.length


def _make_control(task: Task, file: SocketFile, outcome: _Delivered, room: int, flags: int) -> tuple[bytes, bool]:
    """Return the control messages that fit in *room*, and whether something did not; installs the descriptors."""
    control, truncated = b"", False
    if file.pass_credentials:
        sender = _UCRED.pack(*outcome.sender)
        packed = _CMSGHDR.pack(_CMSGHDR.size + len(sender), _SOL_SOCKET, _SCM_CREDENTIALS) + sender
        if room >= len(packed):
            control += packed.ljust((len(packed) + 7) & -8, b"\0")[:room]
        else:
            truncated = True
    if outcome.files:
        space = (room - len(control) - _CMSGHDR.size) // 4
        fds = _install(task, outcome.files, space, close_on_exec=bool(flags & _MSG_CMSG_CLOEXEC))
        truncated = truncated or len(fds) < len(outcome.files)
        if fds:
            data = struct.pack(f"<{len(fds)}i", *fds)
            packed = _CMSGHDR.pack(_CMSGHDR.size + len(data), _SOL_SOCKET, _SCM_RIGHTS) + data
            control += packed.ljust((len(packed) + 7) & -8, b"\0")[: room - len(control)]
    return control, truncated


def _install(task: Task, files: list[OpenFile], space: int, *, close_on_exec: bool) -> list[int]:
    """Give the received files descriptors, as many as there is room for; the others are closed."""
    fds: list[int] = []
    for index, file in enumerate(files):
        if index >= space:
            file.release()
            continue
        try:
            fds.append(task.group.files.add(task.group, file, close_on_exec=close_on_exec))
        except OSError:
            space = index
    return fds


@syscall(299)
def recvmmsg(task: Task, fd: S32, messages: Address, count: U32, flags: U32, timeout: Address) -> Any:
    """recvmmsg(2): several messages; the number that came. recvmsg(2)'s errnos when none did."""
    file = _socket(task, fd)
    deadline = task.memo.get("until")
    if timeout and deadline is None:
        deadline = task.memo["until"] = monotonic_deadline(task, read_timespec(task, timeout))

    def step(at: int) -> Any:
        started = task.memo.get("messages_seen", 0)
        later = flags | _MSG_DONTWAIT if started and flags & _MSG_WAITFORONE else flags
        if started and deadline is not None and task.worker.clock.monotonic_ns() >= deadline:
            raise BlockingIOError(EAGAIN, "")
        result = _recvmsg(task, file, at, later & ~_MSG_WAITFORONE)
        if type(result) is int and result >= 0:
            task.memo["messages_seen"] = started + 1
            task.memo.pop("got", None)
        return result

    return _many(task, messages, min(count, _MAX_MESSAGES), step)


# -- options --------------------------------------------------------------------------------------------------------

_SO_RCVTIMEO_OLD, _SO_SNDTIMEO_OLD, _SO_RCVTIMEO_NEW, _SO_SNDTIMEO_NEW = 20, 21, 66, 67
_SO_PASSCRED, _SO_PEERCRED, _SO_PEERSEC, _SO_PASSSEC, _SO_PEERGROUPS, _SO_PEERPIDFD = 16, 17, 31, 34, 59, 77
_SO_DEBUG, _SO_REUSEADDR, _SO_TYPE, _SO_ERROR, _SO_DONTROUTE, _SO_BROADCAST = 1, 2, 3, 4, 5, 6
_SO_SNDBUF, _SO_RCVBUF, _SO_KEEPALIVE, _SO_OOBINLINE, _SO_PRIORITY, _SO_LINGER = 7, 8, 9, 10, 12, 13
_SO_REUSEPORT, _SO_RCVLOWAT, _SO_SNDLOWAT, _SO_TIMESTAMP, _SO_ACCEPTCONN = 15, 18, 19, 29, 30
_SO_PROTOCOL, _SO_DOMAIN, _SO_PEEK_OFF, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 38, 39, 42, 32, 33
#: Options that are the host socket's, to get and to set.
_HOST_OPTIONS: Final = frozenset(
    {
        _SO_REUSEADDR,
        _SO_BROADCAST,
        _SO_SNDBUF,
        _SO_RCVBUF,
        _SO_KEEPALIVE,
        _SO_OOBINLINE,
        _SO_PRIORITY,
        _SO_LINGER,
        _SO_REUSEPORT,
        _SO_RCVLOWAT,
        _SO_PEEK_OFF,
    }
)
#: Those that can only be read.
_HOST_FACTS: Final = _HOST_OPTIONS | {
    _SO_TYPE,
    _SO_ERROR,
    _SO_ACCEPTCONN,
    _SO_PROTOCOL,
    _SO_DOMAIN,
    _SO_SNDLOWAT,
    _SO_DONTROUTE,
    _SO_DEBUG,
    _SO_TIMESTAMP,
}
_TIMEVAL: Final = struct.Struct("<qq")
_NS: Final = 1_000_000_000
_OPTION_MAX_BYTES: Final = 64


@syscall(55, partial="the options of SOL_SOCKET that Unix sockets have")
def getsockopt(task: Task, fd: S32, level: S32, option: S32, value: Address, length: Address) -> int:
    """getsockopt(2): EBADF, EFAULT, EINVAL, ENOPROTOOPT, ENOTSOCK, EOPNOTSUPP."""
    file = _socket(task, fd)
    room = task.memory.read_s32(length)
    if room < 0:
        raise OSError(EINVAL, "")
    if level != _SOL_SOCKET:
        raise OSError(EOPNOTSUPP, "")
    data = _option(task, file, option)[:room]
    task.memory.write(value, data)
    task.memory.write_s32(length, len(data))
    return 0


def _option(task: Task, file: SocketFile, option: int) -> bytes:
    if option == _SO_PEERCRED:
        return struct.pack("<iII", *file.peer)
    if option == _SO_PASSCRED:
        return struct.pack("<i", file.pass_credentials)
    if option in (_SO_RCVTIMEO_OLD, _SO_RCVTIMEO_NEW):
        return _pack_timeout(file.receive_timeout_ns)
    if option in (_SO_SNDTIMEO_OLD, _SO_SNDTIMEO_NEW):
        return _pack_timeout(file.send_timeout_ns)
    if option not in _HOST_FACTS:
        raise OSError(ENOPROTOOPT, "")
    return task.worker.host.socket_option(file.host_fd, _SOL_SOCKET, option, _OPTION_MAX_BYTES)


def _pack_timeout(timeout_ns: int) -> bytes:
    seconds, rest = divmod(timeout_ns, _NS)
    return _TIMEVAL.pack(seconds, rest // 1000)


@syscall(54, partial="the options of SOL_SOCKET that Unix sockets have")
def setsockopt(task: Task, fd: S32, level: S32, option: S32, value: Address, length: S32) -> int:
    """setsockopt(2): EBADF, EDOM, EFAULT, EINVAL, ENOPROTOOPT, ENOTSOCK, EOPNOTSUPP."""
    file = _socket(task, fd)
    if length < 0:
        raise OSError(EINVAL, "")
    if level != _SOL_SOCKET:
        raise OSError(EOPNOTSUPP, "")
    if option in (_SO_RCVTIMEO_OLD, _SO_RCVTIMEO_NEW, _SO_SNDTIMEO_OLD, _SO_SNDTIMEO_NEW):
        _set_timeout(task, file, option, value, length)
        return 0
    if length < 4:
        raise OSError(EINVAL, "")
    number = task.memory.read_s32(value)
    if option == _SO_PASSCRED:
        file.pass_credentials = bool(number)
        if number:
            task.worker.files.unix_names.passes_credentials = True
    elif option in _HOST_OPTIONS:
        data = task.memory.read(value, min(length, _OPTION_MAX_BYTES))
        task.worker.host.set_socket_option(file.host_fd, _SOL_SOCKET, option, data)
    elif option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
        raise OSError(EPERM, "")
    elif option not in (_SO_TIMESTAMP, _SO_DONTROUTE, _SO_PASSSEC):
        raise OSError(ENOPROTOOPT, "")
    return 0


def _set_timeout(task: Task, file: SocketFile, option: int, value: int, length: int) -> None:
    if length < _TIMEVAL.size:
        raise OSError(EINVAL, "")
    seconds, microseconds = _TIMEVAL.unpack(task.memory.read(value, _TIMEVAL.size))
    if not 0 <= microseconds < 1_000_000:
        raise OSError(EDOM, "")
    timeout_ns = max(0, seconds * _NS + microseconds * 1000)
    if option in (_SO_RCVTIMEO_OLD, _SO_RCVTIMEO_NEW):
        file.receive_timeout_ns = timeout_ns
    else:
        file.send_timeout_ns = timeout_ns
