/* Memory system calls, their results and errnos, with every address made relative: native and sandbox must print the same. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define P 4096UL
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static char *base; /* an area of 64 pages that the tests carve up */

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    long result = syscall(number, a, b, c, d, e, f);
    return result == -1 ? -errno : result;
}

static void show(const char *what, long result)
{
    if (result >= (long)base && result <= (long)(base + 64 * P))
        printf("%-32s base+%ld\n", what, (result - (long)base) / (long)P);
    else if (result > 4096 || result < -4095)
        printf("%-32s elsewhere\n", what);
    else
        printf("%-32s %ld\n", what, result);
}

#define MMAP(a, l, p, fl, fd, o) call(SYS_mmap, (long)(a), (long)(l), p, fl, fd, (long)(o))
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW (PROT_READ | PROT_WRITE)

static void fresh(void)
{
    MMAP(base, 64 * P, RW, ANON | MAP_FIXED, -1, 0);
}

static void maps(const char *title)
{
    static char text[1 << 16];
    int fd = open("/proc/self/maps", O_RDONLY);
    long n = 0, k;
    if (fd < 0)
        return;
    while ((k = read(fd, text + n, sizeof text - 1 - n)) > 0)
        n += k;
    close(fd);
    text[n] = 0;
    printf("%s\n", title);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned long from, to, offset;
        char perms[8];
        sscanf(line, "%lx-%lx %7s %lx", &from, &to, perms, &offset);
        if (to > (unsigned long)base && from < (unsigned long)(base + 64 * P))
            printf("  %ld-%ld %s %lx\n", (long)(from - (unsigned long)base) / (long)P,
                   (long)(to - (unsigned long)base) / (long)P, perms, offset);
    }
}

static void test_mmap(int fd, int read_only, int write_only)
{
    show("mmap length 0", MMAP(0, 0, RW, ANON, -1, 0));
    show("mmap length huge", MMAP(0, 1UL << 47, RW, ANON | MAP_NORESERVE, -1, 0));
    show("mmap length wraps", MMAP(0, -1UL, RW, ANON, -1, 0));
    show("mmap no type", MMAP(0, P, RW, MAP_ANONYMOUS, -1, 0));
    show("mmap bad fd", MMAP(0, P, RW, MAP_PRIVATE, 99, 0));
    show("mmap odd offset", MMAP(0, P, RW, MAP_PRIVATE, fd, 5));
    show("mmap fixed unaligned", MMAP(base + 1, P, RW, ANON | MAP_FIXED, -1, 0));
    show("mmap fixed beyond", MMAP(0x7ffffffff000UL, P, RW, ANON | MAP_FIXED, -1, 0));
    show("mmap fixed kernel", MMAP(-P, P, RW, ANON | MAP_FIXED, -1, 0));
    show("mmap noreplace", MMAP(base, P, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    show("mmap noreplace free", (call(SYS_munmap, (long)(base + 8 * P), P, 0, 0, 0, 0),
                                 MMAP(base + 8 * P, P, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0)));
    show("mmap fixed", MMAP(base + 3 * P, P, PROT_READ, ANON | MAP_FIXED, -1, 0));
    printf("mmap hint taken                  %d\n", MMAP(base, P, RW, ANON, -1, 0) != (long)base);
    show("mmap hint free", (call(SYS_munmap, (long)(base + 9 * P), P, 0, 0, 0, 0), MMAP(base + 9 * P, P, RW, ANON, -1, 0)));
    show("mmap hint odd", (call(SYS_munmap, (long)(base + 9 * P), 2 * P, 0, 0, 0, 0),
                           MMAP(base + 9 * P + 1, P, RW, ANON, -1, 0)));
    show("mmap hugetlb", MMAP(0, P, RW, ANON | MAP_HUGETLB, -1, 0));
    show("mmap hugetlb file", MMAP(0, P, RW, MAP_PRIVATE | MAP_HUGETLB, fd, 0));
    show("mmap shared growsdown", MMAP(0, P, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0));
    show("mmap validate anonymous", MMAP(0, P, RW, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, -1, 0));
    show("mmap validate unknown", MMAP(0, P, RW, MAP_SHARED_VALIDATE | 0x200000, fd, 0));
    show("mmap validate sync", MMAP(0, P, RW, MAP_SHARED_VALIDATE | 0x80000, fd, 0));
    show("mmap read-only shared write", MMAP(0, P, RW, MAP_SHARED, read_only, 0));
    show("mmap read-only private write", MMAP(base + 4 * P, P, RW, MAP_PRIVATE | MAP_FIXED, read_only, 0));
    show("mmap read-only shared read", MMAP(base + 5 * P, P, PROT_READ, MAP_SHARED | MAP_FIXED, read_only, 0));
    show("mprotect that to write", call(SYS_mprotect, (long)(base + 5 * P), P, RW, 0, 0, 0));
    show("mmap write-only", MMAP(0, P, PROT_READ, MAP_PRIVATE, write_only, 0));
    show("mmap file growsdown", MMAP(0, P, PROT_READ, MAP_PRIVATE | MAP_GROWSDOWN, read_only, 0));
    long low = MMAP(0, P, RW, ANON | MAP_32BIT, -1, 0);
    printf("mmap 32bit                       %d\n", low > 0 && low < 1L << 31);
    maps("after mmap");
}

static void test_munmap_mprotect(void)
{
    fresh();
    show("munmap odd", call(SYS_munmap, (long)(base + 1), P, 0, 0, 0, 0));
    show("munmap 0", call(SYS_munmap, (long)base, 0, 0, 0, 0, 0));
    show("munmap wraps", call(SYS_munmap, (long)base, -1, 0, 0, 0, 0));
    show("munmap middle", call(SYS_munmap, (long)(base + 10 * P), 2 * P, 0, 0, 0, 0));
    show("munmap again", call(SYS_munmap, (long)(base + 10 * P), 2 * P, 0, 0, 0, 0));
    show("mprotect odd", call(SYS_mprotect, (long)(base + 1), P, PROT_READ, 0, 0, 0));
    show("mprotect 0", call(SYS_mprotect, (long)base, 0, PROT_READ, 0, 0, 0));
    show("mprotect bad prot", call(SYS_mprotect, (long)base, P, 0x100, 0, 0, 0));
    show("mprotect wraps", call(SYS_mprotect, (long)base, -P, PROT_READ, 0, 0, 0));
    show("mprotect over hole", call(SYS_mprotect, (long)(base + 9 * P), 4 * P, PROT_READ, 0, 0, 0));
    show("mprotect in hole", call(SYS_mprotect, (long)(base + 10 * P), P, PROT_READ, 0, 0, 0));
    show("mprotect growsdown", call(SYS_mprotect, (long)base, P, PROT_READ | 0x01000000, 0, 0, 0));
    show("mprotect both", call(SYS_mprotect, (long)base, P, PROT_READ | 0x03000000, 0, 0, 0));
    show("mprotect middle", call(SYS_mprotect, (long)(base + 20 * P), 4 * P, PROT_READ, 0, 0, 0));
    show("mprotect none", call(SYS_mprotect, (long)(base + 21 * P), P, PROT_NONE, 0, 0, 0));
    show("mprotect exec", call(SYS_mprotect, (long)(base + 30 * P), P, PROT_READ | PROT_EXEC, 0, 0, 0));
    maps("split");
    show("mprotect back", call(SYS_mprotect, (long)(base + 20 * P), 11 * P, RW, 0, 0, 0));
    maps("merged");
}

static void test_mremap(int fd)
{
    fresh();
    show("mremap odd", call(SYS_mremap, (long)(base + 1), P, P, 0, 0, 0));
    show("mremap to 0", call(SYS_mremap, (long)base, P, 0, 0, 0, 0));
    show("mremap bad flags", call(SYS_mremap, (long)base, P, P, 8, 0, 0));
    show("mremap fixed alone", call(SYS_mremap, (long)base, P, P, 2, (long)base, 0));
    show("mremap unmapped", (call(SYS_munmap, (long)(base + 40 * P), 24 * P, 0, 0, 0, 0),
                             call(SYS_mremap, (long)(base + 50 * P), P, P, 0, 0, 0)));
    show("mremap shrink", call(SYS_mremap, (long)(base + 30 * P), 10 * P, 5 * P, 0, 0, 0));
    show("mremap grow in place", call(SYS_mremap, (long)(base + 30 * P), 5 * P, 8 * P, 0, 0, 0));
    show("mremap grow blocked", call(SYS_mremap, (long)base, P, 2 * P, 0, 0, 0));
    base[0] = 'x';
    long moved = call(SYS_mremap, (long)base, P, 2 * P, MREMAP_MAYMOVE, 0, 0);
    printf("mremap moved                     %d %c\n", moved > 0, moved > 0 ? *(char *)moved : '?');
    base[2 * P] = 'y';
    show("mremap fixed", call(SYS_mremap, (long)(base + 2 * P), P, P, MREMAP_MAYMOVE | MREMAP_FIXED, (long)(base + 50 * P), 0));
    printf("moved byte                       %c\n", base[50 * P]);
    show("mremap overlap", call(SYS_mremap, (long)(base + 4 * P), 4 * P, 4 * P, 3, (long)(base + 6 * P), 0));
    show("mremap fixed odd", call(SYS_mremap, (long)(base + 4 * P), P, P, 3, (long)(base + 1), 0));
    show("mremap 0 of private", call(SYS_mremap, (long)(base + 4 * P), 0, P, 1, 0, 0));
    base[5 * P] = 'z';
    long other = call(SYS_mremap, (long)(base + 5 * P), P, P, MREMAP_MAYMOVE | 4, 0, 0);
    printf("mremap dontunmap                 %d %c %d\n", other > 0, other > 0 ? *(char *)other : '?', base[5 * P]);
    show("mmap shared file", MMAP(base + 10 * P, 2 * P, RW, MAP_SHARED | MAP_FIXED, fd, 0));
    strcpy(base + 10 * P, "shared");
    char *twin = (char *)call(SYS_mremap, (long)(base + 10 * P), 0, 2 * P, MREMAP_MAYMOVE, 0, 0);
    printf("mremap 0 of shared               %s\n", (long)twin > 0 ? twin : "?");
    call(SYS_munmap, moved, 2 * P, 0, 0, 0, 0);
    call(SYS_munmap, other, P, 0, 0, 0, 0);
    call(SYS_munmap, (long)twin, 2 * P, 0, 0, 0, 0);
    show("remap_file_pages", call(SYS_remap_file_pages, (long)(base + 10 * P), P, 0, 1, 0, 0));
    show("remap_file_pages private", call(SYS_remap_file_pages, (long)(base + 20 * P), P, 0, 1, 0, 0));
    maps("after mremap");
}

static void test_madvise(int fd)
{
    fresh();
    memset(base, 'a', 4 * P);
    show("madvise odd", call(SYS_madvise, (long)(base + 1), P, MADV_DONTNEED, 0, 0, 0));
    show("madvise unknown", call(SYS_madvise, (long)base, P, 999, 0, 0, 0));
    show("madvise 0", call(SYS_madvise, (long)base, 0, MADV_DONTNEED, 0, 0, 0));
    show("madvise dontneed", call(SYS_madvise, (long)base, P, MADV_DONTNEED, 0, 0, 0));
    printf("bytes                            %d %c\n", base[0], base[P]);
    show("madvise wraps", call(SYS_madvise, (long)base, -P, MADV_DONTNEED, 0, 0, 0));
    show("madvise wipeonfork", call(SYS_madvise, (long)(base + 2 * P), P, MADV_WIPEONFORK, 0, 0, 0));
    show("madvise dontfork", call(SYS_madvise, (long)(base + 5 * P), P, MADV_DONTFORK, 0, 0, 0));
    show("madvise random", call(SYS_madvise, (long)(base + 7 * P), P, MADV_RANDOM, 0, 0, 0));
    show("madvise willneed", call(SYS_madvise, (long)(base + 7 * P), P, MADV_WILLNEED, 0, 0, 0));
    show("madvise remove private", call(SYS_madvise, (long)base, P, MADV_REMOVE, 0, 0, 0));
    show("madvise populate", call(SYS_madvise, (long)(base + 8 * P), P, 23, 0, 0, 0));
    show("madvise dontdump", call(SYS_madvise, (long)(base + 9 * P), P, MADV_DONTDUMP, 0, 0, 0));
    show("mmap shared file", MMAP(base + 10 * P, 2 * P, RW, MAP_SHARED | MAP_FIXED, fd, 0));
    show("madvise free of file", call(SYS_madvise, (long)(base + 10 * P), P, MADV_FREE, 0, 0, 0));
    show("madvise wipeonfork shared", call(SYS_madvise, (long)(base + 10 * P), P, MADV_WIPEONFORK, 0, 0, 0));
    call(SYS_munmap, (long)(base + 12 * P), P, 0, 0, 0, 0);
    memset(base + 13 * P, 'b', P);
    show("madvise over hole", call(SYS_madvise, (long)(base + 12 * P), 2 * P, MADV_DONTNEED, 0, 0, 0));
    printf("byte behind hole                 %d\n", base[13 * P]);
    maps("after madvise");
    fresh();
    maps("fresh");
}

static void test_locks(void)
{
    unsigned char vector[16];
    fresh();
    show("mlock", call(SYS_mlock, (long)(base + P + 7), P, 0, 0, 0, 0));
    show("mlock2 onfault", call(SYS_mlock2, (long)(base + 8 * P), P, 1, 0, 0, 0));
    show("mlock2 bad", call(SYS_mlock2, (long)base, P, 2, 0, 0, 0));
    show("dontneed of locked", call(SYS_madvise, (long)(base + P), P, MADV_DONTNEED, 0, 0, 0));
    show("msync invalidate locked", call(SYS_msync, (long)(base + P), P, MS_INVALIDATE, 0, 0, 0));
    maps("locked");
    show("munlock", call(SYS_munlock, (long)base, 16 * P, 0, 0, 0, 0));
    show("mlockall 0", call(SYS_mlockall, 0, 0, 0, 0, 0, 0));
    show("mlockall onfault alone", call(SYS_mlockall, 4, 0, 0, 0, 0, 0));
    show("munlockall", call(SYS_munlockall, 0, 0, 0, 0, 0, 0));
    call(SYS_munmap, (long)(base + 20 * P), P, 0, 0, 0, 0);
    show("mlock over hole", call(SYS_mlock, (long)(base + 19 * P), 3 * P, 0, 0, 0, 0));
    show("munlock over hole", call(SYS_munlock, (long)(base + 19 * P), 3 * P, 0, 0, 0, 0));
    show("msync hole", call(SYS_msync, (long)(base + 20 * P), P, MS_ASYNC, 0, 0, 0));
    show("msync both", call(SYS_msync, (long)base, P, MS_ASYNC | MS_SYNC, 0, 0, 0));
    show("msync odd", call(SYS_msync, (long)(base + 1), P, MS_ASYNC, 0, 0, 0));
    base[30 * P] = 1;
    base[32 * P] = 1;
    memset(vector, 7, sizeof vector);
    show("mincore", call(SYS_mincore, (long)(base + 30 * P), 3 * P, (long)vector, 0, 0, 0));
    printf("resident                         %d %d %d %d\n", vector[0] & 1, vector[1] & 1, vector[2] & 1, vector[3]);
    show("mincore hole", call(SYS_mincore, (long)(base + 19 * P), 3 * P, (long)vector, 0, 0, 0));
    show("mincore odd", call(SYS_mincore, (long)(base + 1), P, (long)vector, 0, 0, 0));
    show("mincore bad vector", call(SYS_mincore, (long)base, P, (long)(base + 20 * P), 0, 0, 0));
}

static void test_brk(void)
{
    char *end = (char *)call(SYS_brk, 0, 0, 0, 0, 0, 0);
    char *aligned = (char *)(((uintptr_t)end + P - 1) & -P);
    printf("brk grow                         %ld\n", (call(SYS_brk, (long)(aligned + 5 * P + 3), 0, 0, 0, 0, 0) - (long)aligned));
    aligned[5 * P] = 1;
    printf("brk shrink                       %ld\n", (call(SYS_brk, (long)(aligned + P), 0, 0, 0, 0, 0) - (long)aligned));
    printf("brk refused                      %ld\n", (call(SYS_brk, 1, 0, 0, 0, 0, 0) - (long)aligned));
    printf("brk back                         %d\n", call(SYS_brk, (long)end, 0, 0, 0, 0, 0) == (long)end);
}

static void test_process_vm(void)
{
    char from[] = "across", to[8] = "";
    struct iovec here = {to, 6}, there = {from, 6}, bad = {(void *)8, 6};
    fresh();
    show("process_vm_readv", call(SYS_process_vm_readv, getpid(), (long)&here, 1, (long)&there, 1, 0));
    printf("read                             %s\n", to);
    show("process_vm_writev", call(SYS_process_vm_writev, getpid(), (long)&here, 1, (long)&there, 1, 0));
    show("process_vm_readv bad", call(SYS_process_vm_readv, getpid(), (long)&here, 1, (long)&bad, 1, 0));
    show("process_vm_readv flags", call(SYS_process_vm_readv, getpid(), (long)&here, 1, (long)&there, 1, 1));
    show("process_vm_readv count", call(SYS_process_vm_readv, getpid(), (long)&here, 1025, (long)&there, 1, 0));
    show("process_vm_readv pid", call(SYS_process_vm_readv, 4194300, (long)&here, 1, (long)&there, 1, 0));
}

static void test_others(void)
{
    unsigned long value = 0;
    show("pkey_mprotect -1", call(SYS_pkey_mprotect, (long)base, P, RW, -1, 0, 0));
    show("personality", call(SYS_personality, 0xffffffff, 0, 0, 0, 0, 0));
    show("arch_prctl unknown", call(SYS_arch_prctl, 0x7777, 0, 0, 0, 0, 0));
    show("arch_prctl set kernel", call(SYS_arch_prctl, 0x1002, 1L << 63, 0, 0, 0, 0));
    show("arch_prctl set gs", call(SYS_arch_prctl, 0x1001, 0x1234, 0, 0, 0, 0));
    show("arch_prctl get gs", call(SYS_arch_prctl, 0x1004, (long)&value, 0, 0, 0, 0));
    printf("gs                               %lx\n", value);
    show("arch_prctl get fs", call(SYS_arch_prctl, 0x1003, (long)&value, 0, 0, 0, 0));
    printf("fs                               %d\n", value != 0);
    show("arch_prctl get bad", call(SYS_arch_prctl, 0x1003, 8, 0, 0, 0, 0));
    show("membarrier private early", call(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0, 0, 0, 0));
    show("membarrier register", call(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0, 0, 0, 0));
    show("membarrier private", call(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0, 0, 0, 0));
    show("membarrier bad", call(SYS_membarrier, 0x8000, 0, 0, 0, 0, 0));
    show("membarrier flags", call(SYS_membarrier, 0, 2, 0, 0, 0, 0));
}

int main(int argc, char **argv)
{
    int fd = open(argv[1], O_RDWR), read_only = open(argv[1], O_RDONLY), write_only = open(argv[1], O_WRONLY);
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    base = (char *)MMAP(0, 66 * P, RW, ANON, -1, 0);
    if (argc < 2 || fd < 0 || (long)base < 0)
        return 2;
    /* A page of another kind on each side keeps the area's mappings from merging with others. */
    call(SYS_munmap, (long)base, P, 0, 0, 0, 0);
    call(SYS_munmap, (long)(base + 65 * P), P, 0, 0, 0, 0);
    MMAP(base, P, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    MMAP(base + 65 * P, P, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    base += P;
    test_mmap(fd, read_only, write_only);
    test_munmap_mprotect();
    test_mremap(fd);
    test_madvise(fd);
    test_locks();
    test_brk();
    test_process_vm();
    test_others();
    return 0;
}
