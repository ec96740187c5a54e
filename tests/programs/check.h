/* What the conformance programs share: print a call, its result and its errno, one line each.
 *
 * Natively and in a sandbox the lines must be equal, so nothing that differs from run to run is printed. */
#ifndef CHECK_H
#define CHECK_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Print an expression with its value, or with its errno when it is -1. */
#define SHOW(call) show(#call, (long)(call))
/* Print an expression as "ok" for any result but -1. */
#define OK(call) show_ok(#call, (long)(call))

static inline void show(const char *what, long result)
{
	if (result == -1)
		printf("%s = -1 %s\n", what, strerrorname_np(errno));
	else
		printf("%s = %ld\n", what, result);
	fflush(stdout);
}

static inline void show_ok(const char *what, long result)
{
	if (result == -1)
		printf("%s = -1 %s\n", what, strerrorname_np(errno));
	else
		printf("%s = ok\n", what);
	fflush(stdout);
}

static inline void show_status(const char *what, int status)
{
	if (WIFEXITED(status))
		printf("%s: exited %d\n", what, WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		printf("%s: signal %d\n", what, WTERMSIG(status));
	else if (WIFSTOPPED(status))
		printf("%s: stopped %d\n", what, WSTOPSIG(status));
	else if (WIFCONTINUED(status))
		printf("%s: continued\n", what);
	fflush(stdout);
}

static inline long long now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static inline void nap_ms(long ms)
{
	struct timespec span = {ms / 1000, ms % 1000 * 1000000};
	while (nanosleep(&span, &span) == -1 && errno == EINTR)
		;
}
#endif
