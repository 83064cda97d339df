//! bpf(2) calls that the kernel must refuse, and two that it must accept.

use crate::areas::mprog::chain::{Chain, next};
use lab_bpf::{BpfError, Config, Mprog, ProgramKind, XdpMode, edit, raw, raw::Redirect};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::Ctx,
    testbed::P0,
    variants,
};
use lab_protocol::{AttachRequest, Hook, LinkKind};
use lab_topology::{Family, library};
use lab_traffic::Proto;
use nix::errno::Errno;

const SCHED_CLS: u32 = raw::BPF_PROG_TYPE_SCHED_CLS;

/// In the order in which they run.
pub const CASES: &[Case] =
    &[FLAGS_AND_DESCRIPTORS, WITHOUT_CAPABILITIES, BYTES_BEYOND_THE_COMMAND, INTERNAL_REDIRECT_FLAGS, XDP];

const FLAGS_AND_DESCRIPTORS: Case = Case::new(
    "N01",
    "flags-and-descriptors",
    "Unknown flags, REPLACE for a new link, and descriptors that are not programs are refused; nothing changes.",
    flags_and_descriptors,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn flags_and_descriptors(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let (first, second) = (next()?, next()?);
    let link = chain.link(&first, &Mprog::default())?;
    chain.report(ctx, first.id())?;
    let state = chain.query()?;
    let unknown = |bit: u32| Mprog { raw_flags: 1 << bit, ..Mprog::default() };
    for bit in [0, 1, 14, 31] {
        ctx.refused(format!("a link with flag bit {bit}"), chain.link(&second, &unknown(bit)), Errno::EINVAL);
        ctx.refused(format!("a program with flag bit {bit}"), chain.attach(&second, &unknown(bit)), Errno::EINVAL);
    }
    let replace = chain.link(&second, &Mprog::replacing(&first));
    ctx.refused("a new link replacing another", replace, Errno::ENOENT);
    let no_program = std::fs::File::open("/proc/self/exe")?;
    ctx.refused("a link with a file as program", chain.link(&no_program, &Mprog::default()), Errno::EINVAL);
    ctx.refused("a link with a link as program", chain.link(&link, &Mprog::default()), Errno::EINVAL);
    ctx.refused("an update with a file as program", link.update(&no_program, None), Errno::EINVAL);
    ctx.check("nothing changed", chain.query()? == state, format!("{:?}", chain.query()?));
    Ok(())
}

const WITHOUT_CAPABILITIES: Case = Case::new(
    "N08",
    "without-capabilities",
    "A process without capabilities can attach a program whose descriptor it holds, but neither query nor load.",
    without_capabilities,
)
.on(library::PAIR)
.over(variants::link_mechanisms);
fn without_capabilities(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let ifindex = testbed.ifindex(P0);
    let hook = match variant.attach() {
        AttachRequest::Netkit => Hook::NetkitPeer,
        _ => Hook::TcxIngress,
    };
    let (link, query, load) = testbed.run(P0, || {
        lab_bpf::as_nobody(|| {
            let link = lab_bpf::attach_link(hook, ifindex, &*program, &Mprog::default());
            (link, lab_bpf::query(hook, ifindex), raw::minimal(SCHED_CLS, 0, 0))
        })
    })?;
    ctx.refused("a query", query, Errno::EPERM);
    ctx.refused("loading a program", load, Errno::EPERM);
    ctx.require("the attach", link.is_ok(), format!("{link:?}"))?;
    testbed.report(ctx, P0, variant.attach(), program.id(), Some(program.clone()))?;
    testbed.passes_counted(ctx, "pod", "host", Direction::FromWorkload, &program)?;
    drop(link);
    Ok(())
}

const BYTES_BEYOND_THE_COMMAND: Case = Case::new(
    "N09",
    "bytes-beyond-the-command",
    "A byte in the unused part of bpf_attr gives EINVAL, one beyond the known attributes E2BIG; zeros are accepted.",
    bytes_beyond,
);
fn bytes_beyond(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    /// Past the fields of `BPF_LINK_CREATE`, within the 120 bytes of attributes that 5.10 knows.
    const UNUSED: usize = 112;
    /// Past the attributes that any kernel knows.
    const UNKNOWN: usize = 1000;
    let program = raw::minimal(SCHED_CLS, 0, 0)?;
    ctx.refused("a link with an unused byte set", raw::link_with_byte_at(&program, UNUSED), Errno::EINVAL);
    ctx.refused("a link with an unknown byte set", raw::link_with_byte_at(&program, UNKNOWN), Errno::E2BIG);
    ctx.refused("a program with an unknown byte set", raw::load_with_byte_at(UNKNOWN), Errno::E2BIG);
    let zeros = raw::load_with_zeros_up_to(UNKNOWN);
    ctx.check("zeros are accepted", zeros.is_ok(), format!("{zeros:?}"));
    Ok(())
}

const INTERNAL_REDIRECT_FLAGS: Case = Case::new(
    "N10",
    "internal-redirect-flags",
    "bpf_redirect drops on the kernel's internal flags (neigh, peer, nexthop) and redirects with BPF_F_INGRESS; bpf_redirect_peer and bpf_redirect_neigh drop on that one too.",
    internal_redirect_flags,
);
fn internal_redirect_flags(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const FRAME: [u8; 60] = [0; 60];
    const DROP: u32 = 2;
    const REDIRECT: u32 = 7;
    for (name, flags, wanted) in [
        ("no flag", 0, REDIRECT),
        ("BPF_F_INGRESS", 1, REDIRECT),
        ("BPF_F_NEIGH", 1 << 16, DROP),
        ("BPF_F_PEER", 1 << 17, DROP),
        ("BPF_F_NEXTHOP", 1 << 18, DROP),
        ("an unassigned flag", 1 << 20, DROP),
    ] {
        let program = raw::redirecting(Redirect::Plain, 1, flags)?;
        ctx.equal(format!("bpf_redirect with {name}"), raw::test_run(&program, &FRAME)?, wanted);
    }
    for (helper, what) in [(Redirect::Peer, "bpf_redirect_peer"), (Redirect::Neigh, "bpf_redirect_neigh")] {
        for (name, flags, wanted) in
            [("no flag", 0, REDIRECT), ("BPF_F_INGRESS", 1, DROP), ("an unassigned flag", 1 << 20, DROP)]
        {
            let program = raw::redirecting(helper, 1, flags)?;
            ctx.equal(format!("{what} with {name}"), raw::test_run(&program, &FRAME)?, wanted);
        }
    }
    Ok(())
}

const XDP: Case = Case::new(
    "N12",
    "xdp",
    "netkit refuses native XDP with EOPNOTSUPP and veth accepts it; generic XDP runs on both and traffic passes. Programs at tc ingress see the metadata of either.",
    xdp,
)
.on(library::PAIR)
.over(variants::devices);
fn xdp(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const PASS: i32 = 2;
    const METADATA: i32 = 8;
    let testbed = ctx.testbed()?;
    let ifindex = testbed.ifindex(P0);
    let program = raw::minimal(raw::BPF_PROG_TYPE_XDP, 0, PASS)?;
    let attach = |mode| testbed.run(P0, || lab_bpf::attach_xdp(ifindex, &program, mode));
    let native: Result<_, BpfError> = attach(XdpMode::Native);
    if variant.device() == LinkKind::Veth {
        ctx.check("native XDP on veth", native.is_ok(), format!("{native:?}"));
        // A device has one XDP program, native or generic.
        drop(native);
    } else {
        ctx.refused("native XDP on netkit", native, Errno::EOPNOTSUPP);
    }
    let generic = attach(XdpMode::Generic)?;
    let info = generic.info()?;
    ctx.equal("the generic link's program and device", (info.prog_id, info.ifindex), (program.id(), ifindex));
    for family in Family::available().iter().copied() {
        testbed.flow_passes(ctx, "pod", "host", Proto::Udp, family);
    }
    let drop_all = raw::minimal(raw::BPF_PROG_TYPE_XDP, 0, 1)?;
    generic.update(&drop_all, None)?;
    let report = testbed.silence(ctx, "pod", "host", Proto::Udp, Family::V4);
    ctx.check("a dropping generic program drops", report.lost(), &report);
    drop(generic);
    let config = Config { number: edit::METADATA, ..Config::new(ctx.marker) };
    let reading = testbed.load(ctx, P0, ProgramKind::Edit, config)?;
    let _reading = testbed.attach(ctx, P0, AttachRequest::Tc, Direction::FromWorkload, &reading)?;
    let writing = raw::xdp_metadata(METADATA)?;
    for mode in [XdpMode::Native, XdpMode::Generic] {
        if mode == XdpMode::Native && variant.device() != LinkKind::Veth {
            continue;
        }
        let link = testbed.run(P0, || lab_bpf::attach_xdp(ifindex, &writing, mode))?;
        testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
        let read = reading.stats()?.last.edit_read;
        ctx.equal(format!("{mode:?}: bytes of metadata at tc ingress"), read, METADATA.cast_unsigned());
        drop(link);
    }
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    ctx.equal("bytes of metadata without XDP", reading.stats()?.last.edit_read, 0);
    Ok(())
}
