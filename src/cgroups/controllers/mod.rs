//! `linux.resources`, one file per kind of resource.

mod blkio;
mod cpu;
mod memory;
mod others;
#[cfg(test)]
mod tests;

use super::plan::Builder;
use crate::spec::{Field, Resources};

/// Plans all limits. `unified` comes last: what it says wins.
pub(super) fn plan(out: &mut Builder<'_>, resources: &Resources) {
    let at = Field::from("linux.resources");
    if let Some(memory) = &resources.memory {
        memory::plan(out, memory, &at.key("memory"));
    }
    if let Some(cpu) = &resources.cpu {
        cpu::plan(out, cpu, &at.key("cpu"));
    }
    if let Some(pids) = &resources.pids {
        others::pids(out, pids, &at.key("pids"));
    }
    if let Some(block) = &resources.block_io {
        blkio::plan(out, block, &at.key("blockIO"));
    }
    others::hugepages(out, &resources.hugepage_limits, &at.key("hugepageLimits"));
    if let Some(network) = &resources.network {
        others::network(out, network, &at.key("network"));
    }
    others::rdma(out, &resources.rdma, &at.key("rdma"));
    others::unified(out, &resources.unified, &at.key("unified"));
}

/// A number for a version 2 limit, where any negative one means no limit.
fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}
