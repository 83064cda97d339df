//! A topology as it is declared: its name, one sentence about it, and the function that lays it out.

use crate::model::{LinkKind, Topology};
use lab_protocol::drawing::{Drawing, TopologyInfo};

/// The one declaration of a topology. Listings, drawings, `lab shell` and cases all take it from here, so that they cannot
/// disagree.
#[derive(Debug, Clone, Copy)]
pub struct Template {
    /// Unique name, which `lab shell --topology` takes.
    pub name: &'static str,
    /// One sentence for `lab topology list`.
    pub title: &'static str,
    lay_out: fn(LinkKind) -> Topology,
}

impl Template {
    /// A topology as a function of the kind of its workloads' links; the function ignores the kind where the topology has
    /// no workload's link, or links of several kinds.
    pub const fn new(name: &'static str, title: &'static str, lay_out: fn(LinkKind) -> Topology) -> Self {
        Self { name, title, lay_out }
    }

    /// The topology with workloads' links of this kind.
    ///
    /// # Panics
    /// If the function has an address or prefix that does not parse: topologies are constants, and every one is tested.
    pub fn of(&self, kind: LinkKind) -> Topology {
        Topology { name: self.name.to_owned(), ..(self.lay_out)(kind) }
    }

    /// Every topology that differs by the kind of the workloads' links, with that kind; a single one without a kind where
    /// none differs.
    pub fn variants(&self) -> Vec<(Option<LinkKind>, Topology)> {
        let all = LinkKind::ALL.map(|kind| (kind, self.of(kind)));
        let varies = all.iter().any(|(_, topology)| *topology != all[0].1);
        let differing = all.into_iter().take(if varies { LinkKind::ALL.len() } else { 1 });
        differing.map(|(kind, topology)| (varies.then_some(kind), topology)).collect()
    }

    /// The drawings, for a reader that cannot build a topology.
    pub fn info(&self) -> TopologyInfo {
        let drawing = |(kind, topology): (Option<LinkKind>, Topology)| Drawing {
            kind,
            text: topology.to_string(),
            svg: topology.svg(),
        };
        let drawings = self.variants().into_iter().map(drawing).collect();
        TopologyInfo { name: self.name.to_owned(), title: self.title.to_owned(), drawings }
    }
}
