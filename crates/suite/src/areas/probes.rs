//! What the probes rest on: the same questions asked by the cases' own means, and held against the release.

use crate::{
    case::{Area, Case, CaseResult, Variant},
    ctx::Ctx,
    probe,
};
use lab_bpf::{Mprog, ProgArray, probe::BPF_F_EGRESS, raw};
use lab_protocol::{Capability, Hook};
use lab_topology::{LinkKind, NetkitOptions, Netns, PairRequest, link};
use nix::errno::Errno;

const SCHED_CLS: u32 = raw::BPF_PROG_TYPE_SCHED_CLS;

pub const CASES: &[Case] = &[
    Case::new(
        "D06",
        "headroom-by-read-back",
        Area::Detection,
        "solo",
        "A netkit pair with headroom and tailroom is always made; whether both read back is a fact of the release.",
        headroom,
    )
    .needs(&[Capability::Netkit]),
    Case::new(
        "D07",
        "single-by-read-back",
        Area::Detection,
        "solo",
        "A kernel without single mode makes a pair instead and says nothing; one with it takes no netkit program there.",
        single,
    )
    .needs(&[Capability::Netkit]),
    Case::new(
        "D08",
        "redirect-peer-egress",
        Area::Detection,
        "solo",
        "bpf_redirect_peer answers BPF_F_EGRESS by redirect or by drop, as the release says; unknown flags always by drop.",
        redirect_peer_egress,
    ),
    Case::new(
        "D09",
        "prog-array-enforcement",
        Area::Detection,
        "solo",
        "Callees and callers of another expected_attach_type are refused alike or taken alike, as the release says.",
        prog_array_enforcement,
    ),
    Case::new(
        "D12",
        "leftovers-of-a-probe",
        Area::Detection,
        "solo",
        "Devices that a crashed probe left behind under its names change no answer, and probing leaves them alone.",
        leftovers,
    ),
];

/// Whether the probe and the release agree; what kernels.toml lists as unsupported is the host's concern.
pub fn as_released(ctx: &mut Ctx, capability: Capability) -> bool {
    let probed = ctx.capabilities.has(capability);
    let expected = capability.since().expected_on(ctx.capabilities.kernel());
    ctx.equal(format!("{capability} as this release is known for"), probed, expected);
    probed
}

fn headroom(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const ROOMS: (u16, u16) = (64, 32);
    let has = as_released(ctx, Capability::NetkitHeadroom);
    for kind in [LinkKind::NetkitL2, LinkKind::NetkitL3] {
        let ns = Netns::new("probe")?;
        let options = NetkitOptions { headroom: Some(ROOMS.0), tailroom: Some(ROOMS.1), ..NetkitOptions::default() };
        let made = link::create_pair(&ns, &PairRequest::new(kind, "nk0", "nk1").netkit(options));
        ctx.require("the request succeeds", made.is_ok(), format!("{made:?}"))?;
        let netkit = link::info(&ns, "nk0")?.netkit.unwrap_or_default();
        let rooms = netkit.headroom.zip(netkit.tailroom);
        ctx.equal(format!("{kind}: headroom and tailroom read back"), rooms, has.then_some(ROOMS));
    }
    Ok(())
}

fn single(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let has = as_released(ctx, Capability::NetkitSingle);
    let ns = Netns::new("probe")?;
    let options = NetkitOptions { single: Some(true), ..NetkitOptions::default() };
    let mut request = PairRequest::new(LinkKind::NetkitL2, "nk%d", "").netkit(options);
    request.without_peer_info = true;
    let made = link::create_pair(&ns, &request);
    ctx.require("the request succeeds", made.is_ok(), format!("{made:?}"))?;
    let devices: Vec<String> =
        link::list(&ns)?.into_iter().filter(|info| info.kind.is_netkit()).map(|info| info.name).collect();
    ctx.equal("netkit devices that came of it", devices.len(), if has { 1 } else { 2 });
    let ifindex = link::info(&ns, &devices[0])?.ifindex;
    let program = raw::minimal(SCHED_CLS, 0, -1)?;
    if has {
        for hook in [Hook::NetkitPrimary, Hook::NetkitPeer] {
            let result = ns.run(|| lab_bpf::attach_link(hook, ifindex, &program, &Mprog::default()));
            ctx.refused(format!("{hook} on a device without a peer"), result, Errno::EOPNOTSUPP);
        }
    }
    let tcx = ns.run(|| lab_bpf::attach_link(Hook::TcxIngress, ifindex, &program, &Mprog::default()));
    ctx.check("tcx attaches to either", tcx.is_ok(), format!("{tcx:?}"));
    drop(tcx);
    link::delete(&ns, &devices[0])?;
    let left = link::list(&ns)?.into_iter().filter(|info| info.kind.is_netkit()).count();
    ctx.equal("devices left after deleting one", left, 0);
    Ok(())
}

fn redirect_peer_egress(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const FRAME: [u8; 60] = [0; 60];
    const DROP: u32 = 2;
    const REDIRECT: u32 = 7;
    /// A flag that the helper has never known.
    const UNKNOWN: i32 = 1 << 5;
    let has = as_released(ctx, Capability::RedirectPeerEgress);
    for (name, flags, wanted) in [
        ("no flag", 0, REDIRECT),
        ("BPF_F_EGRESS", BPF_F_EGRESS as i32, if has { REDIRECT } else { DROP }),
        ("an unknown flag", UNKNOWN, DROP),
    ] {
        let program = raw::redirecting(raw::Redirect::Peer, 1, flags)?;
        ctx.equal(format!("bpf_redirect_peer with {name}"), raw::test_run(&program, &FRAME)?, wanted);
    }
    Ok(())
}

fn prog_array_enforcement(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const SLOTS: u32 = 2;
    let strict = as_released(ctx, Capability::ProgArrayStrict);
    let owned = || {
        let map = ProgArray::create(SLOTS)?;
        map.insert(0, &raw::minimal(SCHED_CLS, 0, -1)?).map(|()| map)
    };
    for hook in [Hook::TcxIngress, Hook::TcxEgress, Hook::NetkitPrimary, Hook::NetkitPeer] {
        let other = lab_bpf::expected_attach_type(hook);
        let callee = owned()?.insert(1, &raw::minimal(SCHED_CLS, other, -1)?).map_err(|error| error.errno());
        let caller = raw::tail_caller(&owned()?, 1, other, -1).map(drop).map_err(|error| error.errno());
        let wanted = if strict { Err(Some(Errno::EINVAL)) } else { Ok(()) };
        ctx.equal(format!("a callee of {hook}'s type"), callee, wanted);
        ctx.equal(format!("a caller of {hook}'s type"), caller, wanted);
        let unowned = ProgArray::create(SLOTS)?.insert(0, &raw::minimal(SCHED_CLS, other, -1)?);
        ctx.check(format!("a fresh map takes {hook}'s type"), unowned.is_ok(), format!("{unowned:?}"));
    }
    Ok(())
}

fn leftovers(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let ns = Netns::new("crashed")?;
    for name in [probe::DEVICES.0, probe::DEVICES.1] {
        link::create_dummy(&ns, name)?;
    }
    let kernel = ctx.capabilities.kernel();
    let again = ns.run(|| probe::all(kernel));
    let states = |reports: &[lab_protocol::CapabilityReport]| {
        reports.iter().map(|report| (report.capability, report.state)).collect::<Vec<_>>()
    };
    let first = states(ctx.capabilities.reports());
    ctx.equal("answers beside the leftovers", states(&again), first);
    for name in [probe::DEVICES.0, probe::DEVICES.1] {
        let left = link::info(&ns, name);
        ctx.check(format!("{name} is untouched"), left.is_ok(), format!("{left:?}"));
    }
    Ok(())
}
