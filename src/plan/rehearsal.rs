//! A plan turned into its rehearsal: the same steps, less what would be left of them.
//!
//! A rehearsal is carried out by the same executors in throw-away processes and namespaces, so that what the kernel would refuse is refused
//! now, in the same words. Steps with an effect outside of these processes are replaced by a look; every step keeps its number and its
//! name. What is left out for it is told, because nobody has tried it then.

use serde::Serialize;

use crate::cgroups::Facts;
use crate::cgroups::steps::Write;
use crate::error::Problem;
use crate::launch::protocol::ToInit;
use crate::namespaces::{Kind, NamespaceStep};
use crate::process::ProcessStep;
use crate::rootfs::options::PropagationChange;
use crate::rootfs::steps::{MountKind, MountStep, OpenedBy};
use crate::rootfs::{InRoot, RootfsStep};
use crate::spec::Field;
use crate::sys::mount::attr;

use super::{BridgeStep, InitStep, LauncherStep, Origin, Plan, Planned};

/// What a rehearsal does in place of a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Instead<S> {
    /// Nothing.
    Nothing,
    /// Something like it, without its effect.
    Step(Box<S>),
    /// A look at whether it could be done.
    Examine,
    /// The rehearsal is over.
    End,
}

/// A plan that leaves nothing behind.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// What is carried out.
    pub plan: Plan,
    /// What is not tried, and why.
    pub untried: Vec<Problem>,
    /// Where mounts of the host's are read-only that would not be in the container: what cannot be written there means nothing.
    pub altered: Vec<InRoot>,
}

impl Rehearsal {
    /// True if a step of init works below what the rehearsal has made read-only.
    pub fn is_altered(&self, step: usize) -> bool {
        let planned = step.checked_sub(1).and_then(|index| self.plan.init.get(index));
        let place = planned.and_then(|planned| target(&planned.step));
        place.is_some_and(|place| self.altered.iter().any(|altered| place.as_path().starts_with(altered.as_path())))
    }
}

/// What a step makes if it is missing.
fn target(step: &InitStep) -> Option<InRoot> {
    match step {
        InitStep::Rootfs(RootfsStep::Mount(mount)) => Some(mount.destination.clone()),
        InitStep::Rootfs(RootfsStep::Device(device)) => Some(device.path.clone()),
        InitStep::Rootfs(RootfsStep::Link { path, .. }) => Some(path.clone()),
        InitStep::Process(ProcessStep::Cwd { path, .. }) => Some(InRoot::new(path)),
        InitStep::Rehearsed { planned, .. } => target(planned),
        _ => None,
    }
}

/// Filesystems that are made from nothing, and make nothing else.
const HARMLESS: [&str; 9] = ["bpf", "cgroup", "cgroup2", "devpts", "hugetlbfs", "mqueue", "proc", "sysfs", "tmpfs"];

/// Those of which every mount is a filesystem of its own, so that options cannot change one that is in use.
const OWN_SUPERBLOCK: [&str; 5] = ["bpf", "devpts", "hugetlbfs", "proc", "tmpfs"];

/// Makes a rehearsal of a plan, if there can be one: in a mount namespace that is joined init would work on the mounts of others.
///
/// # Errors
/// Why there can be none.
pub fn rehearsal(plan: &Plan, facts: &Facts) -> Result<Rehearsal, Problem> {
    let own_mounts = plan.init.iter().any(|planned| matches!(planned.step, InitStep::Rootfs(RootfsStep::Propagation(_))));
    let joins =
        |planned: &Planned<InitStep>| matches!(planned.step, InitStep::Namespace(NamespaceStep::Join { kind: Kind::Mount, .. }));
    if plan.init.iter().any(joins) {
        let text = "a joined mount namespace: mounts, devices and the program were not tried, because that would change the mounts of others";
        return Err(Problem::new(Field::new("linux.namespaces"), text));
    }
    let notifies = plan.seccomp.as_ref().is_some_and(|filter| filter.listener.is_some());
    let (joined, moved) = (joined(plan), moved(plan));
    let mut maker = Maker { joined, moved, notifies, facts, made: Vec::new(), untried: Vec::new(), altered: Vec::new() };
    let mut plan = plan.clone();
    plan.rehearsal = true;
    maker.limits(&plan);
    plan.launcher.iter_mut().for_each(|planned| maker.launcher(planned));
    plan.init.iter_mut().for_each(|planned| maker.init(planned));
    if !own_mounts {
        with_own_mounts(&mut plan);
    }
    Ok(Rehearsal { plan, untried: maker.untried, altered: maker.altered })
}

/// A container in its caller's mount namespace is rehearsed in one of its own.
fn with_own_mounts(plan: &mut Plan) {
    for planned in &mut plan.launcher {
        if let LauncherStep::Clone { new, bridge: false, .. } = &mut planned.step {
            new.push(Kind::Mount);
        }
    }
    for planned in &mut plan.bridge {
        if let BridgeStep::CloneInit { new } = &mut planned.step {
            new.push(Kind::Mount);
        }
    }
}

/// The namespaces that belong to others.
fn joined(plan: &Plan) -> Vec<Kind> {
    let kind = |planned: &Planned<LauncherStep>| match planned.step {
        LauncherStep::OpenNamespace { kind, .. } => Some(kind),
        _ => None,
    };
    plan.launcher.iter().filter_map(kind).collect()
}

/// The network devices that the container would have, by their names in it.
fn moved(plan: &Plan) -> Vec<String> {
    let name = |planned: &Planned<LauncherStep>| match &planned.step {
        LauncherStep::MoveNetDevice(device) => Some(device.inside.clone()),
        _ => None,
    };
    plan.launcher.iter().filter_map(name).collect()
}

struct Maker<'a> {
    joined: Vec<Kind>,
    moved: Vec<String>,
    notifies: bool,
    facts: &'a Facts,
    /// Where filesystems are that the rehearsal has made itself.
    made: Vec<InRoot>,
    untried: Vec<Problem>,
    altered: Vec<InRoot>,
}

impl Maker<'_> {
    /// Limits that are not looked at: those that systemd would set as well, and what only the kernel understands.
    fn limits(&mut self, plan: &Plan) {
        let writes = || plan.cgroup.steps.iter().filter_map(|planned| Some((planned, planned.step.as_write()?)));
        if let Some(unit) = &plan.cgroup.unit {
            if writes().next().is_some() || !unit.properties.is_empty() {
                self.leave_out(&Origin::Flag("--systemd-cgroup"), "the unit was not made: its limits were not tried");
            }
            return;
        }
        let unknown = writes().filter(|(planned, write)| is_unified(&planned.origin) && !is_plain(write));
        for (planned, write) in unknown {
            let text = format!(
                "{} was not set: what it takes is for the kernel to say, and {:?} may be something else",
                write.file, write.value
            );
            self.leave_out(&planned.origin, text);
        }
    }

    fn launcher(&mut self, planned: &mut Planned<LauncherStep>) {
        let instead = match &planned.step {
            LauncherStep::MakeFilesystem { kind, .. } if !harmless(kind) => Instead::Nothing,
            LauncherStep::ConnectConsole { .. }
            | LauncherStep::ConnectListener { .. }
            | LauncherStep::OpenHookOutput { .. }
            | LauncherStep::MakeCgroups
            | LauncherStep::MoveNetDevice(_)
            | LauncherStep::Hooks(_) => Instead::Examine,
            LauncherStep::MakeFifo
            | LauncherStep::StartUnit { .. }
            | LauncherStep::MakeResctrl(_)
            | LauncherStep::JoinResctrl { .. }
            | LauncherStep::JoinDelegated
            | LauncherStep::Record
            | LauncherStep::RecordHooks
            | LauncherStep::WritePidFile { .. }
            // Init stays tied to the launcher, and ends by itself.
            | LauncherStep::Tell(ToInit::Released) => Instead::Nothing,
            _ => return,
        };
        if matches!(planned.step, LauncherStep::MakeResctrl(_)) {
            self.leave_out(&planned.origin, "the group of resctrl was not made");
        }
        let original = Box::new(planned.step.clone());
        planned.step = LauncherStep::Rehearsed { planned: original, instead };
    }

    fn init(&mut self, planned: &mut Planned<InitStep>) {
        let instead = match &planned.step {
            InitStep::Rootfs(step) => match self.rootfs(step, &planned.origin) {
                Some(instead) => instead,
                None => return,
            },
            // In place of the wait the program is examined, while nothing is forbidden yet.
            InitStep::Hooks(_) | InitStep::AwaitStart(_) => Instead::Examine,
            InitStep::Await(ToInit::Released) => Instead::Nothing,
            // With a filter that notifies there would have to be an agent.
            InitStep::Process(ProcessStep::Seccomp) if self.notifies => Instead::Nothing,
            InitStep::Execute => Instead::End,
            _ => return,
        };
        let original = Box::new(planned.step.clone());
        planned.step = InitStep::Rehearsed { planned: original, instead };
    }

    fn rootfs(&mut self, step: &RootfsStep, origin: &Origin) -> Option<Instead<InitStep>> {
        match step {
            // Covered by a filesystem that takes every change.
            RootfsStep::AttachRoot { .. } => Some(Instead::Examine),
            RootfsStep::Mount(mount) => self.mount(mount, origin),
            RootfsStep::Sysctl { path, .. } => {
                let kind = crate::rootfs::sysctl::namespace(path)?;
                if self.joined.contains(&kind) {
                    self.leave_out(origin, "not set, because the namespace belongs to others as well");
                    return Some(Instead::Nothing);
                }
                let of_device = self.moved.iter().any(|name| path.split('/').nth(3) == Some(name));
                of_device.then_some(Instead::Nothing)
            }
            RootfsStep::Hostname(_) | RootfsStep::Domainname(_) if self.joined.contains(&Kind::Uts) => Some(Instead::Nothing),
            _ => None,
        }
    }

    fn mount(&mut self, mount: &MountStep, origin: &Origin) -> Option<Instead<InitStep>> {
        let changed = match &mount.kind {
            kind @ MountKind::Filesystem { fstype, .. } if !harmless(kind) => {
                self.leave_out(origin, format!("{fstype} was not mounted: what that would do to its source cannot be undone"));
                return Some(Instead::Examine);
            }
            MountKind::Filesystem { .. } => {
                self.made.push(mount.destination.clone());
                return None;
            }
            MountKind::Bind { .. } => self.bind(mount),
            MountKind::Cgroup(_) => self.cgroup(mount),
            MountKind::Remount { superblock, data } => {
                if (superblock.is_empty() && data.is_empty()) || self.made.contains(&mount.destination) {
                    return None;
                }
                self.leave_out(origin, "not mounted anew: the filesystem belongs to others as well");
                return Some(Instead::Nothing);
            }
        };
        Some(Instead::Step(Box::new(InitStep::Rootfs(RootfsStep::Mount(Box::new(changed))))))
    }

    /// The host's files: nothing that is mounted on them is seen outside. Init makes them read-only once they are mounted.
    fn bind(&mut self, mount: &MountStep) -> MountStep {
        let mut changed = mount.clone();
        if mount.own.set & attr::RDONLY == 0 && mount.all.set & attr::RDONLY == 0 {
            self.altered.push(mount.destination.clone());
        }
        if let MountKind::Bind { opened_by, .. } = &mut changed.kind {
            if *opened_by == OpenedBy::InitOutside {
                *opened_by = OpenedBy::Init;
            }
            // A clone that was opened outside is a peer of the host's mount until this cuts it off.
            changed.propagation.insert(0, PropagationChange { flag: libc::MS_SLAVE, recursive: true });
        }
        changed
    }

    /// The container's own groups are not there; those above them are.
    fn cgroup(&self, mount: &MountStep) -> MountStep {
        let mut changed = mount.clone();
        if let MountKind::Cgroup(cgroup) = &mut changed.kind {
            let v1 = self.facts.v1.iter().map(|hierarchy| &hierarchy.mount);
            let mounts: Vec<_> = v1.chain(self.facts.v2.iter().map(|unified| &unified.mount)).collect();
            for hierarchy in &mut cgroup.hierarchies {
                if let Some(from) = &mut hierarchy.bind_from
                    && let Some(above) =
                        mounts.iter().filter(|mount| from.starts_with(mount)).max_by_key(|mount| mount.as_os_str().len())
                {
                    *from = (*above).clone();
                }
            }
        }
        changed
    }

    fn leave_out(&mut self, origin: &Origin, text: impl Into<String>) {
        let field = match origin {
            Origin::Config(field) => field.clone(),
            Origin::Flag(name) | Origin::Default(name) => Field::new(*name),
        };
        self.untried.push(Problem::new(field, text));
    }
}

fn is_unified(origin: &Origin) -> bool {
    matches!(origin, Origin::Config(field) if field.to_string().starts_with("linux.resources.unified"))
}

/// A limit as a number, or none, in a file that takes these (Documentation/admin-guide/cgroup-v2.rst).
fn is_plain(write: &Write) -> bool {
    let of_numbers = ["memory.", "hugetlb.", "pids."].iter().any(|controller| write.file.starts_with(controller))
        && [".max", ".high", ".low", ".min"].iter().any(|end| write.file.ends_with(end));
    let is_number = !write.value.is_empty() && write.value.len() < 20 && write.value.bytes().all(|byte| byte.is_ascii_digit());
    of_numbers && (write.value == "max" || is_number)
}

fn harmless(kind: &MountKind) -> bool {
    match kind {
        MountKind::Filesystem { fstype, data, .. } => {
            // Properties that every filesystem understands are for new ones: one that is in use is found and keeps its own.
            let list: &[&str] = if data.is_empty() { &HARMLESS } else { &OWN_SUPERBLOCK };
            list.contains(&fstype.as_str())
        }
        _ => true,
    }
}
