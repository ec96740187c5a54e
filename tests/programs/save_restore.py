"""Threads, locks, queues, a database, memory and open files: all of it must be there after a restore.

Prints "line N" for N from 0 on, slowly; ends with the results, and exit status 3.
"""

import hashlib
import mmap
import os
import queue
import sqlite3
import sys
import threading
import time

LINES = 40

tasks: queue.Queue[int | None] = queue.Queue()
done: queue.Queue[int] = queue.Queue()
lock = threading.Lock()
condition = threading.Condition()
total = 0
timed_out: list[bool] = []


def work() -> None:
    global total
    while (n := tasks.get()) is not None:
        with lock:
            total += n
        done.put(n)


def wait_for_the_end() -> None:
    with condition:
        condition.wait()


def wait_in_vain() -> None:
    timed_out.append(threading.Event().wait(1.0))


database = sqlite3.connect("/tmp/x.db")
database.execute("create table numbers(n integer)")
database.commit()
big = bytearray(os.urandom(1 << 20)) * 4
digest = hashlib.sha256(big).hexdigest()
shared = mmap.mmap(-1, 1 << 16)
shared[:5] = b"hello"
unlinked = open("/tmp/unlinked", "w+b", buffering=0)
unlinked.write(b"data that has no name" * 100)
os.unlink("/tmp/unlinked")
unlinked.seek(10)
half_read = open("/etc/services" if os.path.exists("/etc/services") else "/etc/passwd")
beginning = half_read.readline()
with open("/tmp/twice", "wb") as file:
    file.write(b"0123456789")
twice = [open("/tmp/twice", "rb", buffering=0) for _ in range(3)]
for position, opening in enumerate(twice):
    opening.read(position)
twice.pop().close()
mine, theirs = os.pipe()
os.write(theirs, b"in the pipe")

threads = [threading.Thread(target=work) for _ in range(4)]
threads += [threading.Thread(target=wait_for_the_end), threading.Thread(target=wait_in_vain)]
for thread in threads:
    thread.start()
for line in range(LINES):
    tasks.put(line)
    assert done.get() == line
    database.execute("insert into numbers values (?)", (line,))
    if line % 10 == 9:
        database.commit()
    print("line", line, flush=True)
    time.sleep(0.03)
for _ in range(4):
    tasks.put(None)
with condition:
    condition.notify_all()
for thread in threads:
    thread.join()

with open(half_read.name) as whole:
    text = whole.read()
results = {
    "total": total == sum(range(LINES)),
    "timed out": timed_out == [False],
    "memory": hashlib.sha256(big).hexdigest() == digest,
    "shared memory": shared[:5] == b"hello",
    "unlinked file": unlinked.read(11) == (b"data that has no name" * 100)[10:21],
    "half read file": beginning + half_read.read() == text,
    "file open twice": [file.read(3) for file in twice] == [b"012", b"123"],
    "pipe": os.read(mine, 100) == b"in the pipe",
    "database": [row[0] for row in database.execute("select n from numbers order by n")] == list(range(LINES)),
}
for name, good in results.items():
    print("ok" if good else "FAILED", name)
sys.exit(3)
