"""Docker: dockerd with a containerd of its own."""

import concurrent.futures
import json
import os
import re

import world
from harness import Engine, check, contains, equal, eventually, need, scenario
from podman import fetch, snippet

IMAGE = "rt-test"


class Docker(Engine):
    name = "docker"
    flags = ()

    def start(self):
        need("docker", "dockerd", "containerd", "iptables")
        base = self.lab.path("docker")
        config = json.loads(snippet("daemon.json", self.lab.runtime))
        config["exec-opts"] = ["native.cgroupdriver=cgroupfs"]
        file = self.lab.write("docker/daemon.json", config)
        self.host = f"unix://{base}/sock"
        self.daemon = self.lab.daemon("dockerd", "dockerd", "--config-file", file, "--data-root", f"{base}/data", "--exec-root", f"{base}/exec",
                                      "-p", f"{base}/pid", "-H", self.host, "--log-level", "warn", *self.flags, env={"DOCKER_RAMDISK": ""})
        eventually(lambda: self.docker("info", status=None).status == 0, f"dockerd answers: {self.lab.log('dockerd')}", 30)
        self.docker("import", "--change", "CMD [\"sh\"]", "--change", "ENV PATH=/usr/bin:/bin", f"{self.lab.rootfs}/rootfs.tar", IMAGE)

    def finish(self):
        self.tidy()
        super().finish()

    def tidy(self):
        names = self.docker("ps", "-aq", status=None).out.split()
        if names:
            self.docker("rm", "--force", *names, status=None)

    def docker(self, *arguments, env=None, **options):
        return self.lab.run("docker", *arguments, env={"DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "0", **(env or {})}, **options)

    def run(self, *arguments, status=0, **options):
        where = arguments.index("--")
        return self.docker("run", "--rm", "--network=none", *arguments[:where], IMAGE, *arguments[where + 1:], status=status, **options)

    def sh(self, script, *flags, **options):
        return self.run(*flags, "--", "sh", "-c", script, **options)

    def detached(self, *flags, command=("sleep", "1000")):
        return self.docker("run", "--detach", *flags, IMAGE, *command).text

    def inspect(self, name, form):
        return self.docker("inspect", "--format", form, name).text

    def remove(self, name):
        self.docker("rm", "--force", name)

    def wait_for(self, name, status):
        eventually(lambda: self.inspect(name, "{{.State.Status}}") == status, f"{name} {status}")

    @scenario("version is understood")
    def version(self):
        document = self.docker("info", "--format", "{{json .}}").json()
        equal(document["DefaultRuntime"], "rt")
        check("rt" in document["Runtimes"], document["Runtimes"])

    @scenario("run")
    def plain(self):
        equal(self.run("--", "echo", "hello").out, "hello\n")

    @scenario("exit status, 126, 127")
    def exit_status(self):
        self.sh("exit 42", status=42)
        self.sh("kill -9 $$; exit 3", status=3)
        contains(self.run("--", "no-such-program", status=127).err, "executable file not found in $PATH")
        self.run("--", "/no/such/program", status=127)
        self.run("--", "/etc/not-executable", status=126)
        self.run("--", "/etc", status=126)

    @scenario("options")
    def options(self):
        host = os.path.dirname(self.lab.write("volume/file", "data\n"))
        said = self.sh("id -u; id -G; pwd; echo $A; hostname; cat /v/file; ulimit -n; cat /proc/self/oom_score_adj; df -k /dev/shm | tail -1 | awk '{print $2}'",
                       "--user", "1000:1000", "--group-add", "1234", "-w", "/tmp", "-e", "A=b", "--hostname", "box", "-v", f"{host}:/v:ro",
                       "--ulimit", "nofile=100:200", "--oom-score-adj", "77", "--shm-size", "8m").out.split("\n")
        equal(said[:-1], ["1000", "1000 1234", "/tmp", "b", "box", "data", "100", "77", "8192"])
        self.sh("! touch /x 2>/dev/null; df -k /t | tail -1", "--read-only", "--tmpfs", "/t:size=1m")
        self.sh("[ $(cat /proc/sys/kernel/shmmni) = 99 ]", "--sysctl", "kernel.shmmni=99")
        self.sh("[ -c /dev/other ]", "--device", "/dev/zero:/dev/other")
        self.sh("[ $(grep CapEff /proc/self/status | cut -f 2) = 0000000000000000 ]", "--cap-drop=all", "--init")
        contains(self.sh("cat /proc/1/cmdline", "--init").out, "init") if os.path.exists("/usr/bin/docker-init") else None

    @scenario("privileged")
    def privileged(self):
        contains(self.sh("mkdir /m && mount -t tmpfs t /m && echo mounted", "--privileged").out, "mounted")

    @scenario("limits")
    def limits(self):
        script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
        equal(self.sh(script, "--memory", "64m", "--cpus", "0.5", "--cpu-shares", "300", "--cpuset-cpus", "0").text, str(64 << 20))
        contains(self.sh("for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait", "--pids-limit", "5", status=None).err, "can't fork")

    @scenario("seccomp")
    def seccomp(self):
        profile = self.lab.write("seccomp.json", {
            "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]})
        contains(self.sh("mkdir /x 2>&1; true", "--security-opt", f"seccomp={profile}").out, "not permitted")
        contains(self.sh("grep -E 'Seccomp:|NoNewPrivs' /proc/self/status", "--security-opt", "no-new-privileges").out, "Seccomp:\t2", "NoNewPrivs:\t1")

    @scenario("standard input and terminal")
    def stdio(self):
        equal(self.run("-i", "--", "cat", stdin="through\n").out, "through\n")
        result = self.lab.terminal("docker", "-H", self.host, "run", "--rm", "-it", "--network=none", IMAGE, "sh", "-c",
                                   "echo ready; until stty size 2>/dev/null | grep 97; do sleep 0.1; done; tty; read line; echo got $line; exit 5", typed="word\n")
        equal(result.status, 5, result)
        contains(result.out, "31 97", "/dev/pts/0", "got word")

    @scenario("exec, top, logs")
    def exec(self):
        name = self.detached("--network=none", command=("sh", "-c", "echo logged; exec sleep 1000"))
        equal(self.docker("exec", "-e", "A=b", "-w", "/tmp", "-u", "1000", name, "sh", "-c", "id -u; pwd; echo $A").out, "1000\n/tmp\nb\n")
        self.docker("exec", name, "sh", "-c", "exit 9", status=9)
        check(self.docker("exec", name, "no-such-program", status=None).status in (126, 127), "status of exec")
        equal(self.docker("exec", "-i", name, "cat", stdin="in\n").out, "in\n")
        result = self.lab.terminal("docker", "-H", self.host, "exec", "-it", name, "sh", "-c", "tty; exit 4")
        equal(result.status, 4, result)
        contains(self.docker("top", name).out, "sleep 1000")
        equal(self.docker("logs", name).out, "logged\n")
        self.remove(name)

    @scenario("pause")
    def pause(self):
        name = self.detached("--network=none")
        self.docker("pause", name)
        equal(self.inspect(name, "{{.State.Status}}"), "paused")
        self.docker("unpause", name)
        self.docker("exec", name, "true")
        self.remove(name)

    @scenario("update and stats")
    def update(self):
        name = self.detached("--network=none", "--memory", "64m")
        self.docker("update", "--memory", "96m", "--memory-swap", "96m", "--cpus", "0.7", "--pids-limit", "50", name)
        script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
        equal(self.docker("exec", name, "sh", "-c", script).text, str(96 << 20))
        equal(self.docker("exec", name, "sh", "-c", "echo x > /dev/null; echo ok").text, "ok")
        said = self.docker("stats", "--no-stream", "--format", "{{json .}}", name).json()
        contains(said["MemUsage"], "96MiB")
        self.remove(name)

    @scenario("stop, restart, kill, wait")
    def stop(self):
        name = self.detached("--network=none", command=("sh", "-c", "trap 'exit 33' TERM; trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done"))
        eventually(lambda: "ready" in self.docker("logs", name).out, "ready")
        self.docker("kill", "--signal", "HUP", name)
        eventually(lambda: "hup" in self.docker("logs", name).out, "an answer to HUP")
        self.docker("stop", "--time", "5", name)
        equal(self.inspect(name, "{{.State.ExitCode}}"), "33")
        self.docker("restart", "--time", "0", name)
        self.docker("kill", name)
        equal(self.docker("wait", name).text, "137")
        self.remove(name)

    @scenario("OOM flag")
    def oom(self):
        name = self.detached("--network=none", "--memory", "24m", "--memory-swap", "24m", command=("sh", "-c", "sleep 0.5; tail /dev/zero; sleep 0.5; exit 137"))
        self.wait_for(name, "exited")
        equal(self.inspect(name, "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137")
        self.remove(name)

    @scenario("bridge with a port")
    def bridge(self):
        name = self.detached("-p", "127.0.0.1:18081:80", command=("httpd", "-f", "-p", "80", "-h", "/www"))
        eventually(lambda: fetch("http://127.0.0.1:18081/index.html") == "a page of the container\n", "a page from the port")
        contains(self.docker("exec", name, "ip", "addr").out, "eth0")
        self.remove(name)

    @scenario("two containers on a network of their own")
    def compose(self):
        """As compose has it: a network, a server with a name on it, a client that finds the name."""
        self.docker("network", "create", "own")
        server = self.detached("--network=own", "--network-alias", "web", command=("httpd", "-f", "-p", "80", "-h", "/www"))
        try:
            address = self.inspect(server, "{{.NetworkSettings.Networks.own.IPAddress}}")
            for host in (address, "web"):
                said = self.docker("run", "--rm", "--network=own", IMAGE, "sh", "-c",
                                   f"for i in 1 2 3 4 5; do wget -q -O- http://{host}/index.html && break; sleep 0.3; done", status=None)
                equal(said.out, "a page of the container\n", host)
        finally:
            self.remove(server)
            self.docker("network", "rm", "own")

    @scenario("shared pid namespaces")
    def pid(self):
        first = self.detached("--network=none", "--name", "first")
        contains(self.sh("ps", "--pid=container:first").out, "sleep 1000")
        contains(self.sh("hostname", "--pid=host", "--uts=host").text, os.uname().nodename)
        self.remove(first)

    @scenario("host's pid namespace: nothing survives")
    def host_pid(self):
        name = self.detached("--network=none", "--pid=host", command=("sh", "-c", "sleep 4321 & exec sleep 5432"))
        eventually(lambda: running("4321"), "the second process")
        self.docker("kill", name)
        self.wait_for(name, "exited")
        eventually(lambda: not running("4321"), "the second process ends")
        self.remove(name)

    @scenario("health check and restart policy")
    def health(self):
        name = self.detached("--network=none", "--health-cmd", "true", "--health-interval", "1s")
        eventually(lambda: self.inspect(name, "{{.State.Health.Status}}") == "healthy", "healthy")
        self.remove(name)
        name = self.detached("--network=none", "--restart", "on-failure:2", command=("sh", "-c", "exit 1"))
        eventually(lambda: self.inspect(name, "{{.RestartCount}} {{.State.Status}}") == "2 exited", "two restarts", 20)
        self.remove(name)

    @scenario("control group namespace and parent")
    def groups(self):
        private = self.run("--cgroupns=private", "--", "cat", "/proc/self/cgroup").out
        check(all(line.split(":")[2] == "/" for line in private.splitlines()), private)
        contains(self.run("--cgroupns=host", "--cgroup-parent", "/rt-parent", "--", "cat", "/proc/self/cgroup").out, "/rt-parent/")

    def build(self, buildkit):
        self.lab.write("context/Dockerfile", f"FROM {IMAGE}\nRUN echo built > /built && id -u > /id\nUSER 1000\nRUN id -u > /tmp/id2\n"
                       "CMD cat /built /id /tmp/id2\n")
        self.docker("build", "--network=none", "--no-cache", "-t", "built", self.lab.path("context"), env={"DOCKER_BUILDKIT": buildkit})
        equal(self.docker("run", "--rm", "--network=none", "built").out, "built\n0\n1000\n")

    @scenario("classic build")
    def classic(self):
        self.build("0")

    @scenario("BuildKit")
    def buildkit(self):
        self.build("1")

    @scenario("five in parallel")
    def parallel(self):
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            for result in [pool.submit(self.sh, "echo 2") for _ in range(5)]:
                equal(result.result().out, "2\n")

    @scenario("nothing is left")
    def nothing_left(self):
        self.tidy()
        left = [path for base, folders, _ in os.walk("/sys/fs/cgroup") for path in (os.path.join(base, folder) for folder in folders)
                if re.search("/docker/[0-9a-f]{64}", path)]
        equal(left, [], "control groups")


class DockerRemapped(Docker):
    """dockerd with --userns-remap: every container has a user namespace with the subordinate ids of a user."""

    name = "docker remapped"
    flags = (f"--userns-remap={world.USER}",)

    @scenario("root is a subordinate id")
    def mapped(self):
        first = world.SUB_IDS.split(":")[0]
        equal(self.sh("cat /proc/self/uid_map; id -u; touch /made && stat -c %u /made /etc/passwd").out.split(),
              ["0", first, world.SUB_IDS.split(":")[1], "0", "0", "0"])
        name = self.detached("--network=none")
        contains(world.read(f"/proc/{self.inspect(name, '{{.State.Pid}}')}/status"), f"Uid:\t{first}")
        equal(self.docker("exec", name, "sh", "-c", "echo x > /dev/null; id -u").text, "0")
        self.remove(name)

    @scenario("volumes, limits, an ordinary user")
    def volumes(self):
        host = os.path.dirname(self.lab.write("remapped/file", "data\n"))
        said = self.sh("id -u; cat /v/file; echo x > /v/file || echo denied; stat -c %u /v/file", "--user", "1000", "-v", f"{host}:/v",
                       "--memory", "64m", "--pids-limit", "20", "--read-only").out.split()
        equal(said, ["1000", "data", "denied", "65534"])
        contains(self.run("--", "no-such-program", status=127).err, "executable file not found in $PATH")

    @scenario("the host's user namespace")
    def unmapped(self):
        equal(self.sh("cat /proc/self/uid_map", "--userns=host").out.split(), ["0", "0", "4294967295"])

    @scenario("bridge with a port, remapped")
    def mapped_bridge(self):
        self.bridge()


def running(word):
    """True if a process has this argument."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if word in world.read(f"/proc/{pid}/cmdline").split("\0"):
                return True
        except OSError:
            continue
    return False
