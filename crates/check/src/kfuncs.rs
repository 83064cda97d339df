//! What is known of kfuncs: the modules that have them, and the versions that brought them.

use lab_protocol::KernelVersion;

/// kfuncs that are in modules of the kernel: the beginning of their names, and the module.
const IN_MODULES: [(&str, &str); 12] = [
    ("bpf_skb_ct_", "nf_conntrack"),
    ("bpf_xdp_ct_", "nf_conntrack"),
    ("bpf_ct_set_nat_info", "nf_nat"),
    ("bpf_ct_", "nf_conntrack"),
    ("bpf_skb_set_fou_encap", "fou"),
    ("bpf_skb_get_fou_encap", "fou"),
    ("bpf_skb_get_xfrm_info", "xfrm_interface"),
    ("bpf_skb_set_xfrm_info", "xfrm_interface"),
    ("bpf_xdp_flow_lookup", "nf_flow_table"),
    ("bpf_crypto_", "bpf_crypto_skcipher"),
    ("bpf_testmod", "bpf_testmod"),
    ("bpf_kfunc_", "bpf_testmod"),
];

/// The first version of mainline with the kfunc, with the commit's title.
const KFUNCS: [(&str, KernelVersion, &str); 14] = [
    ("bpf_dynptr_from_skb", v(6, 4), "bpf: Add skb dynptrs"),
    ("bpf_dynptr_from_xdp", v(6, 4), "bpf: Add xdp dynptrs"),
    ("bpf_dynptr_slice", v(6, 4), "bpf: Add bpf_dynptr_slice and bpf_dynptr_slice_rdwr"),
    ("bpf_dynptr_slice_rdwr", v(6, 4), "bpf: Add bpf_dynptr_slice and bpf_dynptr_slice_rdwr"),
    ("bpf_dynptr_adjust", v(6, 5), "bpf: Add bpf_dynptr_adjust"),
    ("bpf_dynptr_is_null", v(6, 5), "bpf: Add bpf_dynptr_is_null and bpf_dynptr_is_rdonly"),
    ("bpf_dynptr_size", v(6, 5), "bpf: Add bpf_dynptr_size"),
    ("bpf_dynptr_clone", v(6, 5), "bpf: Add bpf_dynptr_clone"),
    ("bpf_rcu_read_lock", v(6, 2), "bpf: Add kfunc bpf_rcu_read_lock/unlock()"),
    ("bpf_obj_new_impl", v(6, 2), "bpf: Introduce bpf_obj_new"),
    ("bpf_cast_to_kern_ctx", v(6, 2), "bpf: Add a kfunc to type cast from bpf uapi ctx to kernel ctx"),
    ("bpf_iter_num_new", v(6, 4), "bpf: implement numbers iterator"),
    ("bpf_sk_assign_tcp_reqsk", v(6, 9), "bpf: tcp: Support arbitrary SYN Cookie."),
    ("bpf_skb_set_fou_encap", v(6, 4), "bpf,fou: Add bpf_skb_{set,get}_fou_encap kfuncs"),
];

const fn v(major: u16, minor: u16) -> KernelVersion {
    KernelVersion::new(major, minor, 0)
}

/// The module of the kernel that a kfunc is in, as far as that is known.
pub fn module_of(kfunc: &str) -> Option<&'static str> {
    IN_MODULES.iter().find(|(start, _)| kfunc.starts_with(start)).map(|(_, module)| *module)
}

/// The first version of mainline with a kfunc that is not in a module, with the commit's title.
pub fn since(kfunc: &str) -> Option<(KernelVersion, &'static str)> {
    let found = KFUNCS.iter().find(|(it, ..)| *it == kfunc && module_of(kfunc).is_none());
    found.map(|(_, since, title)| (*since, *title))
}
