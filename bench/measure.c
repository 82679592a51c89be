// Runs one command and measures it: `measure [-t SECONDS] [-e FILE] COMMAND [ARGUMENT...]`.
//
// One line of JSON on stdout: wall time, CPU time and peak memory of the command and of all that it left behind.
// It is a small static program because a child's peak memory includes that of the process it was forked from.
//
// CPU time: the command with the children it waited for (wait4), plus the orphans. An orphan is handed to this
// process, the nearest subreaper; one that has ended is reaped and added, one that lives on (the init of a created
// container) is read from /proc/PID/schedstat, whose first number is its time on a CPU in nanoseconds.
//
// -t: kill the command after so many seconds (default 20). -e: where its stderr goes (default /dev/null).
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long cpu_us(const struct rusage *u) {
    return (u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1000000LL + u->ru_utime.tv_usec + u->ru_stime.tv_usec;
}

// CPU time so far of the children that live on, in microseconds.
static long long living_us(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    FILE *children = fopen(path, "re");
    long long sum = 0;
    for (int pid; children && fscanf(children, "%d", &pid) == 1;) {
        long long ns;
        snprintf(path, sizeof path, "/proc/%d/schedstat", pid);
        FILE *stat = fopen(path, "re");
        if (stat && fscanf(stat, "%lld", &ns) == 1) sum += ns / 1000;
        if (stat) fclose(stat);
    }
    if (children) fclose(children);
    return sum;
}

// Starts the command in a process group of its own, so that a timeout ends all of it. vfork: this process is not copied.
static pid_t start(char **command, int null, int err) {
    pid_t pid = vfork();
    if (pid == 0) {
        setpgid(0, 0);
        dup2(null, 0);
        dup2(null, 1);
        dup2(err, 2);
        execvp(command[0], command);
        _exit(127);
    }
    return pid;
}

int main(int argc, char **argv) {
    int seconds = 20, option;
    const char *errors = "/dev/null";
    while ((option = getopt(argc, argv, "+t:e:")) != -1) {
        if (option == 't') seconds = atoi(optarg);
        else if (option == 'e') errors = optarg;
        else return 2;
    }
    if (optind == argc) return 2;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int err = open(errors, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (null < 0 || err < 0) return 2;
    prctl(PR_SET_CHILD_SUBREAPER, 1);

    long long began = now_ns();
    pid_t pid = start(argv + optind, null, err);
    struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    int timed_out = poll(&ended, 1, seconds * 1000) == 0;
    if (timed_out) kill(-pid, SIGKILL);
    int status;
    struct rusage usage;
    if (wait4(pid, &status, 0, &usage) != pid) return 2;
    long long wall = now_ns() - began;

    long long cpu = cpu_us(&usage);
    long peak = usage.ru_maxrss;
    for (struct rusage orphan; wait4(-1, NULL, WNOHANG, &orphan) > 0;) {
        cpu += cpu_us(&orphan);
        if (orphan.ru_maxrss > peak) peak = orphan.ru_maxrss;
    }
    cpu += living_us();
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    printf("{\"wall_us\": %lld, \"cpu_us\": %lld, \"rss_kib\": %ld, \"status\": %d, \"timed_out\": %s}\n", wall / 1000, cpu, peak,
           code, timed_out ? "true" : "false");
    return 0;
}
