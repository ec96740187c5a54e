"""An inotify descriptor with a watch, an event that nobody has read, and a watched open file: all must go on.

Prints "ready", waits for a line, and prints what happened meanwhile and what happens now.
"""

import ctypes
import os
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
_EVENT = struct.Struct("iIII")


def events(fd: int) -> list[tuple[int, int, str]]:
    """Read everything."""
    found: list[tuple[int, int, str]] = []
    while True:
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return found
        while data:
            wd, mask, _cookie, length = _EVENT.unpack_from(data)
            found.append((wd, mask, data[_EVENT.size : _EVENT.size + length].rstrip(b"\0").decode()))
            data = data[_EVENT.size + length :]


os.mkdir("watched")
watcher = libc.inotify_init1(os.O_NONBLOCK)
assert libc.inotify_add_watch(watcher, b"watched", 0xFFF) == 1
held = os.open("watched/held", os.O_CREAT | os.O_RDWR)
print("ready", flush=True)
sys.stdin.readline()
print(events(watcher))
os.write(held, b"x")
os.close(held)
os.rename("watched/held", "watched/moved")
print(events(watcher))
print(libc.inotify_add_watch(watcher, b".", 0xFFF))
