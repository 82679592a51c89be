"""Real services from the distribution's packages: each starts, answers, keeps within its limits, and stops when it is asked to.

The runtime runs them directly, as root and as an ordinary user, and under Podman; always on a read-only root filesystem, with the default
seccomp profile of the engines.
"""

import dataclasses
import json
import os
import time

import bundle
import podman
import world
from harness import Engine, Skipped, check, contains, equal, eventually, need, scenario

PROFILE = "/usr/share/containers/seccomp.json"
MEMORY = 512 << 20
PIDS = 300
# Started once, it must be up and have answered by then, on a busy machine, too.
PATIENCE = 60

GET = "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET / HTTP/1.0\\r\\nHost: box\\r\\n\\r\\n' >&3; cat <&3"


@dataclasses.dataclass
class Service:
    """What is started, as whom, how it is asked whether it lives, and what it says then. `ends` are its exit statuses after SIGTERM."""

    script: str
    user: str
    probe: str
    says: str
    ends: tuple = (0,)


SERVICES = {
    "PostgreSQL": Service(
        "cd /usr/lib/postgresql/*/bin; ./initdb -D /srv/data -A trust >/srv/initdb.log && "
        "exec ./postgres -D /srv/data -k /srv -c listen_addresses= -c shared_buffers=32MB",
        "postgres",
        "psql -h /srv -U postgres -qAtc 'create table if not exists t(n int); insert into t select generate_series(1, 1000); "
        "select sum(n) / count(*) * 2 from t'",
        "1000"),
    "nginx": Service(
        "printf 'daemon off; pid /srv/pid; error_log stderr; events {} http { access_log off; client_body_temp_path /srv/a; proxy_temp_path /srv/b;"
        " fastcgi_temp_path /srv/c; uwsgi_temp_path /srv/d; scgi_temp_path /srv/e;"
        " server { listen 127.0.0.1:8080; root /usr/share/nginx/html; } }' > /srv/conf; exec nginx -c /srv/conf",
        "root", GET, "Welcome to nginx"),
    "Redis": Service(
        "exec redis-server --dir /srv --bind 127.0.0.1 --maxmemory 32mb --save '' --daemonize no",
        "redis",
        "redis-cli set k v && redis-cli save && redis-cli bgsave && redis-cli get k", "v"),
    "Node.js": Service(
        "exec node -e 'const s = require(\"http\").createServer((q, r) => r.end(\"node answers\")); s.listen(8080, \"127.0.0.1\");"
        " process.on(\"SIGTERM\", () => process.exit(7))'",
        "nobody", GET, "node answers", (7,)),
    "Tomcat on a JVM": Service(
        "mkdir /srv/temp /srv/logs /srv/work /srv/webapps; cp -r /etc/tomcat10 /srv/conf; cp -r /var/lib/tomcat10/webapps/ROOT /srv/webapps/; "
        "export CATALINA_HOME=/usr/share/tomcat10 CATALINA_BASE=/srv CATALINA_TMPDIR=/srv/temp CATALINA_OPTS='-Xmx128m -XX:TieredStopAtLevel=1'; "
        "exec /usr/share/tomcat10/bin/catalina.sh run",
        "nobody", GET, "It works", (143, 0)),
}


def tree():
    """Where the services' root filesystem is kept between runs."""
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.environ.get("SERVICES_TREE") or f"{top}/.cache/services"


def ids(rootfs, name):
    """(uid, gid) of a user of that root filesystem."""
    for line in world.read(f"{rootfs}/etc/passwd").splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2]), int(fields[3])
    raise KeyError(name)


def profile(capabilities):
    """The engines' default seccomp profile as it is for these capabilities on this machine, in the form of config.json."""
    given = json.loads(world.read(PROFILE))
    def applies(rule):
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        return (all(cap in capabilities for cap in includes.get("caps") or [])
                and not any(cap in capabilities for cap in excludes.get("caps") or [])
                and ("amd64" in (includes.get("arches") or ["amd64"])) and "amd64" not in (excludes.get("arches") or []))
    keep = ("names", "action", "args", "errnoRet")
    rules = [{key: rule[key] for key in keep if rule.get(key) not in (None, [])} for rule in given["syscalls"] if applies(rule)]
    made = {"defaultAction": given["defaultAction"], "syscalls": rules, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]}
    if "defaultErrnoRet" in given:
        made["defaultErrnoRet"] = given["defaultErrnoRet"]
    return made


def every_service(suffix="", **options):
    """Gives a class one scenario per service: `serve` with these options."""

    def add(cls):
        for number, title in enumerate(SERVICES):
            function = lambda self, title=title: self.serve(title, **options)  # noqa: E731 (one per title)
            setattr(cls, f"service{suffix}{number}", scenario(title + suffix)(function))
        return cls

    return add


def place(lab):
    """Shows the tree in the lab's folder, where an ordinary user may go, and returns its path there."""
    source = tree()
    if not os.path.exists(f"{source}/.complete"):
        raise Skipped("there is no root filesystem of the services (engines/services-tree makes it; it needs the distribution's packages)")
    need(PROFILE)
    path = lab.path("services")
    os.makedirs(path, exist_ok=True)
    if not os.path.ismount(path):
        world.mount("--bind", source, path)
    return path


@every_service(", rootless", rootless=True)
@every_service()
class Services(Engine):
    name = "services"

    def start(self):
        self.rootfs = place(self.lab)
        self.count = 0
        run = self.lab.path("xdg")
        os.makedirs(run, mode=0o700)
        os.chown(run, world.USER_ID, world.USER_ID)
        self.as_user = {"user": world.USER_ID, "env": {"XDG_RUNTIME_DIR": run, "USER": world.USER}}
        self.running = []

    def finish(self):
        self.tidy()
        super().finish()

    def tidy(self):
        while self.running:
            name, whose = self.running.pop()
            self.rt("delete", "--force", name, status=None, **whose)

    def rt(self, *arguments, **options):
        root = self.lab.path("xdg" if "user" in options else "", "state")
        return self.lab.run(self.lab.runtime, "--root", root, *arguments, **options)

    def bundle(self, name, service, rootless):
        """config.json of a service, hardened as far as services bear it."""
        content = bundle.config(self.rootfs, ["sh", "-c", service.script], f"/rt-services/{name}")
        uid, gid = ids(self.rootfs, service.user)
        process, linux = content["process"], content["linux"]
        process["user"] = {"uid": uid, "gid": gid}
        process["env"] = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/srv"]
        content["root"]["readonly"] = True
        size = ["nosuid", "nodev", "mode=1777"]
        content["mounts"] += [{"destination": path, "type": "tmpfs", "source": "tmpfs", "options": [*size, f"size={room}m"]}
                              for path, room in (("/srv", 256), ("/tmp", 32))]
        linux["seccomp"] = profile(bundle.CAPABILITIES)
        if rootless:
            linux["namespaces"].append({"type": "user"})
            first, count = (int(number) for number in world.SUB_IDS.split(":"))
            mapping = [{"containerID": 0, "hostID": world.USER_ID, "size": 1}, {"containerID": 1, "hostID": first, "size": count - 1}]
            linux["uidMappings"], linux["gidMappings"] = mapping, mapping
            del linux["resources"], linux["cgroupsPath"]
        else:
            linux["resources"].update({"memory": {"limit": MEMORY}, "pids": {"limit": PIDS}, "cpu": {"shares": 512, "quota": 150000, "period": 100000}})
        folder = bundle.write(self.lab.path("bundles", name), content)
        os.chmod(folder, 0o755)
        return folder

    def serve(self, title, rootless=False):
        """Runs a service through its life."""
        service = SERVICES[title]
        whose = self.as_user if rootless else {}
        self.count += 1
        name = f"{self.lab.name}s{self.count}"
        folder = self.bundle(name, service, rootless)
        log = self.lab.path("bundles", name, "log")
        with open(log, "wb") as output:
            process = self.lab.background(self.lab.runtime, "--root", self.lab.path("xdg" if rootless else "", "state"), "run", "--bundle", folder, name,
                                          output=output, **whose)
        self.running.append((name, whose))

        def answers():
            check(process.poll() is None, f"{title} has ended with {process.returncode}: {world.read(log)[-600:]}")
            said = self.rt("exec", "--user", "{}:{}".format(*ids(self.rootfs, service.user)), name, "bash", "-c", service.probe, status=None, **whose)
            return said.status == 0 and service.says in said.out

        eventually(answers, f"{title} answers {service.says!r}: {world.read(log)[-600:]}", PATIENCE)
        status = self.rt("exec", name, "cat", "/proc/1/status", **whose).out
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        equal((facts["Seccomp"], facts["NoNewPrivs"]), ("2", "1"), title)
        if not rootless:
            self.within_limits(name)
        self.rt("kill", name, "TERM", **whose)
        ended = process.wait(timeout=30)
        check(ended in service.ends, f"{title} ended with {ended}: {world.read(log)[-600:]}")
        self.running.remove((name, whose))
        contains(self.rt("state", name, status=None, **whose).err, "does not exist")

    def within_limits(self, name):
        """The limits are the kernel's, and the service runs under them."""
        stats = json.loads(self.rt("events", "--stats", name).out)["data"]
        equal(stats["memory"]["usage"]["limit"], MEMORY, "memory limit")
        check(0 < stats["pids"]["current"] <= PIDS, stats["pids"])
        equal(stats["pids"]["limit"], PIDS, "limit of processes")


class Served:
    """The scenarios of both kinds of Podman."""

    limits = ["--memory", str(MEMORY), "--pids-limit", str(PIDS), "--cpu-shares", "512"]

    def serve(self, title):
        service = SERVICES[title]
        name = "".join(letter for letter in title.lower() if letter.isalnum())
        uid, gid = ids(self.rootfs, service.user)
        probe = ["--health-cmd", json.dumps(["bash", "-c", service.probe]), "--health-interval", "disable", "--health-retries", "1"]
        self.podman("run", "--detach", "--name", name, "--network=none", "--read-only", "--user", f"{uid}:{gid}", "--tmpfs", "/srv:mode=1777,size=256m",
                    *self.limits, *probe, "--env", "HOME=/srv", "--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                    "--security-opt", "no-new-privileges", "--rootfs", self.rootfs, "sh", "-c", service.script)

        def healthy():
            check(self.inspect(name, "{{.State.Running}}") == "true", f"{title} has ended: {self.podman('logs', name, status=None)}")
            return self.podman("healthcheck", "run", name, status=None).status == 0

        eventually(healthy, f"{title} is healthy", PATIENCE)
        contains(self.podman("exec", name, "bash", "-c", service.probe).out, service.says)
        began = time.monotonic()
        self.podman("stop", "--time", "20", name)
        check(time.monotonic() - began < 20, f"{title} had to be killed")
        check(int(self.inspect(name, "{{.State.ExitCode}}")) in service.ends, self.inspect(name, "{{.State}}"))
        self.remove(name)


@every_service()
class PodmanServices(Served, podman.Podman):
    name = "podman services"

    def start(self):
        self.rootfs = place(self.lab)
        super().start()


@every_service()
class PodmanRootlessServices(Served, podman.PodmanRootless):
    name = "podman rootless services"
    # An ordinary user has no control group here to put limits on.
    limits = []

    def start(self):
        self.rootfs = place(self.lab)
        super().start()
