//! `rt spec`: a config.json to start from.

use std::io::Write;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::error::Error;
use crate::spec;
use crate::sys::{CallError, cred};

/// Write a config.json to start from
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// The directory to write it to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// The file to write, which is overwritten, in place of config.json in the bundle
    #[arg(short, long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// For a caller without privileges: a user namespace with one id, and what such a one may mount
    #[arg(long)]
    rootless: bool,
}

/// Runs the command.
///
/// # Errors
/// If there is a config.json already.
pub fn run(args: &Args) -> Result<i32, Error> {
    let path = args.file.clone().unwrap_or_else(|| args.bundle.join("config.json"));
    let mut config = default_config();
    if args.rootless {
        make_rootless(&mut config);
    }
    let failed = |error: &std::io::Error| {
        let call = CallError::from_io("open", format!("{path:?}"), error);
        if call.is(libc::EEXIST) {
            Error::new("exists", format!("spec: {} exists already; it is not overwritten", path.display()))
        } else {
            Error::from(call).during("spec")
        }
    };
    let made = if args.file.is_some() { std::fs::File::create(&path) } else { std::fs::File::create_new(&path) };
    let mut file = made.map_err(|error| failed(&error))?;
    file.write_all(format!("{config:#}\n").as_bytes()).map_err(|error| failed(&error))?;
    Ok(0)
}

/// A shell with few capabilities in all namespaces but user and time.
fn default_config() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    json!({
        "ociVersion": spec::VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "rt",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// The same for a caller without privileges: ids that only the own one stands behind, the host's network, no resources.
fn make_rootless(config: &mut Value) {
    let map = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1}]);
    let linux = &mut config["linux"];
    linux["uidMappings"] = map(cred::geteuid());
    linux["gidMappings"] = map(cred::getegid());
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            *mount = json!({"destination": "/sys", "type": "none", "source": "/sys",
                            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
        } else if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            // The group tty is not mapped.
            options.retain(|option| !option.as_str().is_some_and(|text| text.starts_with("gid=") || text.starts_with("uid=")));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::host::Host;
    use crate::plan::Findings;
    use crate::plan::build::create;
    use crate::plan::request::Request;

    fn findings(config: Value, host: &Host) -> Findings {
        let spec: spec::Spec = serde_json::from_value(config).unwrap();
        let request = Request {
            console_socket: Some("/socket".into()),
            detached: true,
            ..Request::plain("x".parse().unwrap(), "/b".into())
        };
        let mut findings = Findings::default();
        let plan = create(&spec, &request, host, &mut findings);
        findings.warnings = plan.warnings;
        findings
    }

    #[test]
    fn both_configs_can_be_planned() {
        assert_eq!(findings(default_config(), &Host::fixture()), Findings::default());
        let mut rootless = default_config();
        make_rootless(&mut rootless);
        // The schema knows no null.
        assert!(!rootless.to_string().contains("null"), "{rootless:#}");
        rootless["linux"]["uidMappings"][0]["hostID"] = json!(1000);
        rootless["linux"]["gidMappings"][0]["hostID"] = json!(1000);
        assert_eq!(findings(rootless, &Host::fixture_rootless()).problems, []);
    }
}
