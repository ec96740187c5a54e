/* Signals and threads: who takes what, and job-control stops of a process with several; prints facts. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int taker, taken, storm;
static pthread_barrier_t barrier;

static void on_signal(int signo)
{
	(void)signo;
	taker = gettid();
	taken++;
}

static void on_storm(int signo)
{
	(void)signo;
	__atomic_fetch_add(&storm, 1, __ATOMIC_SEQ_CST);
}

static void block(int how, int signo)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, signo);
	pthread_sigmask(how, &set, NULL);
}

static void wait_for(volatile int *what, int value)
{
	for (int i = 0; i < 500 && *what < value; i++)
		usleep(10000);
}

static void *idle(void *argument)
{
	int *tid = argument;
	*tid = gettid();
	pthread_barrier_wait(&barrier);
	while (!taken)
		usleep(10000);
	return NULL;
}

static void the_one_that_does_not_block(void)
{
	pthread_t thread;
	int tid;
	taken = 0;
	pthread_create(&thread, NULL, idle, &tid);
	pthread_barrier_wait(&barrier);
	block(SIG_BLOCK, SIGUSR1);
	kill(getpid(), SIGUSR1);
	pthread_join(thread, NULL);
	printf("taken %d by the thread %d\n", taken, taker == tid);
	block(SIG_UNBLOCK, SIGUSR1);
}

static void *unblocking(void *argument)
{
	(void)argument;
	pthread_barrier_wait(&barrier);
	usleep(50000);
	block(SIG_UNBLOCK, SIGUSR1);
	printf("taken on unblocking %d by me %d\n", taken, taker == gettid());
	return NULL;
}

static void the_first_to_unblock(void)
{
	pthread_t thread;
	taken = 0;
	block(SIG_BLOCK, SIGUSR1);
	pthread_create(&thread, NULL, unblocking, NULL);
	kill(getpid(), SIGUSR1);
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
	block(SIG_UNBLOCK, SIGUSR1);
	printf("once %d\n", taken);
}

static void *waiting(void *argument)
{
	sigset_t set;
	int signo = 0;
	(void)argument;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_barrier_wait(&barrier);
	sigwait(&set, &signo);
	return (void *)(long)signo;
}

static void sigwait_in_a_thread(void)
{
	pthread_t thread;
	void *signo;
	block(SIG_BLOCK, SIGUSR2);
	pthread_create(&thread, NULL, waiting, NULL);
	pthread_barrier_wait(&barrier);
	usleep(50000);
	kill(getpid(), SIGUSR2);
	pthread_join(thread, &signo);
	printf("sigwait %ld\n", (long)signo);
}

static volatile int spinning = 1;
static void *spin(void *argument)
{
	volatile long *counter = argument;
	while (spinning)
		(*counter)++;
	return NULL;
}

static void *sleep_long(void *argument)
{
	(void)argument;
	struct timespec time = {0, 300000000};
	return (void *)(long)nanosleep(&time, NULL);
}

static void stopped_threads(void)
{
	int status;
	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		pthread_t threads[3];
		long counters[2] = {0, 0};
		void *result;
		setpgid(0, 0); /* its parent's session, another group: not orphaned, wherever this runs */
		pthread_create(&threads[0], NULL, spin, &counters[0]);
		pthread_create(&threads[1], NULL, spin, &counters[1]);
		pthread_create(&threads[2], NULL, sleep_long, NULL);
		usleep(50000);
		kill(getpid(), SIGTSTP);
		spinning = 0;
		for (int i = 0; i < 3; i++)
			pthread_join(threads[i], &result);
		_exit(result ? 1 : 7);
	}
	pid_t got = waitpid(child, &status, WUNTRACED);
	printf("stopped %d by %d\n", got == child && WIFSTOPPED(status), WSTOPSIG(status));
	usleep(100000);
	printf("quiet %d\n", waitpid(child, &status, WNOHANG));
	kill(child, SIGCONT);
	waitpid(child, &status, 0);
	printf("exit %d\n", WEXITSTATUS(status));
}

static void orphans_do_not_stop(void)
{
	int fds[2], status;
	char said = '?';
	if (pipe(fds))
		return;
	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		setsid();
		if (!fork()) {
			usleep(100000);
			raise(SIGTSTP);
			said = 'a';
			_exit(write(fds[1], &said, 1) != 1);
		}
		_exit(0);
	}
	waitpid(child, &status, 0);
	close(fds[1]);
	printf("read %zd", read(fds[0], &said, 1));
	printf(" %c\n", said);
	close(fds[0]);
}

static void *sender(void *argument)
{
	pthread_t *target = argument;
	for (int i = 0; i < 300; i++)
		pthread_kill(*target, SIGRTMIN);
	return NULL;
}

static void a_storm(void)
{
	pthread_t threads[3], self = pthread_self();
	long sum = 0;
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, sender, &self);
	for (int i = 0; i < 3000000; i++)
		sum += i ^ (sum << 1);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	wait_for(&storm, 900);
	long again = 0;
	for (int i = 0; i < 3000000; i++)
		again += i ^ (again << 1);
	printf("storm %d undisturbed %d\n", storm, sum == again);
}

static void *dying(void *argument)
{
	(void)argument;
	struct timespec time = {0, 20000000};
	nanosleep(&time, NULL);
	syscall(SYS_exit_group, 9);
	return NULL;
}

static void death_of_all(void)
{
	int status;
	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		pthread_t threads[8];
		long counter = 0;
		spinning = 1;
		for (int i = 0; i < 4; i++)
			pthread_create(&threads[i], NULL, spin, &counter);
		for (int i = 4; i < 7; i++)
			pthread_create(&threads[i], NULL, sleep_long, NULL);
		pthread_create(&threads[7], NULL, dying, NULL);
		pause();
	}
	waitpid(child, &status, 0);
	printf("exit_group %d\n", WEXITSTATUS(status));
	child = fork();
	if (!child) {
		pthread_t thread;
		pthread_create(&thread, NULL, sleep_long, NULL);
		pthread_exit(NULL);
	}
	waitpid(child, &status, 0);
	printf("leader went first %d\n", WEXITSTATUS(status));
}

int main(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	setvbuf(stdout, NULL, _IOLBF, 0);
	pthread_barrier_init(&barrier, NULL, 2);
	sigaction(SIGUSR1, &action, NULL);
	action.sa_handler = on_storm;
	sigaction(SIGRTMIN, &action, NULL);
	the_one_that_does_not_block();
	the_first_to_unblock();
	sigwait_in_a_thread();
	stopped_threads();
	orphans_do_not_stop();
	a_storm();
	death_of_all();
	return 0;
}
