/* A process with a bit of everything: it says "ready", is saved while all of it waits, and checks that nothing changed.
 *
 * What it waits for in the main thread is a line on standard input, which comes after the restore.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 8
#define PAGES 300
#define PAGE 4096

static int failures;

static void check(int good, const char *what) {
    printf("%s %s\n", good ? "ok" : "FAILED", what);
    failures += !good;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* -- threads on a mutex, each in its turn ------------------------------------------------------------------------- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER;
static int turn = -1, rounds;
static __thread int own;

static void *take_turns(void *argument) {
    int me = (int)(long)argument;
    own = me * 1000;
    for (int i = 0; i < 5; i++) {
        pthread_mutex_lock(&mutex);
        while (turn != me) pthread_cond_wait(&turn_changed, &mutex);
        turn = (turn + 1) % THREADS;
        rounds++;
        own++;
        pthread_cond_broadcast(&turn_changed);
        pthread_mutex_unlock(&mutex);
    }
    return (void *)(long)own;
}

static double slept;

static void *sleep_long(void *argument) {
    double begin = now();
    struct timespec wanted = {1, 500000000};
    while (nanosleep(&wanted, &wanted) && errno == EINTR) continue;
    slept = now() - begin;
    return argument;
}

static int timed_out;

static void *wait_for_a_time(void *argument) {
    pthread_mutex_t own_mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;
    pthread_mutex_lock(&own_mutex);
    timed_out = pthread_cond_timedwait(&never, &own_mutex, &until);
    return argument;
}

/* -- signals -------------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t alarms, ticks, users;
static char alternate[1 << 16];
static volatile int on_alternate;

static void on_alarm(int signo) { (void)signo, alarms++; }
static void on_tick(int signo, siginfo_t *info, void *context) {
    (void)signo, (void)context;
    ticks += info->si_value.sival_int == 77;
}
static void on_user(int signo) {
    char here;
    (void)signo;
    on_alternate = &here >= alternate && &here < alternate + sizeof alternate;
    users++;
}

static void handle(int signo, void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigaction(signo, &action, NULL);
}

/* -- children ------------------------------------------------------------------------------------------------------- */

struct shared {
    sem_t go, done;
    int value;
};

static int child_status;

static void *wait_for_child(void *argument) {
    waitpid((int)(long)argument, &child_status, 0);
    return NULL;
}

/* -- memory --------------------------------------------------------------------------------------------------------- */

static unsigned char pattern(int page, int at) { return (unsigned char)(page * 7 + at * 13 + page / 3); }

static int read_line(void) {
    char c;
    ssize_t got;
    do got = read(0, &c, 1);
    while (got == 1 && c != '\n');
    return got == 1;
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);

    /* Memory: a pattern with holes, a forked copy, no access, shared, a private file mapping that was changed. */
    unsigned char *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int page = 0; page < PAGES; page++)
        if (page % 5) for (int at = 0; at < PAGE; at += 64) memory[page * PAGE + at] = pattern(page, at);
    mprotect(memory + PAGE, PAGE, PROT_NONE);
    mprotect(memory + 2 * PAGE, PAGE, PROT_READ);
    struct shared *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sem_init(&shared->go, 1, 0), sem_init(&shared->done, 1, 0);
    int file = open("/tmp/file", O_RDWR | O_CREAT, 0600);
    for (int i = 0; i < 3 * PAGE; i++) if (write(file, "f", 1) != 1) return 99;
    char *private = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    private[PAGE] = 0;
    char *mapped = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    mapped[2 * PAGE] = 'm';
    lseek(file, 10, SEEK_SET);
    char *growing = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(growing + PAGE, "moves along");
    char *wiped = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(wiped, "wiped in children");
    madvise(wiped, PAGE, MADV_WIPEONFORK);

    /* Files: unlinked, half read, appended to, a pipe with data, a full pipe, a FIFO, a memfd, eventfd, epoll, timerfd, signalfd. */
    int unlinked = open("/tmp/unlinked", O_RDWR | O_CREAT, 0600);
    if (write(unlinked, "no name", 7) != 7) return 99;
    unlink("/tmp/unlinked");
    int twin = dup(file);
    int pipes[2], full[2];
    if (pipe(pipes) || pipe2(full, O_NONBLOCK)) return 99;
    if (write(pipes[1], "in the pipe", 11) != 11) return 99;
    int filled = 0;
    while (write(full[1], "0123456789abcdef", 16) == 16) filled += 16;
    mkfifo("/tmp/fifo", 0600);
    int fifo = open("/tmp/fifo", O_RDWR), fifo_reader = open("/tmp/fifo", O_RDONLY | O_NONBLOCK);
    if (write(fifo, "in the fifo", 11) != 11) return 99;
    int anonymous = memfd_create("memory", MFD_ALLOW_SEALING);
    if (ftruncate(anonymous, 1 << 20) || pwrite(anonymous, "far out", 7, 900000) != 7) return 99;
    fcntl(anonymous, F_ADD_SEALS, F_SEAL_GROW);
    int counter = eventfd(5, EFD_NONBLOCK), semaphore = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
    int epoll = epoll_create1(0);
    struct epoll_event events[2], event = {.events = EPOLLIN, .data.u64 = 0x1234567890};
    epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event);
    struct epoll_event once_only = {.events = EPOLLOUT | EPOLLONESHOT, .data.u64 = 99};
    epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &once_only);
    if (epoll_wait(epoll, events, 2, 0) != 2) return 99;
    int timer_file = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec soon = {.it_value = {0, 400000000}, .it_interval = {0, 100000000}};
    timerfd_settime(timer_file, 0, &soon, NULL);
    struct flock lock = {.l_type = F_WRLCK, .l_start = 5, .l_len = 10};
    fcntl(file, F_SETLK, &lock);

    /* Signals: handlers, an alternate stack, a blocked and pending one, a periodic timer, an alarm. */
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    sigaltstack(&stack, NULL);
    handle(SIGALRM, on_alarm, SA_RESTART), handle(SIGUSR1, on_user, SA_RESTART | SA_ONSTACK);
    struct sigaction tick = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGRTMIN, &tick, NULL);
    sigset_t blocked;
    sigemptyset(&blocked), sigaddset(&blocked, SIGUSR1), sigaddset(&blocked, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    raise(SIGUSR1);
    sigset_t second;
    sigemptyset(&second), sigaddset(&second, SIGUSR2);
    int signal_file = signalfd(-1, &second, SFD_NONBLOCK);
    kill(getpid(), SIGUSR2);

    /* A child that waits on shared memory, and one thread that waits for it. */
    int child = fork();
    if (child == 0) {
        sem_wait(&shared->go);
        shared->value *= 2;
        sem_post(&shared->done);
        if (wiped[0] || memory[3 * PAGE + 64] != pattern(3, 64)) _exit(1);
        _exit(7);
    }
    pthread_t threads[THREADS], sleeper, waiter, timed;
    for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, take_turns, (void *)i);
    pthread_create(&waiter, NULL, wait_for_child, (void *)(long)child);
    pthread_create(&sleeper, NULL, sleep_long, NULL);
    pthread_create(&timed, NULL, wait_for_a_time, NULL);
    timer_t timer;
    struct sigevent how = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 77};
    timer_create(CLOCK_MONOTONIC, &how, &timer);
    struct itimerspec period = {{0, 30000000}, {0, 30000000}};
    timer_settime(timer, 0, &period, NULL);
    struct itimerval once = {.it_value = {0, 700000}};
    setitimer(ITIMER_REAL, &once, NULL);
    struct rlimit limit = {77, 88};
    setrlimit(RLIMIT_NOFILE, &limit);
    umask(027);
    if (chdir("/usr")) return 99;
    double begin = now();
    volatile double half = 0.5;  /* in a vector register, most of the time */

    printf("ready\n");
    if (!read_line()) return 98;
    int ticks_then = ticks;

    check(now() >= begin && now() < begin + 600, "monotonic time goes on");
    check(half * 2 == 1.0, "floating point");
    pthread_mutex_lock(&mutex);
    turn = 0;
    pthread_cond_broadcast(&turn_changed);
    pthread_mutex_unlock(&mutex);
    int kept = 1;
    for (long i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        kept &= (long)result == i * 1000 + 5;
    }
    check(rounds == 5 * THREADS && kept, "threads and their storage");
    pthread_join(sleeper, NULL), pthread_join(timed, NULL);
    check(slept >= 1.5, "nanosleep");
    check(timed_out == ETIMEDOUT, "pthread_cond_timedwait");

    shared->value = 21;
    sem_post(&shared->go), sem_wait(&shared->done);
    pthread_join(waiter, NULL);
    check(shared->value == 42, "shared memory");
    check(WIFEXITED(child_status) && WEXITSTATUS(child_status) == 7, "wait4 and fork");

    int same = 1;
    mprotect(memory + PAGE, PAGE, PROT_READ);
    for (int page = 0; page < PAGES; page++)
        for (int at = 0; at < PAGE; at += 64) same &= memory[page * PAGE + at] == (page % 5 ? pattern(page, at) : 0);
    check(same, "private memory");
    madvise(memory + 3 * PAGE, 2 * PAGE, MADV_DONTNEED);
    check(memory[3 * PAGE + 64] == 0 && memory[6 * PAGE + 64] == pattern(6, 64), "MADV_DONTNEED gives zeros");
    growing = mremap(growing, 2 * PAGE, 50 * PAGE, MREMAP_MAYMOVE);
    check(growing != MAP_FAILED && !strcmp(growing + PAGE, "moves along") && !growing[40 * PAGE], "mremap");
    check(!strcmp(wiped, "wiped in children"), "memory that children do not get");
    check(private[0] == 'f' && private[PAGE] == 0 && private[PAGE + 1] == 'f', "private file mapping");
    char c;
    check(pread(file, &c, 1, 2 * PAGE) == 1 && c == 'm', "shared file mapping");
    mapped[0] = 'n';
    check(pread(file, &c, 1, 0) == 1 && c == 'n', "shared file mapping, later");

    char data[1 << 17];
    check(pread(unlinked, data, 100, 0) == 7 && !memcmp(data, "no name", 7), "unlinked file");
    check(lseek(twin, 5, SEEK_CUR) == 15 && lseek(file, 0, SEEK_CUR) == 15, "shared position");
    check(epoll_wait(epoll, events, 2, 0) == 1 && events[0].data.u64 == 0x1234567890, "epoll");
    check(read(pipes[0], data, 100) == 11 && !memcmp(data, "in the pipe", 11), "pipe");
    check(epoll_wait(epoll, &event, 1, 0) == 0, "epoll, later");
    once_only.events = EPOLLOUT | EPOLLONESHOT, once_only.data.u64 = 98;
    epoll_ctl(epoll, EPOLL_CTL_MOD, counter, &once_only);
    check(epoll_wait(epoll, &event, 1, 0) == 1 && event.data.u64 == 98, "one-shot epoll, armed again");
    int drained = 0;
    for (ssize_t got; (got = read(full[0], data, sizeof data)) > 0;) drained += got;
    check(drained == filled && errno == EAGAIN, "full pipe");
    close(pipes[1]);
    check(read(pipes[0], data, 1) == 0, "end of file in a pipe");
    check(read(fifo_reader, data, 100) == 11 && !memcmp(data, "in the fifo", 11), "fifo");
    check(pread(anonymous, data, 7, 900000) == 7 && !memcmp(data, "far out", 7), "memfd");
    check(ftruncate(anonymous, 2 << 20) < 0 && errno == EPERM, "memfd's seals");
    uint64_t number;
    check(read(counter, &number, 8) == 8 && number == 5, "eventfd");
    check(read(semaphore, &number, 8) == 8 && number == 1, "eventfd semaphore");
    struct pollfd ready = {timer_file, POLLIN, 0};
    check(poll(&ready, 1, 5000) == 1 && read(timer_file, &number, 8) == 8 && number >= 1, "timerfd");
    struct signalfd_siginfo info;
    check(read(signal_file, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR2, "signalfd");
    lock.l_type = F_WRLCK;
    int other = fork();
    if (other == 0) _exit(fcntl(file, F_SETLK, &lock) < 0 && errno == EAGAIN ? 0 : 1);
    int status;
    while (waitpid(other, &status, 0) < 0 && errno == EINTR) continue;
    check(status == 0, "record lock");

    check(users == 0, "blocked signal");
    pthread_sigmask(SIG_UNBLOCK, &blocked, NULL);
    check(users == 1 && on_alternate, "pending signal on the alternate stack");
    while (!alarms || ticks < ticks_then + 3) {
        struct timespec moment = {0, 10000000};
        nanosleep(&moment, NULL);
    }
    check(alarms == 1, "interval timer");
    check(1, "POSIX timer");
    getrlimit(RLIMIT_NOFILE, &limit);
    check(limit.rlim_cur == 77 && limit.rlim_max == 88, "limits");
    check(umask(0) == 027, "umask");
    check(getcwd(data, sizeof data) && !strcmp(data, "/usr"), "working directory");
    printf("%d failures\n", failures);
    return failures ? 1 : 42;
}
