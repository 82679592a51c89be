"""conmon, as CRI-O calls it."""

import json
import os
import socket
import subprocess
import time

import bundle
import world
from harness import Engine, Skipped, check, contains, equal, eventually, need, scenario


class Conmon(Engine):
    name = "conmon (CRI-O)"

    def start(self):
        need("conmon")
        self.count = 0
        self.made = []
        self.root = self.lab.path("state")
        self.exits = self.lab.path("exits")
        os.makedirs(self.exits)

    def finish(self):
        self.tidy()
        super().finish()

    def tidy(self):
        while self.made:
            self.rt("delete", "--force", self.made.pop(), status=None)

    def rt(self, *arguments, **options):
        return self.lab.run(self.lab.runtime, "--root", self.root, *arguments, **options)

    def conmon(self, name, folder, *flags, exits=None):
        """Starts conmon and returns what it reports over the pipe: {"pid": ...} or {"message": ...}."""
        read_end, write_end = os.pipe()
        start_read, start_write = os.pipe()
        os.set_inheritable(write_end, True)
        os.set_inheritable(start_read, True)
        argv = [
            "/usr/bin/conmon", "-c", name, "-n", name, "-u", name, "-r", self.lab.runtime, "-b", folder, "-p", f"{folder}/pidfile",
            "-P", f"{folder}/conmon-pidfile", "-l", f"{folder}/log", "--exit-dir", exits or self.exits, "--persist-dir", folder,
            "--socket-dir-path", self.lab.path("s"), "--runtime-arg", f"--root={self.root}", "--log-level", "info", *flags]
        env = {**self.lab.env, "_OCI_SYNCPIPE": str(write_end), "_OCI_STARTPIPE": str(start_read)}
        log = open(self.lab.path("conmon.log"), "ab")
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, pass_fds=[write_end, start_read])
        self.lab.daemons.append(process)
        log.close()
        os.close(write_end)
        os.close(start_read)
        os.write(start_write, b"\0")
        os.close(start_write)
        with os.fdopen(read_end) as pipe:
            line = pipe.readline()
        check(line, f"conmon says nothing: {self.lab.log('conmon')}")
        return json.loads(line)

    def make(self, args, *flags, edit=None):
        self.count += 1
        name = f"{self.lab.name}k{self.count}"
        content = bundle.config(f"{self.lab.rootfs}/rootfs", args, f"/rt-test/{name}")
        if edit:
            edit(content)
        folder = bundle.write(self.lab.path("bundles", name), content)
        os.makedirs(self.lab.path("s"), exist_ok=True)
        self.made.append(name)
        return name, folder, self.conmon(name, folder, *flags)

    def exit_code(self, name):
        path = f"{self.exits}/{name}"
        eventually(lambda: os.path.exists(path), "the exit file")
        return world.read(path)

    @scenario("lifecycle, log, exec")
    def lifecycle(self):
        name, folder, report = self.make(["sh", "-c", "echo out; echo err >&2; sleep 1; exit 7"])
        pid = report.get("pid", report.get("data", -1))
        equal(world.read(f"{folder}/pidfile"), str(pid), "pid file")
        self.rt("start", name)
        spec = self.lab.write("exec.json", bundle.config("/", ["sh", "-c", "echo from exec; exit 3"])["process"])
        report = self.conmon(name, folder, "-e", "--exec-process-spec", spec, "-l", f"{folder}/exec.log", "-p", f"{folder}/exec.pid", exits=folder)
        equal(report.get("exit_code", report.get("data")), 3, "exit code of exec")
        equal(self.exit_code(name), "7", "exit code")
        log = world.read(f"{folder}/log")
        contains(log, "stdout F out", "stderr F err")
        equal(self.rt("state", name).json()["status"], "stopped", "status")
        self.rt("delete", name)

    @scenario("terminal and attach")
    def terminal(self):
        def edit(config):
            config["process"]["terminal"] = True

        name, folder, _ = self.make(["sh", "-c", "tty; read line; echo got $line; exit 2"], "-t", "-i", "--full-attach", edit=edit)
        self.rt("start", name)
        path = f"{folder}/attach"
        eventually(lambda: os.path.exists(path), "the attach socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(path)
            time.sleep(0.2)
            client.send(b"word\n")
            equal(self.exit_code(name), "2", "exit code")
        contains(world.read(f"{folder}/log"), "/dev/pts/0", "got word")

    @scenario("failed create")
    def failure(self):
        _, _, report = self.make(["no-such-program"])
        if report.get("pid", report.get("data", -1)) == -1:
            contains(report["message"], "executable file not found in $PATH")

    @scenario("host's pid namespace and kill --all")
    def kill_all(self):
        def edit(config):
            config["linux"]["namespaces"] = [kind for kind in config["linux"]["namespaces"] if kind["type"] != "pid"]

        name, _, _ = self.make(["sh", "-c", "sleep 1000 & exec sleep 2000"], edit=edit)
        self.rt("start", name)
        eventually(lambda: len(self.rt("ps", "-f", "json", name).json()) == 2, "two processes")
        self.rt("kill", "--all", name, "KILL")
        equal(self.exit_code(name), "137", "exit code")
        equal(self.rt("ps", "-f", "json", name).json() or [], [], "processes")
        self.rt("delete", name)

    @scenario("lifecycle with the systemd driver")
    def systemd(self):
        if not os.path.isdir("/run/systemd/system"):
            raise Skipped("needs systemd")
        name, _, _ = self.make(["sleep", "1000"], "-s", edit=lambda c: c["linux"].update(cgroupsPath="system.slice:rt:conmon"))
        self.rt("--systemd-cgroup", "start", name)
        self.rt("kill", name, "KILL")
        equal(self.exit_code(name), "137", "exit code")
