/* Unix sockets: names, connections, messages with descriptors and credentials, options, errors. */
#include "check.h"
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static char buffer[300000];

static struct sockaddr_un named(const char *path, socklen_t *length)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t size = path[0] ? strlen(path) : strlen(path + 1) + 1;
	memcpy(address.sun_path, path, size);
	*length = offsetof(struct sockaddr_un, sun_path) + size + (path[0] ? 1 : 0);
	return address;
}

static long bind_to(int fd, const char *path)
{
	socklen_t length;
	struct sockaddr_un address = named(path, &length);
	return bind(fd, (struct sockaddr *)&address, length);
}

static long connect_to(int fd, const char *path)
{
	socklen_t length;
	struct sockaddr_un address = named(path, &length);
	return connect(fd, (struct sockaddr *)&address, length);
}

static void show_name(const char *what, long result, struct sockaddr_un *address, socklen_t length)
{
	show(what, result);
	if (result != -1 && length > offsetof(struct sockaddr_un, sun_path))
		printf("%u %d %s\n", length, address->sun_path[0], address->sun_path + (address->sun_path[0] == 0));
	else
		printf("%u\n", length);
}

static void making(void)
{
	int pair[2];
	SHOW(socket(9999, SOCK_STREAM, 0));
	SHOW(socket(AF_UNIX, 77, 0));
	SHOW(socket(AF_UNIX, SOCK_RDM, 0));
	SHOW(socket(AF_UNIX, SOCK_STREAM, 77));
	SHOW(socket(AF_UNIX, SOCK_STREAM | 0x100000, 0));
	SHOW(socketpair(AF_INET, SOCK_STREAM, 0, pair) == -1);
	SHOW(socketpair(AF_UNIX, SOCK_STREAM, 0, (int *)8));
	SHOW(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair));
	SHOW(fcntl(pair[0], F_GETFD));
	SHOW(fcntl(pair[0], F_GETFL) == (O_RDWR | O_NONBLOCK));
	SHOW(read(pair[0], buffer, 1));
	SHOW(send(pair[0], "abc", 3, 0));
	int waiting = 0;
	SHOW(ioctl(pair[1], FIONREAD, &waiting));
	SHOW(waiting);
	SHOW(recv(pair[1], buffer, 2, MSG_PEEK));
	SHOW(recv(pair[1], buffer, 10, 0));
	SHOW(lseek(pair[0], 0, SEEK_SET));
	SHOW(pwrite(pair[0], "x", 1, 0));
	SHOW(ftruncate(pair[0], 1));
	SHOW(fsync(pair[0]));
	struct stat status;
	SHOW(fstat(pair[0], &status));
	SHOW(status.st_mode);
	SHOW(getsockname(0, NULL, NULL));
	SHOW(listen(pair[0], 1));
	SHOW(shutdown(pair[0], 7));
	SHOW(shutdown(pair[0], SHUT_WR));
	SHOW(recv(pair[1], buffer, 1, 0));
	SHOW(send(pair[0], "x", 1, MSG_NOSIGNAL));
	signal(SIGPIPE, SIG_IGN);
	SHOW(write(pair[0], "x", 1));
	close(pair[1]);
	SHOW(read(pair[0], buffer, 1));
	struct pollfd poller = {pair[0], POLLIN | POLLRDHUP, 0};
	SHOW(poll(&poller, 1, 0));
	SHOW(poller.revents);
	close(pair[0]);
}

static void streams(void)
{
	struct sockaddr_un address;
	socklen_t length = sizeof address;
	int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
	SHOW(accept(server, NULL, NULL));
	SHOW(listen(server, 5));
	SHOW(bind_to(server, "s"));
	SHOW(bind_to(server, "t"));
	SHOW(bind_to(client, "s"));
	SHOW(bind_to(client, "nothing/s"));
	SHOW(bind(client, (struct sockaddr *)&(struct sockaddr){AF_INET, {0}}, sizeof(struct sockaddr)));
	SHOW(bind(client, (struct sockaddr *)&address, 1));
	SHOW(bind(client, (struct sockaddr *)&address, 1000));
	struct stat status;
	SHOW(stat("s", &status));
	SHOW(status.st_mode);
	SHOW(open("s", O_RDONLY));
	SHOW(connect_to(client, "s"));
	SHOW(listen(server, 1));
	SHOW(connect_to(client, "nothing"));
	SHOW(connect_to(client, "."));
	SHOW(send(client, "x", 1, MSG_NOSIGNAL));
	SHOW(recv(client, buffer, 1, 0));
	SHOW(getpeername(client, (struct sockaddr *)&address, &length));
	SHOW(connect_to(client, "s"));
	SHOW(connect_to(client, "s"));
	length = sizeof address;
	show_name("getpeername", getpeername(client, (struct sockaddr *)&address, &length), &address, length);
	length = sizeof address;
	show_name("getsockname", getsockname(client, (struct sockaddr *)&address, &length), &address, length);
	SHOW(send(client, "early", 5, 0));
	length = sizeof address;
	int peer = accept(server, (struct sockaddr *)&address, &length);
	OK(peer);
	printf("%u\n", length);
	SHOW(recv(peer, buffer, 10, 0));
	length = 3;
	memset(&address, 0x55, sizeof address);
	SHOW(getsockname(peer, (struct sockaddr *)&address, &length));
	SHOW(length);
	SHOW(address.sun_path[1]);
	struct ucred who;
	length = sizeof who;
	SHOW(getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &who, &length));
	SHOW(who.pid == getpid() && who.uid == getuid() && who.gid == getgid());
	int value = 0;
	length = sizeof value;
	SHOW(getsockopt(server, SOL_SOCKET, SO_ACCEPTCONN, &value, &length));
	SHOW(value);
	SHOW(getsockopt(server, SOL_SOCKET, SO_TYPE, &value, &length));
	SHOW(value);
	SHOW(getsockopt(server, SOL_SOCKET, 9999, &value, &length));
	SHOW(getsockopt(server, 77, 1, &value, &length));
	SHOW(setsockopt(server, SOL_SOCKET, SO_PASSCRED, &value, 1));
	SHOW(fcntl(server, F_SETFL, O_NONBLOCK));
	SHOW(accept(server, NULL, NULL));
	SHOW(accept4(server, NULL, NULL, 0x123));
	struct timeval limit = {0, 50000};
	SHOW(setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
	SHOW(recv(peer, buffer, 1, 0));
	SHOW(recv(peer, buffer, 1, MSG_DONTWAIT));
	pid_t child = fork();
	if (child == 0) {
		close(peer);
		for (int left = 200000; left > 0;) {
			ssize_t sent = write(client, buffer, left);
			if (sent < 0)
				_exit(1);
			left -= sent;
		}
		_exit(0);
	}
	close(client);
	limit.tv_sec = 20;
	setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	SHOW(recv(peer, buffer, 150000, MSG_WAITALL));
	SHOW(recv(peer, buffer, 150000, MSG_WAITALL));
	int status_of_child;
	waitpid(child, &status_of_child, 0);
	show_status("writer", status_of_child);
	SHOW(unlink("s"));
	SHOW(connect_to(socket(AF_UNIX, SOCK_STREAM, 0), "s"));
	close(server);
	server = socket(AF_UNIX, SOCK_STREAM, 0);
	SHOW(bind_to(server, "s"));
	close(server);
	SHOW(connect_to(socket(AF_UNIX, SOCK_STREAM, 0), "s"));
	SHOW(bind_to(socket(AF_UNIX, SOCK_STREAM, 0), "s"));
}

static void datagrams(void)
{
	struct sockaddr_un address;
	socklen_t length;
	int a = socket(AF_UNIX, SOCK_DGRAM, 0), b = socket(AF_UNIX, SOCK_DGRAM, 0);
	SHOW(bind_to(a, "\0greenroom-test"));
	SHOW(bind_to(b, "\0greenroom-test"));
	SHOW(bind_to(b, "d"));
	SHOW(send(b, "x", 1, 0));
	address = named("\0greenroom-test", &length);
	SHOW(sendto(b, "datagram", 8, 0, (struct sockaddr *)&address, length));
	SHOW(sendto(b, "", 0, 0, (struct sockaddr *)&address, length));
	SHOW(sendto(b, "more", 4, 0, (struct sockaddr *)&address, length));
	length = sizeof address;
	show_name("recvfrom", recvfrom(a, buffer, 4, 0, (struct sockaddr *)&address, &length), &address, length);
	SHOW(recv(a, buffer, 10, 0));
	SHOW(recv(a, buffer, 2, MSG_TRUNC));
	SHOW(recv(a, buffer, 2, MSG_DONTWAIT));
	SHOW(connect_to(b, "\0greenroom-test"));
	SHOW(write(b, "connected", 9));
	SHOW(read(a, buffer, 20));
	SHOW(send(b, buffer, sizeof buffer, 0) == sizeof buffer || errno == EMSGSIZE);
	SHOW(connect_to(socket(AF_UNIX, SOCK_STREAM, 0), "\0greenroom-test"));
	SHOW(listen(a, 1));
	SHOW(accept(a, NULL, NULL));
	struct sockaddr none = {AF_UNSPEC, {0}};
	SHOW(connect(b, &none, sizeof none));
	SHOW(send(b, "x", 1, 0));
	int pair[2];
	SHOW(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	SHOW(write(pair[0], "one", 3));
	SHOW(write(pair[0], "two", 3));
	SHOW(read(pair[1], buffer, 2));
	SHOW(read(pair[1], buffer, 10));
	int automatic = socket(AF_UNIX, SOCK_DGRAM, 0);
	SHOW(bind(automatic, &(struct sockaddr){AF_UNIX, {0}}, sizeof(sa_family_t)));
	length = sizeof address;
	SHOW(getsockname(automatic, (struct sockaddr *)&address, &length));
	SHOW(length);
	close(a);
	SHOW(connect_to(b, "\0greenroom-test"));
}

static long pass(int fd, int *fds, int count)
{
	char control[CMSG_SPACE(40)] = {0};
	struct iovec data = {"rights", 6};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control};
	message.msg_controllen = CMSG_SPACE(count * sizeof *fds);
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	*header = (struct cmsghdr){CMSG_LEN(count * sizeof *fds), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(header), fds, count * sizeof *fds);
	return sendmsg(fd, &message, 0);
}

static long take(int fd, int *fds, int room, int flags)
{
	char control[CMSG_SPACE(40)] = {0};
	struct iovec data = {buffer, 100};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = room};
	long result = recvmsg(fd, &message, flags);
	show("recvmsg", result);
	if (result == -1)
		return -1;
	printf("flags %x control %zu name %u\n", message.msg_flags, message.msg_controllen, message.msg_namelen);
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (!header)
		return 0;
	printf("level %d type %d length %zu\n", header->cmsg_level, header->cmsg_type, header->cmsg_len);
	if (header->cmsg_type == SCM_RIGHTS) {
		memcpy(fds, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
		return (header->cmsg_len - CMSG_LEN(0)) / sizeof *fds;
	}
	struct ucred *who = (struct ucred *)CMSG_DATA(header);
	printf("pid %d uid %u gid %u\n", who->pid == getpid(), who->uid, who->gid);
	return 0;
}

static void ancillary(void)
{
	int pair[2], pipe_fds[2], got[10] = {-1, -1, -1};
	SHOW(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	SHOW(pipe(pipe_fds));
	SHOW(pass(pair[0], pipe_fds, 2));
	SHOW(take(pair[1], got, 100, MSG_CMSG_CLOEXEC));
	SHOW(fcntl(got[0], F_GETFD));
	SHOW(write(got[1], "passed", 6));
	SHOW(read(pipe_fds[0], buffer, 10));
	int bad = 99;
	SHOW(pass(pair[0], &bad, 1));
	/* Only one fits. */
	SHOW(pass(pair[0], pipe_fds, 2));
	SHOW(take(pair[1], got, CMSG_LEN(sizeof(int)), 0));
	/* None fits: both are closed. */
	SHOW(pass(pair[0], pipe_fds, 2));
	SHOW(take(pair[1], got, 0, 0));
	/* Peeking gives copies. */
	SHOW(pass(pair[0], pipe_fds, 1));
	SHOW(take(pair[1], got, 100, MSG_PEEK));
	SHOW(take(pair[1], got, 100, 0));
	/* A message that nobody reads closes what it carries. */
	int lonely[2];
	SHOW(pipe(lonely));
	SHOW(pass(pair[0], &lonely[1], 1));
	close(lonely[1]);
	close(pair[1]);
	close(pair[0]);
	SHOW(read(lonely[0], buffer, 1));
	/* The sender may close before the message is read, and a socket may travel over another. */
	int other[2];
	SHOW(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
	SHOW(socketpair(AF_UNIX, SOCK_STREAM, 0, other));
	SHOW(pass(pair[0], &other[0], 1));
	close(other[0]);
	SHOW(take(pair[1], got, 100, 0));
	SHOW(write(got[0], "over", 4));
	SHOW(read(other[1], buffer, 10));
	int on = 1;
	SHOW(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
	SHOW(send(pair[0], "who", 3, 0));
	SHOW(take(pair[1], got, 100, 0));
	struct mmsghdr several[3] = {0};
	struct iovec data = {"many", 4};
	for (int i = 0; i < 3; i++)
		several[i].msg_hdr.msg_iov = &data, several[i].msg_hdr.msg_iovlen = 1;
	SHOW(sendmmsg(pair[0], several, 3, 0));
	SHOW(several[2].msg_len);
	struct iovec into = {buffer, 100};
	for (int i = 0; i < 3; i++)
		several[i].msg_hdr.msg_iov = &into;
	SHOW(recvmmsg(pair[1], several, 3, MSG_WAITFORONE, NULL));
	SHOW(several[0].msg_len);
	SHOW(recvmmsg(pair[1], several, 3, MSG_DONTWAIT, NULL));
}

int main(void)
{
	making();
	streams();
	datagrams();
	ancillary();
	return 0;
}
