/* Every kind of file with every other: what sendfile and splice make of the pair, and read and write of each alone. */
#include "check.h"
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

enum kind { REGULAR, APPENDING, EMPTY_PIPE, PIPE, EMPTY_STREAM, STREAM, SEQPACKET, DATAGRAM, NULL_DEVICE, ZERO, RANDOM,
	    DIRECTORY, EVENT, DEAD_PIPE, DEAD_STREAM, PROC, KINDS };
static const char *names[] = {"regular", "appending", "empty pipe", "pipe", "empty stream", "stream", "seqpacket",
			      "datagram", "null", "zero", "urandom", "directory", "eventfd", "dead pipe",
			      "dead stream", "proc"};

static int regular(const char *name, int flags, int is_target)
{
	int fd = open(name, O_RDWR | O_CREAT | flags, 0600);
	if (ftruncate(fd, 0) || (!is_target && pwrite(fd, "0123456789", 10, 0) != 10))
		exit(1);
	return fd;
}

/* Take the end of a pair that is wanted; the other one is kept open, filled, or closed. */
static int end_of(int *pair, int wanted, const char *content, int keep, int *other)
{
	if (content && write(pair[1], content, 5) != 5)
		exit(1);
	if (keep)
		*other = pair[!wanted];
	else
		close(pair[!wanted]);
	return pair[wanted];
}

static int made(enum kind kind, int is_target, int *other)
{
	int pair[2], type = kind == SEQPACKET ? SOCK_SEQPACKET : kind == DATAGRAM ? SOCK_DGRAM : SOCK_STREAM;
	*other = -1;
	switch (kind) {
	case REGULAR: return regular("regular", 0, is_target);
	case APPENDING: return regular("appending", O_APPEND, is_target);
	case EMPTY_PIPE: case PIPE: case DEAD_PIPE:
		if (pipe2(pair, O_NONBLOCK))
			exit(1);
		return end_of(pair, is_target, kind == PIPE ? "abcde" : NULL, kind != DEAD_PIPE, other);
	case EMPTY_STREAM: case STREAM: case SEQPACKET: case DATAGRAM: case DEAD_STREAM:
		if (socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, pair))
			exit(1);
		return end_of(pair, 0, kind == EMPTY_STREAM || kind == DEAD_STREAM ? NULL : "abcde", kind != DEAD_STREAM, other);
	case NULL_DEVICE: return open("/dev/null", O_RDWR);
	case ZERO: return open("/dev/zero", O_RDWR);
	case RANDOM: return open("/dev/urandom", O_RDWR);
	case DIRECTORY: return open(".", O_RDONLY);
	case EVENT: return eventfd(1, EFD_NONBLOCK);
	default: return open("/proc/self/comm", O_RDWR);
	}
}

static void show_pair(const char *call, enum kind from, enum kind to, int count, long result)
{
	char what[100];
	sprintf(what, "%s %s -> %s %d", call, names[from], names[to], count);
	show(what, result);
}

static void each_pair(enum kind from, enum kind to, int count)
{
	for (int splicing = 0; splicing < 2; splicing++) {
		int others[2], in = made(from, 0, &others[0]), out = made(to, 1, &others[1]);
		if (splicing)
			show_pair("splice", from, to, count, splice(in, NULL, out, NULL, count, SPLICE_F_NONBLOCK));
		else
			show_pair("sendfile", from, to, count, sendfile(out, in, NULL, count));
		int fds[] = {in, out, others[0], others[1]};
		for (int i = 0; i < 4; i++)
			close(fds[i]);
	}
}

int main(void)
{
	char buffer[10];
	signal(SIGPIPE, SIG_IGN);
	for (int from = 0; from < KINDS; from++)
		for (int to = 0; to < KINDS; to++) {
			if (from != EVENT) /* it can be sought but not read at a position: nobody sends nothing from it */
				each_pair(from, to, 0);
			each_pair(from, to, 7);
		}
	for (int kind = 0; kind < KINDS; kind++)
		for (int count = 0; count < 10; count += 8) {
			int other, fd = made(kind, 0, &other);
			show_pair("read", kind, kind, count, read(fd, buffer, count));
			show_pair("write", kind, kind, count, write(fd, "\1\0\0\0\0\0\0\0", count));
			show_pair("lseek", kind, kind, count, lseek(fd, count, SEEK_SET));
			show_pair("pread", kind, kind, count, pread(fd, buffer, count, 3));
			close(fd);
			close(other);
		}
	return 0;
}
