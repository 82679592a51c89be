//! Random valid configurations: a default one with random edits, each of which can be made again from its seed, or left out.

use std::cell::Cell;

use serde_json::{Value, json};

mod document;
mod files;
mod limits;
mod namespaces;
mod process;

use document::{
    annotations, hooks, lacking, minimal, no_process, nulls, other_platforms, strange_hooks, unknown_properties, version,
};
use files::{binds, devices, mapped_mount, mapped_tmpfs, mounts, paths, propagation, root, strange_mounts};
pub use limits::own_groups;
use limits::{block_devices, cgroups_path, cpu, device_rules, memory, other_limits, realtime, strange_limits, unified};
use namespaces::{joined, names, namespaces, no_mount_namespace, sysctl, time_offsets, user_namespace};
use process::{
    capabilities, cwd, environment, listener, memory_policy, personality, priorities, program, rlimits, seccomp,
    security_modules, terminal, user,
};

/// Random numbers that can be had again (splitmix64).
pub struct Dice {
    state: Cell<u64>,
    /// Picks what is likely to be refused, too.
    bold: bool,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self { state: Cell::new(seed), bold: false }
    }

    pub fn next(&self) -> u64 {
        let mut z = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(z);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `n`.
    fn below(&self, n: u64) -> u64 {
        self.next() % n
    }

    fn between(&self, low: i64, high: i64) -> i64 {
        low + i64::try_from(self.below(u64::try_from(high - low + 1).unwrap())).unwrap()
    }

    /// True once in `n` times.
    fn once_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&self, list: &[T]) -> T {
        list[usize::try_from(self.below(list.len() as u64)).unwrap()].clone()
    }

    /// One of the good ones, or of the others by the bold.
    fn pick_or<T: Clone>(&self, good: &[T], others: &[T]) -> T {
        if self.bold && self.once_in(2) { self.pick(others) } else { self.pick(good) }
    }

    /// Each with a probability of one half.
    fn some<T: Clone>(&self, list: &[T]) -> Vec<T> {
        list.iter().filter(|_| self.once_in(2)).cloned().collect()
    }
}

/// What the edits may name.
pub struct World {
    pub uid: u32,
    /// The first of 65,536 ids that an ordinary user may map.
    pub ids: u32,
    /// A folder of the host.
    pub folder: String,
    /// What `rt features` lists.
    pub features: Value,
    /// A process whose uts, ipc and network namespaces may be changed. Not everybody can make one.
    pub holder: Option<String>,
}

impl World {
    fn listed(&self, pointer: &str) -> Vec<String> {
        let list = self.features.pointer(pointer).and_then(Value::as_array).unwrap();
        list.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }
}

type Edit = fn(&mut Value, &Dice, &World);

/// Every edit with its name.
const EDITS: &[(&str, Edit)] = &[
    ("namespaces", namespaces),
    ("no mount namespace", no_mount_namespace),
    ("user namespace", user_namespace),
    ("time offsets", time_offsets),
    ("joined namespace", joined),
    ("mounts", mounts),
    ("bind mounts", binds),
    ("strange mounts", strange_mounts),
    ("mapped mount", mapped_mount),
    ("capabilities", capabilities),
    ("rlimits", rlimits),
    ("user", user),
    ("devices", devices),
    ("memory", memory),
    ("cpu", cpu),
    ("other limits", other_limits),
    ("device rules", device_rules),
    ("unified", unified),
    ("seccomp", seccomp),
    ("paths", paths),
    ("hooks", hooks),
    ("strange hooks", strange_hooks),
    ("sysctl", sysctl),
    ("annotations", annotations),
    ("cwd", cwd),
    ("environment", environment),
    ("priorities", priorities),
    ("memory policy", memory_policy),
    ("personality", personality),
    ("propagation", propagation),
    ("root", root),
    ("names", names),
    ("program", program),
    ("cgroups path", cgroups_path),
    ("security modules", security_modules),
    ("what this host lacks", lacking),
    ("terminal", terminal),
    ("block devices", block_devices),
    ("strange limits", strange_limits),
    ("realtime", realtime),
    ("nulls", nulls),
    ("unknown properties", unknown_properties),
    ("other platforms", other_platforms),
    ("version", version),
    ("listener", listener),
    ("mapped tmpfs", mapped_tmpfs),
    ("nothing but what is demanded", minimal),
    ("no process", no_process),
];

/// Those that are for the bold only.
const BOLD: [&str; 9] = [
    "strange mounts",
    "strange hooks",
    "security modules",
    "what this host lacks",
    "unified",
    "strange limits",
    "realtime",
    "listener",
    "mapped tmpfs",
];

/// A configuration as the edits that make it.
#[derive(Clone, Debug)]
pub struct Recipe {
    edits: Vec<(usize, u64)>,
    bold: bool,
}

impl Recipe {
    pub fn new(seed: u64) -> Self {
        let dice = Dice::new(seed);
        let bold = dice.once_in(3);
        // Often few, so that most can be made; sometimes many.
        let one_in = dice.pick(&[2, 4, 8]);
        let chosen = (0..EDITS.len()).filter(|edit| (bold || !BOLD.contains(&EDITS[*edit].0)) && dice.once_in(one_in));
        Self { edits: chosen.map(|edit| (edit, dice.next())).collect(), bold }
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.edits.iter().map(|(edit, _)| EDITS[*edit].0).collect()
    }

    pub fn cook(&self, config: &mut Value, world: &World) {
        for (edit, seed) in &self.edits {
            (EDITS[*edit].1)(config, &Dice { bold: self.bold, ..Dice::new(*seed) }, world);
        }
    }

    /// The same with one edit less, for each edit.
    pub fn simpler(&self) -> Vec<Self> {
        let without = |index: usize| {
            let rest = self.edits.iter().enumerate().filter(|(at, _)| *at != index);
            Self { edits: rest.map(|(_, edit)| *edit).collect(), bold: self.bold }
        };
        (0..self.edits.len()).map(without).collect()
    }
}

fn push(config: &mut Value, pointer: &str, key: &str, value: Value) {
    let object = config.pointer_mut(pointer).unwrap();
    if object[key].is_null() {
        object[key] = json!([]);
    }
    object[key].as_array_mut().unwrap().push(value);
}
