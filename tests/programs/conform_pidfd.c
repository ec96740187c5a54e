/* Process descriptors: open, poll, signal, wait; results and errnos. */
#include "check.h"
#include <sys/epoll.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static int pidfd_of(pid_t pid, unsigned flags) { return (int)syscall(SYS_pidfd_open, pid, flags); }

static int send_by(int fd, int signo, siginfo_t *info, unsigned flags)
{
	return (int)syscall(SYS_pidfd_send_signal, fd, signo, info, flags);
}

static void errors(void)
{
	siginfo_t info = {0};
	SHOW(pidfd_of(0, 0));
	SHOW(pidfd_of(-1, 0));
	SHOW(pidfd_of(getpid(), 1));
	SHOW(pidfd_of(1 << 22, 0));
	SHOW(send_by(0, 0, NULL, 0));
	SHOW(send_by(99, 0, NULL, 0));
	int self = pidfd_of(getpid(), 0);
	SHOW(fcntl(self, F_GETFD));
	SHOW(send_by(self, 0, NULL, 0));
	SHOW(send_by(self, 65, NULL, 0));
	SHOW(send_by(self, 0, NULL, 1 << 20));
	SHOW(send_by(self, SIGUSR1, &info, 0));
	SHOW(send_by(self, SIGUSR1, (void *)8, 0));
	char byte;
	SHOW(read(self, &byte, 1));
	SHOW(write(self, &byte, 1));
	SHOW(waitid(P_PIDFD, self, &info, WEXITED));
	SHOW(waitid(P_PIDFD, 0, &info, WEXITED));
	SHOW(waitid(P_PIDFD, 99, &info, WEXITED));
	SHOW(waitid(P_PIDFD, -1, &info, WEXITED));
	close(self);
}

static int ready(int fd, int timeout_ms)
{
	struct pollfd wait = {fd, POLLIN, 0};
	poll(&wait, 1, timeout_ms);
	return wait.revents & POLLIN;
}

static void children(void)
{
	siginfo_t info = {0};
	pid_t child = fork();
	if (child == 0) {
		pause();
		_exit(1);
	}
	int fd = pidfd_of(child, 0), set_fd = epoll_create1(0);
	struct epoll_event event = {EPOLLIN, {.u32 = 7}};
	SHOW(epoll_ctl(set_fd, EPOLL_CTL_ADD, fd, &event));
	SHOW(epoll_wait(set_fd, &event, 1, 0));
	SHOW(ready(fd, 0));
	SHOW(waitid(P_PIDFD, fd, &info, WEXITED | WNOHANG));
	SHOW(fcntl(fd, F_SETFL, O_NONBLOCK));
	SHOW(waitid(P_PIDFD, fd, &info, WEXITED));
	SHOW(fcntl(fd, F_SETFL, 0));
	SHOW(send_by(fd, SIGTERM, NULL, 0));
	SHOW(ready(fd, -1));
	SHOW(epoll_wait(set_fd, &event, 1, 5000));
	int late = pidfd_of(child, 0);
	SHOW(ready(late, 0));
	SHOW(send_by(fd, SIGTERM, NULL, 0));
	SHOW(waitid(P_PIDFD, fd, &info, WEXITED | WNOWAIT));
	SHOW(info.si_pid == child);
	SHOW(info.si_code);
	SHOW(info.si_status);
	SHOW(waitid(P_PIDFD, late, &info, WEXITED));
	SHOW(waitid(P_PIDFD, fd, &info, WEXITED));
	SHOW(send_by(fd, SIGTERM, NULL, 0));
	SHOW(ready(fd, 0));
	SHOW(pidfd_of(child, 0));
	close(fd);
	close(late);
	close(set_fd);
}

static long clone_with(unsigned long flags, int *pidfd, int *tid)
{
	return syscall(SYS_clone, flags | SIGCHLD, NULL, pidfd, tid, NULL);
}

static void births(void)
{
	int fd = -7, status, tid = 0;
	siginfo_t info;
	long child = clone_with(CLONE_PIDFD, &fd, NULL);
	if (child == 0)
		_exit(fd == -7 ? 4 : 5);
	SHOW(fd > 2);
	SHOW(fcntl(fd, F_GETFD));
	SHOW(waitid(P_PIDFD, fd, &info, WEXITED));
	SHOW(info.si_pid == child);
	SHOW(info.si_status);
	close(fd);
	SHOW(clone_with(CLONE_PIDFD | CLONE_PARENT_SETTID, &fd, NULL));
	SHOW(clone_with(CLONE_PIDFD, (int *)8, NULL));
	SHOW(waitpid(-1, &status, WNOHANG));
	unsigned long args[11] = {CLONE_PIDFD | CLONE_PARENT_SETTID, (unsigned long)&fd, 0, (unsigned long)&tid, SIGCHLD};
	child = syscall(SYS_clone3, args, sizeof args);
	if (child == 0)
		_exit(11);
	SHOW(tid == child);
	SHOW(waitid(P_PIDFD, fd, &info, WEXITED));
	SHOW(info.si_status);
	args[3] = args[1];
	SHOW(syscall(SYS_clone3, args, sizeof args));
	close(fd);
}

static void *open_own_thread(void *unused)
{
	SHOW(pidfd_of((pid_t)syscall(SYS_gettid), 0));
	return unused;
}

static int on_signal;
static void note(int signo) { on_signal = signo; }

static void waits_for_others(void)
{
	int status, up[2];
	char byte;
	siginfo_t info;
	if (pipe(up))
		exit(1);
	pid_t sleeper = fork();
	if (sleeper == 0) {
		close(up[1]);
		_exit(read(up[0], &byte, 1) == 0 ? 5 : 6);
	}
	int fd = pidfd_of(sleeper, 0);
	pid_t watcher = fork();
	if (watcher == 0) {
		close(up[1]);
		_exit(ready(fd, 5000) && waitid(P_PIDFD, fd, &info, WEXITED) == -1 && errno == ECHILD ? 8 : 9);
	}
	nap_ms(50);
	close(up[1]);
	SHOW(waitid(P_PIDFD, fd, &info, WEXITED));
	SHOW(info.si_status);
	SHOW(waitpid(watcher, &status, 0) == watcher);
	show_status("watcher", status);
	signal(SIGUSR2, note);
	int self = pidfd_of(getpid(), 0);
	SHOW(send_by(self, SIGUSR2, NULL, 0));
	SHOW(on_signal);
	close(fd);
	close(self);
}

int main(void)
{
	pthread_t thread;
	errors();
	children();
	pthread_create(&thread, NULL, open_own_thread, NULL);
	pthread_join(thread, NULL);
	waits_for_others();
	births();
	return 0;
}
