//! A connection to a bus, or to systemd itself where there is no bus: one call at a time, each with a deadline.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Which;
use super::wire::{Call, HEADER, Message, Value, kind};
use crate::error::Failure;
use crate::sys::{CallError, cred, process};

/// How long systemd may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Why a call did not work.
#[derive(Debug)]
pub enum BusError {
    /// The other side refused: name of the error, and its text.
    Refused(String, String),
    /// The conversation broke down.
    Broken(Failure),
}

impl BusError {
    /// True if the other side refused with an error of this name.
    pub fn is(&self, name: &str) -> bool {
        matches!(self, Self::Refused(found, _) if found == name)
    }

    /// What is said when [`PATIENCE`] is over.
    pub fn no_answer() -> Self {
        Self::Broken(Failure::because(format!("no answer from systemd within {} s", PATIENCE.as_secs())))
    }
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Refused(name, text) => Self::because(format!("systemd says: {text} ({name})")),
            BusError::Broken(failure) => failure,
        }
    }
}

fn broken(error: &std::io::Error) -> BusError {
    if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) {
        return BusError::no_answer();
    }
    BusError::Broken(CallError::from_io("recvmsg", "the D-Bus connection", error).into())
}

/// A connection.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    /// False on a direct connection, where nobody has to be addressed.
    pub has_broker: bool,
    signals: VecDeque<Message>,
}

/// The sockets to try: path or abstract name, and whether a bus is behind it.
fn candidates(which: Which) -> Vec<(String, bool)> {
    let from_env = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    match which {
        Which::System => {
            let bus = from_env("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".to_owned());
            vec![(bus, true), ("unix:path=/run/systemd/private".to_owned(), false)]
        }
        Which::User => {
            let runtime = from_env("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{}", cred::geteuid()));
            let mut list: Vec<_> = from_env("DBUS_SESSION_BUS_ADDRESS").map(|address| (address, true)).into_iter().collect();
            list.push((format!("unix:path={runtime}/bus"), true));
            list.push((format!("unix:path={runtime}/systemd/private"), false));
            list
        }
    }
}

/// The socket address of a D-Bus address (D-Bus specification, "Server Addresses"), the first of a list that is a unix socket.
fn socket_address(text: &str) -> Option<SocketAddr> {
    text.split(';').find_map(|one| {
        let rest = one.strip_prefix("unix:")?;
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=')?;
            match key {
                "path" => SocketAddr::from_pathname(unescape(value)?).ok(),
                "abstract" => SocketAddr::from_abstract_name(unescape(value)?.as_os_str().as_encoded_bytes()).ok(),
                _ => None,
            }
        };
        rest.split(',').find_map(pair)
    })
}

/// Undoes the escapes of an address: a percent sign and two hexadecimal digits.
fn unescape(text: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(Path::new(&std::ffi::OsString::from_vec(bytes)).to_path_buf())
}

impl Bus {
    /// Connects to the bus on which this systemd is, or to systemd itself.
    ///
    /// # Errors
    /// If nobody listens, or does not let us in.
    pub fn connect(which: Which) -> Result<Self, Failure> {
        let mut last = Failure::because("there is no such socket");
        for (address, has_broker) in candidates(which) {
            let Some(socket) = socket_address(&address) else { continue };
            match UnixStream::connect_addr(&socket) {
                Ok(stream) => return Self::greet(stream, has_broker).map_err(Failure::from),
                Err(error) => last = CallError::from_io("connect", format!("{address:?}"), &error).into(),
            }
        }
        Err(last.doing(which.reaching()).hint(which.unreachable()))
    }

    /// Says who we are (D-Bus specification, "Authentication Protocol"): the kernel tells the other side, whatever id we have in
    /// our user namespace.
    fn greet(mut stream: UnixStream, has_broker: bool) -> Result<Self, BusError> {
        let timeout =
            |stream: &UnixStream| stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        timeout(&stream).map_err(|error| broken(&error))?;
        stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n").map_err(|error| broken(&error))?;
        loop {
            let line = read_line(&mut stream)?;
            match line.split(' ').next() {
                Some("OK") => break,
                Some("DATA") => {}
                _ => return Err(BusError::Broken(Failure::because(format!("the D-Bus connection was refused: {line:?}")))),
            }
        }
        let mut bus = Self { stream, serial: 0, has_broker, signals: VecDeque::new() };
        if has_broker {
            bus.call(&Call {
                destination: Some("org.freedesktop.DBus"),
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "Hello",
                body: &[],
            })?;
        }
        Ok(bus)
    }

    /// Calls a method and waits for its answer. Signals that come meanwhile are kept.
    ///
    /// # Errors
    /// The other side's, or if there is no answer in time.
    pub fn call(&mut self, call: &Call<'_>) -> Result<Vec<Value>, BusError> {
        self.serial += 1;
        let serial = self.serial;
        let end = Instant::now() + PATIENCE;
        self.stream.write_all(&call.bytes(serial)).map_err(|error| broken(&error))?;
        loop {
            let message = self.receive(end)?;
            if message.kind == kind::SIGNAL {
                self.signals.push_back(message);
            } else if message.reply_to == Some(serial) {
                return match message.kind {
                    kind::REPLY => Ok(message.body),
                    _ => {
                        let text = message.body.first().and_then(Value::as_str).unwrap_or_default().to_owned();
                        Err(BusError::Refused(message.error, text))
                    }
                };
            }
        }
    }

    /// Waits for a signal that fits, among those that have come and those that will come within this time. `None`: there was none.
    ///
    /// # Errors
    /// If the conversation breaks down.
    pub fn wait_for(
        &mut self,
        member: &str,
        patience: Duration,
        fits: impl Fn(&[Value]) -> bool,
    ) -> Result<Option<Vec<Value>>, BusError> {
        let end = Instant::now() + patience;
        loop {
            while let Some(signal) = self.signals.pop_front() {
                if signal.member == member && fits(&signal.body) {
                    return Ok(Some(signal.body));
                }
            }
            // A message that has begun to come is read to its end, whatever the time.
            if !self.is_readable(end.saturating_duration_since(Instant::now()))? {
                if Instant::now() >= end {
                    return Ok(None);
                }
                continue;
            }
            let message = self.receive(Instant::now() + PATIENCE)?;
            if message.kind == kind::SIGNAL {
                self.signals.push_back(message);
            }
        }
    }

    fn is_readable(&self, patience: Duration) -> Result<bool, BusError> {
        let events = process::poll_for(&[(self.stream.as_fd(), libc::POLLIN)], Some(patience));
        events.map(|events| events.iter().any(|events| *events != 0)).map_err(|error| BusError::Broken(error.into()))
    }

    fn receive(&mut self, end: Instant) -> Result<Message, BusError> {
        let malformed = || BusError::Broken(Failure::because("a malformed D-Bus message came"));
        let mut header = [0u8; HEADER];
        self.read(&mut header, end)?;
        let length = Message::length(&header).ok_or_else(malformed)?;
        let mut bytes = header.to_vec();
        bytes.resize(length, 0);
        self.read(&mut bytes[HEADER..], end)?;
        Message::parse(&bytes).ok_or_else(malformed)
    }

    fn read(&mut self, mut buffer: &mut [u8], end: Instant) -> Result<(), BusError> {
        while !buffer.is_empty() {
            // A timeout of zero would mean none.
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).map_err(|error| broken(&error))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(BusError::Broken(Failure::because("the D-Bus connection was closed"))),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        Ok(())
    }
}

/// A line of the authentication, byte by byte: what follows it is not text any more.
fn read_line(stream: &mut UnixStream) -> Result<String, BusError> {
    let mut line = Vec::new();
    let mut byte = [0u8; 1];
    while line.len() < 1024 && !line.ends_with(b"\r\n") {
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(&error)),
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let path = |text: &str| socket_address(text).and_then(|address| address.as_pathname().map(Path::to_path_buf));
        assert_eq!(path("unix:path=/run/user/0/bus"), Some("/run/user/0/bus".into()));
        assert_eq!(path("tcp:host=x;unix:guid=1,path=/a%20b"), Some("/a b".into()));
        assert_eq!(path("unix:tmpdir=/tmp"), None);
        assert!(socket_address("unix:abstract=/x").is_some_and(|address| address.as_abstract_name() == Some(b"/x")));
    }
}
