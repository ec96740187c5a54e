/* Memory: mmap, mprotect, mremap, brk, madvise, shared mappings, futexes: results and errnos. */
#include "check.h"
#include <linux/futex.h>
#include <setjmp.h>

enum { PAGE = 4096 };
static sigjmp_buf back;

static void jump_back(int signo)
{
	siglongjmp(back, signo);
}

/* Return the signal that reading (or writing) a byte raises, 0 for none. */
static int touch(volatile char *address, int write)
{
	int signo = sigsetjmp(back, 1);
	if (signo == 0) {
		if (write)
			*address = 1;
		else
			(void)*address;
	}
	return signo;
}

static void mappings(void)
{
	SHOW((long)mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	SHOW((long)mmap(NULL, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0));
	SHOW((long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 99, 0));
	SHOW((long)mmap((void *)123, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	SHOW((long)mmap(NULL, 1UL << 60, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	char *area = mmap(NULL, 10 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(area, 7, 10 * PAGE);
	SHOW(mprotect(area + PAGE, PAGE, PROT_READ));
	SHOW(touch(area + PAGE, 0));
	SHOW(touch(area + PAGE, 1));
	SHOW(mprotect(area + PAGE, PAGE, PROT_NONE));
	SHOW(touch(area + PAGE, 0));
	SHOW(touch(area + 2 * PAGE, 1));
	SHOW(munmap(area + 3 * PAGE, PAGE));
	SHOW(touch(area + 3 * PAGE, 0));
	SHOW(mprotect(area, 10 * PAGE, PROT_READ));
	SHOW(munmap(area + 1, PAGE));
	SHOW(munmap(area, 0));
	SHOW(mprotect(area + 1, PAGE, PROT_READ));
	SHOW(mprotect(area, PAGE, 0x1000));
	char *hole = area + 3 * PAGE;
	SHOW(mmap(hole, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == hole);
	SHOW((long)mmap(hole, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
	SHOW(madvise(area + 4 * PAGE, PAGE, MADV_DONTNEED));
	SHOW(area[4 * PAGE]);
	SHOW(area[5 * PAGE]);
	SHOW(madvise(area, PAGE, 9999));
	SHOW(madvise((void *)(16UL * PAGE), PAGE, MADV_DONTNEED));
	unsigned char core[10];
	SHOW(mincore(area, 2 * PAGE, core));
	SHOW(mincore(area + 1, PAGE, core));
	SHOW(mlock(area, PAGE));
	SHOW(munlock(area, PAGE));
	SHOW(msync(area, PAGE, MS_SYNC));
	SHOW(msync(area, PAGE, MS_SYNC | MS_ASYNC));
	SHOW(munmap(area, 10 * PAGE));
	SHOW(msync(area, PAGE, MS_SYNC));
}

static void remaps(void)
{
	char *area = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	area[0] = 'a';
	area[3 * PAGE] = 'z';
	SHOW(mremap(area, 4 * PAGE, 2 * PAGE, 0) == area);
	SHOW(touch(area + 3 * PAGE, 0));
	char *moved = mremap(area, 2 * PAGE, 100 * PAGE, MREMAP_MAYMOVE);
	SHOW(moved[0]);
	SHOW(touch(moved + 99 * PAGE, 1));
	SHOW((long)mremap(moved, PAGE, 0, 0));
	SHOW((long)mremap(moved + 1, PAGE, PAGE, 0));
	SHOW((long)mremap((void *)(16UL * PAGE), PAGE, 2 * PAGE, MREMAP_MAYMOVE));
	SHOW((long)mremap(moved, PAGE, PAGE, MREMAP_FIXED, NULL));
	munmap(moved, 100 * PAGE);
}

static void heap(void)
{
	char *end = sbrk(0);
	SHOW(sbrk(10 * PAGE) == end);
	SHOW(touch(end + 9 * PAGE, 1));
	SHOW(brk(end));
	SHOW(touch(end + 9 * PAGE, 0));
	SHOW(brk((void *)(1UL << 46)));
	char *blocks[200];
	for (int i = 0; i < 200; i++)
		memset(blocks[i] = malloc(1000 * i + 1), i, 1000 * i + 1);
	for (int i = 0; i < 200; i++)
		free(blocks[i]);
}

static void files(void)
{
	int fd = open("mapped", O_CREAT | O_RDWR | O_TRUNC, 0600), status;
	SHOW(ftruncate(fd, 3 * PAGE));
	char *shared = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	char *private = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	char buffer[10] = {0};
	SHOW(pwrite(fd, "written", 7, PAGE));
	printf("%s %s\n", shared + PAGE, private + PAGE);
	strcpy(shared + PAGE, "mapped!");
	SHOW(pread(fd, buffer, 7, PAGE));
	printf("%s %s\n", buffer, private + PAGE);
	strcpy(private + PAGE, "mine");
	SHOW(pread(fd, buffer, 7, PAGE));
	printf("%s\n", buffer);
	pid_t child = fork();
	if (child == 0) {
		strcpy(shared, "from the child");
		strcpy(private, "not seen");
		_exit(0);
	}
	waitpid(child, &status, 0);
	printf("%s|%s\n", shared, private);
	SHOW(ftruncate(fd, PAGE));
	SHOW(touch(shared, 0));
	SHOW(touch(shared + 2 * PAGE, 0));
	SHOW(msync(shared, 3 * PAGE, MS_SYNC));
	SHOW((long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 1));
	close(fd);
	SHOW(touch(shared, 1));
	fd = open("mapped", O_RDONLY);
	SHOW((long)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	OK((long)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	shared = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	SHOW(mprotect(shared, PAGE, PROT_READ | PROT_WRITE));
	close(fd);
	fd = open("mapped", O_WRONLY);
	SHOW((long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0));
	close(fd);
	fd = open(".", O_RDONLY);
	SHOW((long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0));
	close(fd);
	fd = memfd_create("name", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	SHOW(ftruncate(fd, PAGE));
	SHOW(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_WRITE));
	SHOW(fcntl(fd, F_GET_SEALS));
	SHOW(ftruncate(fd, 2 * PAGE));
	SHOW(write(fd, "x", 1));
	close(fd);
	SHOW(memfd_create("name", 0x8000));
}

static int *word;

static void *wake_later(void *unused)
{
	nap_ms(80);
	__atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, word, FUTEX_WAKE, 10, NULL, NULL, 0);
	return unused;
}

static void futexes(void)
{
	int local = 0;
	struct timespec little = {0, 30000000};
	word = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	SHOW(syscall(SYS_futex, &local, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0));
	SHOW(syscall(SYS_futex, &local, FUTEX_WAIT_PRIVATE, 0, &little, NULL, 0));
	SHOW(syscall(SYS_futex, &local, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
	SHOW(syscall(SYS_futex, (char *)&local + 1, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0));
	SHOW(syscall(SYS_futex, (int *)8, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0));
	SHOW(syscall(SYS_futex, &local, 77, 0, NULL, NULL, 0));
	SHOW(syscall(SYS_futex, &local, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0));
	SHOW(syscall(SYS_futex, &local, FUTEX_WAIT_PRIVATE, 0, &(struct timespec){0, -1}, NULL, 0));
	pthread_t thread;
	pthread_create(&thread, NULL, wake_later, NULL);
	SHOW(syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0));
	pthread_join(thread, NULL);
	*word = 0;
	pid_t child = fork();
	if (child == 0) {
		wake_later(NULL);
		_exit(0);
	}
	SHOW(syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0));
	SHOW(waitpid(child, NULL, 0) == child);

	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_t *mutex = (pthread_mutex_t *)(word + 16);
	pthread_mutex_init(mutex, &attributes);
	child = fork();
	if (child == 0) {
		pthread_mutex_lock(mutex);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	SHOW(pthread_mutex_lock(mutex) == EOWNERDEAD);
	SHOW(pthread_mutex_consistent(mutex));
	SHOW(pthread_mutex_unlock(mutex));
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGSEGV, jump_back);
	signal(SIGBUS, jump_back);
	mappings();
	remaps();
	heap();
	files();
	futexes();
	return 0;
}
