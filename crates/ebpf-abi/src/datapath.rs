//! Layouts of the miniature datapath: what its maps hold, and what each of its programs is configured with.
//!
//! Addresses are four words in network byte order, IPv4 ones mapped (`::ffff:a.b.c.d`), so that one layout and one
//! checksum difference serve both families. Ports are in network byte order, ICMP has its echo identifier as both.

/// An address: IPv6, or IPv4 mapped into it.
pub type Address = [u32; 4];

/// Entries of the maps of endpoints and services.
pub const ENDPOINTS: u32 = 16;
/// Rules of all workloads together.
pub const RULES: u32 = 64;
/// Legs of all connections together.
pub const CONNECTIONS: u32 = 4096;
/// The slot of a jump map that holds the forwarding program; every other one is a workload's policy.
pub const FORWARD_SLOT: u32 = 0;

/// Which way a packet goes, as a map key has it.
pub const FROM_WORKLOAD: u32 = 0;
/// See [`FROM_WORKLOAD`].
pub const TO_WORKLOAD: u32 = 1;

/// Deliberate faults, each of which the suite must notice. The setting is constant to the verifier, which removes
/// what it does not reach: a program without a fault runs as if none could be built in.
pub mod fault {
    /// None.
    pub const NONE: u32 = 0;
    /// The device is taken from `skb->ifindex`.
    pub const SKB_IFINDEX: u32 = 1;
    /// Forwarding goes into the peer, past the destination's own programs.
    pub const REDIRECT_PEER: u32 = 2;
    /// Rules mean the opposite of what they say.
    pub const POLICY_INVERTED: u32 = 3;
    /// Replies keep the backend's address.
    pub const NO_REVERSE_NAT: u32 = 4;
    /// A workload that is its own backend talks to itself under its own address.
    pub const NO_HAIRPIN_SNAT: u32 = 5;
    /// Nothing is counted in one direction.
    pub const NOT_COUNTED: u32 = 6;
    /// Translated packets keep their transport checksum.
    pub const CHECKSUM_KEPT: u32 = 7;
    /// Any source is taken from a workload.
    pub const NO_RPF: u32 = 8;
    /// Connections of all workloads are in one table.
    pub const ONE_ZONE: u32 = 9;
    /// What ICMP errors quote is not translated.
    pub const QUOTE_KEPT: u32 = 10;
    /// An empty policy slot lets the packet pass.
    pub const OPEN_ON_MISS: u32 = 11;
    /// Forwarded packets keep the link-layer addresses that they came with.
    pub const MAC_KEPT: u32 = 12;
    /// Forwarded packets keep their time to live.
    pub const TTL_KEPT: u32 = 13;
    /// UDP datagrams without a checksum get the difference as one.
    pub const NO_CHECKSUM_FILLED: u32 = 14;
    /// Rules for one service are not looked up.
    pub const SERVICE_RULES_IGNORED: u32 = 15;
    /// Denied packets are not counted.
    pub const DENIED_UNCOUNTED: u32 = 16;
    /// Spoofed packets are not counted.
    pub const SPOOFED_UNCOUNTED: u32 = 17;
    /// Packets that meet an empty slot are not counted.
    pub const MISSED_UNCOUNTED: u32 = 18;
    /// Packets that leave for another device are not counted.
    pub const REDIRECTED_UNCOUNTED: u32 = 19;
    /// Translated packets keep their ports.
    pub const PORTS_KEPT: u32 = 20;
    /// Translated IPv4 packets keep their header checksum.
    pub const HEADER_CHECKSUM_KEPT: u32 = 21;
    /// IPv6 packets to a service are not translated.
    pub const SERVICES_V4_ONLY: u32 = 22;
    /// The source of IPv6 packets is not checked.
    pub const RPF_V4_ONLY: u32 = 23;
    /// ICMP errors about known flows are dropped.
    pub const RELATED_DENIED: u32 = 24;
    /// The reply's leg of a connection that is not translated is forgotten.
    pub const NO_REPLY_LEG: u32 = 25;
    /// Fragments and packets with extension headers pass unjudged.
    pub const UNREADABLE_PASS: u32 = 26;
    /// Connections of all protocols are one.
    pub const PROTOCOL_IGNORED: u32 = 27;
    /// ICMP errors about unknown flows are judged as if they were packets of their flow.
    pub const UNKNOWN_ERRORS_PASS: u32 = 28;
    /// Forwarded packets keep their link-layer source.
    pub const SOURCE_MAC_KEPT: u32 = 29;
    /// Packets with a VLAN tag pass unjudged.
    pub const TAGGED_PASS: u32 = 30;
    /// The FIB is asked without the packet's source.
    pub const FIB_SOURCE_IGNORED: u32 = 31;
    /// A service of one protocol answers for the other one too.
    pub const SERVICE_PROTOCOL_IGNORED: u32 = 32;
    /// The jumbo option of IPv6 is taken for any other extension header.
    pub const JUMBOGRAMS_DENIED: u32 = 33;
}

/// Configuration of a program of the datapath, set at load time.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatapathConfig {
    /// The workload's device on the node: key of everything that is the workload's own.
    pub host_ifindex: u32,
    /// Slot of the jump map with the workload's policy program.
    pub policy_slot: u32,
    /// One of [`fault`].
    pub fault: u32,
}

/// Key of the endpoint map.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// The workload's device on the node.
    pub host_ifindex: u32,
    /// 4 or 6.
    pub family: u32,
}

/// A packet's flow, as the packet itself has it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, or the echo's identifier.
    pub source_port: u16,
    /// Destination port, or the echo's identifier.
    pub destination_port: u16,
    /// IP protocol: 6, 17, 1 or 58.
    pub protocol: u32,
}

impl Tuple {
    /// The same flow as its replies have it.
    #[must_use]
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

/// Key of the connection map; the value is the [`Tuple`] that the packet leaves with.
///
/// Each workload has a zone of its own, so that a connection between two of them is judged by the policies of both.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    /// The workload's device on the node.
    pub zone: u32,
    /// The packet as it came.
    pub tuple: Tuple,
}

/// Key of the service map.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// The service's address.
    pub address: Address,
    /// Its port, network byte order.
    pub port: u16,
    /// 6 or 17.
    pub protocol: u16,
}

/// Who serves.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// The workload's address.
    pub address: Address,
    /// Its port, network byte order.
    pub port: u16,
    /// Always 0.
    pub reserved: u16,
}

/// A rule's key in the longest-prefix map: everything but the remote address counts in full.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleKey {
    /// The workload's device on the node.
    pub host_ifindex: u32,
    /// [`FROM_WORKLOAD`] or [`TO_WORKLOAD`].
    pub direction: u16,
    /// Destination port, network byte order; 0 together with protocol 0 is a rule for everything.
    pub port: u16,
    /// IP protocol, 0 for all.
    pub protocol: u32,
    /// The other side's address or the network that it is in.
    pub remote: Address,
}

impl RuleKey {
    /// Bits of the key before the remote address.
    pub const FIXED_BITS: u32 = 96;
    /// Bits of the longest prefix.
    pub const ALL_BITS: u32 = Self::FIXED_BITS + 128;
}

/// Key of the counter map.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CounterKey {
    /// The workload's device on the node.
    pub host_ifindex: u32,
    /// [`FROM_WORKLOAD`] or [`TO_WORKLOAD`].
    pub direction: u32,
}

/// Counters of one workload's packets in one direction.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that the entry program handled.
    pub entered: u64,
    /// Packets that reached the policy program by tail call.
    pub judged: u64,
    /// Packets that reached the forwarding program by tail call.
    pub forwarded: u64,
    /// Of those, packets sent straight to another device.
    pub redirected: u64,
    /// Packets whose addresses were translated.
    pub translated: u64,
    /// Packets that a rule denied.
    pub denied: u64,
    /// Packets with a source that is not the workload's.
    pub spoofed: u64,
    /// Packets that met an empty slot.
    pub missed: u64,
    /// ICMP errors that belong to a known connection.
    pub related: u64,
    /// Dropped packets whose ports can't be read: fragments, and packets with VLAN tags, IP options or extension headers.
    pub unreadable: u64,
}

impl Counters {
    /// Adds another CPU's share.
    pub fn merge(&mut self, other: &Self) {
        self.entered += other.entered;
        self.judged += other.judged;
        self.forwarded += other.forwarded;
        self.redirected += other.redirected;
        self.translated += other.translated;
        self.denied += other.denied;
        self.spoofed += other.spoofed;
        self.missed += other.missed;
        self.related += other.related;
        self.unreadable += other.unreadable;
    }
}

#[cfg(feature = "user")]
mod pod {
    macro_rules! pods {
        ($($name:ident),+) => {
            $(
                // SAFETY: `repr(C)`, `Copy`, integers only, no implicit padding (the test below adds the sizes up).
                unsafe impl aya::Pod for super::$name {}
            )+
        };
    }
    pods!(DatapathConfig, EndpointKey, Tuple, ConnectionKey, ServiceKey, Backend, RuleKey, CounterKey, Counters);
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{offset_of, size_of};

    #[test]
    fn layouts_have_no_padding() {
        assert_eq!(size_of::<Tuple>(), 2 * 16 + 2 * 2 + 4);
        assert_eq!(size_of::<ConnectionKey>(), 4 + size_of::<Tuple>());
        assert_eq!(size_of::<ServiceKey>(), 16 + 2 * 2);
        assert_eq!(size_of::<Backend>(), 16 + 2 * 2);
        assert_eq!(size_of::<Counters>(), 10 * 8);
        // The kernel compares prefixes over the bytes as they lie.
        assert_eq!(offset_of!(RuleKey, remote) * 8, RuleKey::FIXED_BITS as usize);
        assert_eq!(size_of::<RuleKey>() * 8, RuleKey::ALL_BITS as usize);
    }

    #[test]
    fn a_reply_is_the_reversed_flow() {
        let tuple = Tuple { source: [1; 4], destination: [2; 4], source_port: 3, destination_port: 4, protocol: 6 };
        assert_eq!(tuple.reversed().source_port, 4);
        assert_eq!(tuple.reversed().reversed(), tuple);
    }
}
