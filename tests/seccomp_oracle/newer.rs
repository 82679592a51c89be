//! System calls that are newer than the profile, and what the kernel says to our programs.

use rt::plan::Findings;
use rt::seccomp::arch::X32_BIT;
use rt::seccomp::{Filter, load, plan};
use rt::spec::{Field, Seccomp};
use serde_json::json;

use crate::machine::{Call, Program};
use crate::profiles::{docker, parse};

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const ENOSYS: u32 = 0x0005_0000 + 38;
const EPERM: u32 = 0x0005_0000 + 1;

fn filter(profile: &Seccomp) -> Filter {
    let mut findings = Findings::default();
    let filter = plan(profile, &Field::new("linux.seccomp"), &mut findings);
    assert_eq!(findings, Findings::default());
    filter.unwrap()
}

fn answer(profile: &Seccomp, audit: u32, number: u32) -> u32 {
    Program::new(&filter(profile).program).run(&Call { number, audit, args: [0; 6] }).0
}

fn with_default(action: &str) -> Seccomp {
    parse(json!({
        "defaultAction": action,
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            { "names": ["read", "openat2"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO" },
            { "names": ["faccessat2"], "action": action },
        ],
    }))
}

#[cfg(target_arch = "x86_64")]
#[test]
fn newer_calls_are_unknown_rather_than_forbidden() {
    let profile = with_default("SCMP_ACT_ERRNO");
    for (audit, base) in [(X86_64, 0), (X86_64, X32_BIT), (X86, 0)] {
        assert_eq!(answer(&profile, audit, base + 437), 0x7fff_0000, "openat2, allowed");
        assert_eq!(answer(&profile, audit, base + 438), EPERM, "pidfd_getfd, older than the newest that is named");
        assert_eq!(answer(&profile, audit, base + 439), EPERM, "faccessat2, named with the default");
        assert_eq!(answer(&profile, audit, base + 440), ENOSYS, "process_madvise, newer");
        assert_eq!(answer(&profile, audit, base + 9999), ENOSYS);
    }
    assert_eq!(answer(&profile, 0xc000_00b7, 440), 0, "another architecture");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn only_a_default_that_denies_makes_way() {
    for (action, value) in [("SCMP_ACT_ALLOW", 0x7fff_0000), ("SCMP_ACT_LOG", 0x7ffc_0000), ("SCMP_ACT_TRACE", 0x7ff0_0001)] {
        assert_eq!(answer(&with_default(action), X86_64, 440), value, "{action}");
    }
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        assert_eq!(answer(&with_default(action), X86_64, 440), ENOSYS, "{action}");
        assert_ne!(answer(&with_default(action), X86_64, 438), ENOSYS, "{action}");
    }
}

/// Loads a filter into a thread of its own and asks there for the current directory.
fn current_dir_under(filter: Filter) -> Option<i32> {
    let thread = std::thread::spawn(move || {
        rt::sys::process::set_no_new_privs().unwrap();
        load(&filter.program, filter.flags, false).unwrap();
        std::env::current_dir().err().and_then(|error| error.raw_os_error())
    });
    thread.join().unwrap()
}

#[test]
fn the_kernel_takes_our_programs() {
    let denied = [{ json!({ "names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }) }];
    assert_eq!(current_dir_under(filter(&parse(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": denied })))), Some(95));
    if let Some(profile) = docker() {
        assert_eq!(current_dir_under(filter(&profile)), None);
    }
}
