//! The plan: which cell runs on which kernel, and which attach type it must use. It is known before any guest boots.

use lab_base::arch::Architecture;
use lab_guard::Id;
use lab_protocol::{
    AttachRequest, AttachType, Capability, CapabilityReport, CapabilityState, CellId, CellInfo, DeviceKind,
    KernelVersion,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};

/// A capability that a kernel lacks although its version has it, as stated in `kernels.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsupported {
    /// The missing capability.
    pub capability: Capability,
    /// Why it is missing, as text.
    pub reason: String,
}

/// A capability that a kernel has although its version does not: stated in `kernels.toml`, or found by a probe if
/// `kernels.toml` says to believe the probes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backport {
    /// The capability.
    pub capability: Capability,
    /// Reason, as text.
    pub reason: String,
}

/// A kernel that takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFacts {
    /// Its name in `kernels.toml`.
    pub id: Id,
    /// `below-6.7`, `6.7+` or `25.10`.
    pub class: String,
    /// The architecture of its guests; absent where it is the lab's own.
    #[serde(default, rename = "arch", skip_serializing_if = "Architecture::is_own")]
    pub architecture: Architecture,
    /// The kernel's version, from the lock file or the image.
    pub version: KernelVersion,
    /// Capabilities that it lacks although its version has them. The key keeps its former name in this format of
    /// events.jsonl.
    #[serde(rename = "departures", alias = "unsupported")]
    pub unsupported: Vec<Unsupported>,
    /// Capabilities that it has although its version lacks them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub has: Vec<Backport>,
    /// Reason why its probes decide instead of its version; `None` if the version decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub believe_probes: Option<String>,
    /// Whether its failures are reported but do not count.
    #[serde(default)]
    pub may_fail: bool,
}

impl KernelFacts {
    /// By what times of cells are kept that hold for several kernels: the class. A variant has a name of its own (`6.7+, debug`),
    /// because one that is compiled with checks takes several times as long. So has another architecture, which is emulated.
    pub fn paced_as(&self) -> String {
        let variant = self.id.split_once('+').map(|(_, variant)| variant);
        let foreign = (!self.architecture.is_own()).then_some(self.architecture.name());
        [Some(&*self.class), variant, foreign].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Whether the kernel must have a capability. A kernel whose probes decide must only have the stated
    /// capabilities until its probes have run.
    pub fn must_have(&self, capability: Capability) -> bool {
        self.expects(capability) && self.unsupported(capability).is_none()
    }

    /// Whether the kernel has a capability by its version or by `has`, regardless of `unsupported`.
    pub fn expects(&self, capability: Capability) -> bool {
        let by_version = self.believe_probes.is_none() && capability.since().expected_on(self.version);
        by_version || self.backport(capability).is_some()
    }

    /// The entry of `has` for a capability.
    pub fn backport(&self, capability: Capability) -> Option<&Backport> {
        self.has.iter().find(|backport| backport.capability == capability)
    }

    /// Whether only a probe decides if the kernel has a capability.
    pub fn is_open(&self, capability: Capability) -> bool {
        self.believe_probes.is_some() && !self.expects(capability) && self.unsupported(capability).is_none()
    }

    /// Applies the probe results of a kernel whose probes decide. Stated capabilities are not changed.
    fn learn(&mut self, probes: &[CapabilityReport]) {
        for probe in probes {
            if !self.is_open(probe.capability) {
                continue;
            }
            let capability = probe.capability;
            if probe.state == CapabilityState::Supported {
                self.has.push(Backport { capability, reason: "its probe found it".to_owned() });
            } else {
                let reason = format!("its probe did not find it ({}): {}", probe.state.words(), probe.detail);
                self.unsupported.push(Unsupported { capability, reason });
            }
        }
    }

    /// The entry of `kernels.toml` that explains why a capability is missing.
    pub fn unsupported(&self, capability: Capability) -> Option<&Unsupported> {
        self.unsupported.iter().find(|it| it.capability == capability)
    }
}

/// What the plan expects of a cell on a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expectation {
    /// It runs and gets a verdict.
    Run,
    /// The guest skips it.
    Skip {
        /// The capability that the kernel lacks.
        capability: Capability,
        /// Why the kernel lacks it.
        why: String,
    },
    /// The host skips it: what it knows of the kernel rules it out, and no guest is asked.
    HostSkip {
        /// Why.
        why: String,
    },
}

/// A cell on one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedCell {
    /// The cell.
    pub id: CellId,
    /// The attach type that the cell must use. `None` if the case does not test an attach type, or if its topology has
    /// several kinds of devices: then each attachment is checked by its own device.
    pub required: Option<AttachType>,
    /// Whether it runs.
    pub expectation: Expectation,
}

/// One kernel of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedKernel {
    /// The kernel.
    pub facts: KernelFacts,
    /// Its cells, in the order of execution.
    pub cells: Vec<PlannedCell>,
}

/// [`CellInfo::topology`] of a cell that another one reported.
pub const ADOPTED: &str = "reported";

/// All cells that will run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The selected cells, in the agent's order.
    pub cells: Vec<CellInfo>,
    /// The selected kernels.
    pub kernels: Vec<PlannedKernel>,
    /// Whether no filter narrowed the kernels.
    pub full_matrix: bool,
    /// Kernels of `kernels.toml` that this run leaves out.
    #[serde(default)]
    pub others: Vec<KernelFacts>,
    /// Whether the plan includes all cells of the suite: a missing cell is then no longer part of the suite.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub every_cell: bool,
}

impl Plan {
    /// Combines the selected cells with the selected kernels.
    pub fn new(kernels: Vec<KernelFacts>, cells: Vec<CellInfo>, full_matrix: bool) -> Self {
        let planned = |facts: KernelFacts| {
            let cells = cells.iter().map(|info| plan_cell(&facts, info)).collect();
            PlannedKernel { facts, cells }
        };
        let kernels = kernels.into_iter().map(planned).collect();
        Self { cells, kernels, full_matrix, others: Vec::new(), every_cell: false }
    }

    /// Describes a kernel, or a cell of a kernel, that is in the plan more than once.
    pub fn repeated(&self) -> Option<String> {
        repeated(self.kernels.iter().map(|kernel| (&kernel.facts.id, kernel.cells.iter().map(|cell| &cell.id))))
    }

    /// Adds a cell that another one reported on a kernel, behind that and what it reported before.
    pub fn adopt(&mut self, kernel: &Id, parent: &CellId, info: CellInfo) {
        let Some(planned) = self.kernels.iter_mut().find(|planned| planned.facts.id == *kernel) else { return };
        let id = info.id.clone();
        if planned.cells.iter().any(|cell| cell.id == id) {
            return;
        }
        // What a cell reported stands directly behind it.
        let at = planned.cells.iter().position(|cell| cell.id == *parent).map_or(planned.cells.len(), |at| at + 1);
        let adopted = |cell: &&PlannedCell| is_adopted(self.cells.iter().find(|info| info.id == cell.id));
        let behind = planned.cells[at..].iter().take_while(adopted).count();
        let cell = PlannedCell { id, required: None, expectation: Expectation::Run };
        planned.cells.insert(at + behind, cell);
        if self.info(&info.id).is_none() {
            self.cells.push(info);
        }
    }

    /// Has the host skip a cell on a kernel, unless it is skipped already.
    pub fn skip(&mut self, kernel: &str, cell: &CellId, why: &str) {
        let planned = self.kernels.iter_mut().find(|planned| planned.facts.id == *kernel);
        let cell = planned.and_then(|planned| planned.cells.iter_mut().find(|it| it.id == *cell));
        if let Some(cell) = cell.filter(|cell| cell.expectation == Expectation::Run) {
            cell.expectation = Expectation::HostSkip { why: why.to_owned() };
        }
    }

    /// The agent's listing of a cell.
    pub fn info(&self, id: &CellId) -> Option<&CellInfo> {
        self.cells.iter().find(|info| info.id == *id)
    }

    /// Whether a missing cell of a kernel was removed from the suite, or its kernel from `kernels.toml`, and was not
    /// just left out by a filter or a shard. `cell` is `None` for a row that every kernel has.
    pub fn has_lost(&self, kernel: &str, cell: Option<&str>) -> bool {
        let left_out = self.others.iter().any(|facts| facts.id == kernel);
        let planned = self.kernels.iter().any(|it| it.facts.id == kernel);
        let lost_kernel = self.full_matrix && !planned && !left_out;
        let lost_cell = planned && cell.is_some_and(|cell| !self.cells.iter().any(|info| info.id.as_str() == cell));
        self.every_cell && (lost_kernel || lost_cell)
    }

    /// Cases that every kernel of `kernels.toml` skips. With the full matrix they fail the run, because a case that
    /// never runs tests nothing and would otherwise go unnoticed.
    pub fn unrunnable_cases(&self) -> Vec<String> {
        // The first kernels run most of the cells, and there may be hundreds.
        let mut idle: HashSet<&CellId> = self.cells.iter().map(|info| &info.id).collect();
        for kernel in &self.kernels {
            if idle.is_empty() {
                break;
            }
            for cell in kernel.cells.iter().filter(|cell| cell.expectation == Expectation::Run) {
                idle.remove(&cell.id);
            }
        }
        let elsewhere =
            |info: &CellInfo| self.others.iter().any(|facts| plan_cell(facts, info).expectation == Expectation::Run);
        let runnable: BTreeSet<&str> = self
            .cells
            .iter()
            .filter(|info| !idle.contains(&info.id) || elsewhere(info))
            .map(|info| info.id.case())
            .collect();
        let all: BTreeSet<&str> = self.cells.iter().map(|info| info.id.case()).collect();
        all.difference(&runnable).map(|case| (*case).to_owned()).collect()
    }
}

/// Describes the first kernel, or the first cell of a kernel, that is there twice.
pub(crate) fn repeated<'a>(
    kernels: impl Iterator<Item = (&'a Id, impl Iterator<Item = &'a CellId>)>,
) -> Option<String> {
    let mut known = HashSet::new();
    let mut seen = HashSet::new();
    for (id, cells) in kernels {
        if !known.insert(id) {
            return Some(format!("kernel {id}"));
        }
        seen.clear();
        for cell in cells {
            if !seen.insert(cell) {
                return Some(format!("{:?} on kernel {id}", cell.as_str()));
            }
        }
    }
    None
}

impl PlannedKernel {
    /// Plans its cells again with its probe results, if `kernels.toml` says to believe the probes.
    pub fn learn(&mut self, cells: &[CellInfo], probes: &[CapabilityReport]) {
        if self.facts.believe_probes.is_none() {
            return;
        }
        self.facts.learn(probes);
        for cell in &mut self.cells {
            if let Some(info) = cells.iter().find(|info| info.id == cell.id) {
                *cell = plan_cell(&self.facts, info);
            }
        }
    }

    /// The plan for one cell.
    pub fn cell(&self, id: &CellId) -> Option<&PlannedCell> {
        self.cells.iter().find(|cell| cell.id == *id)
    }
}

/// Whether another cell reported it: its own work is none.
fn is_adopted(info: Option<&CellInfo>) -> bool {
    info.is_some_and(|info| info.topology == ADOPTED)
}

fn plan_cell(facts: &KernelFacts, info: &CellInfo) -> PlannedCell {
    let required = match (info.attach, info.device) {
        // The best attach type is known once the probes have run.
        (Some(AttachRequest::Auto), Some(_)) if facts.is_open(Capability::Tcx) || facts.is_open(Capability::Netkit) => {
            None
        }
        (Some(request), Some(device)) => Some(required_attach(facts, request, device.into())),
        (Some(request), None) => exact(request),
        (None, _) => None,
    };
    let known = |capability: &Capability| facts.must_have(*capability) || facts.is_open(*capability);
    let missing = info.requires.iter().find(|capability| !known(capability));
    let expectation = missing.map_or(Expectation::Run, |&capability| Expectation::Skip {
        capability,
        why: match facts.unsupported(capability) {
            Some(it) => it.reason.clone(),
            None => format!("needs kernel {}", capability.since().lifted_by(facts.version)),
        },
    });
    PlannedCell { id: info.id.clone(), required, expectation }
}

/// The attach type that an attachment must use.
///
/// `auto` means the best type that kernel and device support: netkit on a netkit device from 6.7, else tcx from 6.6,
/// else tc. The versions are those of the capabilities, so that an entry under `unsupported` (`CONFIG_NETKIT` off, for
/// example) counts.
pub fn required_attach(facts: &KernelFacts, request: AttachRequest, device: DeviceKind) -> AttachType {
    exact(request).unwrap_or_else(|| {
        if device.is_netkit() && facts.must_have(Capability::Netkit) {
            AttachType::Netkit
        } else if facts.must_have(Capability::Tcx) {
            AttachType::Tcx
        } else {
            AttachType::Tc
        }
    })
}

const fn exact(request: AttachRequest) -> Option<AttachType> {
    match request {
        AttachRequest::Tc => Some(AttachType::Tc),
        AttachRequest::Tcx => Some(AttachType::Tcx),
        AttachRequest::Netkit => Some(AttachType::Netkit),
        AttachRequest::Auto => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cell, facts};
    use AttachType::{Netkit, Tc, Tcx};

    #[test]
    fn auto_follows_version_and_device() {
        for (version, veth, netkit) in [
            ("6.1.170", Tc, Tc),
            ("6.6", Tcx, Tcx),
            ("6.7", Tcx, Netkit),
            ("6.12.43", Tcx, Netkit),
            ("7.2", Tcx, Netkit),
        ] {
            let facts = facts("k", version);
            assert_eq!(required_attach(&facts, AttachRequest::Auto, DeviceKind::Veth), veth, "{version} veth");
            for device in [DeviceKind::NetkitL2, DeviceKind::NetkitL3] {
                assert_eq!(required_attach(&facts, AttachRequest::Auto, device), netkit, "{version} {device}");
            }
            assert_eq!(
                required_attach(&facts, AttachRequest::Tc, DeviceKind::NetkitL3),
                Tc,
                "an explicit type is not changed"
            );
        }
    }

    #[test]
    fn an_unsupported_entry_changes_the_expected_auto_type_and_allows_a_skip() {
        let mut facts = facts("k", "6.18");
        facts.unsupported =
            vec![Unsupported { capability: Capability::Netkit, reason: "CONFIG_NETKIT is not set".to_owned() }];
        assert_eq!(required_attach(&facts, AttachRequest::Auto, DeviceKind::NetkitL3), Tcx);
        let mut info = cell("N01-pair[netkit,nk-l3]");
        info.requires = vec![Capability::Netkit];
        let planned = plan_cell(&facts, &info);
        assert_eq!(
            planned.expectation,
            Expectation::Skip { capability: Capability::Netkit, why: "CONFIG_NETKIT is not set".to_owned() }
        );
    }

    #[test]
    fn a_backport_changes_the_type_that_auto_must_use() {
        let mut facts = facts("rhel", "5.14");
        assert_eq!(required_attach(&facts, AttachRequest::Auto, DeviceKind::Veth), Tc);
        facts.has = vec![Backport { capability: Capability::Tcx, reason: "RHEL 9.4".to_owned() }];
        assert_eq!(required_attach(&facts, AttachRequest::Auto, DeviceKind::Veth), Tcx);
        let mut info = cell("A02-tcx-link[tcx,veth]");
        info.requires = vec![Capability::Tcx];
        assert_eq!(plan_cell(&facts, &info).expectation, Expectation::Run);
    }

    #[test]
    fn believed_probes_decide_once_they_have_run() {
        let facts = KernelFacts { believe_probes: Some("a vendor's".to_owned()), ..facts("rhel", "5.14") };
        let mut netkit = cell("N01-pair[netkit,nk-l3]");
        netkit.requires = vec![Capability::Netkit];
        let cells = vec![cell("D01-auto[auto,veth]"), netkit];
        let mut plan = Plan::new(vec![facts], cells, true);
        let kernel = &plan.kernels[0];
        assert_eq!((kernel.cells[0].required, &kernel.cells[1].expectation), (None, &Expectation::Run));
        assert!(plan.unrunnable_cases().is_empty());
        let probe = |capability, state| CapabilityReport { capability, state, detail: "EINVAL".to_owned() };
        let probes = [
            probe(Capability::Veth, CapabilityState::Supported),
            probe(Capability::Tcx, CapabilityState::Supported),
            probe(Capability::Netkit, CapabilityState::TooOld),
        ];
        plan.kernels[0].learn(&plan.cells, &probes);
        let kernel = &plan.kernels[0];
        assert_eq!(kernel.cells[0].required, Some(Tcx));
        assert!(matches!(kernel.cells[1].expectation, Expectation::Skip { capability: Capability::Netkit, .. }));
        assert!(kernel.facts.must_have(Capability::Tcx) && !kernel.facts.must_have(Capability::Netkit));
    }

    #[test]
    fn a_case_is_unrunnable_only_if_none_of_its_cells_runs_on_any_kernel() {
        let mut new = cell("N17-egress[netkit,nk-l3]");
        new.requires = vec![Capability::NetkitSingle];
        let mut strict = cell("T01-strict[tcx]");
        strict.requires = vec![Capability::Netkit];
        let plan = Plan::new(
            vec![facts("6.1", "6.1.170"), facts("6.12", "6.12.43")],
            vec![cell("A01-x[tc]"), new, strict],
            true,
        );
        assert_eq!(plan.unrunnable_cases(), ["N17-egress"]);
        let why = |kernel: usize| match &plan.kernels[kernel].cells[2].expectation {
            Expectation::Skip { why, .. } | Expectation::HostSkip { why } => why.clone(),
            Expectation::Run => "runs".to_owned(),
        };
        assert_eq!((why(0), why(1)), ("needs kernel 6.7".to_owned(), "runs".to_owned()));
        assert!(Plan { others: vec![facts("7.2", "7.2.12")], ..plan }.unrunnable_cases().is_empty());
    }
}
