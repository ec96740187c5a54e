"""Unix sockets of every kind, with data, descriptors and connections in flight: they must be there after a restore.

Says "ready", waits for a line, then says the results; exit status 42.
"""

import os
import select
import socket
import struct
import sys


def pair(kind: int) -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, kind)


def check(name: str, good: bool) -> None:
    print("ok" if good else "FAILED", name, flush=True)


a, b = pair(socket.SOCK_STREAM)
a.sendall(b"x" * 50000)
a.sendall(b"tail")
c, d = pair(socket.SOCK_SEQPACKET)
for message in (b"one", b"two two", b"three"):
    c.send(message)
e, f = pair(socket.SOCK_DGRAM)
e.send(b"first")
e.send(b"second")
reading, writing = os.pipe()
os.write(writing, b"carried")
socket.send_fds(b, [b"fd"], [reading])
os.close(reading)
server = socket.socket(socket.AF_UNIX)
server.bind("/tmp/server")
server.listen(5)
client = socket.socket(socket.AF_UNIX)
client.connect("/tmp/server")
accepted, _ = server.accept()
client.send(b"to the server")
accepted.send(b"to the client")
late = socket.socket(socket.AF_UNIX)
late.connect("/tmp/server")
abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
abstract.bind("\0name")
named = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
named.bind("/tmp/named")
named.sendto(b"from a name", "\0name")
g, h = pair(socket.SOCK_STREAM)
g.send(b"last words")
g.close()
i, j = pair(socket.SOCK_STREAM)
i.send(b"half")
i.shutdown(socket.SHUT_WR)
j.send(b"back")
epoll = select.epoll()
epoll.register(accepted, select.EPOLLIN)
k, m = pair(socket.SOCK_STREAM)
child = os.fork()
if child == 0:
    k.close()
    m.sendall(m.recv(100).upper())
    os._exit(4)
m.close()

print("ready", flush=True)
sys.stdin.readline()

got = b""
while len(got) < 50004:
    got += b.recv(100000)
check("stream", got == b"x" * 50000 + b"tail")
check("packets", [d.recv(100) for _ in range(3)] == [b"one", b"two two", b"three"])
check("datagrams", [f.recv(100) for _ in range(2)] == [b"first", b"second"])
text, fds, _, _ = socket.recv_fds(a, 10, 4)
check("descriptor", text == b"fd" and os.read(fds[0], 100) == b"carried")
check("epoll", epoll.poll(0) == [(accepted.fileno(), select.EPOLLIN)])
check("connection", accepted.recv(100) == b"to the server" and client.recv(100) == b"to the client")
(peer,) = struct.unpack_from("i", accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
check("credentials", peer == os.getpid())
other, _ = server.accept()
late.send(b"late")
check("connection that was not accepted", other.recv(10) == b"late" and other.getsockname() == "/tmp/server")
new = socket.socket(socket.AF_UNIX)
new.connect("/tmp/server")
third, _ = server.accept()
new.send(b"new")
check("new connection", third.recv(10) == b"new")
check("abstract name", abstract.recvfrom(100) == (b"from a name", "/tmp/named"))
check("closed peer", h.recv(100) == b"last words" and h.recv(1) == b"")
try:
    h.send(b"x")
    check("broken pipe", False)
except BrokenPipeError:
    check("broken pipe", True)
check("half closed", j.recv(100) == b"half" and j.recv(1) == b"" and i.recv(100) == b"back")
j.send(b"more")
check("other half", i.recv(10) == b"more")
k.send(b"hello")
check("child", k.recv(100) == b"HELLO" and os.waitpid(child, 0)[1] == 4 << 8)
sys.exit(42)
