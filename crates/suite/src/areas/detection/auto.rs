//! Probes, auto mode, and missing mechanisms.

use lab_bpf::Mprog;
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{AsErrno, Ctx},
    detect::attaches_netkit,
    testbed::{P0, Spot, hook},
    variants,
};
use lab_protocol::{AttachRequest, AttachType, Capability, Hook, LinkKind};
use lab_topology::{NetkitOptions, Netns, PairRequest, Scrub, ethtool, library, link};
use nix::errno::Errno;

/// In the order in which they run.
pub const CASES: &[Case] = &[
    LOADING_PROVES_NOTHING,
    TCX_PROBE,
    NETKIT_DEVICE_PROBE,
    NETKIT_ATTACH_PROBE,
    UNKNOWN_ATTRIBUTES_ARE_ACCEPTED,
    AUTO,
    NO_SILENT_FALLBACK,
    AUTO_IS_PER_INTERFACE,
    DRIVER_NAME,
];

const DUMMY: Spot = Spot { node: "host", dev: "dummy0" };

const LOADING_PROVES_NOTHING: Case = Case::new(
    "D01",
    "loading-proves-nothing",
    "BPF_PROG_LOAD accepts any expected_attach_type, so a load probe detects neither tcx nor netkit.",
    loading_proves_nothing,
);
fn loading_proves_nothing(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let answer = lab_bpf::probe::load_accepts_any_expected_attach_type()?;
    ctx.check("an unassigned expected_attach_type loads", answer.supported, answer.detail);
    for hook in [Hook::TcxIngress, Hook::NetkitPrimary] {
        let expected = lab_bpf::expected_attach_type(hook);
        let loaded = lab_bpf::raw::minimal(lab_bpf::raw::BPF_PROG_TYPE_SCHED_CLS, expected, 0);
        ctx.check(format!("{hook}'s expected_attach_type loads on any kernel"), loaded.is_ok(), format!("{loaded:?}"));
    }
    Ok(())
}

const TCX_PROBE: Case = Case::new(
    "D02",
    "tcx-probe",
    "BPF_LINK_CREATE on a temporary device succeeds with tcx and fails with EINVAL without it, as the probe reports.",
    tcx_probe,
)
.on(library::SOLO);
fn tcx_probe(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let ifindex = testbed.ifindex(DUMMY);
    let answer = testbed.run(DUMMY, || lab_bpf::probe::tcx(ifindex))?;
    ctx.equal("the probe agrees with the report", answer.supported, ctx.capabilities.has(Capability::Tcx));
    Ok(())
}

const NETKIT_DEVICE_PROBE: Case = Case::new(
    "D03",
    "netkit-device-probe",
    "RTM_NEWLINK succeeds with netkit and fails with EOPNOTSUPP without it, as the probe reports.",
    netkit_device_probe,
);
fn netkit_device_probe(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let ns = Netns::new("probe")?;
    let has = ctx.capabilities.has(Capability::Netkit);
    for kind in [LinkKind::NetkitL2, LinkKind::NetkitL3] {
        let result = link::create_pair(&ns, &PairRequest::new(kind, "nk0", "nk1"));
        if has {
            let made = result.and_then(|()| link::info(&ns, "nk0")).map(|info| info.kind);
            ctx.check(
                format!("a {kind} pair is created"),
                made.as_ref().ok() == Some(&kind.into()),
                format!("{made:?}"),
            );
            link::delete(&ns, "nk0")?;
        } else {
            ctx.refused(format!("a {kind} pair is refused"), result, Errno::EOPNOTSUPP);
        }
    }
    Ok(())
}

const NETKIT_ATTACH_PROBE: Case = Case::new(
    "D04",
    "netkit-attach-probe",
    "A netkit attach to lo fails with ENXIO if the kernel has the attach type and with EINVAL if not.",
    netkit_attach_probe,
);
fn netkit_attach_probe(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let ns = Netns::new("probe")?;
    let answer = ns.run(|| lab_bpf::probe::netkit_attach(1))?;
    let has = attaches_netkit(&ctx.capabilities)?;
    ctx.check("the errno agrees with the kernel's symbols", answer.supported == has, answer.detail);
    Ok(())
}

const UNKNOWN_ATTRIBUTES_ARE_ACCEPTED: Case = Case::new(
    "D05",
    "unknown-attributes-are-accepted",
    "An unknown netkit attribute is accepted but not reported: only reading back detects it.",
    unknown_attributes,
)
.needs(&[Capability::Netkit]);
fn unknown_attributes(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    /// An attribute number that no kernel has assigned.
    const UNASSIGNED: u16 = 200;
    let ns = Netns::new("probe")?;
    let options = NetkitOptions {
        scrub: Some(Scrub::None),
        headroom: Some(64),
        raw: vec![(UNASSIGNED, 1u32.to_ne_bytes().to_vec())],
        ..NetkitOptions::default()
    };
    let result = link::create_pair(&ns, &PairRequest::new(LinkKind::NetkitL2, "nk0", "nk1").netkit(options));
    ctx.require("the request succeeds", result.is_ok(), format!("{result:?}"))?;
    let netkit = link::info(&ns, "nk0")?.netkit.unwrap_or_default();
    ctx.equal("scrub reads back as probed", netkit.scrub.is_some(), ctx.capabilities.has(Capability::NetkitScrub));
    ctx.equal(
        "headroom reads back as probed",
        netkit.headroom == Some(64),
        ctx.capabilities.has(Capability::NetkitHeadroom),
    );
    Ok(())
}

const AUTO: Case = Case::new(
    "D10",
    "auto",
    "Auto mode uses netkit on a netkit device, else tcx, else tc, and the program runs on every packet.",
    auto,
)
.on(library::PAIR)
.over(variants::auto_hooks);
fn auto(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, AttachRequest::Auto, variant.direction(), &program)?;
    let seen = testbed.find(P0, &program)?;
    ctx.equal("listed on the hook to which it was attached", seen.map(|seen| seen.hook), Some(attachment.hook));
    testbed.passes_counted(ctx, "pod", "host", variant.direction(), &program)
}

const NO_SILENT_FALLBACK: Case = Case::new(
    "D11",
    "no-silent-fallback",
    "An explicit request for a mechanism that the kernel lacks is an error and attaches nothing.",
    no_silent_fallback,
)
.on(library::PAIR)
.over(|| vec![Variant { device: Some(LinkKind::Veth), ..Variant::default() }]);
fn no_silent_fallback(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let ifindex = testbed.ifindex(P0);
    let program = testbed.counter(ctx, P0)?;
    for attach_type in [AttachType::Tcx, AttachType::Netkit] {
        let asked = hook(attach_type, Direction::FromWorkload);
        let result = testbed.run(P0, || lab_bpf::attach_link(asked, ifindex, &*program, &Mprog::default()));
        let listed = testbed.find(P0, &program)?.map(|seen| seen.hook);
        match (attach_type, ctx.capabilities.has(Capability::Tcx)) {
            (AttachType::Tcx, true) => {
                ctx.check("tcx attaches if the kernel has it", result.is_ok(), format!("{result:?}"));
                ctx.equal("listed as tcx", listed, Some(Hook::TcxIngress));
            }
            _ => {
                let errno = result.as_ref().err().and_then(AsErrno::errno);
                let fits = matches!(errno, Some(Errno::EINVAL | Errno::ENXIO));
                ctx.check(format!("{attach_type} is refused on veth"), fits, format!("{errno:?}"));
                ctx.equal(format!("{attach_type}: nothing is attached instead"), listed, None);
            }
        }
        drop(result);
    }
    Ok(())
}

const AUTO_IS_PER_INTERFACE: Case = Case::new(
    "D13",
    "auto-is-per-interface",
    "On a node with veth and netkit, auto mode uses the attach type of each interface's own kind.",
    auto_per_interface,
)
.on(library::MIXED)
.needs(&[Capability::Netkit]);
fn auto_per_interface(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let spots = ["p0", "p1", "p2"].map(|dev| Spot { node: "host", dev });
    let mut attachments = Vec::new();
    for spot in spots {
        let program = testbed.counter(ctx, spot)?;
        attachments.push(testbed.attach(ctx, spot, AttachRequest::Auto, Direction::FromWorkload, &program)?);
    }
    let hooks: Vec<Hook> = attachments.iter().map(|attachment| attachment.hook).collect();
    ctx.equal("hooks of veth, netkit L2, netkit L3", hooks, vec![Hook::TcxIngress, Hook::NetkitPeer, Hook::NetkitPeer]);
    for (from, to) in [("w0", "w1"), ("w1", "w2"), ("w2", "w0")] {
        testbed.passes(ctx, from, to)?;
    }
    Ok(())
}

const DRIVER_NAME: Case = Case::new(
    "D15",
    "driver-name",
    "ethtool gives the kind of both ends of a pair as the name of their driver: veth or netkit.",
    driver_name,
)
.on(library::PAIR)
.over(variants::devices);
fn driver_name(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let wanted = if variant.device().is_netkit() { "netkit" } else { "veth" };
    for (node, dev) in [("host", P0.dev), ("pod", "eth0")] {
        ctx.equal(format!("driver of {dev} in {node}"), &*ethtool::driver(testbed.net.ns(node), dev)?, wanted);
    }
    Ok(())
}
