//! What a kernel's own command line takes from it: a project that turns something off on purpose must not list it again under
//! `unsupported`.
//!
//! Sources: Documentation/admin-guide/kernel-parameters.txt (`module_blacklist`, `nomodule`, `initcall_blacklist`, `sysctl.*`),
//! Documentation/networking/ipv6.rst, Documentation/admin-guide/sysctl/net.rst.

use lab_protocol::Capability;

/// A capability that a word takes away.
pub(super) struct Taken {
    pub capability: Capability,
    /// The word.
    pub reason: String,
    /// Where that is documented.
    pub source: &'static str,
}

const PARAMETERS: &str = "Documentation/admin-guide/kernel-parameters.txt";
const IPV6: &str = "Documentation/networking/ipv6.rst";
const NET: &str = "Documentation/admin-guide/sysctl/net.rst";

/// The modules without which a capability is missing, those on which its own depend included. Where they are built in,
/// `module_blacklist` does nothing, and the probes find the capability all the same.
const fn modules(capability: Capability) -> &'static [&'static str] {
    match capability {
        Capability::Clsact => &["cls_bpf", "sch_ingress"],
        Capability::Mirred => &["act_mirred", "cls_matchall", "sch_ingress"],
        Capability::Veth => &["veth"],
        Capability::Dummy => &["dummy"],
        Capability::Bridge => &["bridge", "stp", "llc"],
        Capability::Vrf => &["vrf"],
        Capability::Tun => &["tun"],
        Capability::Vxlan => &["vxlan", "udp_tunnel", "ip6_udp_tunnel"],
        Capability::Ipip => &["ipip", "tunnel4", "ip_tunnel"],
        Capability::Ip6Tnl => &["ip6_tunnel", "tunnel6", "ipv6"],
        Capability::Ipv6 => &["ipv6"],
        Capability::NftNat => {
            &["nf_tables", "nfnetlink", "nft_chain_nat", "nft_nat", "nft_masq", "nf_nat", "nf_conntrack", "libcrc32c"]
        }
        _ => &[],
    }
}

/// Initcalls that register what a capability is (`netkit_init()`, drivers/net/netkit.c).
const NETKIT: (&str, [Capability; 5]) = (
    "netkit_init",
    [
        Capability::Netkit,
        Capability::NetkitScrub,
        Capability::NetkitHeadroom,
        Capability::NetkitSingle,
        Capability::NetkitQueueLease,
    ],
);

/// The capabilities that these words take away, each once.
pub(super) fn taken(cmdline: &[String]) -> Vec<Taken> {
    let mut found: Vec<Taken> = Vec::new();
    let mut take = |capability: Capability, word: &str, source: &'static str| {
        if !found.iter().any(|it| it.capability == capability) {
            found.push(Taken { capability, reason: format!("its command line has {word}"), source });
        }
    };
    for word in cmdline {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let listed = || value.split(',').map(|module| module.replace('-', "_"));
        // Sysctls take both separators (proc_sysctl.c, process_sysctl_arg()).
        match &*name.replace('/', ".") {
            "ipv6.disable" if value == "1" => {
                take(Capability::Ipv6, word, IPV6);
                take(Capability::Ip6Tnl, word, IPV6);
            }
            "ipv6.disable_ipv6"
            | "sysctl.net.ipv6.conf.all.disable_ipv6"
            | "sysctl.net.ipv6.conf.default.disable_ipv6"
                if value == "1" =>
            {
                take(Capability::Ipv6, word, IPV6);
            }
            "sysctl.net.core.bpf_jit_enable" if value == "0" => take(Capability::BpfJit, word, NET),
            "sysctl.user.max_user_namespaces" if value == "0" => take(Capability::UserNs, word, PARAMETERS),
            "module_blacklist" => {
                let listed: Vec<String> = listed().collect();
                for capability in Capability::ALL {
                    if modules(capability).iter().any(|module| listed.iter().any(|name| name == module)) {
                        take(capability, word, PARAMETERS);
                    }
                }
            }
            "nomodule" => {
                Capability::ALL.into_iter().filter(|it| it.is_module()).for_each(|it| take(it, word, PARAMETERS));
            }
            "sysctl.kernel.modules_disabled" if value == "1" => {
                Capability::ALL.into_iter().filter(|it| it.is_module()).for_each(|it| take(it, word, PARAMETERS));
            }
            "initcall_blacklist" if listed().any(|initcall| initcall == NETKIT.0) => {
                NETKIT.1.into_iter().for_each(|it| take(it, word, PARAMETERS));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(words: &[&str]) -> Vec<&'static str> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        taken(&words).iter().map(|entry| entry.capability.name()).collect()
    }

    #[test]
    fn a_word_takes_what_the_kernel_documents() {
        assert_eq!(gone(&["ipv6.disable=1"]), ["ipv6", "ip6-tnl"]);
        assert_eq!(gone(&["module_blacklist=veth,ip6-tunnel"]), ["veth", "ip6-tnl"]);
        assert_eq!(gone(&["sysctl.net/core/bpf_jit_enable=0"]), ["bpf-jit"]);
        assert_eq!(gone(&["initcall_blacklist=x,netkit_init"])[..2], ["netkit", "netkit-scrub"]);
        assert!(gone(&["nomodule"]).contains(&"clsact") && !gone(&["nomodule"]).contains(&"tcx"));
        let nothing = ["ipv6.disable=0", "sysctl.net.core.bpf_jit_enable=1", "module_blacklist=pcspkr", "quiet"];
        assert!(gone(&nothing).is_empty());
        assert_eq!(gone(&["module_blacklist=veth", "nomodule"]).iter().filter(|name| **name == "veth").count(), 1);
    }
}
