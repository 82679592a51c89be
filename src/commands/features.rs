//! `rt features`: what this runtime can do, from the tables that do it (features.md).

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::error::Error;
use crate::hooks::Moment;
use crate::namespaces::Kind;
use crate::process::{capabilities, numa};
use crate::rootfs::options;
use crate::seccomp::plan as seccomp;
use crate::spec;

use super::print_json;

/// Print what this runtime supports, as JSON
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// Add what this host can do now, under "host"
    #[arg(long)]
    host: bool,
}

/// Runs the command.
///
/// # Errors
/// If nobody reads it.
pub fn run(args: &Args) -> Result<i32, Error> {
    let mut document = document();
    if args.host {
        document["host"] = crate::host::probe::now();
    }
    print_json(&document)?;
    Ok(0)
}

fn document() -> Value {
    let mount_options: Vec<&str> = options::TABLE.iter().map(|(name, _)| *name).collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": spec::VERSION,
        "hooks": Moment::ALL.map(Moment::name),
        "mountOptions": mount_options,
        "linux": {
            "namespaces": Kind::all().map(Kind::spec_name).collect::<Vec<_>>(),
            "capabilities": capabilities::NAMES.as_slice(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": seccomp::action_names().collect::<Vec<_>>(),
                "operators": seccomp::operator_names().collect::<Vec<_>>(),
                "archs": seccomp::arch_names().collect::<Vec<_>>(),
                "knownFlags": seccomp::flag_names().map(|(name, _)| name).collect::<Vec<_>>(),
                "supportedFlags": seccomp::flag_names().map(|(name, _)| name).collect::<Vec<_>>()
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "memoryPolicy": {
                "modes": numa::mode_names().collect::<Vec<_>>(),
                "flags": numa::flag_names().collect::<Vec<_>>()
            },
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true}
        },
        "annotations": {
            "io.github.rt.version": env!("CARGO_PKG_VERSION"),
            "io.github.rt.commit": env!("RT_COMMIT"),
            "io.github.rt.checkpoint.enabled": "true",
            // Who looks for the feature looks for this name (crun has it, too).
            "org.opencontainers.runc.checkpoint.enabled": "true"
        },
        "potentiallyUnsafeConfigAnnotations":
            crate::plan::annotations::honoured().collect::<Vec<_>>()
    })
}
