//! Limits for an ordinary user: with a cgroup that was given to them, and what they are told without one. Root plays the user here, in a
//! view where version 2 is all there is; what a user of this machine meets is in `rootless`.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Ctx, Output, read};
use crate::hierarchy::in_pure_view;
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        a_delegated_directory_has_limits,
        a_delegated_directory_is_paused_and_killed,
        without_a_directory_the_step_is_named,
        without_the_controller_the_step_is_named,
        beside_the_session_is_room_for_limits,
    }
}

/// An id that is nobody's.
const UID: u32 = 54_321;

/// A cgroup of the user's, with the processes of their session below; removed with this.
struct Delegated(PathBuf);

impl Delegated {
    fn new(ctx: &Ctx) -> Self {
        let dir = Path::new("/sys/fs/cgroup").join(ctx.fresh("rt-given"));
        std::fs::create_dir_all(dir.join("session")).unwrap();
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "session", "session/cgroup.procs"] {
            chown(dir.join(file), Some(UID), Some(UID)).unwrap();
        }
        Self(dir)
    }

    fn path(&self, below: &str) -> String {
        format!("/{}/{below}", self.0.file_name().unwrap().to_str().unwrap())
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for below in ["session", "rt", ""] {
            let _ = std::fs::remove_dir(self.0.join(below));
        }
    }
}

/// A limit of the only controller that the unified tree of a machine with both versions has.
fn limit() -> Value {
    json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] })
}

/// The controller has to arrive at the user's cgroup.
fn hand_on(dir: &Path) -> bool {
    std::fs::write(dir.join("cgroup.subtree_control"), "+hugetlb").is_ok()
}

/// `rt ARGUMENTS` as the user, from a process in this cgroup.
fn as_user(ctx: &Ctx, session: &Path, arguments: &[&str]) -> Output {
    let root = ctx.path("user-state");
    std::fs::create_dir_all(&root).unwrap();
    chown(&root, Some(UID), Some(UID)).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o700)).unwrap();
    let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", session.display());
    let uid = UID.to_string();
    // Where the user reaches it, wherever the original lies.
    let runtime = ctx.path("runtime");
    if !Path::new(&runtime).exists() {
        std::fs::copy(ctx.runtime(), &runtime).unwrap();
    }
    let mut argv =
        vec!["sh", "-c", &script, "sh", "setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups", "--inh-caps=-all"];
    argv.extend([runtime.as_str(), "--root", root.as_str()]);
    argv.extend(arguments);
    ctx.command(&argv).env("XDG_RUNTIME_DIR", "/nowhere").run()
}

/// A bundle for the user.
fn bundle(ctx: &Ctx, path: Option<&str>) -> crate::ctx::Bundle {
    ctx.bundle(|c| {
        *c = config::default(UID, UID);
        config::shell(c, "grep ^0: /proc/self/cgroup");
        config::without_mount(c, "/sys");
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = limit();
    })
}

fn a_delegated_directory_has_limits(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, |ctx| {
        let given = Delegated::new(ctx);
        if !hand_on(Path::new("/sys/fs/cgroup")) {
            return Skip("no hugetlb controller".to_owned());
        }
        let bundle = bundle(ctx, Some(&given.path("box")));
        bundle.edit(|c| c["process"]["args"] = json!(["sleep", "100"]));
        let session = given.0.join("session");
        let created = as_user(ctx, &session, &["create", "-b", bundle.path(), "given"]).ok();
        assert!(!created.stderr.contains("warning"), "{created}");
        assert_eq!(read(&given.0.join("box/hugetlb.2MB.max")), "4194304\n");
        as_user(ctx, &session, &["start", "given"]).ok();
        as_user(ctx, &session, &["exec", "given", "true"]).ok();
        let huge = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 2_097_152 }] });
        let file = ctx.host_dir("new", "limits.json", &huge.to_string());
        as_user(ctx, &session, &["update", "-r", &format!("{file}/limits.json"), "given"]).ok();
        assert_eq!(read(&given.0.join("box/hugetlb.2MB.max")), "2097152\n");
        as_user(ctx, &session, &["delete", "--force", "given"]).ok();
        assert!(!given.0.join("box").exists());
        Pass
    })
}

fn a_delegated_directory_is_paused_and_killed(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, |ctx| {
        let given = Delegated::new(ctx);
        let bundle = bundle(ctx, Some(&given.path("box")));
        bundle.edit(|c| {
            c["process"]["args"] = json!(["sleep", "100"]);
            c["linux"]["resources"] = json!({});
        });
        let session = given.0.join("session");
        let rt = |arguments: &[&str]| as_user(ctx, &session, arguments);
        rt(&["run", "-d", "-b", bundle.path(), "given"]).ok();
        rt(&["pause", "given"]).ok();
        assert!(read(&given.0.join("box/cgroup.events")).contains("frozen 1"));
        rt(&["delete", "--force", "given"]).ok();
        assert!(!given.0.join("box").exists());
        Pass
    })
}

fn without_a_directory_the_step_is_named(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, |ctx| {
        needs_rt!(ctx, "no other one says so");
        if Path::new("/run/systemd/system").exists() {
            return Skip("systemd would be asked".to_owned());
        }
        let bundle = bundle(ctx, None);
        let output = as_user(ctx, Path::new("/sys/fs/cgroup"), &["run", "-b", bundle.path(), "given"]).ok();
        assert!(
            output.stderr.contains("no cgroup was given to this user") && output.stderr.contains(&format!("chown {UID}")),
            "{output}"
        );
        Pass
    })
}

fn without_the_controller_the_step_is_named(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, |ctx| {
        needs_rt!(ctx, "no other one says so");
        if Path::new("/run/systemd/system").exists() || !hand_on(Path::new("/sys/fs/cgroup")) {
            return Skip("systemd would be asked, or there is no hugetlb controller".to_owned());
        }
        // A level above the user's keeps the controller for itself.
        let above = Path::new("/sys/fs/cgroup").join(ctx.fresh("rt-keeps"));
        std::fs::create_dir(&above).unwrap();
        let name = above.file_name().unwrap().to_str().unwrap().to_owned();
        for dir in ["user", "user/session"] {
            std::fs::create_dir(above.join(dir)).unwrap();
        }
        for file in ["user", "user/cgroup.procs", "user/cgroup.subtree_control", "user/session", "user/session/cgroup.procs"] {
            chown(above.join(file), Some(UID), Some(UID)).unwrap();
        }
        let bundle = bundle(ctx, Some(&format!("/{name}/user/box")));
        let output = as_user(ctx, &above.join("user/session"), &["run", "-b", bundle.path(), "given"]);
        for dir in ["user/session", "user", ""] {
            std::fs::remove_dir(above.join(dir)).unwrap();
        }
        let repair = format!("echo +hugetlb > /sys/fs/cgroup/{name}/cgroup.subtree_control");
        assert!(output.code == 0 && output.stderr.contains(&repair), "{output}");
        assert_eq!(output.text(), format!("0::/{name}/user/box"));
        Pass
    })
}

fn beside_the_session_is_room_for_limits(ctx: &Ctx) -> Outcome {
    in_pure_view(ctx, |ctx| {
        needs_rt!(ctx, "others stay below the session's cgroup");
        if !hand_on(Path::new("/sys/fs/cgroup")) {
            return Skip("no hugetlb controller".to_owned());
        }
        let given = Delegated::new(ctx);
        let output = as_user(ctx, &given.0.join("session"), &["run", "-b", bundle(ctx, None).path(), "given"]).ok();
        assert_eq!((output.text(), output.stderr.as_str()), (format!("0::{}", given.path("rt-given")).as_str(), ""));
        Pass
    })
}
