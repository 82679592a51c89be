//! What the runtime tells about itself and its containers: list, ps, features, spec, version, the log.

use std::fs;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Ctx, read};
use crate::runner::Outcome::{self, Pass};

tests! {
    Both {
        version_begins_with_name_and_version,
        list_shows_each_container,
        list_quiet_shows_ids_only,
        list_as_json,
        list_without_a_container,
        ps_as_json_is_an_array_of_pids,
        features_is_json_with_nothing_else,
        features_has_every_property_of_the_specification,
        features_knows_the_hooks_and_namespaces,
        spec_writes_a_config_that_runs,
        spec_does_not_overwrite,
        a_failure_is_one_record_of_the_json_log,
        a_success_logs_nothing,
        an_unknown_command_fails,
        an_unknown_flag_fails,
        no_arguments_show_the_help,
        flags_may_be_written_with_an_equals_sign,
    }
}

fn version_begins_with_name_and_version(ctx: &Ctx) -> Outcome {
    let output = ctx.rt(&["--version"]).ok();
    let lines = output.lines();
    let words: Vec<&str> = lines[0].split(' ').collect();
    assert_eq!(words[1], "version", "{output}");
    assert!(words[2].starts_with(|c: char| c.is_ascii_digit()), "{output}");
    assert!(lines.iter().any(|line| line.starts_with("spec: 1.")), "{output}");
    assert!(lines.iter().any(|line| line.starts_with("commit:")) || lines.len() >= 3, "{output}");
    Pass
}

fn list_shows_each_container(ctx: &Ctx) -> Outcome {
    let (one, two) = (ctx.create(|_| {}), ctx.running(|_| {}));
    let output = ctx.rt(&["list"]).ok();
    let lines = output.lines();
    let header: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(header, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    for (container, status) in [(&one, "created"), (&two, "running")] {
        let row: Vec<&str> = lines.iter().find(|l| l.starts_with(&container.id)).unwrap().split_whitespace().collect();
        assert_eq!(row[1..4], [&container.pid().to_string(), status, container.bundle.path()]);
    }
    Pass
}

fn list_quiet_shows_ids_only(ctx: &Ctx) -> Outcome {
    let (one, two) = (ctx.create(|_| {}), ctx.create(|_| {}));
    let output = ctx.rt(&["list", "-q"]).ok();
    let mut lines = output.lines();
    lines.sort_unstable();
    let mut expected = [one.id.as_str(), two.id.as_str()];
    expected.sort_unstable();
    assert_eq!(lines, expected);
    Pass
}

fn list_as_json(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|c| c["annotations"] = json!({ "a": "b" }));
    let list = ctx.rt(&["list", "-f", "json"]).ok().json();
    let row = &list[0];
    assert_eq!((&row["id"], &row["status"], &row["pid"]), (&json!(container.id), &json!("running"), &json!(container.pid())));
    assert_eq!(row["bundle"], *container.bundle.path());
    assert!(row["created"].is_string() && row["owner"].is_string() && row["rootfs"].is_string(), "{row}");
    Pass
}

fn list_without_a_container(ctx: &Ctx) -> Outcome {
    assert_eq!(ctx.rt(&["list", "--quiet"]).ok().stdout, "");
    let list = ctx.rt(&["list", "--format", "json"]).ok().json();
    assert!(list.is_null() || list == json!([]), "{list}");
    Pass
}

fn ps_as_json_is_an_array_of_pids(ctx: &Ctx) -> Outcome {
    if ctx.uid() != 0 {
        return Outcome::Skip("without a cgroup the processes of a container are not known".to_owned());
    }
    let container = ctx.running(|_| {});
    container.exec(&["--detach"], &["sleep", "1000"]).ok();
    let list = ctx.rt(&["ps", "--format", "json", &container.id]).ok().json();
    let pids = list.as_array().unwrap();
    assert_eq!(pids.len(), 2, "{list}");
    assert!(pids.contains(&json!(container.pid())), "{list}");
    Pass
}

fn features_is_json_with_nothing_else(ctx: &Ctx) -> Outcome {
    let output = ctx.rt(&["features"]).ok();
    let features = output.json();
    assert_eq!(output.stderr, "");
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert!(features["ociVersionMax"].as_str().unwrap().starts_with("1."), "{features}");
    Pass
}

/// The properties of the schema, which tests/support/extract wrote down.
fn features_has_every_property_of_the_specification(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 knows fewer");
    let features = ctx.rt(&["features"]).ok().json();
    let facts = include_str!("../tests/support/spec.txt");
    for path in facts.lines().filter_map(|line| line.strip_prefix("property features ")) {
        let found = features.pointer(&format!("/{}", path.replace('.', "/")));
        assert!(found.is_some_and(|value| !value.is_null()), "{path}");
    }
    Pass
}

fn features_knows_the_hooks_and_namespaces(ctx: &Ctx) -> Outcome {
    let features = ctx.rt(&["features"]).ok().json();
    let contains = |list: &Value, name: &str| list.as_array().unwrap().contains(&json!(name));
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        assert!(contains(&features["hooks"], hook), "{hook}");
    }
    for option in ["ro", "rbind", "rprivate", "nosuid", "tmpcopyup"] {
        assert!(contains(&features["mountOptions"], option), "{option}");
    }
    for namespace in ["pid", "network", "ipc", "uts", "mount", "user", "cgroup"] {
        assert!(contains(&features["linux"]["namespaces"], namespace), "{namespace}");
    }
    assert!(contains(&features["linux"]["capabilities"], "CAP_SYS_ADMIN"));
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    needs_rt!(ctx, "runc 1.1.5 knows neither time namespaces nor recursive options in features");
    assert!(contains(&features["linux"]["namespaces"], "time"));
    assert!(contains(&features["mountOptions"], "rro"));
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    Pass
}

fn spec_writes_a_config_that_runs(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|_| {}));
    fs::remove_file(container.bundle.dir.join("config.json")).unwrap();
    let arguments: &[&str] = if ctx.uid() == 0 { &["spec"] } else { &["spec", "--rootless"] };
    ctx.rt_command(arguments).cwd(&container.bundle.dir).run().ok();
    container.bundle.edit(|c| {
        assert_eq!((&c["process"]["args"], &c["process"]["terminal"]), (&json!(["sh"]), &json!(true)));
        c["process"]["terminal"] = json!(false);
        config::shell(c, "echo works");
    });
    assert_eq!(container.run().ok().text(), "works");
    Pass
}

fn spec_does_not_overwrite(ctx: &Ctx) -> Outcome {
    let bundle = ctx.bundle(|_| {});
    let before = bundle.config();
    ctx.rt(&["spec", "--bundle", bundle.path()]).exits(1).refused("exists");
    assert_eq!(bundle.config(), before);
    Pass
}

fn a_failure_is_one_record_of_the_json_log(ctx: &Ctx) -> Outcome {
    let log = ctx.path("log.json");
    let output = ctx.rt(&["--log", &log, "--log-format", "json", "state", "never-made"]).exits(1);
    let text = read(log.as_ref());
    let errors: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).filter(|r: &Value| r["level"] == "error").collect();
    assert_eq!(errors.len(), 1, "{text}");
    let message = errors[0]["msg"].as_str().unwrap();
    assert!(message.contains("does not exist"), "{text}");
    assert!(output.stderr.contains("does not exist"), "{output}");
    // RFC 3339: containerd drops the record otherwise.
    let time = errors[0]["time"].as_str().unwrap();
    assert!(
        time.len() >= 20 && &time[10..11] == "T" && (time.ends_with('Z') || &time[time.len() - 3..time.len() - 2] == ":"),
        "{time}"
    );
    Pass
}

fn a_success_logs_nothing(ctx: &Ctx) -> Outcome {
    let log = ctx.path("log.json");
    let container = ctx.container(ctx.bundle(|_| {}));
    ctx.rt(&["--log", &log, "--log-format", "json", "create", "-b", container.bundle.path(), &container.id]).ok();
    assert_eq!(read(log.as_ref()), "");
    Pass
}

fn an_unknown_command_fails(ctx: &Ctx) -> Outcome {
    assert_ne!(ctx.rt(&["nonsense"]).code, 0);
    Pass
}

fn an_unknown_flag_fails(ctx: &Ctx) -> Outcome {
    assert_ne!(ctx.rt(&["state", "--nonsense", "x"]).code, 0);
    Pass
}

fn no_arguments_show_the_help(ctx: &Ctx) -> Outcome {
    let output = ctx.command(&[ctx.runtime().to_str().unwrap(), "--help"]).run().ok();
    for verb in ["create", "start", "state", "kill", "delete", "run", "exec", "list", "features", "spec"] {
        assert!(output.stdout.contains(verb), "{verb}");
    }
    Pass
}

/// Engines write options in all these forms.
fn flags_may_be_written_with_an_equals_sign(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|_| {}));
    let pid_file = ctx.path("pid");
    let (bundle, file) = (format!("--bundle={}", container.bundle.path()), format!("--pid-file={pid_file}"));
    ctx.rt(&["create", &bundle, &file, &container.id]).ok();
    assert_eq!(read(pid_file.as_ref()), container.pid().to_string());
    ctx.rt(&["delete", "-force", &container.id]).ok();
    Pass
}
