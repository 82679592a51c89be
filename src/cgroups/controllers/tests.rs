#![allow(clippy::unwrap_used)]

use super::super::facts::Facts;
use super::super::plan::{CgroupPlan, Input, plan, plan_update};
use super::super::steps::{CgroupRecord, Recorded, Step, Tolerance, Write};
use super::{blkio, cpu, memory, others};
use crate::plan::Findings;
use crate::spec::Resources;

const ALL: [&str; 7] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"];

struct Outcome {
    plan: CgroupPlan,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Outcome {
    fn writes(&self) -> Vec<&Write> {
        fn write(step: &Step) -> Option<&Write> {
            if let Step::Write(write) = step { Some(write) } else { None }
        }
        self.plan.steps.iter().filter_map(|planned| write(&planned.step)).collect()
    }

    fn values(&self) -> Vec<String> {
        self.writes().iter().map(|write| format!("{}={}", write.file, write.value)).collect()
    }
}

fn run_as(facts: &Facts, json: &str, privileged: bool) -> Outcome {
    let resources: Resources = serde_json::from_str(json).unwrap();
    let mut findings = Findings::default();
    let input = Input {
        id: "web",
        cgroups_path: None,
        resources: Some(&resources),
        devices: &[],
        facts,
        privileged,
        owner: None,
        subgroup: None,
        delegated: None,
    };
    let plan = plan(&input, &mut findings);
    let texts = |list: &[crate::error::Problem]| list.iter().map(ToString::to_string).collect();
    Outcome { plan, problems: texts(&findings.problems), warnings: texts(&findings.warnings) }
}

fn v2(json: &str) -> Outcome {
    run_as(&Facts::unified_fixture(&ALL), json, true)
}

fn hybrid(json: &str) -> Outcome {
    run_as(&Facts::hybrid_fixture(), json, true)
}

fn values_v2(json: &str) -> Vec<String> {
    let outcome = v2(json);
    assert_eq!((outcome.problems.clone(), outcome.warnings.clone()), (vec![], vec![]), "{json}");
    outcome.values()
}

fn values_v1(json: &str) -> Vec<String> {
    let outcome = hybrid(json);
    assert_eq!((outcome.problems.clone(), outcome.warnings.clone()), (vec![], vec![]), "{json}");
    outcome.values()
}

#[test]
fn cpu_weight() {
    let table =
        [(2, 1), (3, 2), (10, 4), (100, 17), (102, 17), (512, 59), (1024, 100), (2048, 174), (10240, 639), (262_144, 10_000)];
    for (shares, weight) in table {
        assert_eq!(cpu::weight(shares), weight, "{shares}");
    }
    assert_eq!(cpu::weight(1), 1);
    assert_eq!(cpu::weight(u64::MAX), 10_000);
    assert!((2..262_144).step_by(97).all(|shares| cpu::weight(shares) <= cpu::weight(shares + 97)), "ascending");
}

#[test]
fn cpu_max() {
    let table = [
        ((0, 0), None),
        ((20000, 0), Some("20000")),
        ((20000, 100_000), Some("20000 100000")),
        ((-1, 0), Some("max")),
        ((-1, 50000), Some("max 50000")),
        ((0, 50000), Some("max 50000")),
    ];
    for ((quota, period), text) in table {
        assert_eq!(cpu::max(quota, period).as_deref(), text, "{quota} {period}");
    }
}

#[test]
fn swap() {
    let table = [
        ((0, 0), Ok(None)),
        ((100, 0), Ok(None)),
        ((100, 100), Ok(Some(0))),
        ((100, 300), Ok(Some(200))),
        ((100, -1), Ok(Some(-1))),
        ((-1, 0), Ok(Some(-1))),
        ((-1, -1), Ok(Some(-1))),
        ((0, -1), Ok(Some(-1))),
    ];
    for ((limit, both), expected) in table {
        assert_eq!(memory::swap(limit, both), expected, "{limit} {both}");
    }
    for (limit, both) in [(0, 100), (-1, 100), (100, 99)] {
        assert!(memory::swap(limit, both).unwrap_err().starts_with("expected "), "{limit} {both}");
    }
}

#[test]
fn io_weight() {
    for (weight, expected) in [(10, 1), (100, 910), (500, 4950), (1000, 10_000)] {
        assert_eq!(blkio::io_weight(weight), expected);
    }
}

#[test]
fn page_sizes() {
    assert!(["64KB", "2MB", "1GB", "16GB"].into_iter().all(others::is_page_size));
    let wrong = ["", "MB", "2M", "2mb", "02MB", "../x", "2/MB", "2MB/..", "+2MB", "2 MB", "1TB", "2KiB"];
    assert!(!wrong.into_iter().any(others::is_page_size));
}

#[test]
fn the_expected_values_of_version_2() {
    let json = r#"{"memory":{"limit":67108864,"reservation":33554432,"swap":67108864},
        "cpu":{"shares":512,"quota":20000,"period":100000,"cpus":"0"},"pids":{"limit":50}}"#;
    let expected = [
        "memory.swap.max=0",
        "memory.max=67108864",
        "memory.low=33554432",
        "cpu.weight=59",
        "cpu.max=20000 100000",
        "cpuset.cpus=0",
        "pids.max=50",
    ];
    assert_eq!(values_v2(json), expected);
}

#[test]
fn memory_of_version_1() {
    let json = r#"{"memory":{"limit":100,"swap":200,"reservation":50,"kernelTCP":7,"swappiness":0,"disableOOMKiller":true,"useHierarchy":true}}"#;
    let expected = [
        "memory.limit_in_bytes=100",
        "memory.memsw.limit_in_bytes=200",
        "memory.soft_limit_in_bytes=50",
        "memory.kmem.tcp.limit_in_bytes=7",
        "memory.swappiness=0",
        "memory.oom_control=1",
        "memory.use_hierarchy=1",
    ];
    assert_eq!(values_v1(json), expected);
    assert_eq!(values_v1(r#"{"memory":{"limit":-1}}"#), ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"]);
    assert_eq!(values_v2(r#"{"memory":{"limit":-1}}"#), ["memory.swap.max=max", "memory.max=max"]);
}

#[test]
fn memory_check_comes_before_the_limit() {
    let outcome = v2(r#"{"memory":{"limit":100,"checkBeforeUpdate":true}}"#);
    let position = |wanted: &dyn Fn(&Step) -> bool| outcome.plan.steps.iter().position(|planned| wanted(&planned.step)).unwrap();
    let check = position(&|step| matches!(step, Step::CheckMemory { limit: 100, .. }));
    assert!(check < position(&|step| matches!(step, Step::Write(write) if write.file == "memory.max")));
}

#[test]
fn cpu_of_version_1() {
    let json = r#"{"cpu":{"shares":1024,"quota":-1,"period":100000,"burst":0,"realtimeRuntime":5,"realtimePeriod":9,"cpus":"0-1","mems":"0","idle":0}}"#;
    let expected = [
        "cpu.rt_period_us=9",
        "cpu.rt_runtime_us=5",
        "cpu.idle=0",
        "cpu.shares=1024",
        "cpu.cfs_period_us=100000",
        "cpu.cfs_quota_us=-1",
        "cpu.cfs_burst_us=0",
        "cpuset.cpus=0-1",
        "cpuset.mems=0",
    ];
    assert_eq!(values_v1(json), expected);
}

#[test]
fn pids() {
    for (limit, expected) in [("0", "pids.max=0"), ("-1", "pids.max=max"), ("7", "pids.max=7")] {
        let json = format!(r#"{{"pids":{{"limit":{limit}}}}}"#);
        assert_eq!(values_v1(&json), [expected]);
        assert_eq!(values_v2(&json), [expected]);
    }
    assert_eq!(values_v1(r#"{"pids":{}}"#), [""; 0]);
}

#[test]
fn block_io() {
    let json = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":100}],
        "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],"throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}"#;
    let expected = [
        "blkio.bfq.weight=500",
        "blkio.bfq.weight_device=8:0 100",
        "blkio.throttle.read_bps_device=8:0 600",
        "blkio.throttle.write_iops_device=8:16 0",
    ];
    assert_eq!(values_v1(json), expected);
    let expected = ["io.bfq.weight=500", "io.bfq.weight=8:0 100", "io.max=8:0 rbps=600", "io.max=8:16 wiops=max"];
    assert_eq!(values_v2(json), expected);
    let outcome = v2(json);
    assert_eq!(outcome.writes()[0].instead, Some(("io.weight".into(), "4950".into())));
    assert_eq!(outcome.writes()[1].instead, Some(("io.weight".into(), "8:0 910".into())));
}

#[test]
fn huge_pages_are_where_the_controller_is() {
    let outcome = hybrid(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4}]}"#);
    assert_eq!(outcome.values(), ["hugetlb.2MB.max=4", "hugetlb.2MB.rsvd.max=4"]);
    assert_eq!(outcome.writes()[1].tolerance, Tolerance::IfPresent);
    let enable = Step::Enable {
        place: 9,
        controllers: vec!["hugetlb".into()],
        required: vec!["hugetlb".into()],
        tolerance: Tolerance::Required,
    };
    assert_eq!(outcome.plan.steps[0].step, enable);
}

#[test]
fn rdma_and_unified() {
    let json = r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10},"rxe3":{"hcaObjects":1}},
        "unified":{"memory.high":"5","io.max":"8:0 rbps=1\n8:1 wbps=2","cgroup.max.depth":"3"}}"#;
    let expected = [
        "rdma.max=mlx5_1 hca_handle=3 hca_object=10",
        "rdma.max=rxe3 hca_object=1",
        "memory.high=5",
        "io.max=8:0 rbps=1",
        "io.max=8:1 wbps=2",
        "cgroup.max.depth=3",
    ];
    assert_eq!(values_v2(json), expected);
}

#[test]
fn origins_are_config_paths() {
    let outcome = v2(r#"{"unified":{"pids.max":"5"},"memory":{"limit":9}}"#);
    let lines = outcome.plan.lines();
    assert!(lines.contains(&"set pids.max to \"5\" (linux.resources.unified[\"pids.max\"])".to_owned()), "{lines:?}");
    assert!(lines.contains(&"set memory.max to \"9\" (linux.resources.memory.limit)".to_owned()), "{lines:?}");
    assert_eq!(lines[1], "enable cgroup controllers cpuset cpu io memory hugetlb pids rdma (default: cgroup controllers)");
}

#[test]
fn problems() {
    let without = "found one of cgroup v1 without a counterpart";
    let file = "linux.resources.unified[\"../x.y\"]: expected the name of a cgroup v2 file that limits resources";
    let table = [
        (r#"{"cpu":{"realtimeRuntime":5}}"#, without),
        (r#"{"memory":{"swappiness":5}}"#, without),
        (r#"{"memory":{"disableOOMKiller":true}}"#, without),
        (r#"{"blockIO":{"leafWeight":50}}"#, without),
        (r#"{"network":{"classID":5}}"#, "linux.resources.network.classID: expected the cgroup v1 controller `net_cls`"),
        (r#"{"memory":{"limit":-2}}"#, "linux.resources.memory.limit: expected a number of bytes or -1, found -2"),
        (r#"{"memory":{"swap":5}}"#, "linux.resources.memory.swap: expected a memory limit beside"),
        (r#"{"cpu":{"quota":5000,"burst":5001}}"#, "linux.resources.cpu.burst: expected at most the quota of 5000, found 5001"),
        (r#"{"cpu":{"quota":999}}"#, "linux.resources.cpu.quota: expected 1000 to 17592186044415 microseconds, or -1, found 999"),
        (r#"{"cpu":{"period":1000001}}"#, "linux.resources.cpu.period: expected 1000 to 1000000 microseconds, found 1000001"),
        (r#"{"pids":{"limit":4194305}}"#, "linux.resources.pids.limit: expected at most 4194304, or -1, found 4194305"),
        (r#"{"blockIO":{"weight":5}}"#, "linux.resources.blockIO.weight: expected 10 to 1000, found 5"),
        (r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#, "linux.resources.hugepageLimits[0].pageSize: expected a size"),
        (r#"{"rdma":{"x":{}}}"#, "linux.resources.rdma[\"x\"]: expected hcaHandles or hcaObjects"),
        (r#"{"unified":{"../x.y":"1"}}"#, file),
        (r#"{"unified":{"cgroup.procs":"1"}}"#, "expected the name of a cgroup v2 file that limits resources"),
        (r#"{"unified":{"misc.max":"1"}}"#, "expected the cgroup v2 controller `misc` to be available"),
    ];
    for (json, text) in table {
        let problems = v2(json).problems;
        assert!(problems.len() == 1 && problems[0].contains(text), "{json}: {problems:?}");
    }
}

#[test]
fn unified_needs_the_controller_on_version_2() {
    let problems = hybrid(r#"{"unified":{"memory.max":"1"}}"#).problems;
    assert!(problems[0].contains("expected the cgroup v2 controller `memory`"), "{problems:?}");
    assert_eq!(values_v1(r#"{"unified":{"hugetlb.2MB.max":"1"}}"#), ["hugetlb.2MB.max=1"]);
}

#[test]
fn nothing_asked_of_an_absent_controller() {
    let json = r#"{"memory":{"limit":0,"swap":0,"useHierarchy":true,"disableOOMKiller":false},"cpu":{"shares":0,"quota":0,"burst":0,"idle":0,"cpus":""},
        "pids":{"limit":-1},"blockIO":{"weight":0},"hugepageLimits":[{"pageSize":"2MB","limit":0}],"network":{"classID":0}}"#;
    let outcome = run_as(&Facts::unified_fixture(&[]), json, true);
    assert_eq!((outcome.problems.clone(), outcome.warnings.clone()), (vec![], vec![]));
    assert_eq!(outcome.values(), [""; 0]);
}

#[test]
fn without_delegation_limits_are_warnings() {
    let mut facts = Facts::unified_fixture(&["pids"]);
    let json = r#"{"memory":{"limit":5},"pids":{"limit":3}}"#;
    let outcome = run_as(&facts, json, false);
    assert_eq!(outcome.problems, [""; 0]);
    assert!(outcome.warnings[0].starts_with("linux.resources.memory: not applied: the cgroup controller `memory`"));
    assert_eq!(outcome.writes()[0].tolerance, Tolerance::WarnIfUnsupported);
    facts.v2.as_mut().unwrap().writable = false;
    let outcome = run_as(&facts, json, false);
    assert_eq!((outcome.plan.places.len(), outcome.plan.steps.len(), outcome.warnings.len()), (0, 0, 2));
}

#[test]
fn an_update_leaves_devices_alone() {
    let resources: Resources = serde_json::from_str(r#"{"pids":{"limit":9},"devices":[{"allow":true}]}"#).unwrap();
    let created = v2("{}");
    let recorded = |place: &crate::plan::Planned<_>| Recorded { place: Clone::clone(&place.step), ours: true, parents: vec![] };
    let record = CgroupRecord { directories: created.plan.places.iter().map(recorded).collect(), ..CgroupRecord::default() };
    let update = plan_update(&resources, &record, true, &mut Findings::default());
    assert!(!update.steps.iter().any(|planned| matches!(planned.step, Step::DeviceProgram { .. })));
    assert_eq!(update.steps.len(), 2);
}
