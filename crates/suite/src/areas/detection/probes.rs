//! Checks the probes: the cases do the same operations, and compare the results with the release.

use lab_bpf::{Mprog, ProgArray, probe::BPF_F_EGRESS, raw};
use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::Ctx,
    probe,
    testbed::P0,
    variants,
};
use lab_protocol::{Capability, Hook};
use lab_topology::{LinkKind, NetkitOptions, Netns, PairRequest, library, link};
use nix::errno::Errno;

const SCHED_CLS: u32 = raw::BPF_PROG_TYPE_SCHED_CLS;

/// In the order in which they run.
pub const CASES: &[Case] = &[
    HEADROOM_BY_READ_BACK,
    SINGLE_BY_READ_BACK,
    REDIRECT_PEER_EGRESS,
    PROG_ARRAY_ENFORCEMENT,
    LEFTOVERS_OF_A_PROBE,
    TEST_RUN_DEVICE,
];

/// Whether the probe agrees with the release; the host handles entries under `unsupported` in kernels.toml.
pub fn as_released(ctx: &mut Ctx, capability: Capability) -> bool {
    let probed = ctx.capabilities.has(capability);
    let expected = ctx.capabilities.is_known_for(capability);
    ctx.equal(format!("{capability} as documented for this kernel"), probed, expected);
    probed
}

const HEADROOM_BY_READ_BACK: Case = Case::new(
    "D06",
    "headroom-by-read-back",
    "Creating a netkit pair with headroom and tailroom always succeeds; whether both read back depends on the release.",
    headroom,
)
.needs(&[Capability::Netkit]);
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

const SINGLE_BY_READ_BACK: Case = Case::new(
    "D07",
    "single-by-read-back",
    "A kernel without single mode silently creates a pair; one with it refuses netkit programs on a single device.",
    single,
)
.needs(&[Capability::Netkit]);
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
    ctx.equal("number of created netkit devices", devices.len(), if has { 1 } else { 2 });
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
    ctx.equal("remaining devices after deleting one", left, 0);
    Ok(())
}

const REDIRECT_PEER_EGRESS: Case = Case::new(
    "D08",
    "redirect-peer-egress",
    "bpf_redirect_peer with BPF_F_EGRESS redirects or drops, depending on the release; unknown flags always drop.",
    redirect_peer_egress,
);
fn redirect_peer_egress(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const FRAME: [u8; 60] = [0; 60];
    const DROP: u32 = 2;
    const REDIRECT: u32 = 7;
    /// A flag that the helper has never supported.
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

const PROG_ARRAY_ENFORCEMENT: Case = Case::new(
    "D09",
    "prog-array-enforcement",
    "Callees and callers of another expected_attach_type are both refused or both accepted, depending on the release.",
    prog_array_enforcement,
);
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
        ctx.check(format!("a fresh map accepts {hook}'s type"), unowned.is_ok(), format!("{unowned:?}"));
    }
    Ok(())
}

const LEFTOVERS_OF_A_PROBE: Case = Case::new(
    "D12",
    "leftovers-of-a-probe",
    "Devices that a crashed probe left behind under its names change no result, and probing does not touch them.",
    leftovers,
)
.needs(&[Capability::Dummy]);
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
    ctx.equal("probe results with the leftover devices", states(&again), first);
    for name in [probe::DEVICES.0, probe::DEVICES.1] {
        let left = link::info(&ns, name);
        ctx.check(format!("{name} is untouched"), left.is_ok(), format!("{left:?}"));
    }
    Ok(())
}

const TEST_RUN_DEVICE: Case = Case::new(
    "D16",
    "test-run-device",
    "BPF_PROG_TEST_RUN gives a program a packet of the device that is named, of loopback without a name, and ENODEV for one that is not there.",
    test_run_device,
)
.on(library::PAIR)
.over(variants::devices);
fn test_run_device(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const LOOPBACK: u32 = 1;
    const NOBODY: u32 = 0x7fff_fff0;
    const FRAME: [u8; 60] = [0; 60];
    let testbed = ctx.testbed()?;
    let program = raw::device_of_packet()?;
    let device = testbed.ifindex(P0);
    let at = |ifindex| testbed.run(P0, || raw::test_run_at(&program, &FRAME, ifindex));
    ctx.equal(
        "the device that the program sees without a context",
        testbed.run(P0, || raw::test_run(&program, &FRAME))?,
        LOOPBACK,
    );
    ctx.equal("the device that the program sees", at(device)?, device);
    ctx.refused("a device that is not there", at(NOBODY), Errno::ENODEV);
    Ok(())
}
