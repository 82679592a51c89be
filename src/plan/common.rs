//! What the plans of a container and of another process in it have in common: the ends of their lists.

use std::path::PathBuf;

use crate::launch::protocol::{FromInit, ToInit};
use crate::process::{ProcessStep, plan as process_plan};
use crate::seccomp::Filter;
use crate::spec::{Field, StringMap};

use super::annotations::{self, PIDFD_RECEIVER};
use super::request::Request;
use super::{Findings, InitStep, LauncherStep, Origin, Planned, StartSignal};

/// A step that a flag asks for.
pub(super) fn flag<S>(step: S, name: &'static str) -> Planned<S> {
    Planned::new(step, Origin::Flag(name))
}

/// A step that is there by default.
pub(super) fn default<S>(step: S, name: &'static str) -> Planned<S> {
    Planned::new(step, Origin::Default(name))
}

/// A terminal needs somebody who serves it.
pub(super) fn check_terminal(terminal: bool, request: &Request, findings: &mut Findings) {
    let field = Field::new("process.terminal");
    if terminal && request.detached && request.console_socket.is_none() {
        findings.problem(
            field,
            "true without --console-socket; expected a socket that gets the terminal, because nobody stays to serve it",
        );
    } else if !terminal && request.console_socket.is_some() {
        findings.problem(field, "false with --console-socket; expected true");
    } else if terminal && !request.detached && request.console_socket.is_some() {
        findings.problem(field, "a terminal in the foreground with --console-socket; expected one or the other");
    }
}

/// Takes the OOM score out of init's list, for a process that may still write to the host's procfs: in a user namespace init is nobody
/// there as soon as it has other ids.
pub(super) fn take_oom_score(process: &mut process_plan::ProcessPlan) -> Option<Planned<i32>> {
    let is_score = |planned: &Planned<ProcessStep>| matches!(planned.step, ProcessStep::OomScoreAdj(_));
    let index = process.become_user.iter().position(is_score)?;
    let Planned { step: ProcessStep::OomScoreAdj(value), origin } = process.become_user.remove(index) else { return None };
    Some(Planned { step: value, origin })
}

/// The agent of a seccomp listener is on the host: init could not reach it any more.
pub(super) fn connect_listener(filter: Option<&Filter>, annotations: &StringMap) -> Option<Planned<LauncherStep>> {
    let listener = filter.and_then(|filter| filter.listener.as_ref())?;
    let step = LauncherStep::ConnectListener { path: PathBuf::from(&listener.path) };
    Some(Planned::new(step, annotations::receiver_field(annotations, &listener.path)))
}

/// Who gets init's pidfd, and who says so: the flag wins over the annotation, which is about the first process only.
pub(super) fn connect_pidfd_socket(request: &Request, annotations: Option<&StringMap>) -> Option<Planned<LauncherStep>> {
    if let Some(path) = &request.pidfd_socket {
        return Some(flag(LauncherStep::ConnectPidfdSocket { path: path.clone() }, "--pidfd-socket"));
    }
    let path = annotations?.get(PIDFD_RECEIVER).filter(|path| !path.is_empty())?;
    let step = LauncherStep::ConnectPidfdSocket { path: PathBuf::from(path) };
    Some(Planned::new(step, annotations::field(PIDFD_RECEIVER)))
}

/// The end of the launcher's list, the same for every kind of plan. `pidfd` says who asked for the pidfd, if anybody did.
pub(super) fn closing(request: &Request, record: bool, pidfd: Option<Origin>) -> Vec<Planned<LauncherStep>> {
    let protocol = |step| default(step, "the protocol");
    let mut steps = vec![protocol(LauncherStep::Await(FromInit::Ready))];
    if record {
        steps.push(protocol(LauncherStep::Record));
    }
    if let Some(path) = &request.pid_file {
        steps.push(flag(LauncherStep::WritePidFile { path: path.clone() }, "--pid-file"));
    }
    steps.extend(pidfd.map(|origin| Planned::new(LauncherStep::SendPidfd, origin)));
    steps.push(protocol(LauncherStep::Tell(ToInit::Released)));
    if request.start == StartSignal::Link {
        steps.push(protocol(LauncherStep::Tell(ToInit::Start)));
    }
    steps.push(protocol(LauncherStep::AwaitEnd(request.start)));
    steps
}

/// Init says that it is ready, and waits.
pub(super) fn getting_ready(start: StartSignal) -> Vec<Planned<InitStep>> {
    let protocol = |step| default(step, "the protocol");
    vec![
        protocol(InitStep::Send(FromInit::Ready)),
        protocol(InitStep::Await(ToInit::Released)),
        protocol(InitStep::AwaitStart(start)),
    ]
}

/// The last steps of init.
pub(super) fn ending(process: &process_plan::ProcessPlan) -> Vec<Planned<InitStep>> {
    let last = process.last.iter().map(|planned| planned.clone().into_step(InitStep::Process));
    let execute = Planned::new(InitStep::Execute, Field::new("process.args"));
    last.chain([execute]).collect()
}
