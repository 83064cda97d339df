//! A miniature datapath with the structure of a container network's: programs per direction that tail-call the
//! workload's policy and then the forwarding program, conntrack with service NAT, and everything that is a workload's
//! own keyed by the index of its device on the node.
//!
//! The same object serves clsact, tcx and netkit. It takes the device from its settings and never from the packet,
//! since a netkit PRIMARY program sees the pod's index; and it forwards by plain `bpf_redirect`, since
//! `bpf_redirect_peer` drops in a netkit program and would go past the destination's policy anywhere else.
//!
//! What is not TCP, UDP, an ICMP echo or an ICMP error about one of these, and every fragment, is left alone. Nothing
//! here is newer than kernel 6.1.
#![no_std]
#![no_main]

mod config;
mod connection;
mod entry;
mod forward;
mod maps;
mod nat;
mod packet;
mod policy;

// The helpers used here are open to GPL-compatible programs only; "Dual MIT/GPL" is the kernel's spelling.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
