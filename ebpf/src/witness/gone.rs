//! The ends of links, programs and devices.

use crate::{
    kernel,
    maps::{at_once, slot, write},
};
use aya_ebpf::{
    helpers::generated::bpf_per_cpu_ptr,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use lab_abi::witness::{THIS_CPU_OFF, entered, kind};

/// `enum perf_bpf_event_type` (include/uapi/linux/perf_event.h).
const LOAD: u32 = 1;
const UNLOAD: u32 = 2;

/// `bpf_link_free(link)`. One that was never finished has no id.
#[fentry]
fn link_freed(ctx: FEntryContext) {
    let link = slot(&ctx, 0);
    let Some(event) = at_once() else { return };
    let prog = kernel::link(event, link);
    if event.link_id != 0 {
        kernel::program(event, prog);
        write(event, false);
    }
}

/// `perf_event_bpf_event(prog, type, flags)`: called for every program that comes or goes.
#[fentry]
fn program_event(ctx: FEntryContext) {
    let (prog, what) = (slot(&ctx, 0), slot(&ctx, 1) as u32);
    let Some(event) = at_once() else { return };
    event.kind = match what {
        LOAD => kind::PROGRAM_LOADED,
        UNLOAD => kind::PROGRAM_GONE,
        _ => return,
    };
    kernel::program(event, prog);
    if what == UNLOAD {
        kernel::runs(event, prog, |cpu| {
            // SAFETY: the loader replaces the constant by the kernel's variable.
            let base = unsafe { bpf_per_cpu_ptr(THIS_CPU_OFF as *const _, cpu) };
            if base.is_null() { None } else { Some(kernel::read(base as u64)) }
        });
    }
    write(event, false);
}

/// `dev_shutdown(dev)`.
#[fentry]
fn device_goes(ctx: FEntryContext) {
    let device = slot(&ctx, 0);
    let Some(event) = at_once() else { return };
    kernel::device(event, device);
    if kernel::goes(device) {
        event.entered = entered::UNREGISTERING;
    }
    write(event, false);
}

/// `__dev_change_net_namespace(dev, net, …)`, after the device's `dev_shutdown` in the namespace that it left.
#[fexit]
fn device_moved(ctx: FExitContext) {
    let device = slot(&ctx, 0);
    let Some(event) = at_once() else { return };
    kernel::device(event, device);
    write(event, false);
}
