//! The bridge: joins namespaces that nobody can leave again, makes init as a child of the launcher, and ends.

use std::os::fd::AsFd;

use crate::error::{Failure, Place, Role};
use crate::namespaces::{Kind, join, steps};
use crate::plan::{BridgeStep, Plan};
use crate::sys::process::{self, CloneArgs, Cloned};

use super::init;
use super::launcher::Handles;
use super::link::InitLink;
use super::protocol::FromInit;

/// Walks the list. Does not return: the process ends, or goes on as init in its clone.
pub fn run(plan: &Plan, handles: &mut Handles, link: InitLink, init_link: InitLink) -> ! {
    let mut link = Some(link);
    let mut init_link = Some(init_link);
    // It can fail for no reason that the kernel knows; init ties itself to the launcher again.
    let _ = process::set_parent_death_signal(true);
    let of = plan.bridge.len();
    for (index, planned) in plan.bridge.iter().enumerate() {
        let result = match &planned.step {
            BridgeStep::Await(message) => link.as_ref().map_or(Ok(()), |link| init::hear(link, *message)),
            BridgeStep::JoinCgroups => handles.doors.enter(),
            BridgeStep::Namespace(step) => join::run(step, &handles.namespace_context()),
            BridgeStep::OomScoreAdj(value) => {
                handles.procfs.write("self/oom_score_adj", &value.to_string()).map_err(Failure::from)
            }
            BridgeStep::Hide => process::set_dumpable(false).map_err(Failure::from),
            BridgeStep::CloneInit { new } => match init_link.take() {
                Some(init_link) => clone_init(plan, handles, &mut link, init_link, new),
                None => Err(Failure::because("init was made already")),
            },
        };
        if let Err(failure) = result {
            let place = Place { role: Role::Bridge, step: index + 1, of };
            let failure = failure.doing(&planned.step).origin(&planned.origin).at(place);
            // If nobody listens, nobody is left to be told.
            let _ = link.map(|link| link.send(&FromInit::Failed(Box::new(failure)), None));
            process::exit_now(1)
        }
    }
    process::exit_now(0)
}

fn clone_init(
    plan: &Plan,
    handles: &mut Handles,
    link: &mut Option<InitLink>,
    init_link: InitLink,
    new: &[Kind],
) -> Result<(), Failure> {
    let parent = libc::CLONE_PARENT.cast_unsigned();
    let flags = u64::from(steps::flags(new).cast_unsigned() | parent);
    match process::clone3(&CloneArgs { flags, cgroup: None })? {
        Cloned::Child => {
            // The bridge's own: the launcher is to see it end with the bridge.
            *link = None;
            init::run(plan, handles, init_link)
        }
        Cloned::Parent(pid, pidfd) => {
            link.as_ref().map_or(Ok(()), |link| link.send(&FromInit::Born { pid }, Some(pidfd.as_fd())))
        }
    }
}
