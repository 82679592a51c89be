//! Network devices that move into the container's network namespace (config-linux.md, "Network Devices").
//!
//! The kernel keeps what belongs to a device (its MTU, its hardware address) and drops what belongs to its use: the permanent
//! global addresses are added again, the device is set up again, and the routes through it that somebody has made are made again;
//! the kernel makes those that follow from the addresses. A route to whose gateway no way is left, because an address was not
//! permanent, one that other devices are a part of, or that has an end, is a warning. Rules that name the device are no part of it:
//! they stay. A device is not moved back: what becomes of it is the business of the namespace's end.

use std::os::fd::OwnedFd;

use crate::error::{Doing, Failure};
use crate::host::Host;
use crate::plan::Findings;
use crate::procfs::ProcFs;
use crate::spec::{Field, Linux};
use crate::sys::netlink::{Route, RouteSocket};
use crate::sys::ns;

use super::{Kind, Namespaces};

/// CAP_NET_ADMIN of capabilities(7).
const NET_ADMIN: u32 = 12;
/// IFNAMSIZ of linux/if.h, without the NUL.
const MAX_NAME: usize = 15;

/// A device to be moved.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NetDevice {
    /// Its name here.
    pub name: String,
    /// Its name there, or a template with `%d`.
    pub inside: String,
}

impl NetDevice {
    fn is_template(&self) -> bool {
        self.inside.contains('%')
    }
}

/// Reads `linux.netDevices`.
pub fn plan(linux: &Linux, namespaces: &Namespaces, host: &Host, findings: &mut Findings) -> Vec<NetDevice> {
    let list = Field::new("linux.netDevices");
    if linux.net_devices.is_empty() {
        return Vec::new();
    }
    if !namespaces.has(Kind::Network) {
        findings.problem(list.clone(), "devices without a network namespace; expected one in linux.namespaces");
    }
    if !host.can(NET_ADMIN) {
        findings.problem(list.clone(), "moving a network device needs CAP_NET_ADMIN, which this caller does not have");
    }
    let mut devices: Vec<NetDevice> = Vec::new();
    for (name, config) in &linux.net_devices {
        let field = list.entry(name);
        check_name(name, false, &field, findings);
        let new_name = config.name.clone().filter(|inside| !inside.is_empty());
        let inside = new_name.clone().unwrap_or_else(|| name.clone());
        if new_name.is_some() {
            check_name(&inside, true, &field.key("name"), findings);
        }
        let device = NetDevice { name: name.clone(), inside };
        if !device.is_template() && devices.iter().any(|other| other.inside == device.inside) {
            findings.problem(field, format!("a second device that is to be {:?} inside; expected each name once", device.inside));
        }
        devices.push(device);
    }
    devices
}

/// What the kernel takes as a name (dev_valid_name()); a template has one `%d`.
fn check_name(name: &str, template: bool, field: &Field, findings: &mut Findings) {
    let bad_character = |c: char| c == '/' || c == ':' || c.is_ascii_whitespace() || c == '\0';
    let percents = name.matches('%').count();
    let good_template = percents == 0 || (template && percents == 1 && name.contains("%d"));
    if name.is_empty() || name.len() > MAX_NAME || matches!(name, "." | "..") || name.contains(bad_character) || !good_template {
        let what = if template { ", or one with a single %d" } else { "" };
        findings.problem(
            field.clone(),
            format!("{name:?}: expected the name of a network device, at most {MAX_NAME} bytes without blanks, / and :{what}"),
        );
    }
}

/// Looks whether there is a device to be moved.
///
/// # Errors
/// The kernel's, or that there is none.
pub fn examine(device: &NetDevice) -> Result<(), Failure> {
    find(&RouteSocket::open()?, device).map(drop)
}

fn find(here: &RouteSocket, device: &NetDevice) -> Result<i32, Failure> {
    let index = here.device(&device.name)?;
    index.ok_or_else(|| Failure::because(format!("there is no network device {:?} on this host", device.name)))
}

/// Moves a device into the network namespace of a process. Returns what of its use could not be kept, as warnings.
///
/// # Errors
/// The kernel's, or that there is no such device here or one of that name there.
pub fn move_into(device: &NetDevice, pid: i32, procfs: &ProcFs) -> Result<Vec<String>, Failure> {
    let namespace = procfs.open_namespace(&format!("{pid}/ns/net")).doing(|| "open the container's network namespace")?;
    let here = RouteSocket::open()?;
    let there = socket_inside(&namespace, procfs)?;
    let index = find(&here, device)?;
    if !device.is_template() && there.device(&device.inside)?.is_some() {
        return Err(Failure::because(format!("there is a network device {:?} in the container already", device.inside)));
    }
    let addresses = here.addresses(index)?;
    let routes = here.routes(index)?;
    let before = there.devices()?;
    here.move_device(index, &namespace, &device.inside)?;
    // Neither its number nor, from a template, its name need be what they were.
    let moved = there.devices()?.into_iter().find(|index| !before.contains(index));
    let moved = moved.ok_or_else(|| Failure::because(format!("network device {:?} got lost on its way", device.name)))?;
    for address in &addresses {
        there.add_address(moved, address).doing(|| format!("keep an address of network device {}", device.name))?;
    }
    there.set_up(moved).doing(|| format!("set network device {} up", device.inside))?;
    let lost = routes.iter().filter_map(|route| Some((route, keep(&there, moved, route).err()?)));
    let text = |(route, why)| format!("a route of network device {}, {route}, is not kept: {why}", device.name);
    Ok(lost.map(text).collect())
}

/// Makes a route again, or says why not.
fn keep(there: &RouteSocket, device: i32, route: &Route) -> Result<(), String> {
    route.lost().map_or(Ok(()), |why| Err(why.to_owned()))?;
    there.add_route(device, route).map_err(|error| error.to_string())
}

/// A socket belongs to the namespace that its maker was in; this process enters it for that moment.
fn socket_inside(namespace: &OwnedFd, procfs: &ProcFs) -> Result<RouteSocket, Failure> {
    let home = procfs.open_namespace("self/ns/net").doing(|| "open the own network namespace")?;
    ns::setns(namespace, libc::CLONE_NEWNET).doing(|| "join the container's network namespace")?;
    let socket = RouteSocket::open();
    ns::setns(&home, libc::CLONE_NEWNET).doing(|| "return to the own network namespace")?;
    Ok(socket?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(devices: serde_json::Value, namespace: bool, host: &Host) -> Vec<String> {
        let list = if namespace { json!([{ "type": "network" }]) } else { json!([]) };
        let linux: Linux = serde_json::from_value(json!({ "namespaces": list, "netDevices": devices })).unwrap();
        let mut findings = Findings::default();
        let namespaces = crate::namespaces::plan::namespaces(&linux, &mut findings);
        let _ = plan(&linux, &namespaces, host, &mut findings);
        findings.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_checked() {
        let host = Host::fixture();
        let none: [String; 0] = [];
        assert_eq!(problems(json!({ "eth0": {}, "eth1": { "name": "net%d" }, "eth2": { "name": "net%d" } }), true, &host), none);
        for bad in ["a b", "a/b", "a:b", "sixteen-bytes-xx", ".."] {
            assert_eq!(problems(json!({ bad: {} }), true, &host).len(), 1, "{bad}");
            assert_eq!(problems(json!({ "eth0": { "name": bad } }), true, &host).len(), 1, "{bad}");
        }
        assert_eq!(problems(json!({ "eth%d": {} }), true, &host).len(), 1);
        assert_eq!(problems(json!({ "eth0": { "name": "%s" } }), true, &host).len(), 1);
        assert_eq!(problems(json!({ "eth0": { "name": "%d%d" } }), true, &host).len(), 1);
    }

    #[test]
    fn two_devices_do_not_get_one_name() {
        let found = problems(json!({ "eth0": { "name": "x" }, "eth1": { "name": "x" } }), true, &Host::fixture());
        let text = "a second device that is to be \"x\" inside; expected each name once";
        assert_eq!(found, [format!("linux.netDevices[\"eth1\"]: {text}")]);
    }

    #[test]
    fn a_namespace_and_the_right_are_needed() {
        assert!(problems(json!({ "eth0": {} }), false, &Host::fixture())[0].contains("without a network namespace"));
        assert!(problems(json!({ "eth0": {} }), true, &Host::fixture_rootless())[0].contains("CAP_NET_ADMIN"));
    }
}
