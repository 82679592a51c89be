//! Hands the commit to the compiler, for `rt --version`, and the program's own wishes to the linker.

fn main() {
    println!("cargo:rerun-if-env-changed=RT_COMMIT");
    let given = std::env::var("RT_COMMIT").ok().filter(|commit| !commit.is_empty());
    println!("cargo:rustc-env=RT_COMMIT={}", given.unwrap_or_else(|| "unknown".to_owned()));
    // Relocations of a few bits each in place of 24 bytes: the C library does them at every start. It knows this form since 2.36.
    println!("cargo:rustc-link-arg-bin=rt=-Wl,-z,pack-relative-relocs");
    println!("cargo:rustc-check-cfg=cfg(own_start)");
    if variable("PROFILE") == "release" {
        // What a container's life executes lies together, and is read with fewer faults. Only optimised code has functions of these names.
        println!("cargo:rerun-if-changed=link/order.ld");
        println!("cargo:rustc-link-arg-bin=rt=-Wl,-T,{}/link/order.ld", variable("CARGO_MANIFEST_DIR"));
        if may_start_by_itself() {
            println!("cargo:rustc-cfg=own_start");
        }
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// src/start.rs takes the place of a function of the C library that it knows from one version, on one architecture. The header
/// is of the package that the static library is of.
fn may_start_by_itself() -> bool {
    const HEADER: &str = "/usr/include/features.h";
    println!("cargo:rerun-if-changed={HEADER}");
    let header = std::fs::read_to_string(HEADER).unwrap_or_default();
    let number = |macro_name: &str| {
        let words = header.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut values = words.filter_map(|words| match words[..] {
            ["#define", name, value] if name == macro_name => value.parse::<u32>().ok(),
            _ => None,
        });
        values.next()
    };
    let target = ["CARGO_CFG_TARGET_ARCH", "CARGO_CFG_TARGET_ENV", "CARGO_CFG_TARGET_POINTER_WIDTH"].map(variable);
    target == ["x86_64", "gnu", "64"]
        && variable("TARGET") == variable("HOST")
        && variable("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static")
        && (number("__GLIBC__"), number("__GLIBC_MINOR__")) == (Some(2), Some(36))
}
