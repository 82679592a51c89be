//! `linux.resources.blockIO`: the controllers blkio and io.

use super::super::plan::{Builder, Site};
use super::super::steps::{Tolerance, Write};
use crate::spec::{BlockIo, Field, ThrottleDevice};

/// Plans weights and rates of block devices.
pub(super) fn plan(out: &mut Builder<'_>, block: &BlockIo, at: &Field) {
    let weights = [("weight", block.weight), ("leafWeight", block.leaf_weight)];
    for (name, value) in weights {
        check_weight(out, value, at.key(name));
    }
    check_numbers(out, block, at);
    if weights.iter().all(|(_, value)| value.unwrap_or(0) == 0)
        && block.weight_device.is_empty()
        && throttles(block).iter().all(|(_, _, _, devices)| devices.is_empty())
    {
        return;
    }
    let Some(site) = out.locate("blkio", "io", at) else { return };
    weight(out, site, block, at);
    weight_devices(out, site, block, at);
    for (name, v1, v2, devices) in throttles(block) {
        throttle(out, site, devices, (v1, v2), &at.key(name));
    }
}

fn check_weight(out: &mut Builder<'_>, value: Option<u16>, field: Field) {
    if let Some(weight) = value.filter(|weight| *weight != 0 && !(10..=1000).contains(weight)) {
        out.findings.problem(field, format!("expected 10 to 1000, found {weight}"));
    }
}

/// The numbers of a block device: 12 and 20 bits (`MKDEV()` of linux/kdev_t.h).
fn check_numbers(out: &mut Builder<'_>, block: &BlockIo, at: &Field) {
    let weights = block.weight_device.iter().map(|device| (device.major, device.minor)).enumerate();
    let mut numbers: Vec<_> = weights.map(|(index, numbers)| (at.key("weightDevice").index(index), numbers)).collect();
    for (name, _, _, devices) in throttles(block) {
        let devices = devices.iter().map(|device| (device.major, device.minor)).enumerate();
        numbers.extend(devices.map(|(index, numbers)| (at.key(name).index(index), numbers)));
    }
    for (field, (major, minor)) in numbers {
        for (name, number, most) in [("major", major, (1 << 12) - 1), ("minor", minor, (1 << 20) - 1)] {
            if !(0..=most).contains(&number) {
                out.findings.problem(field.key(name), format!("expected 0 to {most}, found {number}"));
            }
        }
    }
}

/// The four lists of rates: name in the config, file of version 1, key in `io.max`.
fn throttles(block: &BlockIo) -> [(&'static str, &'static str, &'static str, &[ThrottleDevice]); 4] {
    [
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", &block.throttle_read_bps_device),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", &block.throttle_write_bps_device),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", &block.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", &block.throttle_write_iops_device),
    ]
}

/// Weights exist only where a scheduler offers them (BFQ, or io.cost of version 2).
fn soft(write: &mut Write, file: &str, value: impl ToString) {
    write.tolerance = Tolerance::WarnIfUnsupported;
    write.instead = Some((file.to_owned(), value.to_string()));
}

fn weight(out: &mut Builder<'_>, site: Site, block: &BlockIo, at: &Field) {
    if let Some(weight) = block.weight.filter(|weight| *weight != 0) {
        let field = at.key("weight");
        match site {
            Site::V1(_) => soft(out.set(site, "blkio", "blkio.bfq.weight", weight, &field), "blkio.weight", weight),
            Site::V2(_) => soft(out.set(site, "io", "io.bfq.weight", weight, &field), "io.weight", io_weight(weight)),
        }
    }
    if let Some(weight) = block.leaf_weight.filter(|weight| *weight != 0) {
        leaf_weight(out, site, "blkio.leaf_weight", &weight.to_string(), at.key("leafWeight"));
    }
}

/// Of the CFQ scheduler, which Linux 5.0 has removed.
fn leaf_weight(out: &mut Builder<'_>, site: Site, file: &str, value: &str, field: Field) {
    match site {
        Site::V1(_) => out.set(site, "blkio", file, value, &field).tolerance = Tolerance::WarnIfUnsupported,
        Site::V2(_) => out.no_counterpart(field),
    }
}

fn weight_devices(out: &mut Builder<'_>, site: Site, block: &BlockIo, at: &Field) {
    for (index, device) in block.weight_device.iter().enumerate() {
        let field = at.key("weightDevice").index(index);
        check_weight(out, device.weight, field.key("weight"));
        check_weight(out, device.leaf_weight, field.key("leafWeight"));
        if device.weight.is_none() && device.leaf_weight.is_none() {
            out.findings.problem(field.clone(), "expected weight or leafWeight, found neither");
        }
        let number = format!("{}:{}", device.major, device.minor);
        if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
            let (value, field) = (format!("{number} {weight}"), field.key("weight"));
            match site {
                Site::V1(_) => {
                    soft(out.set(site, "blkio", "blkio.bfq.weight_device", &value, &field), "blkio.weight_device", &value);
                }
                Site::V2(_) => {
                    let other = format!("{number} {}", io_weight(weight));
                    soft(out.set(site, "io", "io.bfq.weight", &value, &field), "io.weight", other);
                }
            }
        }
        if let Some(weight) = device.leaf_weight.filter(|weight| *weight != 0) {
            leaf_weight(out, site, "blkio.leaf_weight_device", &format!("{number} {weight}"), field.key("leafWeight"));
        }
    }
}

fn throttle(out: &mut Builder<'_>, site: Site, devices: &[ThrottleDevice], (v1, v2): (&str, &str), at: &Field) {
    for (index, device) in devices.iter().enumerate() {
        let number = format!("{}:{}", device.major, device.minor);
        let field = at.index(index);
        match site {
            // A rate of 0 removes the limit.
            Site::V1(_) => out.set(site, "blkio", v1, format!("{number} {}", device.rate), &field),
            Site::V2(_) if device.rate == 0 => out.set(site, "io", "io.max", format!("{number} {v2}=max"), &field),
            Site::V2(_) => out.set(site, "io", "io.max", format!("{number} {v2}={}", device.rate), &field),
        };
    }
}

/// `io.weight` (1 to 10000) for a block IO weight (10 to 1000), in a straight line.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}
