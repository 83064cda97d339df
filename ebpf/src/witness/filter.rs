//! Requests of rtnetlink about filters and devices, and XDP programs that are set by it.

use crate::{
    config::set,
    kernel,
    maps::{enter, leave, slot, under_way, write},
};
use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use lab_abi::witness::{entered, kind};

/// Behind `struct nlmsghdr`: `tcmsg.tcm_ifindex` and `ifinfomsg.ifi_index` (include/uapi/linux/rtnetlink.h).
const IFINDEX: u64 = 16 + 4;
/// `nlmsghdr.nlmsg_type`.
const TYPE: u64 = 4;
const RTM_DELQDISC: u16 = 37;
/// The largest errno that a pointer may stand for (`MAX_ERRNO`, include/linux/err.h).
const MAX_ERRNO: u64 = 4095;

/// `tc_new_tfilter(skb, n, extack)`, `tc_del_tfilter`, `tc_get_qdisc`, `rtnl_newlink`.
#[fentry]
fn request_begins(ctx: FEntryContext) {
    let (skb, message) = (slot(&ctx, 0), slot(&ctx, 1));
    if set!(kind) == kind::QDISC_DEL && kernel::read::<u16>(message + TYPE) != RTM_DELQDISC {
        return;
    }
    let Some(event) = enter() else { return };
    event.request_len = kernel::read(message);
    kernel::fill(&mut event.request, message);
    kernel::place(event, kernel::net_of(skb), kernel::read(message + IFINDEX));
}

#[fexit]
fn request_ends(ctx: FExitContext) {
    let Some(event) = under_way() else { return };
    event.ret = i64::from(slot(&ctx, 3) as i32);
    write(event, true);
    leave();
}

/// `bpf_prog_get_type_dev(ufd, type, attach_drv)`: the program of the filter.
#[fexit]
fn program_found(ctx: FExitContext) {
    let Some(event) = under_way() else { return };
    let prog = slot(&ctx, 3);
    if matches!(event.kind, kind::FILTER_NEW | kind::XDP) && prog < 0u64.wrapping_sub(MAX_ERRNO) {
        kernel::program(event, prog);
    }
}

/// `cls_bpf_get(tp, handle)`: the filter that is there, and its priority.
#[fexit]
fn filter_found(ctx: FExitContext) {
    let Some(event) = under_way() else { return };
    let (proto, filter) = (slot(&ctx, 0), slot(&ctx, 2));
    event.entered |= entered::CLS_BPF;
    event.prio = kernel::priority(proto);
    if filter != 0 {
        event.old_prog_id = kernel::prog_id(kernel::of_filter(filter));
    }
}

/// `cls_bpf_delete(tp, arg, …)`.
#[fentry]
fn filter_goes(ctx: FEntryContext) {
    let Some(event) = under_way() else { return };
    event.entered |= entered::CLS_BPF_DELETE;
    event.prio = kernel::priority(slot(&ctx, 0));
    event.old_prog_id = kernel::prog_id(kernel::of_filter(slot(&ctx, 1)));
}

/// `dev_change_xdp_fd(dev, extack, fd, expected_fd, flags)`.
#[fentry]
fn xdp_begins(ctx: FEntryContext) {
    let device = slot(&ctx, 0);
    let fd = slot(&ctx, 2) as u32;
    let Some(event) = enter() else { return };
    kernel::device(event, device);
    event.command = fd;
}

#[fexit]
fn xdp_ends(ctx: FExitContext) {
    let Some(event) = under_way() else { return };
    event.ret = i64::from(slot(&ctx, 5) as i32);
    write(event, false);
    leave();
}
