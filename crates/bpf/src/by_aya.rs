//! Attaches with aya's own functions, for cases that check which attach type aya uses.

use crate::{
    BpfError, ProgramKind, Programs, TcDirection,
    error::errno_in,
    load::{self, object_error},
    program::id_of,
};
use aya::{
    Ebpf,
    programs::{ProgramError, TcAttachType},
};
use lab_abi::Config;

/// An attachment that aya made and that ends with this value.
#[derive(Debug)]
pub struct AyaAttachment {
    prog_id: u32,
    _ebpf: Ebpf,
}

impl AyaAttachment {
    /// Kernel id of the program; [`crate::find`] reports where it is attached.
    pub const fn prog_id(&self) -> u32 {
        self.prog_id
    }
}

/// Whether aya can read the running kernel's version: three numbers, or nothing. Debian's candidates (`Debian
/// 7.3~rc7-1~exp1`) have two, and aya then behaves as on a kernel older than any (`KernelVersion::at_least`).
pub fn aya_reads_version() -> bool {
    aya::util::KernelVersion::current().is_ok()
}

/// `SchedClassifier::attach`: aya 0.14 chooses tcx from kernel 6.6 on and clsact below, by version, whatever the
/// device; clsact must be there. A version that it cannot read counts as below ([`aya_reads_version`]).
///
/// # Errors
/// [`BpfError::Load`], [`BpfError::Object`]; [`BpfError::Call`] where attaching fails.
pub fn attach_by_aya(
    programs: &Programs,
    kind: ProgramKind,
    config: &Config,
    interface: &str,
    direction: TcDirection,
) -> Result<AyaAttachment, BpfError> {
    let mut ebpf = programs.loaded_by_aya(kind, config)?;
    let program = load::classifier(&mut ebpf, kind)?;
    let fault = |error: ProgramError| match errno_in(&error) {
        Some(errno) => BpfError::call(format!("aya's attach to {interface}"), errno),
        None => object_error(kind.name(), format!("aya's attach to {interface}: {error}")),
    };
    let prog_id = id_of(program.fd().map_err(fault)?)?;
    let direction = match direction {
        TcDirection::Ingress => TcAttachType::Ingress,
        TcDirection::Egress => TcAttachType::Egress,
    };
    program.attach(interface, direction).map_err(fault)?;
    Ok(AyaAttachment { prog_id, _ebpf: ebpf })
}
