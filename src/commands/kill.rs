//! `rt kill`.

use clap::Args as ClapArgs;

use crate::error::{Doing, Error};
use crate::id::ContainerId;
use crate::launch::beginning::{BEGINNING, let_begin};
use crate::state::{Container, Status};
use crate::sys::process;

use super::{Globals, matching};

/// Send a signal to the first process of a container
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// The container's id, or with --regex a regular expression
    id: String,
    /// The signal: a number, or a name with or without SIG
    #[arg(default_value = "TERM")]
    signal: String,
    /// Send it to every process of the container
    #[arg(short, long)]
    all: bool,
    /// Send it to every container whose id matches
    #[arg(short, long)]
    regex: bool,
}

/// Signals by name, on the generic architectures (signal(7)).
const SIGNALS: [(&str, i32); 33] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGIOT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGPOLL),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The first and last real-time signal as the C library numbers them.
const REAL_TIME: (i32, i32) = (34, 64);

/// The number of a signal: `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3`.
///
/// # Errors
/// If there is no such signal.
pub fn signal_number(text: &str) -> Result<i32, Error> {
    let unknown = || {
        let expected = "expected a number from 0 to 64 or a name such as TERM or RTMIN+1";
        Error::new("invalid-signal", format!("unknown signal {text:?}; {expected}"))
    };
    if let Ok(number) = text.parse::<i32>() {
        return Some(number).filter(|number| (0..=64).contains(number)).ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        _ => rest.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from),
    };
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => offset(rest, '+').map(|offset| REAL_TIME.0 + offset),
        (_, Some(rest)) => offset(rest, '-').map(|offset| REAL_TIME.1 - offset),
        _ => None,
    };
    let named = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    named.or(real_time.filter(|number| (REAL_TIME.0..=REAL_TIME.1).contains(number))).ok_or_else(unknown)
}

/// Runs the command.
///
/// # Errors
/// If there is no such container, or its program has ended.
pub fn run(args: &Args, globals: &Globals) -> Result<i32, Error> {
    let during = |error: Error| error.during(format!("kill {}", args.id));
    let signal = signal_number(&args.signal).map_err(during)?;
    let store = globals.store().map_err(during)?;
    let one = |id: &ContainerId| send(&Container::load(&store, id)?, signal, args.all);
    matching::one_or_each(&store, &args.id, args.regex, false, one).map_err(during)?;
    Ok(0)
}

fn send(container: &Container, signal: i32, all: bool) -> Result<(), Error> {
    if all {
        return send_to_all(container, signal);
    }
    let alive = matches!(container.status, Status::Created | Status::Running | Status::Paused);
    let stopped = || Error::new("not-running", format!("container not running (status {})", container.status));
    let (init, pidfd) = container.init().filter(|_| alive).ok_or_else(stopped)?;
    if container.status == Status::Running && !matches!(signal, libc::SIGKILL | libc::SIGSTOP | libc::SIGCONT) {
        // The first process of a pid namespace never sees a signal that it has not set a handler for (pid_namespaces(7)): sent
        // right after start, it would be lost.
        let within = BEGINNING.saturating_sub(container.directory.age()?);
        let_begin(init, within, container.procfs()?);
    }
    let mut killed = false;
    if signal == libc::SIGKILL && !container.has_own_pid_namespace() {
        // The kernel ends the others with the first process only in a pid namespace of their own.
        container.cgroup()?.kill(signal)?;
        killed = true;
    }
    match process::pidfd_send_signal(pidfd, signal) {
        // It went with the others.
        Err(error) if killed && error.is(libc::ESRCH) => {}
        Err(error) if error.is(libc::ESRCH) => return Err(stopped()),
        other => other.doing(|| format!("send signal {signal}"))?,
    }
    if signal == libc::SIGKILL && container.status == Status::Paused {
        // On version 1 a frozen process gets its signals when it is thawed.
        container.cgroup()?.thaw()?;
    }
    Ok(())
}

/// What is left after the death of the first process is reached through the control group (a shared pid namespace). Without one there is the
/// first process, whose end is that of all others in a pid namespace of their own.
fn send_to_all(container: &Container, signal: i32) -> Result<(), Error> {
    let cgroup = container.cgroup()?;
    if !cgroup.is_none() {
        return Ok(cgroup.kill(signal)?);
    }
    match container.init() {
        None => Ok(()),
        Some((_, pidfd)) if container.has_own_pid_namespace() => Ok(process::pidfd_send_signal(pidfd, signal)?),
        Some(_) => {
            Err(Error::new("no-cgroup", "the container has no control group and no pid namespace: its processes are not known"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::signal_number;

    #[test]
    fn forms_of_signals() {
        let good = [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)];
        for (text, number) in good {
            assert_eq!(signal_number(text).ok(), Some(number), "{text}");
        }
        for bad in ["65", "-9", "SIGFOO", "", "RTMIN+31", "RTMIN-1", "9x"] {
            assert!(signal_number(bad).is_err(), "{bad}");
        }
    }
}
