//! passwd(5), the host's or a container's: who has a user id.

/// A line: name, password, uid, gid, comment, home, shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name of the user.
    pub name: &'a str,
    /// The home directory, as it is written there.
    pub home: Option<&'a str>,
}

/// The lines with this user id, in the order of the file.
pub fn entries(passwd: &str, uid: u32) -> impl Iterator<Item = Entry<'_>> {
    let uid = uid.to_string();
    passwd.lines().filter_map(move |line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| Entry { name, home: fields.nth(2) })
    })
}

#[cfg(test)]
mod tests {
    use super::{Entry, entries};

    #[test]
    fn lines_are_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\n5:x:6:5::/six\nshort:x:5\nlong:x:5:7:five:/five:/bin/sh\n";
        let found: Vec<_> = entries(passwd, 5).collect();
        assert_eq!(found, [Entry { name: "short", home: None }, Entry { name: "long", home: Some("/five") }]);
        assert_eq!(entries(passwd, 7).next(), None);
    }
}
