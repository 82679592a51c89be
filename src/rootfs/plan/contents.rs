//! What is in the root beside mounts: devices, links, masked and read-only paths, names and kernel parameters.

use super::{Input, Steps};
use crate::namespaces::Kind;
use crate::plan::{Findings, Origin, Planned};
use crate::process::capabilities::MKNOD;
use crate::rootfs::InRoot;
use crate::rootfs::options::{self, Effect};
use crate::rootfs::steps::{DeviceStep, RootfsStep};
use crate::rootfs::sysctl;
use crate::spec::{Device, Field, Linux, Mount, Spec};

/// False if the config brings a /dev of its own: then it is complete, and the host's devices are not touched.
pub(super) fn provides_dev(spec: &Spec) -> bool {
    let binds_dev = |mount: &Mount| {
        let bind = mount.options.iter().any(|option| matches!(options::effect(option), Some(Effect::Bind(_))));
        (bind || mount.r#type.as_deref() == Some("bind")) && InRoot::new(&mount.destination) == InRoot::new("/dev")
    };
    !spec.mounts.iter().any(binds_dev)
}

/// The devices that every container has (config-linux.md, "Default Devices").
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links that programs expect below /dev.
const DEFAULT_LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

pub(super) fn devices(input: &Input<'_>, steps: &mut Steps, findings: &mut Findings) {
    let origin = || Origin::Default("default devices");
    let bind = input.namespaces.has(Kind::User) || !input.host.initial_user_namespace || !input.host.can(MKNOD);
    let list = Field::new("linux.devices");
    let mut configured = Vec::new();
    for (index, device) in input.linux.devices.iter().enumerate() {
        let field = list.index(index);
        if let Some(step) = device_step(device, bind, &field, findings) {
            configured.push(Planned::new(step, field));
        }
    }
    for (path, major, minor) in DEFAULT_DEVICES {
        let path = InRoot::new(path);
        if !configured.iter().any(|planned| planned.step.path == path) {
            let step =
                DeviceStep { path, kind: libc::S_IFCHR, major, minor, mode: 0o666, uid: 0, gid: 0, bind, mode_asked: false };
            steps.push(Planned::new(RootfsStep::Device(step), origin()));
        }
    }
    steps.extend(configured.into_iter().map(|planned| Planned::new(RootfsStep::Device(planned.step), planned.origin)));
    for (path, target) in DEFAULT_LINKS {
        let step = RootfsStep::Link { path: InRoot::new(path), target: target.into(), replace: false };
        steps.push(Planned::new(step, origin()));
    }
    let ptmx = RootfsStep::Link { path: InRoot::new("/dev/ptmx"), target: "pts/ptmx".into(), replace: true };
    steps.push(Planned::new(ptmx, origin()));
}

fn device_step(device: &Device, bind: bool, field: &Field, findings: &mut Findings) -> Option<DeviceStep> {
    let kind = match device.r#type.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        other => {
            findings.problem(field.key("type"), format!("unknown device type {other:?}; expected c, b, u or p"));
            return None;
        }
    };
    let mut number = |name: &str, value: Option<i64>| match value {
        _ if kind == libc::S_IFIFO => Some(0),
        Some(value) => u32::try_from(value).ok().or_else(|| {
            findings.problem(field.key(name), format!("{value}: expected a device number"));
            None
        }),
        None => {
            findings.problem(field.key(name), "missing; required unless type is p");
            None
        }
    };
    let (major, minor) = (number("major", device.major)?, number("minor", device.minor)?);
    if device.path.is_empty() {
        findings.problem(field.key("path"), "empty; expected the full path of the device");
        return None;
    }
    if !device.path.starts_with('/') {
        findings.warning(field.key("path"), format!("relative path {:?}; taken as below /", device.path));
    }
    Some(DeviceStep {
        path: InRoot::new(&device.path),
        kind,
        major,
        minor,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
        bind,
        mode_asked: device.file_mode.is_some(),
    })
}

pub(super) fn paths(linux: &Linux, steps: &mut Steps, findings: &mut Findings) {
    let mut add = |name: &str, list: &[String], step: fn(InRoot) -> RootfsStep| {
        for (index, path) in list.iter().enumerate() {
            let field = Field::new(name).index(index);
            if path.starts_with('/') {
                steps.push(Planned::new(step(InRoot::new(path)), field));
            } else {
                findings.problem(field, format!("relative path {path:?}; expected an absolute path"));
            }
        }
    };
    add("linux.readonlyPaths", &linux.readonly_paths, RootfsStep::ReadonlyPath);
    add("linux.maskedPaths", &linux.masked_paths, RootfsStep::MaskedPath);
}

pub(super) fn names(input: &Input<'_>, steps: &mut Steps, findings: &mut Findings) {
    let mut add = |field: &str, name: &Option<String>, step: fn(String) -> RootfsStep| {
        let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else { return };
        if !input.namespaces.has(Kind::Uts) {
            findings.problem(Field::new(field), "set without a uts namespace; expected one in linux.namespaces");
        } else if name.len() > 64 {
            findings.problem(Field::new(field), format!("{} bytes long; expected at most 64", name.len()));
        } else if is_out_of_reach(input, Kind::Uts) {
            findings.problem(Field::new(field), out_of_reach(Kind::Uts));
        }
        steps.push(Planned::new(step(name.clone()), Field::new(field)));
    };
    add("hostname", &input.spec.hostname, RootfsStep::Hostname);
    add("domainname", &input.spec.domainname, RootfsStep::Domainname);
}

/// A namespace that was there before belongs to another user namespace than the container's new one.
fn is_out_of_reach(input: &Input<'_>, kind: Kind) -> bool {
    input.namespaces.is_new(Kind::User) && input.namespaces.is_joined(kind)
}

fn out_of_reach(kind: Kind) -> String {
    format!("set in a joined {kind} namespace, over which a new user namespace has no rights; expected a new {kind} namespace")
}

pub(super) fn sysctls(input: &Input<'_>, steps: &mut Steps, findings: &mut Findings) {
    for (name, value) in &input.linux.sysctl {
        let field = Field::new("linux.sysctl").entry(name);
        let Some(path) = sysctl::path(name) else {
            findings.problem(field, "not a kernel parameter; expected a name such as net.ipv4.ip_forward");
            continue;
        };
        match sysctl::namespace(&path) {
            None => findings.problem(field, "not a parameter of a namespace; changing it would change the whole host"),
            Some(kind) if !input.namespaces.has(kind) => {
                findings.problem(field, format!("set without a {kind} namespace of its own; expected one in linux.namespaces"));
            }
            Some(kind) if is_out_of_reach(input, kind) => findings.problem(field, out_of_reach(kind)),
            Some(_) => steps.push(Planned::new(RootfsStep::Sysctl { path, value: value.clone() }, field)),
        }
    }
}
