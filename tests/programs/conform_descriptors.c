/* Descriptors beyond plain files: O_PATH, magic links, pipes with flags, splicing, memfd, close_range, waits that are cut short. */
#include "check.h"
#include <dirent.h>
#include <linux/openat2.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <termios.h>

static char text[8192];

static long link_of(int fd)
{
	char name[64];
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	memset(text, 0, sizeof text);
	return readlink(name, text, sizeof text - 1);
}

static int reopen(int fd, int flags)
{
	char name[64];
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	return open(name, flags);
}

static void path_descriptors(void)
{
	struct stat status;
	char buffer[10];
	int file = open("f", O_CREAT | O_RDWR, 0644);
	SHOW(write(file, "content", 7));
	int fd = open("f", O_PATH | O_RDWR | O_APPEND);
	SHOW(fcntl(fd, F_GETFL) == O_PATH);
	SHOW(read(fd, buffer, 1));
	SHOW(write(fd, "x", 1));
	SHOW(lseek(fd, 0, SEEK_SET));
	SHOW(fstat(fd, &status));
	SHOW(status.st_size);
	SHOW(fchmod(fd, 0600));
	SHOW(ftruncate(fd, 0));
	SHOW(fcntl(fd, F_SETFL, O_NONBLOCK));
	SHOW(ioctl(fd, FIONREAD, buffer));
	SHOW(faccessat(fd, "", R_OK, AT_EMPTY_PATH));
	SHOW(fgetxattr(fd, "user.x", buffer, 10));
	SHOW(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED);
	SHOW(close(dup(fd)));
	int again = reopen(fd, O_RDONLY);
	OK(again);
	SHOW(read(again, buffer, 10));
	SHOW(close(again));
	SHOW(close(fd));
	SHOW(symlink("f", "link"));
	fd = open("link", O_PATH | O_NOFOLLOW);
	OK(fd);
	SHOW(fstat(fd, &status));
	SHOW(S_ISLNK(status.st_mode));
	SHOW(readlinkat(fd, "", text, 10));
	SHOW(close(fd));
	int directory = open(".", O_PATH);
	OK(openat(directory, "f", O_RDONLY));
	SHOW(fchdir(directory));
	SHOW(syscall(SYS_getdents64, directory, text, sizeof text));
	SHOW(openat(file, "x", O_RDONLY));
}

static void magic_links(void)
{
	struct stat a, b;
	char buffer[20];
	int fds[2];
	int file = open("g", O_CREAT | O_RDWR, 0644);
	SHOW(write(file, "0123456789", 10));
	int other = reopen(file, O_RDONLY);
	OK(other);
	SHOW(read(other, buffer, 4));
	SHOW(lseek(file, 0, SEEK_CUR));
	SHOW(reopen(file, O_RDONLY | O_DIRECTORY));
	SHOW(reopen(file, O_RDONLY | O_NOFOLLOW));
	SHOW(reopen(99, O_RDONLY));
	SHOW(close(reopen(file, O_WRONLY | O_TRUNC)));
	SHOW(lseek(file, 0, SEEK_END));
	SHOW(stat("/proc/self/fd/0", &a) == 0 && fstat(0, &b) == 0 && a.st_ino == b.st_ino);
	SHOW(unlink("g"));
	SHOW(link_of(file) > 0 && strstr(text, "g (deleted)") != NULL);
	SHOW(write(file, "alive", 5));
	other = reopen(file, O_RDWR);
	SHOW(read(other, buffer, 20));
	SHOW(pipe(fds));
	SHOW(link_of(fds[0]) > 0 && !strncmp(text, "pipe:[", 6));
	int writer = reopen(fds[0], O_WRONLY);
	OK(writer);
	SHOW(write(writer, "pipe", 4));
	SHOW(read(fds[0], buffer, 20));
	SHOW(fstat(fds[0], &a) == 0 && fstat(fds[1], &b) == 0 && a.st_ino == b.st_ino);
	SHOW(S_ISFIFO(a.st_mode));
	SHOW(a.st_mode & 0777);
	int event = eventfd(0, 0);
	SHOW(link_of(event));
	puts(text);
	if (geteuid() == 0) /* anonymous inodes are root's; that they are is not checked in a sandbox */
		SHOW(reopen(event, O_RDWR));
	SHOW(link_of(epoll_create1(0)));
	puts(text);
	SHOW(chdir("/proc/self/cwd"));
	SHOW(access("/proc/self/root/etc/passwd", R_OK));
	SHOW(access("/proc/self/fd/99", F_OK));
	SHOW(readlink("/proc/self/fd/99", text, 10));
	SHOW(open("/proc/self/fd/0/x", O_RDONLY));
	DIR *list = opendir("/proc/self/fd");
	int found = 0;
	for (struct dirent *entry; (entry = readdir(list));)
		found += atoi(entry->d_name) == event && entry->d_type == DT_LNK;
	SHOW(found);
	closedir(list);
	FILE *info = fopen("/proc/self/fdinfo/0", "r");
	SHOW(fscanf(info, "pos: %s", text));
	fclose(info);
}

static void memfds(void)
{
	struct stat status;
	int fd = memfd_create("name", MFD_ALLOW_SEALING);
	OK(fd);
	SHOW(memfd_create("x", 0x100));
	SHOW(link_of(fd));
	puts(text);
	SHOW(ftruncate(fd, 10000));
	SHOW(fstat(fd, &status));
	SHOW(status.st_size);
	SHOW(status.st_nlink);
	SHOW(status.st_mode);
	SHOW(fcntl(fd, F_GET_SEALS));
	SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
	SHOW(ftruncate(fd, 1));
	SHOW(pwrite(fd, "x", 1, 20000));
	SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
	SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	SHOW(fcntl(fd, F_GET_SEALS));
	char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	strcpy(map, "mapped");
	SHOW(pread(fd, text, 6, 0));
	SHOW(memcmp(text, "mapped", 6));
	int plain = memfd_create("plain", MFD_CLOEXEC);
	SHOW(fcntl(plain, F_GET_SEALS));
	SHOW(fcntl(plain, F_GETFD));
	int file = open("f", O_RDWR | O_CREAT, 0600);
	SHOW(fcntl(file, F_GETPIPE_SZ));
}

static void sparse_reads(void)
{
	/* Two readable pages before one that is not there: partial results at the border. */
	long page = 4096;
	char *area = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(area + 2 * page, page);
	int fd = open("partial", O_CREAT | O_RDWR, 0600);
	SHOW(write(fd, area + page, 2 * page));
	SHOW(write(fd, area + 2 * page, 1));
	SHOW(pwrite(fd, area, 2 * page, 0));
	SHOW(pread(fd, area + page, 2 * page, 0));
	SHOW(lseek(fd, 0, SEEK_SET));
	SHOW(read(fd, area + page, 2 * page));
	SHOW(lseek(fd, 0, SEEK_CUR));
	struct iovec vector[2] = {{area, 10}, {area + 2 * page, 10}};
	SHOW(lseek(fd, 0, SEEK_SET));
	SHOW(readv(fd, vector, 2));
	SHOW(lseek(fd, 0, SEEK_CUR));
	SHOW(writev(fd, vector, 2));
	int fds[2];
	SHOW(pipe(fds));
	SHOW(write(fds[1], "ab", 2));
	SHOW(read(fds[0], area + 2 * page, 2));
	mprotect(area, page, PROT_READ);
	SHOW(pread(fd, area, 10, 0));
	SHOW(getcwd(area, 100) == NULL);
}

/* A program closes what /proc/self/fd lists while it lists it, a few names at a time (Python's _posixsubprocess). */
static void listing_and_closing(void)
{
	char buffer[128];
	int closed = 0, directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
	for (int fd = 0; fd < 30; fd++)
		dup2(1, 100 + fd);
	long size;
	while ((size = syscall(SYS_getdents64, directory, buffer, sizeof buffer)) > 0)
		for (long at = 0; at < size; at += *(unsigned short *)(buffer + at + 16)) {
			int fd = atoi(buffer + at + 19);
			if (fd >= 100)
				closed += close(fd) == 0;
		}
	SHOW(closed);
	SHOW(fcntl(129, F_GETFD));
	close(directory);
}

static void limits_of_files(void)
{
	struct rlimit limit = {10, RLIM_INFINITY};
	signal(SIGXFSZ, SIG_IGN);
	int fd = open("limited", O_CREAT | O_RDWR, 0600);
	SHOW(setrlimit(RLIMIT_FSIZE, &limit));
	SHOW(write(fd, "0123456789abcdef", 16));
	SHOW(write(fd, "x", 1));
	SHOW(pwrite(fd, "x", 1, 9));
	SHOW(ftruncate(fd, 11));
	SHOW(truncate("limited", 11));
	SHOW(fallocate(fd, 0, 0, 11));
	limit.rlim_cur = RLIM_INFINITY;
	SHOW(setrlimit(RLIMIT_FSIZE, &limit));
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = 20;
	SHOW(setrlimit(RLIMIT_NOFILE, &files));
	while (dup(fd) != -1)
		;
	SHOW(dup(fd));
	SHOW(open("limited", O_RDONLY));
	SHOW(open("nothing", O_RDONLY));
	SHOW(dup2(fd, 20));
	SHOW(dup2(fd, 19));
	SHOW(fcntl(fd, F_DUPFD, 20));
	SHOW(fcntl(fd, F_DUPFD, 19));
	int fds[2] = {-7, -7};
	SHOW(pipe(fds));
	SHOW(fds[0]);
	close(19);
	SHOW(pipe(fds));
	SHOW(dup(fd));
	SHOW(close_range(3, ~0U, CLOSE_RANGE_CLOEXEC));
	SHOW(fcntl(19, F_GETFD));
	SHOW(close_range(5, ~0U, 0));
	SHOW(dup(0) >= 0);
}

static void copies(void)
{
	static char block[300000];
	int fds[2];
	for (unsigned i = 0; i < sizeof block; i++)
		block[i] = i * 7;
	int in = open("big", O_CREAT | O_RDWR, 0600), out = open("copy", O_CREAT | O_RDWR, 0600);
	SHOW(write(in, block, sizeof block));
	off_t at = 100000;
	SHOW(sendfile(out, in, &at, 50000));
	SHOW(at);
	SHOW(lseek(in, 0, SEEK_CUR));
	SHOW(lseek(in, 250000, SEEK_SET));
	SHOW(sendfile(out, in, NULL, 1000000));
	SHOW(lseek(in, 0, SEEK_CUR));
	SHOW(pread(out, text, 8, 50000));
	SHOW(memcmp(text, block + 250000, 8));
	SHOW(sendfile(in, -1, NULL, 1));
	SHOW(pipe(fds));
	SHOW(sendfile(fds[1], fds[0], NULL, 1));
	SHOW(sendfile(fds[1], in, (off_t *)8, 1));
	SHOW(fcntl(fds[1], F_SETFL, O_NONBLOCK));
	at = 0;
	SHOW(sendfile(fds[1], in, &at, 200000) > 0);
	SHOW(sendfile(fds[1], in, &at, 1));
	SHOW(fcntl(fds[0], F_SETFL, O_NONBLOCK));
	while (read(fds[0], text, 4096) == 4096)
		;
	SHOW(fcntl(out, F_SETFL, O_APPEND));
	SHOW(sendfile(out, in, NULL, 10));
	SHOW(copy_file_range(in, NULL, out, NULL, 10, 0));
	SHOW(copy_file_range(in, NULL, fds[1], NULL, 10, 0));
	SHOW(copy_file_range(in, NULL, in, NULL, 10, 1));
	at = 10;
	off_t to = 15;
	SHOW(copy_file_range(in, &at, in, &to, 10, 0));
	SHOW(splice(in, &at, fds[1], &to, 10, 0));
	SHOW(splice(in, &at, fds[1], NULL, 10, 0x100));
	SHOW(splice(99, NULL, fds[1], NULL, 10, 0));
	SHOW(splice(fds[0], NULL, fds[1], NULL, 10, 0));
	struct iovec vector = {"vmsplice", 8};
	SHOW(vmsplice(fds[1], &vector, 1, 0));
	memset(text, 0, 20);
	SHOW(read(fds[0], text, 20));
	int zero = open("/dev/zero", O_RDONLY), null = open("/dev/null", O_RDWR);
	SHOW(read(zero, text, 100));
	SHOW(lseek(zero, 10, SEEK_SET));
	SHOW(write(null, text, 100));
	SHOW(read(null, text, 100));
	SHOW(pread(zero, text, 10, 5));
	SHOW(write(open("/dev/full", O_RDWR), text, 10));
	SHOW(read(open("/dev/urandom", O_RDONLY), text, 100));
	char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0);
	SHOW(shared != MAP_FAILED && shared[100] == 0);
	SHOW(ioctl(null, TCGETS, text));
	SHOW(isatty(in));
	SHOW(preadv2(in, &(struct iovec){text, 4}, 1, 0, RWF_NOWAIT) == 4 || errno == EAGAIN);
	SHOW(preadv2(in, &(struct iovec){text, 4}, 1, 0, 0x1000));
	SHOW(pwritev2(in, &(struct iovec){text, 4}, 1, 0, RWF_APPEND));
	SHOW(lseek(in, 0, SEEK_END));
}

static void opens(void)
{
	struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH};
	OK(syscall(SYS_openat2, AT_FDCWD, "f", &how, sizeof how));
	SHOW(syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", &how, sizeof how));
	SHOW(syscall(SYS_openat2, AT_FDCWD, "../x", &how, sizeof how));
	how.resolve = RESOLVE_NO_SYMLINKS;
	SHOW(syscall(SYS_openat2, AT_FDCWD, "link", &how, sizeof how));
	how.resolve = RESOLVE_NO_MAGICLINKS;
	SHOW(syscall(SYS_openat2, AT_FDCWD, "/proc/self/fd/0", &how, sizeof how));
	how.resolve = 0x1000;
	SHOW(syscall(SYS_openat2, AT_FDCWD, "f", &how, sizeof how));
	how = (struct open_how){.flags = O_RDONLY, .mode = 0600};
	SHOW(syscall(SYS_openat2, AT_FDCWD, "f", &how, sizeof how));
	SHOW(syscall(SYS_openat2, AT_FDCWD, "f", &how, 8));
	how = (struct open_how){.flags = 1ULL << 40};
	SHOW(syscall(SYS_openat2, AT_FDCWD, "f", &how, sizeof how));
	SHOW(open("f", O_CREAT | O_DIRECTORY, 0600));
	SHOW(open("f", O_TMPFILE | O_RDONLY, 0600));
	int fd = open(".", O_TMPFILE | O_RDWR, 0600);
	OK(fd);
	SHOW(write(fd, "later", 5));
	char name[64];
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	SHOW(linkat(AT_FDCWD, name, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	SHOW(access("named", R_OK));
	SHOW(linkat(fd, "", AT_FDCWD, "again", 0x8000));
	SHOW(open("/dev/tty", O_RDWR) >= 0 || errno == ENXIO);
	SHOW(chroot("f"));
	SHOW(mknod("bad", 0170000 | 0600, 0));
	SHOW(syscall(SYS_name_to_handle_at, 99, "f", text, text, 0x10000));
	SHOW(unlinkat(AT_FDCWD, "f", 0x1));
	SHOW(fchmodat(AT_FDCWD, "f", 0640, 0));
	SHOW(fchownat(AT_FDCWD, "f", -1, -1, 0x1));
	SHOW(fchownat(AT_FDCWD, "", -1, -1, AT_EMPTY_PATH));
	SHOW(utimensat(fd, NULL, NULL, AT_SYMLINK_NOFOLLOW));
	SHOW(futimens(99, NULL));
	SHOW(setxattr("f", "", "x", 1, 0));
	SHOW(setxattr("f", "user.x", "x", 1, 7));
	SHOW(setxattr("f", "user.x", "x", 100000, 0));
	SHOW(syscall(SYS_inotify_init1, 0x12345) == -1);
}

static int rings;
static void ring(int signo) { rings += signo == SIGALRM; }

static void waits(void)
{
	int fds[2];
	SHOW(pipe(fds));
	struct sigaction action = {.sa_handler = ring};
	sigaction(SIGALRM, &action, NULL);
	struct itimerval soon = {{0, 0}, {0, 50000}};
	char byte;
	setitimer(ITIMER_REAL, &soon, NULL);
	SHOW(read(fds[0], &byte, 1));
	action.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &action, NULL);
	struct pollfd wait = {fds[0], POLLIN, 0};
	setitimer(ITIMER_REAL, &soon, NULL);
	SHOW(poll(&wait, 1, 5000));
	fd_set set;
	FD_ZERO(&set);
	FD_SET(fds[0], &set);
	struct timeval limit = {5, 0};
	setitimer(ITIMER_REAL, &soon, NULL);
	SHOW(select(fds[0] + 1, &set, NULL, NULL, &limit));
	SHOW(limit.tv_sec);
	int set_fd = epoll_create1(0);
	struct epoll_event event = {EPOLLIN, {.u32 = 1}};
	SHOW(epoll_ctl(set_fd, EPOLL_CTL_ADD, fds[0], &event));
	setitimer(ITIMER_REAL, &soon, NULL);
	SHOW(epoll_wait(set_fd, &event, 1, 5000));
	SHOW(rings);
	/* A write that does not fit, cut short by a signal, says how much it wrote. */
	static char block[100000];
	setitimer(ITIMER_REAL, &soon, NULL);
	SHOW(write(fds[1], block, sizeof block));
	/* A mask that lets the signal in only while waiting. */
	while (fcntl(fds[0], F_SETFL, O_NONBLOCK), read(fds[0], block, sizeof block) > 0)
		;
	sigset_t blocked, none;
	sigemptyset(&none);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGALRM);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	rings = 0;
	raise(SIGALRM);
	SHOW(rings);
	wait.revents = 0;
	SHOW(ppoll(&wait, 1, &(struct timespec){5, 0}, &none));
	SHOW(rings);
	raise(SIGALRM);
	SHOW(write(fds[1], "x", 1));
	SHOW(ppoll(&wait, 1, NULL, &none));
	SHOW(rings);
	SHOW(epoll_pwait(set_fd, &event, 1, 0, &none));
	sigprocmask(SIG_SETMASK, &none, NULL);
	SHOW(rings);
	/* The same file by two descriptors, both watched. */
	int twin = dup(fds[0]);
	SHOW(epoll_ctl(set_fd, EPOLL_CTL_ADD, twin, &event));
	struct epoll_event ready[4];
	SHOW(epoll_wait(set_fd, ready, 4, 0));
	SHOW(close(twin));
	SHOW(epoll_wait(set_fd, ready, 4, 0));
	int outer = epoll_create1(0);
	SHOW(epoll_ctl(outer, EPOLL_CTL_ADD, set_fd, &event));
	SHOW(epoll_wait(outer, ready, 4, 0));
	SHOW(epoll_ctl(set_fd, EPOLL_CTL_ADD, outer, &event));
	close(fds[0]);
	SHOW(epoll_wait(set_fd, ready, 4, 0));
}

int main(void)
{
	path_descriptors();
	magic_links();
	memfds();
	sparse_reads();
	copies();
	opens();
	waits();
	listing_and_closing();
	limits_of_files();
	return 0;
}
