//! Names of hooks, as bpftool has them, and of programs that have gone.

use crate::{
    book::{Book, PROGRAMS},
    decode::{AttachEvent, What},
};
use lab_protocol::AttachType;

/// A hook that is no filter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hooked {
    /// One of the three mechanisms.
    pub attach: Option<AttachType>,
    /// Its name.
    pub name: String,
}

const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
const NETKIT_PRIMARY: u32 = 54;
const NETKIT_PEER: u32 = 55;

/// The hook of an `enum bpf_attach_type`; `by` is the mechanism whose function the kernel went through. What it was asked for and
/// did not do is told as such.
pub fn hook_of(attach_type: u32, by: Option<AttachType>) -> Hooked {
    let (attach, name) = match attach_type {
        TCX_INGRESS => (Some(AttachType::Tcx), "tcx/ingress"),
        TCX_EGRESS => (Some(AttachType::Tcx), "tcx/egress"),
        NETKIT_PRIMARY => (Some(AttachType::Netkit), "netkit/primary"),
        NETKIT_PEER => (Some(AttachType::Netkit), "netkit/peer"),
        other => (None, TYPES.get(other as usize).copied().unwrap_or_default()),
    };
    match (by, attach) {
        (Some(by), Some(asked)) if by != asked => {
            Hooked { attach: Some(by), name: format!("{by}/? (asked for {name})") }
        }
        (Some(by), None) => Hooked { attach: Some(by), name: format!("{by}/? (asked for type {attach_type})") },
        _ if name.is_empty() => Hooked { attach, name: format!("type {attach_type}") },
        _ => Hooked { attach, name: name.to_owned() },
    }
}

/// The hook of an attach type, by the kernel's list.
pub fn hook_of_type(attach_type: u32) -> Hooked {
    hook_of(attach_type, None)
}

/// The hook of a link without an attach type, by its `enum bpf_link_type`.
pub fn hook_of_link(link_type: u32) -> Hooked {
    let name =
        LINKS.get(link_type as usize).map_or_else(|| format!("link type {link_type}"), |name| (*name).to_owned());
    Hooked { attach: None, name }
}

/// `enum bpf_link_type`, include/uapi/linux/bpf.h.
const LINKS: [&str; 15] = [
    "unspec",
    "raw_tracepoint",
    "tracing",
    "cgroup",
    "iter",
    "netns",
    "xdp",
    "perf_event",
    "kprobe_multi",
    "struct_ops",
    "netfilter",
    "tcx",
    "uprobe_multi",
    "netkit",
    "sockmap",
];

/// `enum bpf_attach_type`, include/uapi/linux/bpf.h, by bpftool's names; empty for those that are named above.
const TYPES: [&str; 59] = [
    "cgroup_inet_ingress",
    "cgroup_inet_egress",
    "cgroup_inet_sock_create",
    "cgroup_sock_ops",
    "sk_skb_stream_parser",
    "sk_skb_stream_verdict",
    "cgroup_device",
    "sk_msg_verdict",
    "cgroup_inet4_bind",
    "cgroup_inet6_bind",
    "cgroup_inet4_connect",
    "cgroup_inet6_connect",
    "cgroup_inet4_post_bind",
    "cgroup_inet6_post_bind",
    "cgroup_udp4_sendmsg",
    "cgroup_udp6_sendmsg",
    "lirc_mode2",
    "flow_dissector",
    "cgroup_sysctl",
    "cgroup_udp4_recvmsg",
    "cgroup_udp6_recvmsg",
    "cgroup_getsockopt",
    "cgroup_setsockopt",
    "trace_raw_tp",
    "trace_fentry",
    "trace_fexit",
    "modify_return",
    "lsm_mac",
    "trace_iter",
    "cgroup_inet4_getpeername",
    "cgroup_inet6_getpeername",
    "cgroup_inet4_getsockname",
    "cgroup_inet6_getsockname",
    "xdp_devmap",
    "cgroup_inet_sock_release",
    "xdp_cpumap",
    "sk_lookup",
    "xdp",
    "sk_skb_verdict",
    "sk_reuseport_select",
    "sk_reuseport_select_or_migrate",
    "perf_event",
    "trace_kprobe_multi",
    "lsm_cgroup",
    "struct_ops",
    "netfilter",
    "",
    "",
    "trace_uprobe_multi",
    "cgroup_unix_connect",
    "cgroup_unix_sendmsg",
    "cgroup_unix_recvmsg",
    "cgroup_unix_getpeername",
    "cgroup_unix_getsockname",
    "",
    "",
    "trace_kprobe_session",
    "trace_uprobe_session",
    "trace_fsession",
];
impl Book {
    /// A program that has gone before it could be asked has the name that it had in an earlier event.
    pub(crate) fn named(&mut self, event: &mut AttachEvent) {
        let program = &mut event.program;
        if program.id == 0 {
            return;
        }
        if let What::Unloaded { .. } = event.what {
            self.seen.remove(&program.id);
        } else if !program.name.is_empty() {
            if self.seen.len() < PROGRAMS {
                self.seen.insert(program.id, program.clone());
            }
        } else if let Some(seen) = self.seen.get(&program.id)
            && (program.tag == seen.tag || program.tag == [0; 8])
        {
            *program = seen.clone();
        }
    }
}
