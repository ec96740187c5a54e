/* Memory across fork, files, limits and faults: what is inherited, what is shared, which signal a touch raises. */
#include "check.h"
#include <setjmp.h>

#define P 4096UL
#define RW (PROT_READ | PROT_WRITE)

static sigjmp_buf back;
static siginfo_t seen;

static void on_fault(int signo, siginfo_t *info, void *context)
{
	(void)context;
	seen = *info;
	siglongjmp(back, signo);
}

static void touch(const char *what, volatile char *address, int write)
{
	int signo = sigsetjmp(back, 1);
	if (signo == 0) {
		if (write)
			*address = 1;
		else
			(void)*address;
		printf("%s: ok\n", what);
	} else {
		printf("%s: signal %d code %d address %s\n", what, signo, seen.si_code,
		       seen.si_addr == (void *)address ? "right" : "wrong");
	}
	fflush(stdout);
}

static char *map(size_t pages, int prot, int flags, int fd, off_t offset)
{
	char *address = mmap(NULL, pages * P, prot, flags, fd, offset);
	if (address == MAP_FAILED) {
		printf("mmap: %s\n", strerrorname_np(errno));
		exit(1);
	}
	return address;
}

static void inheritance(void)
{
	char *memory = map(8, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *shared = map(2, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memset(memory, 'm', 8 * P);
	strcpy(shared, "before");
	SHOW(madvise(memory + P, P, MADV_DONTFORK));
	SHOW(madvise(memory + 3 * P, P, MADV_WIPEONFORK));
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		touch("dontfork", memory + P, 0);
		printf("wiped %d, copied %c, shared %s\n", memory[3 * P], memory[5 * P], shared);
		SHOW(madvise(memory + P, P, MADV_DOFORK));
		strcpy(shared, "after");
		memory[5 * P] = 'c';
		pid_t grandchild = fork();
		if (grandchild == 0) {
			strcat(shared, " twice");
			printf("wiped again %d, copied %c\n", memory[3 * P], memory[5 * P]);
			fflush(stdout);
			_exit(0);
		}
		waitpid(grandchild, NULL, 0);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	printf("parent's %c, shared %s, dontfork still here %c\n", memory[5 * P], shared, memory[P]);
	munmap(memory, 8 * P);
	munmap(shared, 2 * P);
}

static void files(void)
{
	char text[32] = {0};
	int fd = open("file", O_CREAT | O_RDWR, 0600);
	SHOW(ftruncate(fd, 100));
	char *shared = map(2, RW, MAP_SHARED, fd, 0), *private = map(2, RW, MAP_PRIVATE, fd, 0);
	strcpy(shared, "through the mapping");
	SHOW(pread(fd, text, 20, 0));
	printf("%s\n", text);
	SHOW(pwrite(fd, "by write", 9, 0));
	printf("%s, %s\n", shared, private);
	private[0] = 'B';
	SHOW(pwrite(fd, "again", 6, 0));
	printf("%s, %s\n", shared, private);
	touch("behind the end", shared + P, 0);
	touch("in the last page", shared + 200, 1);
	SHOW(read(fd, shared + P, 10));
	SHOW(ftruncate(fd, 2 * P));
	touch("file grown", shared + P, 1);
	SHOW(msync(shared, 2 * P, MS_SYNC));
	SHOW(madvise(shared + P, P, MADV_REMOVE));
	printf("hole %d\n", shared[P]);
	SHOW(ftruncate(fd, 0));
	touch("truncated", shared, 0);
	SHOW(unlink("file"));
	SHOW(ftruncate(fd, P));
	touch("unlinked", shared, 1);
	SHOW(close(fd));
	touch("closed", shared, 1);
	int zero = open("/dev/zero", O_RDWR);
	char *zeros = map(1, RW, MAP_PRIVATE, zero, 0), *common = map(1, RW, MAP_SHARED, zero, 0);
	touch("/dev/zero private", zeros, 1);
	touch("/dev/zero shared", common, 1);
	int pipes[2], directory = open(".", O_RDONLY), null = open("/dev/null", O_RDWR);
	SHOW(pipe(pipes));
	SHOW((long)mmap(NULL, P, PROT_READ, MAP_SHARED, pipes[0], 0));
	SHOW((long)mmap(NULL, P, PROT_READ, MAP_SHARED, directory, 0));
	SHOW((long)mmap(NULL, P, PROT_READ, MAP_SHARED, null, 0));
	SHOW((long)mmap(NULL, P, PROT_READ, MAP_SHARED, open("/proc/self/status", O_RDONLY), 0));
	int path = open("/dev/zero", O_PATH);
	SHOW((long)mmap(NULL, P, PROT_READ, MAP_SHARED, path, 0));
	munmap(shared, 2 * P);
	munmap(private, 2 * P);
}

static void faults(void)
{
	char *memory = map(4, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), word[8];
	int pipes[2];
	SHOW(mprotect(memory + P, P, PROT_READ));
	SHOW(mprotect(memory + 2 * P, P, PROT_NONE));
	SHOW(munmap(memory + 3 * P, P));
	touch("write read-only", memory + P, 1);
	touch("read none", memory + 2 * P, 0);
	touch("unmapped", memory + 3 * P, 0);
	touch("null", NULL, 1);
	SHOW(pipe(pipes));
	SHOW(write(pipes[1], memory + P, 4));
	SHOW(write(pipes[1], memory + 2 * P, 4));
	SHOW(read(pipes[0], memory + P, 2));
	SHOW(read(pipes[0], word, 8));
	SHOW(mprotect(memory + P, P, PROT_EXEC));
	touch("read executable", memory + P, 0);
	SHOW(mprotect(memory + P, P, PROT_WRITE));
	touch("read write-only", memory + P, 0);
	SHOW(mprotect(memory + P, P, PROT_READ));
	int signo = sigsetjmp(back, 1);
	if (signo == 0)
		((void (*)(void))(memory + P))();
	printf("execute data: signal %d code %d\n", signo, seen.si_code);
}

static int deep(int depth)
{
	volatile char room[16384];
	room[0] = depth;
	return depth ? deep(depth - 1) + room[0] : 0;
}

static void in_child(const char *what, void (*body)(void))
{
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		body();
		fflush(stdout);
		_exit(0);
	}
	int status;
	waitpid(pid, &status, 0);
	show_status(what, status & ~0x80);
}

static void limit(int resource, rlim_t value)
{
	struct rlimit limits;
	getrlimit(resource, &limits);
	limits.rlim_cur = value;
	OK(setrlimit(resource, &limits));
}

static void within_stack(void)
{
	deep(400);
}

static void beyond_stack(void)
{
	deep(700);
}

static void raised_stack(void)
{
	limit(RLIMIT_STACK, 64 << 20);
	deep(3000);
}

static void address_space(void)
{
	limit(RLIMIT_AS, 64 << 20);
	SHOW((long)mmap(NULL, 100 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	OK(mmap(NULL, 10 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	limit(RLIMIT_AS, 1 << 20);
	SHOW((long)mmap(NULL, P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

static void data(void)
{
	limit(RLIMIT_DATA, 4 << 20);
	SHOW((long)mmap(NULL, 8 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	OK(mmap(NULL, 8 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	OK(mmap(NULL, 8 << 20, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	SHOW((long)sbrk(8 << 20));
}

static void map_count(void)
{
	char *memory = map(70000, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int made = 0;
	while (made < 35000 && mprotect(memory + 2 * made * P, P, PROT_READ) == 0)
		made++;
	printf("stopped by %s, about right %d\n", strerrorname_np(errno), made > 32600 && made < 32800);
}

static void grows_down(void)
{
	char *area = map(1024, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(area, 1024 * P);
	char *stack = mmap(area + 1000 * P, 4 * P, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
	printf("placed %d\n", stack == area + 1000 * P);
	signal(SIGSEGV, SIG_DFL);
	stack[-1] = 1;
	stack[-20 * (long)P] = 1;
	printf("grown\n");
}

static void locks(void)
{
	char *memory = map(64, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	limit(RLIMIT_MEMLOCK, 16 * P);
	OK(setuid(1));
	SHOW(mlock(memory, 8 * P));
	SHOW(mlock(memory, 16 * P));
	SHOW(mlock(memory + 16 * P, P));
	SHOW((long)mmap(NULL, P, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0));
	SHOW(mlockall(MCL_CURRENT));
	SHOW(munlock(memory, 64 * P));
	SHOW(mlockall(MCL_FUTURE));
	SHOW((long)mmap(NULL, 32 * P, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	SHOW(munlockall());
	limit(RLIMIT_MEMLOCK, 0);
	SHOW(mlock(memory, P));
	SHOW(mlockall(MCL_CURRENT));
}

/* With an argument: stacks that grow by faults. */
int main(int argc, char **argv)
{
	(void)argv;
	static char stack[65536];
	stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	sigaltstack(&alternate, NULL);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	if (argc > 1) {
		in_child("raised stack", raised_stack);
		in_child("MAP_GROWSDOWN", grows_down);
		return 0;
	}
	inheritance();
	files();
	faults();
	in_child("within the stack", within_stack);
	in_child("beyond the stack", beyond_stack);
	in_child("RLIMIT_AS", address_space);
	in_child("RLIMIT_DATA", data);
	in_child("max_map_count", map_count);
	if (geteuid() == 0)
		in_child("locks", locks);
	return 0;
}
