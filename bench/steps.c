// Says which instructions of a program are executed: `steps FILE PROGRAM [ARGUMENT...]`.
//
// The program and the processes that it makes run one instruction at a time (ptrace(2)), each until it executes another program, whose
// instructions are none of ours. FILE gets the places in PROGRAM's own mapping, in hexadecimal, in the order in which they are reached
// for the first time. PROGRAM is an absolute path and statically linked. A million instructions take half a minute.
//
// Exit status: the program's, or 125.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

// The largest program that is told apart, in bytes of its mapping.
#define LARGEST (16ul << 20)
// pid_max is at most this (proc(5)).
#define PIDS (1 << 22)

static unsigned char reached[LARGEST];
static unsigned char elsewhere[PIDS]; // has executed another program
static unsigned char living[PIDS];

static void stop(const char *what) {
    perror(what);
    exit(125);
}

// Where the program is mapped in the process: the start of its first mapping of the file.
static unsigned long base_of(pid_t pid, const char *program) {
    char line[4096];
    snprintf(line, sizeof line, "/proc/%d/maps", pid);
    FILE *maps = fopen(line, "re");
    if (!maps) stop(line);
    unsigned long base = 0;
    while (!base && fgets(line, sizeof line, maps))
        if (strstr(line, program)) base = strtoul(line, NULL, 16);
    fclose(maps);
    return base;
}

static void note(pid_t pid, unsigned long base, FILE *out) {
    errno = 0;
    unsigned long at = (unsigned long)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), 0) - base;
    if (errno || at >= LARGEST || reached[at]) return;
    reached[at] = 1;
    fprintf(out, "%lx\n", at);
}

// Lets go of what lives longer than the program: the init of a created container.
static void leave(pid_t pid) {
    int status;
    kill(pid, SIGSTOP);
    while (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status) && WSTOPSIG(status) != SIGSTOP)
        ptrace(PTRACE_CONT, pid, 0, 0);
    ptrace(PTRACE_DETACH, pid, 0, 0);
}

int main(int argc, char **argv) {
    if (argc < 3) return fputs("steps: expected FILE PROGRAM [ARGUMENT...]\n", stderr), 125;
    FILE *out = fopen(argv[1], "we");
    if (!out) stop(argv[1]);
    pid_t first = fork();
    if (first == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execv(argv[2], argv + 2);
        _exit(125);
    }
    int status;
    if (waitpid(first, &status, 0) != first || !WIFSTOPPED(status)) stop(argv[2]);
    long options = PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC;
    if (ptrace(PTRACE_SETOPTIONS, first, 0, options) < 0) stop("PTRACE_SETOPTIONS");
    unsigned long base = base_of(first, argv[2]);
    ptrace(PTRACE_SINGLESTEP, first, 0, 0);
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0) stop("waitpid");
        living[pid] = WIFSTOPPED(status);
        if (!living[pid]) {
            if (pid == first) break;
            continue;
        }
        int event = status >> 16, signal = WSTOPSIG(status);
        if (event == PTRACE_EVENT_EXEC) elsewhere[pid] = 1;
        // A step ends with SIGTRAP, a new process begins with SIGSTOP: neither is for the program.
        if (signal == SIGTRAP && !event && !elsewhere[pid]) note(pid, base, out);
        if (signal == SIGTRAP || signal == SIGSTOP) signal = 0;
        ptrace(elsewhere[pid] ? PTRACE_CONT : PTRACE_SINGLESTEP, pid, 0, signal);
    }
    for (pid_t pid = 1; pid < PIDS; pid++)
        if (living[pid]) leave(pid);
    if (fclose(out)) stop(argv[1]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
