/* Signals between processes: how they die, stop, continue and are told; prints what it sees. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t children, continued;
static siginfo_t last;

static void report(const char *what, long result)
{
	printf("%s %ld %s\n", what, result, result < 0 ? strerror(errno) : "");
}

static void on_child(int signo, siginfo_t *info, void *context)
{
	(void)signo, (void)context;
	last = *info;
	children++;
}

static void on_continue(int signo)
{
	(void)signo;
	continued = 1;
}

static void describe(const char *what, int status)
{
	if (WIFEXITED(status))
		printf("%s: exit %d\n", what, WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		printf("%s: killed by %d core %d\n", what, WTERMSIG(status), WCOREDUMP(status) != 0);
	else if (WIFSTOPPED(status))
		printf("%s: stopped by %d\n", what, WSTOPSIG(status));
	else if (WIFCONTINUED(status))
		printf("%s: continued\n", what);
}

static pid_t sleeper(void)
{
	fflush(stdout);
	pid_t pid = fork();
	if (!pid)
		for (;;)
			pause();
	return pid;
}

static void deaths(void)
{
	int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM, SIGSEGV, SIGABRT, SIGUSR1, SIGALRM, SIGPIPE, 40};
	for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) {
		int status;
		pid_t pid = sleeper();
		kill(pid, signals[i]);
		waitpid(pid, &status, 0);
		describe("death", status);
	}
	int harmless[] = {SIGCHLD, SIGWINCH, SIGURG, SIGCONT};
	pid_t pid = sleeper();
	int status;
	for (unsigned i = 0; i < 4; i++)
		kill(pid, harmless[i]);
	usleep(50000);
	printf("alive %d\n", waitpid(pid, &status, WNOHANG));
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
}

static void stops(void)
{
	int status;
	struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigaction(SIGCHLD, &action, NULL);
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		signal(SIGCONT, on_continue);
		raise(SIGSTOP);
		_exit(continued ? 11 : 22);
	}
	waitpid(pid, &status, WUNTRACED);
	describe("stop", status);
	printf("told code %d status %d\n", last.si_code, last.si_status);
	kill(pid, SIGTERM);
	usleep(50000);
	printf("still %d\n", waitpid(pid, &status, WNOHANG));
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	describe("kill of the stopped", status);
	printf("told code %d status %d\n", last.si_code, last.si_status);

	fflush(stdout);
	pid = fork();
	if (!pid) {
		signal(SIGCONT, on_continue);
		raise(SIGSTOP);
		_exit(continued ? 11 : 22);
	}
	waitpid(pid, &status, WUNTRACED);
	kill(pid, SIGCONT);
	waitpid(pid, &status, WCONTINUED);
	if (WIFCONTINUED(status)) /* or it was too quick for us to see that */
		waitpid(pid, &status, 0);
	describe("then", status);

	pid = sleeper();
	kill(pid, SIGSTOP);
	waitpid(pid, &status, WUNTRACED);
	describe("sleeper", status);
	kill(pid, SIGCONT);
	waitpid(pid, &status, WCONTINUED);
	describe("sleeper", status);
	kill(pid, SIGSTOP);
	kill(pid, SIGCONT);
	kill(pid, SIGTERM);
	do
		waitpid(pid, &status, 0);
	while (!WIFSIGNALED(status));
	describe("sleeper", status);
	signal(SIGCHLD, SIG_DFL);
}

static void sleeping_through_a_stop(void)
{
	int status;
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		struct timespec time = {0, 400000000};
		_exit(nanosleep(&time, NULL) ? 1 : 0);
	}
	usleep(100000);
	kill(pid, SIGSTOP);
	waitpid(pid, &status, WUNTRACED);
	kill(pid, SIGCONT);
	waitpid(pid, &status, 0);
	describe("slept", status);
}

static void ignoring(void)
{
	int status;
	fflush(stdout);
	signal(SIGCHLD, SIG_IGN);
	if (!fork())
		_exit(3);
	report("no zombie", wait(&status));
	signal(SIGCHLD, SIG_DFL);
	signal(SIGUSR1, SIG_IGN);
	signal(SIGUSR2, on_continue);
	fflush(stdout);
	if (!fork())
		execl("/bin/sh", "sh", "-c", "kill -USR1 $$; echo ignored over exec; kill -USR2 $$; echo no", NULL);
	wait(&status);
	describe("exec", status);
}

static void groups(void)
{
	int status, deaths = 0;
	fflush(stdout);
	pid_t leader = fork();
	if (!leader) {
		setpgid(0, 0);
		for (int i = 0; i < 3; i++)
			if (!fork())
				for (;;)
					pause();
		signal(SIGTERM, on_continue);
		kill(0, SIGTERM);
		printf("handled before kill returned %d\n", continued);
		while (wait(&status) > 0)
			deaths += WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM;
		printf("group deaths %d\n", deaths);
		fflush(stdout);
		_exit(0);
	}
	waitpid(leader, &status, 0);
	describe("leader", status);
	report("gone", kill(-leader, 0));
}

static void pipes(void)
{
	int fds[2], status;
	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		if (pipe(fds))
			_exit(1);
		close(fds[0]);
		_exit(write(fds[1], "x", 1) < 0 ? 4 : 5);
	}
	waitpid(pid, &status, 0);
	describe("pipe", status);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		signal(SIGPIPE, SIG_IGN);
		if (pipe(fds))
			_exit(1);
		close(fds[0]);
		_exit(write(fds[1], "x", 1) < 0 && errno == EPIPE ? 4 : 5);
	}
	waitpid(pid, &status, 0);
	describe("pipe ignored", status);
}

static void faults(void)
{
	int status;
	fflush(stdout);
	if (!fork()) {
		sigset_t set;
		sigemptyset(&set);
		sigaddset(&set, SIGSEGV);
		signal(SIGSEGV, on_continue);
		sigprocmask(SIG_BLOCK, &set, NULL);
		*(volatile int *)8 = 1;
		_exit(0);
	}
	wait(&status);
	describe("blocked fault", status);
	fflush(stdout);
	if (!fork()) {
		signal(SIGSEGV, SIG_IGN);
		*(volatile int *)8 = 1;
		_exit(0);
	}
	wait(&status);
	describe("ignored fault", status);
	fflush(stdout);
	if (!fork()) {
		signal(SIGUSR1, on_continue);
		__asm__ volatile("mov $8, %%rsp\n\tsyscall" ::"a"(SYS_kill), "D"(getpid()), "S"(SIGUSR1));
		_exit(0);
	}
	wait(&status);
	describe("no stack", status);
	fflush(stdout);
	if (!fork()) {
		__asm__ volatile("xor %%esp, %%esp\n\tsyscall" ::"a"(SYS_rt_sigreturn));
		_exit(0);
	}
	wait(&status);
	describe("bad sigreturn", status);
}

int main(void)
{
	struct rlimit none = {0, 0};
	setrlimit(RLIMIT_CORE, &none);
	setvbuf(stdout, NULL, _IOFBF, 65536);
	deaths();
	stops();
	sleeping_through_a_stop();
	ignoring();
	groups();
	pipes();
	faults();
	return 0;
}
