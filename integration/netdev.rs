//! Network devices that move into the container.

use serde_json::json;

use crate::config;
use crate::ctx::Ctx;
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Root {
        a_device_moves_with_its_addresses,
        a_device_keeps_its_routes,
        routes_with_several_ways_are_kept_or_told,
        a_route_without_its_gateway_is_a_warning,
        a_sysctl_of_a_moved_device_finds_it,
        a_device_gets_another_name,
        a_template_finds_a_free_name,
        a_joined_namespace_gets_it_too,
        a_user_namespace_gets_it_too,
        a_taken_name_is_refused,
        a_missing_device_is_refused,
        without_a_network_namespace_it_is_refused,
    }
    User {
        a_user_may_not_move_devices,
    }
}

/// A pair of virtual devices; the peer is removed at the end, and the device with it.
struct Pair<'c> {
    ctx: &'c Ctx<'c>,
    device: String,
    peer: String,
}

impl<'c> Pair<'c> {
    fn new(ctx: &'c Ctx<'c>) -> Option<Self> {
        let number = ctx.fresh("").replace('-', "");
        let tail = &number[number.len().saturating_sub(9)..];
        let (device, peer) = (format!("rt{tail}a"), format!("rt{tail}b"));
        let made = ctx.command(&["ip", "link", "add", &device, "type", "veth", "peer", "name", &peer]).run();
        (made.code == 0).then_some(Self { ctx, device, peer })
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        self.ctx.command(&["ip", "link", "del", &self.peer]).run();
    }
}

macro_rules! pair {
    ($ctx:expr) => {
        match Pair::new($ctx) {
            Some(pair) => pair,
            None => return Skip("no virtual network devices (veth, package iproute2)".to_owned()),
        }
    };
}

fn a_device_moves_with_its_addresses(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know network devices");
    let pair = pair!(ctx);
    let name = &pair.device;
    for arguments in [
        &["ip", "link", "set", name, "mtu", "1357"][..],
        &["ip", "addr", "add", "192.0.2.7/24", "dev", name],
        &["ip", "addr", "add", "2001:db8::7/64", "dev", name, "nodad"],
        &["ip", "addr", "add", "192.0.2.8/32", "dev", name, "valid_lft", "1000", "preferred_lft", "1000"],
        &["ip", "addr", "add", "169.254.3.3/32", "dev", name, "scope", "link"],
    ] {
        ctx.command(arguments).run().ok();
    }
    let script = format!("ip addr show dev {name}; cat /sys/class/net/{name}/mtu");
    let output = ctx.sh_with(&script, |c| c["linux"]["netDevices"] = json!({ name: {} }));
    assert!(output.contains("inet 192.0.2.7/24") && output.contains("inet6 2001:db8::7/64"), "{output}");
    assert!(!output.contains("192.0.2.8") && !output.contains("169.254.3.3"), "neither permanent nor global: {output}");
    assert!(output.contains(",UP") && output.ends_with("1357\n"), "{output}");
    Pass
}

/// Those that somebody has made; the kernel makes the others from the addresses.
fn a_device_keeps_its_routes(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know network devices");
    let pair = pair!(ctx);
    let name = &pair.device;
    for arguments in [
        &["ip", "addr", "add", "198.18.7.7/24", "dev", name][..],
        &["ip", "-6", "addr", "add", "2001:db8:7::7/64", "dev", name, "nodad"],
        &["ip", "link", "set", name, "up"],
        &["ip", "link", "set", &pair.peer, "up"],
        &["ip", "route", "add", "198.18.9.0/24", "via", "198.18.8.1", "dev", name, "onlink", "metric", "77"],
        &["ip", "route", "add", "198.18.8.1/32", "dev", name, "src", "198.18.7.7"],
        &["ip", "route", "add", "198.18.10.0/24", "via", "198.18.7.1", "dev", name, "table", "1007"],
        &["ip", "-6", "route", "add", "2001:db8:8::/64", "via", "2001:db8:7::1", "dev", name],
    ] {
        ctx.command(arguments).run().ok();
    }
    let container = ctx.running(|c| c["linux"]["netDevices"] = json!({ name: { "name": "inside0" } }));
    let pid = container.pid().to_string();
    let show = |arguments: &[&str]| {
        let argv = [&["nsenter", "-t", &pid, "-n", "ip"][..], arguments].concat();
        ctx.command(&argv).run().ok().stdout
    };
    let main = show(&["route", "show"]);
    assert!(main.contains("198.18.9.0/24 via 198.18.8.1 dev inside0 metric 77 onlink"), "{main}");
    assert!(main.contains("198.18.8.1 dev inside0 scope link src 198.18.7.7"), "{main}");
    assert_eq!(main.matches("198.18.7.0/24").count(), 1, "{main}");
    assert!(show(&["route", "show", "table", "1007"]).contains("198.18.10.0/24 via 198.18.7.1 dev inside0"));
    assert!(show(&["-6", "route", "show"]).contains("2001:db8:8::/64 via 2001:db8:7::1 dev inside0"));
    Pass
}

/// All ways through the device: the route is made again. Some of them through another one, or a route for a time: a warning.
fn routes_with_several_ways_are_kept_or_told(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know network devices");
    let (pair, other) = (pair!(ctx), pair!(ctx));
    let name = &pair.device;
    for arguments in [
        &["ip", "addr", "add", "198.18.27.7/24", "dev", name][..],
        &["ip", "-6", "addr", "add", "2001:db8:27::7/64", "dev", name, "nodad"],
        &["ip", "addr", "add", "198.18.28.7/24", "dev", &other.device],
        &["ip", "link", "set", name, "up"],
        &["ip", "link", "set", &pair.peer, "up"],
        &["ip", "link", "set", &other.device, "up"],
        &["ip", "link", "set", &other.peer, "up"],
    ] {
        ctx.command(arguments).run().ok();
    }
    for (destination, first, second, device) in [
        ("198.18.29.0/24", "198.18.27.1", "198.18.27.2", name),
        ("2001:db8:29::/64", "2001:db8:27::1", "2001:db8:27::2", name),
        ("198.18.30.0/24", "198.18.27.1", "198.18.28.1", &other.device),
    ] {
        let ways = ["nexthop", "via", first, "dev", name, "weight", "3", "nexthop", "via", second, "dev", device];
        ctx.command(&[&["ip", "route", "add", destination][..], &ways].concat()).run().ok();
    }
    ctx.command(&["ip", "route", "add", "local", "198.18.31.1/32", "dev", name]).run().ok();
    ctx.command(&["ip", "route", "add", "2001:db8:31::/64", "dev", name, "expires", "900"]).run().ok();
    let mut container = ctx.container(ctx.bundle(|c| c["linux"]["netDevices"] = json!({ name: { "name": "inside0" } })));
    let said = container.create().ok().stderr;
    for route in [
        "198.18.30.0/24 via 198.18.27.1 via 198.18.28.1, is not kept: it leads through other devices as well",
        "2001:db8:31::/64, is not kept: it is for a time only",
    ] {
        assert!(said.contains(&format!("a route of network device {name}, {route}")), "{said}");
    }
    assert_eq!(said.matches("is not kept").count(), 2, "{said}");
    let pid = container.pid().to_string();
    let show =
        |arguments: &[&str]| ctx.command(&[&["nsenter", "-t", &pid, "-n", "ip"][..], arguments].concat()).run().ok().stdout;
    let routes = show(&["route", "show", "table", "all"]) + &show(&["-6", "route", "show"]);
    for way in ["198.18.27.1 dev inside0 weight 3", "198.18.27.2 dev inside0 weight 1", "2001:db8:27::2 dev inside0 weight 1"] {
        assert!(routes.contains(&format!("nexthop via {way}")), "{way}: {routes}");
    }
    assert!(routes.contains("local 198.18.31.1 dev inside0"), "{routes}");
    Pass
}

/// Its address has an end, and is not kept.
fn a_route_without_its_gateway_is_a_warning(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know network devices");
    let pair = pair!(ctx);
    let name = &pair.device;
    for arguments in [
        &["ip", "addr", "add", "198.18.17.7/24", "dev", name, "valid_lft", "1000", "preferred_lft", "1000"][..],
        &["ip", "link", "set", name, "up"],
        &["ip", "route", "add", "198.18.19.0/24", "via", "198.18.17.1", "dev", name],
    ] {
        ctx.command(arguments).run().ok();
    }
    let output = ctx.run(|c| {
        c["process"]["args"] = json!(["/bin/true"]);
        c["linux"]["netDevices"] = json!({ name: {} });
    });
    let text = format!("a route of network device {name}, 198.18.19.0/24 via 198.18.17.1, is not kept");
    assert!(output.ok().stderr.contains(&text), "{text}");
    Pass
}

/// In every way in which a container comes to its network: made, joined, and joined with a user namespace.
fn a_sysctl_of_a_moved_device_finds_it(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know network devices");
    let maps = |c: &mut serde_json::Value| {
        let map = json!([config::id_map(0, 100_000, 65536)]);
        config::in_user_namespace(c, map.clone(), map);
        config::without_mount(c, "/sys/fs/cgroup");
    };
    let settings = |c: &mut serde_json::Value, device: &str| {
        config::shell(c, "cat /proc/sys/net/ipv4/conf/inside0/rp_filter");
        c["linux"]["netDevices"] = json!({ device: { "name": "inside0" } });
        c["linux"]["sysctl"] = json!({ "net.ipv4.conf.inside0.rp_filter": "2" });
    };
    let pair = pair!(ctx);
    assert_eq!(ctx.run(|c| settings(c, &pair.device)).ok().text(), "2");
    let pair = pair!(ctx);
    let owner = ctx.running(maps);
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", owner.pid());
    let output = ctx.run(|c| {
        maps(c);
        config::without_mount(c, "/sys");
        config::namespace(c, "user", Some(&path("user")));
        config::namespace(c, "network", Some(&path("net")));
        settings(c, &pair.device);
    });
    assert_eq!(output.ok().text(), "2");
    Pass
}

fn a_device_gets_another_name(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know network devices");
    let pair = pair!(ctx);
    let output = ctx.sh_with("ls /sys/class/net", |c| c["linux"]["netDevices"] = json!({ &pair.device: { "name": "inside0" } }));
    assert!(output.contains("inside0") && !output.contains(&pair.device), "{output}");
    Pass
}

fn a_template_finds_a_free_name(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know network devices");
    let (first, second) = (pair!(ctx), pair!(ctx));
    let output = ctx.sh_with("ls /sys/class/net; cat /sys/class/net/net?/operstate | wc -l", |c| {
        c["linux"]["netDevices"] = json!({ &first.device: { "name": "net%d" }, &second.device: { "name": "net%d" } });
    });
    let mut names: Vec<&str> = output.split_whitespace().filter(|name| name.starts_with("net")).collect();
    names.sort_unstable();
    assert_eq!(names, ["net0", "net1"], "{output}");
    Pass
}

fn a_joined_namespace_gets_it_too(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know network devices");
    let pair = pair!(ctx);
    let first = ctx.running(|_| {});
    let path = format!("/proc/{}/ns/net", first.pid());
    ctx.sh_with("true", |c| {
        config::namespace(c, "network", Some(&path));
        c["linux"]["netDevices"] = json!({ &pair.device: { "name": "inside0" } });
    });
    assert!(first.sh("ls /sys/class/net").contains("inside0"));
    let again = ctx.run(|c| {
        config::namespace(c, "network", Some(&path));
        c["linux"]["netDevices"] = json!({ &pair.peer: { "name": "inside0" } });
    });
    again.exits(1).refused("there is a network device \"inside0\" in the container already");
    Pass
}

fn a_user_namespace_gets_it_too(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know network devices");
    let pair = pair!(ctx);
    let output = ctx.sh_with("ls /sys/class/net", |c| {
        let map = json!([config::id_map(0, 100_000, 65536)]);
        config::in_user_namespace(c, map.clone(), map);
        c["linux"]["netDevices"] = json!({ &pair.device: { "name": "inside0" } });
    });
    assert!(output.contains("inside0"), "{output}");
    Pass
}

fn a_taken_name_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know network devices");
    let pair = pair!(ctx);
    ctx.run(|c| c["linux"]["netDevices"] = json!({ &pair.device: { "name": "lo" } }))
        .exits(1)
        .refused("there is a network device \"lo\" in the container already");
    assert!(ctx.command(&["ip", "link", "show", &pair.device]).run().code == 0, "the device has not moved");
    Pass
}

fn a_missing_device_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know network devices");
    ctx.run(|c| c["linux"]["netDevices"] = json!({ "nowhere0": {} })).exits(1).refused("no network device \"nowhere0\"");
    Pass
}

fn without_a_network_namespace_it_is_refused(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know network devices");
    ctx.run(|c| {
        config::without_namespace(c, "network");
        c["linux"]["netDevices"] = json!({ "lo": { "name": "x" } });
    })
    .exits(1)
    .refused("devices without a network namespace");
    Pass
}

fn a_user_may_not_move_devices(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "runc 1.1.5 does not know network devices");
    ctx.run(|c| c["linux"]["netDevices"] = json!({ "eth0": {} })).exits(1).refused("CAP_NET_ADMIN");
    Pass
}
