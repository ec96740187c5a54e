/* Eight threads add to counters under mutexes, meet at barriers, and hand work on through a condition variable. */
#include "check.h"

enum { THREADS = 8, ROUNDS = 2000 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t recursive;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_key_t key;
static long counter, shared, turn, destroyed;
static __thread long own;

static void count_destroyed(void *value)
{
	(void)value;
	__atomic_add_fetch(&destroyed, 1, __ATOMIC_SEQ_CST);
}

static void *work(void *argument)
{
	long number = (long)argument;
	pthread_setspecific(key, &key);
	for (int i = 0; i < ROUNDS; i++) {
		pthread_mutex_lock(&mutex);
		counter++;
		pthread_mutex_unlock(&mutex);
		own++;
	}
	pthread_barrier_wait(&barrier);
	pthread_mutex_lock(&mutex);
	while (turn != number)
		pthread_cond_wait(&turned, &mutex);
	printf("thread %ld: counter %ld own %ld\n", number, counter, own);
	turn++;
	pthread_cond_broadcast(&turned);
	pthread_mutex_unlock(&mutex);
	for (int i = 0; i < 100; i++) {
		pthread_rwlock_rdlock(&rwlock);
		pthread_rwlock_unlock(&rwlock);
		pthread_rwlock_wrlock(&rwlock);
		shared++;
		pthread_rwlock_unlock(&rwlock);
	}
	return (void *)(number * number);
}

static void *wait_for_ever(void *unused)
{
	(void)unused;
	for (;;)
		pause();
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];
	pthread_mutexattr_t attributes;
	pthread_barrier_init(&barrier, NULL, THREADS);
	pthread_key_create(&key, count_destroyed);
	for (long i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, work, (void *)i))
			return 1;
	void *results[THREADS];
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], &results[i]);
	for (int i = 0; i < THREADS; i++)
		printf("joined %d: %ld\n", i, (long)results[i]);
	printf("counter %ld shared %ld destroyed %ld\n", counter, shared, destroyed);

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&recursive, &attributes);
	SHOW(pthread_mutex_lock(&recursive));
	SHOW(pthread_mutex_lock(&recursive) == EDEADLK);
	SHOW(pthread_mutex_unlock(&recursive));
	SHOW(pthread_mutex_unlock(&recursive) == EPERM);

	struct timespec deadline;
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_nsec += 50000000;
	if (deadline.tv_nsec >= 1000000000)
		deadline.tv_sec++, deadline.tv_nsec -= 1000000000;
	pthread_mutex_lock(&mutex);
	SHOW(pthread_cond_timedwait(&turned, &mutex, &deadline) == ETIMEDOUT);
	pthread_mutex_unlock(&mutex);

	pthread_t idle;
	pthread_create(&idle, NULL, wait_for_ever, NULL);
	SHOW(pthread_cancel(idle));
	void *result;
	pthread_join(idle, &result);
	SHOW(result == PTHREAD_CANCELED);

	/* Threads that are still there do not hold up the end of the process. */
	pthread_create(&idle, NULL, wait_for_ever, NULL);
	return 5;
}
