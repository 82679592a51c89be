"""Podman, as root and as an ordinary user."""

import concurrent.futures
import json
import os
import re
import socket
import urllib.request

import checkpoint
import world
from harness import Engine, Skipped, check, contains, equal, eventually, limit, need, scenario

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
INSTALLED = "/usr/local/bin/rt"


def snippet(name, runtime):
    """A file of contrib/ for this runtime."""
    return world.read(f"{TOP}/contrib/{name}").replace(INSTALLED, runtime)


def configure(lab, folder, rootless=False):
    """Writes containers.conf and the like, and returns the environment that names them."""
    os.makedirs(folder, exist_ok=True)
    engine = '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\ninfra_image = "localhost/rt-pause"\n'
    base = snippet("containers.conf", lab.runtime).replace("[engine]\n", engine, 1)
    ulimits = ", ".join(f'"{name}={limit(name)}:{limit(name)}"' for name in ("nofile", "nproc"))
    text = f'{base}\n[containers]\ndefault_ulimits = [{ulimits}]\nlog_driver = "k8s-file"\n'
    text += f'\n[network]\nnetwork_config_dir = "{folder}/networks"\n'
    world.write(f"{folder}/containers.conf", text)
    world.write(f"{folder}/policy.json", json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    world.write(f"{folder}/registries.conf", "")
    driver = 'driver = "overlay"\n' + ('[storage.options.overlay]\nmount_program = "/usr/bin/fuse-overlayfs"\n' if rootless else "")
    world.write(f"{folder}/storage.conf", f'[storage]\n{driver.splitlines()[0]}\nrunroot = "{folder}/runroot"\ngraphroot = "{folder}/root"\n'
                + "\n".join(driver.splitlines()[1:]))
    return {
        "CONTAINERS_CONF": f"{folder}/containers.conf",
        "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
        "CONTAINERS_REGISTRIES_CONF": f"{folder}/registries.conf",
        "BUILDAH_ISOLATION": "oci",
    }


class Base(Engine):
    """What the scenarios of both kinds have in common."""

    user = None

    def podman(self, *arguments, **options):
        argv = ["podman", "--root", f"{self.folder}/root", "--runroot", f"{self.folder}/runroot", "--tmpdir", f"{self.folder}/tmp"]
        return self.lab.run(*argv, *arguments, env=self.env, user=self.user, **self.where, **options)

    def start(self):
        need("podman", "conmon")
        # This conmon writes a file into the folder of its caller when it hears of an OOM kill.
        self.where = {"cwd": self.lab.folder}
        self.prepare()
        self.podman("import", "--change", "CMD [\"sh\"]", "--change", "ENV PATH=/usr/bin:/bin", f"{self.lab.rootfs}/rootfs.tar", "localhost/rt-test")
        self.podman("import", "--change", "CMD [\"sleep\", \"100000\"]", f"{self.lab.rootfs}/rootfs.tar", "localhost/rt-pause")

    def finish(self):
        self.tidy()
        super().finish()

    def tidy(self):
        self.podman("pod", "rm", "--all", "--force", "--time", "0", status=None)
        self.podman("rm", "--all", "--force", "--time", "0", status=None)

    def run(self, *arguments, status=0, **options):
        """Runs a container without a network, to its end: flags, then "--", then the command."""
        where = arguments.index("--")
        flags, command = arguments[:where], arguments[where + 1:]
        net = [] if any(str(flag).startswith(("--net", "--pod", "-p", "--uidmap")) for flag in flags) else ["--network=none"]
        image = [] if "--rootfs" in flags else ["localhost/rt-test"]
        return self.podman("run", "--rm", *net, *flags, *image, *command, status=status, **options)

    def sh(self, script, *flags, status=0, **options):
        return self.run(*flags, "--", "sh", "-c", script, status=status, **options)

    def detached(self, *flags, command=("sleep", "1000")):
        """Starts a container and returns its id."""
        net = [] if any(flag.startswith(("--net", "--pod", "-p")) for flag in flags) else ["--network=none"]
        return self.podman("run", "--detach", *net, *flags, "localhost/rt-test", *command).text

    def inspect(self, name, form):
        return self.podman("inspect", "--format", form, name).text

    def remove(self, *names):
        self.podman("rm", "--force", "--time", "0", *names)

    def on_terminal(self, *arguments, **options):
        argv = ["podman", "--root", f"{self.folder}/root", "--runroot", f"{self.folder}/runroot", "--tmpdir", f"{self.folder}/tmp"]
        return self.lab.terminal(*argv, *arguments, env=self.env, user=self.user, **options)

    def without_cgroups(self):
        """--cgroups=disabled: the container stays in the groups of whoever started it; Podman asks containers.conf whether the runtime can."""
        text = self.run("--cgroups=disabled", "--cgroupns=host", "--", "cat", "/proc/self/cgroup").out
        check("rt-" not in text.replace("/rt-engines", "") and "libpod" not in text, text)
        equal(self.sh("exit 9", "--cgroups=disabled", status=9).out, "")
        name = self.detached("--cgroups=disabled")
        equal(self.inspect(name, "{{.HostConfig.Cgroups}} {{.State.Status}}"), "disabled running")
        equal(self.podman("exec", name, "echo", "inside").out, "inside\n")
        self.podman("stop", "--time", "0", name)
        equal(self.inspect(name, "{{.State.Status}}"), "exited")
        self.remove(name)

    def status_file(self, text, key):
        return next(line.split()[1] for line in text.splitlines() if line.startswith(f"{key}:"))


class Podman(Base):
    name = "podman"

    def prepare(self):
        self.folder = self.lab.path("podman")
        self.env = configure(self.lab, self.folder)

    @scenario("run")
    def plain(self):
        equal(self.run("--", "echo", "hello").out, "hello\n")

    @scenario("exit status")
    def exit_status(self):
        self.sh("exit 42", status=42)
        self.sh("kill -9 $$; exit 3", status=3)
        self.sh("exit 7", "--init", status=7)

    @scenario("126 and 127")
    def not_found(self):
        contains(self.run("--", "no-such-program", status=127).err, "executable file")
        contains(self.run("--", "/no/such/program", status=127).err, "no such file or directory")
        contains(self.run("--", "/etc/not-executable", status=126).err.lower(), "permission denied")
        self.run("--", "/etc", status=126)

    @scenario("standard input")
    def stdin(self):
        equal(self.run("-i", "--", "cat", stdin="through\n").out, "through\n")
        equal(self.sh("echo out; echo err >&2").err, "err\n")

    @scenario("terminal")
    def terminal(self):
        result = self.on_terminal("run", "--rm", "-it", "--network=none", "localhost/rt-test", "sh", "-c",
                                  "echo ready; until stty size 2>/dev/null; do sleep 0.1; done; tty; read line; echo got $line; exit 5", typed="word\n")
        equal(result.status, 5, result)
        contains(result.out, "31 97", "/dev/pts/0", "got word")

    @scenario("volumes, tmpfs, read-only")
    def volumes(self):
        host = self.lab.path("volume")
        os.makedirs(host)
        self.sh("echo data > /v/file; ! echo x > /r/file; ! touch /x; echo t > /t/file; df -k /t | tail -1", "--read-only",
                "-v", f"{host}:/v", "-v", f"{host}:/r:ro", "--tmpfs", "/t:size=1m,mode=700")
        equal(world.read(f"{host}/file"), "data\n")
        equal(self.sh("cat /n/f", "-v", "named:/n", "-v", f"{host}:/n2:rslave", status=1).out, "")
        self.sh("echo x > /n/f", "-v", "named:/n")
        equal(self.sh("cat /n/f", "-v", "named:/n").out, "x\n")
        equal(self.sh("cat /m/file", "--mount", f"type=bind,src={host},dst=/m,ro,bind-propagation=rshared").out, "data\n")

    @scenario("options of volumes: U, rro, idmap")
    def volume_options(self):
        host = os.path.dirname(self.lab.write("volume-options/file", "data\n"))
        self.sh("[ $(stat -c %u /v/file) = 1000 ] && echo x > /v/file", "--user", "1000:1000", "-v", f"{host}:/v:U")
        equal(os.stat(f"{host}/file").st_uid, 1000)
        os.chown(f"{host}/file", 0, 0)
        # Ids are mapped as they are in the container: what is root's outside is root's inside, whatever the ids of the namespace are.
        maps = ("--uidmap", "0:400000:5000", "--gidmap", "0:400000:5000", "--network=none")
        equal(self.sh("stat -c %u /v/file", "-v", f"{host}:/v", *maps).text, "65534")
        equal(self.sh("stat -c %u /v/file; echo y >> /v/file", "-v", f"{host}:/v:idmap", *maps).text, "0")
        equal(os.stat(f"{host}/file").st_uid, 0)
        below = f"{host}/below"
        os.makedirs(below)
        self.lab.run("mount", "-t", "tmpfs", "below", below)
        try:
            self.sh("echo x > /v/below/writable", "-v", f"{host}:/v:ro")
            result = self.sh("! echo x > /v/below/not 2>/dev/null", "-v", f"{host}:/v:rro", status=None)
            # Older versions of Podman do not know the word.
            check(result.status == 0 or "invalid option type" in result.err, result)
        finally:
            self.lab.run("umount", below)

    @scenario("readiness is passed on")
    def sdnotify(self):
        """--sdnotify=container: what the container says at its NOTIFY_SOCKET reaches that of the caller."""
        program, path = self.lab.path("notify-probe"), self.lab.path("notify.socket")
        self.lab.run("cc", "-static", "-Os", "-w", "-o", program, f"{os.path.dirname(__file__)}/../integration/probe.c", "-lutil")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(path)
            manager.settimeout(20)
            usual = self.env
            self.env = {**usual, "NOTIFY_SOCKET": path}
            try:
                name = self.detached("--sdnotify=container", "-v", f"{program}:/probe:ro", command=("sh", "-c", "/probe sdnotify READY=1; exec sleep 1000"))
            finally:
                self.env = usual
            said = ""
            while "READY=1" not in said:
                said += manager.recv(4096).decode() + "\n"
        contains(said, "MAINPID=")
        self.remove(name)

    @scenario("user, environment, directory, hostname")
    def identity(self):
        script = "id -u; id -g; id -G; pwd; echo $A; hostname; echo $HOME"
        said = self.sh(script, "--user", "1000:1000", "--group-add", "1234", "--workdir", "/tmp", "-e", "A=b", "--hostname", "box").out.split("\n")
        equal(said[:7], ["1000", "1000", "1000 1234", "/tmp", "b", "box", "/home/user"])
        equal(self.sh("id -un; umask", "--user", "user", "--umask", "0027").out, "user\n0027\n")

    @scenario("capabilities")
    def capabilities(self):
        def effective(*flags):
            return int(self.status_file(self.run(*flags, "--", "cat", "/proc/self/status").out, "CapEff"), 16)

        equal(effective("--cap-drop=all"), 0)
        equal(effective("--cap-drop=all", "--cap-add=NET_RAW,KILL"), 1 << 13 | 1 << 5)
        equal(effective("--cap-drop=all", "--cap-add=NET_RAW", "--user", "1000"), 1 << 13)
        check(effective() and effective() != effective("--privileged"), "defaults")

    @scenario("privileged")
    def privileged(self):
        said = self.sh("mkdir /m && mount -t tmpfs t /m && echo mounted; ls /dev | wc -l; echo 1 > /proc/sys/kernel/pid_max 2>&1; true", "--privileged").out
        contains(said, "mounted")
        check(int(said.split()[1]) > 15, said)

    @scenario("no-new-privileges")
    def no_new_privileges(self):
        text = self.run("--security-opt", "no-new-privileges", "--", "cat", "/proc/self/status").out
        equal(self.status_file(text, "NoNewPrivs"), "1")

    @scenario("seccomp")
    def seccomp(self):
        profile = self.lab.write("seccomp.json", {
            "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]})
        equal(self.sh("mkdir /x 2>&1 || echo refused", "--security-opt", f"seccomp={profile}").out.split()[-1], "refused")
        equal(self.status_file(self.run("--", "cat", "/proc/self/status").out, "Seccomp"), "2")
        text = self.run("--security-opt", "seccomp=unconfined", "--", "cat", "/proc/self/status").out
        equal(self.status_file(text, "Seccomp"), "0")

    def group_file(self, controller, *names):
        """A script that prints the first of these files of the container's group, on either version."""
        paths = " ".join(f"/sys/fs/cgroup/{folder}{name}" for name in names for folder in (f"{controller}/", ""))
        return f"for f in {paths}; do [ -e $f ] && cat $f && break; done"

    @scenario("memory")
    def memory(self):
        script = self.group_file("memory", "memory.limit_in_bytes", "memory.max")
        equal(self.sh(script, "--memory", "64m").text, str(64 << 20))
        equal(self.sh(script, "--memory", "64m", "--memory-swap", "128m", "--memory-reservation", "32m").text, str(64 << 20))

    @scenario("CPU")
    def cpu(self):
        script = self.group_file("cpu", "cpu.cfs_quota_us", "cpu.max")
        check(self.sh(script, "--cpus", "0.5").text in ("50000", "50000 100000"), "cpus")
        script = self.group_file("cpu", "cpu.shares", "cpu.weight")
        check(self.sh(script, "--cpu-shares", "512").text in ("512", "20", "59"), "shares")

    @scenario("pids, enforced")
    def pids(self):
        result = self.sh("for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait", "--pids-limit", "5", status=None)
        contains(result.err, "can't fork")

    @scenario("cpuset")
    def cpuset(self):
        contains(self.run("--cpuset-cpus", "0", "--", "cat", "/proc/self/status").out, "Cpus_allowed_list:\t0\n")

    @scenario("OOM kill")
    def oom(self):
        self.podman("run", "--name", "oom", "--network=none", "--memory", "24m", "--memory-swap", "24m", "localhost/rt-test",
                    "sh", "-c", "tail /dev/zero; sleep 0.5; exit 137", status=137)
        # On version 1 conmon 2.1.6 tells its working folder of it, which is not where Podman looks.
        heard = os.path.exists(self.lab.path("oom")) or self.inspect("oom", "{{.State.OOMKilled}}") == "true"
        check(heard, "neither conmon nor Podman has heard of the OOM kill")
        self.remove("oom")

    @scenario("devices")
    def devices(self):
        self.sh("[ -c /dev/mem-not ] && ! [ -e /dev/kmsg ]", "--device", "/dev/null:/dev/mem-not:rw")
        self.sh("head -c 1 /dev/zero > /dev/null && [ $(ls -l /dev/stdin | wc -l) = 1 ] && ! head -c 1 /dev/loop-control",
                "--device", "/dev/zero")
        # A node that the container makes itself is not to be opened.
        said = self.sh("mknod /n c 1 1 && head -c 1 /n", "--cap-add", "MKNOD", status=None)
        check(said.status != 0 and "not permitted" in said.err, said)

    @scenario("init")
    def init(self):
        need("/usr/libexec/podman/catatonit" if os.path.exists("/usr/libexec/podman/catatonit") else "catatonit")
        said = self.sh("cat /proc/1/cmdline | tr '\\0' ' '", "--init").out
        contains(said, "init")

    @scenario("user namespace, automatic")
    def userns_auto(self):
        world.write("/etc/subuid", world.read("/etc/subuid") + "containers:300000000:1048576\n")
        world.write("/etc/subgid", world.read("/etc/subgid") + "containers:300000000:1048576\n")
        said = self.sh("cat /proc/self/uid_map; id -u; touch /made && stat -c %u /made /etc/passwd", "--userns=auto").out.split()
        check(int(said[1]) >= 300000000, said)
        equal(said[3:], ["0", "0", "0"])

    @scenario("user namespace, mapped")
    def uid_maps(self):
        said = self.sh("cat /proc/self/uid_map; cat /proc/self/gid_map; id -u; echo > /dev/null", "--uidmap", "0:400000:5000", "--gidmap",
                       "0:500000:5000", "--network=none").out.split()
        equal(said, ["0", "400000", "5000", "0", "500000", "5000", "0"])
        equal(self.sh("id -u; ls -ln /etc/passwd | awk '{print $3}'", "--uidmap", "0:400000:5000", "--user", "1000", "--cap-drop=all").out, "1000\n0\n")

    @scenario("sysctl")
    def sysctl(self):
        said = self.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni", "--sysctl",
                       "net.ipv4.ip_unprivileged_port_start=77", "--sysctl", "kernel.shmmni=99")
        equal(said.out, "77\n99\n")

    @scenario("shared namespaces")
    def shared(self):
        first = self.detached("--name", "first", "--ipc=shareable")
        said = self.sh("ps | grep -c 'sleep 1000'; readlink /proc/self/ns/ipc; readlink /proc/self/ns/net; readlink /proc/1/ns/ipc; readlink /proc/1/ns/net",
                       "--pid=container:first", "--ipc=container:first", "--net=container:first", "--cap-add=SYS_PTRACE").out.split()
        equal(said[1:3], said[3:5])
        equal(self.sh("ls -d /proc/[0-9]* | wc -l; hostname", "--pid=host", "--uts=host", "--ipc=host").out.split()[1], os.uname().nodename)
        self.remove(first)

    @scenario("mask and unmask")
    def masks(self):
        self.sh("[ $(wc -c < /proc/keys) = 0 ] && [ $(ls /sys/firmware | wc -l) = 0 ] && ! echo 1 > /proc/sys/kernel/shmmax 2>/dev/null")
        self.sh("[ $(wc -c < /proc/uptime) = 0 ]", "--security-opt", "mask=/proc/uptime")
        self.sh("grep -q . /proc/version && ! mount | grep -q '/proc/kcore'", "--security-opt", "unmask=ALL")

    @scenario("shm size, ulimit, OOM score")
    def sizes(self):
        said = self.sh("df -k /dev/shm | tail -1 | awk '{print $2}'; ulimit -n; cat /proc/self/oom_score_adj",
                       "--shm-size", "8m", "--ulimit", "nofile=111:222", "--ulimit", f"nproc={limit('nproc')}", "--oom-score-adj", "77").out.split()
        equal(said, ["8192", "111", "77"])

    @scenario("control group namespace")
    def cgroupns(self):
        private = self.run("--cgroupns=private", "--", "cat", "/proc/self/cgroup").out
        check(all(line.split(":")[2] == "/" for line in private.splitlines()), private)
        host = self.run("--cgroupns=host", "--", "cat", "/proc/self/cgroup").out
        contains(host, "libpod")

    @scenario("without control groups")
    def no_cgroups(self):
        self.without_cgroups()

    @scenario("a directory as root")
    def rootfs(self):
        folder = self.lab.path("tree")
        self.lab.run("cp", "-a", f"{self.lab.rootfs}/rootfs", folder)
        equal(self.run("--rootfs", folder, "--", "echo", "from a directory").out, "from a directory\n")

    @scenario("passthrough log")
    def passthrough(self):
        equal(self.run("--log-driver=passthrough", "--", "echo", "direct").out, "direct\n")

    @scenario("systemd mode")
    def systemd(self):
        said = self.sh("mount | grep -c -E ' /(run|tmp|run/lock|var/log/journal) '; echo $container", "--systemd=always", "--cgroupns=private").out
        contains(said, "podman") if "podman" in said else contains(said, "oci")

    @scenario("hooks of OCI")
    def hooks(self):
        trace = self.lab.path("hook.json")
        program = self.lab.write("hooks/hook.sh", f"#!/bin/sh\ncat > {trace}\n", 0o755)
        self.lab.write("hooks.d/hook.json", {
            "version": "1.0.0", "hook": {"path": program}, "when": {"always": True}, "stages": ["prestart", "poststop"]})
        argv = ["podman", "--root", f"{self.folder}/root", "--runroot", f"{self.folder}/runroot", "--tmpdir", f"{self.folder}/tmp"]
        self.lab.run(*argv, "--hooks-dir", self.lab.path("hooks.d"), "run", "--rm", "--network=none", "localhost/rt-test", "true", env=self.env)
        equal(json.loads(world.read(trace))["status"], "stopped")

    @scenario("exec and logs")
    def exec(self):
        name = self.detached(command=("sh", "-c", "echo logged; sleep 1000"))
        equal(self.podman("exec", "-e", "A=b", "-w", "/tmp", "-u", "1000", name, "sh", "-c", "id -u; pwd; echo $A").out, "1000\n/tmp\nb\n")
        self.podman("exec", name, "sh", "-c", "exit 9", status=9)
        self.podman("exec", name, "no-such-program", status=127)
        self.podman("exec", name, "/etc/not-executable", status=126)
        equal(self.podman("exec", "-i", name, "cat", stdin="in\n").out, "in\n")
        self.podman("exec", "--detach", name, "sh", "-c", "echo d > /detached")
        eventually(lambda: self.podman("exec", name, "cat", "/detached", status=None).out == "d\n", "a detached exec")
        result = self.on_terminal("exec", "-it", name, "sh", "-c", "until stty size 2>/dev/null; do sleep 0.1; done; tty")
        contains(result.out, "31 97", "/dev/pts")
        self.podman("exec", "--privileged", name, "sh", "-c", "mkdir -p /m && mount -t tmpfs t /m", status=None)
        eventually(lambda: self.podman("logs", name).out == "logged\n", "the log")
        self.remove(name)

    @scenario("exec with preserved descriptors")
    def exec_fds(self):
        name = self.detached()
        self.lab.write("kept", "kept\n")
        fd = os.open(self.lab.path("kept"), os.O_RDONLY)
        try:
            os.dup2(fd, 3)
            os.set_inheritable(3, True)
            equal(self.podman("exec", "--preserve-fds", "1", name, "sh", "-c", "cat <&3", close_fds=False).out, "kept\n")
        finally:
            os.close(fd)
            if fd != 3:
                os.close(3)
        self.remove(name)

    @scenario("pause")
    def pause(self):
        name = self.detached()
        self.podman("pause", name)
        equal(self.inspect(name, "{{.State.Status}}"), "paused")
        self.podman("unpause", name)
        self.podman("exec", name, "true")
        self.podman("pause", name)
        self.remove(name)

    @scenario("stats and top")
    def stats(self):
        name = self.detached()
        document = self.podman("stats", "--no-stream", "--format", "json", name).json()[0]
        check(int(document["pids"]) >= 1, document)
        contains(self.podman("top", name, "pid", "args").out, "sleep 1000")
        self.remove(name)

    @scenario("update")
    def update(self):
        name = self.detached("--memory", "64m")
        result = self.podman("update", "--memory", "96m", "--cpu-shares", "300", name, status=None)
        if result.status:
            raise Skipped(result.err.strip()[:80]) if "unrecognized command" in result.err else AssertionError(str(result))
        script = self.group_file("memory", "memory.limit_in_bytes", "memory.max")
        equal(self.podman("exec", name, "sh", "-c", script).text, str(96 << 20))
        self.remove(name)

    @scenario("stop, restart, kill")
    def stop(self):
        script = "trap 'exit 33' TERM; trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done"
        name = self.detached(command=("sh", "-c", script))
        eventually(lambda: "ready" in self.podman("logs", name).out, "ready")
        self.podman("kill", "--signal", "HUP", name)
        eventually(lambda: "hup" in self.podman("logs", name).out, "an answer to HUP")
        self.podman("stop", "--time", "5", name)
        equal(self.inspect(name, "{{.State.ExitCode}}"), "33")
        self.podman("restart", "--time", "0", name)
        equal(self.inspect(name, "{{.State.Status}}"), "running")
        self.podman("kill", name)
        equal(self.podman("wait", name).text, "137")
        self.podman("start", name)
        self.podman("stop", "--time", "1", name)
        self.remove(name)

    @scenario("attach")
    def attach(self):
        name = self.podman("create", "-i", "--network=none", "localhost/rt-test", "sh", "-c", "read a; echo got $a; exit 4").text
        result = self.podman("start", "--attach", "--interactive", name, stdin="word\n", status=4)
        equal(result.out, "got word\n")
        self.remove(name)

    @scenario("cp, commit, diff")
    def copy(self):
        name = self.detached()
        self.lab.write("copied", "copied\n")
        self.podman("cp", self.lab.path("copied"), f"{name}:/tmp/copied")
        self.podman("cp", f"{name}:/tmp/copied", self.lab.path("back"))
        equal(world.read(self.lab.path("back")), "copied\n")
        contains(self.podman("diff", name).out, "/tmp/copied")
        self.podman("commit", name, "localhost/committed")
        equal(self.podman("run", "--rm", "--network=none", "localhost/committed", "cat", "/tmp/copied").out, "copied\n")
        self.remove(name)

    @scenario("health check")
    def health(self):
        name = self.detached("--health-cmd", "test -e /healthy", "--health-interval", "disable")
        self.podman("healthcheck", "run", name, status=1)
        self.podman("exec", name, "touch", "/healthy")
        self.podman("healthcheck", "run", name)
        self.remove(name)

    @scenario("timeout and restart policy")
    def policy(self):
        self.run("--timeout", "1", "--", "sleep", "100", status=None)
        name = self.detached("--restart", "on-failure:2", command=("sh", "-c", "exit 1"))
        eventually(lambda: self.inspect(name, "{{.RestartCount}} {{.State.Status}}") == "2 exited", "two restarts", 20)
        self.remove(name)

    @scenario("pod")
    def pod(self):
        self.podman("pod", "create", "--name", "pod", "--network=none", "--share", "ipc,net,uts,pid")
        one = self.detached("--pod", "pod")
        said = self.sh("hostname; ps | grep -c 'sleep 1000'; readlink /proc/self/ns/net; readlink /proc/1/ns/net", "--pod", "pod", "--cap-add=SYS_PTRACE").out.split()
        equal(said[0], "pod")
        check(int(said[1]) >= 1, said)
        self.podman("pod", "pause", "pod")
        self.podman("pod", "unpause", "pod")
        self.podman("pod", "stop", "--time", "0", "pod")
        equal(self.inspect(one, "{{.State.Status}}"), "exited")
        self.podman("pod", "start", "pod")
        self.podman("pod", "rm", "--force", "--time", "0", "pod")

    @scenario("kube play")
    def kube(self):
        file = self.lab.write("pod.yaml", json.dumps({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "played"},
            "spec": {"hostNetwork": True, "containers": [{
                "name": "one", "image": "localhost/rt-test", "imagePullPolicy": "Never", "command": ["sleep", "1000"],
                "resources": {"limits": {"memory": "64Mi"}}, "env": [{"name": "A", "value": "b"}]}]}}))
        self.podman("kube", "play", file)
        equal(self.podman("exec", "played-one", "sh", "-c", "echo $A").out, "b\n")
        self.podman("kube", "down", file)

    @scenario("bridge network with a port")
    def bridge(self):
        name = self.detached("--network=bridge", "-p", "127.0.0.1:18080:80", command=("httpd", "-f", "-p", "80", "-h", "/www"))
        eventually(lambda: fetch("http://127.0.0.1:18080/index.html") == "a page of the container\n", "a page from the port")
        self.remove(name)

    @scenario("host and slirp networks")
    def networks(self):
        contains(self.run("--network=host", "--", "ip", "link").out, "lo:")
        need("slirp4netns")
        contains(self.run("--network=slirp4netns", "--", "ip", "addr").out, "tap0", "10.0.2.100")

    @scenario("build")
    def build(self):
        context = self.lab.path("context")
        self.lab.write("context/Containerfile", "FROM localhost/rt-test\nRUN echo built > /built && id -u > /id\nUSER 1000\nRUN id -u > /tmp/id2\n"
                       "CMD cat /built /id /tmp/id2\n")
        self.podman("build", "--network=none", "-t", "localhost/built", context)
        equal(self.podman("run", "--rm", "--network=none", "localhost/built").out, "built\n0\n1000\n")

    @scenario("ten in parallel")
    def parallel(self):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for result in [pool.submit(self.sh, "echo $((1 + 1))") for _ in range(10)]:
                equal(result.result().out, "2\n")

    @scenario("nothing is left")
    def nothing_left(self):
        self.tidy()
        left = self.lab.run(self.lab.runtime, "list", "-q", status=None).out
        equal(left, "", "containers")
        groups = [path for base, folders, _ in os.walk("/sys/fs/cgroup") for path in (os.path.join(base, folder) for folder in folders)
                  if re.search(r"libpod-[0-9a-f]{64}", path)]
        equal(groups, [], "control groups")

    @scenario("checkpoint and restore")
    def checkpoint(self):
        checkpoint.needs_criu(self.lab)
        name = self.detached(command=("sh", "-c", checkpoint.COUNT))
        number = lambda container: checkpoint.last_number(self.podman("logs", container).out)  # noqa: E731
        eventually(lambda: number(name) > 5, "it counts")
        self.podman("container", "checkpoint", name)
        equal(self.inspect(name, "{{.State.Status}}"), "exited")
        saved = number(name)
        self.podman("container", "restore", name)
        before = checkpoint.goes_on(lambda: number(name), saved, "after restore")
        archive = self.lab.path("tmp", "checkpoint.tar.gz")
        self.podman("container", "checkpoint", "--export", archive, name)
        self.remove(name)
        other = f"{self.lab.name}restored"
        self.podman("container", "restore", "--import", archive, "--name", other)
        checkpoint.goes_on(lambda: number(other), before, "in another container")
        equal(self.podman("exec", other, "echo", "inside").text, "inside")
        self.remove(other)


def fetch(address):
    """A page, or None."""
    try:
        with urllib.request.urlopen(address, timeout=2) as page:
            return page.read().decode()
    except OSError:
        return None


class PodmanRootless(Base):
    name = "podman rootless"
    user = world.USER_ID

    def prepare(self):
        need("newuidmap", "slirp4netns", "fuse-overlayfs")
        self.folder = self.lab.path("rootless")
        run = self.lab.path("xdg")
        os.makedirs(run, mode=0o700)
        env = configure(self.lab, self.folder, rootless=not native_overlay())
        home = self.lab.path("rootless-home")
        os.makedirs(home)
        for folder in (self.folder, run, home, *(f"{self.folder}/{name}" for name in os.listdir(self.folder))):
            os.chown(folder, world.USER_ID, world.USER_ID)
        self.env = {**env, "HOME": home, "XDG_RUNTIME_DIR": run, "USER": world.USER}
        self.where = {"cwd": home}

    def finish(self):
        # The process that holds the user namespace stays otherwise.
        super().finish()

    @scenario("run, errors")
    def plain(self):
        equal(self.run("--", "echo", "hello").out, "hello\n")
        self.sh("exit 42", status=42)
        self.run("--", "no-such-program", status=127)
        self.run("--", "/etc/not-executable", status=126)
        equal(self.run("-i", "--", "cat", stdin="in\n").out, "in\n")

    @scenario("terminal")
    def terminal(self):
        result = self.on_terminal("run", "--rm", "-it", "--network=none", "localhost/rt-test", "sh", "-c", "until stty size 2>/dev/null; do sleep 0.1; done; tty; exit 5")
        equal(result.status, 5, result)
        contains(result.out, "31 97", "/dev/pts/0")

    @scenario("user namespaces: keep-id, nomap, auto")
    def modes(self):
        equal(self.sh("id -u", "--userns=keep-id").text, str(world.USER_ID))
        equal(self.sh("id -u; echo x > /tmp/f", "--userns=nomap").text, "0")
        equal(self.sh("id -u", "--userns=auto:size=2000").text, "0")

    @scenario("users and files")
    def users(self):
        host = self.lab.path("rootless-home", "volume")
        os.makedirs(host)
        os.chown(host, world.USER_ID, world.USER_ID)
        equal(self.sh("id -u; id -G", "--user", "1000:1000", "--group-add", "1234").out, "1000\n1000 1234\n")
        self.sh("echo x > /v/of-root; touch /tmp/t; chown 1000 /tmp/t; stat -c %u /tmp/t", "-v", f"{host}:/v")
        equal(os.stat(f"{host}/of-root").st_uid, world.USER_ID)

    @scenario("read-only, capabilities, seccomp")
    def hardened(self):
        said = self.sh("! touch /x 2>/dev/null; cat /proc/self/status", "--read-only", "--cap-drop=all", "--security-opt", "no-new-privileges").out
        equal([self.status_file(said, key) for key in ("CapEff", "Seccomp", "NoNewPrivs")], ["0" * 16, "2", "1"])

    @scenario("privileged")
    def privileged(self):
        contains(self.sh("mkdir /m && mount -t tmpfs t /m && echo mounted", "--privileged").out, "mounted")

    @scenario("devices")
    def devices(self):
        self.sh("head -c 1 /dev/zero | wc -c; echo > /dev/null; [ -c /dev/other ]", "--device", "/dev/zero:/dev/other")

    @scenario("init")
    def init(self):
        contains(self.sh("cat /proc/1/cmdline", "--init").out, "init")

    @scenario("without control groups")
    def no_cgroups(self):
        self.without_cgroups()

    @scenario("host and slirp networks")
    def networks(self):
        contains(self.run("--network=host", "--", "ip", "link").out, "lo:")
        contains(self.run("--network=slirp4netns", "--", "ip", "addr").out, "tap0")

    @scenario("exec, stop, logs")
    def exec(self):
        name = self.detached(command=("sh", "-c", "echo logged; exec sleep 1000"))
        equal(self.podman("exec", "-u", "1000", name, "id", "-u").text, "1000")
        self.podman("exec", name, "no-such-program", status=127)
        contains(self.on_terminal("exec", "-it", name, "tty").out, "/dev/pts")
        eventually(lambda: self.podman("logs", name).out == "logged\n", "the log")
        self.podman("stop", "--time", "0", name)
        equal(self.inspect(name, "{{.State.ExitCode}}"), "137")
        self.remove(name)

    @scenario("pod")
    def pod(self):
        self.podman("pod", "create", "--name", "pod", "--network=none")
        self.detached("--pod", "pod")
        equal(self.sh("hostname", "--pod", "pod").text, "pod")
        self.podman("pod", "rm", "--force", "--time", "0", "pod")

    @scenario("pause")
    def pause(self):
        if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
            raise Skipped("needs version 2 of control groups")
        name = self.detached()
        self.podman("pause", name)
        self.podman("unpause", name)
        self.remove(name)

    @scenario("build")
    def build(self):
        context = self.lab.path("context")
        self.lab.write("context/Containerfile", "FROM localhost/rt-test\nRUN echo built > /built\nUSER 1000\nRUN id -u > /tmp/id\nCMD cat /built /tmp/id\n")
        self.podman("build", "--network=none", "-t", "localhost/built", context)
        equal(self.podman("run", "--rm", "--network=none", "localhost/built").out, "built\n1000\n")

    @scenario("five in parallel")
    def parallel(self):
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            for result in [pool.submit(self.sh, "echo 2") for _ in range(5)]:
                equal(result.result().out, "2\n")


def native_overlay():
    """The kernel's overlay needs no helper in a user namespace since Linux 5.13."""
    major, minor = (int(number) for number in os.uname().release.split(".")[:2])
    return (major, minor) >= (5, 13)
