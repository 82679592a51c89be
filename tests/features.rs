//! `rt features` against the JSON schema of runtime-spec 1.3.0 (tests/features/, as published), and against the names that the text of the
//! specification lists beyond it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

fn features(flags: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_rt")).arg("features").args(flags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn schema(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/features").join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Follows `file.json#/pointer`; a pointer without a file is into the same one.
fn follow(reference: &str, file: &str) -> (Value, String) {
    let (named, pointer) = reference.split_once('#').unwrap();
    let file = if named.is_empty() { file } else { named };
    (schema(file).pointer(pointer).unwrap().clone(), file.to_owned())
}

/// As much of JSON Schema (draft 4) as these files use. An unknown property of an object that lists some is a problem, too: "The Features
/// structure MUST NOT contain properties that are not defined".
fn check(value: &Value, rule: &Value, file: &str, path: &str, problems: &mut Vec<String>) {
    if let Some(reference) = rule["$ref"].as_str() {
        let (rule, file) = follow(reference, file);
        return check(value, &rule, &file, path, problems);
    }
    let right = match rule["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    if !right {
        problems.push(format!("{path}: expected {}, found {value}", rule["type"]));
        return;
    }
    if rule["enum"].as_array().is_some_and(|names| !names.contains(value)) {
        problems.push(format!("{path}: {value} is not among {}", rule["enum"]));
    }
    if rule["pattern"].as_str() == Some("^CAP_[A-Z_]+$") && !value.as_str().unwrap().starts_with("CAP_") {
        problems.push(format!("{path}: {value} is no capability"));
    }
    for required in rule["required"].as_array().into_iter().flatten() {
        if value[required.as_str().unwrap()].is_null() {
            problems.push(format!("{path}: no {required}"));
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(item, &rule["items"], file, &format!("{path}[{index}]"), problems);
    }
    if let Some(properties) = rule["properties"].as_object() {
        for (name, item) in value.as_object().unwrap() {
            match properties.get(name) {
                Some(rule) => check(item, rule, file, &format!("{path}.{name}"), problems),
                None if IN_THE_TEXT.contains(&format!("{path}.{name}").as_str()) => {}
                None => problems.push(format!("{path}.{name}: not a property of the schema")),
            }
        }
    }
}

/// What features-linux.md defines and the schema has forgotten (its objects are open).
const IN_THE_TEXT: [&str; 3] = [".linux.memoryPolicy", ".linux.intelRdt.schemata", ".linux.intelRdt.monitoring"];

#[test]
fn the_document_is_as_the_schema_says() {
    let mut problems = Vec::new();
    check(&features(&[]), &schema("features-schema.json"), "features-schema.json", "", &mut problems);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The small checker finds what it is there for.
#[test]
fn the_checker_finds_mistakes() {
    let mut problems = Vec::new();
    let bad = json!({ "ociVersionMin": "1.0.0", "hooks": [5], "linux": { "namespaces": ["x"], "seccomp": { "knownFlags": [["a", 1]] }, "what": 1 } });
    check(&bad, &schema("features-schema.json"), "features-schema.json", "", &mut problems);
    assert_eq!(problems.len(), 5, "{problems:?}");
}

/// Every property of the schema and of the text is there, and says something.
#[test]
fn nothing_is_missing() {
    let found = features(&[]);
    for pointer in [
        "/hooks/5",
        "/mountOptions/50",
        "/annotations",
        "/potentiallyUnsafeConfigAnnotations/0",
        "/linux/namespaces/7",
        "/linux/capabilities/40",
        "/linux/cgroup/rdma",
        "/linux/cgroup/systemdUser",
        "/linux/seccomp/actions/8",
        "/linux/seccomp/operators/6",
        "/linux/seccomp/archs/15",
        "/linux/seccomp/supportedFlags/0",
        "/linux/apparmor/enabled",
        "/linux/selinux/enabled",
        "/linux/memoryPolicy/modes/6",
        "/linux/memoryPolicy/flags/2",
        "/linux/intelRdt/schemata",
        "/linux/intelRdt/monitoring",
        "/linux/mountExtensions/idmap/enabled",
        "/linux/netDevices/enabled",
    ] {
        assert!(found.pointer(pointer).is_some_and(|value| !value.is_null()), "{pointer}");
    }
    assert_eq!(found["host"], Value::Null);
}

/// What the lists name is what the schema allows, and the other way round: no name of the specification is left out.
#[test]
fn every_name_of_the_specification_is_listed() {
    let (found, definitions) = (features(&[]), schema("defs-linux.json"));
    for (pointer, definition) in [
        ("/linux/namespaces", "NamespaceType"),
        ("/linux/seccomp/actions", "SeccompAction"),
        ("/linux/seccomp/operators", "SeccompOperators"),
        ("/linux/seccomp/archs", "SeccompArch"),
        ("/linux/seccomp/knownFlags", "SeccompFlag"),
    ] {
        let listed = found.pointer(pointer).unwrap().as_array().unwrap();
        for name in definitions["definitions"][definition]["enum"].as_array().unwrap() {
            assert!(listed.contains(name), "{pointer} lacks {name}");
        }
    }
}

#[test]
fn the_host_is_added_on_demand_only() {
    let found = features(&["--host"]);
    for pointer in
        ["/host/kernel", "/host/namespaces/user/available", "/host/cgroup/mode", "/host/calls/openat2", "/host/caller/uid"]
    {
        assert!(found.pointer(pointer).is_some_and(|value| !value.is_null()), "{pointer}: {}", found["host"]);
    }
}
