//! The programs' settings. The loader writes them into `.rodata` before a program is verified.

use lab_abi::witness::WitnessConfig;

#[unsafe(no_mangle)]
static CONFIG: WitnessConfig = WitnessConfig {
    own_tgid: 0,
    kind: 0,
    entered: 0,
    cpus: 0,
    task_files: 0,
    task_nsproxy: 0,
    files_fdt: 0,
    fdt_fd: 0,
    file_private: 0,
    nsproxy_net: 0,
    net_inum: 0,
    net_index: 0,
    dev_name: 0,
    dev_ifindex: 0,
    dev_hlist: 0,
    dev_net: 0,
    dev_ops: 0,
    dev_state: 0,
    ops_kind: 0,
    skb_sk: 0,
    sk_net: 0,
    prog_type: 0,
    prog_tag: 0,
    prog_aux: 0,
    prog_stats: 0,
    aux_id: 0,
    aux_name: 0,
    aux_prog: 0,
    stats_cnt: 0,
    stats_nsecs: 0,
    link_id: 0,
    link_type: 0,
    link_prog: 0,
    proto_prio: 0,
    cls_filter: 0,
    mprog_parent: 0,
    bundle_ref: 0,
    spare: 0,
};

/// Reads a field.
#[inline(always)]
pub fn get(field: impl FnOnce(*const WitnessConfig) -> *const u32) -> u32 {
    // SAFETY: a reference to a static is valid and aligned. Volatile, for the compiler would otherwise fold in the value that
    // it sees above.
    unsafe { core::ptr::read_volatile(field(&raw const CONFIG)) }
}

/// One field of the settings.
macro_rules! set {
    ($name:ident) => {
        // SAFETY: the address of a field of a static; nothing is read here.
        $crate::config::get(|config| unsafe { &raw const (*config).$name })
    };
}
pub(crate) use set;
