"""Buildah."""

import os

import world
from harness import contains, equal, need, scenario
from podman import Base, configure

IMAGE = "localhost/rt-test"


class Buildah(Base):
    name = "buildah"

    def start(self):
        need("buildah")
        self.folder = self.lab.path("buildah")
        self.env = configure(self.lab, self.folder)
        working = self.buildah("from", "scratch").text
        self.buildah("copy", working, f"{self.lab.rootfs}/rootfs", "/")
        self.buildah("config", "--env", "PATH=/usr/bin:/bin", "--cmd", "sh", working)
        self.buildah("commit", working, IMAGE)
        self.buildah("rm", working)
        self.working = self.buildah("from", IMAGE).text

    def tidy(self):
        pass

    def finish(self):
        self.buildah("rm", "--all", status=None)
        super().finish()

    def argv(self):
        return ["buildah", "--root", f"{self.folder}/root", "--runroot", f"{self.folder}/runroot"]

    def buildah(self, *arguments, **options):
        return self.lab.run(*self.argv(), *arguments, env=self.env, **options)

    def run(self, *arguments, status=0, **options):
        """Runs a command in the working container: flags, then "--", then the command."""
        where = arguments.index("--")
        flags = ["--runtime", self.lab.runtime, "--isolation", "oci", "--network", "none", *arguments[:where]]
        return self.buildah("run", *flags, self.working, "--", *arguments[where + 1:], status=status, **options)

    @scenario("run with options")
    def plain(self):
        equal(self.run("--", "echo", "hello").out, "hello\n")
        host = os.path.dirname(self.lab.write("volume/file", "data\n"))
        said = self.run("--user", "1000", "--hostname", "box", "--env", "A=b", "--workingdir", "/tmp", "-v", f"{host}:/v:ro", "--",
                        "sh", "-c", "id -u; hostname; echo $A; pwd; cat /v/file").out.split()
        equal(said, ["1000", "box", "b", "/tmp", "data"])
        said = self.run("--cap-drop", "CAP_KILL", "--cap-add", "CAP_NET_ADMIN", "--", "grep", "CapEff", "/proc/self/status").out
        equal(int(said.split()[1], 16) & (1 << 5 | 1 << 12), 1 << 12)

    @scenario("terminal")
    def terminal(self):
        result = self.lab.terminal(*self.argv(), "run", "--runtime", self.lab.runtime, "--isolation", "oci", "--network", "none", "--terminal",
                                   self.working, "--", "sh", "-c", "tty; exit 5", env=self.env)
        contains(result.out, "/dev/pts/0")

    @scenario("standard input")
    def stdin(self):
        equal(self.run("--", "cat", stdin="through\n").out, "through\n")

    @scenario("flags for the runtime")
    def flags(self):
        log = self.lab.path("flagged.log")
        equal(self.run("--runtime-flag", f"log={log}", "--runtime-flag", "log-format=json", "--runtime-flag", "debug", "--", "echo", "x").out, "x\n")
        equal(os.path.exists(log), True, "log")

    @scenario("error")
    def error(self):
        result = self.run("--", "no-such-program", status=None)
        equal(result.status != 0, True, "status")
        contains(result.err, "executable file not found in $PATH")
        self.run("--", "sh", "-c", "exit 7", status=7)

    def bud(self, *flags):
        self.lab.write("context/Containerfile", f"FROM {IMAGE}\nRUN echo built > /built && id -u > /id\nUSER 1000\nRUN id -u > /tmp/id2\n")
        self.buildah("bud", "--runtime", self.lab.runtime, "--isolation", "oci", "--network", "none", *flags, "-t", "localhost/built",
                     self.lab.path("context"))
        name = self.buildah("from", "localhost/built").text
        point = self.buildah("mount", name).text
        said = "".join(world.read(f"{point}/{file}") for file in ("built", "id", "tmp/id2"))
        self.buildah("umount", name)
        self.buildah("rm", name)
        equal(said, "built\n0\n1000\n")

    @scenario("bud")
    def build(self):
        self.bud()

    @scenario("bud with a user namespace")
    def build_mapped(self):
        self.bud("--userns-uid-map", "0:400000:5000", "--userns-gid-map", "0:400000:5000", "--no-cache")
