//! The types of config.json, runtime-spec 1.3.0, as written: strings stay strings, order stays order.
//!
//! They are our own and not a crate's because the specification wants leniency where a strict enum would refuse the whole
//! document (an unknown capability is a warning), because order matters in maps that a hash map would shuffle
//! (`unified`), and because interpretation belongs into the plan, where all problems are reported together.
//! Every field is optional that the specification does not require, `null` counts as absent, and unknown properties are
//! ignored as the specification demands.

#![allow(missing_docs, reason = "the names and meanings are those of runtime-spec's config.md and config-linux.md")]

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::object::Object;

/// An object of string values in document order.
pub type StringMap = IndexMap<String, String>;

/// A list that may be absent or `null`.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A value whose absence or `null` means its default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// An object whose properties may be `null`, which counts as absent.
fn without_nulls<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<IndexMap<String, T>, D::Error> {
    let map = Option::<IndexMap<String, Option<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(map.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
}

macro_rules! spec_struct {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", remote = "Self")]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize(Object(deserializer))
            }
        }
    };
}

mod linux;
mod resources;

pub use linux::*;
pub use resources::*;

/// A value that means nothing on Linux; only whether it is there is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Foreign;

impl<'de> Deserialize<'de> for Foreign {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

spec_struct! {
/// config.json.
Spec {
    #[serde(default)]
    oci_version: Option<String>,
    #[serde(default)]
    root: Option<Root>,
    #[serde(default)]
    process: Option<Process>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    domainname: Option<String>,
    #[serde(default, deserialize_with = "list")]
    mounts: Vec<Mount>,
    #[serde(default)]
    hooks: Option<Hooks>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: StringMap,
    #[serde(default)]
    linux: Option<Linux>,
    #[serde(default, skip_serializing)]
    windows: Option<Foreign>,
    #[serde(default, skip_serializing)]
    solaris: Option<Foreign>,
    #[serde(default, skip_serializing)]
    vm: Option<Foreign>,
    #[serde(default, skip_serializing)]
    zos: Option<Foreign>,
    #[serde(default, skip_serializing)]
    freebsd: Option<Foreign>,
}}

spec_struct! {
Root {
    path: String,
    #[serde(default, deserialize_with = "or_default")]
    readonly: bool,
}}

spec_struct! {
Process {
    #[serde(default, deserialize_with = "or_default")]
    terminal: bool,
    #[serde(default)]
    console_size: Option<ConsoleSize>,
    #[serde(default, deserialize_with = "or_default")]
    user: User,
    #[serde(default, deserialize_with = "list")]
    args: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    cwd: String,
    #[serde(default)]
    capabilities: Option<Capabilities>,
    #[serde(default, deserialize_with = "list")]
    rlimits: Vec<Rlimit>,
    #[serde(default, deserialize_with = "or_default")]
    no_new_privileges: bool,
    #[serde(default)]
    apparmor_profile: Option<String>,
    #[serde(default)]
    oom_score_adj: Option<i32>,
    #[serde(default)]
    scheduler: Option<Scheduler>,
    #[serde(default)]
    selinux_label: Option<String>,
    #[serde(default, rename = "ioPriority")]
    io_priority: Option<IoPriority>,
    #[serde(default, rename = "execCPUAffinity")]
    exec_cpu_affinity: Option<CpuAffinity>,
    #[serde(default, skip_serializing)]
    command_line: Option<Foreign>,
}}

spec_struct! {
ConsoleSize {
    height: u64,
    width: u64,
}}

spec_struct! {
/// The ids are wider than the kernel's so that a value out of range is reported with its meaning, not as a type error.
User {
    #[serde(default, deserialize_with = "or_default")]
    uid: i64,
    #[serde(default, deserialize_with = "or_default")]
    gid: i64,
    #[serde(default)]
    umask: Option<i64>,
    #[serde(default, deserialize_with = "list")]
    additional_gids: Vec<i64>,
    #[serde(default, skip_serializing)]
    username: Option<Foreign>,
}}

spec_struct! {
Capabilities {
    #[serde(default, deserialize_with = "list")]
    bounding: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    effective: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    inheritable: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    permitted: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    ambient: Vec<String>,
}}

spec_struct! {
Rlimit {
    r#type: String,
    hard: u64,
    soft: u64,
}}

spec_struct! {
Scheduler {
    policy: String,
    #[serde(default)]
    nice: Option<i32>,
    #[serde(default)]
    priority: Option<i32>,
    #[serde(default, deserialize_with = "list")]
    flags: Vec<String>,
    #[serde(default)]
    runtime: Option<u64>,
    #[serde(default)]
    deadline: Option<u64>,
    #[serde(default)]
    period: Option<u64>,
}}

spec_struct! {
IoPriority {
    class: String,
    #[serde(default)]
    priority: Option<i32>,
}}

spec_struct! {
CpuAffinity {
    #[serde(default)]
    initial: Option<String>,
    #[serde(default)]
    r#final: Option<String>,
}}

spec_struct! {
Mount {
    destination: String,
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default, deserialize_with = "list")]
    options: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    uid_mappings: Vec<IdMapping>,
    #[serde(default, deserialize_with = "list")]
    gid_mappings: Vec<IdMapping>,
}}

spec_struct! {
Hooks {
    #[serde(default, deserialize_with = "list")]
    prestart: Vec<Hook>,
    #[serde(default, deserialize_with = "list")]
    create_runtime: Vec<Hook>,
    #[serde(default, deserialize_with = "list")]
    create_container: Vec<Hook>,
    #[serde(default, deserialize_with = "list")]
    start_container: Vec<Hook>,
    #[serde(default, deserialize_with = "list")]
    poststart: Vec<Hook>,
    #[serde(default, deserialize_with = "list")]
    poststop: Vec<Hook>,
}}

spec_struct! {
Hook {
    path: String,
    #[serde(default, deserialize_with = "list")]
    args: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    env: Vec<String>,
    #[serde(default)]
    timeout: Option<i64>,
}}
