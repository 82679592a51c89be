//! A process of CRIU's that serves one caller (`criu swrk`), and the conversation with it.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::flags::Needed;
use super::images::Folder;
use super::message::{self, Kind, Options, Response};
use crate::child::Child;
use crate::error::{Doing, Failure};
use crate::process::program;
use crate::procfs::ProcFs;
use crate::sys::process::{self, CloneArgs, Cloned, Exit};
use crate::sys::{At, CallError, CallResult, fs, mount, signal, socket};

/// The longest answer of CRIU's.
const MAX_MESSAGE: usize = 64 * 1024;
/// How long CRIU may take to end when nobody talks to it any more: it lets the processes go that it holds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether the first process of a restore is over.
const GLANCE: Duration = Duration::from_secs(1);
/// What CRIU takes for the end of its time: it stops waiting, and lets the processes go that it holds. Any other signal would kill it, and
/// leave them with its code in them.
const GIVE_UP: i32 = libc::SIGALRM;
/// What the terminal sends to everybody in the foreground: it is for us to end CRIU, in a way that lets the processes go.
const OF_TERMINALS: [i32; 3] = [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP];
/// Where CRIU is looked for besides `$PATH`: that of an engine's monitor may be short.
const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// An installed CRIU.
#[derive(Clone, Debug)]
pub struct Criu {
    path: PathBuf,
}

/// What a process of CRIU's is given.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// Where the images are.
    pub images: &'a Folder,
    /// Where its log goes: its working directory.
    pub work: &'a Folder,
    /// Descriptors that it shall have, under their numbers here.
    pub descriptors: Vec<&'a OwnedFd>,
    /// A root directory that has to be a mount point: it becomes one, in a mount namespace that only CRIU has.
    pub root: Option<&'a Path>,
    /// What it prints is not for the caller.
    pub quiet: bool,
    /// It may wait for somebody who never comes (lazy pages): whoever ends this command ends that.
    pub waits: bool,
}

/// What CRIU's process says before it is CRIU's: the numbers of its directories. Our end of the conversation comes along.
#[derive(Debug, Serialize, Deserialize)]
enum Born {
    Ready { images: i32, work: i32 },
    Failed(CallError),
}

impl<'a> Setting<'a> {
    /// The images and the log, and nothing else.
    pub fn new(images: &'a Folder, work: &'a Folder) -> Self {
        Self { images, work, descriptors: Vec::new(), root: None, quiet: false, waits: false }
    }
}

impl Criu {
    /// Looks for CRIU, or for the one that is named instead.
    ///
    /// # Errors
    /// `executable file not found in $PATH`.
    pub fn find(named: Option<&str>) -> Result<Self, Failure> {
        let path = std::env::var("PATH").unwrap_or_default();
        let search = [format!("PATH={path}{}{SBIN}", if path.is_empty() { "" } else { ":" })];
        let found = program::find(named.unwrap_or("criu"), &search);
        let hint = "checkpoint and restore need CRIU 3.15 or newer (package criu)";
        Ok(Self { path: found.map_err(|failure| failure.hint(hint))? })
    }

    /// Asks for the version, and whether what is `needed` is there; what this version leaves out, if anything.
    ///
    /// # Errors
    /// If CRIU is too old, or a feature is missing.
    pub fn check(&self, needed: Needed, folder: &Folder) -> Result<Option<String>, Failure> {
        let version = self.ask(&message::request(Kind::Version, None), Kind::Version, folder)?.version;
        let warning = needed.judge(version).map_err(|text| Failure::because(text).doing(self.path.display()))?;
        if !needed.memory_changes && !needed.lazy_pages {
            return Ok(warning);
        }
        let features = self.ask(&message::feature_request(), Kind::FeatureCheck, folder)?.features;
        let changes = "track changes of memory (CONFIG_MEM_SOFT_DIRTY), which --pre-dump and --parent-path need";
        let late = "load memory late (userfaultfd), which --lazy-pages needs";
        let missing = [(needed.memory_changes && !features.0, changes), (needed.lazy_pages && !features.1, late)];
        match missing.into_iter().find(|(missing, _)| *missing) {
            Some((_, what)) => Err(Failure::because(format!("this kernel, or this CRIU, cannot {what}"))),
            None => Ok(warning),
        }
    }

    fn ask(&self, request: &[u8], kind: Kind, folder: &Folder) -> Result<Response, Failure> {
        let conversation = self.start(&Setting { quiet: true, ..Setting::new(folder, folder) })?;
        conversation.send(request)?;
        let answer = conversation.next_response()?.map(|(response, _)| response);
        conversation.end();
        answer
            .filter(|response| response.is(kind) && response.success)
            .ok_or_else(|| Failure::because("no answer to a simple question").doing(format!("ask {}", self.path.display())))
    }

    /// What `criu check` says, if it is not content: a kernel without what it needs is the most frequent reason of a failure.
    fn unfit(&self, work: &Folder) -> Option<String> {
        let options = Options { log_file: "check.log", ..Options::default() };
        let checked = self.start(&Setting { quiet: true, ..Setting::new(work, work) }).and_then(|conversation| {
            let options = options.encode(conversation.images, conversation.work);
            conversation.send(&message::request(Kind::Check, Some(&options)))?;
            let fit = conversation.next_response()?.is_some_and(|(response, _)| response.is(Kind::Check) && response.success);
            conversation.end();
            Ok(fit)
        });
        let fit = checked.unwrap_or(false);
        (!fit).then(|| "`criu check` fails on this machine, so nothing can be expected to work".to_owned())
    }

    /// Starts a process of CRIU's. It waits for a request, and can be moved to control groups before it gets one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(&self, setting: &Setting<'_>) -> Result<Conversation, Failure> {
        let doing = || format!("start {}", self.path.display());
        let (ours, theirs) = socket::seqpacket_pair()?;
        let variables: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
        let envp = program::c_strings(&variables)?;
        let launcher = std::process::id();
        let flags = if setting.root.is_some() { u64::from(libc::CLONE_NEWNS.cast_unsigned()) } else { 0 };
        let child = match process::clone3(&CloneArgs { flags, cgroup: None })? {
            Cloned::Child => match become_criu(&self.path, envp, (&theirs, launcher), setting) {
                Ok(never) => match never {},
                Err(error) => {
                    let _ = say(&theirs, &Born::Failed(error), None);
                    process::exit_now(127)
                }
            },
            Cloned::Parent(pid, pidfd) => Child::new(pid, pidfd),
        };
        drop(theirs);
        let born = socket::receive(&ours, MAX_MESSAGE).doing(doing)?;
        match (serde_json::from_slice(&born.data), born.fd) {
            (Ok(Born::Ready { images, work }), Some(socket)) => {
                Ok(Conversation { child, socket, images, work, waits: setting.waits, criu: self.clone() })
            }
            (Ok(Born::Failed(error)), _) => Err(Failure::from(error).doing(doing())),
            _ => Err(Failure::because("it was killed").doing(doing())),
        }
    }
}

fn say(socket: &OwnedFd, born: &Born, fd: Option<&OwnedFd>) -> CallResult<()> {
    let bytes = serde_json::to_vec(born).unwrap_or_default();
    socket::send(socket, &bytes, fd.map(AsFd::as_fd))
}

/// CRIU takes descriptors for those of the process that has made the socket pair. It is this one that makes it, because the directories
/// have to be opened in its own mount namespace: CRIU mounts things in its working directory.
fn become_criu(
    path: &Path,
    envp: Vec<CString>,
    (launcher, its_pid): (&OwnedFd, u32),
    setting: &Setting<'_>,
) -> CallResult<Infallible> {
    if let Some(root) = setting.root {
        mount::mount("", Path::new("/"), "", libc::MS_REC | libc::MS_SLAVE, "")?;
        let itself = mount::open_tree_clone(At::Cwd, root, true, true)?;
        mount::move_mount(&itself, fs::openat(At::Cwd, root, libc::O_PATH | libc::O_DIRECTORY, 0)?)?;
    }
    let open = |folder: &Folder| fs::openat(At::Cwd, &folder.path, libc::O_RDONLY | libc::O_DIRECTORY, 0);
    let (images, work) = (open(setting.images)?, open(setting.work)?);
    let (theirs, ours) = socket::seqpacket_pair()?;
    let number = CString::new(ours.as_raw_fd().to_string()).unwrap_or_default();
    if setting.quiet {
        let null = fs::openat(At::Cwd, Path::new("/dev/null"), libc::O_RDWR, 0)?;
        fs::dup2(&null, 1)?;
        fs::dup2(&null, 2)?;
    }
    let image = process::Image::new(path, vec![c"criu".to_owned(), c"swrk".to_owned(), number], envp)?;
    say(launcher, &Born::Ready { images: images.as_raw_fd(), work: work.as_raw_fd() }, Some(&theirs))?;
    drop(theirs);
    fs::close_range_cloexec(3)?;
    for fd in setting.descriptors.iter().copied().chain([&images, &work, &ours]) {
        fs::set_cloexec(fd.as_raw_fd(), false)?;
    }
    signal::reset_dispositions()?;
    signal::block_only(&OF_TERMINALS)?;
    if setting.waits {
        process::get_signal_when_parent_dies(GIVE_UP, its_pid)?;
    }
    image.execute()
}

/// A talk with a process of CRIU's.
#[derive(Debug)]
pub struct Conversation {
    child: Child,
    socket: OwnedFd,
    images: i32,
    work: i32,
    waits: bool,
    criu: Criu,
}

/// The first process of a restore, and since when it is over. CRIU 4.1 may wait for ever for one that it has killed when pages do not come:
/// that one waits for its children, whose ends CRIU would have to take note of, because it traces them.
#[derive(Debug, Default)]
struct First {
    pid: Option<i32>,
    over: Option<Instant>,
}

impl First {
    fn is_long_over(&mut self) -> Result<bool, Failure> {
        let Some(pid) = self.pid else { return Ok(false) };
        let is_over = ProcFs::open()?.process_stat(pid).map_or(true, |(state, _)| matches!(state, 'Z' | 'X'));
        self.over = is_over.then(|| self.over.unwrap_or_else(Instant::now));
        Ok(self.over.is_some_and(|since| since.elapsed() > PATIENCE))
    }
}

/// A notification that waits for an answer.
#[derive(Debug)]
pub struct Notice {
    /// Which moment it is.
    pub moment: String,
    /// The first process, at the moments that have one.
    pub pid: i32,
    /// The master of a terminal.
    pub fd: Option<OwnedFd>,
}

impl Conversation {
    /// CRIU's process.
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    fn send(&self, message: &[u8]) -> Result<(), Failure> {
        match socket::send(&self.socket, message, None) {
            // What it had to say is read by whoever waits for the answer.
            Err(error) if error.is(libc::EPIPE) || error.is(libc::ECONNRESET) => Ok(()),
            other => other.doing(|| "talk to CRIU"),
        }
    }

    /// The next answer; nothing if CRIU has ended.
    fn next_response(&self) -> Result<Option<(Response, Option<OwnedFd>)>, Failure> {
        let received = match socket::receive(&self.socket, MAX_MESSAGE) {
            Err(error) if error.is(libc::ECONNRESET) => return Ok(None),
            other => other.doing(|| "talk to CRIU")?,
        };
        if received.data.is_empty() {
            return Ok(None);
        }
        let response =
            Response::decode(&received.data).ok_or_else(|| Failure::because("a damaged message").doing("talk to CRIU"))?;
        Ok(Some((response, received.fd)))
    }

    /// Makes a request and answers notifications until it is done. `signals` tells of a signal that ends the command.
    ///
    /// # Errors
    /// Of whoever answers, or CRIU's, with the last errors of its log in `work`.
    pub fn carry_out(
        self,
        kind: Kind,
        options: &Options,
        work: &Folder,
        signals: Option<&OwnedFd>,
        mut answer: impl FnMut(Notice) -> Result<(), Failure>,
    ) -> Result<Response, Failure> {
        self.send(&message::request(kind, Some(&options.encode(self.images, self.work))))?;
        let mut first = First::default();
        loop {
            let outcome =
                self.wait(signals, &mut first).and_then(|is_there| if is_there { self.next_response() } else { Ok(None) });
            let (response, fd) = match outcome {
                Ok(Some(received)) => received,
                Ok(None) => return Err(self.failed(kind, options, work, None)),
                Err(failure) => {
                    self.give_up();
                    return Err(failure);
                }
            };
            if !response.is(Kind::Notify) {
                if response.is(kind) && response.success {
                    self.end();
                    return Ok(response);
                }
                return Err(self.failed(kind, options, work, Some(&response)));
            }
            let (moment, pid) = response.notice.unwrap_or_default();
            first.pid = Some(pid).filter(|pid| *pid > 0).or(first.pid);
            let answered = answer(Notice { moment, pid, fd });
            self.send(&message::noticed(answered.is_ok()))?;
            if let Err(failure) = answered {
                self.end();
                return Err(failure);
            }
        }
    }

    /// Waits for an answer. False if there will be none: who ends may have left processes that hold its end of the conversation.
    fn wait(&self, signals: Option<&OwnedFd>, first: &mut First) -> Result<bool, Failure> {
        let socket = self.socket.as_fd();
        let criu = self.child.pidfd().map_or(socket, AsFd::as_fd);
        loop {
            let polled = [(socket, false), (criu, false), (signals.map_or(socket, AsFd::as_fd), false)];
            let ready = process::poll(&polled, first.pid.map(|_| GLANCE))?;
            if first.is_long_over()? {
                // It waits for what waits for it.
                self.child.pidfd().map_or(Ok(()), |pidfd| process::pidfd_send_signal(pidfd, libc::SIGKILL))?;
            }
            if ready[0].readable || ready[0].hangup {
                return Ok(true);
            }
            if ready[1].readable {
                // Its last words may have come in between.
                let last = process::poll(&[(socket, false)], Some(Duration::ZERO))?;
                return Ok(last[0].readable || last[0].hangup);
            }
            if let Some(signals) = signals.filter(|_| ready[2].readable)
                && let Some(number) = signal::next_signal(signals)
                && matches!(number, libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT)
            {
                return Err(Failure::because(format!("interrupted by signal {number}")));
            }
        }
    }

    /// As [`Conversation::end`], also of one that waits for others.
    fn give_up(self) {
        if let Some(pidfd) = self.child.pidfd().filter(|_| self.waits) {
            // It may end by itself at this moment.
            let _ = process::pidfd_send_signal(pidfd, GIVE_UP);
        }
        self.end();
    }

    /// Hangs up, and waits until CRIU has cleaned up.
    fn end(self) -> Option<Exit> {
        let Self { child, socket, .. } = self;
        drop(socket);
        child.wait_for(Some(PATIENCE)).ok().flatten()
    }

    fn failed(self, kind: Kind, options: &Options, work: &Folder, response: Option<&Response>) -> Failure {
        let criu = self.criu.clone();
        let exit = self.end();
        let mut words = work.errors(options.log_file);
        if words.is_empty() {
            words.extend(response.and_then(|response| response.error.clone()));
        }
        if words.is_empty() {
            words.push(match exit {
                Some(Exit::Signal(number)) => format!("killed by signal {number}"),
                _ => "it does not say why".to_owned(),
            });
        }
        let verb = if kind == Kind::Restore { "restore" } else { "dump" };
        let log = work.path.join(options.log_file);
        let failure = Failure::because(format!("{} (log: {})", words.join("; "), log.display())).doing(format!("{verb} by CRIU"));
        match criu.unfit(work) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
