//! The probes: every capability is tested with temporary devices and read back, never derived from the version.
//! Older kernels silently accept unknown netkit attributes, so a successful request is not sufficient; only the values
//! that `RTM_GETLINK` reports afterwards count.

use crate::{ctx::AsErrno, stranger};
use lab_bpf::{TcOptions, raw};
use lab_protocol::{Capability, CapabilityReport, CapabilityState, KernelVersion};
use lab_topology::{
    DeviceInfo, LinkKind, NetkitInfo, NetkitOptions, Netns, PairRequest, Scrub, Tap, link,
    model::{DeviceSpec, Nat, Tunnel},
    queue,
};
use lab_traffic::{Capture, Packet, UdpProbe};
use nix::errno::Errno;
use std::sync::OnceLock;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Index of `lo` in every namespace.
const LOOPBACK: u32 = 1;
/// Names of the devices that the probes create.
pub const DEVICES: (&str, &str) = ("probe0", "probe1");
/// Table of the VRF, and network identifier of the VXLAN device; any number works.
const TABLE: u32 = 77;
/// Requested headroom, bytes; not the default, so that the value read back is significant.
const HEADROOM: u16 = 64;
/// Nobody answers there (discard).
const PORT: u16 = 9;

/// The error of `netdev_can_lease_queue()` for a device without hardware.
pub const VIRTUAL_GIVER: &str = "Lease device is a virtual device";

/// Result of a probe. The error contains the errno or the value read back.
type Finding = Result<String, Missing>;

/// The capability is missing.
struct Missing {
    /// Set if the errno itself shows that the driver or module is missing.
    absent: bool,
    detail: String,
}

impl<E: AsErrno + fmt::Display> From<E> for Missing {
    fn from(error: E) -> Self {
        // EOPNOTSUPP "Unknown device type", ENOENT "TC classifier not found": the name is not registered.
        let absent = matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::ENOENT));
        Self { absent, detail: error.to_string() }
    }
}

fn missing(detail: impl Into<String>) -> Missing {
    Missing { absent: false, detail: detail.into() }
}

/// Uses each capability once in a namespace of its own and reads the result back. The version decides only what a
/// refusal is called: too old, or built without.
pub fn all(kernel: KernelVersion) -> Vec<CapabilityReport> {
    Capability::ALL
        .into_iter()
        .map(|capability| report(kernel, capability, scratch(|ns| probe(capability, ns))))
        .collect()
}

fn probe(capability: Capability, ns: &Netns) -> Finding {
    match capability {
        Capability::Veth => {
            link::create_pair(ns, &PairRequest::new(LinkKind::Veth, DEVICES.0, DEVICES.1))?;
            Ok("RTM_NEWLINK veth".into())
        }
        Capability::Dummy => {
            link::create_dummy(ns, DEVICES.0)?;
            Ok("RTM_NEWLINK dummy".into())
        }
        Capability::Bridge => device(ns, "bridge", &DeviceSpec::Bridge),
        Capability::Vrf => device(ns, "vrf", &DeviceSpec::Vrf { table: TABLE }),
        Capability::Vxlan => device(ns, "vxlan", &DeviceSpec::Vxlan { id: TABLE, tunnel: tunnel(Ipv4Addr::LOCALHOST) }),
        Capability::Ipip => device(ns, "ipip", &DeviceSpec::IpTunnel { tunnel: tunnel(Ipv4Addr::LOCALHOST) }),
        Capability::Ip6Tnl => device(ns, "ip6tnl", &DeviceSpec::IpTunnel { tunnel: tunnel(Ipv6Addr::LOCALHOST) }),
        Capability::Tun => match Tap::open(ns, DEVICES.0) {
            Ok(_tap) => Ok("/dev/net/tun, TUNSETIFF".into()),
            // No driver has the device number, or the device node does not exist.
            Err(error) => Err(Missing { absent: true, detail: error.to_string() }),
        },
        Capability::Ipv6 => ns.run(ipv6),
        Capability::BpfJit => bpf_jit(),
        Capability::UserNs => stranger::possible().map_err(|error| Missing { absent: true, detail: error.to_string() }),
        Capability::NftNat => nft_nat(ns),
        Capability::Clsact => clsact(ns),
        Capability::Mirred => mirred(ns),
        Capability::UdpGso => udp_gso(ns),
        Capability::CheckMtu => answer(lab_bpf::probe::check_mtu()),
        Capability::BigTcp => big_tcp(ns),
        Capability::Tcx => answer(ns.run(|| lab_bpf::probe::tcx(LOOPBACK))),
        Capability::Netkit => netkit(ns),
        Capability::ProgArrayStrict => answer(lab_bpf::probe::prog_array_strict()),
        Capability::NetkitScrub => {
            let options = NetkitOptions { scrub: Some(Scrub::None), ..NetkitOptions::default() };
            read_back(ns, &netkit_request(options), "IFLA_NETKIT_SCRUB", |netkit| netkit.scrub.is_some())
        }
        Capability::NetkitHeadroom => {
            let options = NetkitOptions { headroom: Some(HEADROOM), ..NetkitOptions::default() };
            read_back(ns, &netkit_request(options), "IFLA_NETKIT_HEADROOM", |netkit| netkit.headroom == Some(HEADROOM))
        }
        Capability::NetkitQueueLease => queue_lease(ns),
        Capability::RedirectPeerEgress => answer(lab_bpf::probe::redirect_peer_egress()),
        Capability::NetkitSingle => {
            let options = NetkitOptions { single: Some(true), ..NetkitOptions::default() };
            // netkit_new_link rejects attributes of a peer for a single device; if an older kernel creates a pair
            // anyway, the template lets it name both ends.
            let request = PairRequest { name: "probe%d".into(), without_peer_info: true, ..netkit_request(options) };
            read_back(ns, &request, "IFLA_NETKIT_PAIRING", |netkit| netkit.single == Some(true))
        }
    }
}

fn answer(answer: Result<lab_bpf::probe::ProbeResult, lab_bpf::BpfError>) -> Finding {
    let answer = answer?;
    if answer.supported { Ok(answer.detail) } else { Err(missing(answer.detail)) }
}

fn device(ns: &Netns, kind: &str, spec: &DeviceSpec) -> Finding {
    link::create_device(ns, DEVICES.0, spec)?;
    Ok(format!("RTM_NEWLINK {kind}"))
}

/// From the loopback device to an unused address.
fn tunnel(local: impl Into<IpAddr>) -> Tunnel {
    let local = local.into();
    let remote = match local {
        IpAddr::V4(_) => IpAddr::from([198, 51, 100, 1]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    };
    Tunnel { over: "lo".into(), local, remote }
}

/// The protocol may be missing (`CONFIG_IPV6`, `ipv6.disable=1`) or disabled on devices (`ipv6.disable_ipv6=1`).
fn ipv6() -> Finding {
    const SETTING: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    match std::fs::read_to_string(SETTING) {
        Ok(value) if value.trim() == "0" => Ok(format!("{SETTING} is 0")),
        Ok(value) => Err(Missing { absent: true, detail: format!("{SETTING} is {}", value.trim()) }),
        Err(error) => Err(Missing { absent: true, detail: format!("{SETTING}: {error}") }),
    }
}

/// There is no such setting where the kernel was built without the compiler, and 0 is the interpreter.
fn bpf_jit() -> Finding {
    const SETTING: &str = "/proc/sys/net/core/bpf_jit_enable";
    // Only the first namespace has the setting (net_core_table in net/core/sysctl_net_core.c); the first probe runs there.
    static READ: OnceLock<Result<String, String>> = OnceLock::new();
    let read = || std::fs::read_to_string(SETTING).map_err(|error| error.to_string());
    match READ.get_or_init(read) {
        Ok(value) if value.trim() != "0" => Ok(format!("{SETTING} is {}", value.trim())),
        Ok(_) => Err(Missing { absent: true, detail: format!("{SETTING} is 0") }),
        Err(error) => Err(Missing { absent: true, detail: format!("{SETTING}: {error}") }),
    }
}

/// One rule of each kind that the topologies use.
fn nft_nat(ns: &Netns) -> Finding {
    let (node, address) = (String::new(), IpAddr::from([198, 51, 100, 1]));
    let rules = [
        Nat::Masquerade { node: node.clone(), out: "lo".into() },
        Nat::Dnat { node, from: address, from_port: PORT, to: address, to_port: PORT },
    ];
    match lab_topology::translate(ns, rules.iter()) {
        Ok(()) => Ok("masquerade and dnat".into()),
        // Without nfnetlink, without nf_tables, and without a kind of chain or expression.
        Err(error) => {
            let errno = error.errno().map(Errno::from_raw);
            let absent = matches!(errno, Some(Errno::EPROTONOSUPPORT | Errno::EINVAL | Errno::ENOENT));
            Err(Missing { absent, detail: error.to_string() })
        }
    }
}

/// Sends two segments in one buffer over the loopback device: a kernel without segmentation of UDP in software cuts them
/// before the device, and a capture sees two packets.
fn udp_gso(ns: &Netns) -> Finding {
    const SEGMENT: u16 = 64;
    link::set_up(ns, "lo")?;
    let mut capture = Capture::start(ns)?;
    let sender = UdpProbe::connect(ns, SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)))?;
    sender.send_segments(&[0; SEGMENT as usize * 2], SEGMENT)?;
    let is_sent = |packet: &&Packet| packet.is_outgoing() && packet.length > u32::from(SEGMENT);
    let sent: Vec<u32> = capture.packets()?.iter().filter(is_sent).map(|packet| packet.length).collect();
    let detail = format!("two segments of {SEGMENT} bytes left as packets of {sent:?} bytes");
    let whole = sent.first().is_some_and(|length| *length > u32::from(SEGMENT) * 2);
    if whole { Ok(detail) } else { Err(missing(detail)) }
}

/// Raises the limit of the loopback device, which every kernel has.
fn big_tcp(ns: &Netns) -> Finding {
    const LIMIT: u32 = 128 << 10;
    link::set_gso_max_size(ns, "lo", LIMIT)?;
    let [limit, _] = link::gso_max_sizes(ns, "lo")?;
    let detail = format!("IFLA_GSO_MAX_SIZE of {LIMIT} reads back as {limit:?}");
    if limit == Some(LIMIT) { Ok(detail) } else { Err(missing(detail)) }
}

fn clsact(ns: &Netns) -> Finding {
    ns.run(|| {
        let program = raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, 0, 0)?;
        let filter = lab_bpf::attach_tc(LOOPBACK, lab_bpf::TcDirection::Ingress, &program, TcOptions::default())?;
        let listed = lab_bpf::find(LOOPBACK, program.id())?.is_some();
        filter.detach()?;
        if listed { Ok("filter attached and listed".into()) } else { Err(missing("filter attached, but not listed")) }
    })
}

fn mirred(ns: &Netns) -> Finding {
    ns.run(|| {
        let filter = lab_bpf::mirred_add(LOOPBACK, lab_bpf::TcDirection::Ingress, LOOPBACK, lab_bpf::Mirred::Mirror)?;
        let counted = filter.packets()?;
        filter.remove()?;
        Ok(format!("matchall filter with mirred added, {counted} packets counted"))
    })
}

/// Tests both the device and its attach type, since a kernel could have one without the other.
fn netkit(ns: &Netns) -> Finding {
    let info = create(ns, &netkit_request(NetkitOptions::default()))?;
    let program = raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, 0, 0)?;
    ns.run(|| {
        let hook = lab_protocol::Hook::NetkitPrimary;
        let link = lab_bpf::attach_link(hook, info.ifindex, &program, &lab_bpf::Mprog::default())?;
        let listed = lab_bpf::find(info.ifindex, program.id())?.is_some();
        drop(link);
        if listed { Ok("link attached and listed".into()) } else { Err(missing("link attached, but not listed")) }
    })
}

/// On Debian's kernels no device in a virtual machine can lend a queue, so the probe asks for one of the loopback device: a kernel that
/// refuses that device, and not the one that is to get the queue, has queue leasing.
fn queue_lease(ns: &Netns) -> Finding {
    let info = create(ns, &netkit_request(NetkitOptions::default()))?;
    let taker = info.peer_ifindex.ok_or_else(|| missing("the primary does not report its peer"))?;
    match queue::lease(ns, taker, LOOPBACK, 0) {
        Ok(queue) => Err(missing(format!("queue {queue} leased from the loopback device"))),
        Err(error) if error.extack() == Some(VIRTUAL_GIVER) => Ok(error.to_string()),
        Err(error) => Err(error.into()),
    }
}

fn read_back(ns: &Netns, request: &PairRequest<'_>, attribute: &str, there: fn(&NetkitInfo) -> bool) -> Finding {
    let info = create(ns, request)?;
    if info.netkit.as_ref().is_some_and(there) {
        Ok(format!("{attribute} read back"))
    } else {
        Err(missing(format!("{attribute} was accepted but not read back")))
    }
}

fn netkit_request(netkit: NetkitOptions) -> PairRequest<'static> {
    PairRequest::new(LinkKind::NetkitL2, DEVICES.0, DEVICES.1).netkit(netkit)
}

fn create(ns: &Netns, request: &PairRequest<'_>) -> Result<DeviceInfo, Missing> {
    link::create_pair(ns, request)?;
    Ok(link::info(ns, DEVICES.0)?)
}

/// Runs a probe in a namespace that is deleted with everything in it.
fn scratch(probe: impl FnOnce(&Netns) -> Finding) -> Finding {
    match Netns::new("probe") {
        Ok(ns) => probe(&ns),
        Err(error) => Err(missing(error.to_string())),
    }
}

/// Determines why a capability is missing. If the kernel is new enough, it is disabled in the configuration, unless
/// the error comes from the capability's own code: then it is broken.
fn report(kernel: KernelVersion, capability: Capability, finding: Finding) -> CapabilityReport {
    let (state, detail) = match finding {
        Ok(detail) => (CapabilityState::Supported, detail),
        Err(Missing { absent, detail }) => (state_of(kernel, capability, absent), detail),
    };
    CapabilityReport { capability, state, detail }
}

fn state_of(kernel: KernelVersion, capability: Capability, absent: bool) -> CapabilityState {
    match (capability.since().expected_on(kernel), absent, capability.is_module()) {
        (false, ..) => CapabilityState::TooOld,
        (true, true, true) => CapabilityState::ModuleMissing,
        // CONFIG_NETKIT and CONFIG_NET_XGRESS are bool, so absent means not configured.
        (true, true, false) => CapabilityState::ConfigOff,
        (true, false, _) if capability == Capability::Tcx => CapabilityState::ConfigOff,
        (true, false, _) => CapabilityState::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_for_a_missing_capability_are_distinguished() {
        let state = |kernel: &str, capability, absent| state_of(kernel.parse().unwrap(), capability, absent);
        assert_eq!(state("6.1.192", Capability::Netkit, true), CapabilityState::TooOld);
        assert_eq!(state("6.12.1", Capability::Netkit, true), CapabilityState::ConfigOff);
        assert_eq!(state("6.12.1", Capability::Veth, true), CapabilityState::ModuleMissing);
        assert_eq!(state("6.19.6", Capability::Vxlan, true), CapabilityState::ModuleMissing);
        assert_eq!(state("6.17.13", Capability::NetkitHeadroom, false), CapabilityState::Broken);
    }
}
