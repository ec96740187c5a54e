/* fork, wait, exec, exit, sessions and process groups: results and errnos. */
#include "check.h"

static void statuses(void)
{
	int status;
	siginfo_t info;
	pid_t child = fork();
	if (child == 0)
		_exit(300);
	SHOW(waitpid(child, &status, 0) == child);
	show_status("exit 300", status);
	SHOW(waitpid(child, &status, 0));
	SHOW(waitpid(-1, &status, WNOHANG));
	SHOW(waitpid(1 << 30, &status, 0));
	SHOW(waitpid(0, &status, 0x40));

	child = fork();
	if (child == 0) {
		raise(SIGKILL);
		_exit(0);
	}
	memset(&info, 0, sizeof info);
	SHOW(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
	SHOW(info.si_pid == child);
	SHOW(info.si_signo);
	SHOW(info.si_code);
	SHOW(info.si_status);
	SHOW(waitid(P_PID, child, &info, WEXITED));
	SHOW(waitid(P_PID, child, &info, WEXITED));
	SHOW(waitid(P_ALL, 0, &info, WEXITED | WNOHANG));
	SHOW(waitid(P_ALL, 0, &info, 0));
	SHOW(waitid(99, 0, &info, WEXITED));
}

static void stops(void)
{
	int status, release[2];
	char byte;
	if (pipe(release))
		exit(1);
	pid_t child = fork();
	if (child == 0) {
		raise(SIGSTOP);
		_exit(read(release[0], &byte, 1) == 1 ? 7 : 8);
	}
	SHOW(waitpid(child, &status, WUNTRACED) == child);
	show_status("stop", status);
	SHOW(waitpid(child, &status, WUNTRACED | WNOHANG));
	SHOW(kill(child, SIGCONT));
	SHOW(waitpid(child, &status, WCONTINUED) == child);
	show_status("cont", status);
	SHOW(write(release[1], "x", 1));
	SHOW(waitpid(child, &status, 0) == child);
	show_status("end", status);
}

static void groups(void)
{
	int status;
	SHOW(getpgid(0) == getpgrp());
	SHOW(getpgid(1 << 30));
	SHOW(getsid(1 << 30));
	SHOW(setpgid(0, -1));
	SHOW(setpgid(1 << 30, 0));
	pid_t child = fork();
	if (child == 0) {
		SHOW(setpgid(0, 0));
		SHOW(getpgrp() == getpid());
		SHOW(setsid());
		pid_t grandchild = fork();
		if (grandchild == 0) {
			SHOW(setsid() == getpid());
			SHOW(getsid(0) == getpid());
			SHOW(setsid());
			SHOW(setpgid(0, 0));
			_exit(0);
		}
		waitpid(grandchild, &status, 0);
		_exit(0);
	}
	waitpid(child, &status, 0);

	child = fork();
	if (child == 0) {
		setpgid(0, 0);
		for (int i = 0; i < 3; i++)
			if (fork() == 0)
				for (;;)
					pause();
		for (;;)
			pause();
	}
	while (getpgid(child) != child)
		nap_ms(1);
	nap_ms(100);
	SHOW(kill(-child, SIGTERM));
	SHOW(waitpid(-child, &status, 0) == child);
	show_status("group", status);
	SHOW(kill(-(1 << 30), 0));
}

static void execs(void)
{
	int status;
	char *const arguments[] = {"name", "-c", "exit 9", NULL};
	char *const environment[] = {"A=1", NULL};
	SHOW(execve("/nonexistent", arguments, environment));
	SHOW(execve("/etc/passwd", arguments, environment));
	SHOW(execve("/usr", arguments, environment));
	SHOW(execve("/etc/passwd/x", arguments, environment));
	SHOW(execve("", arguments, environment));
	SHOW(execve((const char *)8, arguments, environment));
	SHOW(execve("/bin/sh", (char *const *)8, environment));
	int fd = open("text", O_CREAT | O_WRONLY, 0755);
	SHOW(write(fd, "no program\n", 11));
	close(fd);
	SHOW(execve("text", arguments, environment));
	fd = open("empty", O_CREAT | O_WRONLY, 0755);
	close(fd);
	SHOW(execve("empty", arguments, environment));

	char *big = malloc(200000);
	memset(big, 'x', 199999);
	big[199999] = 0;
	char *const too_big[] = {"sh", big, NULL};
	SHOW(execve("/bin/sh", too_big, environment));

	pid_t child = vfork();
	if (child == 0) {
		execve("/bin/sh", arguments, environment);
		_exit(1);
	}
	waitpid(child, &status, 0);
	show_status("vfork and exec", status);

	int kept = open("/dev/null", O_RDONLY), closed = open("/dev/null", O_RDONLY | O_CLOEXEC);
	child = fork();
	if (child == 0) {
		char line[100];
		snprintf(line, sizeof line, "test -e /proc/self/fd/%d && ! test -e /proc/self/fd/%d", kept, closed);
		execl("/bin/sh", "sh", "-c", line, NULL);
		_exit(99);
	}
	waitpid(child, &status, 0);
	show_status("close on exec", status);
}

static void *exec_from_thread(void *unused)
{
	(void)unused;
	execl("/bin/sh", "sh", "-c", "echo from a thread; exit 4", NULL);
	return NULL;
}

static void exec_of_a_thread(void)
{
	int status;
	pid_t child = fork();
	if (child == 0) {
		pthread_t thread;
		pthread_create(&thread, NULL, exec_from_thread, NULL);
		for (;;)
			pause();
	}
	SHOW(waitpid(child, &status, 0) == child);
	show_status("exec of a thread", status);
}

static void orphans(void)
{
	int pipe_fds[2], status;
	char byte;
	if (pipe(pipe_fds))
		exit(1);
	if (fork() == 0) {
		pid_t parent = getpid();
		if (fork() == 0) {
			while (getppid() == parent)
				nap_ms(2);
			_exit(write(pipe_fds[1], "o", 1) != 1);
		}
		_exit(0);
	}
	close(pipe_fds[1]);
	wait(&status);
	SHOW(read(pipe_fds[0], &byte, 1));
	SHOW(read(pipe_fds[0], &byte, 1));
}

static void limits(void)
{
	struct rlimit limit = {10, 20};
	SHOW(setrlimit(RLIMIT_NOFILE, &limit));
	SHOW(getrlimit(RLIMIT_NOFILE, &limit));
	SHOW(limit.rlim_cur);
	SHOW(limit.rlim_max);
	int last = -1, fd;
	while ((fd = open("/dev/null", O_RDONLY)) >= 0)
		last = fd;
	SHOW(last);
	SHOW(open("/dev/null", O_RDONLY));
	SHOW(dup(0));
	SHOW(dup2(0, 10));
	limit.rlim_cur = 30;
	SHOW(setrlimit(RLIMIT_NOFILE, &limit));
	SHOW(getrlimit(99, &limit));
	SHOW(setrlimit(RLIMIT_CORE, (struct rlimit *)8));
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	statuses();
	stops();
	groups();
	execs();
	exec_of_a_thread();
	orphans();
	limits();
	return 0;
}
