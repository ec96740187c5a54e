/* Signals within one process: prints what it sees; native Linux is the oracle. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int count;
static siginfo_t seen[64];
static int order[64];
static int nested;

static void on_info(int signo, siginfo_t *info, void *context)
{
	(void)context;
	if (count < 64) {
		seen[count] = *info;
		order[count] = signo;
	}
	count++;
}

static void report(const char *what, long result)
{
	printf("%s %ld %s\n", what, result, result < 0 ? strerror(errno) : "");
}

static void catch_with(int signo, void (*handler)(int, siginfo_t *, void *), int flags, sigset_t *mask)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
	if (mask)
		action.sa_mask = *mask;
	if (sigaction(signo, &action, NULL))
		perror("sigaction");
}

static sigset_t set_of(int first, int second)
{
	sigset_t set;
	sigemptyset(&set);
	if (first)
		sigaddset(&set, first);
	if (second)
		sigaddset(&set, second);
	return set;
}

static void senders(void)
{
	union sigval value = {.sival_int = 77};
	count = 0;
	catch_with(SIGUSR1, on_info, 0, NULL);
	catch_with(SIGRTMIN + 3, on_info, 0, NULL);
	kill(getpid(), SIGUSR1);
	raise(SIGUSR1);
	sigqueue(getpid(), SIGRTMIN + 3, value);
	for (int i = 0; i < count; i++)
		printf("sender %d: signo %d code %d pid %d uid %d value %d\n", i, seen[i].si_signo - (i == 2 ? SIGRTMIN : 0),
		       seen[i].si_code, seen[i].si_pid == getpid(), seen[i].si_uid == getuid(),
		       i == 2 ? seen[i].si_value.sival_int : 0);
}

static void masks_and_order(void)
{
	sigset_t all, old, pending;
	union sigval value;
	int signals[] = {SIGUSR2, SIGUSR1, SIGRTMIN + 5, SIGRTMIN + 4, SIGTERM, SIGUSR1};
	sigfillset(&all);
	count = 0;
	for (unsigned i = 0; i < 6; i++)
		catch_with(signals[i], on_info, 0, &all);
	sigprocmask(SIG_BLOCK, &all, &old);
	for (unsigned i = 0; i < 6; i++) {
		value.sival_int = i;
		sigqueue(getpid(), signals[i], value);
	}
	value.sival_int = 100;
	sigqueue(getpid(), SIGRTMIN + 5, value);
	sigpending(&pending);
	printf("pending %d %d %d %d\n", sigismember(&pending, SIGUSR1), sigismember(&pending, SIGTERM),
	       sigismember(&pending, SIGRTMIN + 5), sigismember(&pending, SIGHUP));
	sigprocmask(SIG_SETMASK, &old, NULL);
	for (int i = 0; i < count; i++)
		printf("order %d: %d value %d\n", i, order[i] >= SIGRTMIN ? 100 + order[i] - SIGRTMIN : order[i],
		       seen[i].si_value.sival_int);
}

static void on_nested(int signo)
{
	nested++;
	if (nested < 3)
		raise(signo);
	printf("leave %d\n", nested);
	nested--;
}

static void nodefer_and_reset(void)
{
	struct sigaction action = {.sa_handler = on_nested, .sa_flags = SA_NODEFER}, now;
	sigaction(SIGUSR1, &action, NULL);
	raise(SIGUSR1);
	count = 0;
	catch_with(SIGUSR2, on_info, SA_RESETHAND, NULL);
	raise(SIGUSR2);
	sigaction(SIGUSR2, NULL, &now);
	printf("reset %d %d flags %x\n", count, now.sa_handler == SIG_DFL, now.sa_flags & ~0x04000000);
}

static void *interrupter(void *argument)
{
	pthread_t *target = argument;
	usleep(100000);
	pthread_kill(*target, SIGUSR1);
	usleep(200000);
	pthread_kill(*target, SIGUSR2);
	return NULL;
}

static void restarting(void)
{
	int fds[2];
	char byte;
	pthread_t self = pthread_self(), thread;
	count = 0;
	if (pipe(fds))
		return;
	catch_with(SIGUSR1, on_info, SA_RESTART, NULL);
	catch_with(SIGUSR2, on_info, 0, NULL);
	pthread_create(&thread, NULL, interrupter, &self);
	ssize_t got = read(fds[0], &byte, 1);
	printf("read %zd %s after %d\n", got, strerror(errno), count);
	pthread_join(thread, NULL);
	close(fds[0]);
	close(fds[1]);
}

static void *kill_self_later(void *argument)
{
	(void)argument;
	usleep(100000);
	kill(getpid(), SIGUSR1);
	return NULL;
}

static void suspending(void)
{
	pthread_t thread;
	sigset_t block = set_of(SIGUSR1, 0), empty = set_of(0, 0), now;
	count = 0;
	catch_with(SIGUSR1, on_info, SA_RESTART, NULL);
	sigprocmask(SIG_BLOCK, &block, NULL);
	pthread_create(&thread, NULL, kill_self_later, NULL);
	int result = sigsuspend(&empty);
	sigprocmask(SIG_SETMASK, NULL, &now);
	printf("sigsuspend %d %s handled %d blocked again %d\n", result, strerror(errno), count,
	       sigismember(&now, SIGUSR1));
	pthread_join(thread, NULL);
	kill(getpid(), SIGUSR1);
	count = 0;
	result = sigsuspend(&empty);
	printf("sigsuspend pending %d %s handled %d\n", result, strerror(errno), count);
	pthread_create(&thread, NULL, kill_self_later, NULL);
	siginfo_t info;
	struct timespec zero = {0, 0}, ten = {10, 0}, some = {0, 50000000};
	report("sigtimedwait empty", sigtimedwait(&block, &info, &zero));
	printf("sigtimedwait got %d", sigtimedwait(&block, &info, &ten) == SIGUSR1);
	printf(" code %d handled %d\n", info.si_code, count);
	pthread_join(thread, NULL);
	report("sigtimedwait late", sigtimedwait(&block, &info, &some));
	sigprocmask(SIG_UNBLOCK, &block, NULL);
}

static char stack[65536];
static volatile long handler_sp;
static void on_stack(int signo)
{
	char here;
	stack_t now;
	handler_sp = (long)&here;
	sigaltstack(NULL, &now);
	printf("on stack %d signo %d flags %d\n", &here > stack && &here < stack + sizeof stack, signo, now.ss_flags);
	stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
	report("change", sigaltstack(&other, NULL));
}

static void altstack(void)
{
	stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack}, now, small = {.ss_sp = stack, .ss_size = 100};
	struct sigaction action = {.sa_handler = on_stack, .sa_flags = SA_ONSTACK};
	sigaltstack(&alt, NULL);
	sigaction(SIGUSR1, &action, NULL);
	raise(SIGUSR1);
	sigaltstack(NULL, &now);
	printf("after flags %d same %d size %zu\n", now.ss_flags, now.ss_sp == stack, now.ss_size);
	report("small", sigaltstack(&small, NULL));
	small.ss_flags = 8;
	report("flags", sigaltstack(&small, NULL));
	alt.ss_flags = SS_DISABLE;
	sigaltstack(&alt, NULL);
	sigaltstack(NULL, &now);
	printf("disabled %d\n", now.ss_flags);
}

static sigjmp_buf jump;
static siginfo_t fault;
static void on_fault(int signo, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	(void)signo;
	fault = *info;
	if (uc->uc_mcontext.gregs[REG_TRAPNO] == 3) {
		printf("trap resumed\n");
		return;
	}
	siglongjmp(jump, 1);
}

static void faults(void)
{
	int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
	for (int i = 0; i < 5; i++)
		catch_with(signals[i], on_fault, 0, NULL);
	volatile int zero = 0;
	char *read_only = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!sigsetjmp(jump, 1))
		*(volatile char *)16 = 1;
	printf("null: %d code %d address %p\n", fault.si_signo, fault.si_code, fault.si_addr);
	if (!sigsetjmp(jump, 1))
		*(volatile char *)(read_only + 5) = 1;
	printf("read-only: %d code %d offset %ld\n", fault.si_signo, fault.si_code, (char *)fault.si_addr - read_only);
	if (!sigsetjmp(jump, 1))
		zero = 1 / zero;
	printf("divide: %d code %d\n", fault.si_signo, fault.si_code);
	if (!sigsetjmp(jump, 1))
		__asm__ volatile("ud2");
	printf("illegal: %d code %d\n", fault.si_signo, fault.si_code);
	if (!sigsetjmp(jump, 1))
		*(volatile char *)0x8000000000000000UL = 1;
	printf("non-canonical: %d code %d address %p\n", fault.si_signo, fault.si_code, fault.si_addr);
	__asm__ volatile("int3");
	printf("int3: %d code %d\n", fault.si_signo, fault.si_code);
}

static void on_change(int signo, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	(void)signo, (void)info;
	uc->uc_mcontext.gregs[REG_R12] = 4242;
	sigaddset(&uc->uc_sigmask, SIGHUP);
	__asm__ volatile("xorps %%xmm5, %%xmm5\n\tfldz" ::: "xmm5");
}

static void context(void)
{
	catch_with(SIGUSR1, on_change, 0, NULL);
	long r12, result;
	double kept;
	sigset_t now;
	double value = 2.5;
	__asm__ volatile("mov $7, %%r12\n\tmovsd %3, %%xmm5\n\tsyscall\n\tmov %%r12, %0\n\tmovsd %%xmm5, %2"
			 : "=r"(r12), "=a"(result), "=m"(kept)
			 : "m"(value), "a"(SYS_kill), "D"(getpid()), "S"(SIGUSR1)
			 : "r12", "rcx", "r11", "xmm5", "memory");
	sigprocmask(SIG_SETMASK, NULL, &now);
	printf("context r12 %ld result %ld xmm5 %.1f hup %d\n", r12, result, kept, sigismember(&now, SIGHUP));
	sigemptyset(&now);
	sigprocmask(SIG_SETMASK, &now, NULL);
}

static void errors(void)
{
	struct sigaction action = {.sa_handler = SIG_IGN};
	report("kill action", sigaction(SIGKILL, &action, NULL));
	report("signo 65", syscall(SYS_rt_sigaction, 65, NULL, NULL, 8));
	report("size", syscall(SYS_rt_sigaction, 1, NULL, NULL, 4));
	report("how", syscall(SYS_rt_sigprocmask, 9, &action, NULL, 8));
	report("efault", syscall(SYS_rt_sigprocmask, 0, 8, NULL, 8));
	report("kill 65", kill(getpid(), 65));
	printf("kill 0 %d\n", kill(getpid(), 0));
	report("kill none", kill(4000000, 0));
	report("tgkill", syscall(SYS_tgkill, getpid(), 4000000, 0));
	report("tgkill 0", syscall(SYS_tgkill, 0, 1, 0));
	report("restart_syscall", syscall(SYS_restart_syscall));
	siginfo_t info = {.si_code = SI_USER};
	printf("queue %ld\n", syscall(SYS_rt_sigqueueinfo, getpid(), 0, &info));
	report("queue other", syscall(SYS_rt_sigqueueinfo, 1, 0, &info));
}

static void limit(void)
{
	struct rlimit few = {4, 4};
	union sigval value = {.sival_int = 1};
	sigset_t block = set_of(SIGRTMIN + 1, SIGUSR1);
	int queued = 0;
	setrlimit(RLIMIT_SIGPENDING, &few);
	signal(SIGRTMIN + 1, SIG_IGN);
	sigprocmask(SIG_BLOCK, &block, NULL);
	for (int i = 0; i < 10; i++)
		queued += sigqueue(getpid(), SIGRTMIN + 1, value) == 0;
	printf("limit %s %s kill %d\n", queued <= 4 ? "kept" : "broken", strerror(errno), kill(getpid(), SIGUSR1));
	sigprocmask(SIG_UNBLOCK, &block, NULL);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	senders();
	masks_and_order();
	nodefer_and_reset();
	restarting();
	suspending();
	altstack();
	faults();
	context();
	errors();
	signal(SIGUSR1, SIG_IGN);
	limit();
	return 0;
}
