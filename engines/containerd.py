"""containerd, by its client ctr."""

import os
import subprocess

import checkpoint
import world
from harness import Engine, check, contains, equal, eventually, need, scenario
from podman import snippet

IMAGE = "docker.io/library/rt-test:latest"
PAUSE = "docker.io/library/rt-pause:latest"


def config(lab):
    """containerd's configuration with the snippet of contrib/ in it."""
    base = lab.path("containerd")
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{base}/root"
state = "{base}/state"
[grpc]
  address = "{base}/sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{base}/opt"
[{cri}]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_port = "0"
  disable_tcp_service = true
[{cri}.cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{base}/cni"
{snippet("containerd.toml", lab.runtime)}
"""


class Containerd(Engine):
    """The daemon, with the images in one namespace."""

    namespace = "default"

    def start(self):
        need("containerd", "ctr")
        base = self.lab.path("containerd")
        self.lab.write("containerd/config.toml", config(self.lab))
        self.lab.write("containerd/cni/10-bridge.conflist", {
            "cniVersion": "0.4.0", "name": "rt-engines", "plugins": [
                {"type": "bridge", "bridge": "rtcni0", "isGateway": True, "ipMasq": True, "ipam": {
                    "type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24"}]], "dataDir": f"{base}/ipam",
                    "routes": [{"dst": "0.0.0.0/0"}]}},
                {"type": "portmap", "capabilities": {"portMappings": True}}]})
        self.sock = f"{base}/sock"
        self.lab.daemon("containerd", "containerd", "--config", f"{base}/config.toml", "--log-level", "warn")
        eventually(lambda: self.ctr("version", status=None).status == 0, f"containerd answers: {self.lab.log('containerd')}", 20)
        for image in ("image", "pause"):
            self.ctr("images", "import", f"{self.lab.rootfs}/{image}.tar")

    def finish(self):
        self.tidy()
        super().finish()

    def ctr(self, *arguments, **options):
        return self.lab.run("ctr", "--address", self.sock, "--namespace", self.namespace, *arguments, **options)

    def tidy(self):
        for name in self.ctr("tasks", "ls", "-q", status=None).out.split():
            self.ctr("tasks", "rm", "--force", name, status=None)
        for name in self.ctr("containers", "ls", "-q", status=None).out.split():
            self.ctr("containers", "rm", name, status=None)


class Ctr(Containerd):
    name = "containerd (ctr)"

    def start(self):
        super().start()
        self.count = 0

    def fresh(self):
        self.count += 1
        return f"{self.lab.name}t{self.count}"

    def binary(self):
        return ["--runc-binary", self.lab.runtime]

    def run(self, *arguments, status=0, **options):
        """Runs a container to its end: flags, then "--", then the command."""
        where = arguments.index("--")
        flags, command = arguments[:where], arguments[where + 1:]
        return self.ctr("run", "--rm", *self.binary(), *flags, IMAGE, self.fresh(), *command, status=status, **options)

    def sh(self, script, *flags, **options):
        return self.run(*flags, "--", "sh", "-c", script, **options)

    def detached(self, *flags, command=("sleep", "1000")):
        name = self.fresh()
        self.ctr("run", "--detach", *self.binary(), *flags, IMAGE, name, *command)
        return name

    def remove(self, name):
        self.ctr("tasks", "rm", "--force", name)
        self.ctr("containers", "rm", name)

    @scenario("run")
    def plain(self):
        equal(self.run("--", "echo", "hello").out, "hello\n")
        self.sh("exit 42", status=42)

    @scenario("error")
    def error(self):
        contains(self.run("--", "no-such-program", status=1).err, "executable file not found in $PATH")
        contains(self.run("--", "/etc/not-executable", status=1).err, "permission denied")

    @scenario("options")
    def options(self):
        said = self.sh("pwd; echo $A; cat /m/file; cat /proc/self/status | grep NoNew", "--cwd", "/tmp", "--env", "A=b",
                       "--mount", f"type=bind,src={self.volume()},dst=/m,options=rbind:ro").out.split()
        equal(said, ["/tmp", "b", "data", "NoNewPrivs:", "1"])
        self.sh("! touch /x", "--read-only")
        equal(self.sh("readlink /proc/self/ns/net", "--net-host").text, os.readlink("/proc/self/ns/net"))
        equal(self.sh("grep Seccomp: /proc/self/status", "--seccomp").text.split()[1], "2")

    def volume(self):
        return os.path.dirname(self.lab.write("volume/file", "data\n"))

    @scenario("limits")
    def limits(self):
        self.sh("true", "--memory-limit", str(64 << 20), "--cpus", "0.5")
        name = self.detached("--memory-limit", str(64 << 20))
        pid = next(line.split()[1] for line in self.ctr("tasks", "ls").out.splitlines() if line.startswith(name))
        rows = [line.split(":", 2) for line in world.read(f"/proc/{pid}/cgroup").splitlines()]
        files = [f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes" for _, kinds, path in rows if kinds == "memory"]
        files += [f"/sys/fs/cgroup{path}/memory.max" for _, kinds, path in rows if kinds == ""]
        equal(world.read(next(file for file in files if os.path.exists(file))).strip(), str(64 << 20))
        self.remove(name)

    @scenario("privileged")
    def privileged(self):
        contains(self.sh("mkdir /m && mount -t tmpfs t /m && echo mounted", "--privileged").out, "mounted")

    @scenario("device")
    def device(self):
        self.sh("[ -c /dev/kmsg ]", "--device", "/dev/kmsg")

    @scenario("user namespace")
    def user_namespace(self):
        # ctr makes the snapshot for these ids.
        said = self.ctr("run", "--rm", "--uidmap", "0:400000:5000", "--gidmap", "0:400000:5000", IMAGE, self.fresh(),
                        "sh", "-c", "id -u; cat /proc/self/uid_map").out.split()
        equal(said, ["0", "0", "400000", "5000"])

    @scenario("no-pivot")
    def no_pivot(self):
        equal(self.ctr("run", "--rm", "--no-pivot", IMAGE, self.fresh(), "echo", "moved", env={"RUNC_NO_PIVOT": "1"}).out, "moved\n")

    @scenario("terminal")
    def terminal(self):
        result = self.lab.terminal("ctr", "--address", self.sock, "run", "--rm", "--tty", *self.binary(), IMAGE, self.fresh(),
                                   "sh", "-c", "echo ready; tty; read line; echo got $line; exit 5", typed="word\n")
        equal(result.status, 5, result)
        contains(result.out, "/dev/pts/0", "got word")

    @scenario("life of a task")
    def task(self):
        name = self.detached(command=("sh", "-c", "trap 'exit 33' TERM; while :; do sleep 0.1; done"))
        contains(self.ctr("tasks", "ls").out, "RUNNING")
        self.ctr("tasks", "pause", name)
        contains(self.ctr("tasks", "ls").out, "PAUSED")
        self.ctr("tasks", "resume", name)
        equal(self.ctr("tasks", "exec", "--exec-id", "e1", name, "echo", "from exec").out, "from exec\n")
        self.ctr("tasks", "exec", "--exec-id", "e2", name, "sh", "-c", "exit 9", status=9)
        contains(self.ctr("tasks", "exec", "--exec-id", "e3", name, "no-such", status=1).err, "executable file not found")
        check(len(self.ctr("tasks", "ps", name).out.splitlines()) >= 2, "tasks ps")
        self.ctr("tasks", "kill", "--signal", "TERM", name)
        eventually(lambda: "STOPPED" in self.ctr("tasks", "ls").out, "stopped")
        self.ctr("tasks", "rm", name)
        self.ctr("containers", "rm", name)

    @scenario("create and start, and delete before start")
    def create(self):
        name = self.fresh()
        self.ctr("containers", "create", IMAGE, name, "echo", "started")
        # ctr knows no other program than the runc of its path here: that is our link.
        equal(self.ctr("tasks", "start", name).out, "started\n")
        self.ctr("containers", "rm", name)

    @scenario("metrics")
    def metrics(self):
        name = self.detached()
        contains(self.ctr("tasks", "metrics", name).out, "memory.usage_in_bytes" if os.path.exists("/sys/fs/cgroup/memory") else "memory.usage")
        self.remove(name)

    @scenario("exec on a terminal")
    def exec_terminal(self):
        name = self.detached()
        result = self.lab.terminal("ctr", "--address", self.sock, "tasks", "exec", "--tty", "--exec-id", "e1", name, "sh", "-c", "tty; exit 4")
        equal(result.status, 4, result)
        contains(result.out, "/dev/pts/0")
        self.remove(name)

    @scenario("joined namespaces")
    def joined(self):
        keeper = subprocess.Popen(["unshare", "--net", "--ipc", "sleep", "1000"], stdin=subprocess.DEVNULL)
        try:
            own = os.readlink("/proc/self/ns/net")
            eventually(lambda: os.readlink(f"/proc/{keeper.pid}/ns/net") != own, "namespaces")
            expected = os.readlink(f"/proc/{keeper.pid}/ns/net")
            said = self.sh("readlink /proc/self/ns/net", "--with-ns", f"network:/proc/{keeper.pid}/ns/net", "--with-ns",
                           f"ipc:/proc/{keeper.pid}/ns/ipc")
            equal(said.text, expected)
        finally:
            keeper.kill()
            keeper.wait()

    @scenario("checkpoint and restore")
    def checkpoint(self):
        checkpoint.needs_criu(self.lab)
        out = self.lab.path("tmp", "count")
        os.makedirs(out, exist_ok=True)
        name = self.detached("--mount", f"type=bind,src={out},dst=/out,options=rbind:rw", command=(
            "sh", "-c", checkpoint.COUNT.replace("echo $i;", "echo $i > /out/new; mv /out/new /out/count;")))
        number = lambda: checkpoint.last_number(world.read(f"{out}/count")) if os.path.exists(f"{out}/count") else 0  # noqa: E731
        eventually(lambda: number() > 5, "it counts")
        image = f"docker.io/library/{name}-saved:latest"
        self.ctr("containers", "checkpoint", "--task", "--image", name, image)
        checkpoint.goes_on(number, number(), "a checkpoint by ctr leaves it running")
        self.remove(name)
        saved = number()
        self.ctr("containers", "restore", "--live", name, image)
        eventually(lambda: number() != saved, "it counts again")
        check(number() > 5, f"it has begun anew: {number()}")
        self.remove(name)
        self.ctr("images", "rm", image)

    @scenario("nothing is left")
    def nothing_left(self):
        self.tidy()
        root = "/run/containerd/runc/default"
        left = os.listdir(root) if os.path.exists(root) else []
        equal(left, [], f"below {root}")
