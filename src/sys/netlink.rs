//! The little of rtnetlink(7) that moving a network device into a namespace takes.
//!
//! Lengths are checked where they are written: an attribute's has 16 bits, and one that wraps around makes the kernel read values as
//! attributes (CVE-2021-43784). What the kernel answers is read with the same care.

mod routes;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::{CallError, CallResult, check_fd, socket};

pub use routes::Route;

const NLMSG_HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_EXCL: u16 = 0x200;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_FLAGS: u16 = 8;
/// Attributes of an address that belong to it wherever it is: IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_ANYCAST, IFA_MULTICAST,
/// IFA_RT_PRIORITY. Its label names the device, its cache information is that of an address without end.
const KEPT_ATTRIBUTES: [u16; 6] = [1, 2, 4, 5, 7, 9];
const IFA_F_PERMANENT: u32 = 0x80;
/// Flags that somebody has set, and not the kernel: nodad, homeaddress, managetempaddr, noprefixroute, mcautojoin.
const KEPT_FLAGS: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
const SCOPE_UNIVERSE: u8 = 0;
/// The largest datagram of a dump (netlink(7)).
const MAX_ANSWER: usize = 64 * 1024;

/// A message on its way to the kernel.
#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    /// For errors.
    what: String,
}

impl Message {
    fn new(kind: u16, flags: u16, body: &[u8], what: impl Into<String>) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        // Sequence number and port: there is one request at a time on a socket of its own.
        bytes.extend([0; 8]);
        bytes.extend(body);
        Self { bytes, what: what.into() }
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> CallResult<Self> {
        let Ok(len) = u16::try_from(value.len() + 4) else { return Err(self.error(libc::EMSGSIZE)) };
        self.bytes.extend(len.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        Ok(self)
    }

    fn name(self, kind: u16, name: &str) -> CallResult<Self> {
        let mut value = name.as_bytes().to_vec();
        value.push(0);
        self.attribute(kind, &value)
    }

    fn finish(&mut self) -> CallResult<&[u8]> {
        let len = u32::try_from(self.bytes.len()).map_err(|_| self.error(libc::EMSGSIZE))?;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        Ok(&self.bytes)
    }

    fn error(&self, errno: i32) -> CallError {
        CallError::new("rtnetlink", self.what.clone(), errno)
    }
}

/// One message of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    kind: u16,
    body: Vec<u8>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The messages of a datagram; `None` if a length does not fit.
fn answers(mut bytes: &[u8]) -> Option<Vec<Answer>> {
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let body = bytes.get(NLMSG_HEADER..len)?.to_vec();
        list.push(Answer { kind: u16_at(bytes, 4)?, body });
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(list)
}

/// The attributes after the fixed part of a message; what does not fit ends the list.
fn attributes(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut list = Vec::new();
    while let (Some(len), Some(kind)) = (u16_at(bytes, 0), u16_at(bytes, 2)) {
        let Some(value) = bytes.get(4..usize::from(len)) else { break };
        // The two upper bits say how a value is to be read.
        list.push((kind & 0x3fff, value.to_vec()));
        bytes = bytes.get(usize::from(len).next_multiple_of(4)..).unwrap_or_default();
    }
    list
}

/// An address of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// The address in an `RTM_NEWADDR` message, if it is a permanent global one of this device.
fn address(answer: &Answer, device: i32) -> Option<Address> {
    let body = &answer.body;
    let (family, prefix, old_flags, scope) = (*body.first()?, *body.get(1)?, *body.get(2)?, *body.get(3)?);
    let all = attributes(body.get(8..)?);
    let flags = all.iter().find(|(kind, _)| *kind == IFA_FLAGS).and_then(|(_, value)| u32_at(value, 0));
    let flags = flags.unwrap_or(u32::from(old_flags));
    let wanted = u32_at(body, 4)? == device.cast_unsigned() && scope == SCOPE_UNIVERSE && flags & IFA_F_PERMANENT != 0;
    let attributes = all.into_iter().filter(|(kind, _)| KEPT_ATTRIBUTES.contains(kind)).collect();
    wanted.then_some(Address { family, prefix, flags: flags & KEPT_FLAGS, attributes })
}

/// `struct ifinfomsg`.
fn link_body(device: i32, flags: u32, change: u32) -> Vec<u8> {
    [&[0; 4][..], &device.to_ne_bytes(), &flags.to_ne_bytes(), &change.to_ne_bytes()].concat()
}

/// A socket for the network devices of the namespace that it was opened in.
#[derive(Debug)]
pub struct RouteSocket(OwnedFd);

impl RouteSocket {
    /// socket(2) of `AF_NETLINK`. It stays in this network namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> CallResult<Self> {
        // SAFETY: no pointers are passed.
        let ret = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
        check_fd(ret, "socket", || "AF_NETLINK, NETLINK_ROUTE").map(Self)
    }

    /// The index of the device of this name, if there is one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn device(&self, name: &str) -> CallResult<Option<i32>> {
        let what = format!("RTM_GETLINK, {name:?}");
        let request = Message::new(RTM_GETLINK, NLM_F_ACK, &link_body(0, 0, 0), what).name(IFLA_IFNAME, name)?;
        match self.call(request) {
            Err(error) if error.is(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
            Ok(answers) => Ok(answers.iter().find_map(index_of)),
        }
    }

    /// The indices of all devices.
    ///
    /// # Errors
    /// The kernel's.
    pub fn devices(&self) -> CallResult<Vec<i32>> {
        let request = Message::new(RTM_GETLINK, NLM_F_DUMP, &link_body(0, 0, 0), "RTM_GETLINK, all");
        Ok(self.call(request)?.iter().filter_map(index_of).collect())
    }

    /// The permanent addresses of a device with global scope, of any family.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&self, device: i32) -> CallResult<Vec<Address>> {
        let request = Message::new(RTM_GETADDR, NLM_F_DUMP, &[0; 8], "RTM_GETADDR, all");
        let answers = self.call(request)?;
        Ok(answers.iter().filter(|answer| answer.kind == RTM_NEWADDR).filter_map(|answer| address(answer, device)).collect())
    }

    /// Moves a device into another namespace and gives it this name there, which may be a template such as `eth%d`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn move_device(&self, device: i32, namespace: &OwnedFd, name: &str) -> CallResult<()> {
        let what = format!("RTM_NEWLINK, {device}, {{IFLA_NET_NS_FD={}, IFLA_IFNAME={name:?}}}", namespace.as_raw_fd());
        let request = Message::new(RTM_NEWLINK, NLM_F_ACK, &link_body(device, 0, 0), what)
            .attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes())?
            .name(IFLA_IFNAME, name)?;
        self.call(request).map(drop)
    }

    /// Adds an address to a device.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_address(&self, device: i32, address: &Address) -> CallResult<()> {
        let mut body = vec![address.family, address.prefix, 0, SCOPE_UNIVERSE];
        body.extend(device.to_ne_bytes());
        let what = format!("RTM_NEWADDR, {device}, {address:?}");
        let mut request = Message::new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body, what)
            .attribute(IFA_FLAGS, &address.flags.to_ne_bytes())?;
        for (kind, value) in &address.attributes {
            request = request.attribute(*kind, value)?;
        }
        self.call(request).map(drop)
    }

    /// Sets a device up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_up(&self, device: i32) -> CallResult<()> {
        let up = libc::IFF_UP.cast_unsigned();
        let what = format!("RTM_NEWLINK, {device}, IFF_UP");
        self.call(Message::new(RTM_NEWLINK, NLM_F_ACK, &link_body(device, up, up), what)).map(drop)
    }

    /// Sends a request and collects what the kernel answers, until it says that this is all.
    fn call(&self, mut request: Message) -> CallResult<Vec<Answer>> {
        socket::send(&self.0, request.finish()?, None)?;
        let mut list = Vec::new();
        loop {
            let received = socket::receive(self.0.as_fd(), MAX_ANSWER)?;
            for answer in answers(&received.data).ok_or_else(|| request.error(libc::EBADMSG))? {
                match answer.kind {
                    NLMSG_DONE => return Ok(list),
                    NLMSG_ERROR => {
                        let code = u32_at(&answer.body, 0).ok_or_else(|| request.error(libc::EBADMSG))?.cast_signed();
                        return if code == 0 { Ok(list) } else { Err(request.error(code.saturating_neg())) };
                    }
                    _ => list.push(answer),
                }
            }
        }
    }
}

fn index_of(answer: &Answer) -> Option<i32> {
    let index = u32_at(&answer.body, 4).filter(|_| answer.kind == RTM_NEWLINK)?;
    Some(index.cast_signed())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn lengths_do_not_wrap_around() {
        let message = || Message::new(RTM_NEWLINK, 0, &[], "test");
        assert!(message().attribute(1, &vec![0; 65_531]).is_ok());
        for len in [65_532, 65_536, 65_540, 1 << 20] {
            assert_eq!(message().attribute(1, &vec![0; len]).unwrap_err().errno, libc::EMSGSIZE, "{len}");
        }
    }

    #[test]
    fn a_message_comes_back() {
        let mut message = Message::new(RTM_NEWLINK, 0, &link_body(7, 1, 1), "test").name(IFLA_IFNAME, "eth0").unwrap();
        let bytes = message.finish().unwrap().to_vec();
        assert_eq!(bytes.len() % 4, 0);
        let list = answers(&bytes).unwrap();
        assert_eq!(index_of(&list[0]), Some(7));
        assert_eq!(attributes(&list[0].body[16..]), [(IFLA_IFNAME, b"eth0\0".to_vec())]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_not_believed() {
        assert_eq!(answers(&[0; 16]), None);
        assert_eq!(answers(&[16, 0, 0]), None);
        assert_eq!(answers(&[255, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(attributes(&[3, 0, 1, 0]), []);
        assert_eq!(attributes(&[9, 0, 1, 0, 1, 2, 3, 4]), []);
    }
}
