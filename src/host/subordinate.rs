//! The subordinate ids of the caller (subuid(5), subgid(5)), and whether there are the programs that map them.

use std::fs;

use serde::Serialize;

use super::probe::program;
use crate::passwd;

/// What an ordinary user may map besides the own ids. Empty lists where it cannot be mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Subordinate {
    /// First id and size of each range of user ids.
    pub uids: Vec<(u32, u32)>,
    /// The same for group ids.
    pub gids: Vec<(u32, u32)>,
}

impl Subordinate {
    /// Looks into the files. They hold names or numbers; a name is looked up in /etc/passwd alone.
    pub fn probe(uid: u32) -> Self {
        if program("newuidmap").is_none() || program("newgidmap").is_none() {
            return Self::default();
        }
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let owners = owners(uid, &read("/etc/passwd"));
        Self { uids: ranges(&owners, &read("/etc/subuid")), gids: ranges(&owners, &read("/etc/subgid")) }
    }
}

/// The words that stand for a user: the number, and the names that have it.
fn owners(uid: u32, passwd: &str) -> Vec<String> {
    let names = passwd::entries(passwd, uid).map(|entry| entry.name.to_owned());
    names.chain([uid.to_string()]).collect()
}

fn ranges(owners: &[String], text: &str) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [owner, first, size] = fields[..] else { return None };
        let (first, size): (u32, u32) = (first.parse().ok()?, size.parse().ok()?);
        (owners.iter().any(|name| name == owner) && size > 0 && first.checked_add(size).is_some()).then_some((first, size))
    };
    text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::{owners, ranges};

    #[test]
    fn files_are_read() {
        let owners = owners(1000, "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n");
        assert_eq!(owners, ["alice", "1000"]);
        let text = "bob:100000:65536\nalice:200000:65536\n1000:500000:10\nalice:x:1\nalice:4294967295:2\nalice:7:0\n";
        assert_eq!(ranges(&owners, text), [(200_000, 65536), (500_000, 10)]);
    }
}
