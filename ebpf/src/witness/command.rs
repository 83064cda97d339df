//! Commands of bpf(2).

use crate::{
    config::set,
    kernel,
    maps::{enter, leave, slot, under_way, write},
};
use aya_ebpf::{
    helpers::generated::bpf_probe_read_user_str,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use lab_abi::witness::{
    SHORT, WitnessEvent,
    command::{LINK_CREATE, LINK_DETACH, LINK_UPDATE, OBJ_PIN, PROG_ATTACH, PROG_DETACH, RAW_TRACEPOINT_OPEN},
};

/// `BPF_F_REPLACE`, include/uapi/linux/bpf.h.
const REPLACE: u32 = 1 << 2;

/// A number of the request.
#[inline(always)]
fn number(event: &WitnessEvent, at: usize) -> u32 {
    // SAFETY: every caller's position is within the request; the request is aligned to 8, and positions to 4.
    unsafe { *event.request.as_ptr().add(at).cast::<u32>() }
}

/// `__sys_bpf(cmd, { uattr, is_kernel }, size)`.
#[fentry]
fn command_begins(ctx: FEntryContext) {
    let command = slot(&ctx, 0) as u32;
    if !matches!(
        command,
        OBJ_PIN | PROG_ATTACH | PROG_DETACH | RAW_TRACEPOINT_OPEN | LINK_CREATE | LINK_UPDATE | LINK_DETACH
    ) {
        return;
    }
    let (attr, is_kernel) = (slot(&ctx, 1), slot(&ctx, 2) as u8 != 0);
    let Some(event) = enter() else { return };
    event.command = command;
    event.request_len = slot(&ctx, 3) as u32;
    if is_kernel {
        kernel::fill(&mut event.request[..SHORT], attr);
    } else {
        kernel::fill_from_user(&mut event.request[..SHORT], attr);
    }
    match command {
        LINK_UPDATE | LINK_DETACH => {
            let before = kernel::link(event, kernel::behind(number(event, 0)));
            if command == LINK_UPDATE {
                event.old_prog_id = kernel::prog_id(before);
                kernel::program(event, kernel::behind(number(event, 4)));
            } else {
                kernel::program(event, before);
            }
        }
        LINK_CREATE => kernel::program(event, kernel::behind(number(event, 0))),
        RAW_TRACEPOINT_OPEN => kernel::program(event, kernel::behind(number(event, 8))),
        OBJ_PIN => pinned(event, is_kernel),
        _ => {
            kernel::program(event, kernel::behind(number(event, 4)));
            if number(event, 12) & REPLACE != 0 {
                event.old_prog_id = kernel::prog_id(kernel::behind(number(event, 16)));
            }
        }
    }
}

/// A pin: what is pinned, and the path behind the request's head.
#[inline(always)]
fn pinned(event: &mut WitnessEvent, is_kernel: bool) {
    let behind = kernel::behind(number(event, 8));
    kernel::program(event, behind);
    if event.prog_id == 0 {
        let prog = kernel::link(event, behind);
        kernel::program(event, prog);
    }
    let path = u64::from(number(event, 0)) | u64::from(number(event, 4)) << 32;
    if !is_kernel {
        let rest = &mut event.request[SHORT..];
        // SAFETY: the target is valid for its length, which is known when the program is compiled.
        unsafe { bpf_probe_read_user_str(rest.as_mut_ptr().cast(), rest.len() as u32, path as *const _) };
    }
}

#[fexit]
fn command_ends(ctx: FExitContext) {
    ended(slot(&ctx, 4) as i32);
}

/// `__sys_bpf(cmd, { uattr, is_kernel }, size, { uattr_common, is_kernel }, size_common)`.
#[fexit]
fn command_with_more_ends(ctx: FExitContext) {
    ended(slot(&ctx, 7) as i32);
}

#[inline(always)]
fn ended(result: i32) {
    let Some(event) = under_way() else { return };
    event.ret = i64::from(result);
    if event.entered == 0 {
        // Of another kind than those whose functions are watched.
        kernel::place(event, kernel::own_net(), target(event));
    }
    if result >= 0 && matches!(event.command, LINK_CREATE | RAW_TRACEPOINT_OPEN) {
        let link = kernel::behind(result as u32);
        kernel::link(event, link);
    }
    write(event, event.command == OBJ_PIN);
    leave();
}

/// The device of a request, where it may have one.
#[inline(always)]
fn target(event: &WitnessEvent) -> u32 {
    match event.command {
        PROG_ATTACH | PROG_DETACH => number(event, 0),
        LINK_CREATE => number(event, 4),
        _ => 0,
    }
}

/// `tcx_link_attach(attr, prog)` and its like: the kernel went this way, with this copy of the request.
#[fentry]
fn entered(ctx: FEntryContext) {
    let attr = slot(&ctx, 0);
    let Some(event) = under_way() else { return };
    event.entered |= set!(entered);
    kernel::fill(&mut event.request[..SHORT], attr);
    kernel::place(event, kernel::own_net(), target(event));
    let prog = slot(&ctx, 1);
    if prog != 0 {
        kernel::program(event, prog);
    }
}

/// `bpf_mprog_detach(entry, entry_new, prog, link, flags, id_or_fd, revision)`: a request may name a position instead of a program.
#[fexit]
fn program_taken_off(ctx: FExitContext) {
    let (entry, result) = (slot(&ctx, 0), slot(&ctx, 7) as i32);
    let Some(event) = under_way() else { return };
    if result == 0 {
        let taken = kernel::taken_off(entry);
        kernel::program(event, taken);
    }
}
