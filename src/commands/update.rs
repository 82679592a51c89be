//! `rt update`: other limits and other device rules for a container that exists.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::cgroups::devices::Change as DeviceChange;
use crate::cgroups::systemd::{self, Manager};
use crate::cgroups::{self, CgroupPlan};
use crate::error::{Error, Failure, Problem};
use crate::host::Host;
use crate::plan::Findings;
use crate::resctrl;
use crate::spec::{self, BlockIo, Cpu, Field, IntelRdt, Memory, Pids, Resources};
use crate::state::{Container, Directory, Record, Status};

use super::{Globals, parse_id};

/// Change the limits of a container
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Args {
    /// Limits as JSON in the form of linux.resources: a file, or - for standard input. Device rules replace those in force, but a list that
    /// only denies everything is not applied
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Block I/O weight
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// CPU period in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// CPU time per period in microseconds; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long)]
    cpu_burst: Option<u64>,
    /// CPU shares
    #[arg(long)]
    cpu_share: Option<u64>,
    /// Real-time period in microseconds
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// Real-time CPU time per period in microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// 1 for the scheduling policy of idle processes
    #[arg(long)]
    cpu_idle: Option<i64>,
    /// CPUs to use
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Memory limit: bytes, or a number with k, m or g; -1 for none
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    memory: Option<i64>,
    /// Memory reservation
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    memory_reservation: Option<i64>,
    /// Memory and swap together
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    memory_swap: Option<i64>,
    /// Number of processes; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Kernel memory limit (cgroup v1; obsolete: the kernel has counted this memory with the rest since Linux 5.16)
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    kernel_memory: Option<i64>,
    /// Limit on memory for TCP buffers (cgroup v1)
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    kernel_memory_tcp: Option<i64>,
    /// Share of the L3 cache: a line of resctrl, such as L3:0=f
    #[arg(long, value_name = "LINE")]
    l3_cache_schema: Option<String>,
    /// Share of the memory bandwidth: a line of resctrl, such as MB:0=50
    #[arg(long, value_name = "LINE")]
    mem_bw_schema: Option<String>,
    /// The container's id
    id: String,
}

/// A number of bytes with an optional binary unit: `64m`, `1GiB`, `-1`.
fn size(text: &str) -> Result<i64, String> {
    let expected = || format!("{text:?}: expected bytes, or a number with k, m, g or t, or -1");
    let lower = text.to_ascii_lowercase();
    let trimmed = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let shift = match trimmed.bytes().last() {
        Some(b'k') => 10,
        Some(b'm') => 20,
        Some(b'g') => 30,
        Some(b't') => 40,
        _ => 0,
    };
    let digits = if shift == 0 { trimmed } else { &trimmed[..trimmed.len() - 1] };
    let number: i64 = digits.trim().parse().map_err(|_| expected())?;
    if number < -1 {
        return Err(expected());
    }
    number.checked_mul(1 << shift).ok_or_else(expected)
}

/// Runs the command.
///
/// # Errors
/// If a value cannot be set; then nothing has changed.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("update {}", args.id));
    let mut container = Container::load_locked(&globals.store()?, &parse_id(&args.id).map_err(during)?).map_err(during)?;
    if matches!(container.status, Status::Stopped | Status::Creating) {
        return Err(container.wrong_status("update", "container not running"));
    }
    let resources = args.resources().map_err(during)?;
    let mut findings = Findings::default();
    let wanted = args.plan(&resources, &container.record, &mut findings).map_err(during)?;
    globals.judge(&findings.problems, &findings.warnings, "resources").map_err(during)?;
    let told = wanted.carry_out(&mut container, resources).map_err(|failure| during(failure.into()))?;
    globals.warn(findings.warnings.iter().chain(&told));
    Ok(0)
}

/// All that a call changes.
struct Wanted {
    limits: CgroupPlan,
    devices: Option<DeviceChange>,
    classes: Option<resctrl::change::Change>,
}

impl Wanted {
    fn carry_out(&self, container: &mut Container, resources: Resources) -> Result<Vec<Problem>, Failure> {
        let cgroup = container.cgroup()?;
        let mut told = Vec::new();
        let warnings = cgroup.update(&self.limits, self.devices.as_ref(), || {
            if let Some(unit) = &container.record.cgroup.unit {
                Manager::connect(unit.which)?.set_properties(&unit.name, &systemd::properties(&self.limits))?;
                // systemd has written its own idea of the values, which it rounds.
                told = cgroup.apply(&self.limits)?;
            }
            let before = container.record.clone();
            self.remember(&mut container.record, &container.directory, resources)?;
            let Some(classes) = &self.classes else { return Ok(()) };
            let applied = classes.apply(|| cgroup.processes());
            applied.inspect_err(|_| drop(container.directory.write_record(&before)))
        })?;
        Ok(if container.record.cgroup.unit.is_some() { told } else { warnings })
    }

    /// What the record says of device rules and groups is written before a group is made.
    fn remember(&self, record: &mut Record, directory: &Directory, resources: Resources) -> Result<(), Failure> {
        let group = self.classes.as_ref().and_then(|classes| classes.record());
        if self.devices.is_none() && group.is_none() {
            return Ok(());
        }
        if self.devices.is_some() {
            record.device_rules = resources.devices;
        }
        if let Some(group) = group {
            record.resctrl = Some(group.clone());
        }
        directory.write_record(record)
    }
}

impl Args {
    /// What the file says, and what the flags change in it.
    fn resources(&self) -> Result<Resources, Error> {
        let mut resources = match self.resources.as_deref() {
            Some(path) => {
                let (bytes, name) = spec::load::read_named(path)?;
                spec::load::parse(&bytes, &name)?
            }
            None => Resources::default(),
        };
        self.change(&mut resources);
        Ok(resources)
    }

    fn plan(&self, resources: &Resources, record: &Record, findings: &mut Findings) -> Result<Wanted, Error> {
        let host = Host::probe_caller()?;
        // A limit that cannot be set is what this command was about: an error for everybody.
        let limits = cgroups::plan_update(resources, &record.cgroup, true, findings);
        let devices = if host.cgroups_required {
            cgroups::plan_change(&resources.devices, &record.device_rules, &record.devices, &record.cgroup, findings)
        } else {
            let differ = !resources.devices.is_empty() && resources.devices != record.device_rules;
            if differ {
                let text = "not applied: only root of the initial user namespace can filter devices";
                findings.warning(Field::from("linux.resources.devices"), text);
            }
            None
        };
        let classes = self.classes();
        let host = if classes == IntelRdt::default() { host } else { host.with_resctrl() };
        let classes = resctrl::change::Change::plan(&classes, record.resctrl.as_ref(), &record.id, &host, findings);
        Ok(Wanted { limits, devices, classes })
    }

    fn classes(&self) -> IntelRdt {
        let given = |schema: &Option<String>| schema.clone().filter(|schema| !schema.is_empty());
        IntelRdt {
            l3_cache_schema: given(&self.l3_cache_schema),
            mem_bw_schema: given(&self.mem_bw_schema),
            ..IntelRdt::default()
        }
    }

    fn change(&self, resources: &mut Resources) {
        let cpu = resources.cpu.get_or_insert_with(Cpu::default);
        set(&mut cpu.shares, self.cpu_share);
        set(&mut cpu.period, self.cpu_period);
        set(&mut cpu.quota, self.cpu_quota);
        set(&mut cpu.burst, self.cpu_burst);
        set(&mut cpu.realtime_period, self.cpu_rt_period);
        set(&mut cpu.realtime_runtime, self.cpu_rt_runtime);
        set(&mut cpu.idle, self.cpu_idle);
        set(&mut cpu.cpus, self.cpuset_cpus.clone());
        set(&mut cpu.mems, self.cpuset_mems.clone());
        let memory = resources.memory.get_or_insert_with(Memory::default);
        set(&mut memory.limit, self.memory);
        set(&mut memory.reservation, self.memory_reservation);
        set(&mut memory.swap, self.memory_swap);
        set(&mut memory.kernel, self.kernel_memory);
        set(&mut memory.kernel_tcp, self.kernel_memory_tcp);
        set(&mut resources.pids.get_or_insert_with(Pids::default).limit, self.pids_limit);
        set(&mut resources.block_io.get_or_insert_with(BlockIo::default).weight, self.blkio_weight);
    }
}

fn set<T>(field: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *field = value;
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("-1", -1), ("0", 0), ("512", 512), ("64m", 64 << 20), ("1G", 1 << 30), ("2KiB", 2048), ("3kb", 3072)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "-2", "1x", "99999999999t", "1.5g"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
