//! The plans of the bundles in bundles/, compared with tests/golden/: a change of behaviour shows as a change of these texts.
//!
//! `UPDATE_GOLDEN=1 cargo test --test golden` writes them anew; read the difference before it is committed. Every plan is also played:
//! the conversation of its processes must come to its end with nothing unread (`launch::script`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use rt::cgroups::systemd::Systemd;
use rt::cgroups::{CgroupRecord, Facts, Place, Recorded, Version};
use rt::host::Host;
use rt::host::subordinate::Subordinate;
use rt::launch::script;
use rt::plan::exec as plan_exec;
use rt::plan::rehearsal::rehearsal;
use rt::plan::request::Request;
use rt::plan::{Findings, Plan, StartSignal, print};
use rt::plan::{automatic, build};
use rt::spec::{self, Spec};
use rt::state::Record;
use rt::state::record::{LAYOUT, Phase, SeccompRecord};

/// The hosts that plans are made for.
#[derive(Clone, Copy, PartialEq)]
enum On {
    /// Root, control groups version 2.
    Root,
    /// An ordinary user.
    User,
    /// An ordinary user with subordinate ids.
    Subordinate,
    /// Root, version 1 beside a version 2 tree.
    Hybrid,
    /// Root, with systemd for the control groups.
    Systemd,
    /// Root, with every security module and Intel RDT.
    Equipped,
}

impl On {
    fn host(self) -> Host {
        match self {
            Self::Root => Host::fixture(),
            Self::User => Host::fixture_rootless(),
            Self::Subordinate => {
                let range = vec![(100_000, 65536)];
                Host { subordinate: Some(Subordinate { uids: range.clone(), gids: range }), ..Host::fixture_rootless() }
            }
            Self::Equipped => Host { apparmor: true, selinux: true, resctrl: Some("/sys/fs/resctrl".into()), ..Host::fixture() },
            Self::Systemd => {
                let host = Host::fixture();
                Host { cgroups: Facts { systemd: Some(Systemd::fixture()), ..host.cgroups }, ..host }
            }
            Self::Hybrid => Host { cgroups: Facts::hybrid_fixture(), ..Host::fixture() },
        }
    }
}

/// The name of the golden file, its bundle, and the host that it is planned for.
const PLANS: &[(&str, &str, On)] = &[
    ("all-namespaces", "all-namespaces", On::Root),
    // What has no user namespace and gets one.
    ("automatic", "engine", On::Subordinate),
    ("automatic-of-one-id", "minimal", On::User),
    ("delegated", "delegated", On::Root),
    ("delegated-by-systemd", "delegated", On::Systemd),
    ("engine", "engine", On::Root),
    ("engine-hybrid", "engine", On::Hybrid),
    ("hooks", "hooks", On::Root),
    ("hooks-inside", "hooks-inside", On::Root),
    ("joined-user-namespace", "joined-user-namespace", On::Root),
    ("minimal", "minimal", On::Root),
    ("newer-fields", "newer-fields", On::Equipped),
    ("pod-member", "pod-member", On::Root),
    ("pod-sandbox", "pod-sandbox", On::Root),
    ("rootless", "rootless", On::User),
    ("terminal", "terminal", On::Root),
    ("user-namespace", "user-namespace", On::Root),
];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn load(bundle: &str) -> Spec {
    spec::load::load(&repository("bundles").join(bundle), Path::new("config.json")).unwrap()
}

/// What `rt create` or `rt run` would be asked; the bundle's path is the same on every machine.
fn request(spec: &Spec, start: StartSignal) -> Request {
    let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    Request {
        start,
        detached: start == StartSignal::Fifo,
        console_socket: (terminal && start == StartSignal::Fifo).then(|| "/console.sock".into()),
        pid_file: (start == StartSignal::Fifo).then(|| "/pid".into()),
        ..Request::plain("golden".parse().unwrap(), "/bundle".into())
    }
}

/// The plan, or every reason why there is none: an ordinary user may not do what root may.
fn plan(spec: &Spec, on: On, start: StartSignal) -> (Plan, Findings) {
    let mut findings = Findings::default();
    // As every command does that makes a container.
    let changed = automatic::user_namespace(spec, &on.host(), &mut findings);
    let request = Request { systemd_cgroup: on == On::Systemd, ..request(spec, start) };
    let plan = build::create(changed.as_ref().unwrap_or(spec), &request, &on.host(), &mut findings);
    (plan, findings)
}

/// The plan as text; problems come first.
fn text(plan: &Plan, findings: &Findings) -> String {
    let problems: String = findings.problems.iter().map(|problem| format!("problem: {problem}\n")).collect();
    problems + &print::text(plan)
}

fn compare(file: &str, text: &str) {
    let path = repository("tests/golden").join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    if golden == text {
        return;
    }
    let place = golden.lines().zip(text.lines()).position(|(old, new)| old != new);
    let line = place.unwrap_or_else(|| golden.lines().count().min(text.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
    panic!(
        "{} differs from line {} on (UPDATE_GOLDEN=1 rewrites it):\n- {}\n+ {}",
        path.display(),
        line + 1,
        at(&golden),
        at(text)
    );
}

#[test]
fn plans_are_as_written() {
    for (name, bundle, on) in PLANS {
        let (plan, findings) = plan(&load(bundle), *on, StartSignal::Fifo);
        compare(&format!("{name}.txt"), &text(&plan, &findings));
    }
}

#[test]
fn a_plan_for_programs() {
    let (plan, _) = plan(&load("minimal"), On::Root, StartSignal::Fifo);
    compare("minimal.json", &format!("{:#}\n", print::json(&plan)));
}

#[test]
fn every_bundle_has_a_plan_and_every_golden_file_a_bundle() {
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(repository(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    for bundle in names("bundles") {
        assert!(PLANS.iter().any(|(_, of, _)| *of == bundle), "{bundle} has no golden plan");
    }
    let written = PLANS.iter().flat_map(|(name, ..)| ["txt", "exec.txt", "hot.txt", "json"].map(|kind| format!("{name}.{kind}")));
    let written: Vec<String> = written.collect();
    for file in names("tests/golden") {
        assert!(written.contains(&file), "{file} belongs to no bundle");
    }
}

#[test]
fn no_bundle_has_a_problem() {
    for (name, bundle, on) in PLANS {
        let (_, findings) = plan(&load(bundle), *on, StartSignal::Fifo);
        assert!(findings.problems.is_empty(), "{name}: {:?}", findings.problems);
    }
}

#[test]
fn every_conversation_comes_to_its_end() {
    for (name, bundle, on) in PLANS {
        let spec = load(bundle);
        for start in [StartSignal::Fifo, StartSignal::Link] {
            let (created, _) = plan(&spec, *on, start);
            script::play(&created).unwrap_or_else(|why| panic!("{name}, {start:?}: {why}"));
            let exec = exec_plan(&spec, &created, *on, start);
            script::play(&exec).unwrap_or_else(|why| panic!("exec in {name}, {start:?}: {why}"));
        }
    }
}

#[test]
fn plans_of_exec_are_as_written() {
    for name in ["engine", "newer-fields", "rootless", "terminal"] {
        let (_, bundle, on) = PLANS.iter().find(|(of, ..)| *of == name).unwrap();
        let spec = load(bundle);
        let (created, _) = plan(&spec, *on, StartSignal::Fifo);
        let exec = exec_plan(&spec, &created, *on, StartSignal::Link);
        compare(&format!("{name}.exec.txt"), &print::text(&exec));
    }
}

/// Another process like the first one, in the container that the plan would have made.
fn exec_plan(spec: &Spec, created: &Plan, on: On, start: StartSignal) -> Plan {
    let record = record(spec, created);
    let process = spec.process.clone().unwrap();
    let request = Request { console_socket: None, detached: false, pid_file: None, ..request(spec, start) };
    let mut findings = Findings::default();
    let seccomp = created.seccomp.clone();
    plan_exec::exec(&record, &process, seccomp, &request, &on.host(), &mut findings)
}

/// What `rt mounts add` would do to containers of these bundles, with every kind of mount that it knows.
#[test]
fn plans_of_added_mounts_are_as_written() {
    let list: Vec<rt::spec::Mount> = serde_json::from_value(serde_json::json!([
        { "destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "ro", "nosuid"] },
        { "destination": "/etc/one", "source": "/srv/one", "options": ["bind", "rprivate"] },
        { "destination": "scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=700", "noexec"] },
        { "destination": "/sys2", "type": "sysfs", "source": "sysfs", "options": ["ro"] },
        { "destination": "/queues", "type": "mqueue", "source": "mqueue" },
    ]))
    .unwrap();
    for name in ["engine", "newer-fields", "rootless", "user-namespace", "automatic"] {
        let (_, bundle, on) = PLANS.iter().find(|(of, ..)| *of == name).unwrap();
        let spec = load(bundle);
        let (created, _) = plan(&spec, *on, StartSignal::Fifo);
        let automatic = automatic::user_namespace(&spec, &on.host(), &mut Findings::default());
        let record = record(automatic.as_ref().unwrap_or(&spec), &created);
        let mut findings = Findings::default();
        let adding = rt::plan::mounts::add(&list, &record, &on.host(), &mut findings);
        let said = findings.problems.iter().map(|problem| format!("problem: {problem}\n"));
        let warned = findings.warnings.iter().map(|warning| format!("warning: {warning}\n"));
        compare(&format!("{name}.hot.txt"), &(said.chain(warned).collect::<String>() + &adding.to_string()));
    }
}

/// The record of a container that was made by this plan, in a group of its own.
fn record(spec: &Spec, created: &Plan) -> Record {
    let linux = spec.linux.clone().unwrap_or_default();
    let recorded = |place: &Place| Recorded { place: place.clone(), ours: true, parents: Vec::new() };
    let directories: Vec<Recorded> = created.cgroup.places.iter().map(|planned| recorded(&planned.step)).collect();
    assert!(directories.iter().filter(|directory| directory.place.version == Version::V2).count() <= 1);
    Record {
        layout: LAYOUT,
        id: created.id.clone(),
        phase: Phase::Made,
        bundle: created.bundle.clone(),
        rootfs: created.rootfs.clone(),
        created: "2024-01-01T00:00:00Z".to_owned(),
        owner: 0,
        annotations: spec.annotations.clone(),
        cgroup: CgroupRecord { directories, ..CgroupRecord::default() },
        device_rules: Vec::new(),
        devices: Vec::new(),
        maker: None,
        init: None,
        process: spec.process.clone(),
        namespaces: linux.namespaces,
        uid_mappings: linux.uid_mappings,
        gid_mappings: linux.gid_mappings,
        seccomp: created.seccomp.as_ref().map(|filter| SeccompRecord { flags: filter.flags, listener: filter.listener.clone() }),
        personality: linux.personality,
        memory_policy: linux.memory_policy,
        net_devices: linux.net_devices,
        resctrl: created.resctrl.as_ref().map(rt::resctrl::group::record),
        keyring: Some("_ses.golden".to_owned()),
        poststart: Vec::new(),
        poststop: Vec::new(),
        host_mounts: created.host_mounts(),
        remover: None,
        poststop_begun: 0,
        hooks_begun: false,
        warnings: Vec::new(),
        outside: rt::criu::plan::outside(created),
        mount_label: linux.mount_label,
        added: Vec::new(),
    }
}

/// A rehearsal keeps the numbers and the names of the steps, and its conversation comes to its end, too.
#[test]
fn rehearsals_are_the_plans() {
    for (name, bundle, on) in PLANS {
        let spec = load(bundle);
        let (plan, findings) = plan(&spec, *on, StartSignal::Fifo);
        if !findings.problems.is_empty() {
            continue;
        }
        let Ok(made) = rehearsal(&plan, &on.host().cgroups) else { continue };
        let texts = |plan: &Plan| {
            let launcher = plan.launcher.iter().map(|planned| format!("{} ({})", planned.step, planned.origin));
            let init = plan.init.iter().map(|planned| format!("{} ({})", planned.step, planned.origin));
            launcher.chain(init).collect::<Vec<_>>()
        };
        assert_eq!(texts(&made.plan), texts(&plan), "{name}");
        script::play(&made.plan).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}
