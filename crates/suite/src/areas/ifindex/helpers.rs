//! What helpers change in a packet and read from it, at every hook: netkit's programs run on packets that are neither at tc ingress nor
//! at egress, and many helpers ask which it is (`skb_at_tc_ingress()`).

use super::crossing::{both_ways, ends};
use lab_bpf::{Config, Program, ProgramKind, VLAN_PRESENT, edit};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, Testbed},
    variants,
};
use lab_protocol::{AttachRequest, KernelVersion, capability::Since};
use lab_topology::{Family, ethtool, library};
use lab_traffic::{Path, Proto, UdpProbe, UdpSink, tcp_exchange};
use nix::errno::Errno;
use std::{net::SocketAddr, sync::Arc};

/// In the order in which they run.
pub const CASES: &[Case] = &[TAGS, METADATA, READING, CONGESTION, ROOM, CHECKSUM, REFUSED];

fn everywhere() -> Vec<Variant> {
    both_ways(variants::one_each())
}

/// A program that calls one helper of [`edit`].
fn editor(ctx: &Ctx, testbed: &Testbed, helper: u32, argument: u64) -> Result<Arc<Program>, Stop> {
    let config = Config { number: helper, redirect_flags: argument, ..Config::new(ctx.marker) };
    testbed.load(ctx, P0, ProgramKind::Edit, config)
}

/// Lets a flow pass two programs of the hook, and gives what each has seen and its helper returned.
fn one_after_the_other(
    ctx: &mut Ctx,
    testbed: &Testbed,
    variant: &Variant,
    proto: Proto,
    family: Family,
    [first, second]: [(u32, u64); 2],
) -> Result<[lab_bpf::Stats; 2], Stop> {
    let first = editor(ctx, testbed, first.0, first.1)?;
    let second = editor(ctx, testbed, second.0, second.1)?;
    let attached = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &first)?;
    let behind = testbed.attach_behind(ctx, P0, variant.attach(), variant.direction(), &second)?;
    let (from, to) = variant.direction().ends("pod", "host");
    match proto {
        Proto::Tcp => {
            const BYTES: u64 = 64 * 1024;
            let to_addr = testbed.net.addr(to, family);
            let path = Path::direct(testbed.net.ns(from), testbed.net.ns(to), to_addr, ctx.marker);
            let report = tcp_exchange(path, BYTES, ctx.patience(4_000));
            ctx.check("the bytes are returned intact", report.content_ok, report.to_string());
        }
        _ => _ = testbed.flow_passes(ctx, from, to, proto, family),
    }
    let stats = [first.stats()?, second.stats()?];
    behind.detach()?;
    attached.detach()?;
    Ok(stats)
}

const TAGS: Case = Case::new(
    "G18",
    "tags-by-helpers",
    "bpf_skb_vlan_push puts a tag of either type beside the packet, where the next program sees it, and a first one into it; bpf_skb_vlan_pop takes it off.",
    tags,
)
.on(library::PAIR)
.over(everywhere);
fn tags(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    // Priority 5 and identifier 0x123; all zeros is a tag too.
    const TAG: u32 = 0xa123;
    const OUTER: u32 = 0x6321;
    let testbed = ctx.testbed()?;
    for (what, protocol, tag) in [("802.1Q", 0x8100, TAG), ("802.1ad", 0x88a8, TAG), ("zeros", 0x8100, 0)] {
        let push = u64::from(protocol << 16 | tag);
        let edits = [(edit::VLAN_PUSH, push), (edit::VLAN_POP, 0)];
        let [first, second] =
            one_after_the_other(ctx, &testbed, variant, Proto::Udp, Family::V4, edits)?.map(|stats| stats.last);
        ctx.equal(format!("{what}: results of push and pop"), (first.edit_code, second.edit_code), (0, 0));
        ctx.equal(format!("{what}: the tag before it is pushed"), first.vlan_tci, 0);
        let seen = (second.vlan_tci, second.vlan_proto);
        ctx.equal(format!("{what}: the tag and its type before it is popped"), seen, (VLAN_PRESENT | tag, protocol));
    }
    let edits = [(edit::TWO_TAGS, u64::from(TAG << 16 | OUTER)), (edit::NOTHING, 0)];
    let [both, after] =
        one_after_the_other(ctx, &testbed, variant, Proto::Udp, Family::V4, edits)?.map(|stats| stats.last);
    let read = (both.edit_code, both.edit_read >> 16, both.edit_read & 0xffff);
    ctx.equal("results of two tags, the outer one, and the inner one once that is popped", read, (0, OUTER, TAG));
    ctx.equal("the tag after both were popped", after.vlan_tci, 0);
    Ok(())
}

const METADATA: Case = Case::new(
    "G19",
    "metadata-by-helpers",
    "The next program reads the hash, packet type and departure time that helpers set; a store that invalidates the hash leaves none.",
    metadata,
)
.on(library::PAIR)
.over(everywhere);
fn metadata(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const HASH: u32 = 0x4e4b_4841;
    const PACKET_HOST: u32 = 0;
    const PACKET_OTHERHOST: u32 = 3;
    const INDEX: u32 = 3;
    // A departure time that is over: nothing waits for it.
    const TIME: u64 = 1_000_000_007;
    const SETS_TIME: Since = Since {
        mainline: KernelVersion::new(5, 18, 0),
        backports: &[],
        source: "bpf: Add __sk_buff->delivery_time_type and bpf_skb_set_skb_delivery_time()",
    };
    let testbed = ctx.testbed()?;
    let udp = |ctx: &mut Ctx, edits| {
        Ok::<_, Stop>(
            one_after_the_other(ctx, &testbed, variant, Proto::Udp, Family::V4, edits)?.map(|stats| stats.last),
        )
    };
    let [set, cleared] = udp(ctx, [(edit::HASH, HASH.into()), (edit::STORE, 0)])?;
    ctx.equal("results of setting the hash and of the store", (set.edit_code, cleared.edit_code), (0, 0));
    ctx.equal("the hash that was set", cleared.hash, HASH);
    let [store, after] = udp(ctx, [(edit::STORE, HASH.into()), (edit::NOTHING, 0)])?;
    ctx.equal("the result of a store after the hash was set", store.edit_code, 0);
    ctx.equal("the hash after a store that invalidates it", after.hash, 0);
    // The stack would drop a packet for another host: it is for this one again before it gets there.
    let [other, own] = udp(ctx, [(edit::TYPE, PACKET_OTHERHOST.into()), (edit::TYPE, PACKET_HOST.into())])?;
    ctx.equal("results of changing the type", (other.edit_code, own.edit_code), (0, 0));
    ctx.equal("the type before and after", (other.pkt_type, own.pkt_type), (PACKET_HOST, PACKET_OTHERHOST));
    let [_, last] = udp(ctx, [(edit::INDEX, INDEX.into()), (edit::NOTHING, 0)])?;
    ctx.equal("tc_index and queue_mapping that were written", (last.tc_index, last.queue_mapping), (INDEX, INDEX));
    if ctx.capabilities.has_change(&SETS_TIME) != Some(false) {
        let [set, seen] = udp(ctx, [(edit::TIME, TIME), (edit::NOTHING, 0)])?;
        ctx.equal("the result of setting the time", set.edit_code, 0);
        // bpf_convert_tstamp_read() hides departure times at ingress; netkit is not ingress.
        let at_ingress = variant.attach() != AttachRequest::Netkit && variant.direction() == Direction::FromWorkload;
        ctx.equal("the time that was set", seen.tstamp_ns, if at_ingress { 0 } else { TIME });
    }
    Ok(())
}

const READING: Case = Case::new(
    "G20",
    "reading-by-helpers",
    "Reads begin at the header that is named and fail beyond the end; bpf_skb_pull_data makes all of a packet readable.",
    reading,
)
.on(library::PAIR)
.over(everywhere);
fn reading(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const BPF_HDR_START_MAC: u64 = 0;
    const BPF_HDR_START_NET: u64 = 1;
    const ETHERTYPE: u64 = 12;
    let testbed = ctx.testbed()?;
    let unread = u32::from_le_bytes([edit::UNREAD; 4]) & !0xff;
    let edits = [(edit::READ, ETHERTYPE << 16 | BPF_HDR_START_MAC), (edit::READ, BPF_HDR_START_NET)];
    let [link, net] =
        one_after_the_other(ctx, &testbed, variant, Proto::Udp, Family::V4, edits)?.map(|stats| stats.last);
    // ETH_P_IP is 0x0800.
    ctx.equal("result and first byte of the EtherType", (link.edit_code, link.edit_read), (0, unread | 0x08));
    ctx.equal("result and first byte of the IPv4 header", (net.edit_code, net.edit_read), (0, unread | 0x45));
    let edits = [(edit::READ_PAST, 0), (edit::NOTHING, 0)];
    let [past, _] = one_after_the_other(ctx, &testbed, variant, Proto::Udp, Family::V4, edits)?.map(|stats| stats.last);
    let efault = -(Errno::EFAULT as i32);
    ctx.equal("result of a read beyond the end, and what it leaves", (past.edit_code, past.edit_read), (efault, 0));
    // What TCP sends lies in pages behind its headers.
    let edits = [(edit::NOTHING, 0), (edit::PULL, 0)];
    let [before, after] = one_after_the_other(ctx, &testbed, variant, Proto::Tcp, Family::V4, edits)?;
    ctx.check("segments were in pieces", before.misses > 0, before.misses);
    ctx.equal(
        "segments in pieces after they were pulled, and the last result",
        (after.misses, after.last.edit_code),
        (0, 0),
    );
    Ok(())
}

const CONGESTION: Case = Case::new(
    "G21",
    "congestion",
    "bpf_skb_ecn_set_ce marks packets whose sender can hear of it, and no others.",
    congestion,
)
.on(library::PAIR)
.over(everywhere);
fn congestion(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const BPF_HDR_START_NET: u64 = 1;
    /// The byte with the ECN field, which IPv6 has four bits higher, and its values (RFC 3168, 5).
    const CLASS: u64 = 1;
    const NOT_ECT: u8 = 0;
    const ECT: u8 = 2;
    const CE: u8 = 3;
    let testbed = ctx.testbed()?;
    let mark = editor(ctx, &testbed, edit::CONGESTED, 0)?;
    let read = editor(ctx, &testbed, edit::READ, CLASS << 16 | BPF_HDR_START_NET)?;
    let _mark = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &mark)?;
    let _read = testbed.attach_behind(ctx, P0, variant.attach(), variant.direction(), &read)?;
    let (from, to) = variant.direction().ends("pod", "host");
    for (family, shift) in [(Family::V4, 0), (Family::V6, 4)].into_iter().filter(|(family, _)| family.is_available()) {
        let address = SocketAddr::new(testbed.net.addr(to, family), ctx.marker);
        let sink = UdpSink::bind(testbed.net.ns(to), address)?;
        let probe = UdpProbe::connect(testbed.net.ns(from), address)?;
        for (what, ecn, code, after) in
            [("without ECN", NOT_ECT, 0, NOT_ECT), ("ECT(0)", ECT, 1, CE), ("CE", CE, 1, CE)]
        {
            probe.set_tos(ecn)?;
            probe.send(what.as_bytes())?;
            // A wrong IPv4 checksum would keep it from the receiver.
            let received = sink.receive(ctx.patience(2_000)).map(|(payload, _)| payload);
            ctx.equal(format!("{family}, {what}: the datagram arrives"), received.as_deref(), Some(what.as_bytes()));
            ctx.equal(format!("{family}, {what}: the result"), mark.stats()?.last.edit_code, code);
            let [seen, ..] = read.stats()?.last.edit_read.to_le_bytes();
            ctx.equal(format!("{family}, {what}: the field at the next program"), seen >> shift & CE, after);
        }
    }
    Ok(())
}

/// The version since which room that is taken away can be told as a header that encapsulates the other family.
const UNWRAPS: Since = Since {
    mainline: KernelVersion::new(6, 3, 0),
    backports: &[],
    source: "bpf: Add ipip6 and ip6ip decap support for bpf_skb_adjust_room",
};

const ROOM: Case = Case::new(
    "G22",
    "room-by-helpers",
    "A packet that gets longer at its end, or a header of the other family, says so, and its segments are as much shorter.",
    room,
)
.on(library::PAIR)
.over(everywhere);
fn room(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const LONGER: u32 = 100;
    const WRAPPED: [(Family, u32); 2] = [(Family::V4, 0x86dd << 16 | 0x0800), (Family::V6, 0x0800 << 16 | 0x86dd)];
    let testbed = ctx.testbed()?;
    let edits = [(edit::GROW, LONGER.into()), (edit::NOTHING, 0)];
    let [grown, after] =
        one_after_the_other(ctx, &testbed, variant, Proto::Udp, Family::V4, edits)?.map(|stats| stats.last);
    let lengths = (grown.edit_code, grown.edit_read, after.len);
    ctx.equal("results, length in between and after", lengths, (0, grown.len + LONGER, grown.len));
    if ctx.capabilities.has_change(&UNWRAPS) == Some(false) {
        return Ok(());
    }
    for (family, ethertypes) in WRAPPED.into_iter().filter(|(family, _)| family.is_available()) {
        let edits = [(edit::WRAP, 0), (edit::NOTHING, 0)];
        let [wrapped, after] = one_after_the_other(ctx, &testbed, variant, Proto::Tcp, family, edits)?;
        let seen = (wrapped.last.edit_code, wrapped.last.edit_read);
        ctx.equal(format!("{family}: results, EtherTypes in between and after"), seen, (0, ethertypes));
        ctx.check(format!("{family}: packets of several segments"), after.max_gso_size > 0, after.max_gso_size);
        ctx.equal(format!("{family}: packets whose segments were not as much shorter"), wrapped.misses, 0);
    }
    Ok(())
}

const CHECKSUM: Case = Case::new(
    "G23",
    "checksum-by-helper",
    "bpf_l4_csum_replace applies a change of two bytes to a checksum that is complete and to one that is still to be made.",
    checksum,
)
.on(library::PAIR)
.over(everywhere);
fn checksum(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const ADDED: u16 = 0x1234;
    let testbed = ctx.testbed()?;
    let (from, _) = ends(variant.direction());
    // In the complement's arithmetic, where both zeros are one (RFC 1624): inet_proto_csum_replace4().
    let plus = |sum: u16| (u32::from(sum) + u32::from(ADDED)) % 0xffff;
    let completed = |sum: u16| u32::from(!u16::try_from(plus(!sum)).unwrap_or_default()) % 0xffff;
    for (what, complete) in [("to be made", false), ("complete", true)] {
        if complete {
            ethtool::send_checksummed(testbed.net.ns(from.node), from.dev)?;
        }
        let edits = [(edit::SUM, ADDED.into()), (edit::NOTHING, 0)];
        let [changed, _] =
            one_after_the_other(ctx, &testbed, variant, Proto::Udp, Family::V4, edits)?.map(|stats| stats.last);
        ctx.equal(format!("{what}: the results"), changed.edit_code, 0);
        let [before, between] = [changed.edit_read >> 16, changed.edit_read & 0xffff].map(|half| half as u16);
        let wanted = if complete { completed(before) } else { plus(before) };
        ctx.equal(format!("{what}: the checksum {before:#x} after the change"), u32::from(between) % 0xffff, wanted);
    }
    Ok(())
}

const REFUSED: Case = Case::new(
    "N18",
    "clone-redirect-refused",
    "bpf_clone_redirect refuses flags that it does not have and a device that is not there, and the packet goes on.",
    refused,
)
.on(library::PAIR)
.over(everywhere);
fn refused(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const UNKNOWN: u64 = 1 << 20;
    const NOBODY: u32 = 0x7fff_fff0;
    let testbed = ctx.testbed()?;
    let (from, to) = variant.direction().ends("pod", "host");
    let own = match (variant.attach(), variant.direction()) {
        // The index is looked up where the packet's device is: for a PRIMARY program that is the pod.
        (AttachRequest::Netkit, Direction::ToWorkload) => testbed.net.ifindex("pod", "eth0"),
        _ => testbed.ifindex(P0),
    };
    for (what, target_ifindex, flags) in [("unknown flags", own, UNKNOWN), ("no such device", NOBODY, 0)] {
        let config = Config { number: edit::CLONE, redirect_flags: flags, target_ifindex, ..Config::new(ctx.marker) };
        let program = testbed.load(ctx, P0, ProgramKind::Edit, config)?;
        let attached = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
        testbed.flow_passes(ctx, from, to, Proto::Udp, Family::V4);
        ctx.equal(format!("{what}: the result"), program.stats()?.last.edit_code, -(Errno::EINVAL as i32));
        attached.detach()?;
    }
    Ok(())
}
