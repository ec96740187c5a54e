/* Clocks, sleeps and the machine: results and errnos. */
#include "check.h"
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/utsname.h>

static void clocks(void)
{
	struct timespec a, b;
	for (int clock = -1; clock < 14; clock++) {
		if (clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM)
			continue; /* there only with a hardware clock */
		printf("clock %d: ", clock);
		SHOW(clock_gettime(clock, &a));
	}
	clock_gettime(CLOCK_MONOTONIC, &a);
	clock_gettime(CLOCK_MONOTONIC, &b);
	SHOW(b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec));
	clock_gettime(CLOCK_REALTIME, &a);
	SHOW(a.tv_sec > 1700000000);
	SHOW(labs(time(NULL) - a.tv_sec) <= 1);
	SHOW(syscall(SYS_clock_gettime, CLOCK_REALTIME, 8));
	SHOW(clock_getres(CLOCK_MONOTONIC, &b));
	SHOW(b.tv_nsec);
	SHOW(clock_settime(CLOCK_MONOTONIC, &a));
	SHOW(clock_settime(99, &a));
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	for (volatile int i = 0; i < 50000000; i++)
		;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	SHOW((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec > 1000000);
	struct timeval moment;
	SHOW(gettimeofday(&moment, NULL));
	SHOW(labs(moment.tv_sec - time(NULL)) <= 1);
	struct tms ticks;
	SHOW(times(&ticks) != -1);
}

static void sleeps(void)
{
	long long begin = now_ms();
	struct timespec span = {0, 40000000}, until;
	SHOW(nanosleep(&span, NULL));
	SHOW(now_ms() - begin >= 40);
	SHOW(nanosleep(&(struct timespec){0, 1000000000}, NULL));
	SHOW(nanosleep(&(struct timespec){-1, 0}, NULL));
	SHOW(nanosleep((struct timespec *)8, NULL));
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec = 0;
	SHOW(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
	SHOW(clock_nanosleep(CLOCK_REALTIME, 0, &span, NULL));
	SHOW(clock_nanosleep(99, 0, &span, NULL));
	SHOW(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &span, NULL));
}

static void machine(void)
{
	struct utsname names;
	struct sysinfo information;
	cpu_set_t set;
	char buffer[300];
	SHOW(uname(&names));
	SHOW(uname((struct utsname *)8));
	SHOW(sysinfo(&information));
	SHOW(information.mem_unit);
	SHOW(information.totalram > 1 << 20);
	SHOW(information.procs > 0);
	SHOW(getrandom(buffer, 300, 0));
	SHOW(getrandom(buffer, 10, GRND_NONBLOCK | GRND_RANDOM));
	SHOW(getrandom(buffer, 10, 99));
	SHOW(getrandom((void *)8, 10, 0));
	SHOW(sched_getaffinity(0, sizeof set, &set));
	int cores = CPU_COUNT(&set);
	SHOW(cores);
	SHOW(sched_getaffinity(1 << 30, sizeof set, &set));
	SHOW(syscall(SYS_sched_getaffinity, 0, 1, &set));
	CPU_ZERO(&set);
	SHOW(sched_setaffinity(0, sizeof set, &set));
	CPU_SET(0, &set);
	SHOW(sched_setaffinity(0, sizeof set, &set));
	SHOW(sched_getaffinity(0, sizeof set, &set));
	SHOW(CPU_COUNT(&set));
	SHOW(sched_yield());
	SHOW(sched_getcpu() >= 0);
	SHOW(sched_getscheduler(0));
	SHOW(sched_getscheduler(-1));
	/* Of init, too, which has no thread of its own in a sandbox. What the host's was given is its own affair. */
	SHOW(sched_getscheduler(1) & ~SCHED_RESET_ON_FORK);
	SHOW(sched_getparam(1, &(struct sched_param){0}));
	SHOW(sched_getaffinity(1, sizeof set, &set));
	errno = 0;
	getpriority(PRIO_PROCESS, 1);
	SHOW(errno);
	SHOW(sched_get_priority_max(SCHED_FIFO));
	SHOW(sched_get_priority_min(SCHED_RR));
	SHOW(sched_get_priority_max(99));
	struct sched_param parameter = {5};
	SHOW(sched_setscheduler(0, SCHED_OTHER, &parameter));
	SHOW(sched_setscheduler(0, 99, &parameter));
	parameter.sched_priority = 0;
	SHOW(sched_setscheduler(0, SCHED_BATCH, &parameter));
	SHOW(sched_getscheduler(0));
	SHOW(getpriority(PRIO_PROCESS, 0));
	SHOW(setpriority(PRIO_PROCESS, 0, 7));
	SHOW(getpriority(PRIO_PROCESS, 0));
	SHOW(nice(3));
	SHOW(getpriority(9, 0));
	SHOW(getpriority(PRIO_PROCESS, 1 << 30));
	SHOW(syscall(SYS_ioprio_get, 1, 0));
	SHOW(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 3));
	SHOW(syscall(SYS_ioprio_get, 1, 0));
	SHOW(syscall(SYS_ioprio_set, 1, 0, 7 << 13));
	SHOW(prctl(PR_SET_NAME, "a name that is too long"));
	SHOW(prctl(PR_GET_NAME, buffer));
	printf("%s\n", buffer);
	SHOW(prctl(PR_GET_DUMPABLE));
	SHOW(prctl(PR_SET_PDEATHSIG, 99));
	SHOW(prctl(99999));
	SHOW(sysconf(_SC_CLK_TCK));
	SHOW(sysconf(_SC_NPROCESSORS_ONLN) == cores);
	SHOW(getpagesize());
	SHOW(syscall(9999));
	SHOW(syscall(-1));
	SHOW(syscall(SYS_getcpu, NULL, NULL, NULL));
	SHOW(syscall(SYS_set_tid_address, NULL) == getpid());
	SHOW(syscall(SYS_arch_prctl, 0x9999, 0));
	SHOW(syscall(SYS_membarrier, 999, 0, 0));
	SHOW(gethostname(buffer, 1));
	SHOW(sethostname(buffer, 65));
	unsigned header[2] = {0x20080522, 0}, data[6];
	SHOW(syscall(SYS_capget, header, data));
	header[1] = 1 << 30;
	SHOW(syscall(SYS_capget, header, data));
	header[0] = 1;
	SHOW(syscall(SYS_capget, header, data));
	SHOW(header[0] == 0x20080522);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	clocks();
	sleeps();
	machine();
	return 0;
}
