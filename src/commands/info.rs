//! `rt info`: what a report about a problem should begin with.

use clap::Args as ClapArgs;

use crate::error::Error;
use crate::host::Host;
use crate::process::capabilities;
use crate::spec;

use super::{Globals, VERSION, print};

/// Print what is known about this program, the machine and the caller
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// If nobody reads it, or the machine cannot be looked at.
pub fn run(_args: &Args, globals: &Globals) -> Result<i32, Error> {
    let host = Host::probe(&spec::Spec::default(), "info", false, None).map_err(|failure| Error::from(failure).during("info"))?;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let yes = |value: bool| if value { "yes" } else { "no" };
    let total = read("/proc/meminfo").lines().next().unwrap_or_default().trim_start_matches("MemTotal:").trim().to_owned();
    let v1: Vec<String> = host.cgroups.v1.iter().map(|hierarchy| hierarchy.controllers.join(",")).collect();
    let v2 = host.cgroups.v2.as_ref().map(|unified| unified.mount.display().to_string());
    let effective: Vec<&str> =
        capabilities::NAMES.iter().enumerate().filter(|(bit, _)| host.effective >> bit & 1 == 1).map(|(_, name)| *name).collect();
    let lines = [
        ("version", VERSION.replace('\n', ", ")),
        ("kernel", format!("{} {}", read("/proc/sys/kernel/osrelease"), std::env::consts::ARCH)),
        ("processors", std::thread::available_parallelism().map_or(0, std::num::NonZero::get).to_string()),
        ("memory", total),
        ("caller", format!("uid {}, gid {}", host.uid, host.gid)),
        ("initial user namespace", yes(host.initial_user_namespace).to_owned()),
        ("capabilities", if effective.len() == capabilities::NAMES.len() { "all".to_owned() } else { effective.join(" ") }),
        ("cgroup v2", v2.unwrap_or_else(|| "no".to_owned())),
        ("cgroup v1", if v1.is_empty() { "no".to_owned() } else { v1.join("; ") }),
        ("security modules", read("/sys/kernel/security/lsm")),
        ("user namespaces", read("/proc/sys/user/max_user_namespaces")),
        ("state root", globals.root.display().to_string()),
    ];
    let text: String = lines.iter().map(|(name, value)| format!("{name:24}{value}\n")).collect();
    print(&text)?;
    Ok(0)
}
