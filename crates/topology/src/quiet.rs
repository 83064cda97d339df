//! Settings that make a namespace quiet: no duplicate address detection, no router solicitations and no reverse path
//! filter, so that only the case's own packets are sent.

use crate::Netns;
use std::{fs, path::PathBuf, sync::OnceLock};

type Setting = (&'static str, &'static str);

/// Settings of every namespace before it has devices. Prefixes for autoconf only come with router advertisements, which
/// are not accepted.
static QUIET: [Setting; 7] = [
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/dad_transmits", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];

/// Written once where a machine is the lab's own (Documentation/admin-guide/sysctl/net.rst): namespaces take the
/// settings of the first one, and none gets tunnel devices that it does not declare.
const INHERIT: [Setting; 2] =
    [("net/core/devconf_inherit_init_net", "1"), ("net/core/fb_tunnels_only_for_init_net", "1")];

/// Before modules are loaded: tunnel modules make no devices of their own (since 5.9; older kernels refuse the value).
const NO_TUNNELS: Setting = ("net/core/fb_tunnels_only_for_init_net", "2");

/// What the machine had before any of it was changed.
static NORMAL: OnceLock<Vec<(&str, String)>> = OnceLock::new();

/// Sizes of socket buffers, which hold for all namespaces (`sk_init`, net/core/sock.c): a configuration or a command line
/// can set them so low that the few datagrams of a case do not fit.
const BUFFERS: [&str; 2] = ["net/core/rmem_default", "net/core/wmem_default"];
/// What the kernel sets unless it is told otherwise, bytes (`SK_RMEM_MAX`, include/net/sock.h).
const USUAL_BUFFER: u32 = 212_992;

/// Of [`QUIET`] what a fresh namespace does not inherit; unset where it need not inherit anything.
static NOT_INHERITED: OnceLock<Vec<Setting>> = OnceLock::new();

/// What to write in a fresh namespace.
pub(crate) fn settings() -> &'static [Setting] {
    NOT_INHERITED.get().map_or(&QUIET, Vec::as_slice)
}

/// Makes this machine's first namespace quiet and has later ones inherit that, which saves writing it in each. Raises
/// buffers of sockets to their usual size. For machines that are the lab's own. What a kernel does not inherit is written in
/// later namespaces as ever.
pub fn inherit() {
    again();
    NOT_INHERITED.get_or_init(|| {
        let fresh = Netns::new("quiet");
        let has = |setting: &Setting| fresh.as_ref().is_ok_and(|ns| ns.run(|| holds(setting)));
        QUIET.iter().copied().filter(|setting| !has(setting)).collect()
    });
}

/// Before the first module is loaded: the machine has the devices that somebody asks for, and none that a module brings.
pub fn before_modules() {
    remember();
    let (key, value) = NO_TUNNELS;
    _ = fs::write(path(key), value);
}

/// Gives a program of others the kernel's own settings: duplicate address detection, router solicitations, tunnel devices in
/// new namespaces.
pub fn normal() {
    for (key, value) in NORMAL.get().into_iter().flatten() {
        _ = fs::write(path(key), value);
    }
}

/// After [`normal`]: what topologies need.
pub fn again() {
    remember();
    for (key, value) in INHERIT.iter().chain(&QUIET) {
        // Settings that failed are detected by [`inherit`].
        _ = fs::write(path(key), value);
    }
    for key in BUFFERS {
        let current = fs::read_to_string(path(key)).ok().and_then(|text| text.trim().parse::<u32>().ok());
        if current.is_some_and(|bytes| bytes < USUAL_BUFFER) {
            // Without the setting, cases fail by what they lose.
            _ = fs::write(path(key), USUAL_BUFFER.to_string());
        }
    }
}

fn remember() {
    NORMAL.get_or_init(|| {
        let keys = INHERIT.iter().chain(&QUIET).map(|(key, _)| *key).chain(BUFFERS);
        keys.filter_map(|key| Some((key, fs::read_to_string(path(key)).ok()?))).collect()
    });
}

fn holds((key, value): &Setting) -> bool {
    fs::read_to_string(path(key)).is_ok_and(|is| is.trim() == *value)
}

/// Of a sysctl of the calling thread's namespace.
pub(crate) fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}
