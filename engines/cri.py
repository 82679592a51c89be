"""containerd as Kubernetes uses it: the CRI over its socket, spoken with curl and a small encoder of protocol buffers."""

import concurrent.futures
import itertools
import os
import re
import struct
import subprocess
import threading

import world
from containerd import IMAGE, Containerd
from harness import DEADLINE, Failed, check, contains, equal, eventually, need, scenario

RUNNING, EXITED = 1, 2
POD, CONTAINER, NODE = 0, 1, 2


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode(fields):
    """A message from (number, value): a value is a number, text, or again a list of fields."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else encode(value)
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def decode(data):
    """{number: [value]}, values as numbers or bytes."""
    fields, at = {}, 0

    def take():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = take()
        if key & 7 == 0:
            value = take()
        elif key & 7 == 2:
            size = take()
            value, at = data[at:at + size], at + size
        else:
            size = 8 if key & 7 == 1 else 4
            value, at = data[at:at + size], at + size
        fields.setdefault(key >> 3, []).append(value)
    return fields


def comm(pid):
    """The name of a process, or nothing where it has just ended."""
    try:
        return world.read(f"/proc/{pid}/comm")
    except OSError:
        return ""


class Cri(Containerd):
    name = "containerd (CRI)"
    namespace = "k8s.io"

    def start(self):
        need("curl", "/usr/lib/cni/bridge")
        self.numbers = itertools.count(1)
        self.pods = []
        super().start()

    def tidy(self):
        while self.pods:
            pod = self.pods.pop()
            self.call("StopPodSandbox", [(1, pod)])
            self.call("RemovePodSandbox", [(1, pod)])

    def call(self, method, fields, error=False):
        """Calls a method; returns the answer's fields, or the error's text if one is expected."""
        message = encode(fields)
        headers = self.lab.path(f"headers-{threading.get_ident()}")
        argv = ["curl", "--silent", "--show-error", "--http2-prior-knowledge", "--unix-socket", self.sock, "--max-time", str(DEADLINE),
                "-H", "Content-Type: application/grpc", "-H", "TE: trailers", "--data-binary", "@-", "-D", headers,
                f"http://localhost/runtime.v1.RuntimeService/{method}"]
        done = subprocess.run(argv, input=b"\0" + struct.pack(">I", len(message)) + message, capture_output=True, check=False, timeout=60)
        said = world.read(headers)
        status = re.search(r"grpc-status: (\d+)", said)
        text = re.search(r"grpc-message: (.*)", said)
        text = re.sub(r"%([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), text[1].strip()) if text else ""
        if done.returncode != 0 or status is None:
            raise Failed(f"{method}: curl ended with {done.returncode}: {done.stderr.decode()[-300:]} {said[-300:]}")
        if error:
            check(status[1] != "0", f"{method} succeeds")
            return text
        equal(status[1], "0", f"{method}: {text}")
        return decode(done.stdout[5:])

    def next(self):
        """A number that nobody else has, of whichever thread."""
        return next(self.numbers)

    def pod(self, network=NODE, pid=CONTAINER, extra=()):
        """Runs a pod; returns (id, config)."""
        name = f"{self.lab.name}p{self.next()}"
        logs = self.lab.path("logs", name)
        os.makedirs(logs)
        security = [(1, [(1, network), (2, pid), (3, POD)]), *extra]
        config = [(1, [(1, name), (2, f"uid-{name}"), (3, "default")]), (3, logs), (8, [(1, "/rt-kube"), (2, security)])]
        if network == POD:
            config.insert(1, (2, "box"))
        answer = self.call("RunPodSandbox", [(1, config)])
        pod = answer[1][0].decode()
        self.pods.append(pod)
        return pod, config

    def make(self, pod, config, args, security=(), resources=()):
        name = f"c{self.next()}"
        container = [(1, [(1, name)]), (2, [(1, IMAGE)]), *((3, word) for word in args), (6, [(1, "A"), (2, "b")]), (11, f"{name}.log"),
                     (15, [(1, list(resources)), (2, list(security))])]
        answer = self.call("CreateContainer", [(1, pod), (2, container), (3, config)])
        return answer[1][0].decode(), f"{self.log_folder(config)}/{name}.log"

    @staticmethod
    def log_folder(config):
        return next(value for number, value in config if number == 3)

    def running(self, pod, config, args=("sleep", "1000"), **options):
        name, log = self.make(pod, config, list(args), **options)
        self.call("StartContainer", [(1, name)])
        return name, log

    def status(self, name):
        return decode(self.call("ContainerStatus", [(1, name)])[1][0])

    def ended(self, name):
        """(exit code, reason) when it has ended."""
        eventually(lambda: self.status(name).get(3, [0])[0] == EXITED, "the container ends", 15)
        status = self.status(name)
        return status.get(7, [0])[0], status.get(10, [b""])[0].decode()

    def exec(self, name, *args, timeout=20):
        answer = self.call("ExecSync", [(1, name), *((2, word) for word in args), (3, timeout)])
        return answer.get(1, [b""])[0].decode(), answer.get(2, [b""])[0].decode(), answer.get(3, [0])[0]

    @scenario("pod, container, exec, stop")
    def lifecycle(self):
        pod, config = self.pod()
        name, log = self.running(pod, config, ("sh", "-c", "echo logged; trap 'exit 9' TERM; while :; do sleep 0.1; done"))
        equal(self.status(name)[3][0], RUNNING)
        equal(self.exec(name, "sh", "-c", "echo $A; echo err >&2; exit 3"), ("b\n", "err\n", 3))
        eventually(lambda: os.path.exists(log) and "stdout F logged" in world.read(log), "the log")
        self.call("StopContainer", [(1, name), (2, 5)])
        equal(self.ended(name)[0], 9)
        self.call("RemoveContainer", [(1, name)])
        self.tidy()

    @scenario("network of CNI")
    def network(self):
        pod, config = self.pod(network=POD)
        status = decode(self.call("PodSandboxStatus", [(1, pod)])[1][0])
        address = decode(status[5][0])[1][0].decode()
        name, _ = self.running(pod, config, ("sh", "-c", "exec httpd -f -p 80 -h /www"))
        contains(self.exec(name, "ip", "addr")[0], address)
        equal(self.exec(name, "hostname")[0], "box\n")
        eventually(lambda: "a page" in self.lab.run("curl", "--silent", f"http://{address}/index.html", status=None).out, "a page from the pod")
        self.tidy()

    @scenario("exec errors and timeout")
    def exec_errors(self):
        pod, config = self.pod()
        name, _ = self.running(pod, config)
        text = self.call("ExecSync", [(1, name), (2, "no-such-program")], error=True)
        contains(text, "executable file not found in $PATH")
        text = self.call("ExecSync", [(1, name), (2, "sleep"), (2, "100"), (3, 1)], error=True)
        contains(text, "timed out") if "timed out" in text else contains(text, "timeout")
        self.tidy()

    @scenario("start error")
    def start_error(self):
        pod, config = self.pod()
        name, _ = self.make(pod, config, ["no-such-program"])
        contains(self.call("StartContainer", [(1, name)], error=True), "executable file not found in $PATH")
        equal(self.ended(name), (128, "StartError"))
        self.tidy()

    @scenario("update and stats")
    def update(self):
        pod, config = self.pod()
        name, _ = self.running(pod, config, resources=[(3, 512), (4, 64 << 20)])
        self.call("UpdateContainerResources", [(1, name), (2, [(3, 300), (4, 96 << 20)])])
        script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
        equal(self.exec(name, "sh", "-c", script)[0].strip(), str(96 << 20))
        # The list of devices in that call must not have closed them.
        equal(self.exec(name, "sh", "-c", "echo x > /dev/null && echo ok")[0], "ok\n")
        stats = decode(self.call("ContainerStats", [(1, name)])[1][0])
        check(2 in stats and 3 in stats, stats)
        self.tidy()

    @scenario("OOM reason")
    def oom(self):
        pod, config = self.pod()
        name, _ = self.running(pod, config, ("sh", "-c", "sleep 0.5; exec tail /dev/zero"), resources=[(4, 24 << 20)])
        equal(self.ended(name), (137, "OOMKilled"))
        self.tidy()

    @scenario("privileged")
    def privileged(self):
        pod, config = self.pod(extra=[(6, 1)])
        name, _ = self.running(pod, config, security=[(2, 1)])
        contains(self.exec(name, "sh", "-c", "mkdir /m && mount -t tmpfs t /m && echo mounted")[0], "mounted")
        self.tidy()

    @scenario("user, read-only, capabilities")
    def hardened(self):
        pod, config = self.pod()
        security = [(1, [(2, "ALL")]), (3, [(1, NODE), (2, CONTAINER)]), (5, [(1, 1000)]), (7, 1), (8, b"\xd2\x09"), (11, 1)]
        name, _ = self.running(pod, config, security=security)
        said = self.exec(name, "sh", "-c", "id -u; id -G; ! touch /tmp/x 2>/dev/null; grep -E 'CapEff|NoNew' /proc/self/status")[0].split()
        equal(said[0], "1000")
        check("1234" in said, said)
        contains(" ".join(said), "CapEff: 0000000000000000")
        self.tidy()

    @scenario("namespaces of the host, and the default seccomp profile")
    def host_namespaces(self):
        pod, config = self.pod(network=NODE, pid=NODE)
        options = [(3, [(1, NODE), (2, NODE), (3, POD)]), (15, [(1, 0)])]
        name, _ = self.running(pod, config, ("sleep", "7654"), security=options)
        said = self.exec(name, "sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; grep Seccomp: /proc/self/status")[0].split()
        equal(said, [os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/pid"), "Seccomp:", "2"])
        # What the profile does not list is refused: a new user namespace without CAP_SYS_ADMIN.
        contains("".join(self.exec(name, "unshare", "-U", "true")[:2]), "Operation not permitted")
        self.call("StopContainer", [(1, name), (2, 0)])
        equal(self.ended(name)[0], 137)
        self.tidy()

    @scenario("shared pid namespace, two containers, stop of the pod")
    def two(self):
        pod, config = self.pod(pid=POD)
        options = [(3, [(1, NODE), (2, POD), (3, POD)])]
        one, _ = self.running(pod, config, ("sleep", "4321"), security=options)
        two, _ = self.running(pod, config, ("sh", "-c", "sleep 5432 & exec sleep 6543"), security=options)
        contains(self.exec(two, "ps")[0], "sleep 4321")
        self.call("StopContainer", [(1, two), (2, 0)])
        equal(self.ended(two)[0], 137)
        said = self.exec(one, "ps")[0]
        check("5432" not in said, said)
        self.call("StopPodSandbox", [(1, pod)])
        equal(self.ended(one)[0], 137)
        self.tidy()

    def whole_life(self):
        """A pod with a network of its own and two containers that share its namespaces, from the start to the removal."""
        pod, config = self.pod(network=POD)
        shared = [(3, [(1, POD), (2, POD), (3, POD)])]
        one, _ = self.running(pod, config, ("sh", "-c", "exec httpd -f -p 80 -h /www"), security=shared, resources=[(3, 128), (4, 32 << 20)])
        two, _ = self.running(pod, config, ("sleep", "1000"), security=shared)
        said = eventually(lambda: self.exec(two, "wget", "-q", "-O-", "http://127.0.0.1/index.html")[0], "a page from the other container")
        contains(said, "a page")
        self.call("StopContainer", [(1, one), (2, 0)])
        equal(self.ended(one)[0], 137)
        self.call("RemoveContainer", [(1, one)])
        # The other one is still up when the pod is stopped.
        self.call("StopPodSandbox", [(1, pod)])
        self.call("RemovePodSandbox", [(1, pod)])
        self.pods.remove(pod)

    def traces(self):
        """What a pod leaves if somebody forgets it: {kind: sorted list}."""
        groups = [path for base, folders, _ in os.walk("/sys/fs/cgroup") for path in (os.path.join(base, folder) for folder in folders)
                  if "/rt-kube/" in path]
        shims = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if comm(pid).startswith("containerd-shim")]
        folders = [path for base, names, _ in os.walk(self.lab.folder) for path in (os.path.join(base, name) for name in names)
                   if os.path.basename(base) == self.namespace and ("state" in base or "tasks" in base or "runtime" in base)]
        return {
            "control groups": sorted(groups),
            "shims": sorted(shims),
            "mounts": sorted(line.split()[1] for line in world.read("/proc/self/mounts").splitlines()),
            "network namespaces": sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else [],
            "links": sorted(name for name in os.listdir("/sys/class/net") if name.startswith("veth")),
            "folders": sorted(folders),
        }

    def nothing_new(self, before):
        for kind, found in before.items():
            eventually(lambda kind=kind, found=found: self.traces()[kind] == found, f"the {kind} are as before: {self.traces()[kind]}", 20)

    @scenario("100 pods of two containers, one after another")
    def hundred(self):
        self.tidy()
        before = self.traces()
        # The control shows what the machine can do; it need not do it a hundred times.
        for _ in range(100 if self.lab.name == "rt" else 5):
            self.whole_life()
        self.nothing_new(before)

    @scenario("10 pods of two containers in parallel")
    def parallel(self):
        before = self.traces()
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            for life in [pool.submit(self.whole_life) for _ in range(10)]:
                life.result()
        self.nothing_new(before)

    @scenario("nothing is left")
    def nothing_left(self):
        self.tidy()
        equal(self.traces()["control groups"], [], "control groups")
