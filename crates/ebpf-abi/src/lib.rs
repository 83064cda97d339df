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

/// `BPF_F_CURRENT_NETNS`: the namespace of the packet's device.
pub const CURRENT_NETNS: u64 = u64::MAX;
/// What `assign` records in the place of an errno where there is no such socket.
pub const NO_SOCKET: i32 = 1;

/// What `edit_packet` calls, by [`Config::number`]; the argument is [`Config::redirect_flags`].
pub mod edit {
    /// Nothing; counts in [`Stats::misses`](super::Stats::misses) the packets that are not in one piece.
    pub const NOTHING: u32 = 0;
    /// `bpf_skb_vlan_push`: the protocol above the lower 16 bits, the tag in them.
    pub const VLAN_PUSH: u32 = 1;
    /// `bpf_skb_vlan_pop`.
    pub const VLAN_POP: u32 = 2;
    /// `bpf_skb_change_type`: the `pkt_type`.
    pub const TYPE: u32 = 3;
    /// `bpf_set_hash`: the hash.
    pub const HASH: u32 = 4;
    /// `bpf_set_hash` of the argument, then `bpf_skb_store_bytes` of what is there with `BPF_F_INVALIDATE_HASH`.
    pub const STORE: u32 = 5;
    /// `bpf_skb_load_bytes_relative` of one byte: the offset above the lower 16 bits, `enum bpf_hdr_start_off` in them.
    pub const READ: u32 = 6;
    /// `bpf_skb_load_bytes` of four bytes, of which only the first is in the packet.
    pub const READ_PAST: u32 = 7;
    /// `bpf_skb_pull_data` of the whole packet; counts as `NOTHING` does, behind it.
    pub const PULL: u32 = 8;
    /// `bpf_skb_ecn_set_ce`.
    pub const CONGESTED: u32 = 9;
    /// `bpf_skb_set_tstamp` of the monotonic clock: the time.
    pub const TIME: u32 = 10;
    /// `bpf_clone_redirect` to [`Config::target_ifindex`](super::Config::target_ifindex): the flags.
    pub const CLONE: u32 = 11;
    /// No helper: writes the argument to `tc_index` and `queue_mapping`.
    pub const INDEX: u32 = 12;
    /// `bpf_skb_change_tail` to a length that is longer by the argument, and back; read is the length in between.
    pub const GROW: u32 = 13;
    /// `bpf_skb_adjust_room` for an outer header of the other family, and back; read are the EtherTypes after each, the first one
    /// above the lower 16 bits. Counts in [`Stats::misses`](super::Stats::misses) the packets whose segments are not as much shorter.
    pub const WRAP: u32 = 14;
    /// `bpf_l4_csum_replace` of two bytes in the checksum of UDP over IPv4, as if zeros became the argument, and back; read are the
    /// checksum before, above the lower 16 bits, and in between.
    pub const SUM: u32 = 15;
    /// `bpf_skb_vlan_push` of the 802.1Q tag above the lower 16 bits and of the 802.1ad tag in them, and `bpf_skb_vlan_pop` twice;
    /// read are the tags that are beside the packet after the second push, above the lower 16 bits, and after the first pop.
    pub const TWO_TAGS: u32 = 16;
    /// No helper; read is how many bytes of metadata are before the packet (`data_meta`), which XDP has put there.
    pub const METADATA: u32 = 17;
    /// `bpf_skb_get_tunnel_key`: the flags; read is the network's identifier.
    pub const TUNNEL_ID: u32 = 18;
    /// The same; read is the last word of the remote address, host byte order.
    pub const TUNNEL_REMOTE: u32 = 19;
    /// Each byte of [`Seen::edit_read`](super::Seen::edit_read) before the helper is called.
    pub const UNREAD: u8 = 0xff;
}

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
    /// Flags of the redirect helper, of `bpf_fib_lookup`, or of `bpf_check_mtu`; the argument of `edit_packet`; the namespace in
    /// which `assign` looks for a socket, by its id or [`CURRENT_NETNS`].
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
    /// What `stamp` writes to `tc_classid`, or which helper `edit_packet` calls ([`edit`]), or the table of a lookup with
    /// [`BPF_FIB_LOOKUP_TBID`], or anything but 0 where `tail_entry` shall call by an index that the verifier does not know.
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
    /// The source that it returned, as `fib_next_hop`: the packet's own where none was asked for.
    pub fib_source: [u32; 4],
    /// The metric of the route (`rt_metric`, a union with `tos` and `flowinfo`).
    pub fib_metric: u32,
    /// The family of the next hop (`AF_INET`, `AF_INET6`).
    pub fib_family: u32,
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
    /// `wire_len`: the bytes of all segments with their headers; at tc ingress without the Ethernet header, and in older kernels the
    /// length of the packet.
    pub wire_len: u32,
    /// `hash` of the flow; 0 where none is known.
    pub hash: u32,
    /// What the helper of `edit_packet` returned.
    pub edit_code: i32,
    /// What it read, bytes in the order of the packet: [`edit::UNREAD`] where nothing was written.
    pub edit_read: u32,
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
    /// Tail calls into an empty slot; in `edit_packet` what the helper says in [`edit`].
    pub misses: u64,
    /// The longest marked packet, bytes: above the MTU where GSO packets cross unsplit.
    pub max_len: u32,
    /// The largest `gso_size` of a marked packet.
    pub max_gso_size: u32,
    /// The largest `wire_len` of a marked packet, bytes.
    pub max_wire_len: u64,
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
        self.max_wire_len = self.max_wire_len.max(other.max_wire_len);
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
        assert_eq!(size_of::<Seen>(), 2 * 8 + 27 * 4 + 2 * 16 + 2 * 6);
        assert_eq!(size_of::<Stats>(), 5 * 8 + 2 * 4 + size_of::<Seen>());
        assert_eq!(size_of::<PolicyKey>(), 4);
        assert_eq!(offset_of!(Stats, last), 48);
    }

    #[test]
    fn merging_adds_counts_and_keeps_the_largest_and_the_latest() {
        let seen = |time_ns, mark| Seen { time_ns, mark, ..Seen::default() };
        let one = Stats {
            packets: 30,
            marked: 20,
            bytes: 1_000,
            misses: 10,
            max_len: 60,
            max_gso_size: 1_400,
            max_wire_len: 70,
            last: seen(20, 7),
        };
        let other = Stats {
            packets: 4,
            marked: 3,
            bytes: 200,
            misses: 2,
            max_len: 1_500,
            max_gso_size: 1_300,
            max_wire_len: 1_600,
            last: seen(10, 8),
        };
        let sum = Stats {
            packets: 34,
            marked: 23,
            bytes: 1_200,
            misses: 12,
            max_len: 1_500,
            max_gso_size: 1_400,
            max_wire_len: 1_600,
            last: seen(20, 7),
        };
        for (mut first, second) in [(one, other), (other, one)] {
            first.merge(&second);
            assert_eq!(first, sum);
        }
    }
}
