//! Programs of a few instructions, for tests of the API without packets.

mod map_users;

pub use map_users::{
    RingQuery, RingWrite, copying_to_ring, finding, pushing, querying_ring, referring_to, writing_to_ring,
};

use crate::{
    BpfError, ProgArray, attr,
    load::last_words,
    program::id_of,
    sys::{self, Command},
};
use aya_obj::generated::bpf_insn;
use nix::errno::Errno;
use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// `enum bpf_prog_type`: what clsact, tcx and netkit take.
pub const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
/// `enum bpf_prog_type`: what they refuse.
pub const BPF_PROG_TYPE_XDP: u32 = 6;

const GPL: &CStr = c"Dual MIT/GPL";
const LOG_SIZE: usize = 64 * 1024;
const INTERRUPTIONS: u32 = 10;

/// A program without maps of its own.
#[derive(Debug)]
pub struct RawProgram {
    fd: OwnedFd,
    id: u32,
}

impl RawProgram {
    /// `bpf_prog_info.id`.
    pub const fn id(&self) -> u32 {
        self.id
    }
}

impl AsFd for RawProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A program that returns `verdict`.
///
/// # Errors
/// [`BpfError::Load`].
pub fn minimal(prog_type: u32, expected_attach_type: u32, verdict: i32) -> Result<RawProgram, BpfError> {
    assemble(prog_type, expected_attach_type, "minimal", &[mov(0, verdict), exit()])
}

/// A `BPF_PROG_TYPE_XDP` program that puts `bytes` of metadata before each packet (`bpf_xdp_adjust_meta()`) and passes it.
///
/// # Errors
/// [`BpfError::Load`].
pub fn xdp_metadata(bytes: i32) -> Result<RawProgram, BpfError> {
    /// `BPF_FUNC_xdp_adjust_meta`.
    const ADJUST_META: i32 = 54;
    const XDP_PASS: i32 = 2;
    let instructions = [mov(2, -bytes), call(ADJUST_META), mov(0, XDP_PASS), exit()];
    assemble(BPF_PROG_TYPE_XDP, 0, "metadata", &instructions)
}

/// A `BPF_PROG_TYPE_SCHED_CLS` program that tail-calls `slot` and returns `fallback` where that is empty. Loading it
/// makes it a user of the map.
///
/// # Errors
/// [`BpfError::Load`]: `EINVAL` where it does not go with the map's owner.
pub fn tail_caller(
    map: &ProgArray,
    slot: i32,
    expected_attach_type: u32,
    fallback: i32,
) -> Result<RawProgram, BpfError> {
    let [low, high] = load_map(2, map.as_fd());
    let instructions = [low, high, mov(3, slot), tail_call(), mov(0, fallback), exit()];
    assemble(BPF_PROG_TYPE_SCHED_CLS, expected_attach_type, "tail_caller", &instructions)
}

/// A helper that sends a packet elsewhere, numbered as in `enum bpf_func_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Redirect {
    /// `bpf_redirect`.
    Plain = 23,
    /// `bpf_redirect_neigh`, without a next hop.
    Neigh = 152,
    /// `bpf_redirect_peer`.
    Peer = 155,
}

/// A `BPF_PROG_TYPE_SCHED_CLS` program that returns what the helper says to an index and flags.
///
/// # Errors
/// [`BpfError::Load`].
pub fn redirecting(helper: Redirect, ifindex: u32, flags: i32) -> Result<RawProgram, BpfError> {
    let (index, call) = (mov(1, ifindex.cast_signed()), call(helper as i32));
    match helper {
        Redirect::Neigh => assemble_redirect(&[index, mov(2, 0), mov(3, 0), mov(4, flags), call, exit()]),
        Redirect::Plain | Redirect::Peer => assemble_redirect(&[index, mov(2, flags), call, exit()]),
    }
}

fn assemble_redirect(instructions: &[bpf_insn]) -> Result<RawProgram, BpfError> {
    assemble(BPF_PROG_TYPE_SCHED_CLS, 0, "redirecting", instructions)
}

/// A `BPF_PROG_TYPE_SCHED_CLS` program that returns what `bpf_check_mtu` says of the packet on its own device.
///
/// # Errors
/// [`BpfError::Load`]: `EINVAL` where the kernel has no such helper.
pub fn checking_mtu() -> Result<RawProgram, BpfError> {
    /// `BPF_FUNC_check_mtu` of `enum bpf_func_id`.
    const CHECK_MTU: i32 = 163;
    let [pointer, back] = below_frame(3, 8);
    let instructions = [mov(2, 0), pointer, back, store_zero(3), mov(4, 0), mov(5, 0), call(CHECK_MTU), exit()];
    assemble(BPF_PROG_TYPE_SCHED_CLS, 0, "checking_mtu", &instructions)
}

/// Where `struct __sk_buff` of include/uapi/linux/bpf.h has `ifindex`, behind ten words.
const SKB_IFINDEX: usize = 10 * 4;

/// `BPF_PROG_TEST_RUN`: the program's return value for one packet, which goes nowhere.
///
/// # Errors
/// [`BpfError::Call`]: `EINVAL` for a packet shorter than its headers.
pub fn test_run(program: &impl AsFd, packet: &[u8]) -> Result<u32, BpfError> {
    test_run_in(program, packet, &[])
}

/// [`test_run`] with a packet of a device of the caller's network namespace (`bpf_prog_test_run_skb()`).
///
/// # Errors
/// [`BpfError::Call`]: `ENODEV` where there is no such device.
pub fn test_run_at(program: &impl AsFd, packet: &[u8], ifindex: u32) -> Result<u32, BpfError> {
    let mut context = [0; SKB_IFINDEX + 4];
    context[SKB_IFINDEX..].copy_from_slice(&ifindex.to_ne_bytes());
    test_run_in(program, packet, &context)
}

fn test_run_in(program: &impl AsFd, packet: &[u8], context: &[u8]) -> Result<u32, BpfError> {
    let mut attr = attr::TestRun {
        prog_fd: sys::number(program.as_fd()),
        data_size_in: packet.len() as u32,
        data_in: sys::address(packet),
        repeat: 1,
        ctx_size_in: context.len() as u32,
        ctx_in: if context.is_empty() { 0 } else { sys::address(context) },
        ..attr::TestRun::default()
    };
    sys::bpf(Command::ProgTestRun, &mut attr)
        .map(|_| attr.retval)
        .map_err(|errno| BpfError::call("BPF_PROG_TEST_RUN", errno))
}

/// A `BPF_PROG_TYPE_SCHED_CLS` program that returns the index of the packet's device.
///
/// # Errors
/// [`BpfError::Load`].
pub fn device_of_packet() -> Result<RawProgram, BpfError> {
    // BPF_LDX | BPF_MEM | BPF_W of the context.
    let ifindex = bpf_insn { off: SKB_IFINDEX as i16, ..instruction(0x61, 0, 1, 0) };
    assemble(BPF_PROG_TYPE_SCHED_CLS, 0, "device_of_packet", &[ifindex, exit()])
}

/// `BPF_PROG_LOAD` of a minimal program with one byte of the attribute set, as far out as `at`.
///
/// # Errors
/// [`BpfError::Call`]: `EINVAL` within what the kernel knows, `E2BIG` past it.
pub fn load_with_byte_at(at: usize) -> Result<(), BpfError> {
    load_padded(at + 1, Some(at))
}

/// `BPF_PROG_LOAD` of a minimal program with an attribute of `length` bytes, zeros where no field is.
///
/// # Errors
/// [`BpfError::Call`].
pub fn load_with_zeros_up_to(length: usize) -> Result<(), BpfError> {
    load_padded(length, None)
}

fn load_padded(length: usize, set: Option<usize>) -> Result<(), BpfError> {
    let instructions = [mov(0, 0), exit()];
    let attr = attr::ProgLoad {
        prog_type: BPF_PROG_TYPE_SCHED_CLS,
        insn_cnt: instructions.len() as u32,
        insns: sys::address(&instructions),
        license: sys::address(GPL.to_bytes_with_nul()),
        ..attr::ProgLoad::default()
    };
    sys::bpf_padded(Command::ProgLoad, &attr, length, set)
        .map_err(|errno| BpfError::call(format!("BPF_PROG_LOAD with {length} bytes"), errno))
}

/// `BPF_LINK_CREATE` on tcx ingress of the loopback with one byte of the attribute set, as far out as `at`.
///
/// # Errors
/// As [`load_with_byte_at`].
pub fn link_with_byte_at(program: &impl AsFd, at: usize) -> Result<(), BpfError> {
    let attr = attr::LinkCreate {
        prog_fd: sys::number(program.as_fd()),
        target_ifindex: 1,
        attach_type: crate::expected_attach_type(lab_protocol::Hook::TcxIngress),
        ..attr::LinkCreate::default()
    };
    sys::bpf_padded(Command::LinkCreate, &attr, at + 1, Some(at))
        .map_err(|errno| BpfError::call(format!("BPF_LINK_CREATE with {} bytes", at + 1), errno))
}

fn assemble(
    prog_type: u32,
    expected_attach_type: u32,
    name: &str,
    instructions: &[bpf_insn],
) -> Result<RawProgram, BpfError> {
    let fd =
        prog_load(&ProgramLoad { prog_type, expected_attach_type, name, license: GPL, instructions, function: None })?;
    let id = id_of(&fd)?;
    Ok(RawProgram { fd, id })
}

fn instruction(code: u8, dst: u8, src: u8, imm: i32) -> bpf_insn {
    bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(dst, src), off: 0, imm }
}

/// `BPF_ALU64 | BPF_MOV | BPF_K`.
fn mov(dst: u8, imm: i32) -> bpf_insn {
    instruction(0xb7, dst, 0, imm)
}

/// A register that points so many bytes below the frame pointer: `BPF_MOV | BPF_X` and `BPF_ADD | BPF_K`.
fn below_frame(dst: u8, bytes: i32) -> [bpf_insn; 2] {
    [instruction(0xbf, dst, 10, 0), instruction(0x07, dst, 0, -bytes)]
}

/// `BPF_ST | BPF_MEM | BPF_W` of a zero.
fn store_zero(at: u8) -> bpf_insn {
    instruction(0x62, at, 0, 0)
}

/// `BPF_JMP | BPF_EXIT`.
fn exit() -> bpf_insn {
    instruction(0x95, 0, 0, 0)
}

/// `BPF_JMP | BPF_CALL` of a helper.
fn call(helper: i32) -> bpf_insn {
    instruction(0x85, 0, 0, helper)
}

/// `bpf_tail_call`.
fn tail_call() -> bpf_insn {
    call(12)
}

/// `BPF_LD | BPF_IMM | BPF_DW` with `BPF_PSEUDO_MAP_FD`.
fn load_map(dst: u8, map: BorrowedFd<'_>) -> [bpf_insn; 2] {
    [instruction(0x18, dst, 1, map.as_raw_fd()), instruction(0, 0, 0, 0)]
}

/// One `BPF_PROG_LOAD`.
pub(crate) struct ProgramLoad<'a> {
    pub prog_type: u32,
    pub expected_attach_type: u32,
    pub name: &'a str,
    pub license: &'a CStr,
    pub instructions: &'a [bpf_insn],
    /// The function of a tracing program.
    pub function: Option<Function<'a>>,
}

/// A function of the kernel, by its type information.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function<'a> {
    /// Id of its type.
    pub id: u32,
    /// The module that it is in; the kernel itself if `None`.
    pub module: Option<BorrowedFd<'a>>,
}

/// Loads without a log first, and once more with one where the kernel refuses.
pub(crate) fn prog_load(load: &ProgramLoad<'_>) -> Result<OwnedFd, BpfError> {
    let mut prog_name = [0; 16];
    // The kernel wants a terminating zero.
    for (to, from) in prog_name[..15].iter_mut().zip(load.name.bytes()) {
        *to = from;
    }
    let head = |log: &mut [u8]| attr::ProgLoad {
        prog_type: load.prog_type,
        insn_cnt: load.instructions.len() as u32,
        insns: sys::address(load.instructions),
        license: sys::address(load.license.to_bytes_with_nul()),
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log_buf: if log.is_empty() { 0 } else { sys::address_mut(log) },
        prog_name,
        expected_attach_type: load.expected_attach_type,
        ..attr::ProgLoad::default()
    };
    let call = |log: &mut [u8]| match load.function {
        None => sys::bpf_fd(Command::ProgLoad, &mut head(log)),
        Some(function) => {
            let mut attr = attr::ProgLoadTracing {
                head: head(log),
                attach_btf_id: function.id,
                attach_btf_obj_fd: function.module.map_or(0, sys::number),
                ..attr::ProgLoadTracing::default()
            };
            sys::bpf_fd(Command::ProgLoad, &mut attr)
        }
    };
    let refused = |errno: Errno, log: &[u8]| {
        let log = CStr::from_bytes_until_nul(log).unwrap_or(c"").to_string_lossy();
        BpfError::Load { program: load.name.to_owned(), errno, log: last_words(&log) }
    };
    let attempt = |log: &mut [u8]| {
        let mut result = call(log);
        // Signals interrupt the verifier.
        for _ in 0..INTERRUPTIONS {
            if !matches!(result, Err(Errno::EAGAIN)) {
                break;
            }
            result = call(log);
        }
        result
    };
    attempt(&mut []).or_else(|_| {
        let mut log = vec![0; LOG_SIZE];
        attempt(&mut log).map_err(|errno| refused(errno, &log))
    })
}
