//! What a test holds in its hands: a folder of its own, commands with a deadline, bundles and containers.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config;
use crate::runner::Who;

/// The time that one test may take, all its commands together.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How many times slower than a usual one the machine is (`RT_SLOWNESS`): an emulated one takes its time.
pub fn slowness() -> u32 {
    std::env::var("RT_SLOWNESS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(3);

/// The runtime under test: `RT`, or `bin/rt` of this repository.
pub fn runtime_path() -> PathBuf {
    std::env::var_os("RT").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("bin/rt"), PathBuf::from)
}

/// Why the suite cannot run at all.
pub enum Unprepared {
    NoRuntime(String),
    Missing(&'static str),
}

/// What all tests share: the runtime, a static busybox, the compiled prober, the caller's ids.
pub struct Suite {
    runtime: PathBuf,
    is_rt: bool,
    dir: PathBuf,
    applets: Vec<String>,
    uid: u32,
    gid: u32,
    counter: AtomicU32,
}

impl Suite {
    pub fn prepare() -> Result<Self, Unprepared> {
        let runtime = runtime_path();
        let version = Command::new(&runtime).arg("--version").output();
        let version = version.map_err(|_| Unprepared::NoRuntime(runtime.display().to_string()))?;
        let dir = std::env::temp_dir().join(format!("rt-integration-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let owner = fs::metadata(&dir).unwrap();
        let suite = Self {
            // RT_NO_EXCUSES=1 runs what is otherwise skipped for peers, to see whether the stated deviations are real.
            is_rt: version.stdout.starts_with(b"rt version ") || std::env::var_os("RT_NO_EXCUSES").is_some(),
            applets: install_busybox(&dir)?,
            uid: owner.uid(),
            gid: owner.gid(),
            counter: AtomicU32::new(1),
            runtime,
            dir,
        };
        compile_probe(&suite.dir)?;
        Ok(suite)
    }

    pub fn may_run(&self, who: Who) -> bool {
        who == Who::Both || (who == Who::Root) == (self.uid == 0)
    }

    pub fn ctx(&self, title: &str) -> Ctx<'_> {
        let name = title.replace("::", "-").replace('_', "-");
        let dir = self.dir.join(&name);
        fs::create_dir(&dir).unwrap();
        Ctx { suite: self, dir, name, deadline: Mutex::new(Instant::now() + TIMEOUT * slowness()) }
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Copies busybox, which must be static, and returns the names of its applets.
fn install_busybox(dir: &Path) -> Result<Vec<String>, Unprepared> {
    const MISSING: Unprepared = Unprepared::Missing("no static /bin/busybox (package busybox-static)");
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists()).ok_or(MISSING)?;
    fs::copy(busybox, dir.join("busybox")).map_err(|_| MISSING)?;
    let list = Command::new(busybox).arg("--list").output().map_err(|_| MISSING)?;
    Ok(String::from_utf8_lossy(&list.stdout).lines().map(str::to_owned).collect())
}

/// Compiles probe.c, for what busybox cannot do. `RT_PROBE` names one that was compiled before, for machines without a compiler.
fn compile_probe(dir: &Path) -> Result<(), Unprepared> {
    if let Some(path) = std::env::var_os("RT_PROBE") {
        return fs::copy(path, dir.join("probe")).map(drop).map_err(|_| Unprepared::Missing("no probe where RT_PROBE says"));
    }
    const MISSING: Unprepared = Unprepared::Missing("no C compiler with a static libc (packages gcc, libc6-dev)");
    fs::write(dir.join("probe.c"), include_str!("probe.c")).unwrap();
    let cc = Command::new("cc").args(["-static", "-Os", "-Wall", "-o", "probe", "probe.c", "-lutil"]).current_dir(dir).status();
    if cc.is_ok_and(|status| status.success()) { Ok(()) } else { Err(MISSING) }
}

/// One test's view of the suite. Everything it makes lies in `dir` and is removed with it.
pub struct Ctx<'s> {
    suite: &'s Suite,
    pub dir: PathBuf,
    name: String,
    deadline: Mutex<Instant>,
}

impl Ctx<'_> {
    pub fn is_rt(&self) -> bool {
        self.suite.is_rt
    }

    /// The runtime binary under test.
    pub fn runtime(&self) -> &Path {
        &self.suite.runtime
    }

    pub fn uid(&self) -> u32 {
        self.suite.uid
    }

    pub fn gid(&self) -> u32 {
        self.suite.gid
    }

    /// The test's own state root.
    pub fn state_root(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A new name, unique on the machine while the suite runs.
    pub fn fresh(&self, stem: &str) -> String {
        let number = self.suite.counter.fetch_add(1, Ordering::Relaxed);
        format!("{stem}-{number}-{}", std::process::id())
    }

    /// A path in the test's folder, as text.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).into_os_string().into_string().unwrap()
    }

    /// A path for a socket: short, because its address holds 107 bytes only.
    pub fn socket_path(&self) -> String {
        self.suite.dir.join(self.fresh("socket")).into_os_string().into_string().unwrap()
    }

    /// A new folder in the test's folder, with this file in it, as a stand-in for the host's data.
    pub fn host_dir(&self, name: &str, file: &str, text: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(Path::new(&path).join(file), text).unwrap();
        path
    }

    /// A command with the test's deadline, not yet started.
    pub fn command<S: AsRef<str>>(&self, argv: &[S]) -> Cmd<'_> {
        Cmd { ctx: self, argv: argv.iter().map(|a| a.as_ref().to_owned()).collect(), env: Vec::new(), cwd: None, stdin: None }
    }

    /// A command of the runtime under test with the test's state root.
    pub fn rt_command(&self, arguments: &[&str]) -> Cmd<'_> {
        let root = self.path("state");
        let mut argv = vec![self.runtime().to_str().unwrap(), "--root", &root];
        argv.extend(arguments);
        self.command(&argv)
    }

    /// Runs the runtime under test.
    pub fn rt(&self, arguments: &[&str]) -> Output {
        self.rt_command(arguments).run()
    }

    /// Runs a busybox applet on the host.
    pub fn host(&self, arguments: &[&str]) -> Output {
        let busybox = self.suite.dir.join("busybox");
        let mut argv = vec![busybox.to_str().unwrap()];
        argv.extend(arguments);
        self.command(&argv).run()
    }

    /// The prober's path on the host.
    pub fn probe(&self) -> String {
        self.suite.dir.join("probe").to_str().unwrap().to_owned()
    }

    /// The default configuration for this user.
    pub fn config(&self) -> Value {
        config::default(self.uid(), self.gid())
    }

    /// A new bundle: the busybox tree, and the default configuration with an edit.
    pub fn bundle(&self, edit: impl FnOnce(&mut Value)) -> Bundle {
        let dir = self.dir.join(self.fresh("bundle"));
        self.make_rootfs(&dir.join("rootfs"));
        let mut config = self.config();
        edit(&mut config);
        let bundle = Bundle { dir };
        bundle.write_config(&config);
        bundle
    }

    fn make_rootfs(&self, root: &Path) {
        for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "data"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for program in ["busybox", "probe"] {
            fs::hard_link(self.suite.dir.join(program), root.join("bin").join(program)).unwrap();
        }
        for applet in self.suite.applets.iter().filter(|name| *name != "busybox") {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
    }

    /// A handle for a container of this bundle, with a new id; nothing is run yet.
    pub fn container(&self, bundle: Bundle) -> Container<'_> {
        Container { ctx: self, id: self.fresh(&self.name), bundle, output: None }
    }

    /// A container in status `created`.
    pub fn create(&self, edit: impl FnOnce(&mut Value)) -> Container<'_> {
        let mut container = self.container(self.bundle(edit));
        container.create().ok();
        container
    }

    /// A container in status `running`; its process sleeps unless the edit says otherwise.
    pub fn running(&self, edit: impl FnOnce(&mut Value)) -> Container<'_> {
        let container = self.create(edit);
        container.start().ok();
        container
    }

    /// Runs a container in the foreground, to its end.
    pub fn run(&self, edit: impl FnOnce(&mut Value)) -> Output {
        self.container(self.bundle(edit)).run()
    }

    /// Runs a shell script in an otherwise default container, to its end.
    pub fn sh(&self, script: &str) -> Output {
        self.run(|c| config::shell(c, script))
    }

    /// Runs a shell script in an edited container, to its end; the script must succeed, and what it prints is returned.
    pub fn sh_with(&self, script: &str, edit: impl FnOnce(&mut Value)) -> String {
        let output = self.run(|c| {
            config::shell(c, script);
            edit(c);
        });
        output.ok().stdout
    }

    /// No signal may be blocked or ignored in this `/proc/PID/status` text.
    ///
    /// The C library's posix_spawn, which starts the runtime here, leaves its internal signal 32 ignored; only rt undoes that.
    pub fn assert_clean_signals(&self, text: &str) {
        let mask = |key| u64::from_str_radix(&status(text, key), 16).unwrap();
        let tolerated = if self.is_rt() { 0 } else { 1 << 31 };
        assert_eq!((mask("SigBlk"), mask("SigIgn") & !tolerated), (0, 0), "{text}");
    }

    fn deadline(&self) -> Instant {
        *self.deadline.lock().unwrap()
    }

    /// Gives the test this much more time, for each of `count` things that it does: their number is up to the caller of the suite.
    pub fn may_take(&self, count: u32, time: Duration) {
        *self.deadline.lock().unwrap() += time * count * slowness();
    }

    /// Waits for a condition on the host; fails when the test's time is over.
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        while !condition() {
            assert!(Instant::now() < self.deadline(), "timed out waiting until {what}");
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Ctx<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{}: {error}", self.dir.display());
        }
    }
}

/// A command being put together.
pub struct Cmd<'c> {
    ctx: &'c Ctx<'c>,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    cwd: Option<PathBuf>,
    stdin: Option<String>,
}

impl Cmd<'_> {
    /// Standard input (a file with this text; otherwise /dev/null).
    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin = Some(text.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn cwd(mut self, dir: &Path) -> Self {
        self.cwd = Some(dir.to_path_buf());
        self
    }

    /// Runs the command from a shell that has first done `preparation` (such as a redirection).
    pub fn after(mut self, preparation: &str) -> Self {
        let mut argv = vec!["/bin/bash".to_owned(), "-c".to_owned(), format!("{preparation}; exec \"$@\""), "bash".to_owned()];
        argv.append(&mut self.argv);
        self.argv = argv;
        self
    }

    /// Runs the command to its end.
    pub fn run(self) -> Output {
        self.spawn().wait()
    }

    /// Starts the command. Its output goes to files: a container may keep them open for longer than the command lives.
    pub fn spawn(self) -> Running {
        let stem = self.ctx.dir.join(self.ctx.fresh("command"));
        let (stdout, stderr) = (stem.with_extension("out"), stem.with_extension("err"));
        let stdin = self.stdin.map_or_else(Stdio::null, |text| {
            let path = stem.with_extension("in");
            fs::write(&path, text).unwrap();
            File::open(path).unwrap().into()
        });
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).envs(self.env).stdin(stdin);
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        if let Some(dir) = self.cwd {
            command.current_dir(dir);
        }
        let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", self.argv[0]));
        Running { argv: self.argv, child, stdout, stderr, deadline: self.ctx.deadline() }
    }
}

/// A command that has been started; killed when dropped.
pub struct Running {
    argv: Vec<String>,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    deadline: Instant,
}

impl Running {
    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// What it has printed so far.
    pub fn stdout_so_far(&self) -> String {
        read(&self.stdout)
    }

    /// Waits for its end, and kills it when the test's time is over.
    pub fn wait(mut self) -> Output {
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > self.deadline => self.time_out(),
                None => std::thread::sleep(POLL),
            }
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Output {
            argv: self.argv.clone(),
            code,
            stdout: read(&self.stdout),
            stderr: read(&self.stderr),
            file: self.stdout.clone(),
        }
    }

    fn time_out(&mut self) -> ! {
        let _ = self.child.kill();
        let _ = self.child.wait();
        panic!("timed out: {}\nstdout: {}\nstderr: {}", self.argv.join(" "), read(&self.stdout), read(&self.stderr));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Output {
    argv: Vec<String>,
    /// The exit status; 128 + N when signal N killed it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// The file behind `stdout`, to which a container may still be writing.
    file: PathBuf,
}

impl Output {
    /// The command must have succeeded.
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// The command must have ended with this status.
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit status of {self}");
        self
    }

    /// The command must have failed, and have said this.
    pub fn refused(self, text: &str) -> Self {
        assert!(self.code != 0 && self.stderr.contains(text), "to be refused with {text:?}: {self}");
        self
    }

    /// Standard output without white space at its ends.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }

    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {self}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nexit status: {}\nstdout: {}\nstderr: {}", self.argv.join(" "), self.code, self.stdout, self.stderr)
    }
}

/// A folder with a config.json and a root filesystem.
pub struct Bundle {
    pub dir: PathBuf,
}

impl Bundle {
    pub fn path(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    /// A path in the root filesystem, seen from the host.
    pub fn rootfs(&self, inside: &str) -> PathBuf {
        self.dir.join("rootfs").join(inside.trim_start_matches('/'))
    }

    pub fn config(&self) -> Value {
        serde_json::from_str(&read(&self.dir.join("config.json"))).unwrap()
    }

    pub fn write_config(&self, config: &Value) {
        fs::write(self.dir.join("config.json"), serde_json::to_string_pretty(config).unwrap()).unwrap();
    }

    pub fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut config = self.config();
        edit(&mut config);
        self.write_config(&config);
    }
}

/// A container id with its bundle; `delete --force` is run when it is dropped.
pub struct Container<'c> {
    ctx: &'c Ctx<'c>,
    pub id: String,
    pub bundle: Bundle,
    output: Option<PathBuf>,
}

impl Container<'_> {
    /// `rt create` with these flags before the bundle.
    pub fn create_with(&mut self, flags: &[&str]) -> Output {
        let mut arguments = vec!["create"];
        arguments.extend(flags);
        arguments.extend(["--bundle", self.bundle.path(), &self.id]);
        let output = self.ctx.rt(&arguments);
        self.output = Some(output.file.clone());
        output
    }

    pub fn create(&mut self) -> Output {
        self.create_with(&[])
    }

    /// `rt --systemd-cgroup create`.
    pub fn create_by_systemd(&mut self) -> Output {
        let output = self.ctx.rt(&["--systemd-cgroup", "create", "--bundle", self.bundle.path(), &self.id]);
        self.output = Some(output.file.clone());
        output
    }

    /// `rt run` with these flags, as a command to be run.
    pub fn run_command(&self, flags: &[&str]) -> Cmd<'_> {
        let mut arguments = vec!["run"];
        arguments.extend(flags);
        arguments.extend(["--bundle", self.bundle.path(), &self.id]);
        self.ctx.rt_command(&arguments)
    }

    pub fn run(&self) -> Output {
        self.run_command(&[]).run()
    }

    /// `rt VERB ID`.
    pub fn verb(&self, verb: &str) -> Output {
        self.ctx.rt(&[verb, &self.id])
    }

    pub fn start(&self) -> Output {
        self.verb("start")
    }

    pub fn delete(&self) -> Output {
        self.verb("delete")
    }

    pub fn kill(&self, signal: &str) -> Output {
        self.ctx.rt(&["kill", &self.id, signal])
    }

    pub fn state(&self) -> Value {
        self.verb("state").ok().json()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// The process id of init on the host.
    pub fn pid(&self) -> u64 {
        self.state()["pid"].as_u64().unwrap()
    }

    pub fn wait_for(&self, status: &str) {
        self.ctx.wait_until(&format!("{} is {status}", self.id), || self.status() == status);
    }

    /// Kills init and waits for its end.
    pub fn stop(&self) {
        self.kill("KILL").ok();
        self.wait_for("stopped");
    }

    /// `rt exec FLAGS ID COMMAND`, as a command to be run.
    pub fn exec_command(&self, flags: &[&str], command: &[&str]) -> Cmd<'_> {
        let mut arguments = vec!["exec"];
        arguments.extend(flags);
        arguments.push(&self.id);
        arguments.extend(command);
        self.ctx.rt_command(&arguments)
    }

    pub fn exec(&self, flags: &[&str], command: &[&str]) -> Output {
        self.exec_command(flags, command).run()
    }

    /// Runs a shell script by `exec`; it must succeed, and what it prints is returned without white space at its ends.
    pub fn sh(&self, script: &str) -> String {
        self.exec(&[], &["sh", "-c", script]).ok().text().to_owned()
    }

    /// What the container's own process has printed so far.
    pub fn printed(&self) -> String {
        read(self.output.as_ref().unwrap())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let root = self.ctx.path("state");
        let argv = [self.ctx.runtime().to_str().unwrap(), "--root", &root, "delete", "--force", &self.id];
        let mut command = Command::new("timeout");
        let _ = command.arg("10").args(argv).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// A field of a `/proc/PID/status` text.
pub fn status(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).trim().to_owned()
}

/// A file as text; empty when it is not there (yet).
pub fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
