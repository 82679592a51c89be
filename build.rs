//! Hands the commit to the compiler, for `rt --version`, and the program's own wishes to the linker.

fn main() {
    println!("cargo:rerun-if-env-changed=RT_COMMIT");
    let given = std::env::var("RT_COMMIT").ok().filter(|commit| !commit.is_empty());
    println!("cargo:rustc-env=RT_COMMIT={}", given.unwrap_or_else(|| "unknown".to_owned()));
    // Relocations of a few bits each in place of 24 bytes: the C library does them at every start. It knows this form since 2.36.
    println!("cargo:rustc-link-arg-bin=rt=-Wl,-z,pack-relative-relocs");
    // What a container's life executes lies together, and is read with fewer faults. Only optimised code has functions of these names.
    println!("cargo:rerun-if-changed=link/order.ld");
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo:rustc-link-arg-bin=rt=-Wl,-T,{folder}/link/order.ld");
    }
}
