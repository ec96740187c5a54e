"""The runtime directory: where the sockets of supervisors are, and which sandbox belongs to which.

Below the user's directory (0700) there is one directory per supervisor process, named by its process id and a random
part, with its control socket, its descriptor socket and a directory per sandbox; and ``names/``, with one symbolic
link per running sandbox, from its name to its supervisor's directory.  Making a symbolic link is atomic and fails when
the name exists: that is what makes names unique among all supervisors of the user.

A supervisor is alive exactly while something accepts connections on its descriptor socket (the kernel closes it with
the process), so what dead ones left can be told apart and is removed by whoever comes across it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from .errors import NameInUse, SandboxNotFound, SupervisorError
from .places import DESCRIPTOR_SOCKET, SERVICE, candidates

__all__ = ["RuntimeDirectory", "find_supervisor", "live_supervisors"]

_NAMES = "names"
#: Bytes of a path that fits sockaddr_un.
_MAX_SOCKET_PATH = 107
#: The longest that is appended to a supervisor's directory: "/99999/worker:63".
_LONGEST_SOCKET = 20


def _user_directory() -> str:
    """Return this user's directory, made when it is missing. SupervisorError when no place for it is usable."""
    reasons = []
    for path in candidates():
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            found = os.lstat(path)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
                reasons.append(f"{path} is not a directory of this user with mode 0700")
                continue
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{path}/{_NAMES}", 0o700)
        except OSError as error:
            reasons.append(f"{path}: {error.strerror}")
        else:
            return path
    raise SupervisorError(
        "no runtime directory: " + "; ".join(reasons) + "; set XDG_RUNTIME_DIR to a private directory"
    )


class RuntimeDirectory:
    """The directory of one supervisor."""

    def __init__(self, path: str) -> None:
        """Refer to the existing directory *path*."""
        self.path = path
        self._base = os.path.dirname(path)

    @classmethod
    def create(cls) -> RuntimeDirectory:
        """Make a directory for this process. SupervisorError when that is impossible."""
        path = f"{_user_directory()}/{os.getpid()}-{os.urandom(4).hex()}"
        if len(path) + _LONGEST_SOCKET > _MAX_SOCKET_PATH:
            raise SupervisorError(f"{path} is too long for sockets: set XDG_RUNTIME_DIR to a shorter path")
        os.mkdir(path, 0o700)
        return cls(path)

    @property
    def supervisor_pid(self) -> int:
        """Process id of the supervisor, from the directory's name."""
        return int(os.path.basename(self.path).partition("-")[0])

    def claim(self, name: str) -> None:
        """Take *name* for a sandbox of this supervisor. NameInUse when a live supervisor has one of that name."""
        link = f"{self._base}/{_NAMES}/{name}"
        target = os.path.basename(self.path)
        for _ in range(3):  # once more for a name that a dead supervisor left; more often only in a race
            try:
                os.symlink(target, link)
            except FileExistsError:
                holder = _holder(self._base, name)
                if holder is not None and (holder.path == self.path or holder.is_live()):
                    raise NameInUse(f"there is a running sandbox {name!r} already: choose another name") from None
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(link)
            else:
                return
        raise NameInUse(f"another process is just taking the name {name!r}")

    def release(self, name: str) -> None:
        """Free *name*."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._base}/{_NAMES}/{name}")

    def offer_service(self) -> None:
        """Make this the supervisor that serves ``greenroom run``. SupervisorError when there is one."""
        link, target = f"{self._base}/{SERVICE}", os.path.basename(self.path)
        for _ in range(3):  # as claim
            try:
                os.symlink(target, link)
            except FileExistsError:
                holder = RuntimeDirectory(f"{self._base}/{_read_link(link)}")
                if holder.is_live():
                    raise SupervisorError(f"process {holder.supervisor_pid} serves already") from None
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(link)
            else:
                return
        raise SupervisorError("another process is just beginning to serve")

    def withdraw_service(self) -> None:
        """Undo :meth:`offer_service`. Idempotent."""
        link = f"{self._base}/{SERVICE}"
        if _read_link(link) == os.path.basename(self.path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(link)

    def is_live(self) -> bool:
        """Say whether the supervisor of this directory lives."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
                probe.connect(f"{self.path}/{DESCRIPTOR_SOCKET}")
        except ConnectionRefusedError:
            return False
        except OSError:
            # No socket yet, or no more: then the process decides.
            return _process_exists(self.supervisor_pid) and os.path.isdir(self.path)
        return True

    def names(self) -> list[str]:
        """Return the names that this supervisor's sandboxes have taken."""
        target, names = os.path.basename(self.path), f"{self._base}/{_NAMES}"
        return sorted(name for name in os.listdir(names) if _read_link(f"{names}/{name}") == target)

    def remove(self) -> None:
        """Remove the directory, all that is in it, and its names. Idempotent."""
        self.withdraw_service()
        for name in self.names():
            self.release(name)
        remove_tree(self.path)


def remove_tree(path: str) -> None:
    """Remove a directory of our own making and all that is in it; symbolic links are not followed."""
    for folder, folders, files in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            for name in files:
                os.unlink(f"{folder}/{name}")
            for name in folders:
                os.rmdir(f"{folder}/{name}")
    with contextlib.suppress(OSError):
        os.rmdir(path)


def _read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _holder(base: str, name: str) -> RuntimeDirectory | None:
    target = _read_link(f"{base}/{_NAMES}/{name}")
    return RuntimeDirectory(f"{base}/{target}") if target else None


def find_supervisor(name: str) -> RuntimeDirectory:
    """Return the directory of the supervisor that runs the sandbox *name*. SandboxNotFound when none does."""
    holder = _holder(_user_directory(), name) if "/" not in name else None
    if holder is None:
        raise SandboxNotFound(f"there is no running sandbox {name!r}: `greenroom ps` lists them")
    if not holder.is_live():
        holder.remove()
        raise SandboxNotFound(f"there is no running sandbox {name!r}: its supervisor has died")
    return holder


def live_supervisors() -> list[RuntimeDirectory]:
    """Return the directories of all live supervisors of this user; what dead ones left is removed on the way."""
    base = _user_directory()
    live = []
    for name in sorted(os.listdir(base)):
        if name != _NAMES and name.partition("-")[0].isdecimal():
            directory = RuntimeDirectory(f"{base}/{name}")
            if directory.is_live():
                live.append(directory)
            else:
                directory.remove()
    return live
