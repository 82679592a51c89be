//! Making, joining and removing a group of resctrl.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Failure};
use crate::sys::{CallError, CallResult};

use super::plan::{Make, ResctrlPlan};

/// What a record remembers: where processes go, and what goes with the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResctrlRecord {
    /// The directory whose `tasks` the processes are written to.
    pub tasks: PathBuf,
    /// Directories that were made, or were about to be made, for this container alone, the innermost one first.
    pub ours: Vec<PathBuf>,
}

/// What will be made, to be recorded before it is.
pub fn record(plan: &ResctrlPlan) -> ResctrlRecord {
    let own = (plan.make == Make::Own && !plan.directory.exists()).then(|| plan.directory.clone());
    let monitor = plan.monitor.clone().filter(|monitor| !monitor.exists());
    ResctrlRecord { tasks: plan.tasks().clone(), ours: monitor.into_iter().chain(own).collect() }
}

/// Makes the group and sets its limits.
///
/// # Errors
/// The kernel's, or that the group which is there has other limits.
pub fn make(plan: &ResctrlPlan) -> Result<(), Failure> {
    let missing = !plan.directory.exists();
    match plan.make {
        Make::Never if missing => {
            return Err(Failure::because(format!(
                "there is no resctrl group {}; without schemata it has to exist",
                plan.directory.display()
            )));
        }
        Make::IfMissing | Make::Own if missing => make_directory(&plan.directory)?,
        Make::Never | Make::IfMissing | Make::Own => {}
    }
    let schemata = plan.directory.join("schemata");
    if !missing && !plan.expected.is_empty() {
        compare(&schemata, &plan.expected)?;
    }
    for line in &plan.schemata {
        write_schema(&plan.directory, line)?;
    }
    if let Some(monitor) = plan.monitor.as_ref().filter(|monitor| !monitor.exists()) {
        make_directory(monitor)?;
    }
    Ok(())
}

/// Sets one line of the limits of a group.
///
/// # Errors
/// The kernel's, with what it says about the line.
pub fn write_schema(directory: &Path, line: &str) -> Result<(), Failure> {
    write(&directory.join("schemata"), &format!("{line}\n")).map_err(|error| with_status(error, directory))
}

/// Puts a process, with all that it makes later, into the group.
///
/// # Errors
/// The kernel's.
pub fn join(tasks: &Path, pid: i32) -> CallResult<()> {
    write(&tasks.join("tasks"), &pid.to_string())
}

/// Removes what was made for the container alone.
///
/// # Errors
/// The kernel's.
pub fn remove(record: &ResctrlRecord) -> Result<(), Failure> {
    for directory in &record.ours {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other
                .map_err(|error| CallError::from_io("rmdir", format!("{directory:?}"), &error))
                .doing(|| "remove a resctrl group")?,
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> CallResult<()> {
    fs::create_dir(path).map_err(|error| CallError::from_io("mkdir", format!("{path:?}"), &error))
}

/// One write(2): the kernel takes a line as a whole or not at all. The file is never made.
fn write(path: &Path, text: &str) -> CallResult<()> {
    let written = fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| CallError::from_io("write", format!("{path:?}, {text:?}"), &error))
}

/// The kernel says more about a refused line in info/last_cmd_status, which lies in the root.
fn with_status(error: CallError, directory: &Path) -> Failure {
    let status = directory.ancestors().take(2).find_map(|root| fs::read_to_string(root.join("info/last_cmd_status")).ok());
    let said = status.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty() && text != "ok");
    match said {
        Some(said) => Failure { reason: Some(said), ..Failure::from(error) },
        None => error.into(),
    }
}

fn compare(file: &Path, expected: &[String]) -> Result<(), Failure> {
    let found = fs::read_to_string(file).map_err(|error| CallError::from_io("read", format!("{file:?}"), &error))?;
    for line in expected {
        if !found.lines().any(|other| says(other, line)) {
            let found: Vec<&str> = found.lines().map(str::trim).collect();
            return Err(Failure::because(format!(
                "expected {line:?} in {}, which exists already, found {:?}",
                file.display(),
                found.join(", ")
            )));
        }
    }
    Ok(())
}

/// True if a line of a schemata file gives every domain of the other line the same value: the kernel pads with blanks and zeros.
fn says(found: &str, wanted: &str) -> bool {
    let parse = |line: &str| -> Option<(String, Vec<(String, String)>)> {
        let (resource, domains) = line.split_once(':')?;
        let digits = |text: &str| text.trim().trim_start_matches('0').to_ascii_lowercase();
        let domain = |text: &str| text.split_once('=').map(|(id, value)| (digits(id), digits(value)));
        let domains = domains.split(';').filter(|text| !text.trim().is_empty()).map(domain).collect::<Option<_>>()?;
        Some((resource.trim().to_owned(), domains))
    };
    match (parse(found), parse(wanted)) {
        (Some((one, has)), Some((other, wants))) => one == other && wants.iter().all(|domain| has.contains(domain)),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// A tree that looks like resctrl, removed at the end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("rt-resctrl-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("gold/mon_groups")).unwrap();
            fs::write(path.join("gold/schemata"), "    L3:0=00f;1=0ff\n    MB:0= 20;1=100\n").unwrap();
            fs::write(path.join("gold/tasks"), "").unwrap();
            Self(path)
        }

        fn plan(&self, class: &str, make: Make, lines: &[&str]) -> ResctrlPlan {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            let directory = self.0.join(class);
            ResctrlPlan { directory, make, expected: lines.clone(), schemata: lines, monitor: None }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_own_group_is_recorded_made_and_removed() {
        let tree = Tree::new("own");
        let plan = tree.plan("web", Make::Own, &[]);
        let record = record(&plan);
        assert_eq!(record.ours, [tree.0.join("web")]);
        assert!(!tree.0.join("web").exists(), "to be recorded is not to be made");
        make(&plan).unwrap();
        assert!(tree.0.join("web").is_dir());
        remove(&record).unwrap();
        remove(&record).unwrap();
        assert!(!tree.0.join("web").exists());
    }

    #[test]
    fn a_named_group_is_joined_and_stays() {
        let tree = Tree::new("named");
        let plan = ResctrlPlan { monitor: Some(tree.0.join("gold/mon_groups/web")), ..tree.plan("gold", Make::Never, &[]) };
        let record = record(&plan);
        assert_eq!(record.ours, [tree.0.join("gold/mon_groups/web")]);
        make(&plan).unwrap();
        join(&plan.directory, 42).unwrap();
        assert_eq!(fs::read_to_string(tree.0.join("gold/tasks")).unwrap(), "42");
        remove(&record).unwrap();
        assert!(tree.0.join("gold").is_dir() && !tree.0.join("gold/mon_groups/web").exists());
    }

    #[test]
    fn a_group_that_exists_must_have_the_limits() {
        let tree = Tree::new("limits");
        make(&tree.plan("gold", Make::IfMissing, &["L3:0=f;1=ff"])).unwrap();
        let other = make(&tree.plan("gold", Make::IfMissing, &["L3:0=3"])).unwrap_err().to_string();
        assert!(other.contains("expected \"L3:0=3\""), "{other}");
        assert!(make(&tree.plan("silver", Make::Never, &[])).unwrap_err().to_string().contains("there is no resctrl group"));
    }

    #[test]
    fn lines_are_compared_by_meaning() {
        assert!(says("    L3:0=00f;1=0ff", "L3:0=f"));
        assert!(says("    MB:0= 20;1=100", "MB:1=100;0=20"));
        assert!(!says("    L3:0=00f", "L3:0=1f"));
        assert!(!says("    L3:0=00f", "L2:0=f"));
        assert!(!says("    L3:0=00f", "L3:1=f"));
    }
}
