/* Random mappings by several threads: each holds what was written there, and /proc/self/maps knows where it is.
 *
 * What the kernel thinks is mapped and what is mapped have to be the same, whoever chose the address and in whatever
 * order the threads' calls came. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, SLOTS = 24, ROUNDS = 1500, THREADS = 4, MOST_PAGES = 9 };

struct slot {
	unsigned char *start;
	size_t length;
	unsigned char tag;
};

struct crew {
	struct slot slots[SLOTS];
	unsigned seed;
};

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

static unsigned draw(struct crew *crew, unsigned below)
{
	return rand_r(&crew->seed) % below;
}

static void check(const struct slot *slot)
{
	for (size_t at = 0; at < slot->length; at += PAGE)
		if (slot->start[at] != slot->tag || slot->start[at + PAGE - 1] != slot->tag) {
			printf("lost: %p\n", (void *)slot->start);
			_exit(1);
		}
}

static void fill(struct slot *slot, unsigned char tag)
{
	slot->tag = tag;
	for (size_t at = 0; at < slot->length; at += PAGE)
		slot->start[at] = slot->start[at + PAGE - 1] = tag;
}

static void map(struct crew *crew, struct slot *slot, int flags)
{
	slot->length = (1 + draw(crew, MOST_PAGES)) * PAGE;
	size_t hints[] = {0x10000000000, (size_t)&hints & ~0x1fffffffUL}; /* the second one is above other mappings */
	void *hint = draw(crew, 8) ? NULL : (void *)(hints[draw(crew, 2)] + (size_t)draw(crew, 1000) * PAGE);
	slot->start = mmap(hint, slot->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	if (slot->start == MAP_FAILED)
		die("mmap");
	for (size_t at = 0; at < slot->length; at += PAGE)
		if (slot->start[at]) {
			printf("not fresh: %p\n", (void *)slot->start);
			_exit(1);
		}
	fill(slot, 1 + draw(crew, 255));
}

static void unmap(struct crew *crew, struct slot *slot)
{
	size_t most = slot->length / PAGE, cut = (1 + draw(crew, most)) * PAGE;
	if (munmap(slot->start + slot->length - cut, cut))
		die("munmap");
	slot->length -= cut;
}

static void move(struct crew *crew, struct slot *slot)
{
	size_t length = (1 + draw(crew, MOST_PAGES)) * PAGE;
	unsigned char *place = mremap(slot->start, slot->length, length, MREMAP_MAYMOVE);
	if (place == MAP_FAILED && errno == EFAULT)
		return; /* it has become several mappings */
	if (place == MAP_FAILED)
		die("mremap");
	slot->start = place;
	if (length <= slot->length)
		slot->length = length;
	else if (munmap(place + slot->length, length - slot->length))
		die("munmap of the rest");
}

static void replace(struct crew *crew, struct slot *slot)
{
	size_t at = draw(crew, slot->length / PAGE) * PAGE;
	if (mmap(slot->start + at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		die("mmap in place");
	if (slot->start[at])
		die("replaced");
	fill(slot, slot->tag);
}

static void protect(struct slot *slot)
{
	if (mprotect(slot->start, slot->length, PROT_READ))
		die("mprotect");
	check(slot);
	if (mprotect(slot->start, slot->length, PROT_READ | PROT_WRITE))
		die("mprotect back");
}

static void in_a_child(struct crew *crew)
{
	pid_t child = fork();
	if (child == 0) {
		for (int i = 0; i < SLOTS; i++)
			check(&crew->slots[i]);
		struct slot slot;
		map(crew, &slot, 0);
		check(&slot);
		_exit(0);
	}
	int status;
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		die("child");
}

static void *work(void *argument)
{
	struct crew *crew = argument;
	for (int round = 0; round < ROUNDS; round++) {
		struct slot *slot = &crew->slots[draw(crew, SLOTS)];
		check(slot);
		unsigned what = draw(crew, 16);
		if (!slot->length)
			map(crew, slot, what == 0 ? MAP_POPULATE : what == 1 ? MAP_STACK : what == 2 ? MAP_NORESERVE : 0);
		else if (what < 8)
			unmap(crew, slot);
		else if (what < 10)
			move(crew, slot);
		else if (what < 12)
			replace(crew, slot);
		else if (what < 15)
			protect(slot);
		else if (!draw(crew, 20))
			in_a_child(crew);
	}
	return NULL;
}

/* Whether the range is mapped according to /proc/self/maps. */
static int is_listed(size_t start, size_t end)
{
	char line[512];
	FILE *maps = fopen("/proc/self/maps", "r");
	while (fgets(line, sizeof line, maps)) {
		size_t first, last;
		if (sscanf(line, "%zx-%zx", &first, &last) == 2 && first <= start && start < last)
			start = last;
	}
	fclose(maps);
	return start >= end;
}

static sigjmp_buf back;

static void caught(int signo, siginfo_t *info, void *context)
{
	(void)context;
	printf("signal %d, code %d\n", signo, info->si_code);
	siglongjmp(back, 1);
}

/* What is between the mappings and the stack belongs to nobody. */
static void touch_the_gap(void)
{
	struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
	volatile char *gap = (char *)&action - (512 << 20);
	sigaction(SIGSEGV, &action, NULL);
	if (!sigsetjmp(back, 1))
		*gap = 1;
}

int main(void)
{
	touch_the_gap();
	static struct crew crews[THREADS];
	pthread_t threads[THREADS];
	crews[0].seed = 17;
	work(&crews[0]);
	puts("one thread");
	for (int i = 0; i < THREADS; i++) {
		crews[i].seed = 100 + i;
		if (pthread_create(&threads[i], NULL, work, &crews[i]))
			die("pthread_create");
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	puts("several threads");
	for (int i = 0; i < THREADS; i++)
		for (int j = 0; j < SLOTS; j++) {
			struct slot *slot = &crews[i].slots[j];
			check(slot);
			if (!is_listed((size_t)slot->start, (size_t)slot->start + slot->length))
				printf("not listed: %p\n", (void *)slot->start);
		}
	puts("listed");
	return 0;
}
