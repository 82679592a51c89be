"""How the cost of a container grows: with mounts, joined namespaces, rules of the seccomp profile. Used by bench/bench."""

import json
import os
import signal
import subprocess
import time

MOUNTS = (0, 50, 200, 500, 1000)
RULES = (0, 200, 250, 300, 350)
# Joined one after the other: none, the first, the first two, ...
JOINED = ("network", "ipc", "uts", "pid")
FILES = {"network": "net"}


def bundle(folder, name, base, change):
    """A variant of one of the bundles: `change` alters its config."""
    with open(os.path.join(folder, base, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    change(config)
    os.makedirs(os.path.join(folder, name), exist_ok=True)
    with open(os.path.join(folder, name, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    return name


def with_mounts(folder, count):
    def change(config):
        config["mounts"] += [{"destination": f"/mnt/{number}", "type": "bind", "source": os.path.join(folder, "source"),
                              "options": ["bind", "ro", "nosuid", "nodev"]} for number in range(count)]
    return bundle(folder, f"grown-mounts-{count}", "min", change)


def with_rules(folder, count):
    """So many rules of the engine's profile, one system call in each; none at all means no filter."""
    def change(config):
        seccomp = config["linux"]["seccomp"]
        rules = [{**rule, "names": [name]} for rule in seccomp["syscalls"] for name in rule["names"]]
        # What every program needs comes first, so that the container runs whatever is left out.
        needed = ("execve", "brk", "mmap", "mprotect", "exit_group", "arch_prctl", "set_tid_address", "set_robust_list", "rseq",
                  "prlimit64", "readlinkat", "readlink", "getrandom", "uname", "getuid", "setuid", "getgid", "setgid", "close",
                  "write", "openat", "read", "fcntl", "prctl", "close_range", "fstat", "futex", "rt_sigaction", "capset",
                  "rt_sigprocmask", "sigaltstack", "munmap", "chdir", "newfstatat", "setgroups", "dup3", "clone", "poll", "ppoll",
                  "sendto", "sendmsg", "recvmsg", "getpid", "epoll_pwait", "nanosleep", "sched_yield", "tgkill", "gettid")
        rules.sort(key=lambda rule: rule["names"][0] not in needed)
        seccomp["syscalls"] = rules[:count]
        if count == 0:
            del config["linux"]["seccomp"]
    return bundle(folder, f"grown-rules-{count}", "engine", change)


class Holder:
    """A process whose namespaces are joined."""

    def __enter__(self):
        command = ["unshare", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "sleep", "3600"]
        self.process = subprocess.Popen(command)
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        self.pid = None
        while self.pid is None and self.process.poll() is None:
            with open(children, encoding="ascii") as file:
                self.pid = next((int(word) for word in file.read().split()), None)
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def bundle(self, folder, count):
        def change(config):
            for space in config["linux"]["namespaces"]:
                if space["type"] in JOINED[:count]:
                    space["path"] = f"/proc/{self.pid}/ns/{FILES.get(space['type'], space['type'])}"
            if count > JOINED.index("uts"):
                # The name belongs to whoever made the namespace.
                config.pop("hostname", None)
        return bundle(folder, f"grown-joined-{count}", "min", change)


def run(bench, rounds):
    """Fills bench.growth: axis -> number -> runtime -> samples."""
    points = [("bind mounts", count, with_mounts(bench.bundles, count)) for count in MOUNTS]
    points += [("seccomp rules", count, with_rules(bench.bundles, count)) for count in RULES]
    with Holder() as holder:
        points += [("namespaces joined", count, holder.bundle(bench.bundles, count)) for count in range(len(JOINED) + 1)]
        for axis, number, name in points:
            bench.grow(axis, number, lambda name=name: bench.run_bundle("grown", name, count=rounds))
