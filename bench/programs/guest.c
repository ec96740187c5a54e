/* The guest's side of the benchmark: it performs operations on request and times them itself.
 *
 * A request is a line of fields separated by tabs: OPERATION BUDGET_US MOST [ARGUMENT...]. The operation runs in equal
 * batches that fill the budget, of at most MOST operations; the median batch counts. The answer is a line of JSON:
 * {"ns": per operation, "count": of them, "elapsed_ns": since the request was read}, or {"error": text}.
 * The start-up of whatever runs this program is in no figure. It works in its current directory and ends with its input. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FIELDS = 64, BLOCK = 4096, THREAD_STACK = 64 << 10, GROWTH = 16, BATCHES = 7 };

extern char **environ;

static char *fields[MAX_FIELDS + 1];
static const char *failed = "";

/* Every operation returns 0, or -1 with errno and `failed` set. */
static int fail(const char *what)
{
	failed = what;
	return -1;
}

#define TRY(call) do { if ((call) < 0) return fail(#call); } while (0)

static int64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* -- one kernel operation ------------------------------------------------------------------------------------------ */

static int pipe_ends[2], partner_answers[2], file;
static char *page;

static int getppid_once(void)
{
	TRY(syscall(SYS_getppid));
	return 0;
}

static int clock_libc_once(void)
{
	struct timespec time;
	TRY(clock_gettime(CLOCK_MONOTONIC, &time));
	return 0;
}

static int clock_raw_once(void)
{
	struct timespec time;
	TRY(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &time));
	return 0;
}

static int make_pipe(void)
{
	TRY(pipe2(pipe_ends, O_CLOEXEC));
	return 0;
}

static int close_pipe(void)
{
	TRY(close(pipe_ends[0]));
	TRY(close(pipe_ends[1]));
	return 0;
}

static int pipe_once(void)
{
	char byte = 0;
	TRY(write(pipe_ends[1], &byte, 1));
	TRY(read(pipe_ends[0], &byte, 1));
	return 0;
}

static int start_partner(void)
{
	TRY(make_pipe());
	TRY(pipe2(partner_answers, O_CLOEXEC));
	pid_t child = fork();
	TRY(child);
	if (child == 0) {
		char byte;
		close(pipe_ends[1]);
		close(partner_answers[0]);
		while (read(pipe_ends[0], &byte, 1) == 1)
			if (write(partner_answers[1], &byte, 1) != 1)
				break;
		_exit(0);
	}
	TRY(close(partner_answers[1]));
	return 0;
}

static int ping_pong_once(void)
{
	char byte = 0;
	TRY(write(pipe_ends[1], &byte, 1));
	TRY(read(partner_answers[0], &byte, 1));
	return 0;
}

static int end_partner(void)
{
	TRY(close_pipe());
	TRY(close(partner_answers[0]));
	TRY(wait(NULL));
	return 0;
}

static int open_file(void)
{
	file = open("file", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	TRY(file);
	TRY(ftruncate(file, 16 * BLOCK));
	return 0;
}

static int close_file(void)
{
	TRY(close(file));
	TRY(unlink("file"));
	return 0;
}

static int read_once(void)
{
	static char block[BLOCK];
	TRY(pread(file, block, BLOCK, BLOCK));
	return 0;
}

static int write_once(void)
{
	static char block[BLOCK];
	TRY(pwrite(file, block, BLOCK, BLOCK));
	return 0;
}

static int stat_once(void)
{
	struct stat status;
	TRY(stat("file", &status));
	return 0;
}

static int open_close_once(void)
{
	int fd = open("file", O_RDONLY | O_CLOEXEC);
	TRY(fd);
	TRY(close(fd));
	return 0;
}

static int map_page(void)
{
	page = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return page == MAP_FAILED ? fail("mmap") : 0;
}

static int make_page(void)
{
	if (map_page())
		return -1;
	*page = 1;
	return 0;
}

static int drop_page(void)
{
	TRY(munmap(page, BLOCK));
	return 0;
}

static int mprotect_once(void)
{
	static int writable;
	TRY(mprotect(page, BLOCK, (writable ^= 1) ? PROT_READ : PROT_READ | PROT_WRITE));
	return 0;
}

static int mmap_once(void)
{
	return map_page() ? -1 : drop_page();
}

static int mmap_touch_once(void)
{
	return make_page() ? -1 : drop_page();
}

static void *nothing(void *argument)
{
	return argument;
}

static int thread_once(void)
{
	pthread_t thread;
	if ((errno = pthread_create(&thread, NULL, nothing, NULL)))
		return fail("pthread_create");
	if ((errno = pthread_join(thread, NULL)))
		return fail("pthread_join");
	return 0;
}

static int fork_once(void)
{
	pid_t child = fork();
	TRY(child);
	if (child == 0)
		_exit(0);
	TRY(waitpid(child, NULL, 0));
	return 0;
}

static int wait_for_success(pid_t child)
{
	int status;
	TRY(waitpid(child, &status, 0));
	if (status) {
		errno = ECHILD;
		return fail("the program's exit status");
	}
	return 0;
}

static int vfork_exec_once(void)
{
	pid_t child = vfork();
	TRY(child);
	if (child == 0) {
		execve(fields[3], fields + 3, environ);
		_exit(127);
	}
	return wait_for_success(child);
}

/* posix_spawn is vfork and exec, and two calls for each signal. The program's output goes nowhere. */
static int spawn_once(void)
{
	posix_spawn_file_actions_t actions;
	pid_t child;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	errno = posix_spawn(&child, fields[3], &actions, NULL, fields + 3, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (errno)
		return fail("posix_spawn");
	return wait_for_success(child);
}

/* -- computing ----------------------------------------------------------------------------------------------------- */

enum { SPINS = 10000000 };

static void *spin(void *turns)
{
	uint64_t state = 88172645463325252u;
	for (intptr_t i = 0; i < (intptr_t)turns; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
	}
	return (void *)(uintptr_t)state;
}

static int spin_once(void)
{
	volatile uintptr_t sink = (uintptr_t)spin((void *)(intptr_t)SPINS);
	(void)sink;
	return 0;
}

static int spin_twice(intptr_t turns)
{
	pthread_t threads[2];
	for (int i = 0; i < 2; i++)
		if ((errno = pthread_create(&threads[i], NULL, spin, (void *)turns)))
			return fail("pthread_create");
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

static int spin_twice_once(void)
{
	return spin_twice(SPINS);
}

static int spin_long_twice_once(void)
{
	return spin_twice(10 * SPINS);
}

/* -- many of a kind: each makes COUNT, uses each where that means something, and removes them ------------------------ */

/* The children wait until the pipe has no writer. */
static int many_processes(long count)
{
	int gate[2];
	long made = 0;
	TRY(pipe2(gate, O_CLOEXEC));
	for (; made < count; made++) {
		pid_t child = fork();
		if (child == 0) {
			char byte;
			close(gate[1]);
			_exit(read(gate[0], &byte, 1) != 0);
		}
		if (child < 0)
			break;
	}
	int reason = errno;
	close(gate[0]);
	close(gate[1]);
	for (long i = 0; i < made; i++)
		TRY(wait(NULL));
	errno = reason;
	return made == count ? 0 : fail("fork");
}

static int gate_word;

static void *wait_at_gate(void *unused)
{
	while (!__atomic_load_n(&gate_word, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, &gate_word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	return unused;
}

static int many_threads(long count)
{
	pthread_t *threads = calloc(count, sizeof *threads);
	pthread_attr_t attributes;
	long made = 0;
	int reason = 0;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, THREAD_STACK);
	gate_word = 0;
	while (made < count && !(reason = pthread_create(&threads[made], &attributes, wait_at_gate, NULL)))
		made++;
	__atomic_store_n(&gate_word, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &gate_word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
	for (long i = 0; i < made; i++)
		pthread_join(threads[i], NULL);
	free(threads);
	errno = reason;
	return made == count ? 0 : fail("pthread_create");
}

static int many_descriptors(long count)
{
	struct rlimit limit;
	struct stat status;
	TRY(getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = limit.rlim_max;
	TRY(setrlimit(RLIMIT_NOFILE, &limit));
	TRY(open_file());
	int *fds = calloc(count, sizeof *fds);
	long made = 0;
	while (made < count && (fds[made] = open("file", O_RDONLY | O_CLOEXEC)) >= 0)
		made++;
	int reason = errno;
	for (long i = 0; i < made; i++)
		TRY(fstat(fds[i], &status));
	for (long i = 0; i < made; i++)
		TRY(close(fds[i]));
	free(fds);
	TRY(close_file());
	errno = reason;
	return made == count ? 0 : fail("open");
}

/* Neighbours differ in what is permitted, so that the kernel cannot join them. */
static int many_mappings(long count)
{
	char **places = calloc(count, sizeof *places);
	for (long i = 0; i < count; i++) {
		int protection = i % 2 ? PROT_READ : PROT_READ | PROT_WRITE;
		places[i] = mmap(NULL, BLOCK, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (places[i] == MAP_FAILED)
			return fail("mmap");
	}
	for (long i = 0; i < count; i++)
		TRY(mprotect(places[i], BLOCK, i % 2 ? PROT_READ | PROT_WRITE : PROT_READ));
	for (long i = 0; i < count; i++)
		TRY(munmap(places[i], BLOCK));
	free(places);
	return 0;
}

static int many_entries(long count)
{
	char name[32];
	struct stat status;
	TRY(mkdir("entries", 0700));
	for (long i = 0; i < count; i++) {
		snprintf(name, sizeof name, "entries/%ld", i);
		int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		TRY(fd);
		TRY(close(fd));
	}
	DIR *directory = opendir("entries");
	if (!directory)
		return fail("opendir");
	long seen = 0;
	for (struct dirent *entry; (entry = readdir(directory));)
		seen += entry->d_name[0] != '.';
	closedir(directory);
	if (seen != count) {
		errno = EIO;
		return fail("the number of entries");
	}
	for (long i = 0; i < count; i++) {
		snprintf(name, sizeof name, "entries/%ld", i);
		TRY(stat(name, &status));
		TRY(unlink(name));
	}
	TRY(rmdir("entries"));
	return 0;
}

/* -- requests ------------------------------------------------------------------------------------------------------ */

static const struct operation {
	const char *name;
	int (*once)(void), (*begin)(void), (*end)(void);
} operations[] = {
	{"getppid", getppid_once, NULL, NULL},
	{"clock-libc", clock_libc_once, NULL, NULL},
	{"clock-raw", clock_raw_once, NULL, NULL},
	{"pipe", pipe_once, make_pipe, close_pipe},
	{"ping-pong", ping_pong_once, start_partner, end_partner},
	{"read", read_once, open_file, close_file},
	{"write", write_once, open_file, close_file},
	{"stat", stat_once, open_file, close_file},
	{"open-close", open_close_once, open_file, close_file},
	{"mprotect", mprotect_once, make_page, drop_page},
	{"mmap", mmap_once, NULL, NULL},
	{"mmap-touch", mmap_touch_once, NULL, NULL},
	{"thread", thread_once, NULL, NULL},
	{"fork", fork_once, NULL, NULL},
	{"vfork-exec", vfork_exec_once, NULL, NULL},
	{"spawn", spawn_once, NULL, NULL},
	{"spin", spin_once, NULL, NULL},
	{"spin-twice", spin_twice_once, NULL, NULL},
	{"spin-long-twice", spin_long_twice_once, NULL, NULL},
};

static const struct {
	const char *name;
	int (*make)(long);
} kinds[] = {
	{"many-processes", many_processes}, {"many-threads", many_threads}, {"many-descriptors", many_descriptors},
	{"many-mappings", many_mappings},   {"many-entries", many_entries},
};

static void answer(double ns, long count, int64_t elapsed)
{
	printf("{\"ns\": %.3f, \"count\": %ld, \"elapsed_ns\": %lld}\n", ns, count, (long long)elapsed);
}

/* Nanoseconds for COUNT operations, -1 after a failure. */
static int64_t batch(const struct operation *operation, long count)
{
	int64_t begin = now();
	for (long i = 0; i < count; i++)
		if (operation->once())
			return -1;
	return now() - begin;
}

/* What one costs at best. Whatever interrupts a batch makes it look dear, so the best of all counts, and a batch ends the
 * search only by being long by that measure too. */
static double calibrate(const struct operation *operation, int64_t budget, long most)
{
	double best = 1e18;
	for (long count = 1;; count = count * GROWTH < most ? count * GROWTH : most) {
		int64_t took = batch(operation, count);
		if (took < 0)
			return -1;
		best = (double)took / count < best ? (double)took / count : best;
		if (best * count >= budget / (2.0 * BATCHES) || count >= most || took >= 2 * budget)
			return best;
	}
}

static int by_size(const void *left, const void *right)
{
	double difference = *(const double *)left - *(const double *)right;
	return (difference > 0) - (difference < 0);
}

/* An operation that alone takes twice the budget is not done again: what it took is the answer. */
static int repeat(const struct operation *operation, int64_t budget, long most, int64_t start)
{
	double each[BATCHES];
	if (operation->begin && operation->begin())
		return -1;
	double best = calibrate(operation, budget, most);
	if (best < 0)
		return -1;
	long count = budget / BATCHES / (best + 0.001), done = 1;
	count = count < 1 ? 1 : count > most ? most : count;
	each[0] = best;
	if (best < 2 * budget) {
		int64_t begin = now();
		for (done = 0; done < BATCHES && (done == 0 || now() - begin < 2 * budget); done++) {
			int64_t took = batch(operation, count);
			if (took < 0)
				return -1;
			each[done] = (double)took / count;
		}
	}
	qsort(each, done, sizeof *each, by_size);
	answer(each[done / 2], count * done, now() - start);
	return operation->end ? operation->end() : 0;
}

static int perform(int64_t start)
{
	int64_t budget = atoll(fields[1]) * 1000;
	long most = atol(fields[2]);
	for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
		if (!strcmp(fields[0], operations[i].name))
			return repeat(&operations[i], budget, most, start);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		if (strcmp(fields[0], kinds[i].name))
			continue;
		int64_t begin = now();
		if (kinds[i].make(most))
			return -1;
		answer((double)(now() - begin) / most, most, now() - start);
		return 0;
	}
	errno = ENOSYS;
	return fail("no such operation");
}

int main(void)
{
	static char line[1 << 16];
	printf("{\"ready\": true}\n");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		int64_t start = now();
		int used = 0;
		line[strcspn(line, "\n")] = 0;
		for (char *rest = line; rest && used < MAX_FIELDS;)
			fields[used++] = strsep(&rest, "\t");
		fields[used] = NULL;
		if (used < 3)
			return 2;
		if (perform(start)) {
			printf("{\"error\": \"%s: ", strerror(errno));
			for (const char *c = failed; *c; c++)
				putchar(*c == '"' ? '\'' : *c);
			printf("\"}\n");
		}
		fflush(stdout);
	}
	return 0;
}
