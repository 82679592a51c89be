//! docs/annotations.md and `rt features` say of annotations what the table in the sources says.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use rt::plan::annotations::{Effect, TABLE, honoured};

fn word(effect: Effect) -> &'static str {
    match effect {
        Effect::Honoured => "takes effect",
        Effect::Written => "written",
        Effect::LeftOut(_) => "warning",
    }
}

#[test]
fn the_document_has_every_row_of_the_table() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/annotations.md")).unwrap();
    let rows: Vec<(String, String)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| line.split(" | ").map(|cell| cell.trim_matches('`').to_owned()).collect::<Vec<_>>())
        .map(|cells| (cells[0].clone(), cells[1].clone()))
        .collect();
    let table: Vec<(String, String)> =
        TABLE.iter().map(|(name, effect)| ((*name).to_owned(), word(*effect).to_owned())).collect();
    assert_eq!(rows, table);
}

#[test]
fn features_lists_what_takes_effect() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_rt")).arg("features").output().unwrap();
    let features: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let listed: Vec<&str> =
        features["potentiallyUnsafeConfigAnnotations"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(listed, honoured().collect::<Vec<_>>());
}
