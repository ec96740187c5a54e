/* One process looks again and again at names and open files that another one changes between its looks. */
#include "check.h"
#include <dirent.h>

static int to_other[2], from_other[2];

/* The other process carries out one step and says so. */
static void other(char step)
{
	char answer;
	if (write(to_other[1], &step, 1) != 1 || read(from_other[0], &answer, 1) != 1)
		_exit(1);
}

static void write_file(const char *name, const char *text, int flags)
{
	int fd = open(name, O_WRONLY | O_CREAT | flags, 0644);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		_exit(2);
	close(fd);
}

static int kept_open = -1;

static void carry_out(char step)
{
	struct timespec times[2] = {{1000, 0}, {2000, 0}};
	switch (step) {
	case 'c': chmod("d/f", 0600); break;
	case 'w': write_file("d/f", "longer text", 0); break;
	case 'a': write_file("d/f", " and more", O_APPEND); break;
	case 't': truncate("d/f", 3); break;
	case 'T': write_file("d/f", "", O_TRUNC); break;
	case 'u': utimensat(AT_FDCWD, "d/f", times, 0); break;
	case 'l': link("d/f", "d/g"); break;
	case 'r': rename("d/f", "d/h"); break;
	case 'o': write_file("d/x", "over", 0); rename("d/x", "d/h"); break;
	case 'x': unlink("d/h"); break;
	case 'n': write_file("d/f", "new", 0); break;
	case 'm': rename("d", "e"); break;
	case 'M': rename("e", "d"); break;
	case 's': unlink("s"); symlink("e", "s"); break;
	case 'D': mkdir("e", 0755); write_file("e/f", "e's file", 0); break;
	case 'R': unlink("e/f"); rmdir("e"); break;
	case 'p': chmod("d", 0); break;
	case 'P': chmod("d", 0755); break;
	case 'O': kept_open = open("d/f", O_RDWR); write(kept_open, "12345678", 8); break;
	case 'W': pwrite(kept_open, "abcd", 4, 100); break;
	case 'C': close(kept_open); break;
	case 'f': fchmod(kept_open, 0640); break;
	case 'y': { int fd = open("d/f", O_RDWR | O_CREAT, 0644); ftruncate(fd, 4096);
		char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		close(fd); memset(at, 'm', 4096); munmap(at, 4096); break; }
	}
}

static void look_at(const char *name)
{
	struct stat status;
	char buffer[16] = "";
	SHOW(stat(name, &status));
	if (stat(name, &status) == 0)
		printf("%s: mode %o, size %ld, links %ld\n", name, status.st_mode, S_ISREG(status.st_mode) ? (long)status.st_size : 0L,
		       S_ISREG(status.st_mode) ? (long)status.st_nlink : 0L);
	SHOW(access(name, W_OK));
	SHOW(readlink(name, buffer, sizeof buffer - 1));
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	OK(fd);
	if (fd < 0)
		return;
	SHOW(fstat(fd, &status));
	printf("opened: mode %o, size %ld\n", status.st_mode, S_ISREG(status.st_mode) ? (long)status.st_size : 0L);
	SHOW(read(fd, buffer, sizeof buffer - 1));
	printf("read %s\n", buffer);
	SHOW(lseek(fd, 0, SEEK_CUR));
	SHOW(close(fd));
}

static int by_name(const void *one, const void *two)
{
	return strcmp(*(char *const *)one, *(char *const *)two);
}

static void list(const char *name)
{
	char *names[64];
	int count = 0;
	DIR *directory = opendir(name);
	if (!directory) {
		printf("%s cannot be listed: %s\n", name, strerrorname_np(errno));
		return;
	}
	for (struct dirent *entry; (entry = readdir(directory));)
		names[count++] = strdup(entry->d_name);
	closedir(directory);
	qsort(names, count, sizeof *names, by_name);
	for (int i = 0; i < count; i++)
		printf("%s has %s\n", name, names[i]);
}

static void look(const char *when)
{
	static const char *const names[] = {"d/f", "d/g", "d/h", "s/f", "e/f", "none/f"};
	printf("-- %s\n", when);
	for (int again = 0; again < 2; again++)
		for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
			look_at(names[i]);
	list("d");
	list("e");
	list("d");
	for (int again = 0; again < 2; again++) {
		char target[16] = "";
		SHOW(readlink("s", target, sizeof target - 1));
		printf("s leads to %s\n", target);
	}
	fflush(stdout);
}

/* An open file shows what is done to its inode, also when its name is gone, and not what becomes of the name. */
static void hold_on(void)
{
	struct stat status;
	char buffer[32] = "";
	int fd = open("d/f", O_RDONLY), again;
	printf("-- an open file\n");
	for (const char *step = "caturlo"; *step; step++) {
		other(*step);
		SHOW(fstat(fd, &status));
		printf("%c: mode %o, size %ld, links %ld, written %d\n", *step, status.st_mode, (long)status.st_size, (long)status.st_nlink,
		       status.st_mtime == 2000);
	}
	SHOW(pread(fd, buffer, sizeof buffer - 1, 0));
	printf("read %s\n", buffer);
	SHOW(close(fd));
	again = open("d/f", O_RDONLY);
	OK(again);
	other('n');
	again = open("d/f", O_RDONLY);
	OK(again);
	SHOW(close(again));
	other('x');
	printf("-- the same offset twice\n");
	fd = open("d/f", O_RDONLY);
	again = open("d/f", O_RDONLY);
	SHOW(read(fd, buffer, 2));
	SHOW(read(again, buffer, 3));
	SHOW(lseek(fd, 0, SEEK_CUR));
	SHOW(close(fd));
	SHOW(close(again));
	fd = open("d/f", O_RDONLY | O_APPEND);
	SHOW(fcntl(fd, F_GETFL) & O_APPEND);
	SHOW(close(fd));
	fd = open("d/f", O_RDONLY);
	SHOW(fcntl(fd, F_GETFL) & O_APPEND);
	SHOW(write(fd, "x", 1));
	SHOW(open("d/f", O_RDONLY | O_DIRECTORY));
	SHOW(close(fd));
	SHOW(open("d/f", O_RDONLY | O_CREAT | O_EXCL, 0644));
}

static void directories(void)
{
	struct stat status;
	printf("-- directories\n");
	for (int round = 0; round < 2; round++) {
		int fd = open("d", O_RDONLY | O_DIRECTORY | O_CLOEXEC), file;
		OK(fd);
		SHOW(fcntl(fd, F_GETFL) & O_NONBLOCK);
		SHOW(fstatat(fd, "f", &status, 0));
		SHOW(fstatat(fd, "none", &status, 0));
		file = openat(fd, "f", O_RDONLY);
		OK(file);
		SHOW(close(file));
		SHOW(fstatat(fd, "", &status, AT_EMPTY_PATH));
		SHOW(close(fd));
		fd = open("d", O_RDONLY | O_NONBLOCK);
		SHOW((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
		DIR *directory = fdopendir(fd);
		long count = 0, at = 0;
		for (struct dirent *entry; (entry = readdir(directory));)
			if (++count == 2)
				at = telldir(directory);
		SHOW(count);
		seekdir(directory, at);
		for (count = 2; readdir(directory);)
			count++;
		SHOW(count);
		other(round ? 'R' : 'D');
		rewinddir(directory);
		SHOW(readdir(directory) != NULL);
		closedir(directory);
		look_at("e/f");
	}
}

int main(void)
{
	static const char steps[] = "cwatTulroxnmMDsRpPOWfWCyn";
	char step, when[2] = "";
	mkdir("d", 0755);
	write_file("d/f", "text", 0);
	symlink("d", "s");
	pipe(to_other);
	pipe(from_other);
	if (fork() == 0) {
		close(to_other[1]);
		while (read(to_other[0], &step, 1) == 1) {
			carry_out(step);
			write(from_other[1], &step, 1);
		}
		_exit(0);
	}
	close(to_other[0]);
	look("at first");
	for (const char *at = steps; *at; at++) {
		when[0] = *at;
		other(*at);
		look(when);
	}
	hold_on();
	directories();
	close(to_other[1]);
	wait(NULL);
	return 0;
}
