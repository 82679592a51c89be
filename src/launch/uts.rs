//! The names of a uts namespace that a restored container joins. CRIU writes those of the images into it, although it belongs to others,
//! too: they get back what it had before a process of the container runs.

use std::os::fd::OwnedFd;

use crate::error::{Doing, Failure};
use crate::namespaces::{Kind, join};
use crate::plan::{LauncherStep, Plan};
use crate::procfs::ProcFs;
use crate::sys::{ns, process};

/// A namespace and the names that it has.
#[derive(Debug)]
pub struct Names {
    namespace: OwnedFd,
    host: String,
    domain: String,
}

impl Names {
    /// Those of the uts namespace that a plan joins by path, if it does.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of_joined(plan: &Plan, procfs: &ProcFs) -> Result<Option<Self>, Failure> {
        let path = plan.launcher.iter().find_map(|planned| match &planned.step {
            LauncherStep::OpenNamespace { kind: Kind::Uts, path } => Some(path),
            _ => None,
        });
        let Some(path) = path else { return Ok(None) };
        let namespace = join::open(Kind::Uts, path)?;
        let read = |file: &str| -> Result<String, Failure> { Ok(procfs.read(file)?.trim_end_matches('\n').to_owned()) };
        let (host, domain) = inside(&namespace, procfs, || Ok((read("sys/kernel/hostname")?, read("sys/kernel/domainname")?)))?;
        Ok(Some(Self { namespace, host, domain }))
    }

    /// Gives them to the namespace again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn give_back(&self, procfs: &ProcFs) -> Result<(), Failure> {
        inside(&self.namespace, procfs, || {
            process::sethostname(&self.host)?;
            Ok(process::setdomainname(&self.domain)?)
        })
    }
}

/// Does something in a uts namespace and comes back.
fn inside<T>(namespace: &OwnedFd, procfs: &ProcFs, act: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let home = procfs.open_namespace("self/ns/uts")?;
    ns::setns(namespace, libc::CLONE_NEWUTS).doing(|| "join the uts namespace")?;
    let done = act();
    ns::setns(&home, libc::CLONE_NEWUTS).doing(|| "return to the own uts namespace")?;
    done
}
