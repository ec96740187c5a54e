/* The vDSO: what it has, what its functions do with any argument, and what may be done with its mappings. */
#include "check.h"
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <setjmp.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <unwind.h>

static const char *const names[] = {"clock_gettime", "gettimeofday", "time", "clock_getres", "getcpu"};
static char *image;

/* As the kernel's own tools/testing/selftests/vDSO does, and Go, and musl: by the SysV hash table's symbol count. */
static void *find(const char *name, const char *version)
{
	Elf64_Ehdr *header = (void *)image;
	Elf64_Phdr *segments = (void *)(image + header->e_phoff);
	Elf64_Dyn *dynamic = NULL;
	Elf64_Word *hash = NULL;
	Elf64_Sym *symbols = NULL;
	Elf64_Versym *versions = NULL;
	Elf64_Verdef *definitions = NULL;
	char *strings = NULL;
	for (int i = 0; i < header->e_phnum; i++)
		if (segments[i].p_type == PT_DYNAMIC)
			dynamic = (void *)(image + segments[i].p_offset);
	for (; dynamic->d_tag; dynamic++) {
		char *there = image + dynamic->d_un.d_ptr;
		switch (dynamic->d_tag) {
		case DT_HASH: hash = (void *)there; break;
		case DT_SYMTAB: symbols = (void *)there; break;
		case DT_STRTAB: strings = there; break;
		case DT_VERSYM: versions = (void *)there; break;
		case DT_VERDEF: definitions = (void *)there; break;
		}
	}
	for (unsigned i = 0; i < hash[1]; i++) {
		Elf64_Verdef *definition = definitions;
		if (strcmp(strings + symbols[i].st_name, name) || symbols[i].st_shndx == SHN_UNDEF)
			continue;
		while (definition->vd_ndx != (versions[i] & 0x7fff))
			definition = (void *)((char *)definition + definition->vd_next);
		Elf64_Verdaux *its = (void *)((char *)definition + definition->vd_aux);
		if (!strcmp(strings + its->vda_name, version))
			return image + symbols[i].st_value;
	}
	return NULL;
}

static int on_object(struct dl_phdr_info *info, size_t size, void *data)
{
	if (info->dlpi_addr == (ElfW(Addr))image)
		printf("loaded object %s\n", info->dlpi_name);
	return 0;
}

static int met_caller;
static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context, void *data)
{
	Dl_info where;
	if (dladdr((void *)_Unwind_GetIP(context), &where) && where.dli_sname && !strcmp(where.dli_sname, "victim"))
		met_caller = 1;
	return _URC_NO_REASON;
}

static sigjmp_buf back;
static void on_fault(int signo, siginfo_t *info, void *context)
{
	char *ip = (char *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
	printf("signal %d at %p, in the vDSO: %d\n", signo, info->si_addr, ip >= image && ip < image + 8192);
	_Unwind_Backtrace(on_frame, NULL);
	printf("unwound to the caller: %d\n", met_caller);
	siglongjmp(back, 1);
}

static int (*v_gettime)(clockid_t, struct timespec *);
static int (*v_getres)(clockid_t, struct timespec *);
static int (*v_timeofday)(struct timeval *, struct timezone *);
static time_t (*v_time)(time_t *);
static long (*v_getcpu)(unsigned *, unsigned *, void *);

__attribute__((noinline)) void victim(void)
{
	v_gettime(CLOCK_MONOTONIC, (void *)8);
	puts("not reached");
}

static void clocks(void)
{
	struct timespec time, resolution, directly;
	/* The thread's clock, a bad one, all with a name (alarms need a device that wakes the machine), and no clocks'. */
	for (int clock = -2; clock < 16; clock++) {
		if (clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM)
			continue;
		int by_page = v_gettime(clock, &time), by_call = syscall(SYS_clock_gettime, clock, &directly);
		printf("clock %d: %d %s; ", clock, by_page, by_call ? strerrorname_np(errno) : "ok");
		if (!by_page)
			printf("%d ", llabs((directly.tv_sec - time.tv_sec) * 1000000000LL + directly.tv_nsec - time.tv_nsec) <
				2000000000LL && time.tv_nsec >= 0 && time.tv_nsec < 1000000000);
		by_page = v_getres(clock, &resolution);
		printf("resolution: %d %ld, %d\n", by_page, by_page ? 0 : resolution.tv_nsec, v_getres(clock, NULL));
	}
}

static void times(void)
{
	struct timeval value, later;
	struct timezone zone = {7, 7};
	time_t seconds = 0, first;
	unsigned cpu = 77, node = 77;
	SHOW(v_timeofday(&value, &zone));
	/* What the machine's administrator has set as time zone is none of our business. */
	SHOW(zone.tz_minuteswest != 7 && zone.tz_dsttime != 7);
	SHOW(v_timeofday(NULL, NULL));
	zone.tz_minuteswest = 7;
	SHOW(v_timeofday(NULL, &zone));
	SHOW(zone.tz_minuteswest != 7);
	first = v_time(&seconds);
	SHOW(first == seconds);
	SHOW(v_time(NULL) - first <= 1);
	SHOW(v_timeofday(&later, NULL));
	SHOW(later.tv_sec - value.tv_sec <= 1 && later.tv_usec < 1000000);
	SHOW(v_getcpu(&cpu, &node, NULL));
	SHOW(cpu < 1024 && node == 0);
	SHOW(v_getcpu(NULL, NULL, NULL));
}

/* Find a mapping in /proc/self/maps by its name. */
static char *mapping(const char *name, size_t *length)
{
	char line[512], *found = NULL;
	FILE *maps = fopen("/proc/self/maps", "r");
	while (fgets(line, sizeof line, maps)) {
		unsigned long start, end;
		if (strstr(line, name) && sscanf(line, "%lx-%lx", &start, &end) == 2) {
			found = (char *)start;
			*length = end - start;
			fputs(line + strcspn(line, " ") + 1, stdout);
		}
	}
	fclose(maps);
	return found;
}

static void mappings(void)
{
	size_t page_length = 0, code_length = 0;
	char *page = mapping("[vvar]", &page_length), *code = mapping("[vdso]", &code_length), *elsewhere, byte;
	struct timespec time;
	int memory = open("/proc/self/mem", O_RDWR);
	SHOW(code == image);
	SHOW(mprotect(page, page_length, PROT_READ | PROT_WRITE));
	SHOW(mprotect(page, page_length, PROT_READ | PROT_EXEC));
	SHOW(madvise(page, page_length, MADV_DONTNEED));
	SHOW(madvise(page, page_length, MADV_DODUMP));
	SHOW(madvise(code, code_length, MADV_DODUMP));
	SHOW(madvise(page, page_length, MADV_DOFORK));
	SHOW(mlock(code, code_length));
	SHOW(pwrite(memory, "", 1, (off_t)page));
	SHOW(read(memory, page, 1));
	SHOW((long)mremap(page, page_length, page_length + 4096, MREMAP_MAYMOVE));
	SHOW((long)mremap(code, code_length, code_length + 4096, MREMAP_MAYMOVE));
	SHOW(v_gettime(CLOCK_MONOTONIC, &time));
	/* A debugger's breakpoint in the image is the process's own. */
	SHOW(mprotect(code, code_length, PROT_READ | PROT_WRITE | PROT_EXEC));
	code[code_length - 1] = 0x5a;
	if (!fork()) {
		byte = code[code_length - 1];
		printf("the child sees %x\n", byte);
		SHOW(v_gettime(CLOCK_MONOTONIC, &time));
		exit(0);
	}
	wait(NULL);
	SHOW(mprotect(code, code_length, PROT_READ | PROT_EXEC));
	/* It can be put elsewhere, and stays what it is; without its data it is good for nothing. */
	elsewhere = mmap(NULL, code_length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	SHOW(mremap(code, code_length, code_length, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere) == elsewhere);
	SHOW(!memcmp(elsewhere, "\177ELF", 4));
	SHOW(mapping("[vdso]", &code_length) == elsewhere);
	SHOW(munmap(elsewhere, code_length));
	SHOW(munmap(page, page_length));
	SHOW(mapping("[vvar]", &page_length) == NULL);
}

int main(void)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	int tsc = 0;
	image = (char *)getauxval(AT_SYSINFO_EHDR);
	SHOW((unsigned long)image % 4096);
	SHOW(!memcmp(image, "\177ELF", 4));
	for (int i = 0; i < 5; i++) {
		char name[64] = "__vdso_";
		strcat(name, names[i]);
		printf("%s: %d, %d, other version: %d\n", names[i], find(name, "LINUX_2.6") != NULL,
			find(names[i], "LINUX_2.6") == find(name, "LINUX_2.6"), find(name, "LINUX_2.5") != NULL);
	}
	v_gettime = find("__vdso_clock_gettime", "LINUX_2.6");
	v_getres = find("__vdso_clock_getres", "LINUX_2.6");
	v_timeofday = find("__vdso_gettimeofday", "LINUX_2.6");
	v_time = find("__vdso_time", "LINUX_2.6");
	v_getcpu = find("__vdso_getcpu", "LINUX_2.6");
	dl_iterate_phdr(on_object, NULL);
	clocks();
	times();
	/* It reads the time stamp counter, which a process may do unless it does not want to. */
	SHOW(prctl(PR_GET_TSC, &tsc));
	SHOW(tsc);
	SHOW(prctl(PR_SET_TSC, PR_TSC_ENABLE));
	SHOW(prctl(PR_SET_TSC, 7));
	SHOW(prctl(PR_GET_TSC, NULL));
	sigaction(SIGSEGV, &action, NULL);
	if (!sigsetjmp(back, 1))
		victim();
	fflush(stdout);
	mappings();
	return 0;
}
