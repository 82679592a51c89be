//! [`ContainerId`]: a name that is safe as a file name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest id: a file name with room for a suffix (NAME_MAX is 255).
const MAX_LEN: usize = 250;

/// A container's id: letters, digits, and `_ + - .`, but not `.` or `..` (the characters that runc accepts).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
        if text.is_empty() || text.len() > MAX_LEN || !text.chars().all(allowed) || text == "." || text == ".." {
            return Err(format!(
                "invalid container ID {text:?}: expected 1 to {MAX_LEN} letters, digits, or any of _ + - . (but not . or ..)"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ContainerId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::ContainerId;

    #[test]
    fn charset() {
        for good in ["web", "a.b", "..a", "A-1_2+3"] {
            assert!(good.parse::<ContainerId>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a\n", "../x", &"x".repeat(251), "ü"] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
        }
    }
}
