//! Layouts of the witness: what its programs are told of the running kernel, and the events that they write.

/// What stays the same in all events.
pub const HEAD: usize = 160;
/// Bytes of a request in the event of a bpf(2) command: the head of `union bpf_attr` up to all that is read of it.
pub const SHORT: usize = 64;
/// Bytes of a request in an event that carries a netlink message or a path.
pub const LONG: usize = 256;
/// Commands under way at the same time, at most; those beyond are counted as lost.
pub const PENDING: u32 = 1024;
/// Bytes of the ring buffer.
pub const RING: u32 = 4 << 20;
/// Processors whose counters are added up, at most.
pub const CPUS: u32 = 64;
/// The constant in `program_event` that the loader replaces by the kernel's per-CPU variable `this_cpu_off`.
pub const THIS_CPU_OFF: u64 = 0x6c61_622d_7063_7075;

/// Kinds of [`WitnessEvent`].
pub mod kind {
    /// A command of bpf(2) has ended.
    pub const COMMAND: u32 = 1;
    /// A link was freed.
    pub const LINK_GONE: u32 = 2;
    /// A program was loaded.
    pub const PROGRAM_LOADED: u32 = 3;
    /// A program is about to be freed.
    pub const PROGRAM_GONE: u32 = 4;
    /// `RTM_NEWTFILTER` has ended.
    pub const FILTER_NEW: u32 = 5;
    /// `RTM_DELTFILTER` has ended.
    pub const FILTER_DEL: u32 = 6;
    /// `RTM_DELQDISC` has ended.
    pub const QDISC_DEL: u32 = 7;
    /// The queueing disciplines of a device were shut down: it goes, or moves to another network namespace.
    pub const DEVICE_GONE: u32 = 8;
    /// A program was put on a device by `IFLA_XDP`.
    pub const XDP: u32 = 9;
    /// A device has come to another network namespace.
    pub const DEVICE_MOVED: u32 = 10;
    /// `RTM_NEWLINK` has ended.
    pub const LINK_NEW: u32 = 11;
    /// A call of bpf(2) has ended, by the raw tracepoints: what the calling process and its descriptors are is not in it.
    pub const CALL: u32 = 12;
}

/// Functions of the kernel that a command went through ([`WitnessEvent::entered`]).
pub mod entered {
    /// `tcx_prog_attach`.
    pub const TCX_PROG_ATTACH: u32 = 1 << 0;
    /// `tcx_prog_detach`.
    pub const TCX_PROG_DETACH: u32 = 1 << 1;
    /// `tcx_link_attach`.
    pub const TCX_LINK_ATTACH: u32 = 1 << 2;
    /// `netkit_prog_attach`.
    pub const NETKIT_PROG_ATTACH: u32 = 1 << 3;
    /// `netkit_prog_detach`.
    pub const NETKIT_PROG_DETACH: u32 = 1 << 4;
    /// `netkit_link_attach`.
    pub const NETKIT_LINK_ATTACH: u32 = 1 << 5;
    /// `cls_bpf_get`: the filter's classifier is cls_bpf, and the priority is known.
    pub const CLS_BPF: u32 = 1 << 6;
    /// The device goes; else it moves to another network namespace.
    pub const UNREGISTERING: u32 = 1 << 7;
    /// `cls_bpf_delete`.
    pub const CLS_BPF_DELETE: u32 = 1 << 8;
}

/// Where the running kernel keeps what the programs read, bytes; by the kernel's BTF. Set at load time.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WitnessConfig {
    /// Events of this process are not written.
    pub own_tgid: u32,
    /// [`kind`] of the events that this copy of a program writes.
    pub kind: u32,
    /// [`entered`] that this copy of a program sets.
    pub entered: u32,
    /// Processors of the machine.
    pub cpus: u32,
    /// `task_struct.files`.
    pub task_files: u32,
    /// `task_struct.nsproxy`.
    pub task_nsproxy: u32,
    /// `files_struct.fdt`.
    pub files_fdt: u32,
    /// `fdtable.fd`.
    pub fdt_fd: u32,
    /// `file.private_data`.
    pub file_private: u32,
    /// `nsproxy.net_ns`.
    pub nsproxy_net: u32,
    /// `net.ns.inum`.
    pub net_inum: u32,
    /// `net.dev_index_head`.
    pub net_index: u32,
    /// `net_device.name`.
    pub dev_name: u32,
    /// `net_device.ifindex`.
    pub dev_ifindex: u32,
    /// `net_device.index_hlist`.
    pub dev_hlist: u32,
    /// `net_device.nd_net`.
    pub dev_net: u32,
    /// `net_device.rtnl_link_ops`.
    pub dev_ops: u32,
    /// `net_device.reg_state`.
    pub dev_state: u32,
    /// `rtnl_link_ops.kind`.
    pub ops_kind: u32,
    /// `sk_buff.sk`.
    pub skb_sk: u32,
    /// `sock.__sk_common.skc_net`.
    pub sk_net: u32,
    /// `bpf_prog.type`.
    pub prog_type: u32,
    /// `bpf_prog.tag`.
    pub prog_tag: u32,
    /// `bpf_prog.aux`.
    pub prog_aux: u32,
    /// `bpf_prog.stats`.
    pub prog_stats: u32,
    /// `bpf_prog_aux.id`.
    pub aux_id: u32,
    /// `bpf_prog_aux.name`.
    pub aux_name: u32,
    /// `bpf_prog_aux.prog`.
    pub aux_prog: u32,
    /// `bpf_prog_stats.cnt`.
    pub stats_cnt: u32,
    /// `bpf_prog_stats.nsecs`.
    pub stats_nsecs: u32,
    /// `bpf_link.id`.
    pub link_id: u32,
    /// `bpf_link.type`.
    pub link_type: u32,
    /// `bpf_link.prog`.
    pub link_prog: u32,
    /// `tcf_proto.prio`.
    pub proto_prio: u32,
    /// `cls_bpf_prog.filter`.
    pub cls_filter: u32,
    /// `bpf_mprog_entry.parent`.
    pub mprog_parent: u32,
    /// `bpf_mprog_bundle.ref`.
    pub bundle_ref: u32,
    /// Keeps the size a multiple of 8.
    pub spare: u32,
}

/// What happened. The request's bytes follow: [`SHORT`] or [`LONG`] of them.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WitnessEvent {
    /// `CLOCK_BOOTTIME` at its begin, nanoseconds.
    pub time_ns: u64,
    /// Process (upper half) and thread.
    pub pid_tgid: u64,
    /// Of a program that goes: how often it ran, all processors together; 0 unless statistics are on.
    pub run_count: u64,
    /// And how long, nanoseconds.
    pub run_ns: u64,
    /// What the kernel returned.
    pub ret: i64,
    /// One of [`kind`].
    pub kind: u32,
    /// `enum bpf_cmd`.
    pub command: u32,
    /// Bits of [`entered`].
    pub entered: u32,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Device, 0 for none.
    pub ifindex: u32,
    /// Program, 0 for none.
    pub prog_id: u32,
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// The program that was there before.
    pub old_prog_id: u32,
    /// Link, 0 for none.
    pub link_id: u32,
    /// `enum bpf_link_type`.
    pub link_type: u32,
    /// Priority of a filter.
    pub prio: u32,
    /// Length of the whole request, which may be more than follows.
    pub request_len: u32,
    /// Name of the thread.
    pub comm: [u8; 16],
    /// Name of the device.
    pub device: [u8; 16],
    /// Its kind: `veth`, `netkit`; empty for one without.
    pub device_kind: [u8; 16],
    /// Name of the program.
    pub prog_name: [u8; 16],
    /// Its tag.
    pub prog_tag: [u8; 8],
    /// Head of the request.
    pub request: [u8; LONG],
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, `Copy`, integers only, no implicit padding (the tests below add the sizes up).
    unsafe impl aya::Pod for super::WitnessConfig {}
    // SAFETY: likewise.
    unsafe impl aya::Pod for super::WitnessEvent {}
}

/// The commands of bpf(2) that are watched (`enum bpf_cmd`, include/uapi/linux/bpf.h).
pub mod command {
    /// `BPF_PROG_LOAD`, of calls only ([`super::kind::CALL`]).
    pub const PROG_LOAD: u32 = 5;
    /// `BPF_OBJ_GET`, likewise.
    pub const OBJ_GET: u32 = 7;
    /// `BPF_PROG_GET_FD_BY_ID`, likewise.
    pub const PROG_GET_FD_BY_ID: u32 = 13;
    /// `BPF_OBJ_PIN`.
    pub const OBJ_PIN: u32 = 6;
    /// `BPF_PROG_ATTACH`.
    pub const PROG_ATTACH: u32 = 8;
    /// `BPF_PROG_DETACH`.
    pub const PROG_DETACH: u32 = 9;
    /// `BPF_RAW_TRACEPOINT_OPEN`.
    pub const RAW_TRACEPOINT_OPEN: u32 = 17;
    /// `BPF_LINK_CREATE`.
    pub const LINK_CREATE: u32 = 28;
    /// `BPF_LINK_UPDATE`.
    pub const LINK_UPDATE: u32 = 29;
    /// `BPF_LINK_DETACH`.
    pub const LINK_DETACH: u32 = 34;
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{offset_of, size_of};

    #[test]
    fn layouts_have_no_padding() {
        assert_eq!(size_of::<WitnessConfig>(), 38 * 4);
        assert_eq!(offset_of!(WitnessEvent, request), HEAD);
        assert_eq!(size_of::<WitnessEvent>(), 5 * 8 + 12 * 4 + 4 * 16 + 8 + LONG);
    }
}
