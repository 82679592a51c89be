//! Kernels that lack something: what is said then. strace(1) plays the old kernel.

use std::path::Path;

use crate::ctx::Ctx;
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        a_kernel_without_a_needed_system_call_is_named,
    }
}

/// What rt cannot do without, and since when Linux has it.
const NEEDED: [&str; 6] = ["openat2", "clone3", "fsopen", "open_tree", "move_mount", "mount_setattr"];

fn a_kernel_without_a_needed_system_call_is_named(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others fall back to older calls");
    if !Path::new("/usr/bin/strace").exists() {
        return Skip("no strace".to_owned());
    }
    for call in NEEDED {
        let container = ctx.container(ctx.bundle(|c| crate::config::shell(c, "exit 0")));
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error=ENOSYS"));
        let root = ctx.path("state");
        let (runtime, bundle) = (ctx.runtime().to_str().unwrap(), container.bundle.path());
        let argv = ["strace", "-f", "-o", "/dev/null", "-e", &trace, "-e", &inject, runtime];
        let rest = ["--root", &root, "run", "--bundle", bundle, &container.id];
        let output = ctx.command(&[&argv[..], &rest[..]].concat()).run();
        let told = output.stderr.contains("ENOSYS") && output.stderr.contains("rt needs Linux 6.1 or newer");
        assert!(output.code == 1 && told, "{call}: {output}");
    }
    Pass
}
