//! The calls of bpf(2) themselves, for kernels whose functions can't be watched: the raw tracepoints `sys_enter(regs, id)` and
//! `sys_exit(regs, ret)`. An event has what was asked and what was answered, by numbers of the calling process; the agent looks up
//! what these stand for.

use crate::{
    kernel,
    maps::{enter, leave, slot, under_way, write},
};
use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_probe_read_user_str,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use lab_abi::witness::{
    SHORT,
    command::{
        LINK_CREATE, LINK_DETACH, LINK_UPDATE, OBJ_GET, OBJ_PIN, PROG_ATTACH, PROG_DETACH, PROG_GET_FD_BY_ID,
        PROG_LOAD, RAW_TRACEPOINT_OPEN,
    },
};

/// Number of bpf(2) on x86-64 (arch/x86/entry/syscalls/syscall_64.tbl).
const BPF: u64 = 321;
/// Positions of a call's first three arguments in `struct pt_regs` (arch/x86/include/uapi/asm/ptrace.h), words.
const RDI: usize = 14;
const RSI: usize = 13;
const RDX: usize = 12;

/// Reads the registers by a helper, which a kernel without type information has, and one that is locked down has not.
#[raw_tracepoint(tracepoint = "sys_enter")]
fn call_begins(ctx: RawTracePointContext) {
    let registers = slot(&ctx, 0);
    begins(&ctx, |word| kernel::read(registers.wrapping_add(word as u64 * 8)));
}

/// Reads the registers through their type, which a kernel that is locked down allows.
#[btf_tracepoint(function = "sys_enter")]
fn call_begins_typed(ctx: BtfTracePointContext) {
    let registers = slot(&ctx, 0) as *const u64;
    if registers.is_null() {
        return;
    }
    // SAFETY: the verifier knows the type of the pointer, and each position is within it.
    begins(&ctx, |word| unsafe { registers.add(word).read() });
}

#[inline(always)]
fn begins(ctx: &impl EbpfContext, argument: impl Fn(usize) -> u64) {
    if slot(ctx, 1) != BPF {
        return;
    }
    let command = argument(RDI) as u32;
    if !matches!(
        command,
        PROG_LOAD
            | OBJ_PIN
            | OBJ_GET
            | PROG_ATTACH
            | PROG_DETACH
            | PROG_GET_FD_BY_ID
            | RAW_TRACEPOINT_OPEN
            | LINK_CREATE
            | LINK_UPDATE
            | LINK_DETACH
    ) {
        return;
    }
    let (attr, length) = (argument(RSI), argument(RDX));
    let Some(event) = enter() else { return };
    event.command = command;
    event.request_len = length as u32;
    kernel::fill_from_user(&mut event.request[..SHORT], attr);
    if command == OBJ_PIN {
        // SAFETY: the request is aligned to 8.
        let path = unsafe { *event.request.as_ptr().cast::<u64>() };
        let rest = &mut event.request[SHORT..];
        // SAFETY: the target is valid for its length, which is known when the program is compiled.
        unsafe { bpf_probe_read_user_str(rest.as_mut_ptr().cast(), rest.len() as u32, path as *const _) };
    }
}

#[raw_tracepoint(tracepoint = "sys_exit")]
fn call_ends(ctx: RawTracePointContext) {
    let Some(event) = under_way() else { return };
    event.ret = slot(&ctx, 1) as i64;
    write(event, event.command == OBJ_PIN);
    leave();
}
