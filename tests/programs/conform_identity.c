/* User and group ids, permissions, chroot, as root and after giving root up: results and errnos. */
#include "check.h"
#include <grp.h>

static void in_child(void (*body)(void))
{
	int status;
	pid_t child = fork();
	if (child == 0) {
		body();
		_exit(0);
	}
	waitpid(child, &status, 0);
	show_status("child", status);
}

static void show_ids(void)
{
	uid_t uids[3];
	gid_t gids[3];
	getresuid(&uids[0], &uids[1], &uids[2]);
	getresgid(&gids[0], &gids[1], &gids[2]);
	printf("%u %u %u, %u %u %u\n", uids[0], uids[1], uids[2], gids[0], gids[1], gids[2]);
}

static void give_up_root(void)
{
	gid_t groups[3] = {5, 6, 7}, got[3];
	SHOW(setgroups(3, groups));
	SHOW(getgroups(0, NULL));
	SHOW(getgroups(2, got));
	SHOW(getgroups(3, got));
	SHOW(setresgid(1000, 1001, 1002));
	SHOW(setresuid(1000, 1001, 1002));
	show_ids();
	SHOW(setuid(0));
	SHOW(setresuid(-1, 1002, -1));
	SHOW(setreuid(1001, -1));
	SHOW(seteuid(1000));
	SHOW(setgid(0));
	SHOW(setgroups(0, NULL));
	show_ids();
	SHOW(open("private", O_RDONLY));
	SHOW(open("readable", O_RDWR));
	SHOW(access("readable", R_OK));
	SHOW(unlink("readable"));
	SHOW(chmod("readable", 0777));
	SHOW(chown("readable", 1000, 1000));
	SHOW(mkdir("new", 0700));
	SHOW(kill(getppid(), 0));
	SHOW(chroot("."));
	SHOW(sethostname("x", 1));
	SHOW(setpriority(PRIO_PROCESS, 0, -5));
	SHOW(syscall(SYS_mount, "none", ".", "tmpfs", 0, NULL));
}

static void root_again(void)
{
	SHOW(seteuid(1000));
	SHOW(open("private", O_RDONLY));
	SHOW(seteuid(0));
	OK(open("private", O_RDONLY));
	SHOW(setregid(-1, 50));
	show_ids();
	struct stat status;
	SHOW(close(open("made", O_CREAT | O_WRONLY, 0600)));
	stat("made", &status);
	SHOW(status.st_uid);
	SHOW(status.st_gid);
	SHOW(chown("made", 12, 34));
	SHOW(chmod("made", 06755));
	SHOW(chown("made", 12, 35));
	stat("made", &status);
	printf("%o %u %u\n", status.st_mode, status.st_uid, status.st_gid);
}

static void new_root(void)
{
	char where[100];
	SHOW(mkdir("root", 0755));
	SHOW(chroot("nothing"));
	SHOW(chroot("root"));
	SHOW(chdir("/"));
	SHOW(access("/etc/passwd", F_OK));
	SHOW(chdir("../../.."));
	printf("%s\n", getcwd(where, sizeof where));
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	close(open("private", O_CREAT | O_WRONLY, 0600));
	close(open("readable", O_CREAT | O_WRONLY, 0644));
	chmod(".", 0755);
	in_child(give_up_root);
	in_child(root_again);
	in_child(new_root);
	return 0;
}
