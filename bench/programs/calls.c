/* Time one operation in a loop and print nanoseconds per operation: calls NAME COUNT [PROGRAM ARGUMENTS...]
 *
 * The loop runs inside the guest, so the start-up of whatever runs the guest is not in the figure. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int fds[2], answers[2], file;
static char **program;

static void check(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
}

static void getppid_once(void)
{
	check(syscall(SYS_getppid), "getppid");
}

/* One byte into a pipe and out of it again: two calls. */
static void pipe_once(void)
{
	char byte = 0;
	check(write(fds[1], &byte, 1), "write");
	check(read(fds[0], &byte, 1), "read");
}

/* One byte to another process and one back: two switches. */
static void ping_pong_once(void)
{
	char byte = 0;
	check(write(fds[1], &byte, 1), "write");
	check(read(answers[0], &byte, 1), "read");
}

static void read_once(void)
{
	static char block[4096];
	check(pread(file, block, sizeof block, 4096), "pread");
}

static void write_once(void)
{
	static char block[4096];
	check(pwrite(file, block, sizeof block, 4096), "pwrite");
}

static void stat_once(void)
{
	struct stat status;
	check(stat("file", &status), "stat");
}

static void open_close_once(void)
{
	int fd = open("file", O_RDONLY);
	check(fd, "open");
	check(close(fd), "close");
}

static void fork_once(void)
{
	pid_t child = fork();
	check(child, "fork");
	if (child == 0)
		_exit(0);
	check(waitpid(child, NULL, 0), "waitpid");
}

static void spawn_once(void)
{
	pid_t child;
	int status;
	if (posix_spawnp(&child, program[0], NULL, NULL, program, environ)) {
		fprintf(stderr, "cannot start %s\n", program[0]);
		exit(1);
	}
	check(waitpid(child, &status, 0), "waitpid");
	if (status)
		exit(1);
}

static void start_partner(void)
{
	check(pipe(answers), "pipe");
	if (fork() == 0) {
		char byte;
		close(fds[1]);
		close(answers[0]);
		while (read(fds[0], &byte, 1) == 1)
			check(write(answers[1], &byte, 1), "write");
		_exit(0);
	}
}

static const struct {
	const char *name;
	void (*once)(void);
} operations[] = {
	{"getppid", getppid_once}, {"pipe", pipe_once},	    {"ping-pong", ping_pong_once}, {"read", read_once},
	{"write", write_once},	   {"stat", stat_once},	    {"open+close", open_close_once}, {"fork", fork_once},
	{"spawn", spawn_once},
};

int main(int argc, char **argv)
{
	char directory[] = "benchXXXXXX";
	struct timespec begin, end;
	if (argc < 3)
		return argc == 1 ? 0 : 2; /* without arguments it is the program that does nothing */
	long count = atol(argv[2]);
	program = argv + 3;
	if (!mkdtemp(directory) || chdir(directory))
		return 1;
	file = open("file", O_CREAT | O_RDWR, 0600);
	check(ftruncate(file, 65536), "ftruncate");
	check(pipe(fds), "pipe");
	if (!strcmp(argv[1], "ping-pong"))
		start_partner();
	for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
		if (strcmp(argv[1], operations[i].name))
			continue;
		operations[i].once();
		clock_gettime(CLOCK_MONOTONIC, &begin);
		for (long n = 0; n < count; n++)
			operations[i].once();
		clock_gettime(CLOCK_MONOTONIC, &end);
		printf("%.1f\n", ((end.tv_sec - begin.tv_sec) * 1e9 + end.tv_nsec - begin.tv_nsec) / count);
	}
	unlink("file");
	chdir("..");
	rmdir(directory);
	return 0;
}
