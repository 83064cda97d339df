//! Draws a topology as SVG: a box per node with a line per device, and a curve per link.

use crate::{
    model::Topology,
    render::{nat_words, rule_words, words},
};
use std::{collections::BTreeMap, fmt::Write as _};

/// Sizes in pixels. The font is monospaced, so that text can be measured by its length.
const CHAR: usize = 7;
const ROW: usize = 18;
const PAD: usize = 12;
const GAP_X: usize = 110;
const GAP_Y: usize = 24;
const HEAD: usize = 30;
/// A colour per kind of link; the label names the kind too.
const COLOURS: [(&str, &str); 3] = [("veth", "#6b7280"), ("nk-l2", "#2563eb"), ("nk-l3", "#b45309")];

/// A box.
struct Node {
    name: String,
    router: bool,
    /// Device names in the order of their lines; `None` for a line of another sort.
    rows: Vec<(Option<String>, String)>,
    column: usize,
    x: usize,
    y: usize,
    width: usize,
}

impl Node {
    fn height(&self) -> usize {
        HEAD + self.rows.len() * ROW + PAD / 2
    }

    /// Height of a device's line in the drawing.
    fn row(&self, dev: &str) -> usize {
        let at = self.rows.iter().position(|(name, _)| name.as_deref() == Some(dev)).unwrap_or(0);
        self.y + HEAD + at * ROW + ROW / 2 - 2
    }
}

impl Topology {
    /// The drawing as a whole SVG document.
    pub fn svg(&self) -> String {
        let mut nodes = self.boxes();
        let (width, height) = place(&mut nodes);
        let mut out = String::new();
        let _ = writeln!(
            out,
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="11.5">"##
        );
        let _ = writeln!(out, r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##);
        let _ = writeln!(
            out,
            r##"<text x="{PAD}" y="22" font-size="15" font-weight="bold">{}</text>"##,
            escape(&self.name)
        );
        for link in &self.links {
            let of = |name: &str| nodes.iter().find(|node| node.name == name);
            let (Some(primary), Some(peer)) = (of(&link.primary.node), of(&link.peer.node)) else { continue };
            let ends = ((primary, link.primary.name.as_str()), (peer, link.peer.name.as_str()));
            let ((from, from_dev), (to, to_dev)) = if primary.x <= peer.x { ends } else { (ends.1, ends.0) };
            curve(&mut out, (from.x + from.width, from.row(from_dev)), (to.x, to.row(to_dev)), link.kind.name());
        }
        nodes.iter().for_each(|node| draw(&mut out, node));
        out.push_str("</svg>\n");
        out
    }

    fn boxes(&self) -> Vec<Node> {
        let columns = self.columns();
        self.nodes
            .iter()
            .map(|node| {
                let rows = self.rows(&node.name);
                let longest = rows.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0);
                let width = (longest.max(node.name.len() + 12) * CHAR) + 2 * PAD;
                let column = columns.get(node.name.as_str()).copied().unwrap_or(0);
                Node { name: node.name.clone(), router: node.router, rows, column, x: 0, y: 0, width }
            })
            .collect()
    }

    fn rows(&self, node: &str) -> Vec<(Option<String>, String)> {
        let mut rows = Vec::new();
        let ends = self.links.iter().flat_map(|link| [&link.primary, &link.peer]).filter(|end| end.node == node);
        for end in ends {
            let mtu = end.mtu.map_or(String::new(), |mtu| format!(" mtu {mtu}"));
            rows.push((Some(end.name.clone()), self.device_row(node, &end.name, &mtu)));
        }
        for device in self.devices.iter().filter(|device| device.node == node) {
            rows.push((Some(device.name.clone()), self.device_row(node, &device.name, &format!(" {}", words(device)))));
        }
        rows.extend(self.rules.iter().filter(|rule| rule.node == node).map(|rule| (None, rule_words(rule))));
        rows.extend(self.nat.iter().filter(|nat| nat.node() == node).map(|nat| (None, nat_words(nat))));
        rows
    }

    fn device_row(&self, node: &str, dev: &str, more: &str) -> String {
        let controller = self.controller_of(node, dev).map_or(String::new(), |controller| format!(" in {controller}"));
        format!("{dev:<6} {}{more}{controller}", self.addresses_of(node, dev).join(" ")).trim_end().to_owned()
    }

    /// Each node's distance from the first one that hangs on a single link: a workload, where there is one.
    fn columns(&self) -> BTreeMap<&str, usize> {
        let links =
            |node: &str| self.links.iter().filter(|link| link.primary.node == node || link.peer.node == node).count();
        let first = self.nodes.iter().find(|node| !node.router && links(&node.name) <= 1).or(self.nodes.first());
        let mut columns = BTreeMap::new();
        let mut reached: Vec<&str> = first.map(|node| node.name.as_str()).into_iter().collect();
        let mut column = 0;
        while !reached.is_empty() {
            reached.retain(|node| !columns.contains_key(node));
            columns.extend(reached.iter().map(|node| (*node, column)));
            let ends = self.links.iter().flat_map(|link| {
                let (primary, peer) = (link.primary.node.as_str(), link.peer.node.as_str());
                [(primary, peer), (peer, primary)]
            });
            reached = ends.filter(|(from, _)| reached.contains(from)).map(|(_, to)| to).collect();
            column += 1;
        }
        columns
    }
}

/// Puts the boxes in columns, each column centred; gives the size of the whole.
fn place(nodes: &mut [Node]) -> (usize, usize) {
    let last = nodes.iter().map(|node| node.column).max().unwrap_or(0);
    let heights: Vec<usize> = (0..=last)
        .map(|column| {
            let own = nodes.iter().filter(|node| node.column == column);
            own.map(|node| node.height() + GAP_Y).sum::<usize>().saturating_sub(GAP_Y)
        })
        .collect();
    let tallest = heights.iter().copied().max().unwrap_or(0);
    let top = HEAD + PAD;
    let mut x = PAD;
    for (column, height) in heights.iter().enumerate() {
        let mut y = top + (tallest - height) / 2;
        let width = nodes.iter().filter(|node| node.column == column).map(|node| node.width).max().unwrap_or(0);
        for node in nodes.iter_mut().filter(|node| node.column == column) {
            (node.x, node.y, node.width) = (x, y, width);
            y += node.height() + GAP_Y;
        }
        x += width + GAP_X;
    }
    (x - GAP_X + PAD, top + tallest + PAD)
}

fn draw(out: &mut String, node: &Node) {
    let (x, y, width, height) = (node.x, node.y, node.width, node.height());
    let _ = writeln!(
        out,
        r##"<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="#f8fafc" stroke="#334155"/>"##
    );
    let forwards = if node.router { r##" <tspan font-weight="normal" fill="#64748b">forwards</tspan>"## } else { "" };
    let _ = writeln!(
        out,
        r##"<text x="{}" y="{}" font-size="13" font-weight="bold">{}{forwards}</text>"##,
        x + PAD,
        y + 19,
        escape(&node.name)
    );
    for (number, (_, text)) in node.rows.iter().enumerate() {
        let _ = writeln!(
            out,
            r##"<text x="{}" y="{}" xml:space="preserve">{}</text>"##,
            x + PAD,
            y + HEAD + number * ROW + ROW / 2 + 2,
            escape(text)
        );
    }
}

fn curve(out: &mut String, from: (usize, usize), to: (usize, usize), kind: &str) {
    let colour = COLOURS.iter().find(|(name, _)| *name == kind).map_or("#000000", |(_, colour)| colour);
    let bend = (to.0.saturating_sub(from.0)) / 2;
    let _ = writeln!(
        out,
        r##"<path d="M{} {} C{} {} {} {} {} {}" fill="none" stroke="{colour}" stroke-width="2"/>"##,
        from.0,
        from.1,
        from.0 + bend,
        from.1,
        to.0.saturating_sub(bend),
        to.1,
        to.0,
        to.1
    );
    let middle = ((from.0 + to.0) / 2, (from.1 + to.1) / 2);
    let _ = writeln!(
        out,
        r##"<text x="{}" y="{}" text-anchor="middle" fill="{colour}" stroke="#ffffff" stroke-width="4" paint-order="stroke">{kind}</text>"##,
        middle.0,
        middle.1 - 5
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use crate::library;

    #[test]
    fn nodes_are_in_the_column_of_their_distance_and_boxes_do_not_overlap() {
        for (_, topology) in library::ALL.iter().flat_map(crate::Template::variants) {
            let mut nodes = topology.boxes();
            let (width, height) = super::place(&mut nodes);
            for (at, one) in nodes.iter().enumerate() {
                assert!(
                    one.x + one.width <= width && one.y + one.height() <= height,
                    "{}: {}",
                    topology.name,
                    one.name
                );
                for other in &nodes[at + 1..] {
                    let beside = one.x + one.width <= other.x || other.x + other.width <= one.x;
                    let above = one.y + one.height() <= other.y || other.y + other.height() <= one.y;
                    assert!(beside || above, "{}: {} on {}", topology.name, one.name, other.name);
                }
            }
            for link in &topology.links {
                let column = |name: &str| nodes.iter().find(|node| node.name == name).map(|node| node.column);
                assert_ne!(column(&link.primary.node), column(&link.peer.node), "{}: {link:?}", topology.name);
            }
        }
    }
}
