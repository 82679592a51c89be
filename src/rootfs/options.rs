//! The mount option table of config.md, "Linux mount options", and what each word does.

use serde::Serialize;

use crate::plan::Findings;
use crate::spec::Field;
use crate::sys::mount::attr;

/// What an option does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sets attributes of the mount.
    Set(u64),
    /// Clears attributes of the mount.
    Clear(u64),
    /// Sets attributes of the mount and of all below it.
    SetAll(u64),
    /// Clears attributes of the mount and of all below it.
    ClearAll(u64),
    /// One of the access time settings, which exclude each other: the value within `attr::ATIME`.
    Atime(u64),
    /// The same for the mount and all below it.
    AtimeAll(u64),
    /// A property of the filesystem that every filesystem understands: the key for fsconfig(2).
    Superblock(&'static str),
    /// Propagation: an `MS_*` flag, and whether it goes for all mounts below.
    Propagation(u64, bool),
    /// A bind mount, recursive or not.
    Bind(bool),
    /// Changes the mount that is there.
    Remount,
    /// Copies what the mount will hide into the new tmpfs.
    CopyUp,
    /// Maps the ids of the mount, recursively or not.
    IdMap(bool),
    /// Makes the symbolic link that the source is, in place of mounting what it leads to (crun's).
    CopySymlink,
    /// Binds the symbolic link that the source is (crun's).
    SourceNoFollow,
    /// Mounts on the symbolic link that the destination is (crun's).
    DestinationNoFollow,
    /// Nothing to do: the default, or what the mount API never does (`silent`: it does not print to the kernel's log).
    Nothing,
}

use Effect::{
    Atime, AtimeAll, Bind, Clear, ClearAll, CopySymlink, CopyUp, DestinationNoFollow, IdMap, Nothing, Propagation, Remount, Set,
    SetAll, SourceNoFollow, Superblock,
};

/// Every option that is not the filesystem's own, sorted by name.
pub const TABLE: &[(&str, Effect)] = &[
    ("async", Superblock("async")),
    ("atime", Atime(0)),
    ("bind", Bind(false)),
    ("copy-symlink", CopySymlink),
    ("defaults", Nothing),
    ("dest-nofollow", DestinationNoFollow),
    ("dev", Clear(attr::NODEV)),
    ("diratime", Clear(attr::NODIRATIME)),
    ("dirsync", Superblock("dirsync")),
    ("exec", Clear(attr::NOEXEC)),
    ("idmap", IdMap(false)),
    ("iversion", Superblock("iversion")),
    ("lazytime", Superblock("lazytime")),
    ("loud", Nothing),
    ("mand", Superblock("mand")),
    ("noatime", Atime(attr::NOATIME)),
    ("nodev", Set(attr::NODEV)),
    ("nodiratime", Set(attr::NODIRATIME)),
    ("noexec", Set(attr::NOEXEC)),
    ("noiversion", Nothing),
    ("nolazytime", Superblock("nolazytime")),
    ("nomand", Superblock("nomand")),
    ("norelatime", Atime(0)),
    ("nostrictatime", Atime(0)),
    ("nosuid", Set(attr::NOSUID)),
    ("nosymfollow", Set(attr::NOSYMFOLLOW)),
    ("private", Propagation(libc::MS_PRIVATE, false)),
    ("ratime", AtimeAll(0)),
    ("rbind", Bind(true)),
    ("rdev", ClearAll(attr::NODEV)),
    ("rdiratime", ClearAll(attr::NODIRATIME)),
    ("relatime", Atime(0)),
    ("remount", Remount),
    ("rexec", ClearAll(attr::NOEXEC)),
    ("ridmap", IdMap(true)),
    ("rnoatime", AtimeAll(attr::NOATIME)),
    ("rnodev", SetAll(attr::NODEV)),
    ("rnodiratime", SetAll(attr::NODIRATIME)),
    ("rnoexec", SetAll(attr::NOEXEC)),
    ("rnorelatime", AtimeAll(0)),
    ("rnostrictatime", AtimeAll(0)),
    ("rnosuid", SetAll(attr::NOSUID)),
    ("rnosymfollow", SetAll(attr::NOSYMFOLLOW)),
    ("ro", Set(attr::RDONLY)),
    ("rprivate", Propagation(libc::MS_PRIVATE, true)),
    ("rrelatime", AtimeAll(0)),
    ("rro", SetAll(attr::RDONLY)),
    ("rrw", ClearAll(attr::RDONLY)),
    ("rshared", Propagation(libc::MS_SHARED, true)),
    ("rslave", Propagation(libc::MS_SLAVE, true)),
    ("rstrictatime", AtimeAll(attr::STRICTATIME)),
    ("rsuid", ClearAll(attr::NOSUID)),
    ("rsymfollow", ClearAll(attr::NOSYMFOLLOW)),
    ("runbindable", Propagation(libc::MS_UNBINDABLE, true)),
    ("rw", Clear(attr::RDONLY)),
    ("shared", Propagation(libc::MS_SHARED, false)),
    ("silent", Nothing),
    ("slave", Propagation(libc::MS_SLAVE, false)),
    ("src-nofollow", SourceNoFollow),
    ("strictatime", Atime(attr::STRICTATIME)),
    ("suid", Clear(attr::NOSUID)),
    ("symfollow", Clear(attr::NOSYMFOLLOW)),
    ("sync", Superblock("sync")),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagation(libc::MS_UNBINDABLE, false)),
];

/// What an option does, or `None` if it is the filesystem's own.
pub fn effect(option: &str) -> Option<Effect> {
    TABLE.binary_search_by(|(name, _)| (*name).cmp(option)).ok().map(|at| TABLE[at].1)
}

/// Attributes to set and to clear, `attr::*` of [`crate::sys::mount`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// To be set.
    pub set: u64,
    /// To be cleared.
    pub clear: u64,
}

impl Change {
    /// True if there is nothing to change.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    fn clear(&mut self, bits: u64) {
        self.set &= !bits;
        self.clear |= bits;
    }

    /// The kernel wants the whole field cleared where one of its values is set (mount_setattr(2)).
    fn atime(&mut self, value: u64) {
        self.set = self.set & !attr::ATIME | value;
        self.clear |= attr::ATIME;
    }
}

/// A propagation type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PropagationChange {
    /// `MS_SHARED` and its kin.
    pub flag: u64,
    /// For all mounts below, too.
    pub recursive: bool,
}

/// What is not followed of the symbolic links of a bind mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Links {
    /// A source that is a link becomes the same link at the destination.
    pub copy: bool,
    /// A source that is a link is mounted itself.
    pub source: bool,
    /// A destination that is a link is mounted on.
    pub destination: bool,
}

impl Links {
    /// True for links that are followed, as they are unless options say otherwise.
    pub fn followed(&self) -> bool {
        *self == Self::default()
    }

    /// True if what a link as the source leads to is bound.
    pub fn of_source_followed(self) -> bool {
        !self.copy && !self.source
    }

    /// The words for it.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        let all = [(self.copy, "copy-symlink"), (self.source, "src-nofollow"), (self.destination, "dest-nofollow")];
        all.into_iter().filter_map(|(on, word)| on.then_some(word))
    }
}

/// The options of one mount, sorted out. Later words win over earlier ones, as in mount(8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Attributes of the mount.
    pub own: Change,
    /// Attributes of the mount and all below.
    pub all: Change,
    /// Properties of the filesystem.
    pub superblock: Vec<&'static str>,
    /// Propagation, in order.
    pub propagation: Vec<PropagationChange>,
    /// A bind mount, recursive or not.
    pub bind: Option<bool>,
    /// A change of the mount that is there.
    pub remount: bool,
    /// Copy what is hidden.
    pub copy_up: bool,
    /// Which links are not followed.
    pub links: Links,
    /// Map ids, recursively or not.
    pub id_map: Option<bool>,
    /// The filesystem's own options: key and value, or key alone.
    pub data: Vec<(String, Option<String>)>,
}

impl Parsed {
    /// Options of a filesystem, on a mount that makes none.
    pub fn leave_out(&self, what: &str, field: &Field, findings: &mut Findings) {
        let data = self.data.iter().map(|(key, _)| key.as_str());
        let properties = self.superblock.iter().copied().filter(|key| !matches!(*key, "async" | "nomand" | "nolazytime"));
        let dropped: Vec<&str> = data.chain(properties).collect();
        if !dropped.is_empty() {
            let text = format!("{} means nothing on {what} and is left out", dropped.join(", "));
            findings.warning(field.key("options"), text);
        }
        if self.copy_up {
            findings.problem(field.key("options"), format!("tmpcopyup on {what}; expected it on a tmpfs only"));
        }
    }
}

/// Sorts the options of a mount out.
pub fn parse(options: &[String]) -> Parsed {
    let mut parsed = Parsed::default();
    for option in options.iter().filter(|option| !option.is_empty()) {
        match effect(option) {
            Some(Set(bits)) => parsed.own.set(bits),
            Some(Clear(bits)) => parsed.own.clear(bits),
            Some(SetAll(bits)) => parsed.all.set(bits),
            Some(ClearAll(bits)) => parsed.all.clear(bits),
            Some(Atime(value)) => parsed.own.atime(value),
            Some(AtimeAll(value)) => parsed.all.atime(value),
            Some(Superblock(key)) => parsed.superblock.push(key),
            Some(Propagation(flag, recursive)) => parsed.propagation.push(PropagationChange { flag, recursive }),
            Some(Bind(recursive)) => parsed.bind = Some(recursive || parsed.bind == Some(true)),
            Some(Remount) => parsed.remount = true,
            Some(CopyUp) => parsed.copy_up = true,
            Some(CopySymlink) => parsed.links.copy = true,
            Some(SourceNoFollow) => parsed.links.source = true,
            Some(DestinationNoFollow) => parsed.links.destination = true,
            Some(IdMap(recursive)) => parsed.id_map = Some(recursive),
            Some(Nothing) => {}
            None => {
                let split = option.split_once('=');
                let (key, value) = split.map_or((option.as_str(), None), |(key, value)| (key, Some(value.to_owned())));
                parsed.data.push((key.to_owned(), value));
            }
        }
    }
    parsed
}

/// The propagation word of `linux.rootfsPropagation` or of a mount.
pub fn propagation(word: &str) -> Option<PropagationChange> {
    match effect(word) {
        Some(Propagation(flag, recursive)) => Some(PropagationChange { flag, recursive }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
    }

    fn options(words: &[&str]) -> Parsed {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn later_words_win() {
        let parsed = options(&["ro", "nosuid", "rw", "noatime", "strictatime"]);
        assert_eq!(parsed.own.set, attr::NOSUID | attr::STRICTATIME);
        assert_eq!(parsed.own.clear, attr::RDONLY | attr::ATIME);
    }

    #[test]
    fn filesystem_options_keep_order_and_values() {
        let parsed = options(&["size=64k", "nosuid", "newinstance", "context=a=b"]);
        let pair = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
        assert_eq!(parsed.data, [pair("size", Some("64k")), pair("newinstance", None), pair("context", Some("a=b"))]);
    }
}
