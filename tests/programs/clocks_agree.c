/* Threads read clocks by the vDSO and by the system call in turn, until a line comes: no time may be before one that
 * anybody has read before. Says how often that was so, and whether the parameter page was in force. */
#include "check.h"
#include <stdatomic.h>
#include <sys/auxv.h>

#define THREADS 3

static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME};
static _Atomic long long latest[4];
static atomic_int stop, backwards;

static void look(int which, int by_call)
{
	struct timespec time;
	long long before = atomic_load(&latest[which]), now;
	if (by_call)
		syscall(SYS_clock_gettime, clocks[which], &time);
	else
		clock_gettime(clocks[which], &time);
	now = time.tv_sec * 1000000000LL + time.tv_nsec;
	if (now < before) {
		if (atomic_fetch_add(&backwards, 1) < 10)
			printf("clock %d by %s: %lld ns back\n", clocks[which], by_call ? "call" : "page", before - now);
		return;
	}
	while (before < now && !atomic_compare_exchange_weak(&latest[which], &before, now))
		;
}

static void *reader(void *argument)
{
	unsigned seed = (unsigned)(long)argument;
	while (!atomic_load(&stop)) {
		for (int which = 0; which < 4; which++)
			look(which, 0);
		/* Mostly by the page, or nobody would ever meet the end of its time. */
		if (rand_r(&seed) % 64 == 0)
			for (int which = 0; which < 4; which++) {
				look(which, 1);
				look(which, 0);
			}
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];
	char line[2];
	const volatile unsigned long *page = (void *)(getauxval(AT_SYSINFO_EHDR) - 4096);
	for (long i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, reader, (void *)(i + 1));
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		puts("here");
		fflush(stdout);
	}
	atomic_store(&stop, 1);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	printf("%d times backwards\npage in force: %d\n", backwards, !(*page & 1));
	return 0;
}
