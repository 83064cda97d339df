//! Settings that make a namespace quiet: no duplicate address detection, no router solicitations and no reverse path
//! filter, so that what moves is the case's own traffic.

use crate::Netns;
use std::{
    fs, io,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

/// Written in every namespace before it has devices.
const QUIET: [(&str, &str); 8] = [
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/dad_transmits", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/autoconf", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];

/// Written once where a machine is the lab's own (Documentation/admin-guide/sysctl/net.rst): namespaces take the
/// settings of the first one, and none gets tunnel devices that nobody asked for.
const INHERIT: [(&str, &str); 2] =
    [("net/core/devconf_inherit_init_net", "1"), ("net/core/fb_tunnels_only_for_init_net", "1")];

static INHERITED: AtomicBool = AtomicBool::new(false);

/// What to write in a fresh namespace.
pub(crate) fn settings() -> &'static [(&'static str, &'static str)] {
    if INHERITED.load(Ordering::Relaxed) { &[] } else { &QUIET }
}

/// Makes this machine's first namespace quiet and has later ones inherit that, which saves writing it in each. For
/// machines that are the lab's own. Where a kernel does not inherit everything, later namespaces are written as ever.
pub fn inherit() {
    for (key, value) in INHERIT.iter().chain(&QUIET) {
        // What was not taken shows below.
        _ = fs::write(path(key), value);
    }
    let inherits = Netns::new("quiet").is_ok_and(|ns| ns.run(is_quiet).unwrap_or(false));
    INHERITED.store(inherits, Ordering::Relaxed);
}

fn is_quiet() -> io::Result<bool> {
    for (key, value) in QUIET {
        if fs::read_to_string(path(key))?.trim() != value {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Of a sysctl of the calling thread's namespace.
pub(crate) fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}
