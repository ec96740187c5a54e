/* Files: open, read, write, seek, link, rename, directories, attributes, locks: results and errnos. */
#include "check.h"
#include <dirent.h>
#include <sys/file.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

static void opens(void)
{
	SHOW(open("nothing", O_RDONLY));
	SHOW(open("", O_RDONLY));
	SHOW(open((const char *)8, O_RDONLY));
	SHOW(open("/etc/passwd/x", O_RDONLY));
	SHOW(open(".", O_WRONLY));
	SHOW(open("f", O_RDWR | O_CREAT | O_EXCL, 0640));
	SHOW(open("f", O_RDWR | O_CREAT | O_EXCL, 0640));
	SHOW(open("f", O_RDONLY | O_DIRECTORY));
	SHOW(symlink("f", "l"));
	SHOW(open("l", O_RDONLY | O_NOFOLLOW));
	SHOW(symlink("loop", "loop"));
	SHOW(open("loop", O_RDONLY));
	SHOW(close(3));
	SHOW(close(99));
	SHOW(close(-1));
	char name[300];
	memset(name, 'n', 299);
	name[299] = 0;
	SHOW(open(name, O_CREAT | O_RDWR, 0600));
	name[255] = 0;
	SHOW(close(open(name, O_CREAT | O_RDWR, 0600)));
	SHOW(unlink(name));
	char *path = malloc(5000);
	memset(path, '/', 4999);
	path[4999] = 0;
	SHOW(open(path, O_RDONLY));
	int fd = open("f", O_PATH);
	char byte;
	SHOW(read(fd, &byte, 1));
	SHOW(fcntl(fd, F_GETFL) == (O_PATH | 0));
	close(fd);
	fd = open(".", O_TMPFILE | O_RDWR, 0600);
	OK(fd);
	struct stat status;
	SHOW(fstat(fd, &status));
	SHOW(status.st_nlink);
	close(fd);
}

static void transfers(void)
{
	char buffer[100] = {0};
	int fd = open("data", O_RDWR | O_CREAT | O_TRUNC, 0600);
	SHOW(write(fd, "0123456789", 10));
	SHOW(lseek(fd, 3, SEEK_SET));
	SHOW(read(fd, buffer, 4));
	printf("%s\n", buffer);
	SHOW(lseek(fd, -2, SEEK_END));
	SHOW(read(fd, buffer, 10));
	SHOW(read(fd, buffer, 10));
	SHOW(lseek(fd, -1, SEEK_SET));
	SHOW(lseek(fd, 0, 99));
	SHOW(pread(fd, buffer, 3, 5));
	SHOW(pwrite(fd, "XY", 2, 15));
	SHOW(lseek(fd, 0, SEEK_CUR));
	SHOW(pread(fd, buffer, 100, 0));
	for (int i = 0; i < 17; i++)
		printf("%d ", buffer[i]);
	printf("\n");
	SHOW(pread(fd, buffer, 1, -1));
	struct iovec vector[3] = {{"ab", 2}, {NULL, 0}, {"cde", 3}};
	SHOW(pwritev(fd, vector, 3, 100));
	SHOW(writev(fd, vector, -1));
	SHOW(writev(fd, vector, 1025));
	SHOW(lseek(fd, 0, SEEK_END));
	SHOW(lseek(fd, 50, SEEK_DATA) >= 0);
	SHOW(lseek(fd, 1000, SEEK_DATA));
	SHOW(lseek(fd, 0, SEEK_HOLE) >= 0);
	SHOW(ftruncate(fd, 5));
	SHOW(lseek(fd, 0, SEEK_END));
	SHOW(ftruncate(fd, -1));
	SHOW(read(fd, (void *)8, 1));
	SHOW(lseek(fd, 0, SEEK_SET));
	SHOW(read(fd, (void *)8, 1));
	SHOW(write(fd, (void *)8, 1));
	SHOW(read(99, buffer, 1));
	close(fd);
	fd = open("data", O_RDONLY);
	SHOW(write(fd, "x", 1));
	SHOW(ftruncate(fd, 0));
	close(fd);
	fd = open("data", O_WRONLY | O_APPEND);
	SHOW(read(fd, buffer, 1));
	SHOW(write(fd, "end", 3));
	SHOW(lseek(fd, 0, SEEK_CUR));
	close(fd);
	fd = open(".", O_RDONLY);
	SHOW(read(fd, buffer, 1));
	close(fd);
	SHOW(truncate("data", 100000));
	SHOW(truncate("nothing", 0));
	SHOW(truncate(".", 0));
	fd = open("data", O_RDWR);
	SHOW(posix_fallocate(fd, 0, 1000));
	SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
	SHOW(fallocate(fd, 0, -1, 1));
	int other = open("copy", O_RDWR | O_CREAT, 0600);
	SHOW(copy_file_range(fd, &(off_t){0}, other, NULL, 5000, 0));
	SHOW(lseek(other, 0, SEEK_CUR));
	SHOW(fsync(fd));
	SHOW(fdatasync(99));
	close(fd);
	close(other);
}

static void names(void)
{
	struct stat status;
	SHOW(mkdir("d", 0755));
	SHOW(mkdir("d", 0755));
	SHOW(mkdir("nothing/d", 0755));
	SHOW(rmdir("f"));
	SHOW(rmdir("."));
	SHOW(close(open("d/x", O_CREAT | O_WRONLY, 0600)));
	SHOW(rmdir("d"));
	SHOW(unlink("d"));
	SHOW(unlink("nothing"));
	SHOW(link("f", "g"));
	SHOW(link("f", "g"));
	SHOW(link("d", "e"));
	SHOW(link("nothing", "e"));
	stat("f", &status);
	SHOW(status.st_nlink);
	SHOW(rename("f", "g"));
	SHOW(access("f", F_OK));
	SHOW(rename("g", "h"));
	SHOW(rename("h", "d"));
	SHOW(rename("d", "h"));
	SHOW(rename("d", "d/sub"));
	SHOW(rename("nothing", "x"));
	SHOW(renameat2(AT_FDCWD, "h", AT_FDCWD, "data", RENAME_NOREPLACE));
	SHOW(renameat2(AT_FDCWD, "h", AT_FDCWD, "data", RENAME_EXCHANGE));
	SHOW(renameat2(AT_FDCWD, "h", AT_FDCWD, "data", 99));
	SHOW(mkdir("empty", 0700));
	SHOW(rename("d", "empty"));
	SHOW(access("empty/x", R_OK | W_OK));
	SHOW(mkfifo("fifo", 0600));
	SHOW(mknod("node", S_IFREG | 0600, 0));
	char target[10];
	SHOW(readlink("l", target, 10));
	SHOW(readlink("l", target, 0));
	SHOW(readlink("h", target, 10));
	SHOW(symlink("", "s"));
	SHOW(symlink("x", "l"));
	SHOW(chdir("h"));
	SHOW(chdir("nothing"));
	SHOW(chdir("empty"));
	SHOW(rename("../empty", "../moved"));
	char where[200];
	printf("%s\n", strrchr(getcwd(where, sizeof where), '/'));
	SHOW(chdir(".."));
	SHOW(getcwd(where, 1) == NULL ? -1 : 0);
	int fd = open("moved", O_RDONLY | O_DIRECTORY);
	SHOW(faccessat(fd, "x", F_OK, 0));
	SHOW(openat(fd, "nothing", O_RDONLY));
	SHOW(openat(99, "x", O_RDONLY));
	SHOW(openat(99, "/etc/passwd", O_RDONLY) >= 0);
	SHOW(unlinkat(fd, "x", 0));
	SHOW(unlinkat(AT_FDCWD, "moved", AT_REMOVEDIR));
	SHOW(openat(fd, "x", O_CREAT | O_WRONLY, 0600));
	SHOW(fstat(fd, &status));
	SHOW(status.st_nlink);
	close(fd);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void directories(void)
{
	mkdir("many", 0700);
	for (int i = 0; i < 300; i++) {
		char name[30];
		snprintf(name, sizeof name, "many/%03d", i);
		close(open(name, O_CREAT | O_WRONLY, 0600));
	}
	struct dirent **list;
	int entries = scandir("many", &list, NULL, by_name);
	SHOW(entries);
	printf("%s %s %d\n", list[2]->d_name, list[entries - 1]->d_name, list[2]->d_type == DT_REG);
	DIR *directory = opendir("many");
	struct dirent *entry;
	int removed = 0;
	while ((entry = readdir(directory)))
		if (entry->d_name[0] != '.' && unlinkat(dirfd(directory), entry->d_name, 0) == 0)
			removed++;
	SHOW(removed);
	rewinddir(directory);
	int left = 0;
	while (readdir(directory))
		left++;
	SHOW(left);
	closedir(directory);
	SHOW(rmdir("many"));
	char buffer[10];
	int fd = open(".", O_RDONLY);
	SHOW(syscall(SYS_getdents64, fd, buffer, 10));
	close(fd);
	fd = open("data", O_RDONLY);
	SHOW(syscall(SYS_getdents64, fd, buffer, 10));
	close(fd);
}

static void attributes(void)
{
	struct stat status;
	int fd = open("a", O_CREAT | O_RDWR, 0666);
	umask(027);
	int other = open("b", O_CREAT | O_RDWR, 0666);
	fstat(other, &status);
	printf("%o\n", status.st_mode);
	SHOW(umask(022));
	SHOW(fchmod(fd, 07755));
	fstat(fd, &status);
	printf("%o\n", status.st_mode);
	SHOW(chmod("nothing", 0));
	struct timespec times[2] = {{100, 5}, {200, 7}};
	SHOW(futimens(fd, times));
	fstat(fd, &status);
	SHOW(status.st_atim.tv_sec);
	SHOW(status.st_mtim.tv_nsec);
	/* Times that no file system has are kept as near as it can; a sandbox must not mind. */
	SHOW(futimens(fd, (struct timespec[2]){{INT64_MAX, 1}, {INT64_MIN, 1}}));
	SHOW(fstat(fd, &status));
	SHOW(utimes("a", (struct timeval[2]){{INT64_MAX, 1}, {INT64_MIN, 1}}));
	SHOW(futimens(fd, times));
	times[0].tv_nsec = UTIME_OMIT;
	times[1].tv_nsec = 1000000000;
	SHOW(utimensat(AT_FDCWD, "a", times, 0));
	times[1].tv_nsec = UTIME_NOW;
	SHOW(utimensat(AT_FDCWD, "a", times, 0));
	fstat(fd, &status);
	SHOW(status.st_atim.tv_sec);
	SHOW(status.st_mtim.tv_sec > 1000);
	SHOW(utimensat(AT_FDCWD, "nothing", NULL, 0));
	SHOW(access("a", X_OK));
	SHOW(access("a", 99));
	SHOW(access("/usr/bin/env", X_OK));
	struct statx more;
	SHOW(statx(AT_FDCWD, "a", 0, STATX_BASIC_STATS, &more));
	SHOW(more.stx_mode == status.st_mode);
	SHOW(statx(fd, "", AT_EMPTY_PATH, STATX_ALL, &more));
	SHOW(statx(fd, "", 0, STATX_ALL, &more));
	SHOW(statx(AT_FDCWD, "a", 0x12345678, STATX_ALL, &more));
	struct statfs system;
	SHOW(statfs(".", &system));
	SHOW(statfs("nothing", &system));
	SHOW(system.f_namelen);
	char value[10];
	SHOW(getxattr("a", "user.x", value, 10));
	SHOW(setxattr("a", "user.x", "abc", 3, XATTR_REPLACE));
	SHOW(getxattr("nothing", "user.x", value, 10));
	SHOW(getxattr("a", "bad", value, 10));
	close(fd);
	close(other);
}

static void locks(void)
{
	int fd = open("lock", O_CREAT | O_RDWR, 0600), status;
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10};
	SHOW(fcntl(fd, F_SETLK, &lock));
	SHOW(flock(fd, LOCK_SH));
	pid_t child = fork();
	if (child == 0) {
		struct flock probe = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
		SHOW(fcntl(fd, F_GETLK, &probe));
		SHOW(probe.l_type == F_WRLCK);
		SHOW(probe.l_start);
		SHOW(probe.l_pid == getppid());
		SHOW(fcntl(fd, F_SETLK, &probe));
		probe.l_type = F_RDLCK, probe.l_start = 0, probe.l_len = 10;
		SHOW(fcntl(fd, F_SETLK, &probe));
		int again = open("lock", O_RDWR);
		SHOW(flock(again, LOCK_EX | LOCK_NB));
		probe.l_start = 15, probe.l_len = 1;
		SHOW(fcntl(fd, F_SETLKW, &probe));
		_exit(0);
	}
	nap_ms(200);
	lock.l_type = F_UNLCK;
	int released = fcntl(fd, F_SETLK, &lock);
	waitpid(child, &status, 0);
	SHOW(released);
	show_status("locker", status);
	SHOW(flock(fd, 99));
	SHOW(flock(99, LOCK_SH));
	lock.l_type = 9;
	SHOW(fcntl(fd, F_SETLK, &lock));
	close(fd);
}

static void descriptors(void)
{
	int fd = open("a", O_RDWR | O_APPEND);
	SHOW(fcntl(fd, F_GETFD));
	SHOW(fcntl(fd, F_SETFD, FD_CLOEXEC));
	SHOW(fcntl(fd, F_GETFD));
	SHOW((fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND)) == (O_RDWR | O_APPEND));
	SHOW(fcntl(fd, F_SETFL, O_NONBLOCK));
	SHOW((fcntl(fd, F_GETFL) & (O_APPEND | O_NONBLOCK)) == O_NONBLOCK);
	SHOW(fcntl(fd, F_DUPFD, 50));
	SHOW(fcntl(fd, F_DUPFD_CLOEXEC, 50));
	SHOW(fcntl(fd, F_DUPFD, -1));
	SHOW(fcntl(fd, 9999));
	SHOW(fcntl(99, F_GETFD));
	SHOW(dup2(fd, 60));
	SHOW(dup2(fd, fd) == fd);
	SHOW(dup2(99, 61));
	SHOW(dup2(fd, -1));
	SHOW(dup3(fd, fd, 0));
	SHOW(dup3(fd, 62, 99));
	SHOW(lseek(60, 2, SEEK_SET));
	SHOW(lseek(fd, 0, SEEK_CUR));
	SHOW(close_range(50, 70, 0));
	SHOW(close_range(9, 8, 0));
	SHOW(fcntl(60, F_GETFD));
	close(fd);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	opens();
	transfers();
	names();
	directories();
	attributes();
	locks();
	descriptors();
	return 0;
}
