//! Describes a namespace as text: its devices and what is attached to them.

use lab_topology::{DeviceInfo, Netns, link};
use std::fmt::Write as _;

/// Describes every device of a namespace, with `detail` and its programs. Devices for which `detail` returns `None`
/// are left out.
pub fn write(out: &mut String, ns: &Netns, detail: impl Fn(&DeviceInfo) -> Option<String>) {
    let _ = writeln!(out, "{}", ns.name());
    let links = match link::list(ns) {
        Ok(links) => links,
        Err(error) => {
            let _ = writeln!(out, "  {error}");
            return;
        }
    };
    for info in links {
        let Some(detail) = detail(&info) else { continue };
        let state = match (info.up, info.running) {
            (true, true) => "up",
            (true, false) => "no carrier",
            (false, _) => "down",
        };
        let _ = writeln!(out, "  {} {} {} mtu {} {state}", info.ifindex, info.name, info.kind, info.mtu);
        if !detail.is_empty() {
            let _ = writeln!(out, "      {detail}");
        }
        match ns.run(|| lab_bpf::observe(info.ifindex)) {
            Ok(programs) => {
                for seen in programs {
                    let link = seen.link_id.map_or_else(String::new, |id| format!(" link {id}"));
                    let _ = writeln!(out, "      {} prog {}{link}", seen.hook, seen.prog_id);
                }
            }
            Err(error) => _ = writeln!(out, "      programs: {error}"),
        }
    }
}
