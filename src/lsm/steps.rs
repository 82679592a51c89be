//! What init says to the security modules.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One attribute of init.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LsmStep {
    /// The AppArmor profile of the program.
    AppArmorProfile(String),
    /// The SELinux label of the program.
    ExecLabel(String),
    /// The SELinux label of keys that are made from here on.
    KeyLabel(String),
}

impl fmt::Display for LsmStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AppArmorProfile(profile) => write!(f, "execute under AppArmor profile {profile}"),
            Self::ExecLabel(label) => write!(f, "execute with SELinux label {label}"),
            Self::KeyLabel(label) => write!(f, "make keys with SELinux label {label}"),
        }
    }
}
