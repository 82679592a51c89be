//! The device list of version 1 as the kernel keeps it: everything is allowed or denied, but for exceptions
//! (the kernel's Documentation/admin-guide/cgroup-v1/devices.rst).

use std::collections::BTreeMap;

use super::steps::DeviceLine;

/// What a list has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exceptions {
    /// What is no exception is allowed.
    allows: bool,
    /// Such as `c 1:3`, with the letters of the access.
    list: BTreeMap<String, String>,
}

impl Exceptions {
    /// What devices.list says. Where everything is allowed it does not say what is not.
    pub fn read(list: &str) -> Self {
        let mut read = Self::default();
        list.lines().for_each(|line| read.take(true, line));
        read
    }

    /// What lines lead to that begin with one about everything.
    pub fn after(lines: &[DeviceLine]) -> Self {
        let mut after = Self::default();
        lines.iter().for_each(|line| after.take(line.allow, &line.text));
        after
    }

    /// True if what is no exception is allowed.
    pub fn allows(&self) -> bool {
        self.allows
    }

    fn take(&mut self, allow: bool, text: &str) {
        if text.starts_with('a') {
            *self = Self { allows: allow, list: BTreeMap::new() };
            return;
        }
        let Some((device, access)) = text.rsplit_once(' ') else { return };
        let known = self.list.remove(device).unwrap_or_default();
        let adds = allow != self.allows;
        let keeps =
            |letter: &char| if adds { known.contains(*letter) || access.contains(*letter) } else { !access.contains(*letter) };
        let letters = if adds { "rwm" } else { known.as_str() };
        let left: String = letters.chars().filter(keeps).collect();
        if !left.is_empty() {
            self.list.insert(device.to_owned(), left);
        }
    }

    /// The lines that lead from here to there without a moment in which something is denied that both allow: what is new is
    /// allowed before what is gone is denied. Nothing if what is no exception is allowed here or there: then the kernel has
    /// to be told everything anew.
    pub fn way_to(&self, there: &Self) -> Option<Vec<DeviceLine>> {
        if self.allows || there.allows {
            return None;
        }
        let new = there.list.iter().map(|(device, access)| DeviceLine { allow: true, text: format!("{device} {access}") });
        let gone = self.list.iter().filter_map(|(device, access)| {
            let stays = there.list.get(device).map_or("", String::as_str);
            let gone: String = access.chars().filter(|letter| !stays.contains(*letter)).collect();
            (!gone.is_empty()).then(|| DeviceLine { allow: false, text: format!("{device} {gone}") })
        });
        let has = |line: &DeviceLine| {
            let Some((device, access)) = line.text.rsplit_once(' ') else { return false };
            let known = self.list.get(device).map_or("", String::as_str);
            access.chars().all(|letter| known.contains(letter))
        };
        Some(new.filter(|line| !has(line)).chain(gone).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const OPEN: &str = "c *:* m\nc 1:3 rwm\nc 10:229 rw\n";

    fn lines(texts: &[&str]) -> Vec<DeviceLine> {
        let line = |text: &&str| DeviceLine { allow: text.starts_with('+'), text: text[1..].to_owned() };
        texts.iter().map(line).collect()
    }

    #[test]
    fn lines_come_to_a_list() {
        let after =
            Exceptions::after(&lines(&["-a *:* rwm", "+c *:* m", "+c 1:3 rw", "+c 1:3 m", "+c 10:229 rwm", "-c 10:229 m"]));
        assert_eq!(after, Exceptions::read(OPEN));
        assert!(Exceptions::read("a *:* rwm\n").allows());
    }

    #[test]
    fn only_what_differs_is_written() {
        let there = Exceptions::after(&lines(&["-a *:* rwm", "+c *:* m", "+c 1:3 rwm", "+c 10:229 r", "+b 8:0 rw"]));
        let way = Exceptions::read(OPEN).way_to(&there).unwrap();
        assert_eq!(way, lines(&["+b 8:0 rw", "-c 10:229 w"]));
        assert_eq!(Exceptions::read(OPEN).way_to(&Exceptions::read(OPEN)), Some(Vec::new()));
        assert_eq!(Exceptions::read(OPEN).way_to(&Exceptions::read("a *:* rwm")), None);
    }

    fn line() -> impl Strategy<Value = DeviceLine> {
        let letters = prop::sample::subsequence(vec!['r', 'w', 'm'], 1..4);
        (any::<bool>(), prop::bool::ANY, 0u32..3, letters).prop_map(|(allow, block, minor, access)| {
            let (kind, access) = (if block { 'b' } else { 'c' }, access.into_iter().collect::<String>());
            DeviceLine { allow, text: format!("{kind} 1:{minor} {access}") }
        })
    }

    proptest! {
        #[test]
        fn the_way_leads_there(from in prop::collection::vec(line(), 0..12), to in prop::collection::vec(line(), 0..12)) {
            let (from, to) = (Exceptions::after(&from), Exceptions::after(&to));
            let mut walked = from.clone();
            for line in from.way_to(&to).unwrap() {
                walked.take(line.allow, &line.text);
                // What both allow is never denied.
                for (device, access) in &from.list {
                    let both = |letter: &char| to.list.get(device).is_some_and(|there| there.contains(*letter));
                    let now = walked.list.get(device).cloned().unwrap_or_default();
                    prop_assert!(access.chars().filter(both).all(|letter| now.contains(letter)));
                }
            }
            prop_assert_eq!(walked, to);
        }
    }
}
