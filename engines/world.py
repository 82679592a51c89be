"""A private world for the engines: nothing that they do outlives it.

The outer process makes one control group per hierarchy and one folder. The inner one lives in them, in mount, pid, network, ipc, uts and
cgroup namespaces of its own: bridges, firewall rules, mounts, locks in /dev/shm and the default folders below /run are all private. When it has
ended the kernel takes all that back; groups and folder are removed here.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# Folders that engines use whatever one configures: an empty tmpfs each.
PRIVATE = ["/run", "/dev/shm", "/var/lib/cni", "/var/lib/containers", "/var/lib/containerd", "/var/lib/docker", "/var/tmp"]
USER = "rt-engines"
USER_ID = 61001
SUB_IDS = "200000000:65536"
CLONE_NEWCGROUP = 0x02000000


def hierarchies():
    """The mounted control group hierarchies: (mount point, type, options)."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        rows = [line.split() for line in mounts]
    return [(row[1], row[2], row[3].split(",")) for row in rows if row[2] in ("cgroup", "cgroup2")]


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


class Groups:
    """One group in every hierarchy, the root of the private world."""

    def __init__(self, name):
        self.paths = [os.path.join(point, name) for point, _, _ in hierarchies()]
        for path in self.paths:
            os.mkdir(path)
            # On version 1 a group without CPUs and memory nodes takes no process.
            for file in ("cpuset.cpus", "cpuset.mems"):
                inherited = os.path.join(os.path.dirname(path), file)
                if os.path.exists(inherited) and not os.path.exists(os.path.join(path, "cgroup.controllers")):
                    write(os.path.join(path, file), read(inherited))

    @staticmethod
    def enter(name):
        """Moves this process into the groups and makes them the roots of what it sees."""
        for point, _, _ in hierarchies():
            write(os.path.join(point, name, "cgroup.procs"), "0")
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWCGROUP) != 0:
            raise OSError(ctypes.get_errno(), "unshare")

    def remove(self):
        """Returns what could not be removed."""
        for path in self.paths:
            for folder, _, _ in os.walk(path, topdown=False):
                for _ in range(50):
                    try:
                        os.rmdir(folder)
                        break
                    except OSError:
                        time.sleep(0.02)
        return [path for path in self.paths if os.path.exists(path)]


def enter(arguments):
    """Runs this program again in a private world, and cleans up after it. Returns its exit status."""
    lab = tempfile.mkdtemp(prefix="rt-engines-", dir="/tmp")
    os.chmod(lab, 0o755)
    groups = Groups(os.path.basename(lab))
    argv = ["unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--propagation", "private"]
    argv += ["--fork", "--kill-child", "--mount-proc"]
    argv += [sys.executable, "-B", os.path.dirname(os.path.abspath(__file__)), "--inside", lab, *arguments]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    inner = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    status = None
    while status is None:
        try:
            status = inner.wait()
        except InterruptedError:
            inner.terminate()
    left = groups.remove()
    shutil.rmtree(lab, ignore_errors=True)
    if os.path.exists(lab):
        left.append(lab)
    if left:
        print("left behind: " + " ".join(left), file=sys.stderr)
        return status or 1
    return status


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def settle(lab):
    """Inside: makes the namespaces a machine of its own. Only the child returns; the first process of the world reaps."""
    views = hierarchies()
    Groups.enter(os.path.basename(lab))
    mount("--make-rshared", "/")
    mount("-t", "sysfs", "sysfs", "/sys")
    unified = [view for view in views if view[1] == "cgroup2"]
    if unified and len(views) == 1:
        mount("-t", "cgroup2", "cgroup2", views[0][0])
    else:
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/sys/fs/cgroup")
        for point, kind, options in views:
            os.makedirs(point, exist_ok=True)
            own = [option for option in options if option not in ("rw", "ro", "relatime", "nosuid", "nodev", "noexec")]
            own = [option for option in own if kind == "cgroup" and not option.startswith(("release_agent", "xattr", "clone_children"))]
            mount("-t", kind, *(["-o", ",".join(own)] if own else []), kind, point)
    if unified:
        # A group with processes cannot hand controllers to groups below it.
        root = unified[0][0]
        os.mkdir(f"{root}/main")
        write(f"{root}/main/cgroup.procs", "0")
        for controller in read(f"{root}/cgroup.controllers").split():
            write(f"{root}/cgroup.subtree_control", f"+{controller}")
    for folder in PRIVATE:
        os.makedirs(folder, exist_ok=True)
        mount("-t", "tmpfs", "-o", "mode=1777" if folder in ("/dev/shm", "/var/tmp") else "mode=755", "tmpfs", folder)
    os.makedirs("/run/lock", exist_ok=True)
    add_user(lab)
    if os.path.exists("/dev/net/tun"):
        # slirp4netns opens it as an ordinary user.
        os.mknod(f"{lab}/tun", 0o020666, os.makedev(10, 200))
        os.chmod(f"{lab}/tun", 0o666)
        mount("--bind", f"{lab}/tun", "/dev/net/tun")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    main = os.fork()
    while main:
        pid, status = os.wait()
        if pid == main:
            sys.stdout.flush()
            os._exit(os.waitstatus_to_exitcode(status) & 255)


def add_user(lab):
    """An ordinary user with subordinate ids, in private copies of the files that say so."""
    home = f"{lab}/user"
    lines = {
        "passwd": f"{USER}:x:{USER_ID}:{USER_ID}::{home}:/bin/sh",
        "group": f"{USER}:x:{USER_ID}:",
        "subuid": f"{USER}:{SUB_IDS}",
        "subgid": f"{USER}:{SUB_IDS}",
    }
    os.makedirs(f"{lab}/etc")
    for name, line in lines.items():
        path = f"/etc/{name}"
        old = read(path) if os.path.exists(path) else ""
        write(f"{lab}/etc/{name}", f"{old}{line}\n")
        if os.path.exists(path):
            mount("--bind", f"{lab}/etc/{name}", path)
    os.makedirs(home)
    os.chown(home, USER_ID, USER_ID)
