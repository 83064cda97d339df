//! Layouts that the eBPF programs and user space share.
//!
//! Where to start: [`Config`] goes into a program and [`Stats`] comes out; [`datapath`] has the maps of the miniature
//! datapath, [`witness`] the events of the witness.
//!
//! *Architecture invariant:* everything is `#[repr(C)]` without implicit padding, in the byte order of the machine, and
//! tests pin every size, so that no layout changes unnoticed.
#![no_std]

pub mod datapath;
pub mod witness;

/// A flag of `bpf_fib_lookup` (include/uapi/linux/bpf.h): the lookup uses a mark.
pub const BPF_FIB_LOOKUP_MARK: u32 = 1 << 5;
/// The mark of lookups with that flag.
pub const FIB_MARK: u32 = 0x65;
/// Another flag of it: the lookup is in the table whose number is given.
pub const BPF_FIB_LOOKUP_TBID: u32 = 1 << 3;
/// What `stamp` writes to `queue_mapping`.
pub const STAMP_QUEUE: u32 = 3;
/// What it writes to `mark`.
pub const STAMP_MARK: u32 = FIB_MARK;
/// What it writes to `priority`.
pub const STAMP_PRIORITY: u32 = 5;
/// Set in [`Seen::vlan_tci`] where the packet has a tag beside it.
pub const VLAN_PRESENT: u32 = 1 << 16;

/// Verdict that leaves the packet to the next program: `TC_ACT_UNSPEC`, `TCX_NEXT` and `NETKIT_NEXT` in one
/// (include/uapi/linux/pkt_cls.h, include/uapi/linux/bpf.h).
pub const VERDICT_NEXT: i32 = -1;
/// Verdict "let it pass": `TC_ACT_OK`, `TCX_PASS`, `NETKIT_PASS`.
pub const VERDICT_PASS: i32 = 0;
/// Verdict "drop it": `TC_ACT_SHOT`, `TCX_DROP`, `NETKIT_DROP`.
pub const VERDICT_DROP: i32 = 2;
/// Verdict "a helper selected the destination": `TC_ACT_REDIRECT`, `TCX_REDIRECT`, `NETKIT_REDIRECT`.
pub const VERDICT_REDIRECT: i32 = 7;

/// Slots of the jump map (`BPF_MAP_TYPE_PROG_ARRAY`).
pub const JUMP_SLOTS: u32 = 16;
/// Entries of the policy map.
pub const POLICY_ENTRIES: u32 = 64;

/// Configuration of a program, set at load time in its `.rodata`.
///
/// A packet is *marked* when it is TCP or UDP with [`Config::marker`] as either port, or an ICMP/ICMPv6 echo with
/// the marker as its identifier. ARP, neighbour discovery, MLD, fragments and ICMP errors never are.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Flags of the redirect helper, of `bpf_fib_lookup`, or of `bpf_check_mtu`.
    pub redirect_flags: u64,
    /// Index of the host-side device, for programs that can't trust `__sk_buff::ifindex`: under netkit a PRIMARY
    /// program sees the pod's index.
    pub host_ifindex: u32,
    /// Where the redirecting programs send marked packets, or the device that a FIB lookup shall start from or whose
    /// MTU is checked (0: the packet's own); resolved in the network namespace that the hook runs in.
    pub target_ifindex: u32,
    /// What marked packets are answered with where no map says otherwise.
    pub verdict: i32,
    /// Slot of the jump map that `tail_entry` calls.
    pub jump_index: u32,
    /// Port or echo identifier, host byte order; 0 marks nothing.
    pub marker: u16,
    /// Link-layer destination that `redirect` and `tunnel` write first, as a datapath that forwards by FIB does; zeros
    /// leave the packet's own.
    pub eth_dst: [u8; 6],
    /// What `check_mtu` adds to the packet's length, bytes.
    pub mtu_len_diff: i32,
    /// Network identifier that `tunnel` chooses.
    pub tunnel_id: u32,
    /// Far end that `tunnel` chooses: an address as in [`datapath::Address`].
    pub tunnel_remote: datapath::Address,
    /// Port of the socket that `assign` gives packets to, host byte order.
    pub socket_port: u32,
    /// What `stamp` writes to `tc_classid`, or the table of a lookup with [`BPF_FIB_LOOKUP_TBID`], or anything but 0 where
    /// `tail_entry` shall call by an index that the verifier does not know.
    pub number: u32,
}

impl Config {
    /// Counts traffic with `marker` and returns UNSPEC for it.
    pub const fn new(marker: u16) -> Self {
        Self {
            redirect_flags: 0,
            host_ifindex: 0,
            target_ifindex: 0,
            verdict: VERDICT_NEXT,
            jump_index: 0,
            marker,
            eth_dst: [0; 6],
            mtu_len_diff: 0,
            tunnel_id: 0,
            tunnel_remote: [0; 4],
            socket_port: 0,
            number: 0,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new(0)
    }
}

/// Metadata of the last marked packet (`struct __sk_buff`, include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// `CLOCK_MONOTONIC`, nanoseconds: gives the order in which the programs of a chain ran.
    pub time_ns: u64,
    /// `tstamp`: when the packet is to depart, nanoseconds; 0 where it is not set.
    pub tstamp_ns: u64,
    /// `ifindex` of the packet's device.
    pub ifindex: u32,
    /// `ingress_ifindex`, 0 where the packet started here or was scrubbed.
    pub ingress_ifindex: u32,
    /// [`Config::host_ifindex`] of the program.
    pub host_ifindex: u32,
    /// `mark`.
    pub mark: u32,
    /// `priority`.
    pub priority: u32,
    /// `pkt_type`: 0 host, 1 broadcast, 2 multicast, 3 otherhost, 4 outgoing (include/uapi/linux/if_packet.h).
    pub pkt_type: u32,
    /// EtherType, host byte order.
    pub protocol: u32,
    /// Length with the Ethernet header, bytes.
    pub len: u32,
    /// Payload bytes per segment of a GSO packet, else 0.
    pub gso_size: u32,
    /// Segments of a GSO packet, else 0.
    pub gso_segs: u32,
    /// Verdict that the program was about to return.
    pub verdict: i32,
    /// What `bpf_fib_lookup` returned (`BPF_FIB_LKUP_RET_*`, or a negative errno), in the programs that ask it; in `assign` what
    /// `bpf_sk_assign` returned.
    pub fib_code: i32,
    /// The device that it named.
    pub fib_ifindex: u32,
    /// The next hop that it named, words in network byte order: an IPv4 one is the first.
    pub fib_next_hop: [u32; 4],
    /// The MTU that it returned, bytes; what was asked where it returned none.
    pub fib_mtu: u32,
    /// Where it returns a VLAN (`h_vlan_proto` and `h_vlan_TCI`, a union with `tbid`): 0 after a successful lookup.
    pub fib_vlan: u32,
    /// `tc_index`.
    pub tc_index: u32,
    /// `queue_mapping`.
    pub queue_mapping: u32,
    /// `vlan_tci` of a tag that is not in the packet but beside it, with [`VLAN_PRESENT`]; 0 without one.
    pub vlan_tci: u32,
    /// `vlan_proto` of it, host byte order.
    pub vlan_proto: u32,
    /// What `bpf_check_mtu` returned (`BPF_MTU_CHK_RET_*`, or a negative errno), in the program that asks it.
    pub mtu_code: i32,
    /// The MTU that it returned, bytes.
    pub mtu: u32,
    /// Destination of the Ethernet header; zeros on an L3 netkit.
    pub eth_dst: [u8; 6],
    /// Source of the Ethernet header.
    pub eth_src: [u8; 6],
}

/// Counters of one loaded program, one set per CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// All packets.
    pub packets: u64,
    /// Marked packets.
    pub marked: u64,
    /// Bytes of the marked packets, Ethernet headers included.
    pub bytes: u64,
    /// Tail calls into an empty slot.
    pub misses: u64,
    /// The longest marked packet, bytes: above the MTU where GSO packets cross unsplit.
    pub max_len: u32,
    /// The largest `gso_size` of a marked packet.
    pub max_gso_size: u32,
    /// The last marked packet.
    pub last: Seen,
}

impl Stats {
    /// Adds another CPU's share.
    pub fn merge(&mut self, other: &Self) {
        self.packets += other.packets;
        self.marked += other.marked;
        self.bytes += other.bytes;
        self.misses += other.misses;
        self.max_len = self.max_len.max(other.max_len);
        self.max_gso_size = self.max_gso_size.max(other.max_gso_size);
        if other.last.time_ns > self.last.time_ns {
            self.last = other.last;
        }
    }
}

/// Key of the policy map.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PolicyKey {
    /// IP protocol: 6, 17, 1 or 58.
    pub protocol: u16,
    /// Destination port or echo identifier, host byte order.
    pub port: u16,
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, `Copy`, integers only, no implicit padding (the tests below add the sizes up).
    unsafe impl aya::Pod for super::Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Stats {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PolicyKey {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{offset_of, size_of};

    #[test]
    fn layouts_have_no_padding() {
        assert_eq!(size_of::<Config>(), 8 + 4 * 4 + 2 + 6 + 2 * 4 + 16 + 2 * 4);
        assert_eq!(size_of::<Seen>(), 2 * 8 + 21 * 4 + 16 + 2 * 6);
        assert_eq!(size_of::<Stats>(), 4 * 8 + 2 * 4 + size_of::<Seen>());
        assert_eq!(size_of::<PolicyKey>(), 4);
        assert_eq!(offset_of!(Stats, last), 40);
    }

    #[test]
    fn merging_keeps_the_latest_packet() {
        let seen = |time_ns, mark| Seen { time_ns, mark, ..Seen::default() };
        let mut sum = Stats { packets: 3, marked: 1, max_len: 60, last: seen(20, 7), ..Stats::default() };
        sum.merge(&Stats { packets: 4, marked: 2, max_len: 1500, last: seen(10, 8), ..Stats::default() });
        assert_eq!((sum.packets, sum.marked, sum.max_len, sum.last.mark), (7, 3, 1500, 7));
    }
}
