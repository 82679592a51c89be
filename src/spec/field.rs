//! [`Field`]: a path into config.json, as messages show it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A config path such as `mounts[2].options` or `linux.sysctl["net.ipv4.ip_forward"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Field(String);

impl Field {
    /// The field of this name at the top, or with dots further down.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// A property of this field.
    #[must_use]
    pub fn key(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self([&self.0, ".", name].concat()) }
    }

    /// An element of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self([&self.0, "[", &index.to_string(), "]"].concat())
    }

    /// An entry of this map, whose keys are data.
    #[must_use]
    pub fn entry(&self, key: &str) -> Self {
        Self(format!("{}[{key:?}]", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Field {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}
