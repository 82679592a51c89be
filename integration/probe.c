/* What busybox cannot do, for both sides of a container: raw system calls inside, terminals and sockets outside.
 * Built statically at test time. Usage: probe VERB ARGUMENTS. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/fuse.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what) {
	perror(what);
	exit(99);
}

/* syscall NUMBER [ARGUMENT...]: prints the name of the error, or "ok". */
static int do_syscall(char **argv) {
	long a[6] = {0};
	for (int i = 0; i < 6 && argv[1 + i]; i++) a[i] = strtol(argv[1 + i], NULL, 0);
	errno = 0;
	long ret = syscall(strtol(argv[0], NULL, 0), a[0], a[1], a[2], a[3], a[4], a[5]);
	puts(ret == -1 ? strerrorname_np(errno) : "ok");
	return 0;
}

/* sched: prints policy, flags, nice value, priority, runtime, deadline and period of this process. */
static int do_sched(void) {
	struct {
		unsigned size, policy;
		unsigned long long flags;
		int nice;
		unsigned priority;
		unsigned long long runtime, deadline, period;
	} a = {0};
	if (syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) < 0) die("sched_getattr");
	printf("%u %llu %d %u %llu %llu %llu\n", a.policy, a.flags, a.nice, a.priority, a.runtime, a.deadline, a.period);
	return 0;
}

/* ioprio: prints class and level of this process. */
static int do_ioprio(void) {
	long value = syscall(SYS_ioprio_get, 1, 0);
	if (value < 0) die("ioprio_get");
	printf("%ld %ld\n", value >> 13, value & 0x1fff);
	return 0;
}

/* mempolicy: prints the mode with its flags, and the first nodes. */
static int do_mempolicy(void) {
	int mode = 0;
	unsigned long nodes[16] = {0};
	if (syscall(SYS_get_mempolicy, &mode, nodes, sizeof nodes * 8, 0, 0) < 0) die("get_mempolicy");
	printf("%d %lu\n", mode, nodes[0]);
	return 0;
}

/* tiocsti: pushes a character into the input of the terminal on standard input or the controlling one. */
static int do_tiocsti(void) {
	int tty = open("/dev/tty", O_RDWR);
	int worked = ioctl(tty, TIOCSTI, "x") == 0 || ioctl(0, TIOCSTI, "x") == 0 || ioctl(1, TIOCSTI, "x") == 0;
	puts(worked ? "pushed" : "refused");
	return 0;
}

/* Copies between a terminal's master side and standard input and output, until the other side is closed.
 * A received terminal may be closed at first: the other side is opened a moment after the master was sent. */
static void relay(int master, int may_open_later) {
	struct pollfd fds[2] = {{.fd = master, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
	char buffer[4096];
	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno == EINTR) continue;
		if (fds[0].revents) {
			ssize_t n = read(master, buffer, sizeof buffer);
			if (n <= 0 && may_open_later) {
				usleep(5000);
				continue;
			}
			if (n <= 0) return;
			may_open_later = 0;
			if (write(1, buffer, n) < 0) die("write");
		}
		if (fds[1].revents) {
			ssize_t n = read(0, buffer, sizeof buffer);
			if (n <= 0) fds[1].fd = -1;
			else if (write(master, buffer, n) < 0) die("write");
		}
	}
}

static int listen_on(const char *path, int queue) {
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s.new", path);
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, queue)) die(path);
	if (rename(address.sun_path, path)) die(path); /* only now others find it, and it answers */
	return listener;
}

/* deaf SOCKET: has room for one connection, and accepts none. */
static void do_deaf(const char *path) {
	listen_on(path, 0);
	for (;;) pause();
}

/* recvtty SOCKET: waits for one terminal on a console socket, says what it is, and relays it. */
static int do_recvtty(const char *path) {
	int listener = listen_on(path, 1);
	int connection = accept(listener, NULL, NULL);
	char name[4096] = {0};
	union {
		char space[CMSG_SPACE(8 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {name, sizeof name - 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	if (recvmsg(connection, &message, 0) <= 0) die("recvmsg");
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_type != SCM_RIGHTS) return puts("no descriptor"), 1;
	int count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int), master;
	memcpy(&master, CMSG_DATA(header), sizeof master);
	unsigned number;
	printf("received %d master %s\n", count, ioctl(master, TIOCGPTN, &number) ? "no" : "yes");
	fflush(stdout);
	relay(master, 1);
	return 0;
}

static int pty_master;

/* The test says "resize" by SIGUSR1. */
static void resize(int signal) {
	struct winsize size = {.ws_row = 51, .ws_col = 131};
	(void)signal;
	ioctl(pty_master, TIOCSWINSZ, &size);
}

/* pty COMMAND...: runs a command on a new terminal of 41 rows and 121 columns and relays it; exits as the command did. */
static int do_pty(char **argv) {
	struct winsize size = {.ws_row = 41, .ws_col = 121};
	pid_t child = forkpty(&pty_master, NULL, NULL, &size);
	if (child == 0) {
		execvp(argv[0], argv);
		die(argv[0]);
	}
	signal(SIGUSR1, resize);
	relay(pty_master, 0);
	int status;
	if (waitpid(child, &status, 0) < 0) die("waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* swap A B: exchanges two paths until it is killed. */
static void do_swap(const char *a, const char *b) {
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}

static void *wait_for_ever(void *unused) {
	for (;;) pause();
	return unused;
}

/* leaderless: the first thread ends, another one stays. */
static void do_leaderless(void) {
	pthread_t thread;
	if (pthread_create(&thread, NULL, wait_for_ever, NULL)) die("pthread_create");
	syscall(SYS_exit, 0);
}

static struct fuse_attr attributes(uint64_t node) {
	struct fuse_attr attr = {.ino = node, .nlink = 1, .blksize = 4096, .mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0644};
	if (node != 1) attr.size = 1ull << 62;
	return attr;
}

/* fuse DIRECTORY hangs|lies: mounts a filesystem that reads no request, or in which every name is an endless file that says it has a size. */
static void do_fuse(const char *directory, int lies) {
	int fd = open("/dev/fuse", O_RDWR);
	char options[128];
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd);
	if (fd < 0 || mount("rt-probe", directory, "fuse", 0, options)) die("fuse");
	puts("mounted");
	fflush(stdout);
	static char in[1 << 18];
	static struct {
		struct fuse_out_header header;
		union {
			struct fuse_init_out init;
			struct fuse_attr_out attr;
			struct fuse_entry_out entry;
			struct fuse_open_out open;
			char data[1 << 17];
		};
	} out;
	for (;;) {
		if (read(fd, in, sizeof in) < 0) die("read");
		struct fuse_in_header *request = (void *)in;
		size_t length = 0;
		memset(&out, 0, sizeof out);
		out.header.unique = request->unique;
		switch (request->opcode) {
		case FUSE_INIT:
			out.init = (struct fuse_init_out){.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .max_write = 4096};
			length = sizeof out.init;
			break;
		case FUSE_GETATTR:
			out.attr.attr = attributes(request->nodeid);
			length = sizeof out.attr;
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			continue;
		case FUSE_LOOKUP:
			out.entry = (struct fuse_entry_out){.nodeid = 2, .attr = attributes(2)};
			length = sizeof out.entry;
			break;
		case FUSE_OPEN:
		case FUSE_OPENDIR:
			length = sizeof out.open;
			break;
		case FUSE_READ:
			length = ((struct fuse_read_in *)(request + 1))->size;
			memset(out.data, ' ', length);
			break;
		case FUSE_ACCESS:
		case FUSE_READDIR:
		case FUSE_RELEASE:
			break;
		default:
			out.header.error = -ENOSYS;
		}
		out.header.len = sizeof out.header + length;
		if (write(fd, &out, out.header.len) < 0 && errno != ENOENT) die("write");
		/* What it has read and not answered would be waited for by the killed, too. */
		while (!lies) pause();
	}
}

/* subreaper COMMAND...: adopts the orphans of a command without ever waiting for them; they stay zombies. */
static int do_subreaper(char **argv) {
	if (prctl(PR_SET_CHILD_SUBREAPER, 1)) die("prctl");
	pid_t child = fork();
	if (child == 0) {
		execvp(argv[0], argv);
		die(argv[0]);
	}
	int status;
	if (waitpid(child, &status, 0) < 0) die("waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* notify SOCKET NUMBER ERRNO [ROUNDS]: the agent of a seccomp listener. Prints what comes with it and each call that is reported, fails those of the
 * given number and lets the others go on, until nobody is under the filter any more; so often. */
static void serve(int connection, int number, int error) {
	char text[8192] = {0};
	union {
		char space[CMSG_SPACE(8 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {text, sizeof text - 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	if (recvmsg(connection, &message, 0) <= 0) die("recvmsg");
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_type != SCM_RIGHTS) die("no descriptor");
	int listener;
	memcpy(&listener, CMSG_DATA(header), sizeof listener);
	printf("%s\n", text);
	fflush(stdout);
	for (;;) {
		struct pollfd fd = {.fd = listener, .events = POLLIN};
		poll(&fd, 1, -1);
		if (!(fd.revents & POLLIN)) break;
		struct seccomp_notif request = {0};
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request)) continue;
		printf("call %d\n", request.data.nr);
		fflush(stdout);
		struct seccomp_notif_resp answer = {.id = request.id};
		if (request.data.nr == number) answer.error = -error;
		else answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	}
	close(listener);
}

static int do_notify(const char *path, int number, int error, int rounds) {
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s.new", path);
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8)) die(path);
	if (rename(address.sun_path, path)) die(path);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (rounds-- > 0) {
		int connection = accept(listener, NULL, NULL);
		if (connection < 0) die("accept");
		if (error < 0) return puts("leaves"), 0;
		if (fork() == 0) {
			serve(connection, number, error);
			return 0;
		}
		close(connection);
	}
	while (wait(NULL) > 0) continue;
	return 0;
}

/* bomb: makes processes, which do the same, for ever. Nobody has to wait for them. */
static void do_bomb(void) {
	signal(SIGCHLD, SIG_IGN);
	for (;;) fork();
}

/* recvpidfd PATH: listens there, prints the word that comes with a descriptor, and "ended" when the process of that pidfd has. */
static int do_recvpidfd(const char *path) {
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s.new", path);
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1)) die(path);
	if (rename(address.sun_path, path)) die(path);
	int connection = accept(listener, NULL, NULL);
	char text[64] = "", control[256];
	struct iovec iov = {text, sizeof text - 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	if (recvmsg(connection, &message, 0) <= 0) die("recvmsg");
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_type != SCM_RIGHTS) die("no descriptor");
	int pidfd;
	memcpy(&pidfd, CMSG_DATA(header), sizeof pidfd);
	char name[64], line[256];
	snprintf(name, sizeof name, "/proc/self/fdinfo/%d", pidfd);
	FILE *info = fopen(name, "r");
	int pid = 0;
	while (info && fgets(line, sizeof line, info)) sscanf(line, "Pid: %d", &pid);
	printf("%s %d\n", text, pid);
	fflush(stdout);
	struct pollfd fd = {.fd = pidfd, .events = POLLIN};
	poll(&fd, 1, -1);
	puts("ended");
	return 0;
}

/* sdnotify TEXT [barrier]: says this on NOTIFY_SOCKET, with "barrier" also waits until it has been read. */
static int do_sdnotify(const char *text, int barrier) {
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s", getenv("NOTIFY_SOCKET"));
	int out = socket(AF_UNIX, SOCK_DGRAM, 0), ends[2];
	if (connect(out, (struct sockaddr *)&address, sizeof address)) die("connect");
	if (send(out, text, strlen(text), 0) < 0) die("send");
	if (!barrier) return 0;
	if (pipe(ends)) die("pipe");
	char control[CMSG_SPACE(sizeof(int))] = "";
	struct iovec iov = {"BARRIER=1", 9};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	*header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(header), &ends[1], sizeof(int));
	if (sendmsg(out, &message, 0) < 0) die("sendmsg");
	close(ends[1]);
	struct pollfd fd = {.fd = ends[0], .events = 0};
	return poll(&fd, 1, 5000) == 1 ? 0 : 1;
}

/* A socket on the loopback device. */
static int tcp_socket(struct sockaddr_in *address) {
	memset(address, 0, sizeof *address);
	address->sin_family = AF_INET;
	address->sin_port = htons(7000);
	address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return socket(AF_INET, SOCK_STREAM, 0);
}

static void put(const char *path, long number) {
	FILE *file = fopen("/new", "w");
	fprintf(file, "%ld\n", number);
	fclose(file);
	rename("/new", path);
}

/* Sends a growing number through a connection and writes what comes back to /count; what ends it, an errno or 0, goes to /closed. */
static int tcp_client(void) {
	struct sockaddr_in address;
	int fd = tcp_socket(&address);
	if (connect(fd, (struct sockaddr *)&address, sizeof address)) return perror("connect"), 97;
	for (long sent = 1, came = 0; sent == came + 1; sent++, usleep(20000)) {
		errno = 0;
		if (write(fd, &sent, sizeof sent) != sizeof sent || read(fd, &came, sizeof came) != sizeof came) break;
		put("/count", came);
	}
	put("/closed", errno);
	for (;;) pause();
}

/* Both ends of a TCP connection, two processes. With "waiting" the server does not accept it. */
static int do_tcp(int waiting) {
	struct sockaddr_in address;
	int one = 1, listener = tcp_socket(&address);
	long number;
	signal(SIGPIPE, SIG_IGN);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 5)) return perror("listen"), 97;
	if (waiting) {
		int fd = tcp_socket(&address);
		if (connect(fd, (struct sockaddr *)&address, sizeof address)) return perror("connect"), 97;
		for (number = 0;; number++, usleep(20000)) put("/count", number);
	}
	if (fork() == 0) return tcp_client();
	int fd = accept(listener, NULL, NULL);
	while (read(fd, &number, sizeof number) == sizeof number && write(fd, &number, sizeof number) == sizeof number) {}
	for (;;) pause();
}

int main(int argc, char **argv) {
	const char *verb = argc > 1 ? argv[1] : "";
	if (!strcmp(verb, "syscall") && argc > 2) return do_syscall(argv + 2);
	if (!strcmp(verb, "bomb")) do_bomb();
	if (!strcmp(verb, "recvpidfd") && argc > 2) return do_recvpidfd(argv[2]);
	if (!strcmp(verb, "sdnotify") && argc > 2) return do_sdnotify(argv[2], argc > 3);
	if (!strcmp(verb, "tiocsti")) return do_tiocsti();
	if (!strcmp(verb, "sched")) return do_sched();
	if (!strcmp(verb, "ioprio")) return do_ioprio();
	if (!strcmp(verb, "mempolicy")) return do_mempolicy();
	if (!strcmp(verb, "recvtty") && argc > 2) return do_recvtty(argv[2]);
	if (!strcmp(verb, "pty") && argc > 2) return do_pty(argv + 2);
	if (!strcmp(verb, "deaf") && argc > 2) do_deaf(argv[2]);
	if (!strcmp(verb, "fuse") && argc > 3) do_fuse(argv[2], !strcmp(argv[3], "lies"));
	if (!strcmp(verb, "leaderless")) do_leaderless();
	if (!strcmp(verb, "subreaper") && argc > 2) return do_subreaper(argv + 2);
	if (!strcmp(verb, "notify") && argc > 4) return do_notify(argv[2], atoi(argv[3]), atoi(argv[4]), argc > 5 ? atoi(argv[5]) : 1);
	if (!strcmp(verb, "tcp")) return do_tcp(argc > 2);
	if (!strcmp(verb, "swap") && argc > 3) do_swap(argv[2], argv[3]);
	fprintf(stderr, "probe: unknown verb or too few arguments\n");
	return 98;
}
