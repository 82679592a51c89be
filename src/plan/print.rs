//! A plan as text and as JSON.

use std::fmt::{Display, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Plan, Planned, Topology};

/// Numbered lists, one per process, each step with its origin.
pub fn text(plan: &Plan) -> String {
    let mut out = String::new();
    let how = match plan.topology {
        Topology::Direct => "direct: the launcher makes init",
        Topology::Bridged => "bridged: the launcher makes a bridge, and that makes init",
    };
    let _ = writeln!(out, "container {}, {how}", plan.id);
    for warning in &plan.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    list(&mut out, "launcher", &plan.launcher);
    let groups = plan.cgroup.lines();
    if !groups.is_empty() {
        let _ = writeln!(out, "\ncontrol groups");
        for line in groups {
            let _ = writeln!(out, "     {line}");
        }
    }
    list(&mut out, "bridge", &plan.bridge);
    list(&mut out, "init", &plan.init);
    out
}

fn list<S: Display>(out: &mut String, name: &str, steps: &[Planned<S>]) {
    if steps.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{name}");
    for (index, planned) in steps.iter().enumerate() {
        let _ = writeln!(out, "{:4} {} ({})", index + 1, planned.step, planned.origin);
    }
}

/// The same for programs.
pub fn json(plan: &Plan) -> Value {
    json!({
        "id": plan.id,
        "topology": plan.topology,
        "warnings": plan.warnings,
        "launcher": steps(&plan.launcher),
        "cgroup": plan.cgroup,
        "bridge": steps(&plan.bridge),
        "init": steps(&plan.init),
        "seccomp": plan.seccomp,
    })
}

fn steps<S: Display + Serialize>(steps: &[Planned<S>]) -> Vec<Value> {
    let one = |planned: &Planned<S>| json!({"text": planned.step.to_string(), "origin": planned.origin, "step": planned.step});
    steps.iter().map(one).collect()
}
