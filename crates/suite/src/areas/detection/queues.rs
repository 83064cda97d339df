//! Receive queues of netkit devices, which can be leased from another device ("net: Add queue-create operation").
//!
//! Leasing a queue needs a device with hardware queues, or netdevsim, which no Debian kernel includes. Without it one can only test
//! which devices the kernel accepts as borrower, and that it then checks the lender.

use super::probes::as_released;
use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    probe::VIRTUAL_GIVER,
};
use lab_netlink::NetlinkError;
use lab_protocol::{Capability, KernelVersion, capability::Since};
use lab_topology::{
    LinkKind, NetkitOptions, Netns, PairRequest, link,
    netdevsim::{self, SimulatedDevice},
    queue,
};
use nix::errno::Errno;
use std::collections::BTreeSet;

/// The loopback device of every namespace.
const LOOPBACK: u32 = 1;
/// The error of `netdev_can_create_queue()` for a driver without `ndo_queue_create`.
const NO_TAKER: &str = "Device does not support queue creation";
/// The error of `netkit_queue_create()` for the primary of a pair.
const ONLY_PEERS: &str = "netkit can only lease against the peer device";
/// The version since which queues can be listed at all; before, the command is refused.
const QUEUE_GET: Since = Since {
    mainline: KernelVersion::new(6, 8, 0),
    backports: &[],
    source: "netdev-genl: Add netlink framework functions for queue",
};

/// In the order in which they run.
pub const CASES: &[Case] = &[QUEUE_LEASE_TAKERS, SPARE_RECEIVE_QUEUES];

fn refusal(result: Result<u32, NetlinkError>) -> (Option<Errno>, Option<String>) {
    match result {
        Ok(_) => (None, None),
        Err(error) => (error.errno().map(Errno::from_raw), error.extack().map(str::to_owned)),
    }
}

const QUEUE_LEASE_TAKERS: Case = Case::new(
    "D14",
    "queue-lease-takers",
    "Depending on the release, a netkit peer or single device can lease a queue; no other virtual device can, and only netdevsim lends one.",
    takers,
)
.needs(&[Capability::Netkit]);
fn takers(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    /// An index without a device.
    const NOBODY: u32 = 9_999;
    let leasable = as_released(ctx, Capability::NetkitQueueLease);
    let ns = Netns::new("takers")?;
    link::create_pair(&ns, &PairRequest { rx_queues: Some(2), ..PairRequest::new(LinkKind::NetkitL2, "nk0", "nk1") })?;
    if !leasable {
        for name in ["nk0", "nk1"] {
            let taker = link::info(&ns, name)?.ifindex;
            // The command does not exist, so neither borrower nor lender is checked.
            for giver in [LOOPBACK, taker, NOBODY] {
                let refused = queue::lease(&ns, taker, giver, 0);
                ctx.refused(format!("{name} from index {giver}"), refused, Errno::EOPNOTSUPP);
            }
        }
        return Ok(());
    }
    let options = NetkitOptions { single: Some(true), ..NetkitOptions::default() };
    let mut single = PairRequest::new(LinkKind::NetkitL2, "alone", "").netkit(options);
    single.without_peer_info = true;
    single.rx_queues = Some(2);
    link::create_pair(&ns, &single)?;
    let index = |name| link::info(&ns, name).map(|info| info.ifindex);
    let because = |errno, why: &str| (Some(errno), Some(why.to_owned()));
    for taker in ["nk0", "nk1", "alone"] {
        let answer = refusal(queue::lease(&ns, index(taker)?, LOOPBACK, 0));
        ctx.equal(format!("{taker} from the loopback device"), answer, because(Errno::EINVAL, VIRTUAL_GIVER));
        let answer = refusal(queue::lease(&ns, index(taker)?, index("alone")?, 0));
        ctx.equal(format!("{taker} from a netkit device"), answer, because(Errno::EINVAL, VIRTUAL_GIVER));
        let (errno, _) = refusal(queue::lease(&ns, index(taker)?, NOBODY, 0));
        ctx.equal(format!("{taker} from an index without a device"), errno, Some(Errno::ENODEV));
    }
    let answer = refusal(queue::lease(&ns, LOOPBACK, index("nk0")?, 0));
    ctx.equal("the loopback device as the borrower", answer, because(Errno::EINVAL, NO_TAKER));
    let (errno, _) = refusal(queue::lease(&ns, NOBODY, LOOPBACK, 0));
    ctx.equal("an index without a device as the borrower", errno, Some(Errno::ENODEV));
    for name in ["nk0", "nk1", "alone"] {
        link::set_up(&ns, name)?;
        ctx.equal(format!("{name}: receive queues afterwards"), queue::receive_queues(&ns, index(name)?)?, vec![0]);
    }
    if netdevsim::is_there() { granted(ctx, &ns) } else { Ok(()) }
}

/// What a device with queues lends, and what becomes of the borrower when that device goes.
fn granted(ctx: &mut Ctx, ns: &Netns) -> CaseResult {
    const LENT: u32 = 1;
    let before: BTreeSet<u32> = link::list(ns)?.into_iter().map(|device| device.ifindex).collect();
    let simulated =
        SimulatedDevice::new(ns, LENT + 1).map_err(|error| Stop::check(format!("a netdevsim device: {error}")))?;
    let appeared = ctx.wait_until(2_000, || Ok(simulated.port(ns, &before)?.is_some()))?;
    let giver = simulated.port(ns, &before)?.filter(|_| appeared);
    let giver = giver.ok_or_else(|| Stop::check("the port of the netdevsim device does not appear"))?;
    link::set_up(ns, &giver.name)?;
    let index = |name: &str| link::info(ns, name).map(|info| info.ifindex);
    let lease = |taker: &str| Ok::<_, NetlinkError>(refusal(queue::lease(ns, index(taker)?, giver.ifindex, LENT)));
    ctx.equal("the primary from netdevsim", lease("nk0")?, (Some(Errno::EOPNOTSUPP), Some(ONLY_PEERS.to_owned())));
    ctx.equal("the peer from netdevsim", lease("nk1")?, (None, None));
    ctx.equal("receive queues of the peer with a lease", queue::receive_queues(ns, index("nk1")?)?, vec![0, LENT]);
    ctx.equal("a single device: the queue that the peer has", lease("alone")?.0, Some(Errno::EBUSY));
    link::delete(ns, "nk0")?;
    ctx.equal("a single device: the same queue after the pair was deleted", lease("alone")?, (None, None));
    simulated.delete().map_err(|error| Stop::check(format!("deleting the netdevsim device: {error}")))?;
    // netkit_check_lease_unregister() takes the borrower along.
    let gone = ctx.wait_until(2_000, || Ok(link::list(ns)?.iter().all(|device| device.name != "alone")))?;
    ctx.check("a borrower goes with the device that lends it a queue", gone, gone);
    Ok(())
}

const SPARE_RECEIVE_QUEUES: Case = Case::new(
    "D14",
    "spare-receive-queues",
    "Queues that a netkit device is created with work on kernels without queue leasing, and need a lease on later ones.",
    spare_queues,
)
.needs(&[Capability::Netkit]);
fn spare_queues(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const QUEUES: u32 = 3;
    let ns = Netns::new("spare")?;
    link::create_pair(
        &ns,
        &PairRequest { rx_queues: Some(QUEUES), ..PairRequest::new(LinkKind::NetkitL3, "nk0", "nk1") },
    )?;
    for name in ["nk0", "nk1"] {
        link::set_up(&ns, name)?;
    }
    let ifindex = link::info(&ns, "nk0")?.ifindex;
    let working = queue::receive_queues(&ns, ifindex);
    let listable = ctx.capabilities.has_change(&QUEUE_GET).unwrap_or(working.is_ok());
    if !listable {
        let refused = working.map(drop);
        ctx.refused("queue-get on a kernel without it", refused, Errno::EOPNOTSUPP);
        return Ok(());
    }
    let leasable = ctx.capabilities.has(Capability::NetkitQueueLease);
    let wanted: Vec<u32> = if leasable { vec![0] } else { (0..QUEUES).collect() };
    ctx.equal("usable queues of a device that was created with three", working?, wanted);
    Ok(())
}
