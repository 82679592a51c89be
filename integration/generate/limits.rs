//! Control groups.

use serde_json::{Value, json};

use super::{Dice, World};

pub(super) fn memory(config: &mut Value, dice: &Dice, _: &World) {
    let limit = dice.between(32, 512) << 20;
    let mut memory = json!({ "limit": limit });
    for (key, value) in dice.some(&[
        ("swap", json!(limit * 2)),
        ("reservation", json!(limit / 2)),
        ("swappiness", json!(60)),
        ("disableOOMKiller", json!(false)),
        ("useHierarchy", json!(true)),
        ("checkBeforeUpdate", json!(true)),
        ("kernel", json!(-1)),
    ]) {
        memory[key] = value;
    }
    config["linux"]["resources"]["memory"] = memory;
}

pub(super) fn cpu(config: &mut Value, dice: &Dice, _: &World) {
    let mut cpu = json!({});
    for (key, value) in dice.some(&[
        ("shares", json!(dice.between(2, 10_000))),
        ("quota", json!(dice.pick(&[-1, 10_000, 200_000]))),
        ("period", json!(dice.pick(&[100_000, 50_000]))),
        ("cpus", json!(dice.pick_or(&["0", "0-1", "0,1"], &["77"]))),
        ("mems", json!(dice.pick_or(&["0"], &["9", "5000"]))),
    ]) {
        cpu[key] = value;
    }
    config["linux"]["resources"]["cpu"] = cpu;
}

pub(super) fn other_limits(config: &mut Value, dice: &Dice, _: &World) {
    let resources = &mut config["linux"]["resources"];
    for key in dice.some(if dice.bold { &["pids", "blockIO", "hugepageLimits", "network"] } else { &["pids", "hugepageLimits"] })
    {
        resources[key] = match key {
            "pids" => json!({ "limit": dice.pick(&[-1, 20, 1000]) }),
            "blockIO" => json!({ "weight": dice.between(10, 1000) }),
            "hugepageLimits" => json!([{ "pageSize": dice.pick_or(&["2MB", "1GB"], &["3MB"]), "limit": 2 << 20 }]),
            _ => {
                json!({ "classID": 0x10_0001, "priorities": [{ "name": dice.pick_or(&["lo"], &["nonexistent"]), "priority": 3 }] })
            }
        };
    }
}

pub(super) fn device_rules(config: &mut Value, dice: &Dice, _: &World) {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    for _ in 0..dice.below(4) {
        rules.push(json!({ "allow": dice.once_in(2), "type": dice.pick(&["c", "b", "a"]), "major": dice.pick(&[1, 5, 10, 136]),
            "minor": dice.below(10), "access": dice.pick(&["r", "rw", "rwm", "m"]) }));
    }
    config["linux"]["resources"]["devices"] = json!(rules);
}

pub(super) fn unified(config: &mut Value, dice: &Dice, _: &World) {
    let (file, value) = dice.pick(&[
        ("hugetlb.2MB.max", "2097152"),
        ("pids.max", "100"),
        ("memory.high", "max"),
        ("no.such", "1"),
        ("cgroup.max.depth", "3"),
    ]);
    config["linux"]["resources"]["unified"] = json!({ file: value });
}

/// How the names of this run's own control groups begin: another one may run at the same time.
pub fn own_groups() -> String {
    format!("rt-generated-by-{}-", std::process::id())
}

pub(super) fn cgroups_path(config: &mut Value, dice: &Dice, _: &World) {
    let name = format!("{}{}", own_groups(), dice.next());
    config["linux"]["cgroupsPath"] =
        json!(dice.pick_or(&[format!("/{name}"), format!("/{name}/a/b"), name.clone()], &[format!("/{name}/../x")]));
}

/// Rates of what every machine has (the first loop device), or of what is no disk.
pub(super) fn block_devices(config: &mut Value, dice: &Dice, _: &World) {
    let mut block = json!({});
    for key in
        dice.some(&["throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice"])
    {
        let (major, minor) = dice.pick_or(&[(7, 0)], &[(1, 3), (999, 999), (-1, 0), (7, 1 << 21)]);
        block[key] = json!([{ "major": major, "minor": minor, "rate": dice.pick(&[0, 1, 1 << 20, u64::MAX]) }]);
    }
    if dice.once_in(3) {
        block["weight"] = json!(dice.pick_or(&[10, 1000], &[9, 1001, 0]));
        block["weightDevice"] = json!([{ "major": 7, "minor": 0, "weight": dice.pick_or(&[10, 1000], &[9, 1001]) }]);
    }
    if dice.once_in(4) {
        block["leafWeight"] = json!(500);
    }
    config["linux"]["resources"]["blockIO"] = block;
}

/// Values that kernels refuse.
pub(super) fn strange_limits(config: &mut Value, dice: &Dice, _: &World) {
    let (controller, limits) = dice.pick(&[
        ("cpu", json!({ "period": 999 })),
        ("cpu", json!({ "period": 1_000_001, "quota": 5000 })),
        ("cpu", json!({ "quota": 999 })),
        ("cpu", json!({ "quota": i64::MAX })),
        ("cpu", json!({ "quota": 5000, "burst": 5001 })),
        ("cpu", json!({ "burst": u64::MAX })),
        ("cpu", json!({ "shares": u64::MAX })),
        ("cpu", json!({ "idle": 1, "shares": 5 })),
        ("cpu", json!({ "idle": -1 })),
        ("cpu", json!({ "cpus": "1-0" })),
        ("cpu", json!({ "cpus": "x", "mems": "y" })),
        ("cpu", json!({ "cpus": "all" })),
        ("cpu", json!({ "cpus": "99999999999" })),
        ("cpu", json!({ "mems": "1" })),
        ("cpu", json!({ "mems": "1023" })),
        ("cpu", json!({ "mems": "1024" })),
        ("pids", json!({ "limit": 4_194_304 })),
        ("pids", json!({ "limit": 4_194_305 })),
        ("pids", json!({ "limit": i64::MAX })),
        ("memory", json!({ "limit": 256 << 20, "swap": 255 << 20 })),
        ("memory", json!({ "swap": 256 << 20 })),
        ("memory", json!({ "limit": -1, "swap": 256 << 20 })),
        ("memory", json!({ "limit": 256 << 20, "swap": -1 })),
        ("memory", json!({ "limit": 256 << 20, "reservation": 1i64 << 40 })),
        ("memory", json!({ "limit": -2 })),
        ("memory", json!({ "limit": i64::MAX })),
        ("memory", json!({ "swappiness": 101 })),
        (
            "memory",
            json!({ "limit": 256 << 20, "kernel": 1, "kernelTCP": 4096, "useHierarchy": false, "disableOOMKiller": true }),
        ),
        ("hugepageLimits", json!([{ "pageSize": "2MB", "limit": u64::MAX }])),
        ("network", json!({ "priorities": [{ "name": "nonexistent", "priority": 1 }] })),
        ("devices", json!([{ "allow": true, "type": "c", "major": -2, "access": "r" }])),
        ("devices", json!([{ "allow": true, "type": "x", "access": "r" }])),
        ("rdma", json!({ "mlx5_1": {} })),
        ("unified", json!({ "cgroup.max.depth": "x" })),
        ("unified", json!({ "hugetlb.nosuch": "1" })),
        ("unified", json!({ "hugetlb.2MB.max": "x" })),
    ]);
    config["linux"]["resources"][controller] = limits;
}

pub(super) fn realtime(config: &mut Value, dice: &Dice, _: &World) {
    config["linux"]["resources"]["cpu"] = json!({ "realtimePeriod": dice.pick(&[0, 1, 500_000, 1_000_000]), "realtimeRuntime": dice.pick(&[0, 1, 1000, 475_001, 999_999]) });
}
