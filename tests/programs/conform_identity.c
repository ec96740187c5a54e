/* User and group ids, permissions, chroot, as root and after giving root up: results and errnos. */
#include "check.h"
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>

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

static void show_capabilities(const char *when)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	syscall(SYS_capget, &head, data);
	/* CAP_CHOWN and CAP_NET_RAW only: natively root may lack some others. */
	unsigned these = 1 << CAP_CHOWN | 1 << CAP_NET_RAW;
	printf("%s: effective %x permitted %x inheritable %x\n", when, data[0].effective & these,
	       data[0].permitted & these, data[0].inheritable & these);
	fflush(stdout);
}

static void inherit(int capability)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	syscall(SYS_capget, &head, data);
	data[0].effective = data[0].permitted;
	data[1].effective = data[1].permitted;
	data[0].inheritable |= 1u << capability;
	SHOW(syscall(SYS_capset, &head, data));
}

/* What setpriv(1) and daemons do that keep some capabilities of root. */
static void keep_capabilities(void)
{
	SHOW(prctl(PR_SET_KEEPCAPS, 2));
	SHOW(prctl(PR_SET_KEEPCAPS, 1));
	SHOW(prctl(PR_GET_KEEPCAPS));
	SHOW(setresuid(1000, 1000, 1000));
	show_capabilities("kept");
	SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
	inherit(CAP_CHOWN);
	show_capabilities("inheritable");
	SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
	SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0));
	SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_RAW, 0, 0));
	SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 63, 0, 0));
	SHOW(prctl(PR_CAP_AMBIENT, 9, CAP_CHOWN, 0, 0));
	SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 1, 0, 0));
	execl("/proc/self/exe", "conform_identity", "capabilities", NULL);
}

static void after_exec(void)
{
	show_capabilities("after exec");
	SHOW(prctl(PR_GET_KEEPCAPS));
	SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0));
	SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, CAP_CHOWN, 0, 0));
	SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0));
	SHOW(prctl(PR_CAPBSET_DROP, CAP_CHOWN));
	SHOW(prctl(PR_CAPBSET_DROP, 99));
}

static void secure_bits(void)
{
	SHOW(prctl(PR_SET_SECUREBITS, 1 << 20));
	SHOW(prctl(PR_SET_SECUREBITS, 1 << 2 | 1 << 3));
	SHOW(prctl(PR_GET_SECUREBITS));
	SHOW(prctl(PR_SET_SECUREBITS, 0));
	SHOW(prctl(PR_SET_SECUREBITS, 1 << 2 | 1 << 3 | 1 << 5));
	SHOW(prctl(PR_SET_KEEPCAPS, 1));
	SHOW(setresuid(1000, 1000, 1000));
	show_capabilities("no fix-up");
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

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1 && strcmp(argv[1], "capabilities") == 0) {
		after_exec();
		return 0;
	}
	close(open("private", O_CREAT | O_WRONLY, 0600));
	close(open("readable", O_CREAT | O_WRONLY, 0644));
	chmod(".", 0755);
	in_child(give_up_root);
	in_child(root_again);
	in_child(new_root);
	in_child(keep_capabilities);
	in_child(secure_bits);
	return 0;
}
