/* Pipes, FIFOs, poll, select, epoll, eventfd, timerfd, splice: results and errnos. */
#include "check.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/timerfd.h>

static void pipes(void)
{
	int fds[2], status;
	static char block[70000], buffer[70000];
	signal(SIGPIPE, SIG_IGN);
	SHOW(pipe((int *)8));
	SHOW(pipe2(fds, 0x123));
	SHOW(pipe2(fds, O_NONBLOCK | O_CLOEXEC));
	SHOW(fcntl(fds[0], F_GETFD));
	SHOW(read(fds[0], buffer, 1));
	SHOW(write(fds[1], block, 70000));
	SHOW(write(fds[1], block, 1));
	int waiting;
	SHOW(ioctl(fds[0], FIONREAD, &waiting));
	SHOW(waiting);
	SHOW(fcntl(fds[0], F_GETPIPE_SZ));
	SHOW(fcntl(fds[0], F_SETPIPE_SZ, 1000));
	SHOW(read(fds[0], buffer, 70000));
	SHOW(read(fds[0], buffer, 1));
	SHOW(fcntl(fds[0], F_SETPIPE_SZ, 1000));
	SHOW(lseek(fds[0], 0, SEEK_SET));
	SHOW(write(fds[0], block, 1));
	SHOW(read(fds[1], buffer, 1));
	SHOW(write(fds[1], block, 0));
	close(fds[0]);
	SHOW(write(fds[1], block, 1));
	close(fds[1]);
	SHOW(pipe(fds));
	pid_t child = fork();
	if (child == 0) {
		signal(SIGPIPE, SIG_DFL);
		close(fds[0]);
		for (;;)
			if (write(fds[1], block, 1000) == -1)
				_exit(9);
	}
	close(fds[1]);
	size_t total = 0;
	while (total < 200000) {
		ssize_t got = read(fds[0], buffer, sizeof buffer);
		if (got <= 0)
			break;
		total += got;
	}
	SHOW(total >= 200000);
	close(fds[0]);
	waitpid(child, &status, 0);
	show_status("writer", status);
}

static void fifos(void)
{
	int status;
	SHOW(mkfifo("p", 0600));
	SHOW(open("p", O_WRONLY | O_NONBLOCK));
	pid_t child = fork();
	if (child == 0) {
		int out = open("p", O_WRONLY);
		_exit(write(out, "through", 7) != 7);
	}
	char buffer[20];
	int in = open("p", O_RDONLY);
	SHOW(read(in, buffer, 20));
	SHOW(read(in, buffer, 20));
	waitpid(child, &status, 0);
	close(in);
	in = open("p", O_RDONLY | O_NONBLOCK);
	OK(in);
	SHOW(read(in, buffer, 20));
	close(in);
	in = open("p", O_RDWR);
	SHOW(write(in, "self", 4));
	SHOW(read(in, buffer, 20));
	close(in);
}

static void polls(void)
{
	int fds[2];
	if (pipe(fds))
		exit(1);
	struct pollfd list[3] = {{fds[0], POLLIN, 0}, {fds[1], POLLOUT, 0}, {-1, POLLIN, 7}};
	SHOW(poll(list, 3, 0));
	SHOW(list[0].revents);
	SHOW(list[1].revents);
	SHOW(list[2].revents);
	SHOW(write(fds[1], "x", 1));
	SHOW(poll(list, 1, -1));
	list[2].fd = 99;
	SHOW(poll(list, 3, -1));
	SHOW(list[2].revents);
	long long begin = now_ms();
	SHOW(poll(NULL, 0, 60));
	SHOW(now_ms() - begin >= 60);
	SHOW(poll((struct pollfd *)8, 1, 0));
	fd_set readable, writable;
	FD_ZERO(&readable);
	FD_ZERO(&writable);
	FD_SET(fds[0], &readable);
	FD_SET(fds[1], &writable);
	struct timeval limit = {1, 0};
	SHOW(select(fds[1] + 1, &readable, &writable, NULL, &limit));
	SHOW(FD_ISSET(fds[0], &readable) != 0);
	FD_SET(500, &readable);
	SHOW(select(501, &readable, NULL, NULL, &limit));
	SHOW(select(-1, NULL, NULL, NULL, &limit));
	FD_ZERO(&readable);
	limit.tv_sec = 0, limit.tv_usec = 30000;
	SHOW(select(0, NULL, NULL, NULL, &limit));
	SHOW(limit.tv_usec);
	limit.tv_usec = -1;
	SHOW(select(0, NULL, NULL, NULL, &limit));
	close(fds[1]);
	char byte;
	SHOW(read(fds[0], &byte, 1));
	SHOW(poll(list, 1, 0));
	SHOW(list[0].revents);
	SHOW(ppoll(list, 1, &(struct timespec){0, 1000000000}, NULL));
	close(fds[0]);
}

static void epolls(void)
{
	int fds[2], set = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {EPOLLIN, {.u64 = 42}}, ready[4];
	if (pipe(fds))
		exit(1);
	SHOW(epoll_create(0));
	SHOW(epoll_create1(99));
	SHOW(epoll_ctl(set, EPOLL_CTL_ADD, fds[0], &event));
	SHOW(epoll_ctl(set, EPOLL_CTL_ADD, fds[0], &event));
	SHOW(epoll_ctl(set, EPOLL_CTL_MOD, fds[1], &event));
	SHOW(epoll_ctl(set, EPOLL_CTL_ADD, 99, &event));
	SHOW(epoll_ctl(set, EPOLL_CTL_ADD, set, &event));
	SHOW(epoll_ctl(fds[0], EPOLL_CTL_ADD, fds[1], &event));
	SHOW(epoll_ctl(set, 9, fds[0], &event));
	SHOW(epoll_wait(set, ready, 4, 0));
	SHOW(write(fds[1], "ab", 2));
	SHOW(epoll_wait(set, ready, 4, -1));
	SHOW(ready[0].events);
	SHOW(ready[0].data.u64);
	SHOW(epoll_wait(set, ready, 4, 0));
	event.events = EPOLLIN | EPOLLET;
	SHOW(epoll_ctl(set, EPOLL_CTL_MOD, fds[0], &event));
	SHOW(epoll_wait(set, ready, 4, 0));
	SHOW(epoll_wait(set, ready, 4, 0));
	SHOW(write(fds[1], "c", 1));
	SHOW(epoll_wait(set, ready, 4, 0));
	event.events = EPOLLIN | EPOLLONESHOT;
	SHOW(epoll_ctl(set, EPOLL_CTL_MOD, fds[0], &event));
	SHOW(epoll_wait(set, ready, 4, 0));
	SHOW(epoll_wait(set, ready, 4, 0));
	SHOW(epoll_wait(set, ready, 0, 0));
	int file = open("regular", O_CREAT | O_RDWR, 0600);
	SHOW(epoll_ctl(set, EPOLL_CTL_ADD, file, &event));
	SHOW(epoll_ctl(set, EPOLL_CTL_DEL, fds[0], NULL));
	SHOW(epoll_ctl(set, EPOLL_CTL_DEL, fds[0], NULL));
	close(file);
	close(set);
	close(fds[0]);
	close(fds[1]);
}

static void counters(void)
{
	uint64_t value = 5;
	int fd = eventfd(3, EFD_NONBLOCK);
	SHOW(write(fd, &value, 8));
	SHOW(read(fd, &value, 8));
	SHOW(value);
	SHOW(read(fd, &value, 8));
	SHOW(read(fd, &value, 4));
	value = UINT64_MAX;
	SHOW(write(fd, &value, 8));
	close(fd);
	fd = eventfd(2, EFD_SEMAPHORE);
	SHOW(read(fd, &value, 8));
	SHOW(value);
	close(fd);
	SHOW(eventfd(0, 0x123));

	fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	struct itimerspec setting = {{0, 10000000}, {0, 20000000}}, old;
	SHOW(read(fd, &value, 8));
	SHOW(timerfd_settime(fd, 0, &setting, NULL));
	struct pollfd waiting = {fd, POLLIN, 0};
	SHOW(poll(&waiting, 1, 5000));
	SHOW(read(fd, &value, 8));
	SHOW(value >= 1);
	SHOW(timerfd_gettime(fd, &old));
	SHOW(old.it_interval.tv_nsec);
	SHOW(timerfd_create(77, 0));
	SHOW(timerfd_settime(0, 0, &setting, NULL));
	close(fd);
}

static void splices(void)
{
	int a[2], b[2], file = open("spliced", O_CREAT | O_RDWR | O_TRUNC, 0600);
	char buffer[20] = {0};
	if (pipe(a) || pipe(b))
		exit(1);
	SHOW(write(a[1], "some text", 9));
	SHOW(tee(a[0], b[1], 4, 0));
	SHOW(splice(a[0], NULL, file, NULL, 100, 0));
	SHOW(read(b[0], buffer, 20));
	SHOW(lseek(file, 0, SEEK_SET));
	SHOW(splice(file, &(off_t){5}, b[1], NULL, 100, 0));
	SHOW(read(b[0], buffer, 20));
	printf("%s\n", buffer);
	SHOW(splice(file, NULL, file, NULL, 10, 0));
	SHOW(syscall(SYS_sendfile, b[1], file, NULL, 3));
	SHOW(read(b[0], buffer, 20));
	SHOW(tee(a[0], a[1], 1, 0));
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	pipes();
	fifos();
	polls();
	epolls();
	counters();
	splices();
	return 0;
}
