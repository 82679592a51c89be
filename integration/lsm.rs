//! AppArmor profiles and SELinux labels, as the program in the container sees them. Where the kernel has no such module there is nothing
//! to test.

use std::path::Path;

use serde_json::json;

use crate::config;
use crate::ctx::{Ctx, read};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        an_apparmor_profile_confines_the_program,
        exec_has_the_container_s_apparmor_profile_or_another,
        an_apparmor_profile_without_no_new_privileges,
        an_apparmor_profile_that_is_not_loaded_is_refused,
        an_apparmor_profile_with_seccomp,
        a_selinux_label_is_the_program_s,
        a_mount_label_is_the_files,
    }
    Both {
        a_module_that_is_not_active_is_refused,
    }
}

fn apparmor() -> bool {
    read(Path::new("/sys/module/apparmor/parameters/enabled")).starts_with('Y')
}

fn selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// A loaded profile, which allows everything but writing to /data; it is taken away in the end.
struct Profile<'c> {
    ctx: &'c Ctx<'c>,
    name: String,
    file: String,
}

impl<'c> Profile<'c> {
    fn load(ctx: &'c Ctx<'c>, stem: &str) -> Result<Self, String> {
        if !apparmor() {
            return Err("AppArmor is not active".to_owned());
        }
        let parser = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"].into_iter().find(|path| Path::new(path).exists());
        let Some(parser) = parser else { return Err("no apparmor_parser (package apparmor)".to_owned()) };
        let name = ctx.fresh(stem);
        let file = ctx.path(&name);
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n  file, capability, network, signal, ptrace, mount, umount, \
             pivot_root, unix,\n  deny /data/** w,\n}}\n"
        );
        std::fs::write(&file, text).unwrap();
        ctx.command(&[parser, "--replace", "--skip-cache", &file]).run().ok();
        Ok(Self { ctx, name, file })
    }
}

impl Drop for Profile<'_> {
    fn drop(&mut self) {
        let _ = self.ctx.command(&["apparmor_parser", "--remove", &self.file]).run();
    }
}

macro_rules! profile {
    ($ctx:expr, $stem:expr) => {
        match Profile::load($ctx, $stem) {
            Ok(profile) => profile,
            Err(why) => return Skip(why),
        }
    };
}

/// Prints the own profile, and whether /data can be written to.
const SCRIPT: &str = "cat /proc/self/attr/current; (echo x > /data/x) 2>/dev/null && echo written || echo denied";

fn an_apparmor_profile_confines_the_program(ctx: &Ctx) -> Outcome {
    let profile = profile!(ctx, "rt-strict");
    let without = ctx.sh_with(SCRIPT, |_| {});
    assert_eq!(without, "unconfined\nwritten\n");
    let output = ctx.sh_with(SCRIPT, |c| c["process"]["apparmorProfile"] = json!(profile.name));
    assert_eq!(output, format!("{} (enforce)\ndenied\n", profile.name));
    Pass
}

fn exec_has_the_container_s_apparmor_profile_or_another(ctx: &Ctx) -> Outcome {
    let (first, second) = (profile!(ctx, "rt-first"), profile!(ctx, "rt-second"));
    let container = ctx.running(|c| c["process"]["apparmorProfile"] = json!(first.name));
    assert_eq!(container.sh(SCRIPT), format!("{} (enforce)\ndenied", first.name));
    let other = container.exec(&["--apparmor", &second.name], &["cat", "/proc/self/attr/current"]).ok();
    assert_eq!(other.text(), format!("{} (enforce)", second.name));
    let plain = ctx.running(|_| {});
    assert_eq!(plain.sh("cat /proc/self/attr/current"), "unconfined");
    plain.exec(&["--apparmor", "rt-no-such-profile"], &["true"]).exits(255).refused("apparmor_parser");
    Pass
}

fn an_apparmor_profile_without_no_new_privileges(ctx: &Ctx) -> Outcome {
    let profile = profile!(ctx, "rt-privs");
    let output = ctx.sh_with(SCRIPT, |c| {
        c["process"]["noNewPrivileges"] = json!(false);
        c["process"]["apparmorProfile"] = json!(profile.name);
    });
    assert_eq!(output, format!("{} (enforce)\ndenied\n", profile.name));
    Pass
}

/// The filter is loaded after the profile was named, and forbids what names one.
fn an_apparmor_profile_with_seccomp(ctx: &Ctx) -> Outcome {
    let profile = profile!(ctx, "rt-both");
    let output = ctx.sh_with(&format!("{SCRIPT}; mkdir /tmp/x 2>&1 | grep -o 'not permitted'"), |c| {
        c["process"]["apparmorProfile"] = json!(profile.name);
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]
        });
    });
    assert_eq!(output, format!("{} (enforce)\ndenied\nnot permitted\n", profile.name));
    Pass
}

fn an_apparmor_profile_that_is_not_loaded_is_refused(ctx: &Ctx) -> Outcome {
    if !apparmor() {
        return Skip("AppArmor is not active".to_owned());
    }
    ctx.run(|c| c["process"]["apparmorProfile"] = json!("rt-no-such-profile")).exits(1).refused("apparmor_parser(8)");
    Pass
}

fn a_module_that_is_not_active_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc says something else");
    if apparmor() && selinux() {
        return Skip("both modules are active".to_owned());
    }
    let (field, module) = if apparmor() { ("selinuxLabel", "SELinux") } else { ("apparmorProfile", "AppArmor") };
    ctx.run(|c| c["process"][field] = json!("a:b:c:s0")).exits(1).refused(&format!("{module} is not active on this host"));
    Pass
}

/// A label that the policy knows for the container; the permissive mode lets everything pass.
const LABEL: &str = "system_u:system_r:initrc_t:s0";

fn a_selinux_label_is_the_program_s(ctx: &Ctx) -> Outcome {
    if !selinux() {
        return Skip("SELinux is not active".to_owned());
    }
    let container = ctx.running(|c| c["process"]["selinuxLabel"] = json!(LABEL));
    let own = |text: &str| text.trim_end_matches(['\0', '\n']).to_owned();
    assert_eq!(own(&read(format!("/proc/{}/attr/current", container.pid()).as_ref())), LABEL);
    assert_eq!(own(&container.sh("cat /proc/self/attr/current")), LABEL);
    let other = LABEL.replace("initrc_t", "unconfined_t");
    let output = container.exec(&["--process-label", &other], &["cat", "/proc/self/attr/current"]).ok();
    assert_eq!(own(output.text()), other);
    Pass
}

fn a_mount_label_is_the_files(ctx: &Ctx) -> Outcome {
    if !selinux() {
        return Skip("SELinux is not active".to_owned());
    }
    let label = "system_u:object_r:tmp_t:s0";
    let container = ctx.running(|c| {
        c["linux"]["mountLabel"] = json!(label);
        config::mount(c, "tmpfs", "tmpfs", "/scratch", &["nosuid"]);
    });
    let mounts = container.sh("grep ' /scratch ' /proc/self/mountinfo");
    assert!(mounts.contains(&format!("context={label}")) || mounts.contains(&format!("context=\"{label}\"")), "{mounts}");
    // Message queues take no such option: their root is labelled.
    let queues = ctx.command(&["ls", "-Zd", &format!("/proc/{}/root/dev/mqueue", container.pid())]).run().ok();
    assert!(queues.text().starts_with(&format!("{label} ")), "{queues}");
    // What is added later is labelled like it.
    let list = ctx.path("list");
    std::fs::write(&list, r#"[{ "destination": "/later", "type": "tmpfs", "source": "tmpfs" }]"#).unwrap();
    ctx.rt(&["mounts", "add", &container.id, &list]).ok();
    let mounts = container.sh("grep ' /later ' /proc/self/mountinfo");
    assert!(mounts.contains(&format!("context={label}")) || mounts.contains(&format!("context=\"{label}\"")), "{mounts}");
    Pass
}
