//! Kernel parameters: which belong to which namespace (pure), and writing them.

use crate::namespaces::Kind;

/// The parameters that a namespace has for itself: a name or a prefix ending in a dot.
const TABLE: &[(&str, Kind)] = &[
    ("kernel.domainname", Kind::Uts),
    ("kernel.msgmax", Kind::Ipc),
    ("kernel.msgmnb", Kind::Ipc),
    ("kernel.msgmni", Kind::Ipc),
    ("kernel.sem", Kind::Ipc),
    ("kernel.shmall", Kind::Ipc),
    ("kernel.shmmax", Kind::Ipc),
    ("kernel.shmmni", Kind::Ipc),
    ("kernel.shm_rmid_forced", Kind::Ipc),
    ("fs.mqueue.", Kind::Ipc),
    ("net.", Kind::Network),
    ("user.", Kind::User),
];

/// The namespace whose own a parameter is, or `None` if it is the whole host's. Takes the normal form of [`path`].
pub fn namespace(path: &str) -> Option<Kind> {
    TABLE.iter().find_map(|(name, kind)| {
        let name = name.replace('.', "/");
        let fits = if name.ends_with('/') { path.starts_with(&name) } else { path == name };
        fits.then_some(*kind)
    })
}

/// The path below /proc/sys of a parameter, whose name is written with dots or with slashes (sysctl(8): the first separator decides;
/// in the dotted form a slash stands for a dot in a name). `None` if it would lead elsewhere.
pub fn path(name: &str) -> Option<String> {
    let first = name.find(['.', '/'])?;
    let path: String = match name.as_bytes().get(first) {
        Some(b'/') => name.to_owned(),
        _ => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
    };
    let sane = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    (sane && !path.contains('\0')).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations() {
        assert_eq!(path("net.ipv4.ip_forward").as_deref(), Some("net/ipv4/ip_forward"));
        assert_eq!(path("net/ipv4/conf/eth0.1/forwarding").as_deref(), Some("net/ipv4/conf/eth0.1/forwarding"));
        assert_eq!(path("net.ipv4.conf.eth0/1.forwarding").as_deref(), Some("net/ipv4/conf/eth0.1/forwarding"));
        for bad in ["net/../kernel/core_pattern", "net.ipv4.//.//.x", "", "kernel", "net..x", "/kernel/x"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_namespaced_ones() {
        assert_eq!(namespace("kernel/shmmax"), Some(Kind::Ipc));
        assert_eq!(namespace("net/core/somaxconn"), Some(Kind::Network));
        assert_eq!(namespace("fs/mqueue/msg_max"), Some(Kind::Ipc));
        assert_eq!(namespace("kernel/core_pattern"), None);
        assert_eq!(namespace("kernel/hostname"), None);
        assert_eq!(namespace("vm/swappiness"), None);
    }
}
