/* execve: errors, scripts, what survives and what does not, threads, hostile headers. Runs itself with a word to say what for. */
#include "check.h"
#include <elf.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/prctl.h>

static char self[4096];

/* Run path in a child and print how it ended. */
static void run(const char *what, const char *path, char *const argv[], char *const envp[])
{
	pid_t pid = fork();
	if (pid == 0) {
		execve(path, argv, envp);
		printf("%s: %s\n", what, strerrorname_np(errno));
		fflush(stdout);
		_exit(0);
	}
	int status;
	waitpid(pid, &status, 0);
	show_status(what, status);
}

static void put(const char *path, const char *text, size_t length, int mode)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, mode);
	if (write(fd, text, length) != (ssize_t)length)
		perror(path);
	close(fd);
	chmod(path, mode);
}

static void script(const char *path, const char *text)
{
	put(path, text, strlen(text), 0755);
}

static void errors(void)
{
	char *argv[] = {"x", NULL}, *envp[] = {NULL};
	run("missing", "./missing", argv, envp);
	run("empty path", "", argv, envp);
	run("directory", "/tmp", argv, envp);
	run("below a file", "/etc/passwd/x", argv, envp);
	script("plain", "no magic here\n");
	run("not executable format", "./plain", argv, envp);
	put("mode", "\177ELF", 4, 0644);
	run("no permission", "./mode", argv, envp);
	put("short", "\177ELF", 4, 0755);
	run("short header", "./short", argv, envp);
	put("nothing", "", 0, 0755);
	run("empty file", "./nothing", argv, envp);
	run("device", "/dev/null", argv, envp);
	run("bad path", (char *)8, argv, envp);
	run("bad argv", self, (char **)8, envp);
	char *bad[] = {"x", (char *)8, NULL};
	run("bad string", self, bad, envp);
	char name[5000];
	memset(name, 'a', sizeof name);
	name[sizeof name - 1] = 0;
	run("long path", name, argv, envp);
	symlink("loop", "loop");
	run("loop", "./loop", argv, envp);
	SHOW(syscall(SYS_execveat, AT_FDCWD, self, argv, envp, 0x4000));
	SHOW(syscall(SYS_execveat, 99, "x", argv, envp, 0));
	SHOW(syscall(SYS_execveat, AT_FDCWD, "", argv, envp, 0));
	symlink(self, "link");
	SHOW(syscall(SYS_execveat, AT_FDCWD, "link", argv, envp, AT_SYMLINK_NOFOLLOW));
}

static void sizes(void)
{
	char *long_one = malloc(200000), *envp[] = {NULL};
	memset(long_one, 'a', 200000);
	char *argv[] = {self, "count", long_one, NULL};
	long_one[131072] = 0;
	run("string of 131072", self, argv, envp);
	long_one[131071] = 0;
	run("string of 131071", self, argv, envp);
	static char *many[300000];
	for (int i = 2; i < 299999; i++)
		many[i] = "";
	many[0] = self;
	many[1] = "count";
	run("many arguments", self, many, envp);
	many[100000] = NULL;
	run("fewer arguments", self, many, envp);
	for (int i = 2; i < 100; i++)
		many[i] = long_one;
	many[30] = NULL;
	run("3.5 MiB of arguments", self, many, envp);
	struct rlimit small = {1 << 20, RLIM_INFINITY}, before;
	getrlimit(RLIMIT_STACK, &before);
	small.rlim_max = before.rlim_max;
	many[4] = NULL;
	setrlimit(RLIMIT_STACK, &small);
	run("a quarter of a small stack", self, many, envp);
	setrlimit(RLIMIT_STACK, &before);
	run("no arguments", self, envp, envp);
	char *none[] = {self, "show", NULL};
	run("null environment", self, none, NULL);
}

static void scripts(void)
{
	char line[5000], *argv[] = {"zero", "one", NULL}, *envp[] = {"A=1", NULL};
	snprintf(line, sizeof line, "#!%s show\n", self);
	script("s1", line);
	run("script", "./s1", argv, envp);
	snprintf(line, sizeof line, "#! \t%s show two  words \t \n", self);
	script("s2", line);
	run("blanks", "./s2", argv, envp);
	script("s3", "#!\n");
	run("no interpreter", "./s3", argv, envp);
	script("s4", "#!   ");
	run("only blanks", "./s4", argv, envp);
	script("s5", "#!/missing/interpreter\n");
	run("missing interpreter", "./s5", argv, envp);
	script("s6", "#!./s1\n");
	run("script of script", "./s6", argv, envp);
	script("r0", "#!./r0\n");
	run("script of itself", "./r0", argv, envp);
	snprintf(line, sizeof line, "#!%s show", self);
	script("d0", line);
	for (int i = 1; i < 7; i++) {
		char path[8];
		snprintf(line, sizeof line, "#!./d%d\n", i - 1);
		snprintf(path, sizeof path, "d%d", i);
		script(path, line);
	}
	run("four deep", "./d4", argv, envp);
	run("five deep", "./d5", argv, envp);
	run("six deep", "./d6", argv, envp);
	memset(line, 'a', sizeof line);
	memcpy(line, "#!/", 3);
	line[400] = 0;
	script("cut", line);
	run("name cut off", "./cut", argv, envp);
	snprintf(line, sizeof line, "#!%s show %0300d\n", self, 7);
	script("cutarg", line);
	run("argument cut off", "./cutarg", argv, envp);
	int fd = open("s1", O_RDONLY);
	pid_t pid = fork();
	if (pid == 0) {
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		SHOW(syscall(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH));
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	close(fd);
}

static void by_descriptor(void)
{
	char *argv[] = {"zero", "show", NULL}, *envp[] = {NULL};
	int fd = open(self, O_RDONLY | O_CLOEXEC), status;
	pid_t pid = fork();
	if (pid == 0) {
		syscall(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH);
		_exit(99);
	}
	waitpid(pid, &status, 0);
	show_status("execveat of a descriptor", status);
	run("/proc/self/exe", "/proc/self/exe", argv, envp);
	int copy = memfd_create("copy", MFD_CLOEXEC);
	char buffer[65536];
	ssize_t count;
	while ((count = read(fd, buffer, sizeof buffer)) > 0)
		if (write(copy, buffer, count) != count)
			return;
	pid = fork();
	if (pid == 0) {
		fexecve(copy, argv, envp);
		_exit(98);
	}
	waitpid(pid, &status, 0);
	show_status("memfd", status);
}

static void *sleep_on(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void *exec_from_thread(void *argument)
{
	char *argv[] = {self, "threads", argument, NULL};
	execv(self, argv);
	return NULL;
}

static void survivors(void)
{
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		char number[16];
		pthread_t thread;
		sigset_t blocked;
		for (int i = 0; i < 3; i++)
			pthread_create(&thread, NULL, sleep_on, NULL);
		signal(SIGUSR1, SIG_IGN);
		signal(SIGUSR2, (void (*)(int))sleep_on);
		sigemptyset(&blocked);
		sigaddset(&blocked, SIGHUP);
		sigprocmask(SIG_BLOCK, &blocked, NULL);
		raise(SIGHUP);
		fcntl(100, F_SETFD, 0);
		dup2(1, 100);
		dup2(1, 101);
		fcntl(101, F_SETFD, FD_CLOEXEC);
		umask(027);
		alarm(100);
		snprintf(number, sizeof number, "%d", getpid());
		pthread_create(&thread, NULL, exec_from_thread, number);
		pthread_join(thread, NULL);
		_exit(97);
	}
	int status;
	waitpid(pid, &status, 0);
	show_status("exec from a thread", status);
	pid = vfork();
	if (pid == 0) {
		char *argv[] = {self, "show", NULL};
		execv(self, argv);
		_exit(96);
	}
	waitpid(pid, &status, 0);
	show_status("vfork", status);
}

/* What the exec of a thread left. */
static void threads(const char *pid)
{
	struct sigaction action;
	sigset_t set;
	char name[32];
	printf("pid kept %d, tid is pid %d\n", atoi(pid) == getpid(), gettid() == getpid());
	sigaction(SIGUSR1, NULL, &action);
	printf("ignored stays %d\n", action.sa_handler == SIG_IGN);
	sigaction(SIGUSR2, NULL, &action);
	printf("handler is default %d\n", action.sa_handler == SIG_DFL);
	sigprocmask(0, NULL, &set);
	printf("mask stays %d\n", sigismember(&set, SIGHUP));
	sigpending(&set);
	printf("pending stays %d\n", sigismember(&set, SIGHUP));
	printf("descriptors %d %d\n", fcntl(100, F_GETFD), fcntl(101, F_GETFD));
	printf("umask %o alarm %d\n", umask(0), alarm(0) > 0);
	prctl(PR_GET_NAME, name);
	printf("comm %s\n", name);
	char text[4096];
	int fd = open("/proc/self/cmdline", O_RDONLY);
	ssize_t count = read(fd, text, sizeof text);
	printf("cmdline ends with nul %d, starts with path %d\n", count > 0 && !text[count - 1], !strcmp(text, self));
	fflush(stdout);
}

static void show_arguments(int argc, char **argv, char **envp)
{
	for (int i = 0; i < argc; i++)
		printf(" [%s]", strcmp(argv[i], self) ? argv[i] : "SELF");
	for (; *envp; envp++)
		printf(" {%s}", *envp);
	const char *name = (const char *)getauxval(AT_EXECFN);
	printf(" execfn %s", strcmp(name, self) ? name : "SELF");
	printf(" secure %lu aligned %d\n", getauxval(AT_SECURE), (int)((uintptr_t)(argv - 1) % 16));
	fflush(stdout);
}

/* Copy this program with a changed header and run it. */
static char *image;
static size_t image_size;

static void hostile(const char *what, size_t offset, const void *value, size_t size)
{
	char *argv[] = {"zero", "count", NULL}, *envp[] = {NULL}, old[16];
	memcpy(old, image + offset, size);
	memcpy(image + offset, value, size);
	unlink("hostile");
	put("hostile", image, image_size, 0755);
	run(what, "./hostile", argv, envp);
	memcpy(image + offset, old, size);
}

static void headers(void)
{
	int fd = open(self, O_RDONLY);
	image_size = lseek(fd, 0, SEEK_END);
	image = malloc(image_size);
	if (pread(fd, image, image_size, 0) != (ssize_t)image_size)
		return;
	close(fd);
	Elf64_Ehdr *header = (Elf64_Ehdr *)image;
	Elf64_Phdr *table = (Elf64_Phdr *)(image + header->e_phoff);
	size_t first_load = 0, interpreter = 0;
	for (size_t i = header->e_phnum; i-- > 0;) {
		if (table[i].p_type == PT_LOAD)
			first_load = header->e_phoff + i * sizeof *table;
		if (table[i].p_type == PT_INTERP)
			interpreter = header->e_phoff + i * sizeof *table;
	}
	size_t name = ((Elf64_Phdr *)(image + interpreter))->p_offset;
	uint16_t word = 0;
	uint64_t big = ~0UL, zero = 0, odd = 1, huge = 1UL << 50;
	hostile("unchanged", 0, image, 1);
	hostile("machine", offsetof(Elf64_Ehdr, e_machine), &word, 2);
	hostile("type", offsetof(Elf64_Ehdr, e_type), &word, 2);
	hostile("phentsize", offsetof(Elf64_Ehdr, e_phentsize), &word, 2);
	hostile("phnum 0", offsetof(Elf64_Ehdr, e_phnum), &word, 2);
	word = 0xffff;
	hostile("phnum 65535", offsetof(Elf64_Ehdr, e_phnum), &word, 2);
	hostile("phoff", offsetof(Elf64_Ehdr, e_phoff), &big, 8);
	hostile("phoff huge", offsetof(Elf64_Ehdr, e_phoff), &huge, 8);
	hostile("interpreter missing", name, "/no", 4);
	hostile("interpreter directory", name, "/tmp", 5);
	hostile("interpreter no ELF", name, "/etc/passwd", 12);
	hostile("interpreter script", name, "./s1", 5);
	hostile("interpreter size 0", interpreter + offsetof(Elf64_Phdr, p_filesz), &zero, 8);
	hostile("interpreter size 1", interpreter + offsetof(Elf64_Phdr, p_filesz), &odd, 8);
	hostile("interpreter size huge", interpreter + offsetof(Elf64_Phdr, p_filesz), &huge, 8);
	hostile("interpreter beyond the end", interpreter + offsetof(Elf64_Phdr, p_offset), &huge, 8);
	hostile("interpreter negative", interpreter + offsetof(Elf64_Phdr, p_offset), &big, 8);
	hostile("segment offset odd", first_load + offsetof(Elf64_Phdr, p_offset), &odd, 8);
	hostile("segment filesz huge", first_load + offsetof(Elf64_Phdr, p_filesz), &huge, 8);
	hostile("segment memsz 0", first_load + offsetof(Elf64_Phdr, p_memsz), &zero, 8);
	hostile("segment memsz huge", first_load + offsetof(Elf64_Phdr, p_memsz), &huge, 8);
	hostile("segment vaddr huge", first_load + offsetof(Elf64_Phdr, p_vaddr), &huge, 8);
}

int main(int argc, char **argv, char **envp)
{
	ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
	self[length < 0 ? 0 : length] = 0;
	if (argc < 2 && argv[0] && !*argv[0]) {
		printf("argc %d\n", argc);
		return 3;
	}
	for (int i = 1; i < argc && i < 3; i++) {
		if (!strcmp(argv[i], "count"))
			return argc % 100;
		if (!strncmp(argv[i], "show", 4)) {
			show_arguments(argc, argv, envp);
			return 0;
		}
		if (!strcmp(argv[i], "threads")) {
			threads(argv[2]);
			return 0;
		}
	}
	errors();
	sizes();
	scripts();
	by_descriptor();
	survivors();
	headers();
	return 0;
}
