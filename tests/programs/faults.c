/* Die by the fault that the argument names. */
#include "check.h"

static int grow(int depth)
{
	volatile char room[4096];
	room[0] = (char)depth;
	return grow(depth + 1) + room[0];
}

static void touch_beyond_the_end_of_a_file(void)
{
	int fd = open(".", O_TMPFILE | O_RDWR, 0600);
	volatile char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	*page = 1;
}

int main(int argc, char **argv)
{
	const char *fault = argc > 1 ? argv[1] : "";
	volatile int zero = 0;
	if (!strcmp(fault, "null"))
		*(volatile int *)(intptr_t)zero = 1;
	if (!strcmp(fault, "write-to-code"))
		*(volatile char *)(intptr_t)main = 0;
	if (!strcmp(fault, "jump-to-data")) {
		static char data[16] = {(char)0xc3};
		((void (*)(void))(intptr_t)data)();
	}
	if (!strcmp(fault, "divide"))
		__asm__ volatile("xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; idiv %%ecx" ::: "eax", "ecx", "edx");
	if (!strcmp(fault, "illegal"))
		__asm__ volatile("ud2");
	if (!strcmp(fault, "trap"))
		__asm__ volatile("int3");
	if (!strcmp(fault, "stack"))
		return grow(0);
	if (!strcmp(fault, "abort"))
		abort();
	if (!strcmp(fault, "bus"))
		touch_beyond_the_end_of_a_file();
	return 0;
}
