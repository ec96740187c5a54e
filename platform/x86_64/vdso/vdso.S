/*
 * greenroom's vDSO for x86-64: a guest reads its clocks without a system call.
 *
 * Linux counterpart: arch/x86/entry/vdso and lib/vdso/gettimeofday.c.  The page before this image is the parameter page
 * ([vvar]); platform/x86_64/clock_page.py fills it, and holds the same constants.
 *
 * The lowest bit of the page's first word says "use the system call".  That is the one thing about the page that must
 * never change: a restored program keeps the image that it was saved with, and where greenroom has another one by then,
 * its page says nothing but this.
 *
 * Nobody waits for a writer: whoever meets the page in the middle of a change makes the system call.  Times count only
 * when the first word, which never has the same value twice, is the same after reading as before.
 */

#define SEQUENCE	0	/* odd: use the system call */
#define BASE_TICKS	8	/* TSC at the base times */
#define MOST_TICKS	16	/* this many TSC ticks later the page is out of date */
#define MULTIPLIER	24	/* ns in a tick, times 2^SHIFT */
#define BASES		32	/* of each clock by its number: seconds, nanoseconds */
#define SHIFT		56

#define CLOCK_LAST	11
/* REALTIME, MONOTONIC, MONOTONIC_RAW, REALTIME_COARSE, MONOTONIC_COARSE, BOOTTIME and TAI; and which are coarse. */
#define CLOCKS		0x8f3
#define COARSE_CLOCKS	0x060
#define COARSE_NS	4000000
#define NS_PER_S	1000000000

NR_gettimeofday = 96
NR_time = 201
NR_clock_gettime = 228
NR_clock_getres = 229
NR_getcpu = 309

	.macro	FUNCTION name
	.globl	__vdso_\name
	.type	__vdso_\name, @function
	.weak	\name
	.type	\name, @function
	.balign	32
__vdso_\name:
\name:
	.cfi_startproc
	.endm

	/* The last instructions of each function: the system call with the function's own arguments. */
	.macro	OR_SYSTEM_CALL name
.Lsystem_call_\name:
	movl	$NR_\name, %eax
	syscall
	ret
	.cfi_endproc
	.size	__vdso_\name, . - __vdso_\name
	.size	\name, . - \name
	.endm

	/*
	 * Read the clock whose base is %r9 bytes behind BASES: seconds to %rcx, nanoseconds to %rax.
	 * Changes %rdx, %r8, %r10 besides; or makes the system call.
	 */
	.macro	READ_CLOCK name
	leaq	clock_page(%rip), %r8
1:	movq	SEQUENCE(%r8), %r10
	testb	$1, %r10b
	jnz	.Lsystem_call_\name
	lfence
	rdtsc
	shlq	$32, %rdx
	orq	%rdx, %rax
	subq	BASE_TICKS(%r8), %rax
	cmpq	MOST_TICKS(%r8), %rax
	jae	.Lsystem_call_\name
	mulq	MULTIPLIER(%r8)
	shrdq	$SHIFT, %rdx, %rax
	movq	BASES(%r8, %r9), %rcx
	addq	BASES + 8(%r8, %r9), %rax
	cmpq	SEQUENCE(%r8), %r10
	jne	1b
	/* The page is out of date after a second or so: this happens once or twice. */
2:	cmpq	$NS_PER_S, %rax
	jb	3f
	subq	$NS_PER_S, %rax
	incq	%rcx
	jmp	2b
3:
	.endm

	/* Go on if the page has clock %edi, else make the system call. */
	.macro	DEMAND_CLOCK name
	cmpl	$CLOCK_LAST, %edi
	ja	.Lsystem_call_\name
	movl	$CLOCKS, %eax
	btl	%edi, %eax
	jnc	.Lsystem_call_\name
	.endm

	.text

/* int clock_gettime(clockid_t clock, struct timespec *time) */
FUNCTION clock_gettime
	DEMAND_CLOCK clock_gettime
	movl	%edi, %r9d
	shll	$4, %r9d
	READ_CLOCK clock_gettime
	movq	%rcx, (%rsi)
	movq	%rax, 8(%rsi)
	xorl	%eax, %eax
	ret
OR_SYSTEM_CALL clock_gettime

/* int gettimeofday(struct timeval *time, struct timezone *zone): either may be NULL */
FUNCTION gettimeofday
	testq	%rdi, %rdi
	jz	4f
	xorl	%r9d, %r9d	/* CLOCK_REALTIME */
	READ_CLOCK gettimeofday
	/* ns / 1000 for ns < 10^9: times 2^38 / 1000, rounded up */
	imulq	$274877907, %rax, %rax
	shrq	$38, %rax
	movq	%rcx, (%rdi)
	movq	%rax, 8(%rdi)
4:	xorl	%eax, %eax
	testq	%rsi, %rsi
	jz	5f
	movq	%rax, (%rsi)
5:	ret
OR_SYSTEM_CALL gettimeofday

/* time_t time(time_t *time): may be NULL */
FUNCTION time
	xorl	%r9d, %r9d	/* CLOCK_REALTIME */
	READ_CLOCK time
	movq	%rcx, %rax
	testq	%rdi, %rdi
	jz	4f
	movq	%rax, (%rdi)
4:	ret
OR_SYSTEM_CALL time

/* int clock_getres(clockid_t clock, struct timespec *resolution): the latter may be NULL */
FUNCTION clock_getres
	DEMAND_CLOCK clock_getres
	movl	$1, %edx
	movl	$COARSE_CLOCKS, %eax
	btl	%edi, %eax
	jnc	4f
	movl	$COARSE_NS, %edx
4:	xorl	%eax, %eax
	testq	%rsi, %rsi
	jz	5f
	movq	%rax, (%rsi)
	movq	%rdx, 8(%rsi)
5:	ret
OR_SYSTEM_CALL clock_getres

/* int getcpu(unsigned *cpu, unsigned *node, void *unused): the host's CPU number is none of the guest's business */
FUNCTION getcpu
OR_SYSTEM_CALL getcpu

	/* "Linux", type 0: the release whose interfaces we follow, which ld.so may look at instead of calling uname. */
	.section .note.Linux, "a", @note
	.balign	4
	.long	6, 4, 0
	.asciz	"Linux"
	.balign	4
	.long	6 << 16 | 18 << 8
	.balign	4

	.section .note.GNU-stack, "", @progbits
