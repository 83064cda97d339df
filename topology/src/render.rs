//! Draws a topology as text, for reports.

use crate::model::{End, Topology};
use std::fmt;

impl fmt::Display for Topology {
    /// A line per node, link, dummy and route:
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
            write!(f, "\n  {} =={}== {}", self.end(&link.primary), link.kind, self.end(&link.peer))?;
        }
        for (node, name) in &self.dummies {
            write!(f, "\n  {} (dummy)", self.end(&End::new(node, name)))?;
        }
        for route in &self.routes {
            write!(f, "\n  {}: {}", route.node, route.to)?;
            if let Some(via) = route.hop.via {
                write!(f, " via {via}")?;
            }
            write!(f, " dev {}", route.hop.dev)?;
        }
        Ok(())
    }
}

impl Topology {
    fn end(&self, end: &End) -> String {
        let addresses: Vec<_> = self
            .addresses
            .iter()
            .filter(|address| address.node == end.node && address.dev == end.name)
            .map(|address| address.cidr.to_string())
            .collect();
        let mtu = end.mtu.map_or(String::new(), |mtu| format!(" mtu {mtu}"));
        format!("{}:{} [{}]{mtu}", end.node, end.name, addresses.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use crate::{LinkKind, library};

    #[test]
    fn a_pair_reads_like_a_diagram() {
        let text = library::pair(LinkKind::NetkitL3).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "pair: host pod");
        assert_eq!(lines[1], "  host:p0 [10.1.0.1/32 fd01::1/128] ==nk-l3== pod:eth0 [10.1.0.2/32 fd01::2/128]");
        assert_eq!(lines.last(), Some(&"  pod: ::/0 via fd01::1 dev eth0"));
    }
}
