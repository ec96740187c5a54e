/* Signals: delivery, masks, queues, alternate stacks, restarts, timers: results and errnos. */
#include "check.h"
#include <sys/signalfd.h>
#include <ucontext.h>

static volatile sig_atomic_t seen, last_value, last_code, order[16], count;

static void note(int signo)
{
	seen = signo;
	if (count < 16)
		order[count++] = signo;
}

static void note_info(int signo, siginfo_t *info, void *context)
{
	(void)context;
	seen = signo;
	last_code = info->si_code;
	last_value = info->si_value.sival_int;
	if (count < 16)
		order[count++] = info->si_value.sival_int;
}

static void install(int signo, void (*handler)(int), int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
	sigemptyset(&action.sa_mask);
	sigaction(signo, &action, NULL);
}

static void errors(void)
{
	struct sigaction action = {.sa_handler = note};
	SHOW(sigaction(SIGKILL, &action, NULL));
	SHOW(sigaction(SIGSTOP, &action, NULL));
	SHOW(sigaction(0, &action, NULL));
	SHOW(sigaction(65, &action, NULL));
	SHOW(sigaction(SIGKILL, NULL, &action));
	SHOW(kill(getpid(), 65));
	SHOW(kill(getpid(), 0));
	SHOW(syscall(SYS_tgkill, getpid(), 1 << 30, 0));
	SHOW(syscall(SYS_tgkill, -1, getpid(), 0));
	SHOW(syscall(SYS_rt_sigprocmask, 9, &action, NULL, 8));
	SHOW(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, NULL, 4));
	SHOW(syscall(SYS_rt_sigaction, SIGUSR1, 8, NULL, 8));
	SHOW(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4));
}

static void masks(void)
{
	sigset_t set, old, pending;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGKILL);
	install(SIGUSR1, note, 0);
	SHOW(sigprocmask(SIG_BLOCK, &set, NULL));
	SHOW(sigprocmask(SIG_BLOCK, NULL, &old));
	SHOW(sigismember(&old, SIGKILL));
	SHOW(sigismember(&old, SIGUSR1));
	seen = 0;
	SHOW(raise(SIGUSR1));
	SHOW(raise(SIGUSR1));
	SHOW(seen);
	sigpending(&pending);
	SHOW(sigismember(&pending, SIGUSR1));
	SHOW(sigprocmask(SIG_UNBLOCK, &set, NULL));
	SHOW(seen);
	SHOW(count);
}

static void queues(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigaddset(&set, SIGRTMIN + 1);
	struct sigaction action = {.sa_sigaction = note_info, .sa_flags = SA_SIGINFO};
	sigaction(SIGRTMIN, &action, NULL);
	sigaction(SIGRTMIN + 1, &action, NULL);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < 3; i++) {
		union sigval value = {.sival_int = 10 + i};
		SHOW(sigqueue(getpid(), SIGRTMIN + 1, value));
		value.sival_int = 20 + i;
		SHOW(sigqueue(getpid(), SIGRTMIN, value));
	}
	siginfo_t info;
	struct timespec none = {0, 0}, little = {0, 20000000};
	SHOW(sigtimedwait(&set, &info, &none) == SIGRTMIN);
	SHOW(info.si_value.sival_int);
	SHOW(info.si_code == SI_QUEUE);
	SHOW(info.si_pid == getpid());
	count = 0;
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	for (int i = 0; i < count; i++)
		printf("delivered %d\n", order[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	SHOW(sigtimedwait(&set, &info, &little));
	SHOW(sigtimedwait(&set, &info, &(struct timespec){0, -1}));
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static char alternate[65536];
static volatile sig_atomic_t on_alternate;

static void look_at_stack(int signo)
{
	char here;
	stack_t stack;
	note(signo);
	on_alternate = &here >= alternate && &here < alternate + sizeof alternate;
	sigaltstack(NULL, &stack);
	last_code = stack.ss_flags;
}

static void alternate_stack(void)
{
	stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate}, old;
	SHOW(sigaltstack(&stack, &old));
	SHOW(old.ss_flags);
	install(SIGUSR2, look_at_stack, SA_ONSTACK);
	raise(SIGUSR2);
	SHOW(on_alternate);
	SHOW(last_code == SS_ONSTACK);
	stack.ss_size = 10;
	SHOW(sigaltstack(&stack, NULL));
	stack.ss_flags = 77;
	SHOW(sigaltstack(&stack, NULL));
	stack.ss_flags = SS_DISABLE;
	SHOW(sigaltstack(&stack, NULL));
	install(SIGUSR2, look_at_stack, 0);
	raise(SIGUSR2);
	SHOW(on_alternate);
}

static void skip_fault(int signo, siginfo_t *info, void *context)
{
	ucontext_t *state = context;
	seen = signo;
	last_code = info->si_code;
	last_value = info->si_addr == (void *)0x1234;
	state->uc_mcontext.gregs[REG_RIP] += 2;
}

static void faults(void)
{
	struct sigaction action = {.sa_sigaction = skip_fault, .sa_flags = SA_SIGINFO};
	sigaction(SIGSEGV, &action, NULL);
	/* mov (%rax), %eax is two bytes long */
	__asm__ volatile("mov $0x1234, %%eax; .byte 0x8b, 0x00" ::: "rax", "memory");
	SHOW(seen);
	SHOW(last_code);
	SHOW(last_value);
	sigaction(SIGILL, &action, NULL);
	__asm__ volatile("ud2");
	SHOW(seen);
	SHOW(last_code);
	signal(SIGSEGV, SIG_DFL);
	signal(SIGILL, SIG_DFL);
}

static void restarts(void)
{
	int fds[2];
	char byte;
	if (pipe(fds))
		exit(1);
	struct itimerval soon = {.it_value = {0, 30000}}, none = {0};
	install(SIGALRM, note, 0);
	setitimer(ITIMER_REAL, &soon, NULL);
	SHOW(read(fds[0], &byte, 1));
	setitimer(ITIMER_REAL, &soon, NULL);
	SHOW(pause());
	setitimer(ITIMER_REAL, &soon, NULL);
	struct timespec span = {10, 0}, rest = {0};
	SHOW(nanosleep(&span, &rest));
	SHOW(rest.tv_sec);
	setitimer(ITIMER_REAL, &soon, NULL);
	SHOW(poll(NULL, 0, 5000));
	setitimer(ITIMER_REAL, &soon, NULL);
	sigset_t empty;
	sigemptyset(&empty);
	SHOW(sigsuspend(&empty));
	install(SIGALRM, note, SA_RESTART);
	pid_t child = fork();
	if (child == 0) {
		nap_ms(150);
		_exit(write(fds[1], "x", 1) != 1);
	}
	seen = 0;
	setitimer(ITIMER_REAL, &soon, NULL);
	SHOW(read(fds[0], &byte, 1));
	SHOW(seen == SIGALRM);
	setitimer(ITIMER_REAL, &soon, NULL);
	SHOW(wait(NULL) == child || errno == EINTR);
	setitimer(ITIMER_REAL, &none, NULL);
	SHOW(setitimer(9, &none, NULL));
	SHOW(setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {0, 1000000}}, NULL));
	SHOW(alarm(100));
	SHOW(alarm(0));
}

static void flags(void)
{
	install(SIGUSR1, note, SA_RESETHAND);
	raise(SIGUSR1);
	struct sigaction action;
	sigaction(SIGUSR1, NULL, &action);
	SHOW(action.sa_handler == SIG_DFL);
	install(SIGUSR1, note, SA_NODEFER | SA_RESTART);
	sigaction(SIGUSR1, NULL, &action);
	SHOW((action.sa_flags & ~0x04000000) == (SA_NODEFER | SA_RESTART));
	signal(SIGCHLD, SIG_IGN);
	pid_t child = fork();
	if (child == 0)
		_exit(3);
	SHOW(waitpid(child, NULL, 0));
	signal(SIGCHLD, SIG_DFL);
}

static void descriptors(void)
{
	sigset_t set;
	struct signalfd_siginfo info;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	int fd = signalfd(-1, &set, SFD_NONBLOCK);
	OK(fd);
	SHOW(read(fd, &info, sizeof info));
	raise(SIGUSR2);
	SHOW(read(fd, &info, sizeof info) == sizeof info);
	SHOW(info.ssi_signo);
	SHOW(read(fd, &info, 10));
	SHOW(signalfd(-1, &set, 0x123));
}

static void timers(void)
{
	timer_t timer;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2};
	event.sigev_value.sival_int = 99;
	struct sigaction action = {.sa_sigaction = note_info, .sa_flags = SA_SIGINFO};
	sigaction(SIGRTMIN + 2, &action, NULL);
	SHOW(timer_create(CLOCK_MONOTONIC, &event, &timer));
	struct itimerspec soon = {.it_value = {0, 20000000}}, left;
	SHOW(timer_settime(timer, 0, &soon, NULL));
	seen = 0;
	while (!seen)
		pause();
	SHOW(last_value);
	SHOW(last_code == SI_TIMER);
	SHOW(timer_gettime(timer, &left));
	SHOW(left.it_value.tv_sec + left.it_value.tv_nsec);
	SHOW(timer_getoverrun(timer));
	SHOW(timer_delete(timer));
	SHOW(timer_delete((timer_t)12345));
	SHOW(timer_create(77, &event, &timer));
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	errors();
	masks();
	queues();
	alternate_stack();
	faults();
	restarts();
	flags();
	descriptors();
	timers();
	return 0;
}
