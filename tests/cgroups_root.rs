//! Control groups on the kernel: needs root and skips itself otherwise. Everything it makes is named `rt-test-<pid>`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rt::cgroups::{Cgroup, CgroupPlan, Choice, Facts, Input, Step, Version, plan, plan_update, probe, survey};
use rt::plan::Findings;
use rt::spec::Resources;

fn is_root() -> bool {
    let mounts = |facts: Facts| facts.v1.into_iter().map(|v1| v1.mount).chain(facts.v2.map(|v2| v2.mount)).collect::<Vec<_>>();
    let makes = rt::sys::cred::geteuid() == 0 && mounts(probe("x", None, true).unwrap()).iter().any(|mount| writable(mount));
    if !makes {
        eprintln!("skipped: needs root and a writable cgroup filesystem");
    }
    makes
}

fn writable(mount: &Path) -> bool {
    let probe = mount.join(format!("rt-test-{}-probe", std::process::id()));
    fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok()
}

fn path(name: &str) -> String {
    format!("/rt-test-{}/{name}", std::process::id())
}

fn planned(facts: &Facts, name: &str, json: &str) -> CgroupPlan {
    let resources: Resources = serde_json::from_str(json).unwrap();
    let mut findings = Findings::default();
    let input = Input {
        id: name,
        cgroups_path: Some(&path(name)),
        resources: Some(&resources),
        devices: &[],
        facts,
        privileged: true,
        owner: None,
        subgroup: None,
        delegated: None,
    };
    let plan = plan(&input, &mut findings);
    assert_eq!(findings.problems, []);
    plan
}

/// Moves a foreign process; the runtime's own move themselves.
fn join(cgroup: &Cgroup, pid: i32) {
    cgroup.join_v2(pid).unwrap();
    for recorded in cgroup.record().directories.iter().filter(|recorded| recorded.place.version == Version::V1) {
        fs::write(recorded.place.directory().join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

/// A container's cgroups that are killed and removed at the end, whatever happens.
struct Box {
    cgroup: Option<Cgroup>,
    children: Vec<Child>,
}

impl Box {
    fn new(name: &str, json: &str) -> Self {
        let facts = probe(name, Some(&path(name)), true).unwrap();
        let plan = planned(&facts, name, json);
        let cgroup = survey(&plan).unwrap().create(None).unwrap();
        assert_eq!(cgroup.apply(&plan).unwrap(), []);
        Self { cgroup: Some(cgroup), children: Vec::new() }
    }

    fn cgroup(&self) -> &Cgroup {
        self.cgroup.as_ref().unwrap()
    }

    fn spawn(&mut self, script: &str) -> i32 {
        // The shell waits for a line: by then it is in its cgroup.
        let script = format!("read go; {script}");
        let mut child = Command::new("/bin/sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        join(self.cgroup(), pid);
        use std::io::Write;
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        self.children.push(child);
        pid
    }

    fn directory(&self, controller: &str) -> PathBuf {
        let found = self.cgroup().record().directories.iter().find(|d| match controller {
            "unified" => d.place.version == Version::V2,
            name => d.place.version == Version::V1 && d.place.has(name),
        });
        found.unwrap_or_else(|| panic!("no {controller}")).place.directory()
    }

    fn file(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(self.directory(controller).join(file)).unwrap().trim().to_owned()
    }

    fn reap(&mut self) {
        for child in &mut self.children {
            child.wait().unwrap();
        }
        self.children.clear();
    }

    fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(cgroup) = self.cgroup.take() else { return };
        let directories: Vec<PathBuf> = cgroup.record().directories.iter().map(|d| d.place.directory()).collect();
        cgroup.kill(libc::SIGKILL).unwrap();
        cgroup.remove().unwrap();
        assert!(directories.iter().all(|directory| !directory.exists()), "all removed");
        self.reap();
    }
}

impl Drop for Box {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.cgroup.take().map(|cgroup| cgroup.kill(libc::SIGKILL).and_then(|()| cgroup.remove()));
        } else {
            self.end();
        }
    }
}

fn soon(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn main() {
    if rt::sys::cred::geteuid() != 0 {
        return delegated();
    }
    if !is_root() {
        return;
    }
    let facts = probe("x", None, true).unwrap();
    let hybrid = facts.v1.iter().any(|hierarchy| hierarchy.controllers.contains(&"memory".to_owned()));
    type Test = (&'static str, fn(bool));
    let tests: [Test; 11] = [
        ("limits", limits),
        ("freezing", freezing),
        ("stubborn", stubborn),
        ("freezer_of_version_1", freezer_of_version_1),
        ("devices_by_program", devices_by_program),
        ("devices_by_list", devices_by_list),
        ("sub_cgroups", sub_cgroups),
        ("reuse", reuse),
        ("existing", existing),
        ("born_inside", born_inside),
        ("below", below),
    ];
    for (name, test) in tests {
        if facts.v2.is_none() && matches!(name, "devices_by_program" | "existing" | "born_inside") {
            continue;
        }
        let start = Instant::now();
        test(hybrid);
        eprintln!("{name}: ok ({:?})", start.elapsed());
    }
}

fn limits(hybrid: bool) {
    if !hybrid {
        return limits_of_version_2();
    }
    let json = r#"{"memory":{"limit":67108864,"reservation":33554432,"swap":134217728},"cpu":{"shares":512,"quota":20000,"period":100000,"cpus":"0","mems":"0"},"pids":{"limit":50}}"#;
    let mut bx = Box::new("limits", json);
    assert_eq!(bx.file("memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(bx.file("memory", "memory.memsw.limit_in_bytes"), "134217728");
    assert_eq!(bx.file("memory", "memory.soft_limit_in_bytes"), "33554432");
    assert_eq!(bx.file("cpu", "cpu.shares"), "512");
    assert_eq!(bx.file("cpu", "cpu.cfs_quota_us"), "20000");
    assert_eq!(bx.file("cpuset", "cpuset.cpus"), "0");
    assert_eq!(bx.file("pids", "pids.max"), "50");
    bx.spawn("exec sleep 100");
    // Up and down again: the order of the two memory limits is different each time.
    for (limit, swap) in [("268435456", "536870912"), ("33554432", "67108864"), ("-1", "-1"), ("33554432", "67108864")] {
        let resources = format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#);
        let resources: Resources = serde_json::from_str(&resources).unwrap();
        let update = plan_update(&resources, bx.cgroup().record(), true, &mut Findings::default());
        assert_eq!(bx.cgroup().apply(&update).unwrap(), []);
        if limit != "-1" {
            assert_eq!(bx.file("memory", "memory.limit_in_bytes"), limit);
            assert_eq!(bx.file("memory", "memory.memsw.limit_in_bytes"), swap);
        }
    }
    let stats = bx.cgroup().stats().unwrap();
    assert_eq!((stats.memory.usage.limit, stats.pids.limit), (33_554_432, 50));
    assert_eq!(stats.pids.current, 1);
    soon("CPU time", || bx.cgroup().stats().unwrap().cpu.usage.total > 0);
    eprintln!("{}", serde_json::to_string(&stats).unwrap());
    assert_eq!(bx.cgroup().oom_kills().unwrap(), Some(0));

    let wrong: Resources = serde_json::from_str(r#"{"cpu":{"cpus":"77"}}"#).unwrap();
    let update = plan_update(&wrong, bx.cgroup().record(), true, &mut Findings::default());
    let error = bx.cgroup().apply(&update).unwrap_err().to_string();
    let file = bx.directory("cpuset").join("cpuset.cpus");
    let expected =
        format!("set cpuset.cpus to \"77\" (linux.resources.cpu.cpus): write({file:?}, \"77\"): invalid argument (EINVAL)");
    assert!(error == expected || error.contains("ERANGE") || error.contains("EACCES"), "{error}");
    bx.finish();
}

fn limits_of_version_2() {
    let facts = probe("limits", Some(&path("limits")), true).unwrap();
    let controllers = facts.v2.unwrap().controllers;
    if !["memory", "cpu", "cpuset", "pids"].iter().all(|name| controllers.contains(&(*name).to_owned())) {
        return eprintln!("skipped: the controllers are on neither version");
    }
    let json = r#"{"memory":{"limit":67108864,"reservation":33554432,"swap":67108864},"cpu":{"shares":512,"quota":20000,"period":100000,"burst":1000,"cpus":"0","mems":"0"},"pids":{"limit":50},"unified":{"memory.high":"50000000"}}"#;
    let mut bx = Box::new("limits", json);
    let expected = [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.swap.max", "0"),
        ("memory.high", "49999872"),
        ("cpu.max", "20000 100000"),
        ("cpu.max.burst", "1000"),
        ("cpu.weight", "59"),
        ("cpuset.cpus", "0"),
        ("pids.max", "50"),
    ];
    for (file, value) in expected {
        assert_eq!(bx.file("unified", file), value, "{file}");
    }
    bx.spawn("exec sleep 100");
    let stats = bx.cgroup().stats().unwrap();
    assert_eq!((stats.memory.usage.limit, stats.pids.limit, stats.pids.current), (67_108_864, 50, 1));
    eprintln!("{}", serde_json::to_string(&stats).unwrap());
    assert_eq!(bx.cgroup().oom_kills().unwrap(), Some(0));
    // What is in use is counted before a limit is lowered, if the config wants it.
    let tight: Resources = serde_json::from_str(r#"{"memory":{"limit":4096,"checkBeforeUpdate":true}}"#).unwrap();
    let update = plan_update(&tight, bx.cgroup().record(), true, &mut Findings::default());
    let error = bx.cgroup().apply(&update).unwrap_err().to_string();
    assert!(error.contains("expected a limit above the memory in use"), "{error}");
    let wrong: Resources = serde_json::from_str(r#"{"unified":{"memory.nonsense":"1"}}"#).unwrap();
    let update = plan_update(&wrong, bx.cgroup().record(), true, &mut Findings::default());
    let error = bx.cgroup().apply(&update).unwrap_err().to_string();
    assert!(error.starts_with("set memory.nonsense to \"1\" (linux.resources.unified[\"memory.nonsense\"]): openat("), "{error}");
    bx.finish();
}

fn freezing(_: bool) {
    let mut bx = Box::new("freezing", "{}");
    let pid = bx.spawn("while :; do sleep 0.01; done");
    assert!(bx.cgroup().processes().unwrap().contains(&pid));
    bx.cgroup().freeze().unwrap();
    assert!(bx.cgroup().is_frozen().unwrap());
    // A record is all that another command has.
    let again = Cgroup::open(bx.cgroup().record()).unwrap();
    assert!(again.is_frozen().unwrap());
    again.thaw().unwrap();
    assert!(!bx.cgroup().is_frozen().unwrap());
    bx.cgroup().freeze().unwrap();
    // Killed although frozen, by finish.
    bx.finish();
}

fn stubborn(_: bool) {
    let mut bx = Box::new("stubborn", "{}");
    let pid = bx.spawn("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    let mut line = [0u8; 6];
    std::io::Read::read_exact(bx.children[0].stdout.as_mut().unwrap(), &mut line).unwrap();
    bx.cgroup().kill(libc::SIGTERM).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(bx.cgroup().processes().unwrap().contains(&pid), "refuses TERM");
    assert!(!bx.cgroup().is_frozen().unwrap());
    bx.cgroup().kill(libc::SIGKILL).unwrap();
    soon("gone", || bx.cgroup().processes().unwrap().is_empty());
    bx.finish();
}

/// As on a host without version 2: frozen by version 1, and killed although frozen.
fn freezer_of_version_1(hybrid: bool) {
    if !hybrid {
        return;
    }
    let facts = Facts { v2: None, ..probe("v1", Some(&path("v1")), true).unwrap() };
    let plan = planned(&facts, "v1", "{}");
    let cgroup = survey(&plan).unwrap().create(None).unwrap();
    assert!(cgroup.v2_fd().is_none());
    let mut bx = Box { cgroup: Some(cgroup), children: Vec::new() };
    bx.spawn("(while :; do sleep 0.01; done) & while :; do sleep 0.01; done");
    soon("two shells", || bx.cgroup().processes().unwrap().len() >= 2);
    bx.cgroup().freeze().unwrap();
    assert_eq!(bx.file("freezer", "freezer.state"), "FROZEN");
    bx.cgroup().kill(libc::SIGKILL).unwrap();
    assert!(bx.cgroup().processes().unwrap().is_empty());
    bx.finish();
}

/// What a shell in the cgroup can open.
fn opened(bx: &mut Box) -> String {
    bx.spawn("for d in null zero; do if (exec 3</dev/$d); then echo $d; fi; done");
    let child = bx.children.pop().unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

fn devices_by_program(_: bool) {
    let json = r#"{"devices":[{"allow":false},{"allow":false,"type":"c","access":"rw"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}]}"#;
    let facts = Facts { v1: Vec::new(), ..probe("bpf", Some(&path("bpf")), true).unwrap() };
    let plan = planned(&facts, "bpf", json);
    assert!(plan.steps.iter().any(|planned| matches!(planned.step, Step::DeviceProgram { .. })));
    let cgroup = survey(&plan).unwrap().create(None).unwrap();
    // Only the filter: the rest of a pure version 2 plan would enable controllers that version 1 uses here.
    let devices: Vec<_> =
        plan.steps.iter().filter(|planned| matches!(planned.step, Step::DeviceProgram { .. })).cloned().collect();
    let filter = CgroupPlan { steps: devices, ..plan };
    let mut bx = Box { cgroup: Some(cgroup), children: Vec::new() };
    assert_eq!(opened(&mut bx), "null\nzero\n");
    // Twice: the second time replaces the first.
    for _ in 0..2 {
        bx.cgroup().apply(&filter).unwrap();
        assert_eq!(rt::sys::bpf::device_programs(bx.cgroup().v2_fd().unwrap()).unwrap().len(), 1);
        assert_eq!(opened(&mut bx), "null\n");
    }
    // A long list passes the verifier too.
    let rule = |n: u32| {
        format!(
            r#"{{"allow":{},"type":"c","major":{},"access":"r{}"}}"#,
            n.is_multiple_of(2),
            n % 9,
            ["", "w", "m"][n as usize % 3]
        )
    };
    let long: Vec<String> = (0..300).map(rule).collect();
    let plan = planned(&facts, "bpf", &format!(r#"{{"devices":[{}]}}"#, long.join(",")));
    let devices = plan.steps.iter().filter(|planned| matches!(planned.step, Step::DeviceProgram { .. })).cloned().collect();
    bx.cgroup().apply(&CgroupPlan { steps: devices, ..plan }).unwrap();
    bx.finish();
}

fn devices_by_list(hybrid: bool) {
    if !hybrid {
        return;
    }
    let json = r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"},{"allow":true,"type":"b","major":8,"minor":0,"access":"r"},{"allow":false,"type":"c","major":1,"minor":5}]}"#;
    let mut bx = Box::new("list", json);
    let list = bx.file("devices", "devices.list");
    // What the config permits comes first, in its order, and then the defaults.
    assert!(list.starts_with("c 10:229 rw\nb 8:0 r\nc *:* m\nb *:* m\nc 1:3 rwm\n"), "{list}");
    assert_eq!(opened(&mut bx), "null\n");
    bx.finish();
}

fn sub_cgroups(_: bool) {
    let mut bx = Box::new("subs", "{}");
    let pid = bx.spawn("exec sleep 100");
    for recorded in bx.cgroup().record().directories.clone() {
        let below = recorded.place.directory().join("a/b.slice");
        fs::create_dir_all(&below).unwrap();
        if !recorded.place.has("cpuset") {
            fs::write(below.join("cgroup.procs"), pid.to_string()).unwrap();
        }
    }
    assert_eq!(bx.cgroup().processes().unwrap(), [pid]);
    bx.finish();
}

/// The same path over and over, at once.
fn reuse(_: bool) {
    for _ in 0..10 {
        let mut bx = Box::new("reuse", r#"{"pids":{"limit":20}}"#);
        bx.spawn("sleep 100 & sleep 100 & sleep 100");
        bx.finish();
    }
}

fn existing(_: bool) {
    let facts = probe("old", Some(&path("old")), true).unwrap();
    let plan = planned(&facts, "old", "{}");
    let unified = plan.v2().unwrap().directory();
    fs::create_dir_all(&unified).unwrap();
    let mut survey_one = survey(&plan).unwrap();
    let ours: Vec<bool> = survey_one.record().directories.iter().map(|recorded| recorded.ours).collect();
    assert_eq!(ours.iter().filter(|ours| !**ours).count(), 1);
    let cgroup = survey_one.create(None).unwrap();
    let mut child = Command::new("sleep").arg("100").spawn().unwrap();
    join(&cgroup, i32::try_from(child.id()).unwrap());
    let error = survey(&plan).unwrap().create(None).unwrap_err().to_string();
    cgroup.kill(libc::SIGKILL).unwrap();
    child.wait().unwrap();
    assert_eq!(error, "use an existing cgroup (linux.cgroupsPath): expected an empty cgroup, found one with 1 processes in it");
    cgroup.remove().unwrap();
    assert!(unified.exists(), "what we did not make stays");
    fs::remove_dir(&unified).unwrap();
    fs::remove_dir(unified.parent().unwrap()).unwrap();
}

fn born_inside(_: bool) {
    use rt::sys::process::{CloneArgs, Cloned, clone3, exit_now, wait_pidfd};
    let bx = Box::new("born", "{}");
    let request = CloneArgs { flags: 0, cgroup: bx.cgroup().v2_fd() };
    let mut doors = bx.cgroup().doors().unwrap();
    let (pid, pidfd) = match clone3(&request).unwrap() {
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
        Cloned::Child => {
            let entered = doors.enter();
            if entered.is_err() {
                exit_now(1)
            }
            std::thread::sleep(Duration::from_secs(100));
            exit_now(0)
        }
    };
    drop(doors);
    for recorded in bx.cgroup().record().directories.iter().filter(|recorded| recorded.place.version == Version::V1) {
        let inside = || fs::read_to_string(recorded.place.directory().join("cgroup.procs")).unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while inside().trim() != pid.to_string() {
            assert!(std::time::Instant::now() < end, "{} has {:?}", recorded.place, inside());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(bx.cgroup().processes().unwrap(), [pid]);
    assert!(bx.cgroup().v2_of(pid).unwrap().is_some());
    assert!(bx.cgroup().v2_of(1).unwrap().is_none());
    bx.cgroup().kill(libc::SIGKILL).unwrap();
    assert_eq!(wait_pidfd(pidfd).unwrap().status(), 137);
    bx.finish();
}

fn below(_: bool) {
    let bx = Box::new("below", "{}");
    for recorded in &bx.cgroup().record().directories {
        fs::create_dir(recorded.place.directory().join("sub")).unwrap();
    }
    assert!(bx.cgroup().choose(&[Choice::parse("/sub")]).is_ok());
    let outside = bx.cgroup().choose(&[Choice::parse("../below")]).unwrap_err().to_string();
    assert!(outside.ends_with("expected a path below the container's cgroup, without `..`"), "{outside}");
    let missing = bx.cgroup().choose(&[Choice::parse("other")]).unwrap_err().to_string();
    assert!(missing.ends_with("other does not exist"), "{missing}");
    bx.finish();
}

/// An ordinary user has what was delegated to them.
fn delegated() {
    let facts = probe("mine", None, false).unwrap();
    if !facts.v2.as_ref().is_some_and(|v2| v2.writable) {
        return eprintln!("skipped: needs root, or a cgroup that is delegated to this user");
    }
    // Below the own cgroup, which has processes and so cannot hand on controllers: warnings, and it works.
    let (bx, _) = delegated_box(&facts, None);
    bx.cgroup().freeze().unwrap();
    bx.finish();
    // Beside it, if that is delegated too: the limits are applied.
    let parent = facts.v2.as_ref().unwrap().own.parent().unwrap().join(format!("rt-test-{}", std::process::id()));
    let facts = probe("mine", parent.to_str(), false).unwrap();
    if facts.v2.as_ref().is_some_and(|v2| v2.writable) {
        let (bx, warnings) = delegated_box(&facts, parent.to_str());
        assert_eq!(warnings, 0);
        assert_eq!(bx.file("unified", "pids.max"), "50");
        bx.finish();
        eprintln!("delegated beside: ok");
    }
    eprintln!("delegated: ok");
}

fn delegated_box(facts: &Facts, cgroups_path: Option<&str>) -> (Box, usize) {
    let resources: Resources =
        serde_json::from_str(r#"{"memory":{"limit":67108864},"pids":{"limit":50},"devices":[{"allow":false}]}"#).unwrap();
    let input = Input {
        id: "mine",
        cgroups_path,
        resources: Some(&resources),
        devices: &[],
        facts,
        privileged: false,
        owner: None,
        subgroup: None,
        delegated: None,
    };
    let mut findings = Findings::default();
    let plan = plan(&input, &mut findings);
    assert_eq!(findings.problems, []);
    let cgroup = survey(&plan).unwrap().create(None).unwrap();
    let warnings: Vec<_> = findings.warnings.into_iter().chain(cgroup.apply(&plan).unwrap()).collect();
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    let mut bx = Box { cgroup: Some(cgroup), children: Vec::new() };
    bx.spawn("exec sleep 100");
    (bx, warnings.len())
}
