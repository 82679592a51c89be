//! What init does to itself, to become the program.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use super::{Init, clean_signals, tie_to_launcher};
use crate::error::{Doing, Failure};
use crate::launch::protocol::FromInit;
use crate::lsm;
use crate::process::{ProcessStep, capabilities, program, rlimits, terminal, user};
use crate::rootfs::paths::Masks;
use crate::rootfs::{InRoot, Root};
use crate::sys::{At, fs, process, tty};

impl Init<'_> {
    pub(super) fn process(&mut self, step: &ProcessStep) -> Result<(), Failure> {
        match step {
            ProcessStep::NewSession => Ok(process::setsid()?),
            ProcessStep::Lsm(step) => lsm::attr::write(step, &self.handles.procfs),
            ProcessStep::Keyring { name } => join_keyring(name),
            ProcessStep::OomScoreAdj(value) => {
                // Children of init that are in the container see it too: the value is inherited.
                Ok(self.handles.procfs.write("self/oom_score_adj", &value.to_string())?)
            }
            ProcessStep::Scheduler(attributes) => Ok(process::sched_setattr(attributes)?),
            ProcessStep::MemoryPolicy(policy) => Ok(process::set_mempolicy(policy.mode | policy.flags, &policy.nodes.0)?),
            ProcessStep::CpuAffinity(set) => Ok(process::sched_setaffinity(&set.0)?),
            ProcessStep::IoPriority(value) => Ok(process::ioprio_set(*value)?),
            ProcessStep::RaiseLimit(step) => rlimits::raise(step),
            ProcessStep::SetLimit(step) => rlimits::apply(step),
            ProcessStep::Terminal { size, console } => self.terminal(*size, *console),
            ProcessStep::Umask(mask) => {
                fs::umask(*mask);
                Ok(())
            }
            ProcessStep::Cwd { path, make } => self.enter(path, *make),
            ProcessStep::LimitBounding(keep) => capabilities::limit_bounding(*keep),
            ProcessStep::User(step) => {
                user::become_user(step)?;
                // Before the rights go that nobody else has: those of other containers may see it (CVE-2016-9962). Taking on another user has
                // made it what fs.suid_dumpable says.
                if self.hides {
                    process::set_dumpable(false)?;
                }
                tie_to_launcher()
            }
            ProcessStep::Capabilities { sets, for_seccomp } => {
                let extra = if *for_seccomp { 1 << capabilities::SYS_ADMIN } else { 0 };
                capabilities::apply(*sets, extra)?;
                tie_to_launcher()
            }
            ProcessStep::Personality(domain) => Ok(process::personality(*domain)?),
            ProcessStep::CleanSignals => clean_signals(),
            ProcessStep::NoNewPrivileges => Ok(process::set_no_new_privs()?),
            ProcessStep::Home { uid } => {
                let home = user::home(*uid);
                self.env.push(format!("HOME={}", home.path));
                home.warning.map_or(Ok(()), |warning| self.link()?.send(&FromInit::Warned(warning), None))
            }
            ProcessStep::FindProgram => self.find_program(),
            ProcessStep::CloseDescriptors { preserve } => self.close_descriptors(*preserve),
            ProcessStep::Seccomp => self.load_seccomp(),
        }
    }

    fn terminal(&mut self, size: Option<tty::Size>, console: bool) -> Result<(), Failure> {
        let own;
        let root = match &self.root {
            Some(root) => root,
            // exec is inside already: its root directory is the container's.
            None => {
                own = Root::new(fs::openat(At::Cwd, Path::new("/"), libc::O_PATH | libc::O_DIRECTORY, 0)?);
                &own
            }
        };
        let (master, peer) = terminal::open(root, &self.handles.procfs)?;
        terminal::take(&peer, size)?;
        if console {
            terminal::bind_console(&peer, root)?;
        }
        self.link()?.send(&FromInit::Terminal, Some(master.as_fd()))
    }

    fn enter(&self, path: &Path, make: bool) -> Result<(), Failure> {
        match fs::chdir(path) {
            Err(error) if error.is(libc::ENOENT) && make => {
                // Below the root, whatever links the image has there (T34).
                drop(self.root()?.make_directories(&InRoot::new(path))?);
                fs::chdir(path)?;
            }
            // Perhaps only the user itself may enter: it is tried again after the user was taken on.
            Err(error) if error.is(libc::EACCES) => return Ok(()),
            other => other?,
        }
        Ok(())
    }

    /// The working directory must be inside: the kernel says so if it is not (CVE-2024-21626).
    fn verify_cwd(&self) -> Result<(), Failure> {
        let cwd = &self.plan.process.as_ref().ok_or_else(|| Failure::because("no process"))?.cwd;
        let here = fs::getcwd().doing(|| "find the working directory")?;
        if !here.starts_with("/") {
            return Err(
                Failure::because(format!("the working directory {cwd:?} is outside of the container")).origin("process.cwd")
            );
        }
        if here == Path::new("/") && cwd != "/" {
            // It was refused to container root: the user has to be able to enter it.
            fs::chdir(Path::new(cwd)).doing(|| format!("enter {cwd}")).map_err(|failure| failure.origin("process.cwd"))?;
        }
        Ok(())
    }

    fn find_program(&mut self) -> Result<(), Failure> {
        self.verify_cwd()?;
        let args = &self.plan.process.as_ref().ok_or_else(|| Failure::because("no process"))?.args;
        // The message is the runtime's whole answer: engines look for its words.
        self.program = program::find(args.first().map_or("", String::as_str), &self.env)?;
        Ok(())
    }

    /// Closes what the payload must not have. The link, the fifo and procfs are needed a little longer and close themselves.
    fn close_descriptors(&mut self, preserve: u32) -> Result<(), Failure> {
        if self.hides {
            process::set_dumpable(false)?;
        }
        self.root = None;
        self.masks = Masks::default();
        self.handles.forget_all_but_fifo();
        for number in (3..3 + preserve).filter_map(|number| i32::try_from(number).ok()) {
            fs::set_cloexec(number, false)?;
        }
        let first = 3 + preserve;
        let mut keep: Vec<u32> =
            [self.link.as_ref().map(|link| link.as_fd().as_raw_fd()), self.handles.fifo.as_ref().map(AsRawFd::as_raw_fd)]
                .into_iter()
                .chain([
                    self.handles.procfs.fd().map(|fd| fd.as_raw_fd()),
                    self.handles.listener.as_ref().map(AsRawFd::as_raw_fd),
                ])
                .chain(self.handles.hook_output.streams.iter().map(|file| file.as_ref().map(AsRawFd::as_raw_fd)))
                .flatten()
                .filter_map(|fd| u32::try_from(fd).ok())
                .collect();
        keep.sort_unstable();
        let mut from = first;
        for fd in keep {
            if fd > from {
                fs::close_range(from, fd - 1)?;
            }
            from = from.max(fd + 1);
        }
        Ok(fs::close_range(from, u32::MAX)?)
    }
}

/// A session keyring of its own, so that the container does not possess the keys of the caller.
fn join_keyring(name: &str) -> Result<(), Failure> {
    match process::join_session_keyring(name) {
        // Keyrings are an option of the kernel, and seccomp filters of outer containers often hide them.
        Err(error) if error.is(libc::ENOSYS) || error.is(libc::EPERM) => Ok(()),
        Err(error) if error.is(libc::EDQUOT) => {
            Err(Failure::from(error).hint("the user's quota of keyrings is used up: see --no-new-keyring"))
        }
        Err(error) => Err(error.into()),
        Ok(serial) => Ok(process::allow_keyring_search(serial)?),
    }
}
