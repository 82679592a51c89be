"""What all engines rely on, shown on the runtime alone: this program plays the part of the shim or of conmon."""

import array
import concurrent.futures
import ctypes
import json
import os
import re
import signal
import socket
import subprocess

import bundle
import world
from harness import Engine, Skipped, check, contains, equal, eventually, scenario

PR_SET_CHILD_SUBREAPER = 36


def subreaper(on):
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


class Contract(Engine):
    name = "contract"

    def start(self):
        self.count = 0
        self.made = []
        self.root = self.lab.path("state")
        subreaper(True)

    def finish(self):
        self.tidy()
        subreaper(False)
        super().finish()

    def tidy(self):
        while self.made:
            self.rt("delete", "--force", self.made.pop(), status=None)
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    return
            except ChildProcessError:
                return

    # The runtime and its containers.

    def rt(self, *arguments, flags=(), **options):
        return self.lab.run(self.lab.runtime, "--root", self.root, *flags, *arguments, **options)

    def fresh(self):
        self.count += 1
        return f"{self.lab.name}c{self.count}"

    def bundle(self, args, edit=None):
        """A new bundle; returns (id, folder)."""
        name = self.fresh()
        content = bundle.config(f"{self.lab.rootfs}/rootfs", args, f"/rt-test/{name}")
        if edit:
            edit(content)
        return name, bundle.write(self.lab.path("bundles", name), content)

    def create(self, args, *flags, edit=None, status=0, globals=(), **options):
        """Creates a container; its stdio is a file, as nobody reads a pipe here. Returns its id."""
        name, folder = self.bundle(args, edit)
        self.made.append(name)
        with open(self.output(name), "wb") as out:
            argv = [self.lab.runtime, "--root", self.root, *globals, "create", "--bundle", folder, *flags, name]
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.lab.env, timeout=20, check=False, **options)
        equal(done.returncode, status, f"create: {world.read(self.output(name))}")
        return name

    def output(self, name):
        return self.lab.path(f"{name}.out")

    def said(self, name):
        return world.read(self.output(name))

    def running(self, args=("sleep", "1000"), **options):
        name = self.create(list(args), **options)
        self.rt("start", name)
        return name

    def state(self, name):
        return self.rt("state", name).json()

    def ended(self, name, pid):
        """Waits for init, which has to be our child, and returns its exit status."""
        eventually(lambda: self.state(name)["status"] == "stopped", f"{name} stopped")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def exec(self, name, *args, flags=(), **options):
        return self.rt("exec", *flags, name, *args, **options)

    def process(self, args, **more):
        """A process document; returns its path."""
        document = bundle.config("/", list(args))["process"]
        document.update(more)
        return self.lab.write(f"process-{self.fresh()}.json", document)

    # Scenarios.

    @scenario("version")
    def version(self):
        lines = self.lab.run(self.lab.runtime, "--version").out.splitlines()
        check(re.fullmatch(r"\S+ version \d+\.\d+\.\d+\S*", lines[0]), lines)
        check(any(line.startswith("spec: 1.") for line in lines), lines)

    @scenario("features")
    def features(self):
        result = self.lab.run(self.lab.runtime, "features", status=None)
        if result.status:
            raise Skipped("no such command")
        equal(result.err, "", "stderr")
        document = result.json()
        check({"pid", "mount", "user"} <= set(document["linux"]["namespaces"]), document["linux"]["namespaces"])
        check("rbind" in document["mountOptions"], document["mountOptions"])

    @scenario("unknown ids")
    def unknown(self):
        for command in (["state"], ["start"], ["kill"], ["delete"], ["pause"], ["resume"], ["ps"], ["update", "--pids-limit", "7"]):
            result = self.rt(command[0], *command[1:], "nobody", status=None)
            check(result.status == 1, result)
            contains(result.err, "does not exist")
        contains(self.rt("exec", "nobody", "true", status=255).err, "does not exist")
        result = self.rt("delete", "--force", "nobody")
        equal(result.err, "", "stderr of delete --force")

    @scenario("pid file and parent")
    def pid_file(self):
        path = self.lab.path("pid")
        name = self.create(["sleep", "1000"], "--pid-file", path)
        text = world.read(path)
        check(text.isdigit(), f"pid file {text!r}")
        equal(self.state(name)["pid"], int(text), "pid")
        contains(world.read(f"/proc/{text}/status"), f"\nPPid:\t{os.getpid()}\n")
        self.rt("delete", "--force", name)
        equal(os.waitstatus_to_exitcode(os.waitpid(int(text), 0)[1]), -signal.SIGKILL, "exit status")

    @scenario("state document")
    def state_document(self):
        name = self.create(["sleep", "1000"], edit=lambda c: c.update(annotations={"a.b": "c"}))
        state = self.state(name)
        equal((state["id"], state["status"], state["annotations"]), (name, "created", {"a.b": "c"}))
        equal(state["bundle"], self.lab.path("bundles", name), "bundle")
        check(state["ociVersion"].startswith("1."), state)
        check(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", state["created"]), state)
        self.rt("start", name)
        equal(self.state(name)["status"], "running", "status")
        os.kill(state["pid"], signal.SIGKILL)
        # A zombie counts as stopped.
        eventually(lambda: self.state(name)["status"] == "stopped", "stopped")
        equal(self.state(name).get("pid", 0), 0, "pid of a stopped container")

    @scenario("exit status reaches the subreaper")
    def exit_status(self):
        for script, expected in (("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 0)):
            name = self.create(["sh", "-c", f"{script}; echo survived"])
            pid = self.state(name)["pid"]
            self.rt("start", name)
            equal(self.ended(name, pid), expected, script)
            self.rt("delete", name)

    @scenario("delete of a running one is refused")
    def delete_running(self):
        name = self.running()
        result = self.rt("delete", name, status=1)
        contains(result.err, "not stopped" if self.lab.name == "control" else "still running")
        equal(self.state(name)["status"], "running", "status")

    @scenario("duplicate id")
    def duplicate(self):
        name = self.running()
        result = self.rt("create", "--bundle", self.lab.path("bundles", name), name, status=1)
        contains(result.err, "container with given" if self.lab.name == "control" else "container with given ID already exists")
        equal(self.state(name)["status"], "running", "status")

    @scenario("errors: not found, not executable, a directory")
    def not_found(self):
        # What Docker and Podman turn into 127 and 126.
        cases = [
            ("no-such-program", ["executable file not found in $PATH"]),
            ("/no/such/program", ["no such file or directory"]),
            ("/etc/not-executable", ["permission denied"]),
            ("/etc", ["permission denied"])]
        for program, texts in cases:
            name, folder = self.bundle([program])
            log = self.lab.path(f"{name}.log")
            result = self.rt("create", "--bundle", folder, name, flags=("--log", log, "--log-format", "json"), status=None)
            if result.status == 0:
                result = self.rt("start", name, flags=("--log", log, "--log-format", "json"), status=None)
            equal(result.status, 1, f"status for {program}")
            errors = [line for line in map(json.loads, world.read(log).splitlines()) if line["level"] == "error"]
            equal(len(errors), 1, f"error records for {program}")
            check(any(text in errors[0]["msg"] for text in texts), errors)
            check(any(text in result.err for text in texts), result)
            check(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$", errors[0]["time"]), errors)
            self.rt("delete", "--force", name)
            contains(self.rt("state", name, status=1).err, "does not exist")

    @scenario("silence on success")
    def silence(self):
        log = self.lab.path("silent.log")
        flags = ("--log", log, "--log-format=json")
        name = self.create(["true"], globals=flags)
        result = self.rt("start", name, flags=flags)
        equal((self.said(name), result.out, result.err), ("", "", ""))
        self.rt("delete", "--force", name, flags=flags)
        equal(world.read(log), "", "log")

    @scenario("start twice")
    def start_twice(self):
        name = self.running()
        contains(self.rt("start", name, status=1).err, "cannot start")

    @scenario("exec, detached")
    def exec_detached(self):
        name = self.running()
        process = self.process(["sh", "-c", "echo $GREETING > /run/said; exec sleep 1000"], env=["PATH=/bin", "GREETING=hello"])
        pid_file = self.lab.path("exec.pid")
        self.detached(name, process, pid_file)
        pid = int(world.read(pid_file))
        contains(world.read(f"/proc/{pid}/status"), f"\nPPid:\t{os.getpid()}\n")
        eventually(lambda: os.path.exists(f"/proc/{pid}/root/run/said"), "the process writes")
        eventually(lambda: world.read(f"/proc/{pid}/root/run/said") == "hello\n", "the process writes its environment")
        os.kill(pid, signal.SIGTERM)
        equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), -signal.SIGTERM, "exit status of the process")

    def detached(self, name, process, pid_file, *flags, status=0, **options):
        out = self.lab.path("exec.out")
        with open(out, "wb") as file:
            argv = [self.lab.runtime, "--root", self.root, "exec", *flags, "--process", process, "--detach", "--pid-file", pid_file, name]
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=self.lab.env, timeout=20, check=False, **options)
        equal(done.returncode, status, f"exec: {world.read(out)}")
        return world.read(out)

    @scenario("exec, foreground")
    def exec_foreground(self):
        name = self.running()
        result = self.exec(name, "sh", "-c", "echo out; echo err >&2; exit 7", status=7)
        equal((result.out, result.err), ("out\n", "err\n"))
        self.exec(name, "sh", "-c", "kill -9 $$", status=137)
        equal(self.exec(name, "sh", "-c", "pwd; echo $A; id -u", flags=("--cwd", "/tmp", "-e", "A=b", "-u", "1000:1000")).out, "/tmp\nb\n1000\n")
        equal(self.exec(name, "cat", stdin="through\n").out, "through\n")

    @scenario("exec errors")
    def exec_errors(self):
        name = self.running()
        contains(self.exec(name, "no-such-program", status=255).err, "executable file not found in $PATH")
        contains(self.exec(name, "/no/such", status=255).err, "no such file or directory")
        contains(self.exec(name, "/etc/not-executable", status=255).err, "permission denied")
        contains(self.detached(name, self.process(["nothing"]), self.lab.path("no.pid"), status=255), "executable file not found")
        self.rt("kill", name, "KILL")
        eventually(lambda: self.state(name)["status"] == "stopped", "stopped")
        contains(self.exec(name, "true", status=255).err, "stopped container")

    @scenario("preserved descriptors, and no others")
    def descriptors(self):
        # Three descriptors follow stdio: two are meant for the program, the third is not.
        def program():
            name = self.create(["sh", "-c", "cat <&3; cat <&4; ls /proc/self/fd | tr '\\n' ' '"], "--preserve-fds", "2",
                               preexec_fn=self.open_three, close_fds=False)
            self.rt("start", name)
            eventually(lambda: self.state(name)["status"] == "stopped", "stopped")
            return self.said(name)

        self.lab.write("first", "one\n")
        self.lab.write("second", "two\n")
        said = program()
        # ls has a descriptor of its own for the directory.
        equal(said.split("\n")[:2], ["one", "two"], said)
        check(said.split("\n")[2].split() in (["0", "1", "2", "3", "4", "5"], ["0", "1", "2", "3", "4", "6"]), said)

    def open_three(self):
        for target, name in ((3, "first"), (4, "second"), (5, "first")):
            fd = os.open(self.lab.path(name), os.O_RDONLY)
            if fd != target:
                os.dup2(fd, target)
                os.close(fd)
            os.set_inheritable(target, True)

    @scenario("signals are as new")
    def signals(self):
        def spoil():
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])

        name = self.create(["grep", "Sig[BI]", "/proc/self/status"], preexec_fn=spoil)
        self.rt("start", name)
        eventually(lambda: self.state(name)["status"] == "stopped", "stopped")
        masks = dict(line.split(":\t") for line in self.said(name).splitlines())
        ignored = int(masks["SigIgn"], 16) & 1 << signal.SIGPIPE - 1
        equal(ignored, 0, f"SIGPIPE ignored: {masks}")
        if self.lab.name == "rt":
            equal(int(masks["SigBlk"], 16), 0, f"blocked: {masks}")

    @scenario("ps and list as JSON")
    def listing(self):
        name = self.running(["sh", "-c", "sleep 1000 & wait"])
        pid = self.state(name)["pid"]
        found = eventually(lambda: (lambda pids: pids if len(pids) == 2 else None)(self.rt("ps", "--format", "json", name).json()), "two processes")
        check(pid in found, found)
        entries = self.rt("list", "--format", "json").json()
        entry = next(entry for entry in entries if entry["id"] == name)
        equal((entry["status"], entry["pid"], entry["owner"]), ("running", pid, "root"))
        check(name in self.rt("list", "-q").out.split(), "list -q")

    @scenario("events --stats")
    def events(self):
        name = self.running()
        result = self.rt("events", "--stats", name, status=None)
        if result.status and "unrecognized" in result.err:
            check(False, "no such command yet")
        document = result.json()
        equal((document["type"], document["id"]), ("stats", name))
        check(document["data"]["pids"]["current"] >= 1, document)
        check(document["data"]["cpu"]["usage"]["total"] > 0, document)
        check(document["data"]["memory"]["usage"]["usage"] > 0, document)

    def limits(self, name):
        """(pids, memory, cpu shares or weight) as the kernel has them."""
        pid = self.state(name)["pid"]
        values = {}
        for line in world.read(f"/proc/{pid}/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(",") if controllers else [""]:
                for base in (f"/sys/fs/cgroup/{controller}", "/sys/fs/cgroup"):
                    for file in ("pids.max", "memory.limit_in_bytes", "memory.max", "cpu.shares", "cpu.weight"):
                        found = f"{base}{path}/{file}"
                        if os.path.exists(found):
                            values[file.split(".")[0]] = world.read(found).strip()
        return values

    @scenario("update")
    def update(self):
        name = self.running()
        self.rt("update", "--pids-limit", "77", name)
        equal(self.limits(name)["pids"], "77", "pids")
        self.rt("update", "--resources", "-", name, stdin=json.dumps({"pids": {"limit": 88}, "memory": {"limit": 67108864}}))
        equal((self.limits(name)["pids"], self.limits(name)["memory"]), ("88", "67108864"))
        file = self.lab.write("limits.json", {"cpu": {"shares": 512}})
        self.rt("update", "-r", file, name)
        check(self.limits(name)["cpu"] in ("512", "59", "20"), self.limits(name))
        self.rt("update", "--memory", "32m", "--memory-swap", "-1", name)
        equal(self.limits(name)["memory"], str(32 << 20), "memory")

    @scenario("update leaves devices alone")
    def update_devices(self):
        name = self.running()
        document = {"devices": [{"allow": False, "access": "rwm"}], "cpu": {"shares": 300}}
        self.rt("update", "--resources=-", name, stdin=json.dumps(document))
        self.exec(name, "sh", "-c", "echo x > /dev/null && head -c 1 /dev/null")

    @scenario("zero-valued resources change nothing")
    def zeroes(self):
        zero = {
            "memory": {"limit": 0, "reservation": 0, "swap": 0, "kernel": 0, "kernelTCP": 0},
            "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": "", "realtimeRuntime": 0, "realtimePeriod": 0},
            "pids": {"limit": 0}, "blockIO": {"weight": 0}}
        name = self.running(edit=lambda c: c["linux"]["resources"].update(zero))
        self.rt("update", "--memory", "64m", "--pids-limit", "50", name)
        del zero["pids"]
        self.rt("update", "--resources", "-", name, stdin=json.dumps(zero))
        equal((self.limits(name)["memory"], self.limits(name)["pids"]), (str(64 << 20), "50"))

    @scenario("pause, resume, and delete --force of a paused one")
    def pause(self):
        name = self.running()
        self.rt("pause", name)
        equal(self.state(name)["status"], "paused", "status")
        self.rt("exec", name, "true", status=255)
        self.rt("resume", name)
        equal(self.state(name)["status"], "running", "status")
        self.exec(name, "true")
        self.rt("pause", name)
        self.rt("delete", "--force", name)
        contains(self.rt("state", name, status=1).err, "does not exist")

    @scenario("forms of signals")
    def kill_forms(self):
        script = "trap 'echo usr1' USR1; trap 'echo rt3' 37; trap 'echo term' TERM; trap 'echo bye; exit 5' USR2; while :; do sleep 0.05; done"
        name = self.running(["sh", "-c", f"{script}"])
        pid = self.state(name)["pid"]
        # The traps must be there first.
        eventually(lambda: int(re.search(r"SigCgt:\t(\w+)", world.read(f"/proc/{pid}/status"))[1], 16) & 1 << 11, "traps")
        for form in ("USR1", "SIGUSR1", "10", "37", None):
            before = self.said(name)
            self.rt("kill", name, *([form] if form else []))
            eventually(lambda: self.said(name) != before, f"an answer to {form}")
        self.rt("kill", name, "12")
        equal(self.ended(name, pid), 5, "exit status")
        equal(self.said(name).split(), ["usr1", "usr1", "usr1", "rt3", "term", "bye"])
        result = self.rt("kill", name, "TERM", status=1)
        check(any(text in result.err for text in ("container not running", "no such process", "process already finished")), result)

    @scenario("kill --all with the host's pid namespace")
    def kill_all(self):
        def host_pid(config):
            config["linux"]["namespaces"] = [kind for kind in config["linux"]["namespaces"] if kind["type"] != "pid"]

        name = self.running(["sh", "-c", "sleep 1000 & exec sleep 2000"], edit=host_pid)
        pids = eventually(lambda: (lambda found: found if len(found) == 2 else None)(self.rt("ps", "-f", "json", name).json()), "two processes")
        init = self.state(name)["pid"]
        os.kill(init, signal.SIGKILL)
        os.waitpid(init, 0)
        # As containerd's shim does it when init has died.
        self.rt("kill", "--all", name, "9")
        other = next(pid for pid in pids if pid != init)
        equal(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]), -signal.SIGKILL, "the other process")
        self.rt("delete", name)

    @scenario("console socket")
    def console(self):
        path = self.lab.path("tty.sock")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen()
            name = self.create(["sh", "-c", "tty; stty size; read line; echo got $line"], "--console-socket", path,
                               edit=lambda c: c["process"].update(terminal=True, consoleSize={"height": 33, "width": 99}))
            self.rt("start", name)
            master = self.receive(server)
        os.unlink(path)
        os.write(master, b"input\n")
        eventually(lambda: self.state(name)["status"] == "stopped", "stopped")
        text = os.read(master, 4096).decode().replace("\r\n", "\n")
        os.close(master)
        contains(text, "/dev/", "33 99", "got input")
        self.create(["true"], edit=lambda c: c["process"].update(terminal=True), status=1)

    @staticmethod
    def receive(server):
        server.settimeout(10)
        client, _ = server.accept()
        with client:
            fds = array.array("i")
            _, messages, _, _ = client.recvmsg(4096, socket.CMSG_LEN(4))
            for _, _, data in messages:
                fds.frombytes(data[:4])
        return fds[0]

    @scenario("relative bundle")
    def relative(self):
        name, folder = self.bundle(["true"], lambda c: c["root"].update(path="rootfs"))
        os.symlink(f"{self.lab.rootfs}/rootfs", f"{folder}/rootfs")
        if self.lab.name == "control":
            os.unlink(f"{folder}/rootfs")
            os.mkdir(f"{folder}/rootfs")
            subprocess.run(["mount", "--bind", f"{self.lab.rootfs}/rootfs", f"{folder}/rootfs"], check=True)
        self.rt("run", name, cwd=folder)
        self.rt("run", "--bundle", f"./{name}", name, cwd=self.lab.path("bundles"))
        self.rt("run", "-b", os.path.relpath(folder, "/tmp"), name, cwd="/tmp")

    @scenario("global flags and Go's forms of options")
    def global_flags(self):
        name, folder = self.bundle(["true"])
        log = self.lab.path("forms.log")
        runtime = self.lab.runtime
        self.lab.run(runtime, f"--root={self.root}", f"--log={log}", "--log-format=json", "--debug=false", "run", f"--bundle={folder}", name)
        self.lab.run(runtime, "-root", self.root, "-log", log, "-log-format", "json", "run", "-bundle", folder, "-no-subreaper", name)
        self.lab.run(runtime, f"-root={self.root}", "--rootless=auto", "run", f"-bundle={folder}", "--no-pivot", "--no-new-keyring", name)

    @scenario("run, foreground")
    def run_foreground(self):
        name, folder = self.bundle(["sh", "-c", "cat; echo err >&2; exit 9"])
        result = self.rt("run", "--bundle", folder, name, stdin="through\n", status=9)
        equal((result.out, result.err), ("through\n", "err\n"))
        contains(self.rt("state", name, status=1).err, "does not exist")

    @scenario("run forwards SIGTERM")
    def run_forwards(self):
        name, folder = self.bundle(["sh", "-c", "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.05; done"])
        process = subprocess.Popen([self.lab.runtime, "--root", self.root, "run", "--bundle", folder, name],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=self.lab.env)
        self.made.append(name)
        equal(process.stdout.readline(), "ready\n", "output")
        process.terminate()
        equal((process.communicate(timeout=10)[0], process.returncode), ("term\n", 3))

    @scenario("run, detached and kept")
    def run_detached(self):
        name, folder = self.bundle(["sleep", "1000"])
        self.made.append(name)
        pid_file = self.lab.path("run.pid")
        with open(self.output(name), "wb") as out:
            argv = [self.lab.runtime, "--root", self.root, "run", "--detach", "--pid-file", pid_file, "--bundle", folder, name]
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.lab.env, timeout=20, check=True)
        equal(self.state(name)["status"], "running", "status")
        self.rt("kill", name, "KILL")
        equal(self.ended(name, int(world.read(pid_file))), -9, "exit status")
        self.rt("delete", name)
        name, folder = self.bundle(["true"])
        self.made.append(name)
        result = self.rt("run", "--keep", "--bundle", folder, name, status=None)
        if self.lab.name == "control" and result.status:
            return
        equal(self.state(name)["status"], "stopped", "status")

    @scenario("hooks")
    def hooks(self):
        trace = self.lab.path("hooks")
        moments = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")

        def hooked(config):
            config["hooks"] = {
                moment: [{"path": "/bin/sh", "args": ["sh", "-c", f"cat > {trace}.{moment}; echo {moment} >> {trace}"]}] for moment in moments}

        name = self.create(["true"], edit=hooked)
        self.rt("start", name)
        eventually(lambda: self.state(name)["status"] == "stopped", "stopped")
        self.rt("delete", name)
        equal(world.read(trace).split(), list(moments))
        for moment, status in (("createRuntime", ("created", "creating")), ("poststop", ("stopped",))):
            state = json.loads(world.read(f"{trace}.{moment}"))
            check(state["id"] == name and state["status"] in status, state)

    @scenario("many in parallel")
    def parallel(self):
        def one(_):
            name, folder = self.bundle(["sh", "-c", "exit 6"])
            self.rt("run", "--bundle", folder, name, status=6)

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(one, range(16)))

    @scenario("nothing is left")
    def nothing_left(self):
        self.tidy()
        check(self.rt("list", "-q").out == "", "containers are left")
        left = [path for base, folders, _ in os.walk("/sys/fs/cgroup") for path in (os.path.join(base, folder) for folder in folders)
                if "/rt-test/" in path]
        equal(left, [], "control groups")
