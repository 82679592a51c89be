//! What is said to CRIU and what it answers: requests, options, responses, and the numbers of their fields (CRIU's `images/rpc.proto`).

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::Serialize;

use super::wire::{self, Writer};

/// `enum criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// Nothing: the answer to a request that was not understood.
    Empty = 0,
    /// Dump processes.
    Dump = 1,
    /// Restore processes.
    Restore = 2,
    /// See whether the kernel has what CRIU needs.
    Check = 3,
    /// Dump the memory while the processes run on.
    PreDump = 4,
    /// CRIU says how far it is and waits for an answer.
    Notify = 6,
    /// See whether CRIU and the kernel have a feature.
    FeatureCheck = 9,
    /// Ask for the version.
    Version = 10,
}

/// An option that is on or off, by the number of its field in `criu_opts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Switch {
    /// The processes go on after the dump.
    LeaveRunning = 3,
    /// Unix sockets whose other end is outside.
    ExtUnixSk = 4,
    /// Established TCP connections.
    TcpEstablished = 5,
    /// Any path of a device node will do.
    EvasiveDevices = 6,
    /// The session and terminal are the caller's.
    ShellJob = 7,
    /// File locks.
    FileLocks = 8,
    /// Tell the caller how far it is.
    NotifyScripts = 12,
    /// Remember which pages change.
    TrackMem = 15,
    /// Take out of the parent image what this one holds.
    AutoDedup = 16,
    /// Give files without a name one for the time being.
    LinkRemap = 18,
    /// The first process becomes a child of the caller.
    RstSibling = 26,
    /// Leave out connections that are not accepted yet.
    TcpSkipInFlight = 46,
    /// Load the memory when it is used.
    LazyPages = 48,
    /// Hand out the master of the terminal.
    OrphanPtsMaster = 50,
    /// Close established TCP connections.
    TcpClose = 52,
}

/// `enum criu_cg_mode`, as far as the command line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
pub enum CgroupMode {
    /// Leave control groups alone.
    Ignore = 0,
    /// Restore the settings of groups that do not exist yet.
    Soft = 3,
    /// Restore the settings of all groups.
    Full = 4,
    /// Restore all groups, of which none may exist.
    Strict = 5,
}

/// `enum criu_network_lock_method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
pub enum NetworkLock {
    /// By rules of iptables.
    Iptables = 1,
    /// By rules of nftables.
    Nftables = 2,
    /// Not at all.
    Skip = 3,
}

/// `criu_opts`: what is not set is left to CRIU's configuration files and defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// What is on.
    pub switches: Vec<Switch>,
    /// The process to be dumped with all its descendants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The name of the log in the work directory.
    pub log_file: &'static str,
    /// Address and port of a page server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_server: Option<(String, u16)>,
    /// The root directory to restore into, a mount point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// The images of an earlier dump, relative to the image directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_image: Option<PathBuf>,
    /// How control groups are treated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_mode: Option<CgroupMode>,
    /// Where the control groups of each controller are rooted: `""` is version 2.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cgroup_roots: Vec<(String, String)>,
    /// Descriptors of CRIU's process that stand for files outside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inherit: Vec<(String, i32)>,
    /// What is outside: `mnt[...]:key` and the like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<String>,
    /// Namespaces that are made but not filled, `CLONE_NEW*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_namespaces: Option<i32>,
    /// Namespaces that are joined: name below /proc/PID/ns, path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub join: Vec<(&'static str, PathBuf)>,
    /// The control group that is frozen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze_cgroup: Option<PathBuf>,
    /// A file with options that win over these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_file: Option<PathBuf>,
    /// `TYPE:NAME` of the security module's profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsm_profile: Option<String>,
    /// The SELinux context of mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsm_mount_context: Option<String>,
    /// How the network is locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_lock: Option<NetworkLock>,
}

/// How much CRIU logs: everything but what is for its developers.
const LOG_LEVEL: i64 = 4;

impl Options {
    /// The message. `images` and `work` are descriptors of the caller's.
    pub fn encode(&self, images: i32, work: i32) -> Vec<u8> {
        let mut message = Writer::default();
        message.number(1, images.into());
        self.pid.iter().for_each(|pid| message.number(2, (*pid).into()));
        self.switches.iter().for_each(|switch| message.number(*switch as u32, 1));
        message.number(9, LOG_LEVEL);
        message.bytes(10, self.log_file);
        if let Some((address, port)) = &self.page_server {
            message.bytes(11, pair(|server| (server.bytes(1, address), server.number(2, (*port).into()))));
        }
        self.root.iter().for_each(|path| message.bytes(13, path.as_os_str().as_bytes()));
        self.parent_image.iter().for_each(|path| message.bytes(14, path.as_os_str().as_bytes()));
        message.number(17, work.into());
        for (controller, path) in &self.cgroup_roots {
            message.bytes(25, pair(|root| (root.bytes(1, controller), root.bytes(2, path))));
        }
        for (key, fd) in &self.inherit {
            message.bytes(27, pair(|inherit| (inherit.bytes(1, key), inherit.number(2, (*fd).into()))));
        }
        self.cgroup_mode.iter().for_each(|mode| message.number(34, *mode as i64));
        self.external.iter().for_each(|external| message.bytes(37, external));
        self.empty_namespaces.iter().for_each(|flags| message.number(38, (*flags).into()));
        for (name, path) in &self.join {
            message.bytes(39, pair(|join| (join.bytes(1, name), join.bytes(2, path.as_os_str().as_bytes()))));
        }
        self.freeze_cgroup.iter().for_each(|path| message.bytes(44, path.as_os_str().as_bytes()));
        self.config_file.iter().for_each(|path| message.bytes(51, path.as_os_str().as_bytes()));
        self.lsm_profile.iter().for_each(|profile| message.bytes(53, profile));
        self.lsm_mount_context.iter().for_each(|context| message.bytes(63, context));
        self.network_lock.iter().for_each(|method| message.number(64, *method as i64));
        message.finish()
    }
}

/// A message of two fields.
fn pair(fill: impl FnOnce(&mut Writer) -> ((), ())) -> Vec<u8> {
    let mut message = Writer::default();
    fill(&mut message);
    message.finish()
}

/// A request with options.
pub fn request(kind: Kind, options: Option<&[u8]>) -> Vec<u8> {
    let mut message = Writer::default();
    message.number(1, kind as i64);
    options.iter().for_each(|options| message.bytes(2, options));
    message.finish()
}

/// The answer to a notification.
pub fn noticed(success: bool) -> Vec<u8> {
    let mut message = Writer::default();
    message.number(1, Kind::Notify as i64);
    message.number(3, success.into());
    message.finish()
}

/// The question whether changes of memory can be tracked (`mem_track`) and whether it can be loaded late (`lazy_pages`).
pub fn feature_request() -> Vec<u8> {
    let mut message = Writer::default();
    message.number(1, Kind::FeatureCheck as i64);
    message.bytes(5, pair(|features| (features.number(1, 1), features.number(2, 1))));
    message.finish()
}

/// `criu_resp`, as far as anybody asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// `enum criu_req_type`.
    pub kind: i32,
    /// It worked.
    pub success: bool,
    /// The first process that was restored.
    pub pid: Option<i32>,
    /// How far it is, and with which process.
    pub notice: Option<(String, i32)>,
    /// CRIU's error number.
    pub errno: i32,
    /// CRIU's first message of an error.
    pub error: Option<String>,
    /// `mem_track` and `lazy_pages`.
    pub features: (bool, bool),
    /// Major, minor and sublevel.
    pub version: (i32, i32, i32),
}

impl Response {
    /// Reads a response; `None` if it is damaged.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let mut response = Self::default();
        for (field, value) in wire::fields(message)? {
            match field {
                1 => response.kind = value.int(),
                2 => response.success = value.int() != 0,
                4 => response.pid = number(value.bytes(), 1)?,
                5 => {
                    let inner = wire::fields(value.bytes())?;
                    let script = inner.iter().find(|(field, _)| *field == 1).map(|(_, value)| value.text());
                    response.notice = Some((script.unwrap_or_default(), number(value.bytes(), 2)?.unwrap_or(0)));
                }
                7 => response.errno = value.int(),
                8 => response.features = (number(value.bytes(), 1)? == Some(1), number(value.bytes(), 2)? == Some(1)),
                9 => response.error = Some(value.text()),
                10 => {
                    let part = |field| number(value.bytes(), field).map(|part| part.unwrap_or(0));
                    response.version = (part(1)?, part(2)?, part(4)?);
                }
                _ => {}
            }
        }
        Some(response)
    }

    /// True if this answers a request of that kind.
    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind as i32
    }
}

fn number(message: &[u8], wanted: u32) -> Option<Option<i32>> {
    Some(wire::fields(message)?.iter().find(|(field, _)| *field == wanted).map(|(_, value)| value.int()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// `protoc --decode=criu_req rpc.proto` of CRIU 4.1.1 reads this back; its own encoding has the same fields in the order of their numbers.
    #[test]
    fn a_dump_as_protoc_reads_it() {
        let options = Options {
            pid: Some(300),
            switches: vec![Switch::LeaveRunning, Switch::OrphanPtsMaster],
            log_file: "dump.log",
            external: vec!["mnt[/d]:m0".to_owned()],
            cgroup_mode: Some(CgroupMode::Soft),
            inherit: vec![("pipe:[7]".to_owned(), 5)],
            ..Options::default()
        };
        let request = request(Kind::Dump, Some(&options.encode(3, 4)));
        let expected = concat!(
            "0801",
            "1238",
            "0803",
            "10ac02",
            "1801",
            "900301",
            "4804",
            "520864756d702e6c6f67",
            "880104",
            "da010c",
            "0a08",
            "706970653a5b375d",
            "1005",
            "900203",
            "aa020a",
            "6d6e745b2f645d3a6d30"
        );
        assert_eq!(hex(&request), expected);
    }

    #[test]
    fn responses() {
        let notice = b"\x08\x06\x10\x01\x2a\x0f\x0a\x0apost-setup\x10\xac\x02";
        let notice = Response::decode(&[&notice[..4], b"\x2a\x0f", b"\x0a\x0apost-setup", b"\x10\xac\x02"].concat()).unwrap();
        assert!(notice.is(Kind::Notify) && notice.success);
        assert_eq!(notice.notice, Some(("post-setup".to_owned(), 300)));
        let restored = Response::decode(b"\x08\x02\x10\x01\x22\x02\x08\x07").unwrap();
        assert_eq!((restored.pid, restored.success), (Some(7), true));
        let failed = Response::decode(b"\x08\x01\x10\x00\x38\x02\x4a\x03abc").unwrap();
        assert_eq!((failed.success, failed.errno, failed.error.as_deref()), (false, 2, Some("abc")));
        let version = Response::decode(b"\x08\x0a\x10\x01\x52\x06\x08\x04\x10\x01\x20\x01").unwrap();
        assert_eq!(version.version, (4, 1, 1));
        assert_eq!(Response::decode(b"\x12\x09"), None);
    }
}
