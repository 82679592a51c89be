// The kernel's floor: the container of the "engine" bundle (docs/bench/) made by bare system calls and nothing else.
//
//   floor ROOTFS FILTER    "engine": FILTER is a seccomp program in the kernel's form (bin/mkfilter makes it)
//   floor ROOTFS           "min": no filter, no limits, no cgroup namespace
//
// No parsing, no state, no checks, and of an error only the number of the step that failed: what this program takes,
// every runtime must take; what a runtime takes on top is its own. It knows cgroup v1 with its hierarchies
// mounted at /sys/fs/cgroup/NAME, and needs root and Linux 5.12.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>
#include <grp.h>
#include <linux/capability.h>

static int step;

static void stop(void) {
    dprintf(2, "floor: step %d, errno %d\n", step, errno);
    _exit(125);
}

// Takes one step; the value of the call. The number of a step is its position in the order of execution.
#define DO(call) (__extension__({ long value_ = (long)(call); step++; if (value_ < 0) stop(); value_; }))

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *const hierarchies[] = {"cpu",     "cpuacct", "cpuset", "memory", "devices",
                                          "freezer", "blkio",   "pids",   "systemd"};
static const char *const rules[] = {"c *:* m",  "b *:* m",  "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm",  "c 1:8 rwm",
                                    "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"};
static const char *const masked[] = {"/proc/acpi",       "/proc/asound",      "/proc/kcore",       "/proc/keys",
                                     "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
                                     "/sys/firmware",    "/proc/scsi"};
static const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
static const struct {
    const char *path;
    unsigned major, minor;
} devices[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
               {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};

// Docker's fourteen: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw,
// sys_chroot, mknod, audit_write, setfcap.
static const uint32_t capabilities = 1u << 0 | 1u << 1 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 8 | 1u << 10 |
                                     1u << 13 | 1u << 18 | 1u << 27 | 1u << 29 | 1u << 31;

static int group[COUNT(hierarchies)];     // the container's cgroups, one for each hierarchy
static int group_tree[COUNT(hierarchies)]; // the same as detached mounts
static char group_path[64];

static void put(int dir, const char *file, const char *text) {
    int fd = (int)DO(openat(dir, file, O_WRONLY | O_CLOEXEC));
    DO(write(fd, text, strlen(text)));
    close(fd);
}

static void copy(int from, int to, const char *file) {
    char text[256];
    int fd = (int)DO(openat(from, file, O_RDONLY | O_CLOEXEC));
    long length = DO(read(fd, text, sizeof text - 1));
    text[length] = 0;
    close(fd);
    put(to, file, text);
}

static void limit(int dir, const char *hierarchy) {
    if (strcmp(hierarchy, "memory") == 0) put(dir, "memory.limit_in_bytes", "268435456");
    if (strcmp(hierarchy, "pids") == 0) put(dir, "pids.max", "1024");
    if (strcmp(hierarchy, "cpu") == 0) {
        put(dir, "cpu.shares", "1024");
        put(dir, "cpu.cfs_period_us", "100000");
        put(dir, "cpu.cfs_quota_us", "200000");
    }
    if (strcmp(hierarchy, "devices") == 0) {
        put(dir, "devices.deny", "a");
        for (size_t i = 0; i < COUNT(rules); i++) put(dir, "devices.allow", rules[i]);
    }
}

static void make_groups(int limits) {
    for (size_t i = 0; i < COUNT(hierarchies); i++) {
        char path[128];
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s", hierarchies[i]);
        int parent = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        group[i] = -1;
        if (parent < 0) continue;
        DO(mkdirat(parent, group_path, 0755));
        group[i] = (int)DO(openat(parent, group_path, O_PATH | O_DIRECTORY | O_CLOEXEC));
        // A cpuset is unusable until it has processors and memory nodes.
        if (strcmp(hierarchies[i], "cpuset") == 0) {
            copy(parent, group[i], "cpuset.cpus");
            copy(parent, group[i], "cpuset.mems");
        }
        if (limits) limit(group[i], hierarchies[i]);
        close(parent);
    }
}

static void remove_groups(void) {
    for (size_t i = 0; i < COUNT(hierarchies); i++) {
        char path[128];
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s", hierarchies[i], group_path);
        if (group[i] >= 0) DO(rmdir(path));
    }
}

// init moves itself, by a zero in `tasks`: moving another process, or a whole one through cgroup.procs, takes the
// kernel's global lock of thread groups, which may wait for an RCU grace period; a thread that moves itself does not
// (cgroup_procs_write_start in kernel/cgroup/cgroup.c).
static void join_groups(void) {
    for (size_t i = 0; i < COUNT(hierarchies); i++)
        if (group[i] >= 0) put(group[i], "tasks", "0");
}

// A new filesystem as a detached mount. `options`: name, value, name, value, ... NULL.
static int filesystem(const char *type, const char *const *options, unsigned attributes) {
    int context = (int)DO(fsopen(type, FSOPEN_CLOEXEC));
    for (; options && options[0]; options += 2) DO(fsconfig(context, FSCONFIG_SET_STRING, options[0], options[1], 0));
    DO(fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    int mount = (int)DO(fsmount(context, FSMOUNT_CLOEXEC, attributes));
    close(context);
    return mount;
}

static void attach(int mount, const char *path) {
    DO(move_mount(mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH));
    close(mount);
}

#define OPTIONS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define SAFE (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

static void enter_root(const char *rootfs) {
    DO(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL));
    // The cgroup trees are out of reach once the host's root is gone. By path: the descriptors of the parent lie on
    // mounts of its own namespace, which cannot be cloned from here (EINVAL).
    for (size_t i = 0; i < COUNT(hierarchies); i++) {
        char path[128];
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s", hierarchies[i], group_path);
        if (group[i] >= 0) group_tree[i] = (int)DO(open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
    }
    int root = (int)DO(open_tree(AT_FDCWD, rootfs, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
    DO(move_mount(root, "", AT_FDCWD, rootfs, MOVE_MOUNT_F_EMPTY_PATH));
    DO(fchdir(root));
    DO(syscall(SYS_pivot_root, ".", "."));
    DO(umount2(".", MNT_DETACH));
    DO(chdir("/"));
    close(root);
}

static void mounts(void) {
    attach(filesystem("proc", NULL, 0), "/proc");
    attach(filesystem("tmpfs", OPTIONS("mode", "755", "size", "65536k"), MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME), "/dev");
    DO(mkdir("/dev/pts", 0755));
    DO(mkdir("/dev/shm", 0755));
    DO(mkdir("/dev/mqueue", 0755));
    const char *const *terminals = OPTIONS("ptmxmode", "0666", "mode", "0620", "gid", "5");
    attach(filesystem("devpts", terminals, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC), "/dev/pts");
    attach(filesystem("sysfs", NULL, SAFE | MOUNT_ATTR_RDONLY), "/sys");
    attach(filesystem("mqueue", NULL, SAFE), "/dev/mqueue");
    attach(filesystem("tmpfs", OPTIONS("mode", "1777", "size", "65536k"), SAFE), "/dev/shm");
    // cgroup v1 in a container: a small tmpfs with one folder for each hierarchy.
    attach(filesystem("tmpfs", OPTIONS("mode", "755"), SAFE), "/sys/fs/cgroup");
    struct mount_attr fixed = {.attr_set = SAFE | MOUNT_ATTR_RDONLY};
    for (size_t i = 0; i < COUNT(hierarchies); i++) {
        char path[64];
        if (group[i] < 0) continue;
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s", hierarchies[i]);
        DO(mkdir(path, 0755));
        DO(mount_setattr(group_tree[i], "", AT_EMPTY_PATH, &fixed, sizeof fixed));
        attach(group_tree[i], path);
    }
    DO(mount_setattr(AT_FDCWD, "/sys/fs/cgroup", 0, &fixed, sizeof fixed));
}

static void default_devices(void) {
    umask(0);
    for (size_t i = 0; i < COUNT(devices); i++)
        DO(mknod(devices[i].path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)));
    DO(symlink("pts/ptmx", "/dev/ptmx"));
    DO(symlink("/proc/self/fd", "/dev/fd"));
    DO(symlink("/proc/self/fd/0", "/dev/stdin"));
    DO(symlink("/proc/self/fd/1", "/dev/stdout"));
    DO(symlink("/proc/self/fd/2", "/dev/stderr"));
    umask(022);
}

// A folder is covered by an empty filesystem, a file by /dev/null: the kernel refuses the wrong kind (ENOTDIR).
static void hide(void) {
    int empty = filesystem("tmpfs", OPTIONS("nr_inodes", "1"), SAFE | MOUNT_ATTR_RDONLY);
    for (size_t i = 0; i < COUNT(masked); i++) {
        int target = open(masked[i], O_PATH | O_CLOEXEC);
        if (target < 0) continue;
        int cover = (int)DO(open_tree(empty, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
        if (move_mount(cover, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0) {
            int null = (int)DO(open_tree(AT_FDCWD, "/dev/null", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
            DO(move_mount(null, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
            close(null);
        }
        close(cover);
        close(target);
    }
    close(empty);
    struct mount_attr fixed = {.attr_set = MOUNT_ATTR_RDONLY};
    for (size_t i = 0; i < COUNT(read_only); i++) {
        int tree = open_tree(AT_FDCWD, read_only[i], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
        if (tree < 0) continue;
        DO(mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &fixed, sizeof fixed));
        attach(tree, read_only[i]);
    }
}

static void loopback_up(void) {
    int fd = (int)DO(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    DO(ioctl(fd, SIOCSIFFLAGS, &request));
    close(fd);
}

static void privileges(struct sock_fprog *filter) {
    struct rlimit files = {1024, 1024};
    DO(setrlimit(RLIMIT_NOFILE, &files));
    for (int i = 0; i <= 40; i++)
        if (i > 31 || !(capabilities >> i & 1)) DO(prctl(PR_CAPBSET_DROP, i, 0, 0, 0));
    DO(setgroups(0, NULL));
    DO(syscall(SYS_setresgid, 0, 0, 0));
    DO(syscall(SYS_setresuid, 0, 0, 0));
    DO(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {{.effective = capabilities, .permitted = capabilities, .inheritable = 0}};
    DO(syscall(SYS_capset, &header, sets));
    if (filter->len) DO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, filter));
}

static void init(const char *rootfs, struct sock_fprog *filter) {
    DO(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
    DO(setsid());
    DO(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "floor"));
    join_groups();
    if (filter->len) DO(unshare(CLONE_NEWCGROUP));
    DO(sethostname("floor", 5));
    loopback_up();
    enter_root(rootfs);
    mounts();
    default_devices();
    hide();
    DO(prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0));
    privileges(filter);
    char *const arguments[] = {"/bin/true", NULL};
    char *const environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    DO(execve("/bin/true", arguments, environment));
}

int main(int argc, char **argv) {
    static char program[65536];
    struct sock_fprog filter = {.filter = (struct sock_filter *)program};
    if (argc < 2) stop();
    if (argc > 2) {
        int fd = (int)DO(open(argv[2], O_RDONLY | O_CLOEXEC));
        filter.len = (unsigned short)(DO(read(fd, program, sizeof program)) / (long)sizeof(struct sock_filter));
        close(fd);
    }
    snprintf(group_path, sizeof group_path, "floor-%d", getpid());
    make_groups(filter.len != 0);
    struct clone_args namespaces = {.flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWIPC,
                                    .exit_signal = SIGCHLD};
    pid_t pid = (pid_t)DO(syscall(SYS_clone3, &namespaces, sizeof namespaces));
    if (pid == 0) init(argv[1], &filter);
    int status;
    DO(wait4(pid, &status, 0, NULL));
    remove_groups();
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
