#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

fn mounted(id: u32, device: &str, point: &str) -> Mounted {
    Mounted { id, device: device.to_owned(), point: point.to_owned(), options: "rw".to_owned() }
}

fn out(destination: &str, source: &str) -> Outside {
    Outside { destination: destination.to_owned(), source: source.into(), mapped: false, readonly: false }
}

fn namespaces(list: &[(&str, Option<&str>)]) -> Vec<Namespace> {
    let one = |(kind, path): &(&str, Option<&str>)| json!({ "type": kind, "path": path });
    serde_json::from_value(json!(list.iter().map(one).collect::<Vec<_>>())).unwrap()
}

fn stdio(link: &str, mount: u32, device: Option<(u64, u64)>) -> Option<Stdio> {
    Some(Stdio { link: link.to_owned(), mount, inode: 0x1f, device })
}

fn facts() -> DumpFacts {
    DumpFacts {
        pid: 42,
        mounts: vec![
            mounted(1, "8:1", "/"),
            mounted(2, "0:50", "/proc"),
            mounted(3, "0:5", "/proc/keys"),
            mounted(4, "8:1", "/run/data"),
            mounted(5, "0:60", "/run/data/below"),
            mounted(6, "0:61", "/run/data/own"),
            mounted(7, "0:62", "/sys/firmware"),
        ],
        host_devices: ["8:1", "0:5", "0:60"].map(str::to_owned).to_vec(),
        outside: vec![
            (out("/proc/keys", "/dev/null"), "/proc/keys".to_owned()),
            (out("/var/data", "/srv"), "/run/data".to_owned()),
            (out("/sys/firmware", "/dev/null"), "/sys/firmware".to_owned()),
        ],
        stdio: vec![
            stdio("/dev/null", 99, Some((0x103, 5))),
            stdio("pipe:[7]", 14, None),
            stdio("/dev/pts/3", 98, Some((0x8803, 0x18))),
        ],
        namespaces: vec![(Kind::Network, 4026), (Kind::Pid, 4027)],
        freezer: Some("/sys/fs/cgroup/rt/c".into()),
        config_file: None,
    }
}

fn planned(flags: &DumpFlags, facts: &DumpFacts, list: &[Namespace]) -> (Options, Saved, Vec<String>) {
    let mut findings = Findings::default();
    let record = DumpRecord { namespaces: list, has_listener: false };
    let (options, saved) = dump(flags, record, facts, &mut findings);
    (options, saved, findings.problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_dump_names_what_is_outside() {
    let list = namespaces(&[("mount", None), ("pid", None), ("network", Some("/run/netns/a"))]);
    let (options, saved, problems) = planned(&DumpFlags::default(), &facts(), &list);
    assert_eq!(problems, Vec::<String>::new());
    let expected = json!({
        "switches": ["NotifyScripts", "EvasiveDevices", "OrphanPtsMaster"],
        "pid": 42,
        "logFile": "dump.log",
        "cgroupMode": "Soft",
        "external": [
            "mnt[/proc/keys]:m0", "mnt[/run/data]:m1", "mnt[/run/data/below]:m2", "net[4026]:extRootNetNS",
            "file[63:1f]", "tty[8803:18]"
        ],
        "freezeCgroup": "/sys/fs/cgroup/rt/c"
    });
    assert_eq!(serde_json::to_value(&options).unwrap(), expected);
    let expected = json!({
        "mounts": [
            { "key": "m0", "destination": "/proc/keys" },
            { "key": "m1", "destination": "/var/data" },
            { "key": "m2", "destination": "/var/data", "below": "/below" }
        ],
        "stdio": ["file[63:1f]", "pipe:[7]", "tty[8803:18]"],
        "joined": ["network"]
    });
    assert_eq!(serde_json::to_value(&saved).unwrap(), expected);
}

#[test]
fn the_flags_of_a_dump() {
    let list = namespaces(&[("mount", None), ("pid", None)]);
    let flags = DumpFlags {
        switches: vec![Switch::LeaveRunning],
        pre_dump: true,
        parent: Some("../early".into()),
        page_server: Some("[::1]:27".to_owned()),
        cgroup_mode: Some(CgroupMode::Full),
        empty_namespaces: vec!["network".to_owned()],
        network_lock: Some(NetworkLock::Nftables),
    };
    let facts = DumpFacts { pid: 1, ..DumpFacts::default() };
    let (options, _, problems) = planned(&flags, &facts, &list);
    assert_eq!(problems, Vec::<String>::new());
    let expected = json!({
        "switches": ["NotifyScripts", "EvasiveDevices", "OrphanPtsMaster", "LeaveRunning", "TrackMem"],
        "pid": 1,
        "logFile": "dump.log",
        "pageServer": ["[::1]", 27],
        "parentImage": "../early",
        "cgroupMode": "Full",
        "emptyNamespaces": 0x4000_0000,
        "networkLock": "Nftables"
    });
    assert_eq!(serde_json::to_value(&options).unwrap(), expected);
    let flags = DumpFlags { parent: Some("/early".into()), page_server: Some(":1".to_owned()), ..DumpFlags::default() };
    let (_, _, problems) = planned(&flags, &facts, &list);
    assert_eq!(problems.len(), 2, "{problems:?}");
}

/// How CRIU finds the key of a mount point: by the beginning of the option, up to a colon.
fn key_of<'a>(names: &'a [String], point: &str) -> Option<&'a str> {
    let wanted = format!("mnt[{point}]");
    names.iter().find_map(|name| name.strip_prefix(&wanted)?.strip_prefix(':'))
}

#[test]
fn hostile_mount_points_are_read_back_or_refused() {
    let points = ["/a", "/a]", "/a]:m7", "/a]:b]:c", "/a\nb", "/a\\040b", "/a b", "/[a]", "/mnt[/a]", "/\u{1}", "/ä:b", "/a:b"];
    let names: Vec<String> = points.iter().enumerate().filter_map(|(at, point)| mount_name(point, &format!("m{at}"))).collect();
    for (at, point) in points.iter().enumerate() {
        let key = key_of(&names, point);
        match mount_name(point, "m") {
            Some(_) => assert_eq!(key, Some(format!("m{at}").as_str()), "{point:?}"),
            None => assert_eq!(key, None, "{point:?}"),
        }
    }
    let refused: Vec<_> = points.iter().filter(|point| mount_name(point, "m").is_none()).collect();
    assert_eq!(refused, [&"/a]:m7", &"/a]:b]:c", &"/a\nb", &"/a\\040b", &"/\u{1}"]);
}

#[test]
fn what_cannot_be_dumped() {
    let mut facts = facts();
    facts.outside[1].0.mapped = true;
    let mut findings = Findings::default();
    let list = namespaces(&[("mount", Some("/proc/1/ns/mnt"))]);
    dump(&DumpFlags::default(), DumpRecord { namespaces: &list, has_listener: true }, &facts, &mut findings);
    let problems: Vec<String> = findings.problems.iter().map(ToString::to_string).collect();
    let expected = [
        "linux.namespaces: no pid namespace: what is the container's cannot be told from what is the host's",
        "linux.namespaces: a mount namespace that was joined belongs to others, too, and cannot be restored",
        "linux.seccomp.listenerPath: an agent answers for the container, which cannot be restored",
        "mounts: the mapped ids of /var/data cannot be restored",
    ];
    assert_eq!(problems, expected);
}

fn plan_of(mounts: serde_json::Value) -> Plan {
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": { "args": ["x"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": "rootfs" },
        "mounts": mounts,
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }], "maskedPaths": ["/proc/keys"] }
    });
    let spec = serde_json::from_value(spec).unwrap();
    let request = crate::plan::request::Request::plain("c".parse().unwrap(), "/b".into());
    let mut findings = Findings::default();
    let plan = crate::plan::build::create(&spec, &request, &crate::host::Host::fixture(), &mut findings);
    assert_eq!(findings.problems, []);
    plan
}

fn restored(saved: &Saved, plan: &Plan, list: &[Namespace]) -> (Options, Vec<String>) {
    let facts = RestoreFacts {
        saved,
        plan,
        namespaces: list,
        stdio: [10, 11, 12],
        network: Some(13),
        pid: None,
        config_file: Some(Path::new("/etc/criu/rt.conf")),
    };
    let mut findings = Findings::default();
    let options = restore(&RestoreFlags::default(), &facts, &mut findings);
    (options, findings.problems.iter().map(ToString::to_string).collect())
}

fn saved(mounts: &[(&str, &str, &str)]) -> Saved {
    let one = |(key, destination, below): &(&str, &str, &str)| SavedMount {
        key: (*key).to_owned(),
        destination: (*destination).to_owned(),
        below: (*below).to_owned(),
    };
    Saved {
        mounts: mounts.iter().map(one).collect(),
        stdio: vec![Some("file[63:1f]".to_owned()), Some("pipe:[7]".to_owned()), Some("pipe:[7]".to_owned())],
        joined: vec!["network".to_owned(), "ipc".to_owned()],
    }
}

#[test]
fn a_restore_takes_sources_from_the_config() {
    let plan = plan_of(json!([{ "destination": "/var/data", "type": "bind", "source": "/new", "options": ["rbind", "ro"] }]));
    let list = namespaces(&[("network", Some("/run/netns/b")), ("ipc", Some("/ipc")), ("mount", None)]);
    let saved = saved(&[("m0", "/proc/keys", ""), ("m1", "/var/data", ""), ("m2", "/var/data", "/below")]);
    let (options, problems) = restored(&saved, &plan, &list);
    assert_eq!(problems, Vec::<String>::new());
    let expected = json!({
        "switches": ["NotifyScripts", "EvasiveDevices", "OrphanPtsMaster", "RstSibling"],
        "logFile": "restore.log",
        "root": "/b/rootfs",
        "cgroupMode": "Soft",
        "inherit": [["ile[63:1f]", 10], ["pipe:[7]", 11], ["extRootNetNS", 13]],
        "external": ["mnt[m0]:/dev/null", "mnt[m1]:/new", "mnt[m2]:/new/below"],
        "join": [["ipc", "/ipc"]],
        "configFile": "/etc/criu/rt.conf"
    });
    assert_eq!(serde_json::to_value(&options).unwrap(), expected);
}

#[test]
fn files_beside_the_images_choose_nothing_of_the_host() {
    let plan = plan_of(json!([{ "destination": "/data", "type": "bind", "source": "/srv/data", "options": ["bind"] }]));
    let list = namespaces(&[("network", None), ("ipc", Some("/ipc")), ("pid", Some("/pid"))]);
    let hostile = [("m0", "/data", "/../../etc"), ("m1]:/etc", "/data", ""), ("m2", "/other", "")];
    let (options, problems) = restored(&saved(&hostile), &plan, &list);
    assert_eq!(options.external, Vec::<String>::new());
    let expected = [
        "linux.namespaces: the pid namespace was the container's own when the checkpoint was made; expected no path",
        "linux.namespaces: the network namespace was joined by path when the checkpoint was made; expected a path",
        "rt.json: the mount on /data cannot be restored",
        "rt.json: the mount on /data cannot be restored",
        "mounts: nothing on /other; expected the bind mount that was there when the checkpoint was made",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn the_annotation_names_a_configuration_file_or_none() {
    let map = |value: &str| StringMap::from_iter([(ANNOTATION.to_owned(), value.to_owned())]);
    assert_eq!(config_file(&StringMap::default()), None);
    assert_eq!(config_file(&map("")), Some(None));
    assert_eq!(config_file(&map("/x")), Some(Some("/x".into())));
}
