//! The default config.json of the suite, shaped like an engine's, and small edits on it.

use serde_json::{Value, json};

/// The capabilities that engines give by default.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
    "CAP_AUDIT_WRITE",
];

/// A container of busybox with all usual mounts; `uid` and `gid` are the caller's, and not 0 for a rootless one.
pub fn default(uid: u32, gid: u32) -> Value {
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["sleep", "1000"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs" },
        "hostname": "inside",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "linux": {
            "namespaces": [{ "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }],
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"]
        }
    });
    if uid != 0 {
        in_user_namespace(&mut config, json!([id_map(0, uid, 1)]), json!([id_map(0, gid, 1)]));
    }
    config
}

/// One entry of `linux.uidMappings` or `linux.gidMappings`.
pub fn id_map(inside: u32, outside: u32, size: u32) -> Value {
    json!({ "containerID": inside, "hostID": outside, "size": size })
}

/// Puts the container into a new user namespace with these maps.
pub fn in_user_namespace(config: &mut Value, uids: Value, gids: Value) {
    namespace(config, "user", None);
    config["linux"]["uidMappings"] = uids;
    config["linux"]["gidMappings"] = gids;
}

/// Makes `process.args` run a shell script.
pub fn shell(config: &mut Value, script: &str) {
    config["process"]["args"] = json!(["sh", "-c", script]);
}

/// Asks for a namespace of this type, new (`None`) or joined by path, in place of what was asked before.
pub fn namespace(config: &mut Value, kind: &str, path: Option<&str>) {
    without_namespace(config, kind);
    let entry = path.map_or_else(|| json!({ "type": kind }), |path| json!({ "type": kind, "path": path }));
    list(config, "/linux/namespaces").push(entry);
}

/// Leaves this namespace to be the caller's.
pub fn without_namespace(config: &mut Value, kind: &str) {
    list(config, "/linux/namespaces").retain(|entry| entry["type"] != kind);
}

/// Adds a mount after all others.
pub fn mount(config: &mut Value, kind: &str, source: &str, destination: &str, options: &[&str]) {
    let entry = json!({ "destination": destination, "type": kind, "source": source, "options": options });
    list(config, "/mounts").push(entry);
}

/// Removes the mount on this destination and all below it.
pub fn without_mount(config: &mut Value, destination: &str) {
    let below = format!("{destination}/");
    list(config, "/mounts").retain(|entry| {
        let at = entry["destination"].as_str().unwrap();
        at != destination && !at.starts_with(&below)
    });
}

/// Gives all five capability sets.
pub fn capabilities(config: &mut Value, names: &[&str]) {
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        config["process"]["capabilities"][set] = json!(names);
    }
}

fn list<'a>(config: &'a mut Value, pointer: &str) -> &'a mut Vec<Value> {
    config.pointer_mut(pointer).and_then(Value::as_array_mut).unwrap()
}
