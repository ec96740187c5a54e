"""Print the inotify events of many operations on files: the output is the same wherever inotify is Linux's."""

import ctypes
import fcntl
import os
import select
import struct

NAMES = {
    0x1: "ACCESS",
    0x2: "MODIFY",
    0x4: "ATTRIB",
    0x8: "CLOSE_WRITE",
    0x10: "CLOSE_NOWRITE",
    0x20: "OPEN",
    0x40: "MOVED_FROM",
    0x80: "MOVED_TO",
    0x100: "CREATE",
    0x200: "DELETE",
    0x400: "DELETE_SELF",
    0x800: "MOVE_SELF",
    0x4000: "Q_OVERFLOW",
    0x8000: "IGNORED",
    0x40000000: "ISDIR",
    0x2000: "UNMOUNT",
}
ALL_EVENTS = 0xFFF
MODIFY = 0x2
ATTRIB = 0x4
DELETE_SELF = 0x400
ONLYDIR = 0x1000000
MASK_CREATE = 0x10000000
MASK_ADD = 0x20000000
ONESHOT = 0x80000000
FIONREAD = 0x541B

LIBC = ctypes.CDLL(None, use_errno=True)
WATCHER = LIBC.inotify_init1(os.O_NONBLOCK)
#: Numbers of rename cookies in the order in which they come: their values differ from run to run.
COOKIES: dict[int, int] = {}


def add(path: str, mask: int = ALL_EVENTS) -> int | str:
    """Return the watch descriptor, or the text of the error."""
    watch: int = LIBC.inotify_add_watch(WATCHER, path.encode(), ctypes.c_uint(mask))
    return watch if watch >= 0 else os.strerror(ctypes.get_errno())


def show(what: str) -> None:
    """Print every event that has come."""
    print(what)
    while True:
        try:
            data = os.read(WATCHER, 4096)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, cookie, length = struct.unpack_from("iIII", data, at)
            name = data[at + 16 :][:length].rstrip(b"\0").decode()
            at += 16 + length
            number = COOKIES.setdefault(cookie, len(COOKIES) + 1) if cookie else 0
            names = "|".join(text for bit, text in NAMES.items() if mask & bit)
            print("   ", (watch, names, number, name, length))


def write(path: str, text: str, mode: str = "w") -> None:
    """Write a file as a program does that leaves the closing to the interpreter."""
    open(path, mode).write(text)


def files() -> None:
    """Open, read, write, truncate, close and change files in a watched directory."""
    print(add("."))
    show("none")
    fd = os.open("a", os.O_CREAT | os.O_RDWR, 0o644)
    show("create")
    os.write(fd, b"hello")
    show("write")
    os.write(fd, b"x")
    os.write(fd, b"x")
    show("2 writes merge")
    os.lseek(fd, 0, 0)
    os.read(fd, 10)
    show("read")
    os.ftruncate(fd, 2)
    show("ftruncate")
    os.close(fd)
    show("close")
    print(add("a"))
    fd = os.open("a", os.O_WRONLY | os.O_TRUNC)
    show("trunc")
    os.write(fd, b"zz")
    os.close(fd)
    show("w")
    os.chmod("a", 0o600)
    os.utime("a", (1, 2))
    os.truncate("a", 1)
    show("attr")


def names() -> None:
    """Link, rename, make and remove names, of files and directories."""
    os.link("a", "b")
    show("link")
    os.rename("b", "c")
    show("rename")
    os.mkdir("d")
    os.rename("a", "d/a")
    show("move out")
    os.rename("d/a", "a")
    show("in")
    os.symlink("a", "s")
    os.unlink("s")
    os.mkfifo("p")
    os.unlink("p")
    show("nodes")
    os.unlink("c")
    show("unlink c")
    fd = os.open("a", os.O_RDONLY)
    os.unlink("a")
    show("unlink open")
    os.close(fd)
    show("close deleted")
    os.listdir("d")
    show("listdir")
    print(add("d"))
    os.rmdir("d")
    show("rmdir")
    write("x", "1")
    write("y", "2")
    show("xy")
    print(add("y", DELETE_SELF | ATTRIB | MODIFY))
    os.rename("x", "y")
    show("replace")


def watches() -> None:
    """Flags of inotify_add_watch, its errors and those of inotify_rm_watch."""
    print(
        add("y", ONLYDIR | ALL_EVENTS),
        add("y", 0),
        add("zz"),
        add("y", MASK_CREATE | MASK_ADD | MODIFY),
        add("y", MASK_CREATE | MODIFY),
        LIBC.inotify_rm_watch(WATCHER, 77),
        LIBC.inotify_rm_watch(WATCHER, 1),
    )
    show("rm")
    add("y", ONESHOT | MODIFY)
    write("y", "k", "a")
    show("oneshot")


def descriptor() -> None:
    """The descriptor's name, readiness and FIONREAD, and a buffer that is too small."""
    print(os.readlink(f"/proc/self/fd/{WATCHER}"))
    fd = os.open("y", os.O_WRONLY)
    add(".", MODIFY)
    poll = select.poll()
    poll.register(WATCHER, 1)
    print(poll.poll(0))
    os.write(fd, b"late")
    print([events for _, events in poll.poll(2000)])
    print(struct.unpack("i", fcntl.ioctl(WATCHER, FIONREAD, b"\0" * 4)))
    try:
        os.read(WATCHER, 8)
    except OSError as error:
        print(error.errno)
    show("late")
    print([events for _, events in poll.poll(0)])


def opened_before() -> None:
    """What was opened before it is watched, several times or again and again, shows each close and opening then."""
    with open("before", "w", encoding="ascii") as file:
        file.write("text")
    fds = [os.open("before", os.O_RDONLY) for _ in range(4)]
    os.close(fds.pop())
    os.close(os.open("before", os.O_RDONLY))
    os.listdir(".")
    watch = add("before"), add(".")
    show("nothing yet")
    for fd in fds:
        os.read(fd, 1)
        os.close(fd)
        show("closed")
    for _ in range(2):
        os.close(os.open("before", os.O_RDONLY))
        show("opened and closed")
        os.listdir(".")
        show("listed")
    for number in watch:
        LIBC.inotify_rm_watch(WATCHER, number)
    show("removed")
    os.unlink("before")


if __name__ == "__main__":
    directory = f"/tmp/inot.{os.getpid()}"
    os.mkdir(directory)
    os.chdir(directory)
    opened_before()
    files()
    names()
    watches()
    descriptor()
