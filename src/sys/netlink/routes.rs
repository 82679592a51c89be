//! The routes through a device (rtnetlink(7)): read before it moves, made again where it is then.

use std::fmt;
use std::net::IpAddr;

use super::{Answer, Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, RouteSocket, attributes, u16_at, u32_at};
use crate::sys::CallResult;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_VIA: u16 = 18;
/// Attributes of a route that belong to it wherever it is: RTA_DST, RTA_SRC, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS,
/// RTA_FLOW, RTA_TABLE, RTA_VIA, RTA_PREF, RTA_ENCAP_TYPE, RTA_ENCAP, RTA_TTL_PROPAGATE.
const KEPT: [u16; 13] = [RTA_DST, 2, RTA_GATEWAY, 6, 7, 8, 11, 15, RTA_VIA, 20, 21, 22, 26];
/// Who made a route (linux/rtnetlink.h): a redirect, the kernel itself, a router's advertisement. The kernel learns these anew.
const LEARNT: [u8; 3] = [1, 2, 9];
/// `RTM_F_CLONED`: an entry of a cache.
const CLONED: u32 = 0x200;
/// `RTNH_F_ONLINK`.
const ONLINK: u8 = 4;
/// `struct rtmsg` and `struct rtnexthop`.
const HEADER: usize = 12;
const HOP_HEADER: usize = 8;

/// A route through a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Family, length of the destination, of the source, tos, table, protocol, scope and type.
    header: [u8; 8],
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
    /// The next hops of a route that has several.
    hops: Vec<Hop>,
    /// Why it cannot be made again.
    lost: Option<&'static str>,
}

/// One way of a route that has several.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hop {
    device: u32,
    flags: u8,
    /// Its weight less 1.
    weight: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Hop {
    /// The list in an `RTA_MULTIPATH` attribute; what does not fit ends it.
    fn list(mut bytes: &[u8]) -> Vec<Self> {
        let mut list = Vec::new();
        while let Some(len) = u16_at(bytes, 0).map(usize::from) {
            let (Some(rest), Some(device)) = (bytes.get(HOP_HEADER..len), u32_at(bytes, 4)) else { break };
            list.push(Self { device, flags: bytes[2] & ONLINK, weight: bytes[3], attributes: kept(rest) });
            bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        list
    }

    /// The same through this device, as bytes; nothing if its length does not fit.
    fn through(&self, device: i32) -> Option<Vec<u8>> {
        let mut rest = Vec::new();
        for (kind, value) in &self.attributes {
            rest.extend(u16::try_from(value.len() + 4).ok()?.to_ne_bytes());
            rest.extend(kind.to_ne_bytes());
            rest.extend(value);
            rest.resize(rest.len().next_multiple_of(4), 0);
        }
        let len = u16::try_from(HOP_HEADER + rest.len()).ok()?;
        Some([&len.to_ne_bytes()[..], &[self.flags, self.weight], &device.to_ne_bytes(), &rest].concat())
    }
}

fn kept(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    attributes(bytes).into_iter().filter(|(kind, _)| KEPT.contains(kind)).collect()
}

fn find(list: &[(u16, Vec<u8>)], kind: u16) -> Option<&[u8]> {
    list.iter().find(|(found, _)| *found == kind).map(|(_, value)| value.as_slice())
}

impl Route {
    /// The route in an `RTM_NEWROUTE` message, if somebody has made it and it goes through this device.
    fn parse(answer: &Answer, device: i32) -> Option<Self> {
        let header: [u8; 8] = answer.body.get(..8)?.try_into().ok()?;
        let flags = u32_at(&answer.body, 8)?;
        let rest = answer.body.get(HEADER..)?;
        let all = attributes(rest);
        let number = |kind, at| find(&all, kind).and_then(|value| u32_at(value, at));
        let hops = find(&all, RTA_MULTIPATH).map(Hop::list).unwrap_or_default();
        let is_here = |number: u32| number == device.cast_unsigned();
        let [family, _, _, _, _, protocol, _, _] = header;
        let wanted = matches!(i32::from(family), libc::AF_INET | libc::AF_INET6)
            && flags & CLONED == 0
            && !LEARNT.contains(&protocol)
            && (number(RTA_OIF, 0).is_some_and(is_here) || hops.iter().any(|hop| is_here(hop.device)));
        // `rta_expires` of struct rta_cacheinfo.
        let ends = number(RTA_CACHEINFO, 8).is_some_and(|ticks| ticks != 0);
        let elsewhere = hops.iter().any(|hop| !is_here(hop.device));
        let lost = match (elsewhere, ends) {
            (true, _) => Some("it leads through other devices as well"),
            (false, true) => Some("it is for a time only"),
            (false, false) => None,
        };
        wanted.then(|| Self { header, flags: flags & u32::from(ONLINK), attributes: kept(rest), hops, lost })
    }

    /// Why it cannot be made again where its device is then, if it cannot.
    pub fn lost(&self) -> Option<&'static str> {
        self.lost
    }

    fn has_gateway(&self) -> bool {
        !self.hops.is_empty() || find(&self.attributes, RTA_GATEWAY).or(find(&self.attributes, RTA_VIA)).is_some()
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |value: &[u8]| match (<[u8; 4]>::try_from(value), <[u8; 16]>::try_from(value)) {
            (Ok(v4), _) => IpAddr::from(v4).to_string(),
            (_, Ok(v6)) => IpAddr::from(v6).to_string(),
            _ => "an unknown address".to_owned(),
        };
        match find(&self.attributes, RTA_DST) {
            Some(destination) => write!(f, "{}/{}", address(destination), self.header[1])?,
            None => f.write_str("default")?,
        }
        let hops = self.hops.iter().map(|hop| &hop.attributes);
        let mut gateways = hops.chain([&self.attributes]).filter_map(|attributes| find(attributes, RTA_GATEWAY));
        gateways.try_for_each(|gateway| write!(f, " via {}", address(gateway)))
    }
}

impl RouteSocket {
    /// The routes through a device that were not made by the kernel, those without a gateway first: the way to a gateway may be one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes(&self, device: i32) -> CallResult<Vec<Route>> {
        let request = Message::new(RTM_GETROUTE, NLM_F_DUMP, &[0; HEADER], "RTM_GETROUTE, all");
        let answers = self.call(request)?;
        let routes = answers.iter().filter(|answer| answer.kind == RTM_NEWROUTE);
        let mut routes: Vec<Route> = routes.filter_map(|answer| Route::parse(answer, device)).collect();
        routes.sort_by_key(Route::has_gateway);
        Ok(routes)
    }

    /// Adds a route through a device.
    ///
    /// # Errors
    /// The kernel's; `ENETUNREACH` if its gateway cannot be reached.
    pub fn add_route(&self, device: i32, route: &Route) -> CallResult<()> {
        let body = [&route.header[..], &route.flags.to_ne_bytes()].concat();
        let what = format!("RTM_NEWROUTE, {device}, {route}");
        let mut request = Message::new(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body, what);
        if route.hops.is_empty() {
            request = request.attribute(RTA_OIF, &device.to_ne_bytes())?;
        } else {
            let hops: Option<Vec<_>> = route.hops.iter().map(|hop| hop.through(device)).collect();
            let hops = hops.ok_or_else(|| request.error(libc::EMSGSIZE))?;
            request = request.attribute(RTA_MULTIPATH, &hops.concat())?;
        }
        for (kind, value) in &route.attributes {
            request = request.attribute(*kind, value)?;
        }
        self.call(request).map(drop)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn hops_come_back_through_another_device() {
        let hop = Hop { device: 7, flags: 0, weight: 2, attributes: vec![(RTA_GATEWAY, vec![192, 0, 2, 1])] };
        let bytes = [hop.through(7).unwrap(), hop.through(9).unwrap()].concat();
        assert_eq!(Hop::list(&bytes), [hop.clone(), Hop { device: 9, ..hop }]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_not_believed() {
        assert_eq!(Hop::list(&[7, 0, 0, 0, 1, 0, 0, 0]), []);
        assert_eq!(Hop::list(&[0, 0, 0, 0, 1, 0, 0, 0]), []);
        assert_eq!(Hop::list(&[255, 0, 0, 0, 1, 0, 0, 0]), []);
        assert_eq!(Hop::list(&[8, 0]), []);
    }
}
