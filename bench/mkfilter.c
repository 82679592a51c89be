// Makes a seccomp program with libseccomp: `mkfilter <RULES >FILTER`, for bin/floor, which only loads it.
//
// Rules, one per line (bench/bundles writes them): first `default ERRNO`, then
// `allow NAME [INDEX OPERATOR VALUE VALUE2]...` or `errno ERRNO NAME [...]`, operators by their SCMP_CMP_ number.
// Names that libseccomp does not know are left out, as every runtime does.
#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Reads the comparisons that are left on the line.
static unsigned comparisons(struct scmp_arg_cmp *out) {
    unsigned count = 0;
    for (char *word; count < 6 && (word = strtok(NULL, " \n")); count++) {
        out[count].arg = (unsigned)atoi(word);
        out[count].op = (enum scmp_compare)atoi(strtok(NULL, " \n"));
        out[count].datum_a = strtoull(strtok(NULL, " \n"), NULL, 10);
        out[count].datum_b = strtoull(strtok(NULL, " \n"), NULL, 10);
    }
    return count;
}

int main(void) {
    char line[1024];
    scmp_filter_ctx filter = NULL;
    while (fgets(line, sizeof line, stdin)) {
        char *verb = strtok(line, " \n");
        if (strcmp(verb, "default") == 0) {
            filter = seccomp_init(SCMP_ACT_ERRNO((unsigned)atoi(strtok(NULL, " \n"))));
            if (!filter || seccomp_arch_add(filter, SCMP_ARCH_X86) || seccomp_arch_add(filter, SCMP_ARCH_X32)) return 1;
            seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
            continue;
        }
        unsigned action = SCMP_ACT_ALLOW;
        if (strcmp(verb, "errno") == 0) action = SCMP_ACT_ERRNO((unsigned)atoi(strtok(NULL, " \n")));
        int number = seccomp_syscall_resolve_name(strtok(NULL, " \n"));
        struct scmp_arg_cmp compare[6];
        unsigned count = comparisons(compare);
        if (number == __NR_SCMP_ERROR) continue;
        // EACCES: the action is the default's; nothing to add.
        int result = seccomp_rule_add_array(filter, action, number, count, compare);
        if (result && result != -EACCES) {
            fprintf(stderr, "mkfilter: system call %d: %s\n", number, strerror(-result));
            return 1;
        }
    }
    return filter && seccomp_export_bpf(filter, STDOUT_FILENO) == 0 ? 0 : 1;
}
