//! Random valid configurations: a default one with random edits, each of which can be made again from its seed, or left out.

use std::cell::Cell;

use serde_json::{Value, json};

use crate::config;

/// Random numbers that can be had again (splitmix64).
pub struct Dice {
    state: Cell<u64>,
    /// Picks what is likely to be refused, too.
    bold: bool,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self { state: Cell::new(seed), bold: false }
    }

    pub fn next(&self) -> u64 {
        let mut z = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(z);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `n`.
    fn below(&self, n: u64) -> u64 {
        self.next() % n
    }

    fn between(&self, low: i64, high: i64) -> i64 {
        low + i64::try_from(self.below(u64::try_from(high - low + 1).unwrap())).unwrap()
    }

    /// True once in `n` times.
    fn once_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&self, list: &[T]) -> T {
        list[usize::try_from(self.below(list.len() as u64)).unwrap()].clone()
    }

    /// One of the good ones, or of the others by the bold.
    fn pick_or<T: Clone>(&self, good: &[T], others: &[T]) -> T {
        if self.bold && self.once_in(2) { self.pick(others) } else { self.pick(good) }
    }

    /// Each with a probability of one half.
    fn some<T: Clone>(&self, list: &[T]) -> Vec<T> {
        list.iter().filter(|_| self.once_in(2)).cloned().collect()
    }
}

/// What the edits may name.
pub struct World {
    pub uid: u32,
    /// The first of 65,536 ids that an ordinary user may map.
    pub ids: u32,
    /// A folder of the host.
    pub folder: String,
    /// What `rt features` lists.
    pub features: Value,
    /// A process whose uts, ipc and network namespaces may be changed. Not everybody can make one.
    pub holder: Option<String>,
}

impl World {
    fn listed(&self, pointer: &str) -> Vec<String> {
        let list = self.features.pointer(pointer).and_then(Value::as_array).unwrap();
        list.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }
}

type Edit = fn(&mut Value, &Dice, &World);

/// Every edit with its name.
const EDITS: &[(&str, Edit)] = &[
    ("namespaces", namespaces),
    ("no mount namespace", no_mount_namespace),
    ("user namespace", user_namespace),
    ("time offsets", time_offsets),
    ("joined namespace", joined),
    ("mounts", mounts),
    ("bind mounts", binds),
    ("strange mounts", strange_mounts),
    ("mapped mount", mapped_mount),
    ("capabilities", capabilities),
    ("rlimits", rlimits),
    ("user", user),
    ("devices", devices),
    ("memory", memory),
    ("cpu", cpu),
    ("other limits", other_limits),
    ("device rules", device_rules),
    ("unified", unified),
    ("seccomp", seccomp),
    ("paths", paths),
    ("hooks", hooks),
    ("strange hooks", strange_hooks),
    ("sysctl", sysctl),
    ("annotations", annotations),
    ("cwd", cwd),
    ("environment", environment),
    ("priorities", priorities),
    ("memory policy", memory_policy),
    ("personality", personality),
    ("propagation", propagation),
    ("root", root),
    ("names", names),
    ("program", program),
    ("cgroups path", cgroups_path),
    ("security modules", security_modules),
    ("what this host lacks", lacking),
    ("terminal", terminal),
    ("block devices", block_devices),
    ("strange limits", strange_limits),
    ("realtime", realtime),
    ("nulls", nulls),
    ("unknown properties", unknown_properties),
    ("other platforms", other_platforms),
    ("version", version),
    ("listener", listener),
    ("mapped tmpfs", mapped_tmpfs),
    ("nothing but what is demanded", minimal),
    ("no process", no_process),
];

/// Those that are for the bold only.
const BOLD: [&str; 9] = [
    "strange mounts",
    "strange hooks",
    "security modules",
    "what this host lacks",
    "unified",
    "strange limits",
    "realtime",
    "listener",
    "mapped tmpfs",
];

/// A configuration as the edits that make it.
#[derive(Clone, Debug)]
pub struct Recipe {
    edits: Vec<(usize, u64)>,
    bold: bool,
}

impl Recipe {
    pub fn new(seed: u64) -> Self {
        let dice = Dice::new(seed);
        let bold = dice.once_in(3);
        // Often few, so that most can be made; sometimes many.
        let one_in = dice.pick(&[2, 4, 8]);
        let chosen = (0..EDITS.len()).filter(|edit| (bold || !BOLD.contains(&EDITS[*edit].0)) && dice.once_in(one_in));
        Self { edits: chosen.map(|edit| (edit, dice.next())).collect(), bold }
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.edits.iter().map(|(edit, _)| EDITS[*edit].0).collect()
    }

    pub fn cook(&self, config: &mut Value, world: &World) {
        for (edit, seed) in &self.edits {
            (EDITS[*edit].1)(config, &Dice { bold: self.bold, ..Dice::new(*seed) }, world);
        }
    }

    /// The same with one edit less, for each edit.
    pub fn simpler(&self) -> Vec<Self> {
        let without = |index: usize| {
            let rest = self.edits.iter().enumerate().filter(|(at, _)| *at != index);
            Self { edits: rest.map(|(_, edit)| *edit).collect(), bold: self.bold }
        };
        (0..self.edits.len()).map(without).collect()
    }
}

fn push(config: &mut Value, pointer: &str, key: &str, value: Value) {
    let object = config.pointer_mut(pointer).unwrap();
    if object[key].is_null() {
        object[key] = json!([]);
    }
    object[key].as_array_mut().unwrap().push(value);
}

fn namespaces(config: &mut Value, dice: &Dice, world: &World) {
    for kind in dice.some(if world.uid == 0 || dice.bold { &["pid", "network", "ipc", "uts"] } else { &["uts"] }) {
        config::without_namespace(config, kind);
        if kind == "uts" && !dice.bold {
            config.as_object_mut().unwrap().remove("hostname");
        }
    }
    for kind in dice.some(&["cgroup", "time"]) {
        config::namespace(config, kind, None);
    }
}

fn no_mount_namespace(config: &mut Value, dice: &Dice, world: &World) {
    if dice.once_in(3) && (world.uid == 0 || dice.bold) {
        config::without_namespace(config, "mount");
        if !dice.bold {
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
        }
    }
}

fn user_namespace(config: &mut Value, dice: &Dice, world: &World) {
    let map = match world.uid {
        0 => dice.pick_or(
            &[json!([config::id_map(0, 0, 65536)]), json!([config::id_map(0, 0, 1), config::id_map(1, 100_001, 65535)])],
            &[json!([config::id_map(0, 100_000, 65536)]), json!([config::id_map(0, 0, 1000)])],
        ),
        uid => dice.pick_or(
            &[json!([config::id_map(0, uid, 1), config::id_map(1, world.ids, 65535)])],
            &[json!([config::id_map(0, world.ids, 65536)]), json!([config::id_map(0, 0, 1)]), json!([config::id_map(0, uid, 1)])],
        ),
    };
    config::in_user_namespace(config, map.clone(), map);
    if !dice.bold {
        // What is mounted in a user namespace has to belong to it.
        ["pid", "network", "ipc", "uts", "mount"].into_iter().for_each(|kind| config::namespace(config, kind, None));
    }
}

fn time_offsets(config: &mut Value, dice: &Dice, _: &World) {
    if !dice.bold || !dice.once_in(4) {
        config::namespace(config, "time", None);
    }
    let clock = dice.pick(&["monotonic", "boottime"]);
    config["linux"]["timeOffsets"] =
        json!({ clock: { "secs": dice.between(-50, 100_000), "nanosecs": dice.below(1_000_000_000) } });
}

fn joined(config: &mut Value, dice: &Dice, world: &World) {
    let user = config["linux"]["uidMappings"].is_array();
    if (world.uid != 0 || user) && !dice.bold {
        return;
    }
    let (kind, file) = dice.pick_or(
        &[("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid"), ("cgroup", "cgroup")],
        &[("network", "uts"), ("network", "x")],
    );
    // The host name and the parameters of a joined namespace are changed.
    let whose = if matches!(file, "pid" | "cgroup") { None } else { world.holder.as_deref() };
    config::namespace(config, kind, Some(&format!("/proc/{}/ns/{file}", whose.unwrap_or("self"))));
}

fn mounts(config: &mut Value, dice: &Dice, world: &World) {
    let words = world.listed("/mountOptions");
    for _ in 0..dice.between(1, 3) {
        let kind = dice.pick(&["tmpfs", "tmpfs", "tmpfs", "proc", "sysfs", "mqueue", "devpts"]);
        let at =
            dice.pick_or(&["/data", "/tmp", "/data/deep/er", "/new", "/tmp/a/../b"], &["/bin/sh/x", "/data/link", "/etc/passwd"]);
        let mut options: Vec<String> = (0..dice.below(5)).map(|_| dice.pick(&words)).collect();
        options.retain(|word| !["bind", "rbind", "idmap", "ridmap", "remount"].contains(&word.as_str()));
        if !dice.bold {
            options.retain(|word| word != "iversion" && (word != "tmpcopyup" || kind == "tmpfs"));
        }
        if kind == "tmpfs" && dice.once_in(2) {
            options.push(
                dice.pick_or(&["size=64k", "mode=700", "nr_inodes=20", "size=10%"], &["uid=5", "size=x", "what=ever"]).to_owned(),
            );
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        config::mount(config, kind, kind, at, &options);
    }
}

fn binds(config: &mut Value, dice: &Dice, world: &World) {
    let words = world.listed("/mountOptions");
    for _ in 0..dice.between(1, 3) {
        let file = format!("{}/file", world.folder);
        let source = dice.pick_or(
            &[world.folder.as_str(), "/dev", "rootfs/etc"],
            &[file.as_str(), "/proc", "/nonexistent/x", "/etc/hostname"],
        );
        let at = dice.pick_or(&["/data", "/tmp/new", "/new/place", "/mnt"], &["/data/file", "/etc/passwd", "/bin/sh"]);
        let mut options: Vec<String> = (0..dice.below(5)).map(|_| dice.pick(&words)).collect();
        options.retain(|word| !["idmap", "ridmap"].contains(&word.as_str()) && (dice.bold || word != "tmpcopyup"));
        options.push(dice.pick(&["bind", "rbind"]).to_owned());
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        config::mount(config, "bind", source, at, &options);
    }
}

fn strange_mounts(config: &mut Value, dice: &Dice, _: &World) {
    match dice.below(5) {
        0 => config::mount(config, "nosuchfs", "none", "/data", &[]),
        1 => config::mount(config, "tmpfs", "tmpfs", "/tmp", &["remount", "ro"]),
        2 => config::mount(config, "tmpfs", "tmpfs", "/dev/shm", &["remount", "nosuid", "size=1m"]),
        3 => config::mount(config, "cgroup2", "cgroup", "/data", &["ro"]),
        _ => config::mount(config, "tmpfs", "tmpfs", "relative", &[]),
    }
}

fn mapped_mount(config: &mut Value, dice: &Dice, world: &World) {
    let map = json!([config::id_map(0, 1000, 10)]);
    let source = dice.pick_or(&[world.folder.as_str()], &["/proc", "/sys"]);
    if world.uid != 0 && !dice.bold {
        return;
    }
    let option = dice.pick(&["idmap", "ridmap"]);
    config::mount(config, "bind", source, "/data", &["bind", option]);
    let list = config["mounts"].as_array_mut().unwrap();
    let last = list.last_mut().unwrap();
    last["uidMappings"] = map.clone();
    last["gidMappings"] = map;
}

fn capabilities(config: &mut Value, dice: &Dice, world: &World) {
    let all = world.listed("/linux/capabilities");
    let permitted = dice.some(&all);
    let inheritable = dice.some(&permitted);
    let effective = dice.some(&permitted);
    let ambient = dice.some(&inheritable);
    let bounding = if dice.once_in(2) { permitted.clone() } else { all };
    config["process"]["capabilities"] = json!({ "bounding": bounding, "permitted": permitted, "effective": effective,
        "inheritable": inheritable, "ambient": ambient });
    if dice.once_in(8) {
        config["process"].as_object_mut().unwrap().remove("capabilities");
    }
}

fn rlimits(config: &mut Value, dice: &Dice, _: &World) {
    let mut list = Vec::new();
    for (name, least) in dice.some(&[
        ("RLIMIT_AS", 1i64 << 28),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_CPU", 60),
        ("RLIMIT_DATA", 1 << 26),
        ("RLIMIT_FSIZE", 1 << 16),
        ("RLIMIT_LOCKS", 5),
        ("RLIMIT_MEMLOCK", 0),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_NICE", 0),
        ("RLIMIT_NOFILE", 3),
        ("RLIMIT_NPROC", 4000),
        ("RLIMIT_RSS", 1 << 20),
        ("RLIMIT_RTPRIO", 0),
        ("RLIMIT_RTTIME", 100_000),
        ("RLIMIT_SIGPENDING", 10),
        ("RLIMIT_STACK", 1 << 20),
    ]) {
        let privileged = ["RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_MSGQUEUE"].contains(&name);
        let soft = least + if privileged && !dice.bold { 0 } else { dice.between(0, 1000) };
        list.push(json!({ "type": name, "soft": soft, "hard": soft + dice.pick_or(&[0], &[1, 100_000, 1 << 40]) }));
    }
    config["process"]["rlimits"] = json!(list);
}

/// False where one id alone is mapped.
fn has_ids(config: &Value, world: &World) -> bool {
    world.uid == 0 || config["linux"]["uidMappings"].as_array().is_some_and(|maps| maps.len() > 1)
}

fn user(config: &mut Value, dice: &Dice, world: &World) {
    if !has_ids(config, world) && !dice.bold {
        return;
    }
    let id = |dice: &Dice| dice.pick(&[0, 0, 1, 1000, 65_534]);
    let (uid, gid) = (id(dice), id(dice));
    config["process"]["user"] = json!({ "uid": uid, "gid": gid, "umask": dice.pick(&[0, 0o22, 0o77, 0o777]) });
    if dice.once_in(2) {
        config["process"]["user"]["additionalGids"] = json!([1, 5, id(dice)]);
    }
}

fn devices(config: &mut Value, dice: &Dice, _: &World) {
    let (kind, path, major, minor) = dice.pick(&[
        ("c", "/dev/fuse", 10, 229),
        ("c", "/dev/mynull", 1, 3),
        ("b", "/dev/disk", 7, 100),
        ("p", "/dev/pipe", 0, 0),
        ("u", "/dev/deep/er/zero", 1, 5),
        ("c", "/dev/null", 1, 3),
        ("c", "/data/node", 1, 8),
    ]);
    let binds = config["linux"]["uidMappings"].is_array() && !dice.bold;
    let (kind, path, major, minor) = if binds { ("c", "/dev/null", 1, 3) } else { (kind, path, major, minor) };
    let (kind, path, major, minor) = if dice.bold { ("c", "/etc/passwd", 1, 3) } else { (kind, path, major, minor) };
    let mut device =
        json!({ "type": kind, "path": path, "fileMode": dice.pick(&[0o600, 0o666, 0]), "uid": dice.pick(&[0, 5]), "gid": 0 });
    if kind != "p" {
        device["major"] = json!(major);
        device["minor"] = json!(minor);
    }
    push(config, "/linux", "devices", device);
}

fn memory(config: &mut Value, dice: &Dice, _: &World) {
    let limit = dice.between(32, 512) << 20;
    let mut memory = json!({ "limit": limit });
    for (key, value) in dice.some(&[
        ("swap", json!(limit * 2)),
        ("reservation", json!(limit / 2)),
        ("swappiness", json!(60)),
        ("disableOOMKiller", json!(false)),
        ("useHierarchy", json!(true)),
        ("checkBeforeUpdate", json!(true)),
        ("kernel", json!(-1)),
    ]) {
        memory[key] = value;
    }
    config["linux"]["resources"]["memory"] = memory;
}

fn cpu(config: &mut Value, dice: &Dice, _: &World) {
    let mut cpu = json!({});
    for (key, value) in dice.some(&[
        ("shares", json!(dice.between(2, 10_000))),
        ("quota", json!(dice.pick(&[-1, 10_000, 200_000]))),
        ("period", json!(dice.pick(&[100_000, 50_000]))),
        ("cpus", json!(dice.pick_or(&["0", "0-1", "0,1"], &["77"]))),
        ("mems", json!(dice.pick_or(&["0"], &["9", "5000"]))),
    ]) {
        cpu[key] = value;
    }
    config["linux"]["resources"]["cpu"] = cpu;
}

fn other_limits(config: &mut Value, dice: &Dice, _: &World) {
    let resources = &mut config["linux"]["resources"];
    for key in dice.some(if dice.bold { &["pids", "blockIO", "hugepageLimits", "network"] } else { &["pids", "hugepageLimits"] })
    {
        resources[key] = match key {
            "pids" => json!({ "limit": dice.pick(&[-1, 20, 1000]) }),
            "blockIO" => json!({ "weight": dice.between(10, 1000) }),
            "hugepageLimits" => json!([{ "pageSize": dice.pick_or(&["2MB", "1GB"], &["3MB"]), "limit": 2 << 20 }]),
            _ => {
                json!({ "classID": 0x10_0001, "priorities": [{ "name": dice.pick_or(&["lo"], &["nonexistent"]), "priority": 3 }] })
            }
        };
    }
}

fn device_rules(config: &mut Value, dice: &Dice, _: &World) {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    for _ in 0..dice.below(4) {
        rules.push(json!({ "allow": dice.once_in(2), "type": dice.pick(&["c", "b", "a"]), "major": dice.pick(&[1, 5, 10, 136]),
            "minor": dice.below(10), "access": dice.pick(&["r", "rw", "rwm", "m"]) }));
    }
    config["linux"]["resources"]["devices"] = json!(rules);
}

fn unified(config: &mut Value, dice: &Dice, _: &World) {
    let (file, value) = dice.pick(&[
        ("hugetlb.2MB.max", "2097152"),
        ("pids.max", "100"),
        ("memory.high", "max"),
        ("no.such", "1"),
        ("cgroup.max.depth", "3"),
    ]);
    config["linux"]["resources"]["unified"] = json!({ file: value });
}

fn seccomp(config: &mut Value, dice: &Dice, world: &World) {
    let mut calls = Vec::new();
    for _ in 0..dice.between(1, 4) {
        let names = dice.some(&[
            "mkdirat",
            "chmod",
            "fchmodat",
            "ptrace",
            "kexec_load",
            "swapon",
            "nosuchcall",
            "keyctl",
            "add_key",
            "socket",
        ]);
        let action = dice.pick(&[
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_LOG",
            "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_TRAP",
            "SCMP_ACT_TRACE",
        ]);
        let mut rule = json!({ "names": names, "action": action });
        if names.is_empty() {
            rule["names"] = json!(["chmod"]);
        }
        if dice.once_in(2) {
            let op = dice.pick(&world.listed("/linux/seccomp/operators"));
            rule["args"] = json!([{ "index": dice.below(6), "value": dice.below(100), "valueTwo": dice.below(100), "op": op }]);
        }
        if action == "SCMP_ACT_ERRNO" && dice.once_in(2) {
            rule["errnoRet"] = json!(dice.between(0, 100));
        }
        calls.push(rule);
    }
    let mut flags = world.listed("/linux/seccomp/supportedFlags");
    flags.retain(|flag| flag != "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV");
    let mut archs = dice.some(&world.listed("/linux/seccomp/archs"));
    if !dice.bold {
        let big = ["M68K", "MIPS", "MIPS64", "MIPS64N32", "PARISC", "PARISC64", "PPC", "PPC64", "S390", "S390X", "SHEB"];
        archs.retain(|arch| !big.iter().any(|name| arch.ends_with(&format!("_{name}"))));
    }
    config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls, "architectures": archs,
        "flags": dice.some(&flags) });
}

fn paths(config: &mut Value, dice: &Dice, _: &World) {
    let list = [
        "/proc/kcore",
        "/proc/acpi",
        "/sys/firmware",
        "/etc/passwd",
        "/nonexistent",
        "/data",
        "/bin/busybox/x",
        "/",
        "/dev/null",
    ];
    config["linux"]["maskedPaths"] = json!(dice.some(&list[..7]));
    config["linux"]["readonlyPaths"] = json!(dice.some(&list));
}

fn hooks(config: &mut Value, dice: &Dice, _: &World) {
    for moment in dice.some(&["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]) {
        let mut hook = json!({ "path": "/bin/true" });
        for (key, value) in
            dice.some(&[("args", json!(["true", "x"])), ("env", json!(["A=b"])), ("timeout", json!(dice.between(5, 20)))])
        {
            hook[key] = value;
        }
        config["hooks"][moment] = json!([hook]);
    }
}

fn strange_hooks(config: &mut Value, dice: &Dice, _: &World) {
    let moment = dice.pick(&["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]);
    config["hooks"][moment] = json!([{ "path": dice.pick(&["/nonexistent", "/etc/passwd", "/etc", "relative"]) }]);
}

fn sysctl(config: &mut Value, dice: &Dice, _: &World) {
    let list = [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ping_group_range", "0 0"),
        ("net.core.somaxconn", "100"),
        ("kernel.shmmax", "1000000"),
        ("kernel.msgmax", "9000"),
        ("kernel.domainname", "example"),
        ("fs.mqueue.msg_max", "12"),
    ];
    let bad = [
        ("user.max_net_namespaces", "3"),
        ("net.ipv4.nonexistent", "1"),
        ("kernel.core_pattern", "x"),
        ("net.core.somaxconn", "minus"),
    ];
    for _ in 0..dice.between(1, 3) {
        let (name, value) = dice.pick_or(&list, &bad);
        config["linux"]["sysctl"][name] = json!(value);
        if !dice.bold {
            let kind = if name.starts_with("net.") {
                "network"
            } else if name == "kernel.domainname" {
                "uts"
            } else {
                "ipc"
            };
            config::namespace(config, kind, None);
        }
    }
}

fn annotations(config: &mut Value, dice: &Dice, _: &World) {
    config["annotations"] = json!({ "org.example.key": format!("value {}", dice.below(10)), "empty": "" });
}

fn cwd(config: &mut Value, dice: &Dice, _: &World) {
    config["process"]["cwd"] = json!(
        dice.pick_or(&["/", "/data", "/new/place", "/tmp/../data", "/root"], &["/etc/passwd", "/proc/self", "/proc/nosuch"])
    );
}

fn environment(config: &mut Value, dice: &Dice, _: &World) {
    let env = dice.pick_or(
        &[json!([]), json!(["PATH=/bin", "HOME=/x"]), json!(["PATH=/bin", "PATH=/sbin:/bin", "A="])],
        &[json!(["PATH=/nowhere"]), json!(["novalue"])],
    );
    config["process"]["env"] = env;
}

fn priorities(config: &mut Value, dice: &Dice, _: &World) {
    let process = &mut config["process"];
    for key in dice.some(&["oomScoreAdj", "scheduler", "ioPriority", "execCPUAffinity", "noNewPrivileges"]) {
        process[key] = match key {
            "oomScoreAdj" => json!(dice.between(if dice.bold { -1000 } else { 500 }, 1000)),
            "scheduler" => match dice.below(5) {
                0 => json!({ "policy": "SCHED_BATCH", "nice": dice.between(-5, 19) }),
                1 => json!({ "policy": "SCHED_IDLE" }),
                2 if dice.bold => {
                    json!({ "policy": "SCHED_FIFO", "priority": dice.between(1, 99), "flags": ["SCHED_FLAG_RESET_ON_FORK"] })
                }
                3 if dice.bold => {
                    json!({ "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 20_000_000 })
                }
                _ => json!({ "policy": "SCHED_OTHER", "nice": dice.between(0, 19) }),
            },
            "ioPriority" => {
                json!({ "class": dice.pick(&["IOPRIO_CLASS_BE", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_IDLE"]), "priority": dice.below(8) })
            }
            "execCPUAffinity" => json!({ "initial": "0", "final": "0-1" }),
            _ => json!(dice.once_in(2)),
        };
    }
}

fn memory_policy(config: &mut Value, dice: &Dice, _: &World) {
    let (mode, nodes) = dice.pick_or(
        &[
            ("MPOL_DEFAULT", None),
            ("MPOL_BIND", Some("0")),
            ("MPOL_INTERLEAVE", Some("0")),
            ("MPOL_PREFERRED", Some("0")),
            ("MPOL_LOCAL", None),
        ],
        &[("MPOL_BIND", Some("50")), ("MPOL_BIND", None)],
    );
    let mut policy = json!({ "mode": mode });
    if let Some(nodes) = nodes {
        policy["nodes"] = json!(nodes);
    }
    config["linux"]["memoryPolicy"] = policy;
}

fn personality(config: &mut Value, dice: &Dice, _: &World) {
    config["linux"]["personality"] = json!({ "domain": dice.pick(&["LINUX", "LINUX32"]) });
}

fn propagation(config: &mut Value, dice: &Dice, _: &World) {
    let words = ["shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"];
    config["linux"]["rootfsPropagation"] = json!(dice.pick(&words));
}

fn root(config: &mut Value, dice: &Dice, _: &World) {
    let own_mounts = config["linux"]["namespaces"].as_array().unwrap().iter().any(|entry| entry["type"] == "mount");
    config["root"]["readonly"] = json!(own_mounts || dice.bold);
    if dice.once_in(4) {
        config["root"]["path"] = json!(dice.pick_or(&["./rootfs", "rootfs/../rootfs"], &["nonexistent", "config.json"]));
    }
}

fn names(config: &mut Value, dice: &Dice, _: &World) {
    config["hostname"] = json!(dice.pick(&["h", "a.b.c", "with space", ""]));
    config["domainname"] = json!(dice.pick(&["d.example", ""]));
    if !dice.bold {
        config::namespace(config, "uts", None);
    }
}

fn program(config: &mut Value, dice: &Dice, _: &World) {
    let duration = config["process"]["args"][1].clone();
    let program = dice.pick_or(
        &["/bin/sleep", "sleep"],
        &[
            "bin/sleep",
            "./bin/sleep",
            "nosuch",
            "/nosuch",
            "/etc/passwd",
            "/etc",
            "/bin/script",
            "/bin/foreign",
            "/bin/needs-loader",
        ],
    );
    config["process"]["args"] = json!([program, duration]);
}

/// How the names of this run's own control groups begin: another one may run at the same time.
pub fn own_groups() -> String {
    format!("rt-generated-by-{}-", std::process::id())
}

fn cgroups_path(config: &mut Value, dice: &Dice, _: &World) {
    let name = format!("{}{}", own_groups(), dice.next());
    config["linux"]["cgroupsPath"] =
        json!(dice.pick_or(&[format!("/{name}"), format!("/{name}/a/b"), name.clone()], &[format!("/{name}/../x")]));
}

fn security_modules(config: &mut Value, dice: &Dice, _: &World) {
    match dice.below(3) {
        0 => config["process"]["apparmorProfile"] = json!(dice.pick(&["unconfined", "nosuch"])),
        1 => config["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0"),
        _ => config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0"),
    }
}

fn lacking(config: &mut Value, dice: &Dice, _: &World) {
    match dice.below(3) {
        0 => config["linux"]["intelRdt"] = json!({ "closID": "x", "schemata": ["L3:0=ff"] }),
        1 => config["linux"]["netDevices"] = json!({ "nonexistent0": { "name": "eth7" } }),
        _ => config["linux"]["resources"]["rdma"] = json!({ "mlx5_1": { "hcaHandles": 3 } }),
    }
}

fn terminal(config: &mut Value, dice: &Dice, _: &World) {
    config["process"]["terminal"] = json!(true);
    if dice.once_in(2) {
        config["process"]["consoleSize"] = json!({ "height": dice.below(70_000), "width": dice.between(1, 300) });
    }
}

/// Rates of what every machine has (the first loop device), or of what is no disk.
fn block_devices(config: &mut Value, dice: &Dice, _: &World) {
    let mut block = json!({});
    for key in
        dice.some(&["throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice"])
    {
        let (major, minor) = dice.pick_or(&[(7, 0)], &[(1, 3), (999, 999), (-1, 0), (7, 1 << 21)]);
        block[key] = json!([{ "major": major, "minor": minor, "rate": dice.pick(&[0, 1, 1 << 20, u64::MAX]) }]);
    }
    if dice.once_in(3) {
        block["weight"] = json!(dice.pick_or(&[10, 1000], &[9, 1001, 0]));
        block["weightDevice"] = json!([{ "major": 7, "minor": 0, "weight": dice.pick_or(&[10, 1000], &[9, 1001]) }]);
    }
    if dice.once_in(4) {
        block["leafWeight"] = json!(500);
    }
    config["linux"]["resources"]["blockIO"] = block;
}

/// Values that kernels refuse.
fn strange_limits(config: &mut Value, dice: &Dice, _: &World) {
    let (controller, limits) = dice.pick(&[
        ("cpu", json!({ "period": 999 })),
        ("cpu", json!({ "period": 1_000_001, "quota": 5000 })),
        ("cpu", json!({ "quota": 999 })),
        ("cpu", json!({ "quota": i64::MAX })),
        ("cpu", json!({ "quota": 5000, "burst": 5001 })),
        ("cpu", json!({ "burst": u64::MAX })),
        ("cpu", json!({ "shares": u64::MAX })),
        ("cpu", json!({ "idle": 1, "shares": 5 })),
        ("cpu", json!({ "idle": -1 })),
        ("cpu", json!({ "cpus": "1-0" })),
        ("cpu", json!({ "cpus": "x", "mems": "y" })),
        ("cpu", json!({ "cpus": "all" })),
        ("cpu", json!({ "cpus": "99999999999" })),
        ("cpu", json!({ "mems": "1" })),
        ("cpu", json!({ "mems": "1023" })),
        ("cpu", json!({ "mems": "1024" })),
        ("pids", json!({ "limit": 4_194_304 })),
        ("pids", json!({ "limit": 4_194_305 })),
        ("pids", json!({ "limit": i64::MAX })),
        ("memory", json!({ "limit": 256 << 20, "swap": 255 << 20 })),
        ("memory", json!({ "swap": 256 << 20 })),
        ("memory", json!({ "limit": -1, "swap": 256 << 20 })),
        ("memory", json!({ "limit": 256 << 20, "swap": -1 })),
        ("memory", json!({ "limit": 256 << 20, "reservation": 1i64 << 40 })),
        ("memory", json!({ "limit": -2 })),
        ("memory", json!({ "limit": i64::MAX })),
        ("memory", json!({ "swappiness": 101 })),
        (
            "memory",
            json!({ "limit": 256 << 20, "kernel": 1, "kernelTCP": 4096, "useHierarchy": false, "disableOOMKiller": true }),
        ),
        ("hugepageLimits", json!([{ "pageSize": "2MB", "limit": u64::MAX }])),
        ("network", json!({ "priorities": [{ "name": "nonexistent", "priority": 1 }] })),
        ("devices", json!([{ "allow": true, "type": "c", "major": -2, "access": "r" }])),
        ("devices", json!([{ "allow": true, "type": "x", "access": "r" }])),
        ("rdma", json!({ "mlx5_1": {} })),
        ("unified", json!({ "cgroup.max.depth": "x" })),
        ("unified", json!({ "hugetlb.nosuch": "1" })),
        ("unified", json!({ "hugetlb.2MB.max": "x" })),
    ]);
    config["linux"]["resources"][controller] = limits;
}

fn realtime(config: &mut Value, dice: &Dice, _: &World) {
    config["linux"]["resources"]["cpu"] = json!({ "realtimePeriod": dice.pick(&[0, 1, 500_000, 1_000_000]), "realtimeRuntime": dice.pick(&[0, 1, 1000, 475_001, 999_999]) });
}

/// Null is as good as nothing wherever something may be absent.
fn nulls(config: &mut Value, dice: &Dice, _: &World) {
    for (pointer, keys) in [
        ("", &["hostname", "domainname", "mounts", "hooks", "annotations", "windows", "solaris", "vm", "zos", "freebsd"][..]),
        (
            "/process",
            &[
                "terminal",
                "consoleSize",
                "capabilities",
                "rlimits",
                "noNewPrivileges",
                "apparmorProfile",
                "oomScoreAdj",
                "selinuxLabel",
                "ioPriority",
                "scheduler",
                "execCPUAffinity",
                "env",
            ],
        ),
        ("/process/user", &["umask", "additionalGids", "username"]),
        ("/root", &["readonly"]),
        (
            "/linux",
            &[
                "devices",
                "netDevices",
                "cgroupsPath",
                "resources",
                "sysctl",
                "seccomp",
                "rootfsPropagation",
                "maskedPaths",
                "readonlyPaths",
                "mountLabel",
                "intelRdt",
                "memoryPolicy",
                "personality",
                "timeOffsets",
            ],
        ),
    ] {
        let Some(object) = config.pointer_mut(pointer).and_then(Value::as_object_mut) else { continue };
        for key in dice.some(keys) {
            if object.get(key).is_none() || (dice.bold && !["mounts", "env"].contains(&key)) {
                object.insert(key.to_owned(), Value::Null);
            }
        }
    }
}

fn unknown_properties(config: &mut Value, dice: &Dice, _: &World) {
    for pointer in dice.some(&["", "/process", "/process/user", "/root", "/linux", "/linux/namespaces/0", "/mounts/0"]) {
        if let Some(object) = config.pointer_mut(pointer).and_then(Value::as_object_mut) {
            object.insert("org.example.unknown".to_owned(), dice.pick(&[json!(1), json!([{ "a": null }]), json!("text")]));
        }
    }
}

fn other_platforms(config: &mut Value, dice: &Dice, _: &World) {
    for (key, value) in dice.some(&[
        ("windows", json!({ "layerFolders": ["C:\\x"], "devices": 5 })),
        ("solaris", json!({ "anet": [] })),
        ("vm", json!({ "kernel": { "path": 7 } })),
        ("zos", json!({ "namespaces": "none" })),
        ("freebsd", json!([])),
    ]) {
        config[key] = value;
    }
}

fn version(config: &mut Value, dice: &Dice, _: &World) {
    config["ociVersion"] = json!(dice.pick_or(
        &["1.0.0", "1.1.0", "1.2.1", "1.3.0", "1.0.0-rc5", "1.2.0+dev", "1.9.0"],
        &["2.0.0", "0.9.0", "1.0", "v1.0.0", "", "1.00.0"]
    ));
}

fn listener(config: &mut Value, dice: &Dice, _: &World) {
    let call = json!([{ "names": ["swapon"], "action": "SCMP_ACT_NOTIFY" }]);
    config["linux"]["seccomp"] =
        json!({ "defaultAction": dice.pick(&["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY"]), "syscalls": call });
    for (key, value) in dice.some(&[
        ("listenerPath", json!(dice.pick(&["/nonexistent/agent", "/etc/passwd", "relative"]))),
        ("listenerMetadata", json!("for the agent")),
        ("defaultErrnoRet", json!(5)),
        ("flags", json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"])),
    ]) {
        config["linux"]["seccomp"][key] = value;
    }
}

fn mapped_tmpfs(config: &mut Value, dice: &Dice, _: &World) {
    let kind = dice.pick(&["tmpfs", "mqueue", "proc", "devpts"]);
    config::mount(config, kind, kind, "/data", &["nosuid"]);
    let last = config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    last["uidMappings"] = json!([config::id_map(0, 1000, 10)]);
    if !dice.once_in(4) {
        last["gidMappings"] = json!([config::id_map(0, 1000, 10), config::id_map(dice.pick(&[10, 5]), 3000, 10)]);
    }
}

/// Everything that may be absent is.
fn minimal(config: &mut Value, dice: &Dice, world: &World) {
    if !dice.once_in(4) || (world.uid != 0 && !dice.bold) {
        return;
    }
    let keep = ["ociVersion", "root", "process"];
    config.as_object_mut().unwrap().retain(|key, _| keep.contains(&key.as_str()));
    config["process"].as_object_mut().unwrap().retain(|key, _| ["args", "cwd"].contains(&key.as_str()));
    config["process"]["user"] = json!({ "uid": 0, "gid": 0 });
    config["process"]["args"][0] = json!("/bin/sleep");
    config["linux"] = json!({ "namespaces": [{ "type": "mount" }, { "type": "pid" }], "resources": {} });
}

fn no_process(config: &mut Value, dice: &Dice, _: &World) {
    if dice.once_in(8) {
        config.as_object_mut().unwrap().remove("process");
    }
}
