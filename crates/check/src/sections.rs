//! What libbpf makes of a section's name (`section_defs`, src/libbpf.c of libbpf 1.7).

/// Name, type of programs (`BPF_PROG_TYPE_…`), expected type of attachment, empty where there is none. A name that ends with `+` may
/// be followed by `/` and more.
const SECTIONS: [(&str, &str, &str); 105] = [
    ("socket", "SOCKET_FILTER", ""),
    ("sk_reuseport/migrate", "SK_REUSEPORT", "BPF_SK_REUSEPORT_SELECT_OR_MIGRATE"),
    ("sk_reuseport", "SK_REUSEPORT", "BPF_SK_REUSEPORT_SELECT"),
    ("kprobe+", "KPROBE", ""),
    ("uprobe+", "KPROBE", ""),
    ("uprobe.s+", "KPROBE", ""),
    ("kretprobe+", "KPROBE", ""),
    ("uretprobe+", "KPROBE", ""),
    ("uretprobe.s+", "KPROBE", ""),
    ("kprobe.multi+", "KPROBE", "BPF_TRACE_KPROBE_MULTI"),
    ("kretprobe.multi+", "KPROBE", "BPF_TRACE_KPROBE_MULTI"),
    ("kprobe.session+", "KPROBE", "BPF_TRACE_KPROBE_SESSION"),
    ("uprobe.multi+", "KPROBE", "BPF_TRACE_UPROBE_MULTI"),
    ("uretprobe.multi+", "KPROBE", "BPF_TRACE_UPROBE_MULTI"),
    ("uprobe.session+", "KPROBE", "BPF_TRACE_UPROBE_SESSION"),
    ("uprobe.multi.s+", "KPROBE", "BPF_TRACE_UPROBE_MULTI"),
    ("uretprobe.multi.s+", "KPROBE", "BPF_TRACE_UPROBE_MULTI"),
    ("uprobe.session.s+", "KPROBE", "BPF_TRACE_UPROBE_SESSION"),
    ("ksyscall+", "KPROBE", ""),
    ("kretsyscall+", "KPROBE", ""),
    ("usdt+", "KPROBE", ""),
    ("usdt.s+", "KPROBE", ""),
    ("tc/ingress", "SCHED_CLS", "BPF_TCX_INGRESS"),
    ("tc/egress", "SCHED_CLS", "BPF_TCX_EGRESS"),
    ("tcx/ingress", "SCHED_CLS", "BPF_TCX_INGRESS"),
    ("tcx/egress", "SCHED_CLS", "BPF_TCX_EGRESS"),
    ("tc", "SCHED_CLS", ""),
    ("classifier", "SCHED_CLS", ""),
    ("action", "SCHED_ACT", ""),
    ("netkit/primary", "SCHED_CLS", "BPF_NETKIT_PRIMARY"),
    ("netkit/peer", "SCHED_CLS", "BPF_NETKIT_PEER"),
    ("tracepoint+", "TRACEPOINT", ""),
    ("tp+", "TRACEPOINT", ""),
    ("raw_tracepoint+", "RAW_TRACEPOINT", ""),
    ("raw_tp+", "RAW_TRACEPOINT", ""),
    ("raw_tracepoint.w+", "RAW_TRACEPOINT_WRITABLE", ""),
    ("raw_tp.w+", "RAW_TRACEPOINT_WRITABLE", ""),
    ("tp_btf+", "TRACING", "BPF_TRACE_RAW_TP"),
    ("fentry+", "TRACING", "BPF_TRACE_FENTRY"),
    ("fmod_ret+", "TRACING", "BPF_MODIFY_RETURN"),
    ("fexit+", "TRACING", "BPF_TRACE_FEXIT"),
    ("fentry.s+", "TRACING", "BPF_TRACE_FENTRY"),
    ("fmod_ret.s+", "TRACING", "BPF_MODIFY_RETURN"),
    ("fexit.s+", "TRACING", "BPF_TRACE_FEXIT"),
    ("fsession+", "TRACING", "BPF_TRACE_FSESSION"),
    ("fsession.s+", "TRACING", "BPF_TRACE_FSESSION"),
    ("freplace+", "EXT", ""),
    ("lsm+", "LSM", "BPF_LSM_MAC"),
    ("lsm.s+", "LSM", "BPF_LSM_MAC"),
    ("lsm_cgroup+", "LSM", "BPF_LSM_CGROUP"),
    ("iter+", "TRACING", "BPF_TRACE_ITER"),
    ("iter.s+", "TRACING", "BPF_TRACE_ITER"),
    ("syscall", "SYSCALL", ""),
    ("xdp.frags/devmap", "XDP", "BPF_XDP_DEVMAP"),
    ("xdp/devmap", "XDP", "BPF_XDP_DEVMAP"),
    ("xdp.frags/cpumap", "XDP", "BPF_XDP_CPUMAP"),
    ("xdp/cpumap", "XDP", "BPF_XDP_CPUMAP"),
    ("xdp.frags", "XDP", "BPF_XDP"),
    ("xdp", "XDP", "BPF_XDP"),
    ("perf_event", "PERF_EVENT", ""),
    ("lwt_in", "LWT_IN", ""),
    ("lwt_out", "LWT_OUT", ""),
    ("lwt_xmit", "LWT_XMIT", ""),
    ("lwt_seg6local", "LWT_SEG6LOCAL", ""),
    ("sockops", "SOCK_OPS", "BPF_CGROUP_SOCK_OPS"),
    ("sk_skb/stream_parser", "SK_SKB", "BPF_SK_SKB_STREAM_PARSER"),
    ("sk_skb/stream_verdict", "SK_SKB", "BPF_SK_SKB_STREAM_VERDICT"),
    ("sk_skb/verdict", "SK_SKB", "BPF_SK_SKB_VERDICT"),
    ("sk_skb", "SK_SKB", ""),
    ("sk_msg", "SK_MSG", "BPF_SK_MSG_VERDICT"),
    ("lirc_mode2", "LIRC_MODE2", "BPF_LIRC_MODE2"),
    ("flow_dissector", "FLOW_DISSECTOR", "BPF_FLOW_DISSECTOR"),
    ("cgroup_skb/ingress", "CGROUP_SKB", "BPF_CGROUP_INET_INGRESS"),
    ("cgroup_skb/egress", "CGROUP_SKB", "BPF_CGROUP_INET_EGRESS"),
    ("cgroup/skb", "CGROUP_SKB", ""),
    ("cgroup/sock_create", "CGROUP_SOCK", "BPF_CGROUP_INET_SOCK_CREATE"),
    ("cgroup/sock_release", "CGROUP_SOCK", "BPF_CGROUP_INET_SOCK_RELEASE"),
    ("cgroup/sock", "CGROUP_SOCK", "BPF_CGROUP_INET_SOCK_CREATE"),
    ("cgroup/post_bind4", "CGROUP_SOCK", "BPF_CGROUP_INET4_POST_BIND"),
    ("cgroup/post_bind6", "CGROUP_SOCK", "BPF_CGROUP_INET6_POST_BIND"),
    ("cgroup/bind4", "CGROUP_SOCK_ADDR", "BPF_CGROUP_INET4_BIND"),
    ("cgroup/bind6", "CGROUP_SOCK_ADDR", "BPF_CGROUP_INET6_BIND"),
    ("cgroup/connect4", "CGROUP_SOCK_ADDR", "BPF_CGROUP_INET4_CONNECT"),
    ("cgroup/connect6", "CGROUP_SOCK_ADDR", "BPF_CGROUP_INET6_CONNECT"),
    ("cgroup/connect_unix", "CGROUP_SOCK_ADDR", "BPF_CGROUP_UNIX_CONNECT"),
    ("cgroup/sendmsg4", "CGROUP_SOCK_ADDR", "BPF_CGROUP_UDP4_SENDMSG"),
    ("cgroup/sendmsg6", "CGROUP_SOCK_ADDR", "BPF_CGROUP_UDP6_SENDMSG"),
    ("cgroup/sendmsg_unix", "CGROUP_SOCK_ADDR", "BPF_CGROUP_UNIX_SENDMSG"),
    ("cgroup/recvmsg4", "CGROUP_SOCK_ADDR", "BPF_CGROUP_UDP4_RECVMSG"),
    ("cgroup/recvmsg6", "CGROUP_SOCK_ADDR", "BPF_CGROUP_UDP6_RECVMSG"),
    ("cgroup/recvmsg_unix", "CGROUP_SOCK_ADDR", "BPF_CGROUP_UNIX_RECVMSG"),
    ("cgroup/getpeername4", "CGROUP_SOCK_ADDR", "BPF_CGROUP_INET4_GETPEERNAME"),
    ("cgroup/getpeername6", "CGROUP_SOCK_ADDR", "BPF_CGROUP_INET6_GETPEERNAME"),
    ("cgroup/getpeername_unix", "CGROUP_SOCK_ADDR", "BPF_CGROUP_UNIX_GETPEERNAME"),
    ("cgroup/getsockname4", "CGROUP_SOCK_ADDR", "BPF_CGROUP_INET4_GETSOCKNAME"),
    ("cgroup/getsockname6", "CGROUP_SOCK_ADDR", "BPF_CGROUP_INET6_GETSOCKNAME"),
    ("cgroup/getsockname_unix", "CGROUP_SOCK_ADDR", "BPF_CGROUP_UNIX_GETSOCKNAME"),
    ("cgroup/sysctl", "CGROUP_SYSCTL", "BPF_CGROUP_SYSCTL"),
    ("cgroup/getsockopt", "CGROUP_SOCKOPT", "BPF_CGROUP_GETSOCKOPT"),
    ("cgroup/setsockopt", "CGROUP_SOCKOPT", "BPF_CGROUP_SETSOCKOPT"),
    ("cgroup/dev", "CGROUP_DEVICE", "BPF_CGROUP_DEVICE"),
    ("struct_ops+", "STRUCT_OPS", ""),
    ("struct_ops.s+", "STRUCT_OPS", ""),
    ("sk_lookup", "SK_LOOKUP", "BPF_SK_LOOKUP"),
    ("netfilter", "NETFILTER", "BPF_NETFILTER"),
];

/// A section's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SectionName<'a> {
    /// Whether the program is loaded with the object: not if the name begins with `?`.
    pub is_loaded: bool,
    /// `SCHED_CLS`; `None` where the name says no type.
    pub program_type: Option<&'static str>,
    /// `BPF_TCX_INGRESS`.
    pub attach_type: Option<&'static str>,
    /// What is behind the first `/` of a name that may have more.
    pub target: Option<&'a str>,
}

impl<'a> SectionName<'a> {
    /// Reads it.
    pub fn read(name: &'a str) -> Self {
        let (is_loaded, name) = name.strip_prefix('?').map_or((true, name), |rest| (false, rest));
        let fits = |pattern: &str| match pattern.strip_suffix('+') {
            Some(start) => name.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            None => name == pattern,
        };
        let found = SECTIONS.iter().find(|(pattern, ..)| fits(pattern));
        Self {
            is_loaded,
            program_type: found.map(|(_, kind, _)| *kind),
            attach_type: found.map(|(.., attach)| *attach).filter(|attach| !attach.is_empty()),
            target: found
                .filter(|(pattern, ..)| pattern.ends_with('+'))
                .and_then(|_| name.split_once('/'))
                .map(|(_, target)| target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_types_as_libbpf_reads_them() {
        let read = |name| {
            let it = SectionName::read(name);
            (it.is_loaded, it.program_type, it.attach_type, it.target)
        };
        assert_eq!(read("tc"), (true, Some("SCHED_CLS"), None, None));
        assert_eq!(read("?tcx/ingress"), (false, Some("SCHED_CLS"), Some("BPF_TCX_INGRESS"), None));
        assert_eq!(read("tc/ingress/more"), (true, None, None, None));
        assert_eq!(read("classifier/ingress/drop"), (true, None, None, None));
        assert_eq!(read("lsm/socket_bind"), (true, Some("LSM"), Some("BPF_LSM_MAC"), Some("socket_bind")));
        assert_eq!(read("kprobe.multi/a*"), (true, Some("KPROBE"), Some("BPF_TRACE_KPROBE_MULTI"), Some("a*")));
        assert_eq!(read("fentryx"), (true, None, None, None));
    }
}
