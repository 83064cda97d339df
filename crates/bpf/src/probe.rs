//! Probes of the running kernel: each uses the feature, none checks the version.

use crate::{
    BpfError, Mprog, ProgArray, attach_link, expected_attach_type, query,
    raw::{self, BPF_PROG_TYPE_SCHED_CLS},
};
use lab_abi::{VERDICT_NEXT, VERDICT_REDIRECT};
use lab_protocol::Hook;
use nix::errno::Errno;

/// An expected attach type that no kernel has assigned.
const UNASSIGNED: u32 = 200;

/// A probe's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// Whether the kernel can do it.
    pub supported: bool,
    /// The call and what came of it.
    pub detail: String,
}

impl ProbeResult {
    fn new(supported: bool, detail: impl Into<String>) -> Self {
        Self { supported, detail: detail.into() }
    }
}

/// Attaches a link to tcx ingress of any device, reads it back and lets it go.
///
/// # Errors
/// Whatever does not mean "no tcx", which is `EINVAL`.
pub fn tcx(ifindex: u32) -> Result<ProbeResult, BpfError> {
    let program = raw::minimal(BPF_PROG_TYPE_SCHED_CLS, 0, VERDICT_NEXT)?;
    let link = match attach_link(Hook::TcxIngress, ifindex, &program, &Mprog::default()) {
        Ok(link) => link,
        Err(error) if error.errno() == Some(Errno::EINVAL) => return Ok(ProbeResult::new(false, error.to_string())),
        Err(error) => return Err(error),
    };
    let link_id = link.info()?.id;
    let listed = query(Hook::TcxIngress, ifindex)?.entries.iter().any(|entry| entry.link_id == Some(link_id));
    let detail = if listed { "link attached and listed" } else { "link attached, but BPF_PROG_QUERY does not list it" };
    Ok(ProbeResult::new(listed, detail))
}

/// Tries a netkit link on a device that is no netkit device, `lo` for one: the errno tells whether the kernel knows the
/// attach type at all.
///
/// # Errors
/// Any other errno.
pub fn netkit_attach(ifindex: u32) -> Result<ProbeResult, BpfError> {
    let program = raw::minimal(BPF_PROG_TYPE_SCHED_CLS, 0, VERDICT_NEXT)?;
    match attach_link(Hook::NetkitPrimary, ifindex, &program, &Mprog::default()) {
        Ok(_link) => Ok(ProbeResult::new(true, "link attached")),
        Err(error) => match error.errno() {
            Some(Errno::EINVAL) => Ok(ProbeResult::new(false, error.to_string())),
            Some(Errno::ENXIO | Errno::EACCES) => Ok(ProbeResult::new(
                true,
                format!("{error}: the attach type is known, the device is not netkit's primary"),
            )),
            _ => Err(error),
        },
    }
}

/// Whether a prog_array refuses a program of another expected attach type ("bpf: Enforce expected_attach_type for
/// tailcall compatibility").
///
/// # Errors
/// Any errno other than `EINVAL`.
pub fn prog_array_strict() -> Result<ProbeResult, BpfError> {
    let map = ProgArray::create(2)?;
    let owner = raw::minimal(BPF_PROG_TYPE_SCHED_CLS, 0, VERDICT_NEXT)?;
    map.insert(0, &owner)?;
    let other = expected_attach_type(Hook::TcxIngress);
    let stranger = raw::minimal(BPF_PROG_TYPE_SCHED_CLS, other, VERDICT_NEXT)?;
    match map.insert(1, &stranger) {
        Ok(()) => Ok(ProbeResult::new(false, format!("a map owned by type 0 took a program of type {other}"))),
        Err(error) if error.errno() == Some(Errno::EINVAL) => {
            Ok(ProbeResult::new(true, format!("a map owned by type 0 refused a program of type {other}: {error}")))
        }
        Err(error) => Err(error),
    }
}

/// Whether programs can call `bpf_check_mtu` ("bpf: Add BPF-helper for MTU checking"), asked of a packet that fits.
///
/// # Errors
/// Any errno of `BPF_PROG_LOAD` other than `EINVAL`, and whatever keeps a program from being run on a packet.
pub fn check_mtu() -> Result<ProbeResult, BpfError> {
    /// The shortest Ethernet frame, of an unused protocol.
    const FRAME: [u8; 60] = [0; 60];
    /// `BPF_MTU_CHK_RET_SUCCESS` of include/uapi/linux/bpf.h.
    const FITS: u32 = 0;
    let program = match raw::checking_mtu() {
        Ok(program) => program,
        Err(error) if error.errno() == Some(Errno::EINVAL) => return Ok(ProbeResult::new(false, error.to_string())),
        Err(error) => return Err(error),
    };
    let answer = raw::test_run(&program, &FRAME)?;
    let detail = format!("bpf_check_mtu returns {} for a packet of 60 bytes", answer.cast_signed());
    Ok(ProbeResult::new(answer == FITS, detail))
}

/// `BPF_F_EGRESS` of include/uapi/linux/bpf.h.
pub const BPF_F_EGRESS: u64 = 1 << 1;

/// Whether `bpf_redirect_peer` takes `BPF_F_EGRESS` ("bpf: Support BPF_F_EGRESS with bpf_redirect_peer"): by what the
/// helper answers, since any flag that it does not know is a drop.
///
/// # Errors
/// Whatever keeps a program from being run on a packet.
pub fn redirect_peer_egress() -> Result<ProbeResult, BpfError> {
    /// The shortest Ethernet frame, of an unused protocol.
    const FRAME: [u8; 60] = [0; 60];
    let answer = |flags| raw::test_run(&raw::redirecting(raw::Redirect::Peer, 1, flags)?, &FRAME).map(u32::cast_signed);
    let (plain, egress) = (answer(0)?, answer(BPF_F_EGRESS as i32)?);
    let supported = plain == VERDICT_REDIRECT && egress == VERDICT_REDIRECT;
    Ok(ProbeResult::new(
        supported,
        format!("bpf_redirect_peer returns {plain} without flags, {egress} with BPF_F_EGRESS"),
    ))
}

/// Whether `BPF_PROG_LOAD` takes any expected attach type for `BPF_PROG_TYPE_SCHED_CLS`. Known kernels do, so that
/// loading proves nothing about attaching.
///
/// # Errors
/// Any errno other than `EINVAL`.
pub fn load_accepts_any_expected_attach_type() -> Result<ProbeResult, BpfError> {
    match raw::minimal(BPF_PROG_TYPE_SCHED_CLS, UNASSIGNED, VERDICT_NEXT) {
        Ok(_program) => Ok(ProbeResult::new(true, format!("a program of type {UNASSIGNED} loaded"))),
        Err(error) if error.errno() == Some(Errno::EINVAL) => Ok(ProbeResult::new(false, error.to_string())),
        Err(error) => Err(error),
    }
}
