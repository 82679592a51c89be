//! The small ones: pids, huge pages, network, RDMA, and `unified`.

use indexmap::IndexMap;

use super::super::plan::{Builder, Site};
use super::super::steps::Tolerance;
use super::or_max;
use crate::spec::{Field, HugepageLimit, Network, Pids, Rdma, StringMap};

/// `PID_MAX_LIMIT` of linux/threads.h, on 64 bits.
const MOST_PROCESSES: i64 = 4 << 20;

/// The number of processes. 0 is a limit like any other (runtime-spec, "PIDs"), negative ones mean none.
pub(super) fn pids(out: &mut Builder<'_>, pids: &Pids, at: &Field) {
    let field = at.key("limit");
    let Some(limit) = pids.limit else { return };
    if limit > MOST_PROCESSES {
        out.findings.problem(field, format!("expected at most {MOST_PROCESSES}, or -1, found {limit}"));
        return;
    }
    // No limit is what a cgroup without the controller has.
    if limit < 0 && out.find("pids", "pids").is_none() {
        return;
    }
    if let Some(site) = out.locate("pids", "pids", &field) {
        out.set(site, "pids", "pids.max", or_max(limit), &field);
    }
}

/// Huge pages. Engines list every size with a limit of 0: that needs no controller.
pub(super) fn hugepages(out: &mut Builder<'_>, limits: &[HugepageLimit], at: &Field) {
    for (index, entry) in limits.iter().enumerate() {
        let field = at.index(index);
        if !is_page_size(&entry.page_size) {
            let text = format!("expected a size such as 64KB, 2MB or 1GB, found {:?}", entry.page_size);
            out.findings.problem(field.key("pageSize"), text);
            continue;
        }
        if entry.limit == 0 && out.find("hugetlb", "hugetlb").is_none() {
            continue;
        }
        let Some(site) = out.locate("hugetlb", "hugetlb", &field) else { continue };
        let (prefix, ending) =
            (format!("hugetlb.{}", entry.page_size), if matches!(site, Site::V1(_)) { "limit_in_bytes" } else { "max" });
        // Reservations are limited where the kernel can (Linux 5.7), page faults everywhere.
        out.set(site, "hugetlb", &format!("{prefix}.{ending}"), entry.limit, &field.key("limit"));
        let write = out.set(site, "hugetlb", &format!("{prefix}.rsvd.{ending}"), entry.limit, &field.key("limit"));
        write.tolerance = Tolerance::IfPresent;
    }
}

/// `<number><unit>B` with a unit of K, M or G: it becomes part of a file name.
pub(super) fn is_page_size(text: &str) -> bool {
    let number = text.strip_suffix("KB").or_else(|| text.strip_suffix("MB")).or_else(|| text.strip_suffix("GB"));
    number.is_some_and(|number| {
        !number.is_empty() && number.len() < 10 && !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Network class and priorities, which version 2 has not.
pub(super) fn network(out: &mut Builder<'_>, network: &Network, at: &Field) {
    if let Some(class) = network.class_id.filter(|class| *class != 0) {
        let field = at.key("classID");
        if let Some(site) = v1_only(out, "net_cls", &field) {
            out.set(site, "net_cls", "net_cls.classid", class, &field);
        }
    }
    for (index, entry) in network.priorities.iter().enumerate() {
        let field = at.key("priorities").index(index);
        if let Some(site) = v1_only(out, "net_prio", &field) {
            out.set(site, "net_prio", "net_prio.ifpriomap", format!("{} {}", entry.name, entry.priority), &field);
        }
    }
}

fn v1_only(out: &mut Builder<'_>, controller: &str, field: &Field) -> Option<Site> {
    // The second name belongs to no controller of version 2.
    let site = out.find(controller, "");
    if site.is_none() {
        out.missing(field, &format!("the cgroup v1 controller `{controller}`"), "");
    }
    site
}

/// RDMA resources, the same in both versions.
pub(super) fn rdma(out: &mut Builder<'_>, devices: &IndexMap<String, Rdma>, at: &Field) {
    for (name, limits) in devices {
        let field = at.entry(name);
        let handles = limits.hca_handles.map(|count| format!(" hca_handle={count}"));
        let objects = limits.hca_objects.map(|count| format!(" hca_object={count}"));
        if handles.is_none() && objects.is_none() {
            out.findings.problem(field, "expected hcaHandles or hcaObjects, found neither");
            continue;
        }
        if let Some(site) = out.locate("rdma", "rdma", &field) {
            let value = format!("{name}{}{}", handles.unwrap_or_default(), objects.unwrap_or_default());
            out.set(site, "rdma", "rdma.max", value, &field);
        }
    }
}

/// Files that act on processes instead of limiting them: a config has no business there.
const NOT_LIMITS: [&str; 4] = ["cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze"];

/// `unified`, in document order. On a hybrid host it is an error for controllers that are on version 1, as it is altogether
/// without version 2.
pub(super) fn unified(out: &mut Builder<'_>, files: &StringMap, at: &Field) {
    for (file, value) in files {
        let field = at.entry(file);
        let controller = file.split_once('.').map_or("", |(controller, _)| controller);
        if file.contains(['/', '\0']) || controller.is_empty() || NOT_LIMITS.contains(&file.as_str()) {
            out.findings.problem(field, format!("expected the name of a cgroup v2 file that limits resources, found {file:?}"));
            continue;
        }
        let Some(site) = unified_site(out, controller, file, &field) else { continue };
        // The kernel takes one line per write.
        for line in value.split('\n').filter(|line| !line.is_empty() || value.is_empty()) {
            out.set(site, if is_core(file) { "cgroup" } else { controller }, file, line, &field);
        }
    }
}

/// Files that need no controller: those of the core and the pressure files.
fn is_core(file: &str) -> bool {
    file.starts_with("cgroup.") || file.ends_with(".pressure")
}

fn unified_site(out: &mut Builder<'_>, controller: &str, file: &str, field: &Field) -> Option<Site> {
    if is_core(file) {
        let site = out.unified().map(Site::V2);
        if site.is_none() {
            out.missing(field, "cgroup v2", "cgroup");
        }
        return site;
    }
    let site = out.find("", controller);
    if site.is_none() {
        out.missing(field, &format!("the cgroup v2 controller `{controller}`"), controller);
    }
    site
}
