//! Reads the kernel's structures, by offsets of the settings. What can't be read is zero.

use crate::config::set;
use aya_ebpf::helpers::{
    bpf_get_current_comm,
    generated::{bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user},
};
use core::mem::MaybeUninit;
use lab_abi::witness::WitnessEvent;

/// Devices in one bucket of a network namespace's table (`NETDEV_HASHENTRIES`, net/core/dev.h), at most.
const CHAIN: u32 = 32;
const BUCKETS: u32 = 256;

/// A plain value.
#[inline(always)]
pub fn read<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes all of it, zeros where it can't read; every `T` here is integers.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _);
        value.assume_init()
    }
}

/// A pointer or a number of eight bytes at an offset.
#[inline(always)]
fn at(address: u64, offset: u32) -> u64 {
    read(address.wrapping_add(u64::from(offset)))
}

#[inline(always)]
fn word(address: u64, offset: u32) -> u32 {
    read(address.wrapping_add(u64::from(offset)))
}

/// As [`read`], into a part of an event.
#[inline(always)]
pub fn fill(target: &mut [u8], address: u64) {
    // SAFETY: the target is valid for its length, which is known when the program is compiled.
    unsafe { bpf_probe_read_kernel(target.as_mut_ptr().cast(), target.len() as u32, address as *const _) };
}

/// As [`fill`], from the program's own memory.
#[inline(always)]
pub fn fill_from_user(target: &mut [u8], address: u64) {
    // SAFETY: as above.
    unsafe { bpf_probe_read_user(target.as_mut_ptr().cast(), target.len() as u32, address as *const _) };
}

/// As [`fill`], up to the first zero byte.
#[inline(always)]
fn text(target: &mut [u8], address: u64) {
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel_str(target.as_mut_ptr().cast(), target.len() as u32, address as *const _) };
}

/// Name of the thread.
#[inline(always)]
pub fn comm(target: &mut [u8; 16]) {
    if let Ok(name) = bpf_get_current_comm() {
        *target = name;
    }
}

#[inline(always)]
fn task() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_get_current_task() }
}

/// `file.private_data` of a descriptor of this thread: a program or a link, if the descriptor is one.
#[inline(always)]
pub fn behind(fd: u32) -> u64 {
    let table = at(at(task(), set!(task_files)), set!(files_fdt));
    let file: u64 = read(at(table, set!(fdt_fd)).wrapping_add(u64::from(fd) * 8));
    if file == 0 { 0 } else { at(file, set!(file_private)) }
}

/// Inode of the network namespace at this address.
#[inline(always)]
fn inode(net: u64) -> u32 {
    if net == 0 { 0 } else { word(net, set!(net_inum)) }
}

/// The thread's network namespace.
#[inline(always)]
pub fn own_net() -> u64 {
    at(at(task(), set!(task_nsproxy)), set!(nsproxy_net))
}

/// The network namespace of a netlink message's sender.
#[inline(always)]
pub fn net_of(skb: u64) -> u64 {
    at(at(skb, set!(skb_sk)), set!(sk_net))
}

/// Tells a device of a namespace.
#[inline(always)]
pub fn place(event: &mut WitnessEvent, net: u64, ifindex: u32) {
    event.netns = inode(net);
    event.ifindex = ifindex;
    let bucket = at(net, set!(net_index)).wrapping_add(u64::from(ifindex % BUCKETS) * 8);
    let mut node: u64 = read(bucket);
    for _ in 0..CHAIN {
        if node == 0 {
            return;
        }
        let device = node.wrapping_sub(u64::from(set!(dev_hlist)));
        if word(device, set!(dev_ifindex)) == ifindex {
            named(event, device);
            return;
        }
        node = read(node);
    }
}

/// Tells a device.
#[inline(always)]
pub fn device(event: &mut WitnessEvent, device: u64) {
    event.netns = inode(at(device, set!(dev_net)));
    event.ifindex = word(device, set!(dev_ifindex));
    named(event, device);
}

#[inline(always)]
fn named(event: &mut WitnessEvent, device: u64) {
    fill(&mut event.device, device.wrapping_add(u64::from(set!(dev_name))));
    let ops = at(device, set!(dev_ops));
    if ops != 0 {
        text(&mut event.device_kind, at(ops, set!(ops_kind)));
    }
}

/// Id of what may be a program; 0 if it is none: a program's `aux` points back to it.
#[inline(always)]
pub fn prog_id(prog: u64) -> u32 {
    let aux = at(prog, set!(prog_aux));
    if prog == 0 || at(aux, set!(aux_prog)) != prog { 0 } else { word(aux, set!(aux_id)) }
}

/// Tells a program.
#[inline(always)]
pub fn program(event: &mut WitnessEvent, prog: u64) {
    let aux = at(prog, set!(prog_aux));
    if prog == 0 || at(aux, set!(aux_prog)) != prog {
        return;
    }
    event.prog_id = word(aux, set!(aux_id));
    event.prog_type = word(prog, set!(prog_type));
    fill(&mut event.prog_tag, prog.wrapping_add(u64::from(set!(prog_tag))));
    fill(&mut event.prog_name, aux.wrapping_add(u64::from(set!(aux_name))));
}

/// Tells a link; gives the address of its program.
#[inline(always)]
pub fn link(event: &mut WitnessEvent, link: u64) -> u64 {
    event.link_id = word(link, set!(link_id));
    event.link_type = word(link, set!(link_type));
    at(link, set!(link_prog))
}

/// Adds up a program's counters of all processors.
#[inline(always)]
pub fn runs(event: &mut WitnessEvent, prog: u64, base: impl Fn(u32) -> Option<u64>) {
    let stats = at(prog, set!(prog_stats));
    let mut cpu = 0;
    while cpu < lab_abi::witness::CPUS && cpu < set!(cpus) {
        let Some(base) = base(cpu) else { return };
        let own = stats.wrapping_add(base);
        event.run_count += at(own, set!(stats_cnt));
        event.run_ns += at(own, set!(stats_nsecs));
        cpu += 1;
    }
}

/// Whether the device is being unregistered (`NETREG_UNREGISTERING`, include/linux/netdevice.h).
#[inline(always)]
pub fn goes(device: u64) -> bool {
    const UNREGISTERING: u8 = 2;
    read::<u8>(device.wrapping_add(u64::from(set!(dev_state)))) == UNREGISTERING
}

/// `tcf_proto.prio`, which has the priority in its upper half.
#[inline(always)]
pub fn priority(proto: u64) -> u32 {
    word(proto, set!(proto_prio)) >> 16
}

/// The program of a `struct cls_bpf_prog`.
#[inline(always)]
pub fn of_filter(filter: u64) -> u64 {
    at(filter, set!(cls_filter))
}

/// The program that was just taken off a list of programs without a link, which holds it until the list is committed.
#[inline(always)]
pub fn taken_off(entry: u64) -> u64 {
    at(at(entry, set!(mprog_parent)), set!(bundle_ref))
}
