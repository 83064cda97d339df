//! Draws a topology as text, for reports.

use crate::model::{Device, DeviceSpec, Nat, NetkitOptions, Policy, Rule, Scrub, Selector, Topology};
use std::fmt;

/// Columns of a drawing: what a terminal and a report show without wrapping.
const COLUMNS: usize = 100;

impl fmt::Display for Topology {
    /// A line per node, link, device, route, rule and translation:
    ///
    /// ```text
    /// pods: host* w0 w1                          (* forwards)
    ///   host:p0 [169.254.1.1/32 fd65::fe:1/128] ==nk-l2== w0:eth0 [10.65.0.2/32 fd65::2/128]
    ///   host: 10.65.0.2/32 dev p0
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.name)?;
        for node in &self.nodes {
            write!(f, " {}{}", node.name, if node.router { "*" } else { "" })?;
        }
        if self.nodes.iter().any(|node| node.router) {
            write!(f, "   (* forwards)")?;
        }
        for link in &self.links {
            let end = |end: &crate::model::End| self.end(&end.node, &end.name, end.mtu);
            let (primary, peer) = (end(&link.primary), end(&link.peer));
            let options = netkit_words(&link.netkit);
            write!(f, "\n{}", wrapped(&format!("  {primary} =={}== {peer}{options}", link.kind)))?;
        }
        for device in &self.devices {
            write!(f, "\n  {} {}", self.end(&device.node, &device.name, None), words(device))?;
        }
        for route in &self.routes {
            write!(f, "\n  {}: {}", route.node, route.to)?;
            if let Some(via) = route.hop.via {
                write!(f, " via {via}")?;
            }
            write!(f, " dev {}", route.hop.dev)?;
            if let Some(table) = route.table {
                write!(f, " table {table}")?;
            }
        }
        for rule in &self.rules {
            write!(f, "\n  {}: {}", rule.node, rule_words(rule))?;
        }
        for nat in &self.nat {
            write!(f, "\n  {}: {}", nat.node(), nat_words(nat))?;
        }
        for sysctl in &self.sysctls {
            write!(f, "\n  {}: {} = {}", sysctl.node, sysctl.key, sysctl.value)?;
        }
        if self.static_neighbours {
            write!(f, "\n  permanent neighbours at both ends of every link")?;
        }
        Ok(())
    }
}

/// What a netkit pair has beyond the kernel's defaults.
fn netkit_words(options: &NetkitOptions) -> String {
    let policy = |policy| if policy == Policy::Forward { "forward" } else { "blackhole" };
    let scrub = |scrub| if scrub == Scrub::None { "none" } else { "default" };
    let words = [
        ("policy", options.policy.map(policy)),
        ("peer policy", options.peer_policy.map(policy)),
        ("scrub", options.scrub.map(scrub)),
        ("peer scrub", options.peer_scrub.map(scrub)),
    ];
    let set: Vec<String> = words.iter().filter_map(|(name, value)| Some(format!("{name} {}", (*value)?))).collect();
    if set.is_empty() { String::new() } else { format!(" ({})", set.join(", ")) }
}

/// A line broken between words where it is wider than a terminal.
fn wrapped(line: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in line.split_inclusive(' ') {
        if column + word.trim_end().len() > COLUMNS {
            out.truncate(out.trim_end().len());
            out.push_str("\n      ");
            column = 6;
        }
        out.push_str(word);
        column += word.len();
    }
    out
}

impl Topology {
    /// A device's addresses.
    pub(crate) fn addresses_of(&self, node: &str, dev: &str) -> Vec<String> {
        let own = self.addresses.iter().filter(|address| address.node == node && address.dev == dev);
        own.map(|address| address.cidr.to_string()).collect()
    }

    /// The bridge or VRF that a device belongs to.
    pub(crate) fn controller_of(&self, node: &str, dev: &str) -> Option<&str> {
        let port = self.ports.iter().find(|port| port.node == node && port.dev == dev);
        port.map(|port| &*port.controller)
    }

    fn end(&self, node: &str, dev: &str, mtu: Option<u32>) -> String {
        let mtu = mtu.map_or(String::new(), |mtu| format!(" mtu {mtu}"));
        let controller = self.controller_of(node, dev).map_or(String::new(), |controller| format!(" in {controller}"));
        format!("{node}:{dev} [{}]{mtu}{controller}", self.addresses_of(node, dev).join(" "))
    }
}

/// What a device is, in brackets.
pub(crate) fn words(device: &Device) -> String {
    let kind = device.spec.name();
    match &device.spec {
        DeviceSpec::Dummy | DeviceSpec::Bridge => format!("({kind})"),
        DeviceSpec::Vrf { table } => format!("({kind} table {table})"),
        DeviceSpec::Vxlan { id, tunnel } => format!("({kind} {id}, {} to {})", tunnel.local, tunnel.remote),
        DeviceSpec::VxlanMetadata => format!("({kind}, as each packet says)"),
        DeviceSpec::IpTunnel { tunnel } => format!("({kind}, {} to {})", tunnel.local, tunnel.remote),
        DeviceSpec::Tap { far } => {
            let far: Vec<String> = far.iter().map(ToString::to_string).collect();
            format!("({kind}, user space is {})", far.join(" "))
        }
    }
}

pub(crate) fn rule_words(rule: &Rule) -> String {
    let selector = match &rule.selector {
        Selector::Iif(dev) => format!("iif {dev}"),
        Selector::From(source) => format!("from {source}"),
        Selector::FwMark(mark) => format!("{} fwmark {mark:#x}", rule.family),
        Selector::FwMarkPart { mark, mask } => format!("{} fwmark {mark:#x}/{mask:#x}", rule.family),
        Selector::Tos(tos) => format!("{} tos {tos:#x}", rule.family),
    };
    format!("rule {} {selector} table {}", rule.priority, rule.table)
}

pub(crate) fn nat_words(nat: &Nat) -> String {
    match nat {
        Nat::Masquerade { out, .. } => format!("masquerade out of {out}"),
        Nat::Dnat { from, from_port, to, to_port, .. } => {
            format!("dnat {from} port {from_port} to {to} port {to_port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::COLUMNS;
    use crate::{LinkKind, library};

    #[test]
    fn a_pair_reads_like_a_diagram() {
        let text = library::PAIR.of(LinkKind::NetkitL3).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "pair: host pod");
        assert_eq!(lines[1], "  host:p0 [10.1.0.1/32 fd01::1/128] ==nk-l3== pod:eth0 [10.1.0.2/32 fd01::2/128]");
        let last = &lines[lines.len() - 2..];
        assert_eq!(last, ["  pod: ::/0 via fd01::1 dev eth0", "  permanent neighbours at both ends of every link"]);
        let resolving = library::PAIR_RESOLVING.of(LinkKind::NetkitL3).to_string();
        assert_eq!(resolving.lines().last(), Some("  pod: ::/0 via fd01::1 dev eth0"));
    }

    #[test]
    fn every_drawing_fits_a_terminal() {
        for (_, topology) in library::ALL.iter().flat_map(crate::Template::variants) {
            for line in topology.to_string().lines() {
                assert!(line.len() <= COLUMNS, "{}: {line}", topology.name);
            }
        }
    }
}
