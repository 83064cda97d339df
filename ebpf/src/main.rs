//! Programs for every attach type: `BPF_PROG_TYPE_SCHED_CLS` serves clsact, tcx and netkit alike.
//!
//! Each program counts into its own `STATS` and acts on marked packets only (see `lab_abi::Config`), so that ARP,
//! neighbour discovery and MLD neither disturb the counters nor get lost. What is newer than
//! kernel 6.1 is called only where a kernel is known to have it (`edit`).
#![no_std]
#![no_main]

mod assign;
mod config;
mod count;
mod edit;
mod fib;
mod mtu;
mod parse;
mod policy;
mod redirect;
mod reject;
mod stamp;
mod stats;
mod tail;
mod tunnel;

// The helpers used here are open to GPL-compatible programs only; "Dual MIT/GPL" is the kernel's spelling.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
