/* Clocks, sleeping and timers; prints facts, never times. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void report(const char *what, long result)
{
	printf("%s %ld %s\n", what, result, result < 0 ? strerror(errno) : "");
}

static long long now(clockid_t clock)
{
	struct timespec time;
	syscall(SYS_clock_gettime, clock, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static volatile int fired;
static volatile long long value, overrun;
static void on_timer(int signo, siginfo_t *info, void *context)
{
	(void)signo, (void)context;
	fired++;
	value = info->si_value.sival_int;
	overrun += info->si_overrun;
}

static void clocks(void)
{
	int ids[] = {0, 1, 2, 3, 4, 5, 6, 7, 11, 10, 12, 99, -1};
	struct timespec time;
	for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++) {
		report("gettime", syscall(SYS_clock_gettime, ids[i], &time));
		int result = syscall(SYS_clock_getres, ids[i], &time);
		report("getres", result);
		if (!result)
			printf("resolution %ld\n", time.tv_nsec);
	}
	long long a = now(CLOCK_MONOTONIC), b = now(CLOCK_MONOTONIC), r = now(CLOCK_REALTIME);
	struct timeval tv;
	gettimeofday(&tv, NULL);
	printf("order %d near %d %d %d\n", b >= a, llabs(tv.tv_sec * 1000000000LL - r) < 3000000000LL,
	       labs(time.tv_sec) >= 0, llabs(now(CLOCK_BOOTTIME) - b) >= 0);
	long long cpu = now(CLOCK_PROCESS_CPUTIME_ID);
	for (volatile int i = 0; i < 30000000; i++)
		;
	printf("cpu grows %d thread %d\n", now(CLOCK_PROCESS_CPUTIME_ID) > cpu + 5000000,
	       now(CLOCK_THREAD_CPUTIME_ID) > 5000000);
	clockid_t of_self, of_thread;
	clock_getcpuclockid(getpid(), &of_self);
	pthread_getcpuclockid(pthread_self(), &of_thread);
	printf("dynamic %d %d\n", now(of_self) > 5000000, now(of_thread) > 5000000);
	struct tms tms;
	printf("times %d\n", times(&tms) > 0);
	struct timex timex = {0};
	printf("adjtimex %d\n", adjtimex(&timex) >= 0);
	report("efault", syscall(SYS_clock_gettime, 1, 8));
	time.tv_nsec = 2000000000;
	report("settime bad", clock_settime(CLOCK_REALTIME, &time));
	report("settime monotonic", clock_settime(CLOCK_MONOTONIC, &time));
}

static void sleeping(void)
{
	struct timespec some = {0, 50000000}, bad = {-1, 0}, left = {0, 0}, at;
	long long begin = now(CLOCK_MONOTONIC);
	report("sleep", nanosleep(&some, NULL));
	printf("slept %d\n", now(CLOCK_MONOTONIC) - begin >= 50000000);
	report("negative", nanosleep(&bad, NULL));
	begin = now(CLOCK_REALTIME) + 40000000;
	at = (struct timespec){begin / 1000000000, begin % 1000000000};
	printf("absolute %d", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &at, NULL));
	printf(" on time %d\n", now(CLOCK_REALTIME) >= begin);
	printf("past %d\n", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &(struct timespec){0, 5}, NULL));
	printf("thread cpu %s\n", strerror(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &some, NULL)));
	printf("raw %s\n", strerror(clock_nanosleep(CLOCK_MONOTONIC_RAW, 0, &some, NULL)));
	printf("unknown %s\n", strerror(clock_nanosleep(99, 0, &some, NULL)));
	struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigaction(SIGALRM, &action, NULL);
	struct itimerval soon = {{0, 0}, {0, 30000}};
	setitimer(ITIMER_REAL, &soon, NULL);
	some.tv_nsec = 500000000;
	report("interrupted", nanosleep(&some, &left));
	printf("fired %d left %d\n", fired, left.tv_nsec > 300000000 && left.tv_nsec < 480000000);
	printf("unset %d\n", alarm(100));
	printf("alarm %d\n", alarm(0));
}

static void intervals(void)
{
	struct itimerval often = {{0, 10000}, {0, 10000}}, off = {{0, 0}, {0, 0}}, shown;
	fired = 0;
	setitimer(ITIMER_REAL, &often, NULL);
	while (fired < 5)
		pause();
	getitimer(ITIMER_REAL, &shown);
	printf("interval %ld value %d\n", (long)shown.it_interval.tv_usec, shown.it_value.tv_usec <= 10000);
	setitimer(ITIMER_REAL, &off, &shown);
	getitimer(ITIMER_REAL, &shown);
	printf("off %ld %ld\n", (long)shown.it_interval.tv_usec, (long)shown.it_value.tv_usec);
	report("bad which", setitimer(7, &off, NULL));
	often.it_value.tv_usec = 1000000;
	report("bad value", setitimer(0, &often, NULL));
	struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
	sigaction(SIGVTALRM, &action, NULL);
	sigaction(SIGPROF, &action, NULL);
	struct itimerval cpu = {{0, 0}, {0, 20000}};
	for (int which = ITIMER_VIRTUAL; which <= ITIMER_PROF; which++) {
		fired = 0;
		setitimer(which, &cpu, NULL);
		while (!fired)
			;
		printf("cpu timer %d fired\n", which);
	}
}

static void posix_timers(void)
{
	timer_t timer, second;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 42};
	struct itimerspec often = {{0, 5000000}, {0, 5000000}}, shown, once = {{0, 0}, {0, 20000000}};
	struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
	sigset_t block, old;
	sigaction(SIGRTMIN, &action, NULL);
	report("create", timer_create(CLOCK_MONOTONIC, &event, &timer));
	fired = 0, overrun = 0;
	sigemptyset(&block);
	sigaddset(&block, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &block, &old);
	report("settime", timer_settime(timer, 0, &often, NULL));
	usleep(52000);
	sigprocmask(SIG_SETMASK, &old, NULL);
	printf("fired %d value %lld overrun %d getoverrun %d\n", fired >= 1, value, overrun >= 8,
	       timer_getoverrun(timer) >= 0);
	timer_gettime(timer, &shown);
	printf("interval %ld left %d\n", shown.it_interval.tv_nsec, shown.it_value.tv_nsec <= 5000000);
	report("delete", timer_delete(timer));
	report("again", syscall(SYS_timer_delete, 77));
	fired = 0;
	event.sigev_notify = SIGEV_THREAD_ID;
	event._sigev_un._tid = gettid();
	report("create", timer_create(CLOCK_REALTIME, &event, &second));
	timer_settime(second, 0, &once, NULL);
	struct timespec second_long = {1, 0};
	report("sleep", nanosleep(&second_long, NULL));
	printf("fired %d\n", fired);
	timer_gettime(second, &shown);
	printf("spent %ld\n", shown.it_value.tv_nsec);
	event._sigev_un._tid = 4000000;
	report("no thread", timer_create(CLOCK_REALTIME, &event, &timer));
	report("bad clock", timer_create(99, NULL, &timer));
	event.sigev_notify = SIGEV_NONE;
	report("none", timer_create(CLOCK_MONOTONIC, &event, &timer));
	timer_settime(timer, 0, &often, NULL);
	usleep(12000);
	timer_gettime(timer, &shown);
	printf("running %d\n", shown.it_value.tv_nsec > 0 && shown.it_value.tv_nsec <= 5000000);
	report("cpu", timer_create(CLOCK_PROCESS_CPUTIME_ID, &(struct sigevent){.sigev_signo = SIGRTMIN}, &timer));
	fired = 0;
	timer_settime(timer, 0, &once, NULL);
	while (!fired)
		;
	printf("cpu timer fired\n");
}

static void timer_files(void)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), epoll = epoll_create1(0);
	struct itimerspec often = {{0, 10000000}, {0, 10000000}}, shown, off = {{0, 0}, {0, 0}};
	struct pollfd poller = {.fd = fd, .events = POLLIN | POLLOUT};
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 7}, got;
	uint64_t ticks;
	report("read unset", read(fd, &ticks, 8));
	report("poll unset", poll(&poller, 1, 0));
	report("settime", timerfd_settime(fd, 0, &often, NULL));
	report("poll", poll(&poller, 1, 1000));
	printf("events %x\n", poller.revents);
	usleep(45000);
	report("read", read(fd, &ticks, 8));
	printf("ticks %d\n", ticks >= 4 && ticks < 60);
	report("short", read(fd, &ticks, 4));
	report("write", write(fd, &ticks, 8));
	timerfd_gettime(fd, &shown);
	printf("interval %ld left %d\n", shown.it_interval.tv_nsec, shown.it_value.tv_nsec > 0);
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	for (int i = 0; i < 3; i++) {
		report("epoll", epoll_wait(epoll, &got, 1, 1000));
		report("read", read(fd, &ticks, 8));
	}
	timerfd_settime(fd, 0, &off, NULL);
	report("epoll off", epoll_wait(epoll, &got, 1, 30));
	fcntl(fd, F_SETFL, 0);
	off.it_value.tv_nsec = 30000000;
	timerfd_settime(fd, 0, &off, NULL);
	report("blocking", read(fd, &ticks, 8));
	printf("once %d\n", (int)ticks);
	off.it_value = (struct timespec){1, 0};
	timerfd_settime(fd, TFD_TIMER_ABSTIME, &off, NULL);
	report("absolute past", read(fd, &ticks, 8));
	report("bad flags", timerfd_settime(fd, 64, &off, NULL));
	report("bad fd", timerfd_settime(epoll, 0, &off, NULL));
	report("bad clock", timerfd_create(CLOCK_MONOTONIC_RAW, 0));
	report("bad create", timerfd_create(CLOCK_MONOTONIC, 1));
	close(fd);
	close(epoll);
}

static void *send_later(void *argument)
{
	(void)argument;
	usleep(50000);
	kill(getpid(), SIGUSR2);
	return NULL;
}

static void signal_files(void)
{
	sigset_t mask;
	struct signalfd_siginfo info[3];
	pthread_t thread;
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGUSR2);
	sigaddset(&mask, SIGRTMIN + 2);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	int fd = signalfd(-1, &mask, SFD_NONBLOCK);
	struct pollfd poller = {.fd = fd, .events = POLLIN | POLLOUT};
	report("empty", read(fd, info, sizeof info));
	report("poll", poll(&poller, 1, 0));
	kill(getpid(), SIGUSR1);
	sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = -9});
	report("poll", poll(&poller, 1, 0));
	printf("events %x\n", poller.revents);
	long got = read(fd, info, sizeof info);
	report("read", got);
	for (int i = 0; i < got / (int)sizeof *info; i++)
		printf("signal %d code %d pid %d uid %d int %d\n", i ? info[i].ssi_signo - SIGRTMIN : info[i].ssi_signo,
		       info[i].ssi_code, info[i].ssi_pid == (uint32_t)getpid(), info[i].ssi_uid == getuid(), info[i].ssi_int);
	report("poll", poll(&poller, 1, 0));
	report("short", read(fd, info, 100));
	fcntl(fd, F_SETFL, 0);
	pthread_create(&thread, NULL, send_later, NULL);
	report("blocking", read(fd, info, sizeof info));
	printf("signal %d\n", info[0].ssi_signo);
	pthread_join(thread, NULL);
	fflush(stdout);
	pid_t child = fork();
	if (!child)
		_exit(7);
	report("poll child", poll(&poller, 1, 5000));
	report("child", read(fd, info, sizeof info));
	printf("signal %d code %d status %d pid %d\n", info[0].ssi_signo, info[0].ssi_code, info[0].ssi_status,
	       info[0].ssi_pid == (uint32_t)child);
	waitpid(child, NULL, 0);
	sigemptyset(&mask);
	sigaddset(&mask, SIGHUP);
	printf("change %d\n", signalfd(fd, &mask, 0) == fd);
	report("no signalfd", signalfd(0, &mask, 0));
	close(fd);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	clocks();
	sleeping();
	intervals();
	posix_timers();
	timer_files();
	signal_files();
	return 0;
}
