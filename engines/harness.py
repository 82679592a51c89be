"""What scenarios are made of: the table, commands with a deadline, daemons that are stopped by pid, and checks."""

import fcntl
import json
import os
import pty
import resource
import select
import shutil
import signal
import struct
import subprocess
import termios
import time

import world

DEADLINE = 45


class Failed(Exception):
    """A scenario that did not come out as it should."""


class Skipped(Exception):
    """A scenario that this machine cannot run."""


class Result:
    """The end of a command."""

    def __init__(self, argv, status, out, err):
        self.argv, self.status, self.out, self.err = argv, status, out, err

    @property
    def text(self):
        return self.out.strip()

    def json(self):
        try:
            return json.loads(self.out)
        except ValueError:
            raise Failed(f"no JSON: {self}") from None

    def __str__(self):
        words = " ".join(word if len(word) < 80 else word[:77] + "..." for word in map(str, self.argv))
        return f"`{words}` ended with {self.status}: {self.out.strip()[-300:]!r} {self.err.strip()[-700:]!r}"


def check(condition, text):
    """Fails the scenario unless the condition holds."""
    if not condition:
        raise Failed(str(text))


def equal(found, expected, text=""):
    """Fails the scenario unless both are the same."""
    if found != expected:
        raise Failed(f"{text}: expected {expected!r}, found {found!r}")


def contains(text, *parts):
    """Fails the scenario unless all parts are in the text."""
    for part in parts:
        if part not in str(text):
            raise Failed(f"expected {part!r} in {text}")


def eventually(condition, text, seconds=10):
    """Waits until a condition holds and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"after {seconds} s not yet: {text}")
        time.sleep(0.05)


class Lab:
    """One runtime's laboratory: a folder, a clean environment, and everything that was started in it."""

    def __init__(self, folder, runtime, name, rootfs):
        self.folder, self.runtime, self.name, self.rootfs = folder, runtime, name, rootfs
        self.daemons = []
        # Some engines take a program named runc from the path, whatever they are told.
        for directory in ("bin", "home", "tmp"):
            os.makedirs(self.path(directory), exist_ok=True)
        os.chmod(self.path("tmp"), 0o1777)
        for program in ("runc", "rt"):
            os.symlink(runtime, self.path("bin", program))
        path = f"{self.path('bin')}:/usr/sbin:/usr/bin:/sbin:/bin"
        self.env = {"PATH": path, "HOME": self.path("home"), "TMPDIR": self.path("tmp"), "LANG": "C.UTF-8", "TERM": "xterm"}

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, name, content, mode=0o644):
        """Writes a file (text, or data as JSON) and returns its path."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        world.write(path, content if isinstance(content, str) else json.dumps(content))
        os.chmod(path, mode)
        return path

    def run(self, *argv, status=0, stdin=None, env=None, user=None, timeout=DEADLINE, **options):
        """Runs a command to its end. `status=None` takes any exit status."""
        options.setdefault("env", {**self.env, **(env or {})})
        if user is not None:
            options.update(user=user, group=user, extra_groups=[])
        given = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        argv = [str(word) for word in argv]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=timeout, **given, **options)
        except subprocess.TimeoutExpired as expired:
            said = (expired.stderr or b"").decode(errors="replace")
            raise Failed(f"`{' '.join(argv)}` does not end within {timeout} s: {said[-500:]!r}") from None
        except OSError as error:
            raise Failed(f"`{' '.join(argv)}`: {error}") from None
        result = Result(argv, done.returncode, done.stdout, done.stderr)
        if status is not None and result.status != status:
            raise Failed(f"expected status {status}: {result}")
        return result

    def terminal(self, *argv, typed="", env=None, user=None, size=(31, 97), timeout=DEADLINE):
        """Runs a command on a terminal of its own, types after its first output, and returns its end."""
        argv = [str(word) for word in argv]
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        ids = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env={**self.env, **(env or {})}, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **ids)
        os.close(slave)
        said, end = b"", time.monotonic() + timeout
        try:
            while time.monotonic() < end:
                if select.select([master], [], [], 0.1)[0]:
                    try:
                        data = os.read(master, 65536)
                    except OSError:
                        break
                    said += data
                    if typed and said:
                        os.write(master, typed.encode())
                        typed = ""
                elif process.poll() is not None:
                    break
            status = process.wait(timeout=max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Failed(f"`{' '.join(argv)}` on a terminal does not end within {timeout} s: {said[-500:]!r}") from None
        finally:
            os.close(master)
        return Result(argv, status, said.decode(errors="replace").replace("\r\n", "\n"), "")

    def background(self, *argv, output, env=None, user=None):
        """Starts a program that goes on; its output goes to the open file."""
        ids = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        return subprocess.Popen(
            [str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**self.env, **(env or {})}, start_new_session=True, **ids)

    def daemon(self, name, *argv, **options):
        """Starts a daemon; its output goes to NAME.log."""
        with open(self.path(f"{name}.log"), "ab") as log:
            process = self.background(*argv, output=log, **options)
        self.daemons.append(process)
        return process

    def log(self, name, length=600):
        path = self.path(f"{name}.log")
        return world.read(path)[-length:] if os.path.exists(path) else ""

    def stop(self):
        """Stops the daemons, the last one first, and unmounts what is left below the folder."""
        for process in reversed(self.daemons):
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.daemons.clear()
        self.kill_rest()
        self.unmount()

    def kill_rest(self):
        """Kills what still runs out of this folder: shims, monitors and containers that a failed scenario left, each by its pid."""
        needle = self.folder.encode()
        for _ in range(3):
            found = []
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open(f"/proc/{pid}/cmdline", "rb") as file:
                        ours = needle in file.read()
                    ours = ours or os.readlink(f"/proc/{pid}/cwd").startswith(self.folder)
                    ours = ours or self.in_container(pid)
                except OSError:
                    continue
                if ours and int(pid) not in (1, os.getpid(), os.getppid()):
                    found.append(int(pid))
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if not found:
                return
            time.sleep(0.2)

    @staticmethod
    def in_container(pid):
        """True if a process of the private world lives in another mount namespace than ours."""
        return os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")

    def unmount(self):
        points = [line.split()[1].replace("\\040", " ") for line in world.read("/proc/self/mounts").splitlines()]
        for point in sorted((point for point in points if point.startswith(self.folder)), key=len, reverse=True):
            subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)


def limit(name):
    """The hard limit of this process: what a container may have at most where CAP_SYS_RESOURCE is missing."""
    hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
    return 65536 if hard == resource.RLIM_INFINITY else hard


def need(*programs):
    """Skips the scenario or engine if a program is missing."""
    for program in programs:
        if shutil.which(program) is None and not os.path.exists(program):
            raise Skipped(f"{program} is not installed")


class Engine:
    """An engine: how it is started, and its scenarios, which are its methods marked with @scenario."""

    name = ""

    def __init__(self, lab):
        self.lab = lab

    def start(self):
        """Starts the engine; its failure is that of all scenarios."""

    def finish(self):
        """Stops what start has started."""
        self.lab.stop()

    def tidy(self):
        """Takes back what a failed scenario has left."""

    @classmethod
    def scenarios(cls):
        """(title, function) in the order of the source."""
        return [(value.title, value) for value in vars(cls).values() if isinstance(value, type(lambda: 0)) and hasattr(value, "title")]


def scenario(title):
    """Marks a method as the scenario of this title."""

    def mark(function):
        function.title = title
        return function

    return mark
