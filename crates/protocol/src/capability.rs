//! Capabilities of kernels, the versions that added them, and results of probes.

use crate::version::KernelVersion;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The mainline release that added a capability, and the stable releases to which it was backported.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    /// First mainline release.
    pub mainline: KernelVersion,
    /// First stable release of each older series that has it too.
    pub backports: &'static [KernelVersion],
    /// Source of the fact, for example a commit title.
    pub source: &'static str,
}

impl Since {
    /// Whether a kernel of this version must have the capability.
    pub fn expected_on(&self, version: KernelVersion) -> bool {
        version >= self.mainline
            || self.backports.iter().any(|stable| {
                (stable.major, stable.minor) == (version.major, version.minor) && version.patch >= stable.patch
            })
    }

    /// The first version with the capability for a kernel of this series; reported with a skip.
    pub fn lifted_by(&self, version: KernelVersion) -> KernelVersion {
        self.backports
            .iter()
            .copied()
            .find(|stable| (stable.major, stable.minor) == (version.major, version.minor))
            .unwrap_or(self.mainline)
    }
}

const fn v(major: u16, minor: u16, patch: u16) -> KernelVersion {
    KernelVersion::new(major, minor, patch)
}

/// Declares [`Capability`] with a row per capability: its name in reports and in `kernels.toml`, whether Debian
/// builds it as a module, the first mainline release, the first stable release of each older series that has it, and
/// the source of these facts. A new capability also needs a probe in `lab-harness`.
macro_rules! capabilities {
    ($($(#[$doc:meta])* $id:ident: $name:literal, $built:ident, $since:expr, [$($backport:expr),*], $source:literal;)*) => {
        /// A kernel feature that a case needs and that not every kernel has.
        /// If a probe finds a capability missing at or above the version of [`since`](Capability::since), the cell
        /// fails instead of being skipped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Capability {
            $($(#[$doc])* $id,)*
        }

        impl Capability {
            /// Every capability, in the order of reports.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$id),*];

            /// The name used in reports and in `kernels.toml`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)*
                }
            }

            /// Whether Debian builds it as a module. If so, a missing capability means a missing file; otherwise
            /// the kernel's configuration lacks it.
            pub const fn is_module(self) -> bool {
                match self {
                    $(Self::$id => matches!(Built::$built, Built::module),)*
                }
            }

            /// The versions that added the capability.
            pub const fn since(self) -> Since {
                match self {
                    $(Self::$id => Since { mainline: $since, backports: const { &[$($backport),*] }, source: $source },)*
                }
            }
        }
    };
}

/// How Debian builds it.
#[allow(non_camel_case_types)]
enum Built {
    module,
    built_in,
}

capabilities! {
    /// `cls_bpf` filters on a clsact qdisc.
    Clsact: "clsact", module, v(4, 5, 0), [],
        "net, sched: add clsact qdisc";
    /// Filters for all packets that hand them to another device: `matchall` with the action `mirred`.
    Mirred: "mirred", module, v(4, 8, 0), [],
        "net/sched: introduce Match-all classifier";
    /// veth pairs.
    Veth: "veth", module, v(2, 6, 24), [],
        "[NET]: Virtual ethernet device driver.";
    /// dummy devices.
    Dummy: "dummy", module, v(2, 6, 23), [],
        "[RTNETLINK]: Link creation API";
    /// bridges.
    Bridge: "bridge", module, v(2, 6, 39), [],
        "bridge: allow creating bridge devices with netlink";
    /// VRF devices.
    Vrf: "vrf", module, v(4, 3, 0), [],
        "net: Introduce VRF device driver";
    /// tap devices.
    Tun: "tun", module, v(2, 4, 0), [],
        "Documentation/networking/tuntap.rst";
    /// VXLAN devices.
    Vxlan: "vxlan", module, v(3, 7, 0), [],
        "vxlan: virtual extensible lan";
    /// IPv4 in IPv4.
    Ipip: "ipip", module, v(3, 8, 0), [],
        "net/ipv4/ipip.c, ipip_newlink()";
    /// IPv4 and IPv6 in IPv6.
    Ip6Tnl: "ip6-tnl", module, v(3, 8, 0), [],
        "net/ipv6/ip6_tunnel.c, ip6_tnl_newlink(); commit 0b112457229d of November 2012";
    /// IPv6: addresses can be added.
    Ipv6: "ipv6", built_in, v(2, 6, 12), [],
        "net/ipv6/, in the first commit of the kernel's git history";
    /// Programs are compiled, not interpreted (`CONFIG_BPF_JIT`, `net.core.bpf_jit_enable`).
    BpfJit: "bpf-jit", built_in, v(3, 16, 0), [],
        "net: filter: x86: internal BPF JIT";
    /// User namespaces (`CONFIG_USER_NS`, `user.max_user_namespaces`).
    UserNs: "user-ns", built_in, v(3, 8, 0), [],
        "user_namespaces(7): since Linux 3.8 unprivileged processes can create user namespaces";
    /// Address translation in nf_tables: chains of type nat, masquerading, and rules that change a destination.
    NftNat: "nft-nat", module, v(3, 18, 0), [],
        "nftables wiki: masquerade is available starting with Linux kernel 3.18";
    /// Datagrams that are cut late (`UDP_SEGMENT`) pass devices whole: `NETIF_F_GSO_UDP_L4` in `NETIF_F_GSO_SOFTWARE`.
    UdpGso: "udp-gso", built_in, v(5, 11, 0), [],
        "net: add GSO UDP L4 and GSO fraglists to the list of software-backed types";
    /// `bpf_check_mtu`.
    CheckMtu: "check-mtu", built_in, v(5, 12, 0), [],
        "bpf: Add BPF-helper for MTU checking";
    /// Packets of several segments that are longer than 64 KiB: `gso_max_size` beyond `GSO_LEGACY_MAX_SIZE`.
    BigTcp: "big-tcp", built_in, v(5, 19, 0), [],
        "net: allow gso_max_size to exceed 65536";
    /// tcx programs and links.
    Tcx: "tcx", built_in, v(6, 6, 0), [],
        "bpf: Add fd-based tcx multi-prog infra with link support";
    /// netkit devices and links.
    Netkit: "netkit", built_in, v(6, 7, 0), [],
        "netkit, bpf: Add bpf programmable net device";
    /// A `prog_array` rejects a program whose `expected_attach_type` differs from its owner's.
    ProgArrayStrict: "prog-array-strict", built_in, v(6, 18, 0), [v(6, 17, 3), v(6, 12, 53), v(6, 6, 112), v(6, 1, 156)],
        "bpf: Enforce expected_attach_type for tailcall compatibility (CVE-2025-40123)";
    /// `IFLA_NETKIT_SCRUB` / `IFLA_NETKIT_PEER_SCRUB`.
    NetkitScrub: "netkit-scrub", built_in, v(6, 13, 0), [v(6, 12, 4)],
        "netkit: Add option for scrubbing skb meta data";
    /// `IFLA_NETKIT_HEADROOM` / `IFLA_NETKIT_TAILROOM`.
    NetkitHeadroom: "netkit-headroom", built_in, v(6, 14, 0), [],
        "netkit: Allow for configuring needed_{head,tail}room";
    /// `IFLA_NETKIT_PAIRING`: a netkit device without a peer.
    NetkitSingle: "netkit-single", built_in, v(7, 1, 0), [],
        "netkit: Add single device mode for netkit";
    /// Receive queues of a netkit device that are leased from another one, `NETDEV_CMD_QUEUE_CREATE`.
    NetkitQueueLease: "netkit-queue-lease", built_in, v(7, 1, 0), [],
        "netkit: Implement rtnl_link_ops->alloc and ndo_queue_create";
    /// `bpf_redirect_peer` with `BPF_F_EGRESS`.
    RedirectPeerEgress: "redirect-peer-egress", built_in, v(7, 3, 0), [],
        "bpf: Support BPF_F_EGRESS with bpf_redirect_peer";
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Corrections of `kernels.toml` to what a kernel's version implies. They are passed to the guest on the kernel's
/// command line: a parameter with a dot is taken for one of a module, and no kernel rejects a parameter of an unknown
/// module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stated {
    /// Capabilities that it has (`has`).
    pub has: Vec<Capability>,
    /// Capabilities that it lacks (`unsupported`).
    pub lacks: Vec<Capability>,
    /// Whether its probes decide instead of its version (`believe = "probes"`).
    pub believe_probes: bool,
}

impl Stated {
    const HAS: &str = "netkit_lab.has=";
    const LACKS: &str = "netkit_lab.lacks=";
    const BELIEVE: &str = "netkit_lab.believe=probes";

    /// The parameters for the command line; empty without corrections.
    pub fn words(&self) -> Vec<String> {
        let list = |name: &str, all: &[Capability]| {
            let names: Vec<&str> = all.iter().map(|capability| capability.name()).collect();
            (!names.is_empty()).then(|| format!("{name}{}", names.join(",")))
        };
        let believe = self.believe_probes.then(|| Self::BELIEVE.to_owned());
        [list(Self::HAS, &self.has), list(Self::LACKS, &self.lacks), believe].into_iter().flatten().collect()
    }

    /// Parses a command line. Unknown names are ignored.
    pub fn of(cmdline: &str) -> Self {
        let list = |name: &str| {
            let words = cmdline.split_whitespace().filter_map(|word| word.strip_prefix(name));
            let names = words.flat_map(|names| names.split(','));
            names.filter_map(|name| Capability::ALL.into_iter().find(|it| it.name() == name)).collect()
        };
        let believe_probes = cmdline.split_whitespace().any(|word| word == Self::BELIEVE);
        Self { has: list(Self::HAS), lacks: list(Self::LACKS), believe_probes }
    }
}

/// Result of a probe. Each of the three kinds of a missing capability has another fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapabilityState {
    /// The probe used the capability and read the result back.
    Supported,
    /// The kernel is older than the capability.
    TooOld,
    /// The kernel is new enough, but its configuration lacks the capability.
    ConfigOff,
    /// The kernel has it as a module, but the image lacks the module or it cannot be loaded.
    ModuleMissing,
    /// The probe failed, or the kernel should have the capability but does not.
    Broken,
}

impl CapabilityState {
    /// The wording of reports.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::TooOld => "version too old",
            Self::ConfigOff => "config off",
            Self::ModuleMissing => "module missing",
            Self::Broken => "broken",
        }
    }
}

/// One probe's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityReport {
    /// The probed capability.
    pub capability: Capability,
    /// The verdict.
    pub state: CapabilityState,
    /// The kernel's answer: the call and its errno, or the value read back.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backports_count_in_their_own_series_only() {
        let since = Capability::ProgArrayStrict.since();
        for (version, wanted) in [
            ("6.1.155", false),
            ("6.1.156", true),
            ("6.12.43", false),
            ("6.12.53", true),
            ("6.16.12", false),
            ("6.17.8", true),
            ("6.18.5", true),
        ] {
            assert_eq!(since.expected_on(version.parse().unwrap()), wanted, "{version}");
        }
        assert_eq!(since.lifted_by("6.12.1".parse().unwrap()).to_string(), "6.12.53");
        assert_eq!(since.lifted_by("6.16.1".parse().unwrap()).to_string(), "6.18");
    }

    #[test]
    fn names_are_the_serialized_names() {
        for capability in Capability::ALL {
            assert_eq!(serde_json::to_value(capability).unwrap(), capability.name());
        }
    }

    #[test]
    fn corrections_are_read_back_from_a_command_line() {
        let stated = Stated {
            has: vec![Capability::Tcx, Capability::NetkitScrub],
            lacks: vec![Capability::Ipv6],
            believe_probes: true,
        };
        assert_eq!(Stated::of(&format!("quiet {} panic=-1\n", stated.words().join(" "))), stated);
        assert_eq!(Stated::of("quiet netkit_lab.has=tcxx"), Stated::default());
        assert!(Stated::default().words().is_empty());
    }
}
