//! docs/support.md: what is done with every property and word of the specification.
//!
//! The facts are in tests/support/spec.txt, which tests/support/extract writes from a checkout of the specification, and in the tables of the
//! code; what is done with them, and which tests show it, in tests/support/table.tsv. Here the two are compared: every fact has a row and
//! every row a fact, the tests that rows name exist, the parser knows every property and takes null for the optional ones, and the
//! document is what follows from the table (`UPDATE_SUPPORT=1 cargo test --test support` writes it).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use rt::process::{capabilities, rlimits};
use rt::rootfs::options;
use rt::spec::{Spec, load};
use serde_json::{Value, json};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The lines that are not comments, split at tabs.
fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| line.split('\t').collect())
}

/// One row of the table.
struct Row {
    name: String,
    class: String,
    tests: Vec<String>,
    remark: String,
}

impl Row {
    /// True if a test looks at a kernel.
    fn is_shown(&self) -> bool {
        self.tests.iter().any(|test| test.contains("::"))
    }
}

fn table() -> Vec<Row> {
    let row = |columns: Vec<&str>| Row {
        name: columns[0].to_owned(),
        class: columns[1].to_owned(),
        tests: columns[2].split(", ").map(str::to_owned).collect(),
        remark: columns.get(3).copied().unwrap_or_default().to_owned(),
    };
    lines(&read("tests/support/table.tsv")).map(row).collect()
}

/// The names of what the specification has, and what it leaves to tables of the kernel.
fn facts() -> BTreeSet<String> {
    let text = read("tests/support/spec.txt");
    let fact = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        ["property", "config", path] => path.to_owned(),
        ["property", document, path] => format!("{document}: {path}"),
        ["value", name, value] => format!("{name} = {value}"),
        ["option", word] => format!("mount option {word}"),
        _ => panic!("{line}"),
    };
    let spec = text.lines().filter(|line| !line.starts_with('#')).map(fact);
    let capabilities = capabilities::NAMES.iter().map(|name| format!("capability {name}"));
    let limits = rlimits::TABLE.iter().map(|(name, _)| format!("limit {name}"));
    let options = options::TABLE.iter().map(|(word, _)| format!("mount option {word}"));
    let words = options::TABLE.iter().map(|(word, _)| *word).filter(|word| options::propagation(word).is_some());
    let propagation = words.map(|word| format!("RootfsPropagation = {word}"));
    let devices = ["c", "b", "u", "p"].map(|kind| format!("device type {kind}"));
    spec.chain(capabilities).chain(limits).chain(options).chain(propagation).chain(devices).collect()
}

#[test]
fn every_fact_has_one_row_and_every_row_a_fact() {
    let facts = facts();
    let mut rows = BTreeSet::new();
    for row in table() {
        assert!(facts.contains(&row.name), "{}: nothing of the specification has this name", row.name);
        assert!(["supported", "warned", "refused"].contains(&row.class.as_str()), "{}: class {:?}", row.name, row.class);
        assert!(rows.insert(row.name.clone()), "{}: two rows", row.name);
    }
    let without: Vec<&String> = facts.difference(&rows).collect();
    assert!(without.is_empty(), "without a row: {without:?}");
}

/// Panics unless a test of this name exists: `module::name` in integration/, where it has to be in the list of its file, or `src/FILE:name`.
fn assert_exists(test: &str, who: &str) {
    if let Some((module, name)) = test.split_once("::") {
        let text = read(&format!("integration/{module}.rs"));
        let listed = text.lines().any(|line| line.trim() == format!("{name},"));
        assert!(
            listed && text.contains(&format!("fn {name}(")),
            "{who} names {test}, which integration/{module}.rs does not have"
        );
        return;
    }
    let (file, name) = test.split_once(':').unwrap_or_else(|| panic!("{who} names {test:?}, which is no test"));
    let text = read(file);
    let is_test = text.split("#[test]").skip(1).any(|after| after.trim_start().starts_with(&format!("fn {name}(")));
    assert!(is_test, "{who} names {test}, which {file} does not have");
}

#[test]
fn every_test_that_is_named_exists() {
    for row in table() {
        assert!(!row.tests[0].is_empty(), "{} names no test", row.name);
        row.tests.iter().for_each(|test| assert_exists(test, &row.name));
        let words = row.remark.split([' ', ',', ';']).filter(|word| word.contains("::"));
        words.for_each(|test| assert_exists(test, &row.name));
    }
    for (name, tests) in list("validation").into_iter().chain(list("lifecycle")) {
        tests.iter().for_each(|test| assert_exists(test, &name));
    }
}

#[test]
fn nearly_everything_is_shown_on_a_kernel() {
    let rows = table();
    let supported = || rows.iter().filter(|row| row.class == "supported");
    let shown = supported().filter(|row| row.is_shown()).count();
    assert!(shown * 100 >= supported().count() * 95, "{shown} of {}", supported().count());
}

/// A table of names and tests: the executables of runtime-tools (`validation`), the sentences of runtime.md (`lifecycle`).
fn list(name: &str) -> Vec<(String, Vec<String>)> {
    let text = read(&format!("tests/support/{name}.tsv"));
    let row = |columns: Vec<&str>| (columns[0].to_owned(), columns[1].split(", ").map(str::to_owned).collect());
    lines(&text).map(row).collect()
}

#[test]
fn every_validation_executable_has_a_test() {
    let text = read("conformance/expected.tsv");
    let expected: BTreeSet<String> = lines(&text).map(|columns| columns[0].to_owned()).collect();
    let covered: BTreeSet<String> = list("validation").into_iter().map(|(name, _)| name).collect();
    assert_eq!(expected, covered);
}

/// The properties of config.json, with the path of the smallest document that has one.
fn properties() -> Vec<String> {
    let text = read("tests/support/spec.txt");
    text.lines().filter_map(|line| line.strip_prefix("property config ")).map(str::to_owned).collect()
}

/// A document with nothing but this property.
fn document(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |inner, part| {
        let (name, list) = part.strip_suffix("[]").map_or((part, false), |name| (name, true));
        let (name, map) = name.strip_suffix("{}").map_or((name, false), |name| (name, true));
        let inner = if list { json!([inner]) } else { inner };
        let inner = if map { json!({ "entry": inner }) } else { inner };
        json!({ name: inner })
    })
}

/// Where the parser stops in a document.
fn stops_at(document: &Value) -> Option<String> {
    let error = load::parse::<Spec>(document.to_string().as_bytes(), "config.json").err()?;
    let message = error.message.strip_prefix("config.json: ").unwrap().to_owned();
    message.split_once(": ").map(|(path, _)| path.to_owned())
}

fn in_errors(path: &str) -> String {
    path.replace("[]", "[0]").replace("{}", ".entry")
}

/// What it does not know it would pass over. Nothing in a config is a fraction.
#[test]
fn the_parser_knows_every_property() {
    let foreign: Vec<String> = table().into_iter().filter(|row| row.remark.starts_with("for ")).map(|row| row.name).collect();
    for path in properties().iter().filter(|path| !foreign.contains(path)) {
        assert_eq!(stops_at(&document(path, json!(0.5))), Some(in_errors(path)));
    }
    for path in foreign {
        let parsed: Spec = serde_json::from_value(document(&path, json!("there"))).unwrap();
        let seen = format!("{parsed:?}").matches("Some(Foreign)").count();
        assert_eq!(seen, 1, "{path}");
    }
}

/// What an object cannot be without (the schemas' `required`).
const REQUIRED: &[&str] = &[
    "hooks.*[].path",
    "linux.*Mappings[].containerID",
    "linux.*Mappings[].hostID",
    "linux.*Mappings[].size",
    "linux.devices[].path",
    "linux.devices[].type",
    "linux.memoryPolicy.mode",
    "linux.namespaces[].type",
    "linux.personality.domain",
    "linux.resources.blockIO.*[].major",
    "linux.resources.blockIO.*[].minor",
    "linux.resources.blockIO.*[].rate",
    "linux.resources.devices[].allow",
    "linux.resources.hugepageLimits[].limit",
    "linux.resources.hugepageLimits[].pageSize",
    "linux.resources.network.priorities[].name",
    "linux.resources.network.priorities[].priority",
    "linux.seccomp.defaultAction",
    "linux.seccomp.syscalls[].action",
    "linux.seccomp.syscalls[].args[].index",
    "linux.seccomp.syscalls[].args[].op",
    "linux.seccomp.syscalls[].args[].value",
    "linux.seccomp.syscalls[].names",
    "mounts[].*Mappings[].containerID",
    "mounts[].*Mappings[].hostID",
    "mounts[].*Mappings[].size",
    "mounts[].destination",
    "process.consoleSize.height",
    "process.consoleSize.width",
    "process.ioPriority.class",
    "process.rlimits[].hard",
    "process.rlimits[].soft",
    "process.rlimits[].type",
    "process.scheduler.policy",
    "root.path",
];

fn is_required(path: &str) -> bool {
    let fits = |pattern: &str| match pattern.split_once('*') {
        Some((start, end)) => path.len() > pattern.len() && path.starts_with(start) && path.ends_with(end),
        None => path == pattern,
    };
    REQUIRED.iter().any(|pattern| fits(pattern))
}

#[test]
fn null_is_taken_for_every_optional_property() {
    for path in properties() {
        let stopped = stops_at(&document(&path, Value::Null)) == Some(in_errors(&path));
        assert_eq!(stopped, is_required(&path), "{path}");
    }
}

fn rows_of(text: &mut String, rows: &[&Row]) {
    text.push_str("\n| | | shown by | |\n|---|---|---|---|\n");
    for row in rows {
        let tests: Vec<String> = row.tests.iter().map(|test| format!("`{test}`")).collect();
        let tests = tests.join(", ");
        let shown = if row.is_shown() { tests } else { format!("not shown on a kernel: {tests}") };
        let remark: Vec<String> =
            row.remark.split(' ').map(|word| if word.contains("::") { tick(word) } else { word.to_owned() }).collect();
        let name = if row.name.contains(' ') && !row.name.contains(':') { row.name.clone() } else { format!("`{}`", row.name) };
        writeln!(text, "| {name} | {} | {shown} | {} |", row.class, remark.join(" ")).unwrap();
    }
}

fn tick(word: &str) -> String {
    let name = word.trim_end_matches([';', ',']);
    format!("`{name}`{}", &word[name.len()..])
}

fn written() -> String {
    let rows = table();
    let count = |class: &str| rows.iter().filter(|row| row.class == class).count();
    let supported = || rows.iter().filter(|row| row.class == "supported");
    let shown = supported().filter(|row| row.is_shown()).count();
    let mut text = format!(
        "# What is supported\n\nEvery property and word of version {} of the specification on Linux, and what is done with it. Made by `UPDATE_SUPPORT=1 cargo test \
         --test support` from tests/support/table.tsv, and compared there with the specification's schemas and with the tests that are named.\n\n\
         - **supported**: it takes effect. Tests of the form `module::name` are in [integration/](../integration) and look at real containers; \
         others look at the plan, or at files in the place of a kernel's, and are marked as such.\n- **warned**: it is left out, and a warning says so.\n\
         - **refused**: create fails and names it.\n\nUnknown properties are passed over, `null` is the same as absent wherever absence is allowed. \
         Warnings go to the log and to standard error, stay in the annotation `io.github.rt.warnings` of `rt state` (a JSON list of strings), and \
         are errors with `--strict`.\n\n\
         {} rows: {} supported ({shown} of them shown on a kernel), {} warned, {} refused.\n",
        rt::spec::VERSION,
        rows.len(),
        count("supported"),
        count("warned"),
        count("refused"),
    );
    let is_word = |row: &&Row| row.name.contains(' ');
    let section = |text: &mut String, title: &str, part: &dyn Fn(&&Row) -> bool| {
        write!(text, "\n## {title}\n").unwrap();
        rows_of(text, &rows.iter().filter(part).collect::<Vec<_>>());
    };
    let starts = |prefix: &'static str| move |row: &&Row| row.name.starts_with(prefix);
    section(&mut text, "config.json", &|row| !is_word(row));
    section(&mut text, "Values", &|row| row.name.contains(" = ") || starts("device type ")(row));
    section(&mut text, "Mount options", &starts("mount option "));
    section(&mut text, "Capabilities", &starts("capability "));
    section(&mut text, "Resource limits", &starts("limit "));
    section(&mut text, "State", &starts("state: "));
    section(&mut text, "Features", &starts("features: "));
    let lists = [
        ("Lifecycle", "lifecycle", "What runtime.md demands, sentence by sentence."),
        ("runtime-tools", "validation", "What covers the ground of each validation executable of opencontainers/runtime-tools."),
    ];
    for (title, name, what) in lists {
        write!(text, "\n## {title}\n\n{what}\n\n| | tests |\n|---|---|\n").unwrap();
        for (name, tests) in list(name) {
            let tests: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
            writeln!(text, "| {name} | {} |", tests.join(", ")).unwrap();
        }
    }
    text
}

#[test]
fn the_document_is_up_to_date() {
    let text = written();
    if std::env::var_os("UPDATE_SUPPORT").is_some() {
        fs::write(repository("docs/support.md"), &text).unwrap();
    }
    let found = fs::read_to_string(repository("docs/support.md")).unwrap_or_default();
    assert!(found == text, "docs/support.md is not what tests/support/table.tsv says; UPDATE_SUPPORT=1 writes it anew");
}
