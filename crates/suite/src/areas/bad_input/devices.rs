//! Requests about netkit devices that the kernel must refuse, with its error message if there is one.

use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{AsErrno, Ctx, Stop},
    testbed::P0,
    variants,
};
use lab_netlink::NetlinkError;
use lab_protocol::{Capability, KernelVersion, LinkKind, capability::Since};
use lab_topology::{Family, NetkitOptions, Netns, PairRequest, Policy, Scrub, library, link};
use lab_traffic::Proto;
use nix::errno::Errno;
use std::os::fd::AsFd;

/// Attributes of `IFLA_INFO_DATA`, include/uapi/linux/if_link.h.
mod ifla_netkit {
    pub const PEER_INFO: u16 = 1;
    pub const PRIMARY: u16 = 2;
    pub const POLICY: u16 = 3;
    pub const PEER_POLICY: u16 = 4;
    pub const MODE: u16 = 5;
    pub const SCRUB: u16 = 6;
}

/// The version since which the attribute's policy checks the mode, with a different error than the driver's.
const MODE_BY_POLICY: Since = Since {
    mainline: KernelVersion::new(6, 13, 0),
    backports: &[],
    source: "netkit: Simplify netkit mode over to use NLA_POLICY_MAX",
};

/// Since when a change of the peer info is refused as one without permission; before, as one that is invalid.
const PEER_INFO_EACCES: Since = Since {
    mainline: KernelVersion::new(6, 16, 0),
    backports: &[],
    source: "measured: EINVAL on 6.12, EACCES on 6.16.3",
};
/// The versions behind the last one that was measured to be without it.
const AFTER_6_12: Since =
    Since { mainline: KernelVersion::new(6, 13, 0), backports: &[], source: "measured: EINVAL on 6.12.117" };

/// In the order in which they run.
pub const CASES: &[Case] = &[
    VALUES_OUT_OF_RANGE,
    ADDRESS_ON_L3,
    CHANGE_THROUGH_THE_PEER,
    CHANGE_WHAT_IS_FIXED,
    NEW_ADDRESS_WHILE_UP,
    BRIDGE_PORT,
    BROKEN_PEER_INFO,
];

fn raw(kind: u16, value: u32) -> NetkitOptions {
    NetkitOptions { raw: vec![(kind, value.to_ne_bytes().to_vec())], ..NetkitOptions::default() }
}

/// Checks an error and its message.
fn explained(ctx: &mut Ctx, name: &str, result: Result<(), NetlinkError>, errno: Errno, words: &str) {
    let extack = result.as_ref().err().and_then(NetlinkError::extack).unwrap_or_default().to_owned();
    if ctx.refused(name, result, errno) {
        ctx.check(
            format!("{name}: the kernel's error message"),
            extack.contains(words),
            format!("`{extack}`, expected `{words}`"),
        );
    }
}

/// Every device of the namespace; a fresh one has the fallback devices of tunnel modules.
fn devices(ns: &Netns) -> Result<Vec<String>, Stop> {
    Ok(link::list(ns)?.into_iter().map(|info| info.name).collect())
}

const VALUES_OUT_OF_RANGE: Case = Case::new(
    "N02",
    "values-out-of-range",
    "Mode 5, policy 7, scrub 9, the read-only primary attribute, a long name and the address of a group are refused, and no device remains.",
    values_out_of_range,
)
.over(variants::netkit_devices);
fn values_out_of_range(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const LONG: &str = "sixteen-letters!";
    let kind = variant.device();
    let ns = Netns::new("host")?;
    let before = devices(&ns)?;
    let policy = "Provided default xmit policy not supported";
    let mode = ctx.capabilities.has_change(&MODE_BY_POLICY).map(|by_policy| match by_policy {
        true => ("mode 5", raw(ifla_netkit::MODE, 5), Errno::ERANGE, "integer out of range"),
        false => ("mode 5", raw(ifla_netkit::MODE, 5), Errno::EINVAL, "Provided device mode can only be L2 or L3"),
    });
    // For a kernel whose probes decide, it is unknown which error it returns.
    let mut requests: Vec<_> = mode.into_iter().collect();
    requests.extend([
        ("policy 7", raw(ifla_netkit::POLICY, 7), Errno::EINVAL, policy),
        ("peer policy 7", raw(ifla_netkit::PEER_POLICY, 7), Errno::EINVAL, policy),
        ("the primary attribute", raw(ifla_netkit::PRIMARY, 1), Errno::EINVAL, "Primary attribute is read-only"),
    ]);
    if ctx.capabilities.has(Capability::NetkitScrub) {
        requests.push(("scrub 9", raw(ifla_netkit::SCRUB, 9), Errno::ERANGE, ""));
    }
    for (name, options, errno, words) in requests {
        let result = link::create_pair(&ns, &PairRequest::new(kind, "nk0", "nk1").netkit(options));
        explained(ctx, name, result, errno, words);
        ctx.equal(format!("{name}: remaining devices"), devices(&ns)?, before.clone());
    }
    for (name, primary, peer) in [("a long name", LONG, "nk1"), ("a long name for the peer", "nk0", LONG)] {
        let result = link::create_pair(&ns, &PairRequest::new(kind, primary, peer));
        ctx.refused(name, result, Errno::ERANGE);
        ctx.equal(format!("{name}: remaining devices"), devices(&ns)?, before.clone());
    }
    for (what, address) in [("of a group", [1, 0, 0x5e, 0, 0, 1]), ("of zeros", [0; 6])] {
        for (end, mac, peer_mac) in [("the primary", Some(address), None), ("the peer", None, Some(address))] {
            let name = format!("an address {what} for {end}");
            let result = link::create_pair(&ns, &PairRequest { mac, peer_mac, ..PairRequest::new(kind, "nk0", "nk1") });
            ctx.refused(&name, result, Errno::EADDRNOTAVAIL);
            ctx.equal(format!("{name}: remaining devices"), devices(&ns)?, before.clone());
        }
    }
    let made = link::create_pair(&ns, &PairRequest::new(kind, &LONG[..15], "nk1"));
    ctx.check("a valid pair is created", made.is_ok(), format!("{made:?}"));
    Ok(())
}

const ADDRESS_ON_L3: Case = Case::new(
    "N03",
    "address-on-l3",
    "An L3 netkit accepts no MAC address, neither at creation (either end) nor later; L2 accepts one in both cases.",
    address_on_l3,
)
.needs(&[Capability::Netkit]);
fn address_on_l3(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    for kind in [LinkKind::NetkitL2, LinkKind::NetkitL3] {
        let ns = Netns::new("host")?;
        for (name, mac, peer_mac) in [("the primary", Some(MAC), None), ("the peer", None, Some(MAC))] {
            let made = link::create_pair(&ns, &PairRequest { mac, peer_mac, ..PairRequest::new(kind, "nk0", "nk1") });
            let name = format!("{kind}: an address for {name} at creation");
            if kind.has_macs() {
                ctx.check(name, made.is_ok(), format!("{made:?}"));
                link::delete(&ns, "nk0")?;
            } else {
                ctx.refused(name, made, Errno::EOPNOTSUPP);
            }
        }
        link::create_pair(&ns, &PairRequest::new(kind, "nk0", "nk1"))?;
        for name in ["nk0", "nk1"] {
            let set = link::set_mac(&ns, name, MAC);
            let what = format!("{kind}: an address for {name} later");
            let wanted = if kind.has_macs() {
                ctx.check(what, set.is_ok(), format!("{set:?}"));
                MAC
            } else {
                ctx.refused(what, set, Errno::EOPNOTSUPP);
                [0; 6]
            };
            ctx.equal(format!("{kind}: the address of {name}"), link::info(&ns, name)?.mac, Some(wanted));
        }
    }
    Ok(())
}

const CHANGE_THROUGH_THE_PEER: Case = Case::new(
    "N04",
    "change-through-the-peer",
    "The peer can change no setting of the pair: EACCES with the reason, and the settings stay.",
    change_through_peer,
)
.on(library::PAIR)
.over(variants::netkit_devices);
fn change_through_peer(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let settings = || testbed.net.readback("host", P0.dev).map(|info| info.netkit);
    let before = settings()?;
    let blackhole = Some(Policy::Blackhole);
    for (name, options) in [
        ("policy", NetkitOptions { policy: blackhole, ..NetkitOptions::default() }),
        ("peer policy", NetkitOptions { peer_policy: blackhole, ..NetkitOptions::default() }),
        ("mode", raw(ifla_netkit::MODE, 0)),
    ] {
        let words = "netkit link settings can be changed only through the primary device";
        explained(ctx, name, link::change(testbed.net.ns("pod"), "eth0", &options), Errno::EACCES, words);
    }
    ctx.check("the settings are unchanged", settings()? == before, format!("{:?}", settings()?));
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    Ok(())
}

const CHANGE_WHAT_IS_FIXED: Case = Case::new(
    "N05",
    "change-what-is-fixed",
    "Mode, scrubbing and peer info can't change after creation: refused with the reason, and the settings stay.",
    change_what_is_fixed,
)
.on(library::PAIR)
.over(variants::netkit_devices);
fn change_what_is_fixed(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let settings = || testbed.net.readback("host", P0.dev).map(|info| info.netkit);
    let before = settings()?;
    let mut fixed = vec![("mode", raw(ifla_netkit::MODE, 0), "operating mode cannot be changed")];
    if ctx.capabilities.has(Capability::NetkitScrub) {
        let scrub = Some(Scrub::None);
        let words = "scrubbing cannot be changed";
        fixed.push(("scrub", NetkitOptions { scrub, ..NetkitOptions::default() }, words));
        fixed.push(("peer scrub", NetkitOptions { peer_scrub: scrub, ..NetkitOptions::default() }, words));
    }
    if ctx.capabilities.has(Capability::NetkitHeadroom) {
        let options = NetkitOptions { headroom: Some(64), ..NetkitOptions::default() };
        fixed.push(("headroom", options, "headroom cannot be changed"));
    }
    for (name, options, words) in fixed {
        explained(ctx, name, link::change(testbed.net.ns("host"), P0.dev, &options), Errno::EACCES, words);
    }
    // For versions between the two, which were not measured, and those that say nothing both are accepted.
    let wanted: &[Errno] =
        match (ctx.capabilities.has_change(&PEER_INFO_EACCES), ctx.capabilities.has_change(&AFTER_6_12)) {
            (Some(true), _) => &[Errno::EACCES],
            (Some(false), Some(false)) => &[Errno::EINVAL],
            _ => &[Errno::EINVAL, Errno::EACCES],
        };
    let peer_info = NetkitOptions { raw: vec![(ifla_netkit::PEER_INFO, vec![0; 16])], ..NetkitOptions::default() };
    let refused = link::change(testbed.net.ns("host"), P0.dev, &peer_info).err();
    let errno = refused.as_ref().and_then(AsErrno::errno);
    ctx.check("peer info is refused", errno.is_some_and(|errno| wanted.contains(&errno)), format!("{errno:?}"));
    let extack = refused.as_ref().and_then(NetlinkError::extack).unwrap_or_default();
    ctx.check("peer info: the kernel's error message", extack.contains("peer info cannot be changed"), extack);
    ctx.check("the settings are unchanged", settings()? == before, format!("{:?}", settings()?));
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    Ok(())
}

const NEW_ADDRESS_WHILE_UP: Case = Case::new(
    "N06",
    "new-address-while-up",
    "An L2 netkit accepts a new MAC address while it is up, and traffic continues once the other end has resolved it.",
    new_address_while_up,
)
.on(library::PAIR_RESOLVING)
.over(|| vec![Variant { device: Some(LinkKind::NetkitL2), ..Variant::default() }]);
fn new_address_while_up(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    // Neighbours are resolved dynamically here: a permanent entry would keep the old address.
    let testbed = ctx.testbed()?;
    testbed.passes(ctx, "pod", "host")?;
    link::set_mac(testbed.net.ns("pod"), "eth0", MAC)?;
    let info = testbed.net.readback("pod", "eth0")?;
    ctx.equal("the new address, and up", (info.mac, info.up), (Some(MAC), true));
    // The change drops the pod's own entries, and resolving again gives the node the new address.
    testbed.passes(ctx, "pod", "host")
}

const BRIDGE_PORT: Case = Case::new(
    "N07",
    "bridge-port",
    "A bridge accepts an L2 netkit as a port and refuses an L3 one with EINVAL.",
    bridge_port,
)
.over(variants::netkit_devices)
.needs(&[Capability::Bridge]);
fn bridge_port(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let ns = Netns::new("host")?;
    link::create_bridge(&ns, "br0")?;
    link::create_pair(&ns, &PairRequest::new(variant.device(), "nk0", "nk1"))?;
    let port = link::set_controller(&ns, "nk0", Some("br0"));
    if variant.device() == LinkKind::NetkitL2 {
        ctx.check("the bridge accepts it", port.is_ok(), format!("{port:?}"));
        let freed = link::set_controller(&ns, "nk0", None);
        ctx.check("the bridge releases it", freed.is_ok(), format!("{freed:?}"));
    } else {
        ctx.refused("the bridge refuses it", port, Errno::EINVAL);
    }
    Ok(())
}

const BROKEN_PEER_INFO: Case = Case::new(
    "N11",
    "broken-peer-info",
    "Truncated peer info, or peer info with a file that is not a namespace, is refused, and no device remains.",
    broken_peer_info,
)
.over(variants::netkit_devices);
fn broken_peer_info(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let kind = variant.device();
    let ns = Netns::new("host")?;
    let before = devices(&ns)?;
    let no_namespace = std::fs::File::open("/proc/self/exe")?;
    let cut = NetkitOptions { raw: vec![(ifla_netkit::PEER_INFO, vec![0; 3])], ..NetkitOptions::default() };
    let mut cut_short = PairRequest::new(kind, "nk0", "nk1").netkit(cut);
    cut_short.without_peer_info = true;
    let elsewhere = PairRequest { peer_netns: Some(no_namespace.as_fd()), ..PairRequest::new(kind, "nk0", "nk1") };
    for (name, request, errno) in [
        ("peer info of three bytes", cut_short, Errno::ERANGE),
        ("a file that is not a namespace", elsewhere, Errno::EINVAL),
    ] {
        ctx.refused(name, link::create_pair(&ns, &request), errno);
        ctx.equal(format!("{name}: remaining devices"), devices(&ns)?, before.clone());
    }
    let same = link::create_pair(&ns, &PairRequest::new(kind, "nk0", "nk0"));
    ctx.refused("one name for both ends", same, Errno::EEXIST);
    ctx.equal("one name for both ends: remaining devices", devices(&ns)?, before.clone());
    let made = link::create_pair(&ns, &PairRequest::new(kind, "nk0", "nk1"));
    ctx.check("a valid pair is created", made.is_ok(), format!("{made:?}"));
    Ok(())
}
