//! The calls of bpf(2) by the raw tracepoints of system calls, where the kernel's functions can't be watched.

use super::{KERNEL, Watch, WatchError, WatchObject, read};
use crate::{
    BpfError, attr,
    btf::{Btf, BtfKind},
    object::{Parsed, Want},
    program::id_of,
    raw::Function,
    sys::{self, Command},
};
use aya::maps::MapData;
use lab_abi::witness::{WitnessConfig, kind};
use std::{
    collections::HashMap,
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// `BPF_PROG_TYPE_RAW_TRACEPOINT` and `BPF_PROG_TYPE_TRACING` of `enum bpf_prog_type`.
const RAW_TRACEPOINT: u32 = 17;
const TRACING: u32 = 26;
/// `BPF_TRACE_RAW_TP` of `enum bpf_attach_type`.
const RAW_TP: u32 = 23;
/// The types of the two tracepoints' arguments.
const ENTER_TYPE: &str = "btf_trace_sys_enter";
const EXIT_TYPE: &str = "btf_trace_sys_exit";

/// One program on one tracepoint.
struct Tracepoint {
    program: &'static str,
    name: &'static CStr,
    /// The type of its arguments, for a program that reads them by their types.
    arguments: Option<u32>,
}

impl Watch {
    /// Watches the calls of bpf(2) by the raw tracepoints of system calls. The programs read the caller's registers by a helper, or
    /// by their types where the kernel is locked down and refuses the helper.
    ///
    /// # Errors
    /// [`WatchError::Calls`] where the kernel takes neither.
    pub fn calls(object: &WatchObject, own_tgid: u32) -> Result<Self, WatchError> {
        let config = WitnessConfig { own_tgid, kind: kind::CALL, ..WitnessConfig::default() };
        let plain = |program, name| Tracepoint { program, name, arguments: None };
        // The end first: nothing that is seen to begin lacks its end.
        let by_helper = [plain("call_ends", c"sys_exit"), plain("call_begins", c"sys_enter")];
        let first = match Self::on(object, &by_helper, config) {
            Ok(watch) => return Ok(watch),
            Err(error) => line(&error),
        };
        let typed = || -> Result<[Tracepoint; 2], WatchError> {
            let kernel = read(Path::new(KERNEL)).and_then(|bytes| Ok(Btf::parse(bytes, None)?))?;
            let known = kernel.find(&[(BtfKind::Typedef, ENTER_TYPE), (BtfKind::Typedef, EXIT_TYPE)]);
            let of = |program, name, arguments| Tracepoint { program, name, arguments: known.get(arguments).copied() };
            Ok([of("call_ends", c"sys_exit", EXIT_TYPE), of("call_begins_typed", c"sys_enter", ENTER_TYPE)])
        };
        let second = typed().and_then(|typed| Self::on(object, &typed, config));
        second.map_err(|second| WatchError::Calls(format!("{first}; by their types: {}", line(&second))))
    }

    fn on(object: &WatchObject, tracepoints: &[Tracepoint], config: WitnessConfig) -> Result<Self, WatchError> {
        let maps = object.0.maps("witness", &[])?;
        let mut made = (Vec::new(), Vec::new());
        for tracepoint in tracepoints {
            let (link, id) = attach(&object.0, &maps, tracepoint, &config)?;
            made.0.push(link);
            made.1.push(id);
        }
        Self::of(maps, made.0, made.1, Vec::new())
    }
}

fn line(error: &WatchError) -> String {
    match error {
        WatchError::Bpf(error) => error.line(),
        other => other.to_string(),
    }
}

fn attach(
    object: &Parsed,
    maps: &HashMap<String, MapData>,
    tracepoint: &Tracepoint,
    config: &WitnessConfig,
) -> Result<(OwnedFd, u32), BpfError> {
    let given: Vec<(&str, BorrowedFd<'_>)> =
        maps.iter().map(|(name, data)| (name.as_str(), data.fd().as_fd())).collect();
    let want = Want {
        program: tracepoint.program,
        config: sys::bytes_of(config),
        given: &given,
        prog_type: if tracepoint.arguments.is_some() { TRACING } else { RAW_TRACEPOINT },
        expected_attach_type: if tracepoint.arguments.is_some() { RAW_TP } else { 0 },
        function: tracepoint.arguments.map(|id| Function { id, module: None }),
        variable: None,
    };
    let (fd, _settings) = object.load(&want)?;
    let id = id_of(&fd)?;
    let name = tracepoint.name.to_bytes_with_nul();
    let mut attr = attr::RawTracepoint {
        // A program that has the tracepoint by its type names none.
        name: if tracepoint.arguments.is_some() { 0 } else { sys::address(name) },
        prog_fd: sys::number(fd.as_fd()),
        ..attr::RawTracepoint::default()
    };
    let link = sys::bpf_fd(Command::RawTracepointOpen, &mut attr).map_err(|errno| {
        BpfError::call(format!("BPF_RAW_TRACEPOINT_OPEN {}", tracepoint.name.to_string_lossy()), errno)
    })?;
    Ok((link, id))
}
