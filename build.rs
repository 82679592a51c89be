//! Hands the commit to the compiler, for `rt --version`.

fn main() {
    println!("cargo:rerun-if-env-changed=RT_COMMIT");
    let given = std::env::var("RT_COMMIT").ok().filter(|commit| !commit.is_empty());
    println!("cargo:rustc-env=RT_COMMIT={}", given.unwrap_or_else(|| "unknown".to_owned()));
}
