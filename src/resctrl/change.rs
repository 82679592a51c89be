//! Other limits of caches and memory bandwidth for a container that exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Doing, Failure};
use crate::host::Host;
use crate::id::ContainerId;
use crate::plan::Findings;
use crate::spec::IntelRdt;
use crate::sys::CallError;

use super::group::{self, ResctrlRecord};
use super::plan::{ResctrlPlan, plan};

/// What is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The group whose limits these are.
    directory: PathBuf,
    /// Lines of its `schemata`.
    lines: Vec<String>,
    /// For a container without a group: its own, and what the record will say of it.
    make: Option<(ResctrlPlan, ResctrlRecord)>,
}

impl Change {
    /// Plans it; nothing if nothing is asked. A container that has no group gets one of its own.
    pub fn plan(
        config: &IntelRdt,
        recorded: Option<&ResctrlRecord>,
        id: &ContainerId,
        host: &Host,
        findings: &mut Findings,
    ) -> Option<Self> {
        if config.l3_cache_schema.is_none() && config.mem_bw_schema.is_none() {
            return None;
        }
        let planned = plan(config, id, host, findings)?;
        Some(match recorded {
            Some(record) => Self { directory: class(&record.tasks), lines: planned.schemata, make: None },
            None => {
                let record = group::record(&planned);
                Self { directory: planned.directory.clone(), lines: Vec::new(), make: Some((planned, record)) }
            }
        })
    }

    /// What the container's record has to say before this is carried out, if that is new.
    pub fn record(&self) -> Option<&ResctrlRecord> {
        self.make.as_ref().map(|(_, record)| record)
    }

    /// Carries it out, all of it or nothing. `processes`: those of the container, who go into a new group.
    ///
    /// # Errors
    /// The kernel's.
    pub fn apply(&self, processes: impl Fn() -> Result<Vec<i32>, Failure>) -> Result<(), Failure> {
        let Some((plan, record)) = &self.make else { return self.write() };
        let made = group::make(plan).and_then(|()| join_all(plan.tasks(), processes));
        made.inspect_err(|_| drop(group::remove(record)))
    }

    fn write(&self) -> Result<(), Failure> {
        let schemata = self.directory.join("schemata");
        let before = fs::read_to_string(&schemata)
            .map_err(|error| CallError::from_io("read", format!("{schemata:?}"), &error))
            .doing(|| "read the limits of the resctrl group")?;
        let written = self.lines.iter().try_for_each(|line| group::write_schema(&self.directory, line));
        written.inspect_err(|_| {
            let named = |line: &str| self.lines.iter().any(|new| resource(new) == resource(line));
            before.lines().filter(|line| named(line)).for_each(|line| drop(group::write_schema(&self.directory, line)));
        })
    }
}

fn resource(line: &str) -> &str {
    line.split(':').next().unwrap_or_default().trim()
}

/// The group that has the limits: that of the tasks, or the one in which they are monitored.
fn class(tasks: &Path) -> PathBuf {
    let monitored = tasks.parent().filter(|parent| parent.ends_with("mon_groups")).and_then(Path::parent);
    monitored.unwrap_or(tasks).to_path_buf()
}

/// Every thread, until there is none that is new: what they make from then on is born in the group.
fn join_all(tasks: &Path, processes: impl Fn() -> Result<Vec<i32>, Failure>) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let threads: Vec<i32> = processes()?.into_iter().flat_map(threads).filter(|thread| seen.insert(*thread)).collect();
        if threads.is_empty() {
            return Ok(());
        }
        for thread in threads {
            match group::join(tasks, thread) {
                Err(error) if error.is(libc::ESRCH) => {}
                other => other.doing(|| format!("move thread {thread} into the resctrl group"))?,
            }
        }
    }
    Err(Failure::because("the container makes processes faster than they can be moved into the resctrl group"))
}

fn threads(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn config() -> IntelRdt {
        IntelRdt { l3_cache_schema: Some("L3:0=3".into()), mem_bw_schema: Some("MB:0=50".into()), ..IntelRdt::default() }
    }

    fn planned(recorded: Option<&ResctrlRecord>, root: Option<&Path>) -> (Option<Change>, Vec<String>) {
        let host = Host { resctrl: root.map(Path::to_path_buf), ..Host::fixture() };
        let mut findings = Findings::default();
        let change = Change::plan(&config(), recorded, &"web".parse().unwrap(), &host, &mut findings);
        (change, findings.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_group_that_is_there_gets_the_lines() {
        let root = std::env::temp_dir().join(format!("rt-resctrl-change-{}", std::process::id()));
        fs::create_dir_all(root.join("gold/mon_groups/web")).unwrap();
        fs::write(root.join("gold/schemata"), "").unwrap();
        let record = ResctrlRecord { tasks: root.join("gold/mon_groups/web"), ours: Vec::new() };
        let change = planned(Some(&record), Some(&root)).0.unwrap();
        assert_eq!((change.directory.as_path(), change.record()), (root.join("gold").as_path(), None));
        change.apply(|| Ok(Vec::new())).unwrap();
        // The stand-in keeps what was written over what was there.
        assert_eq!(fs::read_to_string(root.join("gold/schemata")).unwrap(), "MB:0=50\n");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_container_without_a_group_gets_its_own() {
        let change = planned(None, Some(Path::new("/r"))).0.unwrap();
        assert_eq!(change.record().map(|record| record.tasks.clone()), Some("/r/web".into()));
        assert!(planned(None, None).1[0].contains("no resctrl filesystem is mounted"));
    }
}
