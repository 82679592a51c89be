//! Memory policies, and the processors of exec.

use std::path::Path;

use serde_json::json;

use crate::ctx::{Ctx, status};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        a_memory_policy_is_set_and_inherited,
        a_memory_policy_without_its_nodes_is_refused,
        exec_runs_on_its_final_processors,
        exec_stays_on_its_initial_processors,
        a_bad_list_of_processors_is_refused,
    }
}

fn a_memory_policy_is_set_and_inherited(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know memory policies");
    if !Path::new("/proc/self/numa_maps").exists() {
        return Skip("this kernel knows no memory nodes".to_owned());
    }
    for (mode, expected) in [("MPOL_BIND", "bind:0"), ("MPOL_INTERLEAVE", "interleave:0"), ("MPOL_PREFERRED", "prefer:0")] {
        let container = ctx.running(|c| c["linux"]["memoryPolicy"] = json!({ "mode": mode, "nodes": "0" }));
        assert!(container.sh("cat /proc/1/numa_maps").contains(expected), "{mode}");
        assert!(container.sh("cat /proc/self/numa_maps").contains(expected), "{mode}, exec");
    }
    let output = ctx.sh_with("cat /proc/self/numa_maps", |c| {
        c["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    });
    assert!(output.contains("bind=static:0"), "{output}");
    ctx.sh_with("true", |c| c["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_LOCAL" }));
    Pass
}

fn a_memory_policy_without_its_nodes_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know memory policies");
    ctx.run(|c| c["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND" }))
        .exits(1)
        .refused("linux.memoryPolicy.nodes: missing");
    Pass
}

/// The processors that this process may use, as the kernel lists them.
fn own() -> String {
    status(&std::fs::read_to_string("/proc/self/status").unwrap(), "Cpus_allowed_list")
}

/// One of them.
fn one() -> String {
    own().split([',', '-']).next_back().unwrap().to_owned()
}

fn exec_runs_on_its_final_processors(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know execCPUAffinity");
    let cpu = one();
    let container = ctx.running(|c| {
        c["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": format!(" {cpu} - {cpu} ,") });
    });
    assert_eq!(status(&container.sh("cat /proc/self/status"), "Cpus_allowed_list"), cpu);
    assert_eq!(status(&container.sh("cat /proc/1/status"), "Cpus_allowed_list"), own(), "not init's business");
    Pass
}

fn exec_stays_on_its_initial_processors(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know execCPUAffinity");
    let cpu = one();
    let container = ctx.running(|c| c["process"]["execCPUAffinity"] = json!({ "initial": cpu }));
    // A cpuset may widen it again, which is the kernel's choice.
    let found = status(&container.sh("cat /proc/self/status"), "Cpus_allowed_list");
    assert!(found == cpu || found == own(), "{found}");
    Pass
}

fn a_bad_list_of_processors_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know execCPUAffinity");
    ctx.run(|c| c["process"]["execCPUAffinity"] = json!({ "final": "3-1" })).exits(1).refused("process.execCPUAffinity.final");
    Pass
}
