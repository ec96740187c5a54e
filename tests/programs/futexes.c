/* Futexes by hand and through pthreads; prints what it sees. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void report(const char *what, long result)
{
	printf("%s %ld %s\n", what, result, result < 0 ? strerror(errno) : "");
}

static long futex(void *word, int op, unsigned value, void *timeout, void *word2, unsigned value3)
{
	return syscall(SYS_futex, word, op, value, timeout, word2, value3);
}

static uint32_t words[8];
static int results[16], wake_order[16];
static volatile int woken;

struct waiter {
	pthread_t thread;
	int index, op;
	uint32_t *word, bits;
};

static void *wait_there(void *argument)
{
	struct waiter *me = argument;
	long result = futex(me->word, me->op, 0, NULL, NULL, me->bits);
	results[me->index] = result < 0 ? -errno : result;
	wake_order[__atomic_fetch_add(&woken, 1, __ATOMIC_SEQ_CST)] = me->index;
	return NULL;
}

static struct waiter waiters[8];
static void start(int index, uint32_t *word, int op, uint32_t bits)
{
	waiters[index] = (struct waiter){.index = index, .op = op, .word = word, .bits = bits};
	pthread_create(&waiters[index].thread, NULL, wait_there, &waiters[index]);
	usleep(60000);
}

static void settle(int count)
{
	for (int i = 0; i < 200 && woken < count; i++)
		usleep(10000);
	usleep(20000);
}

static void errors(void)
{
	struct timespec some = {0, 30000000}, bad = {0, 2000000000}, past = {1, 0};
	words[0] = 5;
	report("differs", futex(&words[0], FUTEX_WAIT, 4, NULL, NULL, 0));
	report("times out", futex(&words[0], FUTEX_WAIT, 5, &some, NULL, 0));
	report("past", futex(&words[0], FUTEX_WAIT_BITSET, 5, &past, NULL, 1));
	report("past realtime", futex(&words[0], FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 5, &past, NULL, 1));
	report("bad time", futex(&words[0], FUTEX_WAIT, 5, &bad, NULL, 0));
	report("no bits", futex(&words[0], FUTEX_WAIT_BITSET, 5, NULL, NULL, 0));
	report("unaligned", futex((char *)words + 1, FUTEX_WAIT, 5, NULL, NULL, 0));
	report("unmapped", futex((void *)4096, FUTEX_WAIT, 5, NULL, NULL, 0));
	report("unknown", futex(&words[0], 77, 5, NULL, NULL, 0));
	report("realtime wake", futex(&words[0], FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 5, NULL, NULL, 0));
	report("wake none", futex(&words[0], FUTEX_WAKE, 5, NULL, NULL, 0));
	report("unlock", futex(&words[1], FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
	report("lock", futex(&words[1], FUTEX_LOCK_PI, 0, NULL, NULL, 0));
	printf("owner %d\n", words[1] == (uint32_t)gettid());
	report("lock again", futex(&words[1], FUTEX_LOCK_PI, 0, NULL, NULL, 0));
	report("trylock", futex(&words[1], FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0));
	report("unlock", futex(&words[1], FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
	printf("free %x\n", words[1]);
	words[1] = 4000000;
	report("no owner", futex(&words[1], FUTEX_LOCK_PI, 0, NULL, NULL, 0));
	words[1] = 0;
	report("robust size", syscall(SYS_set_robust_list, words, 8));
	words[0] = 0;
}

static void orders(void)
{
	woken = 0;
	for (int i = 0; i < 3; i++)
		start(i, &words[0], FUTEX_WAIT_PRIVATE, 0);
	report("wake one", futex(&words[0], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
	settle(1);
	printf("first %d\n", wake_order[0]);
	report("wake rest", futex(&words[0], FUTEX_WAKE_PRIVATE, 9, NULL, NULL, 0));
	for (int i = 0; i < 3; i++)
		pthread_join(waiters[i].thread, NULL);
	printf("results %d %d %d\n", results[0], results[1], results[2]);
	woken = 0;
	start(0, &words[0], FUTEX_WAIT_BITSET_PRIVATE, 1);
	start(1, &words[0], FUTEX_WAIT_BITSET_PRIVATE, 2);
	start(2, &words[0], FUTEX_WAIT_BITSET_PRIVATE, 3);
	report("bit 2", futex(&words[0], FUTEX_WAKE_BITSET_PRIVATE, 1, NULL, NULL, 2));
	settle(1);
	printf("first %d\n", wake_order[0]);
	report("requeue bad", futex(&words[0], FUTEX_CMP_REQUEUE_PRIVATE, 0, (void *)9, &words[2], 7));
	report("requeue", futex(&words[0], FUTEX_CMP_REQUEUE_PRIVATE, 0, (void *)9, &words[2], 0));
	report("none left", futex(&words[0], FUTEX_WAKE_PRIVATE, 9, NULL, NULL, 0));
	report("moved", futex(&words[2], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
	settle(2);
	printf("second %d\n", wake_order[1]);
	report("moved", futex(&words[2], FUTEX_WAKE_PRIVATE, 9, NULL, NULL, 0));
	for (int i = 0; i < 3; i++)
		pthread_join(waiters[i].thread, NULL);
	woken = 0;
	start(0, &words[0], FUTEX_WAIT_PRIVATE, 0);
	start(1, &words[3], FUTEX_WAIT_PRIVATE, 0);
	report("wake op", futex(&words[0], FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &words[3],
				FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_GT, 3)));
	settle(1);
	printf("word %d woken %d\n", words[3], woken);
	report("wake op", futex(&words[0], FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &words[3],
				FUTEX_OP((FUTEX_OP_OPARG_SHIFT | FUTEX_OP_XOR), 4, FUTEX_OP_CMP_EQ, 5)));
	for (int i = 0; i < 2; i++)
		pthread_join(waiters[i].thread, NULL);
	printf("word %d\n", words[3]);
	words[3] = 0;
}

static void on_signal(int signo)
{
	(void)signo;
}

static void *interrupted(void *argument)
{
	struct timespec *time = argument;
	long result = futex(&words[4], FUTEX_WAIT_PRIVATE, 0, time, NULL, 0);
	return (void *)(result < 0 ? (long)-errno : result);
}

static void interruptions(void)
{
	pthread_t thread;
	void *result;
	struct timespec time = {0, 300000000}, begin, end;
	struct sigaction action = {.sa_handler = on_signal};
	sigaction(SIGUSR1, &action, NULL);
	action.sa_flags = SA_RESTART;
	sigaction(SIGUSR2, &action, NULL);
	pthread_create(&thread, NULL, interrupted, NULL);
	usleep(60000);
	pthread_kill(thread, SIGUSR2);
	usleep(60000);
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, &result);
	printf("interrupted %ld\n", (long)result);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	pthread_create(&thread, NULL, interrupted, &time);
	usleep(60000);
	kill(getpid(), SIGSTOP); /* our parent continues us at once */
	pthread_join(thread, &result);
	clock_gettime(CLOCK_MONOTONIC, &end);
	long ms = (end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000;
	printf("timed out %ld in time %d\n", (long)result, ms >= 300 && ms < 600);
	pthread_create(&thread, NULL, interrupted, &time);
	usleep(60000);
	pthread_kill(thread, SIGUSR2);
	pthread_join(thread, &result);
	printf("timed and handled %ld\n", (long)result);
}

static pthread_mutex_t shared_mutex(int protocol, int robust, int shared)
{
	pthread_mutex_t mutex;
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setprotocol(&attributes, protocol);
	pthread_mutexattr_setrobust(&attributes, robust);
	pthread_mutexattr_setpshared(&attributes, shared);
	pthread_mutex_init(&mutex, &attributes);
	return mutex;
}

static pthread_mutex_t *mutex;
static long counter;
static void *add(void *argument)
{
	(void)argument;
	for (int i = 0; i < 2000; i++) {
		pthread_mutex_lock(mutex);
		long now = counter;
		if (i % 500 == 0)
			usleep(1000);
		counter = now + 1;
		pthread_mutex_unlock(mutex);
	}
	return NULL;
}

static void *die_with_lock(void *argument)
{
	pthread_mutex_lock(argument);
	return NULL;
}

static void mutexes(void)
{
	pthread_t threads[4];
	for (int protocol = PTHREAD_PRIO_NONE; protocol <= PTHREAD_PRIO_INHERIT; protocol++) {
		pthread_mutex_t one = shared_mutex(protocol, PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_PRIVATE);
		mutex = &one;
		counter = 0;
		for (int i = 0; i < 4; i++)
			pthread_create(&threads[i], NULL, add, NULL);
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		printf("protocol %d counted %ld\n", protocol, counter);
		pthread_mutex_t robust = shared_mutex(protocol, PTHREAD_MUTEX_ROBUST, PTHREAD_PROCESS_PRIVATE);
		pthread_create(&threads[0], NULL, die_with_lock, &robust);
		pthread_join(threads[0], NULL);
		printf("owner died %s\n", strerror(pthread_mutex_lock(&robust)));
		printf("consistent %d\n", pthread_mutex_consistent(&robust));
		printf("unlock %d\n", pthread_mutex_unlock(&robust));
		printf("timed %d\n", pthread_mutex_timedlock(&robust, &(struct timespec){0, 0}));
		pthread_create(&threads[0], NULL, die_with_lock, &robust);
		usleep(60000);
		pthread_mutex_unlock(&robust);
		pthread_join(threads[0], NULL);
		printf("waited, died %s\n", strerror(pthread_mutex_lock(&robust)));
	}
}

struct area {
	pthread_mutex_t mutex, robust, inherit;
	pthread_cond_t condition;
	int ready;
};

static void processes(void)
{
	struct area *area = mmap(NULL, sizeof *area, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_condattr_t attributes;
	int status;
	area->mutex = shared_mutex(0, PTHREAD_MUTEX_STALLED, PTHREAD_PROCESS_SHARED);
	area->robust = shared_mutex(0, PTHREAD_MUTEX_ROBUST, PTHREAD_PROCESS_SHARED);
	area->inherit = shared_mutex(1, PTHREAD_MUTEX_ROBUST, PTHREAD_PROCESS_SHARED);
	pthread_condattr_init(&attributes);
	pthread_condattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_cond_init(&area->condition, &attributes);
	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		pthread_mutex_lock(&area->robust);
		pthread_mutex_lock(&area->inherit);
		pthread_mutex_lock(&area->mutex);
		area->ready = 1;
		pthread_cond_signal(&area->condition);
		pthread_mutex_unlock(&area->mutex);
		usleep(100000);
		raise(SIGKILL);
	}
	pthread_mutex_lock(&area->mutex);
	while (!area->ready)
		pthread_cond_wait(&area->condition, &area->mutex);
	pthread_mutex_unlock(&area->mutex);
	printf("robust %s\n", strerror(pthread_mutex_lock(&area->robust)));
	printf("inherit %s\n", strerror(pthread_mutex_lock(&area->inherit)));
	waitpid(child, &status, 0);
	printf("status %d\n", status);
}

static void vectors(void)
{
	struct futex_waitv vector[2] = {
		{.val = 0, .uaddr = (uintptr_t)&words[0], .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG},
		{.val = 0, .uaddr = (uintptr_t)&words[5], .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG},
	};
	struct timespec soon;
	clock_gettime(CLOCK_MONOTONIC, &soon);
	soon.tv_nsec += 50000000;
	if (soon.tv_nsec >= 1000000000)
		soon.tv_sec++, soon.tv_nsec -= 1000000000;
	report("vector late", syscall(449, vector, 2, 0, &soon, CLOCK_MONOTONIC));
	vector[1].val = 1;
	report("vector differs", syscall(449, vector, 2, 0, NULL, 0));
	vector[1].flags = 1;
	report("vector flags", syscall(449, vector, 2, 0, NULL, 0));
	report("vector none", syscall(449, vector, 0, 0, NULL, 0));
}

static void *wait_vector(void *argument)
{
	struct futex_waitv vector[2] = {
		{.val = 0, .uaddr = (uintptr_t)&words[0], .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG},
		{.val = 0, .uaddr = (uintptr_t)&words[5], .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG},
	};
	(void)argument;
	return (void *)syscall(449, vector, 2, 0, NULL, 0);
}

static void vector_wake(void)
{
	pthread_t thread;
	void *result;
	pthread_create(&thread, NULL, wait_vector, NULL);
	usleep(60000);
	report("vector wake", futex(&words[5], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
	pthread_join(thread, &result);
	printf("vector woken by %ld\n", (long)result);
}

static void *pi_waiter(void *argument)
{
	(void)argument;
	long result = futex(&words[6], FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, NULL, &words[7], 0);
	printf("requeued %ld owner %d\n", result, (words[7] & FUTEX_TID_MASK) == (uint32_t)gettid());
	futex(&words[7], FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0);
	return NULL;
}

static void requeue_pi(void)
{
	pthread_t threads[2];
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, pi_waiter, NULL);
	usleep(100000);
	report("lock", futex(&words[7], FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
	report("requeue", futex(&words[6], FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)8, &words[7], 0));
	long result = futex(&words[7], FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	report("unlock", result);
	printf("left %x\n", words[7]);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	fflush(stdout);
	pid_t child = fork();
	if (child) {
		int status;
		while (waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status))
			kill(child, SIGCONT);
		return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
	}
	errors();
	orders();
	interruptions();
	mutexes();
	processes();
	vectors();
	vector_wake();
	requeue_pi();
	return 0;
}
