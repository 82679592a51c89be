//! Every field of `linux.resources`: what the kernel's file says from outside. The table has the names of both versions; each
//! row is checked where the machine has the controller. The effects, as seen from inside, are in `effects`.

use serde_json::{Value, json};

use crate::ctx::{Ctx, read};
use crate::hierarchy::{Version, folder, version};
use crate::runner::Outcome::{self, Pass, Skip};

/// What becomes of a field in one version.
enum Seen {
    /// Files, in which a line has this value. `DISK` stands for the number of the disk that holds the bundle.
    Files(&'static [(&'static str, &'static str)]),
    /// The same, where the kernel can be built without it.
    IfBuilt(&'static [(&'static str, &'static str)]),
    /// The first of these files that there is.
    FirstOf(&'static [(&'static str, &'static str)]),
    /// Refused, with this in the text.
    Refused(&'static str),
    /// A warning with this in it; the container runs.
    Warned(&'static str),
}

use Seen::{Files, FirstOf, IfBuilt, Refused, Warned};

/// Makes a test of each row: name, controller, the resources, what is seen in version 1 and in version 2.
macro_rules! rows {
    ($($name:ident($controller:literal) $json:tt v1 $v1:expr, v2 $v2:expr;)*) => {
        $(fn $name(ctx: &Ctx) -> Outcome { check(ctx, $controller, json!($json), &$v1, &$v2) })*
        tests! { Root { $($name),* } }
    };
}

const NO_COUNTERPART: Seen = Refused("without a counterpart");

rows! {
    memory_limit("memory") { "memory": { "limit": 67_108_864 } }
        v1 Files(&[("memory.limit_in_bytes", "67108864")]), v2 Files(&[("memory.max", "67108864")]);
    memory_without_limit("memory") { "memory": { "limit": -1 } }
        v1 Files(&[("memory.limit_in_bytes", "9223372036854771712")]), v2 Files(&[("memory.max", "max")]);
    memory_reservation("memory") { "memory": { "reservation": 33_554_432 } }
        v1 Files(&[("memory.soft_limit_in_bytes", "33554432")]), v2 Files(&[("memory.low", "33554432")]);
    memory_swap("memory") { "memory": { "limit": 67_108_864, "swap": 100_663_296 } }
        v1 IfBuilt(&[("memory.memsw.limit_in_bytes", "100663296")]), v2 IfBuilt(&[("memory.swap.max", "33554432")]);
    memory_swap_unlimited("memory") { "memory": { "limit": 67_108_864, "swap": -1 } }
        v1 IfBuilt(&[("memory.memsw.limit_in_bytes", "9223372036854771712")]), v2 IfBuilt(&[("memory.swap.max", "max")]);
    memory_without_swap("memory") { "memory": { "limit": 67_108_864, "swap": 67_108_864 } }
        v1 IfBuilt(&[("memory.memsw.limit_in_bytes", "67108864")]), v2 IfBuilt(&[("memory.swap.max", "0")]);
    memory_kernel("memory") { "memory": { "kernel": 33_554_432 } }
        v1 Warned("kernel memory cannot be limited on its own"), v2 Warned("counts this memory as part of memory.limit");
    memory_kernel_tcp("memory") { "memory": { "kernelTCP": 8_388_608 } }
        v1 IfBuilt(&[("memory.kmem.tcp.limit_in_bytes", "8388608")]), v2 Warned("counts this memory as part of memory.limit");
    memory_swappiness("memory") { "memory": { "swappiness": 17 } }
        v1 Files(&[("memory.swappiness", "17")]), v2 NO_COUNTERPART;
    memory_disable_oom_killer("memory") { "memory": { "limit": 67_108_864, "disableOOMKiller": true } }
        v1 Files(&[("memory.oom_control", "oom_kill_disable 1")]), v2 NO_COUNTERPART;
    memory_use_hierarchy("memory") { "memory": { "useHierarchy": true } }
        v1 Files(&[("memory.use_hierarchy", "1")]), v2 Files(&[]);
    memory_use_no_hierarchy("memory") { "memory": { "useHierarchy": false } }
        v1 Warned("memory.use_hierarchy"), v2 Warned("always hierarchical");
    memory_check_before_update("memory") { "memory": { "limit": 67_108_864, "checkBeforeUpdate": true } }
        v1 Files(&[("memory.limit_in_bytes", "67108864")]), v2 Files(&[("memory.max", "67108864")]);
    cpu_shares("cpu") { "cpu": { "shares": 512 } }
        v1 Files(&[("cpu.shares", "512")]), v2 Files(&[("cpu.weight", "59")]);
    cpu_shares_of_the_default("cpu") { "cpu": { "shares": 1024 } }
        v1 Files(&[("cpu.shares", "1024")]), v2 Files(&[("cpu.weight", "100")]);
    cpu_quota_and_period("cpu") { "cpu": { "quota": 20_000, "period": 50_000 } }
        v1 Files(&[("cpu.cfs_quota_us", "20000"), ("cpu.cfs_period_us", "50000")]), v2 Files(&[("cpu.max", "20000 50000")]);
    cpu_burst("cpu") { "cpu": { "quota": 20_000, "period": 50_000, "burst": 10_000 } }
        v1 IfBuilt(&[("cpu.cfs_burst_us", "10000")]), v2 IfBuilt(&[("cpu.max.burst", "10000")]);
    cpu_idle("cpu") { "cpu": { "idle": 1 } }
        // The kernel's least weight goes with it: in version 2 it reads as 0, or as 1 in newer kernels.
        v1 IfBuilt(&[("cpu.idle", "1"), ("cpu.shares", "3")]), v2 IfBuilt(&[("cpu.idle", "1")]);
    cpu_realtime("cpu") { "cpu": { "realtimeRuntime": 5000, "realtimePeriod": 500_000 } }
        v1 IfBuilt(&[("cpu.rt_runtime_us", "5000"), ("cpu.rt_period_us", "500000")]), v2 NO_COUNTERPART;
    cpu_cpus_and_mems("cpuset") { "cpu": { "cpus": "0", "mems": "0" } }
        v1 Files(&[("cpuset.cpus", "0"), ("cpuset.mems", "0")]), v2 Files(&[("cpuset.cpus", "0"), ("cpuset.mems", "0")]);
    pids_limit("pids") { "pids": { "limit": 17 } }
        v1 Files(&[("pids.max", "17")]), v2 Files(&[("pids.max", "17")]);
    pids_without_limit("pids") { "pids": { "limit": -1 } }
        v1 Files(&[("pids.max", "max")]), v2 Files(&[("pids.max", "max")]);
    block_weight("blkio") { "blockIO": { "weight": 500 } }
        v1 FirstOf(&[("blkio.bfq.weight", "500"), ("blkio.weight", "500")]),
        v2 FirstOf(&[("io.bfq.weight", "default 500"), ("io.weight", "default 4950")]);
    block_weight_of_a_disk("blkio") { "blockIO": { "weightDevice": ["DISK", 300, "weight"] } }
        v1 FirstOf(&[("blkio.bfq.weight_device", "DISK 300"), ("blkio.weight_device", "DISK 300")]),
        v2 FirstOf(&[("io.bfq.weight", "DISK 300"), ("io.weight", "DISK 2930")]);
    block_leaf_weight("blkio") { "blockIO": { "leafWeight": 500 } }
        v1 Warned("blkio.leaf_weight"), v2 NO_COUNTERPART;
    block_read_bytes("blkio") { "blockIO": { "throttleReadBpsDevice": ["DISK", 1_048_576] } }
        v1 Files(&[("blkio.throttle.read_bps_device", "DISK 1048576")]), v2 Files(&[("io.max", "DISK rbps=1048576 wbps=max riops=max wiops=max")]);
    block_write_bytes("blkio") { "blockIO": { "throttleWriteBpsDevice": ["DISK", 1_048_576] } }
        v1 Files(&[("blkio.throttle.write_bps_device", "DISK 1048576")]), v2 Files(&[("io.max", "DISK rbps=max wbps=1048576 riops=max wiops=max")]);
    block_read_operations("blkio") { "blockIO": { "throttleReadIOPSDevice": ["DISK", 50] } }
        v1 Files(&[("blkio.throttle.read_iops_device", "DISK 50")]), v2 Files(&[("io.max", "DISK rbps=max wbps=max riops=50 wiops=max")]);
    block_write_operations("blkio") { "blockIO": { "throttleWriteIOPSDevice": ["DISK", 50] } }
        v1 Files(&[("blkio.throttle.write_iops_device", "DISK 50")]), v2 Files(&[("io.max", "DISK rbps=max wbps=max riops=max wiops=50")]);
    huge_pages("hugetlb") { "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] }
        v1 Files(&[("hugetlb.2MB.limit_in_bytes", "4194304"), ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304")]),
        v2 Files(&[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")]);
    rdma_device("rdma") { "rdma": { "DEVICE": { "hcaHandles": 3, "hcaObjects": 10 } } }
        v1 Files(&[("rdma.max", "DEVICE hca_handle=3 hca_object=10")]), v2 Files(&[("rdma.max", "DEVICE hca_handle=3 hca_object=10")]);
    unified_core("cgroup") { "unified": { "cgroup.max.descendants": "3" } }
        v1 Refused("cgroup v2"), v2 Files(&[("cgroup.max.descendants", "3")]);
    unified_controller("memory") { "unified": { "memory.high": "33554432" } }
        v1 Refused("expected the cgroup v2 controller `memory` to be available"), v2 Files(&[("memory.high", "33554432")]);
    unified_order("pids") { "pids": { "limit": 17 }, "unified": { "pids.max": "19" } }
        v1 Refused("expected the cgroup v2 controller `pids` to be available"), v2 Files(&[("pids.max", "19")]);
    unified_without_controller("cgroup") { "unified": { "nonsense.max": "3" } }
        v1 Refused("`nonsense`"), v2 Refused("expected the cgroup v2 controller `nonsense` to be available");
    class_id_and_priorities("cgroup") { "network": { "classID": 1_048_577, "priorities": [{ "name": "lo", "priority": 4 }] } }
        v1 Refused("cgroup v1 controller"), v2 Refused("expected the cgroup v1 controller `net_cls` to be available");
}

/// The disk on which this test's files are, as `major:minor` of the whole disk.
pub fn disk(ctx: &Ctx) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(&ctx.dir).ok()?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let link = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let whole = if link.join("partition").exists() { link.parent()?.to_path_buf() } else { link };
    Some(read(&whole.join("dev")).trim().to_owned())
}

fn rdma_name() -> Option<String> {
    let entry = std::fs::read_dir("/sys/class/infiniband").ok()?.next()?.ok()?;
    entry.file_name().into_string().ok()
}

/// Puts the machine's devices into the resources. What is missing is the error.
fn complete(resources: &mut Value, disk: Option<&str>) -> Result<(), &'static str> {
    if let Some(block) = resources["blockIO"].as_object_mut() {
        for (_, list) in block.iter_mut().filter(|(_, value)| value.is_array()) {
            let (major, minor) = disk.and_then(|disk| disk.split_once(':')).ok_or("the test's files are on no disk")?;
            let numbers = (major.parse::<u64>(), minor.parse::<u64>());
            let (Ok(major), Ok(minor)) = numbers else { return Err("a disk without a number") };
            let key = list[2].as_str().unwrap_or("rate").to_owned();
            *list = json!([{ "major": major, "minor": minor, key: list[1] }]);
        }
    }
    if let Some(limits) = resources["rdma"].as_object_mut().and_then(|devices| devices.remove("DEVICE")) {
        resources["rdma"][rdma_name().ok_or("no RDMA device")?] = limits;
    }
    Ok(())
}

fn check(ctx: &Ctx, controller: &str, mut resources: Value, v1: &Seen, v2: &Seen) -> Outcome {
    let Some(version) = version(controller) else { return Skip(format!("no cgroup controller {controller}")) };
    let disk = disk(ctx);
    if let Err(why) = complete(&mut resources, disk.as_deref()) {
        return Skip(why.to_owned());
    }
    let name = ctx.fresh("/rt-resources");
    let mut container = ctx.container(ctx.bundle(|c| {
        c["linux"]["cgroupsPath"] = json!(name);
        c["linux"]["resources"] = resources;
    }));
    let output = container.create();
    let device = disk.or_else(rdma_name).unwrap_or_default();
    let is = |files: &[(&str, &str)]| {
        for (file, value) in files {
            let value = value.replace("DISK", &device).replace("DEVICE", &device);
            let content = read(&folder(controller, &name).join(file));
            assert!(content.lines().any(|line| line.trim() == value), "{file}: expected {value:?}, found {content:?}: {output}");
        }
    };
    match if version == Version::V1 { v1 } else { v2 } {
        Refused(text) => drop(output.exits(1).refused(text)),
        Warned(text) => {
            assert!(output.code == 0 && output.stderr.contains(text), "to be warned of {text:?}: {output}");
        }
        Files(files) => {
            assert_eq!(output.code, 0, "{output}");
            is(files);
        }
        FirstOf(files) => {
            assert_eq!(output.code, 0, "{output}");
            let there = files.iter().find(|(file, _)| folder(controller, &name).join(file).exists());
            let Some(file) = there.filter(|_| !output.stderr.contains("not applied")) else {
                return Skip(format!("nothing here weighs: {}", output.stderr.trim()));
            };
            is(&[*file]);
        }
        IfBuilt(files) => {
            let lacks = files.iter().find(|(file, _)| !folder(controller, &name).join(file).exists());
            if let Some((file, _)) = lacks.filter(|_| output.code == 0 || output.stderr.contains("no such file")) {
                return Skip(format!("this kernel has no {file} (here)"));
            }
            assert_eq!(output.code, 0, "{output}");
            is(files);
        }
    }
    Pass
}
