//! What rtnetlink announces of both ends of a pair, which is how managers of networks know of them.

use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    variants,
};
use lab_topology::{Announced, DeviceNews, NetkitOptions, Netns, PairRequest, Policy, library, link};
use std::{cell::RefCell, collections::BTreeMap};

/// In the order in which they run.
pub const CASES: &[Case] = &[ANNOUNCED];

/// A namespace, and what it was told of its devices.
struct Listener<'a> {
    ns: &'a Netns,
    news: DeviceNews,
    /// The last announcement of each device.
    known: RefCell<BTreeMap<String, Announced>>,
}

impl<'a> Listener<'a> {
    fn of(ns: &'a Netns) -> Result<Self, Stop> {
        Ok(Self { ns, news: DeviceNews::of(ns)?, known: RefCell::default() })
    }

    /// The last announcement of a device.
    fn last(&self, dev: &str) -> Result<Option<Announced>, Stop> {
        let mut known = self.known.borrow_mut();
        known.extend(self.news.take()?.into_iter().map(|announced| (announced.name().to_owned(), announced)));
        Ok(known.get(dev).cloned())
    }

    /// Checks that the last announcement of a device says what the kernel lists. For a device that is up, the state of its carrier
    /// follows later.
    fn told(&self, ctx: &mut Ctx, when: &str, dev: &str) -> Result<(), Stop> {
        let (mut last, mut listed) = (None, None);
        let told = ctx.wait_until(2_000, || {
            last = self.last(dev)?;
            listed = Some(Announced::Here(link::info(self.ns, dev)?));
            Ok(last == listed)
        })?;
        let shown = if told { "as listed".to_owned() } else { format!("{last:?}, listed is {listed:?}") };
        ctx.check(format!("{when}: what is announced of {dev}"), told, shown);
        Ok(())
    }

    /// Checks that the last announcement of a device says that it is gone.
    fn misses(&self, ctx: &mut Ctx, when: &str, gone: Announced) -> Result<(), Stop> {
        let name = format!("{when}: what is announced of {}", gone.name());
        ctx.equal(name, self.last(gone.name())?, Some(gone));
        Ok(())
    }

    /// Moves a device of its namespace to another one, and checks what both are told.
    fn moves(&self, ctx: &mut Ctx, when: &str, dev: &str, to: &Self) -> Result<(), Stop> {
        let before = link::info(self.ns, dev)?.ifindex;
        link::move_to(self.ns, dev, to.ns)?;
        let after = link::info(to.ns, dev)?.ifindex.cast_signed();
        let moved = link::netnsid(self.ns, to.ns)?.map(|number| (number, after));
        self.misses(
            ctx,
            &format!("{when}, where it was"),
            Announced::Gone { name: dev.to_owned(), ifindex: before, moved },
        )?;
        to.told(ctx, &format!("{when}, where it is"), dev)
    }
}

const ANNOUNCED: Case = Case::new(
    "G24",
    "announced",
    "What happens to the ends of a pair is announced where they are (RTNLGRP_LINK): creation, MTU, MAC address, name, moves, up and \
     down, carrier, policy, deletion.",
    announced,
)
.on(library::SOLO)
.over(variants::devices);
fn announced(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const MTU: u32 = 1_400;
    const MAC: [u8; 6] = [0x02, 0x4e, 0x4b, 9, 9, 9];
    let kind = variant.device();
    let testbed = ctx.testbed()?;
    let away = Netns::new("pod")?;
    let (host, pod) = (Listener::of(testbed.net.ns("host"))?, Listener::of(&away)?);
    // The node has that index already, so that the peer gets another one when it is moved there.
    let (ifindex, taken) = (Some(300), Some(testbed.net.ifindex("host", "dummy0")));
    let request = PairRequest::new(kind, "p0", "eth0");
    link::create_pair(
        host.ns,
        &PairRequest { ifindex, peer_ifindex: taken, peer_netns: Some(pod.ns.fd()), ..request },
    )?;
    host.told(ctx, "new", "p0")?;
    // The peer is announced before there is a primary whose index it could tell.
    let own = |announced: Option<Announced>| match announced {
        Some(Announced::Here(info)) => Some((info.ifindex, info.kind, info.mtu, info.mac, info.up)),
        _ => None,
    };
    let (seen, listed) = (pod.last("eth0")?, link::info(pod.ns, "eth0")?);
    ctx.equal("new: what is announced of eth0", own(seen), own(Some(Announced::Here(listed))));

    // A device that is down is not announced by anything else, such as its carrier (linkwatch_do_dev()).
    link::set_mtu(pod.ns, "eth0", MTU)?;
    pod.told(ctx, "MTU", "eth0")?;
    if kind.has_macs() {
        link::set_mac(pod.ns, "eth0", MAC)?;
        pod.told(ctx, "MAC address", "eth0")?;
    }
    link::rename(pod.ns, "eth0", "uplink0")?;
    pod.told(ctx, "name", "uplink0")?;
    pod.moves(ctx, "moved", "uplink0", &host)?;
    host.moves(ctx, "moved back", "uplink0", &pod)?;

    link::set_up(host.ns, "p0")?;
    host.told(ctx, "up", "p0")?;
    link::set_up(pod.ns, "uplink0")?;
    pod.told(ctx, "up", "uplink0")?;
    carriers(ctx, "both up", [(&host, "p0"), (&pod, "uplink0")], true)?;
    if kind.is_netkit() {
        let policy = NetkitOptions { policy: Some(Policy::Blackhole), ..NetkitOptions::default() };
        link::change(host.ns, "p0", &policy)?;
        host.told(ctx, "policy", "p0")?;
    }
    link::set_down(pod.ns, "uplink0")?;
    pod.told(ctx, "down", "uplink0")?;
    carriers(ctx, "the other end down", [(&host, "p0")], false)?;

    let gone = |info: lab_topology::DeviceInfo| Announced::Gone { name: info.name, ifindex: info.ifindex, moved: None };
    let both = [gone(link::info(host.ns, "p0")?), gone(link::info(pod.ns, "uplink0")?)];
    link::delete(host.ns, "p0")?;
    for (at, gone) in [&host, &pod].into_iter().zip(both) {
        at.misses(ctx, "deleted", gone)?;
    }
    Ok(())
}

/// Waits until the state of each end's carrier is announced.
fn carriers<const N: usize>(
    ctx: &mut Ctx,
    when: &str,
    ends: [(&Listener<'_>, &str); N],
    carries: bool,
) -> Result<(), Stop> {
    ctx.becomes(format!("{when}: the carriers that are announced"), vec![Some(carries); N], || {
        let told = |(at, dev): &(&Listener<'_>, &str)| match at.last(dev)? {
            Some(Announced::Here(info)) => Ok(Some(info.carries)),
            _ => Ok(None),
        };
        ends.iter().map(told).collect()
    })?;
    Ok(())
}
