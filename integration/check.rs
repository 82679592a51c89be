//! `rt check`: what it says is what create does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Bundle, Ctx, Output, Running};
use crate::generate::{Dice, Recipe, World, own_groups};
use crate::runner::Outcome::{self, Pass};

tests! {
    Both { predicts_what_create_does, finds_everything_at_once, leaves_no_trace, speaks_json, a_strange_config_json_is_refused }
    Both { a_container_without_a_program_cannot_be_started, a_namespace_that_is_a_fifo_is_not_waited_for }
    Root { limits_that_the_kernel_refuses_are_foreseen }
    Both { more_groups_than_the_kernel_takes, a_huge_passwd_costs_home_only, a_program_that_cannot_be_executed }
    User { a_user_namespace_that_is_made_is_named }
}

/// `RT_CASES` random configurations from `RT_SEED`: no fatal finding means that the container can be made and started, a fatal one that it
/// cannot, and why. Nothing is left in either case.
fn predicts_what_create_does(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "check is a command of rt");
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (cases, seed) = (number("RT_CASES", 30), number("RT_SEED", 20));
    ctx.may_take(u32::try_from(cases).unwrap(), Duration::from_secs(1));
    let holder = Holder::new(ctx);
    let world = World { holder: holder.as_ref().map(Holder::pid), ..world(ctx) };
    let (mut made, mut refused, mut failures) = (0, 0, Vec::new());
    let mut codes = BTreeMap::new();
    for case in 0..cases {
        let recipe = Recipe::new(Dice::new(seed ^ (case << 32)).next());
        match try_one(ctx, &recipe, &world) {
            Ok(None) => made += 1,
            Ok(Some(code)) => {
                *codes.entry(code).or_insert(0) += 1;
                refused += 1;
            }
            Err(why) => failures.push(simplest(ctx, recipe, &world, why)),
        }
    }
    println!(
        "         seed {seed}: {cases} configurations, {made} made, {refused} refused as predicted, {} failed",
        failures.len()
    );
    println!("         refused: {codes:?}");
    assert!(failures.is_empty(), "{} of {cases} (seed {seed}):\n\n{}", failures.len(), failures.join("\n\n"));
    Pass
}

fn world(ctx: &Ctx) -> World {
    World {
        uid: ctx.uid(),
        ids: subordinate(),
        folder: ctx.host_dir("host", "file", "content"),
        features: ctx.rt(&["features"]).ok().json(),
        holder: None,
    }
}

/// A process in namespaces of its own.
struct Holder(Running);

impl Holder {
    fn new(ctx: &Ctx) -> Option<Self> {
        let unshare = ["unshare", "--uts", "--ipc", "--net", "sleep", "1000000"];
        let holder = (ctx.uid() == 0).then(|| Self(ctx.command(&unshare).spawn()))?;
        let uts = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        ctx.wait_until("the namespaces are there", || uts(&holder.pid()).is_some_and(|there| Some(there) != uts("self")));
        Some(holder)
    }

    fn pid(&self) -> String {
        self.0.pid()
    }
}

/// The first subordinate id of the suite's user.
fn subordinate() -> u32 {
    let file = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let line = file.lines().find(|line| line.starts_with("rttest:")).unwrap_or_default();
    line.split(':').nth(1).and_then(|number| number.parse().ok()).unwrap_or(500_000)
}

/// Leaves edits out as long as it fails.
fn simplest(ctx: &Ctx, mut recipe: Recipe, world: &World, mut why: String) -> String {
    while let Some((simpler, reason)) =
        recipe.simpler().into_iter().find_map(|simpler| try_one(ctx, &simpler, world).err().map(|reason| (simpler, reason)))
    {
        (recipe, why) = (simpler, reason);
    }
    format!("{:?}: {why}", recipe.names())
}

/// Nothing if it was made, the code of the finding if it was refused as predicted.
fn try_one(ctx: &Ctx, recipe: &Recipe, world: &World) -> Result<Option<String>, String> {
    let bundle = small_bundle(ctx);
    let mut config = ctx.config();
    let mark = format!("{}", 1_000_000 + Dice::new(u64::from(std::process::id())).next() % 1_000_000);
    config["process"]["args"] = json!(["sleep", mark]);
    recipe.cook(&mut config, world);
    bundle.write_config(&config);
    let id = ctx.fresh("generated");
    let result = compare(ctx, &bundle, &id);
    let _ = ctx.rt(&["delete", "--force", &id]);
    let left = leftovers(ctx, &[&id, &format!("rt-{id}"), &format!("{}*", own_groups())], &mark);
    let _ = fs::remove_dir_all(&bundle.dir);
    let excerpt = || serde_json::to_string(&config).unwrap();
    match (result, left.is_empty()) {
        (Ok(made), true) => Ok(made),
        (Ok(_), false) => Err(format!("left: {left}\n{}", excerpt())),
        (Err(why), _) => Err(format!("{why}\nleft: {left}\n{}", excerpt())),
    }
}

/// As the suite's, with a few programs only, and some that cannot be executed.
fn small_bundle(ctx: &Ctx) -> Bundle {
    let bundle = Bundle { dir: ctx.dir.join(ctx.fresh("small")) };
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "data"] {
        fs::create_dir_all(bundle.rootfs(dir)).unwrap();
    }
    fs::hard_link(ctx.probe(), bundle.rootfs("bin/probe")).unwrap();
    fs::hard_link(Path::new(&ctx.probe()).with_file_name("busybox"), bundle.rootfs("bin/busybox")).unwrap();
    for name in ["sleep", "true", "sh"] {
        symlink("busybox", bundle.rootfs("bin").join(name)).unwrap();
    }
    symlink("/nowhere", bundle.rootfs("data/link")).unwrap();
    fs::write(bundle.rootfs("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    executable(&bundle.rootfs("bin/script"), b"#!/bin/nosuch -x\n");
    executable(&bundle.rootfs("bin/foreign"), b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\x0f\x01\0\0\0");
    executable(&bundle.rootfs("bin/needs-loader"), &fs::read("/bin/ls").unwrap());
    bundle
}

fn executable(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn compare(ctx: &Ctx, bundle: &Bundle, id: &str) -> Result<Option<String>, String> {
    let before = tree(&bundle.dir);
    let check = ctx.rt(&["check", "--id", id, "--format", "json", bundle.path()]);
    sane(&check)?;
    if tree(&bundle.dir) != before {
        return Err("check changed the bundle".to_owned());
    }
    let found = check.json();
    let fatal: Vec<&Value> = found["findings"].as_array().unwrap().iter().filter(|f| f["severity"] == "fatal").collect();
    if (check.code == 0) != fatal.is_empty() {
        return Err(format!("exit status against findings: {check}"));
    }
    // Whoever is behind it takes the terminal when the container is gone.
    let console = (bundle.config()["process"]["terminal"] == true).then(|| Console::listen(ctx));
    let socket = console.iter().flat_map(|console| ["--console-socket", console.path.as_str()]);
    let create = ctx.rt(&["create"].into_iter().chain(socket).chain(["--bundle", bundle.path(), id]).collect::<Vec<_>>());
    sane(&create)?;
    let start = (create.code == 0).then(|| ctx.rt(&["start", id]));
    let said = start.iter().chain([&create]).map(|output| output.stderr.clone()).collect::<String>();
    let worked = start.as_ref().is_some_and(|output| output.code == 0);
    match (worked, fatal.is_empty()) {
        (true, true) => live_and_die(ctx, id).map(|()| None),
        (true, false) => Err(format!("predicted, but made: {}", json!(fatal))),
        // What check does not know it says so.
        (false, true) if excused(&said, &found) => Ok(Some("untried".to_owned())),
        (false, true) => Err(format!("refused without a prediction: {said}\ncheck: {}", found["findings"])),
        (false, false) => {
            let neutrally = neutral(&said);
            let told = |finding: &&&Value| {
                let (path, text) = (finding["path"].as_str().unwrap(), finding["text"].as_str().unwrap());
                neutrally.contains(&neutral(text)) && (text.contains(path) || neutrally.contains(path))
            };
            match fatal.iter().find(told) {
                Some(finding) => Ok(Some(finding["code"].as_str().unwrap().to_owned())),
                // Of two refusals the one that nothing was known about came first.
                None if excused(&said, &found) => Ok(Some("untried".to_owned())),
                None => Err(format!("refused in other words: {neutrally}\ncheck: {}", json!(fatal))),
            }
        }
    }
}

/// A console socket.
struct Console {
    path: String,
    _listener: UnixListener,
}

impl Console {
    fn listen(ctx: &Ctx) -> Self {
        let path = ctx.socket_path();
        let _listener = UnixListener::bind(&path).unwrap();
        Self { path, _listener }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// True if check said that it could not try what was refused.
fn excused(said: &str, found: &Value) -> bool {
    let untried = found["findings"].as_array().unwrap().iter().filter(|f| f["code"].as_str().unwrap().ends_with("-untried"));
    untried.map(|finding| finding["path"].as_str().unwrap()).any(|path| said.contains(&format!("({path})")))
}

/// Neither a panic nor a signal, and no hang.
fn sane(output: &Output) -> Result<(), String> {
    if output.code > 1 || output.stderr.contains("panicked") { Err(format!("crashed: {output}")) } else { Ok(()) }
}

fn live_and_die(ctx: &Ctx, id: &str) -> Result<(), String> {
    let state = ctx.rt(&["state", id]);
    sane(&state)?;
    let killed = ctx.rt(&["kill", id, "KILL"]);
    if killed.code != 0 && !killed.stderr.contains("not running") {
        return Err(format!("{killed}"));
    }
    ctx.wait_until("it is stopped", || ctx.rt(&["state", id]).json()["status"] == "stopped");
    let deleted = ctx.rt(&["delete", id]);
    if deleted.code == 0 { Ok(()) } else { Err(format!("{deleted}")) }
}

/// Numbers of descriptors and processes differ from run to run.
fn neutral(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        out.push_str(before);
        let is_descriptor =
            before.ends_with('(') || before.ends_with("map ") || before.ends_with("fd/") || before.ends_with("/proc/");
        out.push_str(if is_descriptor { "N" } else { &from[..end] });
        rest = &from[end..];
    }
    // The second descriptor of a call.
    (out + rest)
        .split("move_mount(N, ")
        .map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()))
        .collect::<Vec<_>>()
        .join("move_mount(N, ")
}

/// Every path of a bundle.
fn tree(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            found.push(format!("{} {kind:?}", entry.path().display()));
            if kind.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// What is there after delete and should not be: mounts, control groups of these names, state, processes.
fn leftovers(ctx: &Ctx, names: &[&str], mark: &str) -> String {
    let mut left = Vec::new();
    let own = ctx.dir.to_str().unwrap().to_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(&own)).map(|line| format!("mount {line}")));
    for name in names {
        let groups = ctx.command(&["find", "/sys/fs/cgroup", "-type", "d", "-name", name]).run();
        left.extend(groups.stdout.lines().map(|line| format!("group {line}")));
    }
    left.extend(fs::read_dir(ctx.state_root()).into_iter().flatten().flatten().map(|entry| format!("state {:?}", entry.path())));
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes()) {
            left.push(format!("process {:?}", entry.path()));
        }
    }
    left.join("; ")
}

fn finds_everything_at_once(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "check is a command of rt");
    let bundle = ctx.bundle(|c| {
        config::mount(c, "bind", "/nonexistent/source", "/data", &["bind"]);
        config::mount(c, "tmpfs", "tmpfs", "/tmp", &["size=banana"]);
        c["hooks"] = json!({ "createRuntime": [{ "path": "/nonexistent/hook" }], "poststop": [{ "path": "/nonexistent/late" }] });
        c["process"]["args"] = json!(["nosuchprogram"]);
    });
    let output = ctx.rt(&["check", bundle.path()]).exits(1);
    for line in [
        "fatal: bind /nonexistent/source on /data (mounts[7]): open_tree(AT_FDCWD, \"/nonexistent/source\", OPEN_TREE_CLONE): no such file or directory (ENOENT) [mounts-refused]",
        "fatal: mount tmpfs on /tmp: size=banana (mounts[8]): tmpfs: Bad value for 'size'",
        "   hint: tmpfs sizes are a number",
        "fatal: run createRuntime hook /nonexistent/hook (hooks.createRuntime[0]): execve(\"/nonexistent/hook\"): no such file or directory (ENOENT) [hooks-refused]",
        "fatal: find the program (process.args): exec: \"nosuchprogram\": executable file not found in $PATH [program-refused]",
        "warning: run poststop hook /nonexistent/late (hooks.poststop[0])",
        "4 fatal, ",
    ] {
        assert!(output.stdout.contains(line), "{line}\n{output}");
    }
    // What the plan finds is all said, too, and then nothing is tried.
    bundle.edit(|c| {
        c["process"]["cwd"] = json!("relative");
        c["linux"]["rootfsPropagation"] = json!("sideways");
    });
    let output = ctx.rt(&["check", bundle.path()]).exits(1);
    for line in ["fatal: process.cwd: \"relative\": expected an absolute path [cwd-invalid]", "[root-invalid]", "2 fatal, "] {
        assert!(output.stdout.contains(line), "{line}\n{output}");
    }
    Pass
}

fn leaves_no_trace(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "check is a command of rt");
    let folder = ctx.host_dir("host", "file", "content");
    let bundle = ctx.bundle(|c| {
        config::mount(c, "bind", &folder, "/data", &["rbind", "rshared"]);
        // Below a directory of the host that does not have it.
        config::mount(c, "tmpfs", "tmpfs", "/data/new", &[]);
        config::mount(c, "tmpfs", "tmpfs", "/not/there/yet", &[]);
        c["process"]["cwd"] = json!("/made/on/the/way");
        c["hooks"] = json!({ "createRuntime": [{ "path": "/bin/touch", "args": ["touch", format!("{folder}/touched")] }] });
    });
    let before = (tree(&bundle.dir), tree(Path::new(&folder)));
    let output = ctx.rt(&["check", bundle.path()]).ok();
    assert!(output.stdout.contains("note: make mount point /data/new") || output.stdout.contains("mounts-untried"), "{output}");
    assert_eq!((tree(&bundle.dir), tree(Path::new(&folder))), before, "{output}");
    assert!(!ctx.state_root().exists(), "a state root was made");
    assert_eq!(leftovers(ctx, &["rt-check"], "no process"), "");
    Pass
}

fn speaks_json(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "check is a command of rt");
    let bundle = ctx.bundle(|c| c["process"]["args"] = json!(["/bin/nosuch"]));
    let found = ctx.rt(&["check", "--format", "json", bundle.path()]).exits(1).json();
    assert_eq!(found["ok"], false, "{found}");
    let finding = &found["findings"][0];
    assert_eq!(finding["code"], "program-refused");
    assert_eq!(finding["severity"], "fatal");
    assert_eq!(finding["path"], "process.args");
    fs::write(bundle.dir.join("config.json"), "{ \"mounts\": 5 }").unwrap();
    let found = ctx.rt(&["check", "--format", "json", bundle.path()]).exits(1).json();
    assert_eq!(found["findings"][0]["code"], "config-unreadable", "{found}");
    Pass
}

/// A fifo would be waited for, a device read for ever.
fn a_strange_config_json_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the words are those of rt");
    let container = ctx.container(ctx.bundle(|_| ()));
    let file = container.bundle.dir.join("config.json");
    for (command, what) in
        [(vec!["mkfifo"], "a fifo"), (vec!["mkdir"], "a directory"), (vec!["ln", "-s", "/dev/zero"], "a device")]
    {
        let _ = fs::remove_file(&file).or_else(|_| fs::remove_dir(&file));
        ctx.host(&[&command[..], &[file.to_str().unwrap()]].concat()).ok();
        let text = format!("expected a regular file, found {what}");
        for verb in ["create", "run"] {
            ctx.rt(&[verb, "--bundle", container.bundle.path(), &container.id]).exits(1).refused(&text);
        }
        assert!(ctx.rt(&["check", container.bundle.path()]).exits(1).stdout.contains(&text));
    }
    Pass
}

/// All of them at once; create comes to the first one only, and says the same.
fn limits_that_the_kernel_refuses_are_foreseen(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "check is a command of rt");
    let rate = |major: i64| json!([{ "major": major, "minor": 511, "rate": 1 }]);
    let mut container = ctx.container(ctx.bundle(|c| {
        c["linux"]["resources"] = json!({
            "cpu": { "cpus": "0,x", "mems": "99999" },
            "blockIO": { "throttleReadBpsDevice": rate(4001), "throttleWriteIOPSDevice": rate(4002) }
        });
    }));
    let output = ctx.rt(&["check", "--id", &container.id, container.bundle.path()]).exits(1);
    let fatal: Vec<&str> = output.lines().into_iter().filter_map(|line| line.strip_prefix("fatal: ")).collect();
    for (text, why) in [
        ("set cpuset.cpus to \"0,x\" (linux.resources.cpu.cpus)", "(EINVAL)"),
        ("set cpuset.mems to \"99999\" (linux.resources.cpu.mems)", "(ERANGE)"),
        ("(linux.resources.blockIO.throttleReadBpsDevice[0])", "(ENODEV)"),
        ("(linux.resources.blockIO.throttleWriteIOPSDevice[0])", "(ENODEV)"),
    ] {
        assert!(fatal.iter().any(|line| line.contains(text) && line.contains(why)), "{text} {why}: {output}");
    }
    let said = container.create().exits(1).stderr;
    let (first, _) = fatal[0].rsplit_once(" [cgroups-refused]").unwrap();
    assert!(said.contains(first), "{first}: {said}");
    Pass
}

fn a_container_without_a_program_cannot_be_started(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "check is a command of rt");
    let bundle = ctx.bundle(|c| drop(c.as_object_mut().unwrap().remove("process")));
    let text = "fatal: process is missing in config.json; it is required to start a container [process-refused]";
    assert!(ctx.rt(&["check", bundle.path()]).exits(1).stdout.contains(text));
    Pass
}

fn a_namespace_that_is_a_fifo_is_not_waited_for(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the words are those of rt");
    let fifo = ctx.path("fifo");
    ctx.host(&["mkfifo", &fifo]).ok();
    let mut container = ctx.container(ctx.bundle(|c| {
        config::without_namespace(c, "network");
        config::namespace(c, "network", Some(&fifo));
    }));
    let text = format!("expected a network namespace at {fifo}, found something that is not a namespace");
    assert!(ctx.rt(&["check", container.bundle.path()]).exits(1).stdout.contains(&text));
    container.create().exits(1).refused(&text);
    Pass
}

fn more_groups_than_the_kernel_takes(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the words are those of rt");
    let bundle = ctx.bundle(|c| c["process"]["user"]["additionalGids"] = json!(vec![0; 65_537]));
    let text = "process.user.additionalGids: 65537 entries: expected at most 65536";
    ctx.rt(&["plan", bundle.path()]).exits(1).refused(text);
    Pass
}

fn a_huge_passwd_costs_home_only(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "peers read all of it");
    let bundle = ctx.bundle(|c| {
        config::shell(c, "echo $HOME");
        c["process"]["env"] = json!(["PATH=/bin"]);
    });
    fs::write(bundle.rootfs("etc/passwd"), "x:x:1:1::/x:/bin/sh\n".repeat(100_000)).unwrap();
    let output = ctx.container(bundle).run().ok();
    assert_eq!(output.text(), "/");
    assert!(output.stderr.contains("rt: warning: /etc/passwd of the container is larger than"), "{output}");
    Pass
}

/// Check sees it in the file, create and start hear it from the kernel: in the same words.
fn a_program_that_cannot_be_executed(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "check is a command of rt");
    for (program, text) in [
        ("/bin/script", "exec: \"/bin/script\": no such file or directory"),
        ("/bin/needs-loader", "exec: \"/bin/needs-loader\": no such file or directory"),
        ("/bin/foreign", "exec: \"/bin/foreign\": exec format error"),
    ] {
        let bundle = small_bundle(ctx);
        let mut config = ctx.config();
        config["process"]["args"] = json!([program]);
        bundle.write_config(&config);
        assert!(ctx.rt(&["check", bundle.path()]).stdout.contains(text), "{text}");
        let mut container = ctx.container(bundle);
        container.create().ok();
        container.start().exits(1).refused(text);
    }
    Pass
}

fn a_user_namespace_that_is_made_is_named(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "the words are those of rt");
    let bundle = ctx.bundle(|c| {
        config::without_namespace(c, "user");
        c["linux"]["uidMappings"] = json!([]);
        c["linux"]["gidMappings"] = json!([]);
    });
    let text = "linux.namespaces: no user namespace; one is made because this caller does not have CAP_SYS_ADMIN: uids 0+1 to";
    let plan = ctx.rt(&["plan", bundle.path()]).ok();
    assert!(plan.stdout.contains(text) && plan.stdout.contains("into new namespaces: user"), "{plan}");
    assert!(ctx.rt(&["check", bundle.path()]).stdout.contains(text));
    ctx.rt(&["--strict", "plan", bundle.path()]).exits(1).refused(text);
    Pass
}
