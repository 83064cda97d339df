//! The witness: watches what others attach. Programs on functions of the kernel (fentry, fexit) write an event when a command of
//! bpf(2) or a netlink request about filters has ended, and when a link, a program or a device goes. Where functions can't be watched,
//! programs on the raw tracepoints of system calls ([`calls`]) stand in for those on bpf(2).
//!
//! Where the kernel keeps what they read differs between kernels: the loader takes the offsets from the kernel's BTF and sets
//! them in [`config`]. Nothing here is newer than kernel 6.1.
#![no_std]
#![no_main]

mod calls;
mod command;
mod config;
mod filter;
mod gone;
mod kernel;
mod maps;

// The helpers used here are open to GPL-compatible programs only; "Dual MIT/GPL" is the kernel's spelling.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
