/* Random sequences of calls on descriptors: the first argument is the seed, the second the number of calls.
 *
 * Only calls that never wait are made, so that one process can do all of them; every result is printed. */
#include "check.h"
#include <sys/sendfile.h>
#include <sys/socket.h>

static unsigned long long state;
static char buffer[20000], area[20000];

static unsigned pick(unsigned limit)
{
	state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (state >> 33) % limit;
}

static int some_fd(void)
{
	return pick(20) ? 3 + pick(12) : pick(10) ? 15 + (int)pick(300) : -1;
}

static long some_size(void)
{
	static const int sizes[] = {0, 1, 7, 100, 4095, 4096, 4097, 9000, 20000};
	return sizes[pick(9)];
}

static const char *some_name(void)
{
	static const char *names[] = {"a", "b", "c", "d/a", "d/b", "d", "link", "none/x", "/dev/null", "/dev/zero", "."};
	return names[pick(11)];
}

static int some_flags(void)
{
	static const int extra[] = {0, O_CREAT, O_CREAT | O_EXCL, O_TRUNC, O_CREAT | O_TRUNC, O_APPEND, O_DIRECTORY,
				    O_NOFOLLOW, O_PATH, O_CREAT | O_APPEND, O_CLOEXEC};
	return pick(3) | extra[pick(11)] | O_NONBLOCK;
}

static unsigned long sum(const char *data, long length)
{
	unsigned long total = 5381;
	for (long i = 0; i < length; i++)
		total = total * 33 + (unsigned char)data[i];
	return total & 0xFFFFFF;
}

static long one_call(char *what)
{
	int a = some_fd(), b = some_fd(), pair[2] = {-1, -1};
	long size = some_size(), offset = (long)pick(30000) - 100, result;
	struct stat status;
	off_t position = offset;
	switch (pick(28)) {
	case 0: case 1: case 2: {
		const char *name = some_name();
		int flags = some_flags();
		sprintf(what, "open %s %o", name, flags);
		return open(name, flags, 0644);
	}
	case 3: sprintf(what, "close %d", a); return close(a);
	case 4: sprintf(what, "dup %d", a); return dup(a);
	case 5: b = 3 + pick(14); sprintf(what, "dup2 %d %d", a, b); return dup2(a, b);
	case 6: b = 3 + pick(14); sprintf(what, "dup3 %d %d", a, b); return dup3(a, b, O_CLOEXEC);
	case 7: sprintf(what, "dupfd %d %d", a, b); return fcntl(a, F_DUPFD, b);
	case 8:
		if (pick(2)) {
			sprintf(what, "pipe");
			result = pipe2(pair, O_NONBLOCK);
		} else {
			sprintf(what, "socketpair");
			result = socketpair(AF_UNIX, (pick(2) ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_NONBLOCK, 0, pair);
		}
		sprintf(what + strlen(what), " %d %d", pair[0], pair[1]);
		return result;
	case 9: case 10:
		sprintf(what, "write %d %ld", a, size);
		return write(a, area + pick(10), size > 19000 ? 19000 : size);
	case 11: case 12:
		sprintf(what, "read %d %ld", a, size);
		result = read(a, buffer, size);
		if (result > 0)
			sprintf(what + strlen(what), " %lx", sum(buffer, result));
		return result;
	case 13: sprintf(what, "pwrite %d %ld %ld", a, size, offset); return pwrite(a, area, size, offset);
	case 14:
		sprintf(what, "pread %d %ld %ld", a, size, offset);
		result = pread(a, buffer, size, offset);
		if (result > 0)
			sprintf(what + strlen(what), " %lx", sum(buffer, result));
		return result;
	case 15: {
		int whence = pick(6);
		/* Positions in directories are each file system's own. */
		if (fstat(a, &status) == 0 && S_ISDIR(status.st_mode))
			whence = 9;
		sprintf(what, "lseek %d %ld %d", a, offset, whence);
		result = lseek(a, offset, whence);
		/* So is where holes begin. */
		return result >= 0 && (whence == SEEK_DATA || whence == SEEK_HOLE) ? lseek(a, 0, SEEK_SET) : result;
	}
	case 16: sprintf(what, "ftruncate %d %ld", a, offset); return ftruncate(a, offset);
	case 17: sprintf(what, "getfd %d", a); return fcntl(a, F_GETFD);
	case 18: sprintf(what, "setfd %d", a); return fcntl(a, F_SETFD, pick(2));
	case 19: sprintf(what, "getfl %d", a); return fcntl(a, F_GETFL);
	case 20: sprintf(what, "setfl %d", a); return fcntl(a, F_SETFL, O_NONBLOCK | (pick(3) ? 0 : O_APPEND));
	case 21:
		sprintf(what, "fstat %d", a);
		result = fstat(a, &status);
		if (result == 0)
			sprintf(what + strlen(what), " %o %ld %ld", status.st_mode, S_ISDIR(status.st_mode) ? 0 : (long)status.st_size,
				S_ISDIR(status.st_mode) ? 0 : (long)status.st_nlink);
		return result;
	case 22: {
		struct pollfd list[2] = {{a, POLLIN | POLLOUT, 0}, {b, POLLIN | POLLOUT | POLLRDHUP, 0}};
		sprintf(what, "poll %d %d", a, b);
		result = poll(list, 2, 0);
		sprintf(what + strlen(what), " %x %x", list[0].revents, list[1].revents);
		return result;
	}
	case 23: sprintf(what, "sendfile %d %d %ld", a, b, size); return sendfile(a, b, NULL, size);
	case 24:
		sprintf(what, "copy_file_range %d %d %ld %ld", a, b, offset, size);
		return copy_file_range(a, &position, b, NULL, size, 0);
	case 25: sprintf(what, "unlink"); return unlink(pick(2) ? "a" : "b");
	case 26: sprintf(what, "rename"); return rename(pick(2) ? "a" : "d/b", pick(2) ? "c" : "d/a");
	default: {
		struct iovec vector[3] = {{buffer, size}, {buffer + 50, 0}, {buffer + 3000, 100}};
		sprintf(what, "readv %d %ld", a, size);
		return readv(a, vector, 3);
	}
	}
}

int main(int argc, char **argv)
{
	struct rlimit limit = {18, 18};
	char what[300];
	state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	int calls = argc > 2 ? atoi(argv[2]) : 1000;
	close_range(3, ~0U, 0);
	setrlimit(RLIMIT_NOFILE, &limit);
	signal(SIGPIPE, SIG_IGN);
	if (mkdir("d", 0755) || symlink("a", "link"))
		return 1;
	for (unsigned i = 0; i < sizeof area; i++)
		area[i] = i * 31 >> 3;
	for (int i = 0; i < calls; i++) {
		long result = one_call(what);
		printf("%d %s = ", i, what);
		if (result == -1)
			printf("%s\n", strerrorname_np(errno));
		else
			printf("%ld\n", result);
	}
	return 0;
}
