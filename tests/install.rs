//! `make install` and `make uninstall`, into a folder of the test, with the binary that was built for the tests.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder that goes away.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What make reads beside the binary: it is run in a folder where bin/rt is that of the tests, so that nothing is built.
fn workshop() -> Temporary {
    let folder = Temporary(std::env::temp_dir().join(format!("rt-install-{}", std::process::id())));
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(folder.0.join("bin")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_rt"), folder.0.join("bin/rt")).unwrap();
    for name in ["Makefile", "contrib"] {
        symlink(repository.join(name), folder.0.join(name)).unwrap();
    }
    folder
}

fn make(folder: &Path, target: &str) {
    let destination = format!("DESTDIR={}/to", folder.display());
    let output =
        Command::new("make").args(["-C", folder.to_str().unwrap(), target, &destination, "PREFIX=/usr"]).output().unwrap();
    assert!(output.status.success(), "make {target}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Every file below a folder, with its mode.
fn files(folder: &Path, prefix: &str, found: &mut BTreeSet<(String, u32)>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            files(&entry.path(), &format!("{path}/"), found);
        } else {
            found.insert((path, entry.metadata().unwrap().permissions().mode() & 0o777));
        }
    }
}

fn installed(folder: &Path) -> BTreeSet<(String, u32)> {
    let mut found = BTreeSet::new();
    files(&folder.join("to"), "", &mut found);
    found
}

#[test]
fn everything_is_installed_and_removed() {
    if Command::new("make").arg("--version").output().is_err() {
        println!("skipped: make is not installed");
        return;
    }
    let folder = workshop();
    let folder = &folder.0;
    // Twice: a second time replaces what is there.
    make(folder, "install");
    make(folder, "install");
    let manual = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/man")).unwrap();
    let mut expected: BTreeSet<(String, u32)> =
        manual.map(|page| (format!("usr/share/man/man1/{}", page.unwrap().file_name().into_string().unwrap()), 0o644)).collect();
    assert!(expected.len() > 20, "{expected:?}");
    expected.insert(("usr/bin/rt".to_owned(), 0o755));
    for completion in ["bash-completion/completions/rt", "zsh/site-functions/_rt", "fish/vendor_completions.d/rt.fish"] {
        expected.insert((format!("usr/share/{completion}"), 0o644));
    }
    assert_eq!(installed(folder), expected);
    for (path, _) in &expected {
        assert!(fs::metadata(folder.join("to").join(path)).unwrap().len() > 0, "{path} is empty");
    }
    let version = Command::new(folder.join("to/usr/bin/rt")).arg("--version").output().unwrap();
    assert!(version.stdout.starts_with(b"rt version "));
    // What others have put there stays.
    fs::write(folder.join("to/usr/share/man/man1/other.1"), "").unwrap();
    make(folder, "uninstall");
    assert_eq!(installed(folder), BTreeSet::from([("usr/share/man/man1/other.1".to_owned(), 0o644)]));
    make(folder, "uninstall");
    fs::remove_dir_all(folder.join("to")).unwrap();
    make(folder, "uninstall");
}
