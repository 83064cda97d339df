//! What the sender of a packet hears of a verdict.

use lab_bpf::{Config, ProgramKind};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::Ctx,
    testbed::P0,
    variants,
};
use lab_protocol::{AttachRequest, AttachType};
use lab_topology::{Family, library};
use lab_traffic::{Proto, UdpProbe, UdpSink};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// include/uapi/linux/bpf.h
const BPF_F_INGRESS: u64 = 1;

/// In the order in which they run.
pub const CASES: &[Case] = &[SENDERS];

/// The verdicts of an egress hook, and whether clsact, tcx and netkit tell the sender of a drop.
///
/// `sch_handle_egress()` gives `NET_XMIT_DROP` for SHOT and `NET_XMIT_SUCCESS` for STOLEN, QUEUED and TRAP, which clsact has
/// consumed; tcx treats these as NEXT (`tcx_run()`). `netkit_xmit()` gives `NET_XMIT_DROP` for everything that it drops.
const VERDICTS: [(i32, &str, [bool; 3]); 9] = [
    (-1, "UNSPEC", [false, false, false]),
    (0, "OK", [false, false, false]),
    (1, "RECLASSIFY", [false, false, true]),
    (2, "SHOT", [true, true, true]),
    (3, "PIPE", [false, false, true]),
    (4, "STOLEN", [false, false, true]),
    (5, "QUEUED", [false, false, true]),
    (8, "TRAP", [false, false, true]),
    (42, "unassigned 42", [false, false, true]),
];

/// Whether a program's code drops, see V01.
fn drops(attach: AttachType, code: i32) -> bool {
    match attach {
        AttachType::Tc => matches!(code, 2 | 4 | 8),
        AttachType::Tcx => code == 2,
        AttachType::Netkit => !matches!(code, -1 | 0),
    }
}

const SENDERS: Case = Case::new(
    "V16",
    "senders",
    "A sender with IP_RECVERR hears ENOBUFS of egress verdicts that give NET_XMIT_DROP, one without hears nothing of any.",
    senders,
)
.on(library::PAIR)
.over(variants::usual_mechanisms)
.within(30_000);
fn senders(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let host = testbed.net.ns("host");
    for family in Family::available().iter().copied() {
        let to = SocketAddr::new(testbed.net.addr("pod", family), ctx.marker);
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let sink = UdpSink::bind(testbed.net.ns("pod"), to)?;
        let told = UdpProbe::connect(host, to)?;
        let untold = host.run(|| UdpSocket::bind((any, 0)))?;
        // Of IPv6, whose sockets are asked elsewhere, one verdict of each kind.
        let asked = VERDICTS.into_iter().filter(|(code, ..)| family == Family::V4 || matches!(code, 0 | 2 | 4));
        for (code, name, tells) in asked {
            let config = Config { verdict: code, ..Config::new(ctx.marker) };
            let program = testbed.load(ctx, P0, ProgramKind::Count, config)?;
            let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::ToWorkload, &program)?;
            let hook = attachment.hook.attach_type();
            let errno = told.send(&[code.cast_unsigned() as u8]).err().map(|error| error.raw_os_error());
            let wanted = tells[hook as usize].then_some(Some(Errno::ENOBUFS as i32));
            ctx.equal(format!("{name} ({code}), {family}: error with IP_RECVERR"), errno, wanted);
            let quiet = untold.send_to(&[code.cast_unsigned() as u8], to).err().map(|error| error.raw_os_error());
            ctx.equal(format!("{name} ({code}), {family}: error without it"), quiet, None);
            ctx.equal(format!("{name} ({code}), {family}: packets at the program"), program.stats()?.marked, 2);
            attachment.detach()?;
            // What passes arrives in order, so that a datagram that should have been dropped is seen by the next one's number.
            if !drops(hook, code) {
                let numbers: Vec<Option<u8>> = (0..2)
                    .map(|_| sink.receive(ctx.patience(1_000)).and_then(|(bytes, _)| bytes.first().copied()))
                    .collect();
                ctx.equal(
                    format!("{name} ({code}), {family}: datagrams"),
                    numbers,
                    vec![Some(code.cast_unsigned() as u8); 2],
                );
            }
        }
    }
    // REDIRECT, which needs a device: whatever becomes of the packet, its sender hears nothing.
    let to = SocketAddr::new(testbed.net.addr("pod", Family::V4), ctx.marker);
    let own = match variant.attach() {
        // The index is looked up where the packet's device is: for a PRIMARY program that is the pod.
        AttachRequest::Netkit => testbed.net.ifindex("pod", "eth0"),
        _ => testbed.ifindex(P0),
    };
    let config = Config { target_ifindex: own, redirect_flags: BPF_F_INGRESS, ..Config::new(ctx.marker) };
    let program = testbed.load(ctx, P0, ProgramKind::Redirect, config)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::ToWorkload, &program)?;
    let errno = UdpProbe::connect(host, to)?.send(b"redirected").err().map(|error| error.raw_os_error());
    ctx.equal("REDIRECT: error with IP_RECVERR", errno, None);
    ctx.equal("REDIRECT: packets at the program", program.stats()?.marked, 1);
    attachment.detach()?;
    testbed.flow_passes(ctx, "host", "pod", Proto::Icmp, Family::V4);
    Ok(())
}
