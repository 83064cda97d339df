//! The program's settings. The loader writes them into `.rodata` before the program is verified.

use aya_ebpf::programs::TcContext;
use lab_abi::datapath::{DatapathConfig, fault};

#[unsafe(no_mangle)]
static CONFIG: DatapathConfig = DatapathConfig { host_ifindex: 0, policy_slot: 0, fault: fault::NONE };

/// Slot of the workload's policy program.
#[inline(always)]
pub fn policy_slot() -> u32 {
    // SAFETY: a reference to a static is valid and aligned. Volatile, for the compiler would otherwise fold in the
    // value that it sees above.
    unsafe { core::ptr::read_volatile(&raw const CONFIG.policy_slot) }
}

/// Whether that fault is built in.
#[inline(always)]
pub fn has(fault: u32) -> bool {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const CONFIG.fault) == fault }
}

/// The workload's device on the node.
#[inline(always)]
pub fn host_ifindex(ctx: &TcContext) -> u32 {
    if has(fault::SKB_IFINDEX) {
        // SAFETY: the context is valid while the program runs.
        return unsafe { (*ctx.skb.skb).ifindex };
    }
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const CONFIG.host_ifindex) }
}
