//! Synthetic runs of any size, with realistic time and space costs for reports. They are for measuring and trying out
//! reports.

use crate::{
    event::{Accelerator, Event, ImageInfo, RunInfo, Stamped, Start, Versions},
    exit::Exit,
    plan::{Expectation, KernelFacts, Plan, PlannedCell, PlannedKernel},
    verdict::Verdict,
};
use lab_base::arch::Architecture;
use lab_guard::{Id, Inside};
use lab_protocol::{
    AttachRecord, AttachRequest, AttachType, Capability, CapabilityReport, CapabilityState, CellId, CellInfo,
    CellReport, Check, DeviceKind, ErrorKind, FailureKind, Hook, KernelVersion, LinkKind, Outcome, SkipReason, Work,
    drawing::{Drawing, TopologyInfo},
};
use std::collections::{BTreeMap, HashMap};

/// Start of every synthetic run, milliseconds since the epoch.
const BEGIN_MS: u64 = 1_795_176_000_000;
/// Versions of the kernels, repeated as needed.
const VERSIONS: [(u16, u16, u16); 6] = [(6, 1, 192), (6, 6, 112), (6, 12, 117), (6, 17, 13), (7, 1, 13), (7, 2, 12)];
const AREAS: [&str; 12] = [
    "attach-api",
    "attach-matrix",
    "netkit",
    "traffic",
    "redirect",
    "policy",
    "gateway",
    "overlay",
    "nat",
    "prog-array",
    "observability",
    "migration",
];
const TOPOLOGIES: [&str; 5] = ["pair", "pods", "gateway", "two-node", "policy"];
/// Number of checks of a cell that passed: verdicts get the size of the suite's, 1.7 KB.
const CHECKS: usize = 11;
const PROTOCOLS: [&str; 4] = ["icmp", "udp", "tcp", "sctp"];
const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];
const SIDES: [&str; 2] = ["pod to host", "host to pod"];
/// One cell in 97 fails a check, one in 1511 panics, one in 2003 is not run.
const BAD: [usize; 3] = [97, 1511, 2003];

/// A plan with the given number of kernels and of cells per kernel.
pub fn plan(kernels: usize, cells: usize) -> Plan {
    let facts = |number: usize| {
        let (major, minor, patch) = VERSIONS[number % VERSIONS.len()];
        let round = number / VERSIONS.len();
        let id = if round == 0 { format!("{major}.{minor}") } else { format!("{major}.{minor}-{round}") };
        let class = if (major, minor) < (6, 7) { "below-6.7" } else { "6.7+" };
        let version = KernelVersion::new(major, minor, patch);
        let id = Id::new(&id).expect("a name");
        KernelFacts {
            id,
            class: class.to_owned(),
            architecture: Architecture::default(),
            version,
            unsupported: Vec::new(),
            has: Vec::new(),
            believe_probes: None,
            may_fail: false,
        }
    };
    let mut infos: Vec<CellInfo> = (0..cells).map(info).collect();
    infos.sort_by(|a, b| a.area.cmp(&b.area));
    Plan::new((0..kernels).map(facts).collect(), infos, false)
}

fn info(number: usize) -> CellInfo {
    let attach = AttachType::ALL[number % 3];
    let device = LinkKind::ALL[number / 3 % 3];
    let needs = match attach {
        AttachType::Tc => Capability::Clsact,
        AttachType::Tcx => Capability::Tcx,
        AttachType::Netkit => Capability::Netkit,
    };
    let auto = number.is_multiple_of(7);
    let request = if auto { AttachRequest::Auto } else { attach.into() };
    let case = number / 9;
    let area = AREAS[case % AREAS.len()];
    CellInfo {
        file: format!("crates/suite/src/areas/{area}.rs"),
        line: 7,
        id: CellId(format!("S{case:04}-{area}-holds[{},{},v{}]", request.name(), device.name(), number % 9).into()),
        catalogue: format!("S{:02}", case % 100),
        area: area.to_owned(),
        title: format!("What the program does at this hook is what case {case} expects of it, in both directions."),
        topology: TOPOLOGIES[case % TOPOLOGIES.len()].to_owned(),
        attach: Some(request),
        device: Some(device),
        requires: if auto { Vec::new() } else { vec![needs] },
        deadline_ms: 5000,
        work: Work::Case,
    }
}

/// The events of a run of `info`'s plan: every planned cell has a verdict.
pub fn events(info: RunInfo) -> impl Iterator<Item = Stamped> {
    let plan = info.plan.clone();
    let infos = plan.cells.into_iter().enumerate();
    let listed: HashMap<CellId, (usize, CellInfo)> = infos.map(|(at, info)| (info.id.clone(), (at, info))).collect();
    let mut at_ms = BEGIN_MS;
    let kernels = plan.kernels.into_iter().flat_map(move |kernel| {
        let ends = end(&kernel);
        let verdicts: Vec<Event> =
            kernel.cells.iter().filter_map(|cell| Some(finished(&kernel, cell, listed.get(&cell.id)?))).collect();
        begin(&kernel).into_iter().chain(verdicts).chain(ends)
    });
    let last = Event::RunFinished { exit: Exit::Failed, wall_ms: 154_000 };
    let first = [Event::RunStarted { run: Box::new(info) }, Event::Topologies { library: library() }];
    first.into_iter().chain(kernels).chain([last]).map(move |event| {
        at_ms += 1;
        Stamped { at_ms, event }
    })
}

fn library() -> Vec<TopologyInfo> {
    let drawing = |name: &str, kind: LinkKind| Drawing {
        kind: Some(kind),
        text: name.to_owned(),
        svg: format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"300\" height=\"60\" viewBox=\"0 0 300 60\">\
             <rect width=\"300\" height=\"60\" fill=\"#fff\"/><text x=\"12\" y=\"34\">{name} {kind}</text></svg>"
        ),
    };
    let topology = |name: &str| TopologyInfo {
        name: name.to_owned(),
        title: format!("A synthetic {name}."),
        drawings: LinkKind::ALL.map(|kind| drawing(name, kind)).to_vec(),
    };
    TOPOLOGIES.map(topology).to_vec()
}

/// The information of a synthetic run.
pub fn run_info(id: &str, plan: Plan) -> RunInfo {
    let text = |text: &str| text.to_owned();
    let versions = Versions {
        lab: text("0.2.0 (0123456789ab)"),
        agent: text("0.2.0 (0123456789ab)"),
        virtme_ng: text("1.42"),
        qemu: text("10.0.2"),
    };
    let accelerator = Accelerator { name: text("tcg"), reason: text("synthetic run"), time_scale: 10.0 };
    RunInfo::new(Id::new(id).expect("a name"), versions, accelerator, plan)
}

fn begin(kernel: &PlannedKernel) -> [Event; 4] {
    let id = || kernel.facts.id.clone();
    let version = kernel.facts.version;
    let probe = |capability: Capability| CapabilityReport {
        capability,
        state: if kernel.facts.must_have(capability) { CapabilityState::Supported } else { CapabilityState::TooOld },
        detail: "BPF_PROG_QUERY: 0".to_owned(),
    };
    let image = ImageInfo { key: "0123456789abcdef".to_owned(), cached: true, missing: Vec::new(), content: None };
    [
        Event::KernelStarted { kernel: id(), image },
        Event::GuestStarted { kernel: id(), guest: 1, start: Start::Restore },
        Event::Booted {
            kernel: id(),
            guest: 1,
            release: format!("{version}-lab-amd64"),
            version: "#1 SMP PREEMPT_DYNAMIC".to_owned(),
            kernel_version: version,
            boot_ms: 3200,
        },
        Event::Probed {
            kernel: id(),
            guest: 1,
            capabilities: Capability::ALL.map(probe).to_vec(),
            modules: Vec::new(),
        },
    ]
}

fn end(kernel: &PlannedKernel) -> [Event; 2] {
    let (id, wall_ms) = (kernel.facts.id.clone(), 90 * kernel.cells.len() as u64);
    [
        Event::GuestEnded { kernel: id.clone(), guest: 1, shutdown_ms: 120, problems: Vec::new() },
        Event::KernelFinished { kernel: id, guests: 1, peak_memory_kib: Some(98_304), gave_up: false, wall_ms },
    ]
}

fn finished(kernel: &PlannedKernel, cell: &PlannedCell, (number, info): &(usize, CellInfo)) -> Event {
    let verdict = Box::new(verdict(kernel, *number, cell, info));
    Event::CellFinished { kernel: kernel.facts.id.clone(), guest: 1, verdict }
}

fn verdict(kernel: &PlannedKernel, number: usize, cell: &PlannedCell, info: &CellInfo) -> Verdict {
    if let Expectation::Skip { capability, .. } = cell.expectation {
        let lifted_by = capability.since().lifted_by(kernel.facts.version);
        let reason = SkipReason { capability, detail: "EOPNOTSUPP".to_owned(), lifted_by };
        return Verdict::bare(cell.id.clone(), Outcome::Skipped { reason });
    }
    let hit = |every: usize| (number * 31 + kernel.facts.id.len()) % every == every - 1;
    if hit(BAD[2]) {
        let message = "the guest was lost three times".to_owned();
        return Verdict::bare(cell.id.clone(), Outcome::NotRun { message });
    }
    if hit(BAD[1]) {
        let message = "BUG: kernel NULL pointer dereference, address: 0000000000000018".to_owned();
        let evidence =
            (0..40).map(|line| format!("[   12.{line:06}]  dev_hard_start_xmit+0x{line:x}/0x230\n")).collect();
        let outcome = Outcome::Errored { kind: ErrorKind::Panic, message };
        return Verdict { evidence: Some(evidence), ..Verdict::bare(cell.id.clone(), outcome) };
    }
    let bad = hit(BAD[0]);
    let outcome = if bad {
        Outcome::Failed { kind: FailureKind::Check, message: "udp 1400 arrives: 3 of 5 datagrams".to_owned() }
    } else {
        Outcome::Passed
    };
    let check = |at: usize| Check {
        name: format!("{} over {} passes from {}", PROTOCOLS[at % 4], FAMILIES[at / 4 % 2], SIDES[at / 8 % 2]),
        ok: !(bad && at == 1),
        seen: format!(
            "wanted 3, sent 3, delivered {}, returned 3, seen from 10.{at}.0.2",
            if bad && at == 1 { 1 } else { 3 }
        ),
    };
    let home = format!("{}/cells/{}", kernel.facts.id, number);
    let files = ["topology.svg", "w0.pcap", "w1.pcap"];
    let files = files.map(|file| Inside::new(&format!("{home}/{file}")).expect("a path")).to_vec();
    let report = CellReport {
        attach: attachments(cell, info, number),
        checks: (0..CHECKS).map(check).collect(),
        duration_us: 40_000 + (number as u64 * 7919) % 90_000,
        metrics: if number.is_multiple_of(10) {
            BTreeMap::from([("udp.lost".to_owned(), 0.0)])
        } else {
            BTreeMap::new()
        },
        ..CellReport::bare(cell.id.clone(), outcome.clone())
    };
    let files = if bad { files } else { Vec::new() };
    Verdict { report, files, ..Verdict::bare(cell.id.clone(), outcome) }
}

fn attachments(cell: &PlannedCell, info: &CellInfo, number: usize) -> Vec<AttachRecord> {
    let Some((used, requested)) = cell.required.zip(info.attach) else { return Vec::new() };
    let hook = match used {
        AttachType::Tc => Hook::ClsactIngress,
        AttachType::Tcx => Hook::TcxIngress,
        AttachType::Netkit => Hook::NetkitPeer,
    };
    let prog_id = u32::try_from(number).unwrap_or(u32::MAX);
    let record = AttachRecord {
        interface: "p0".to_owned(),
        device: info.device.map_or(DeviceKind::Other, DeviceKind::from),
        requested,
        used: Some(used),
        hook: Some(hook),
        prog_id,
        link_id: (used != AttachType::Tc).then_some(3),
        ran: Some(10),
    };
    vec![record.clone(), record]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::RunRecord;

    #[test]
    fn every_planned_cell_has_a_verdict_and_some_are_bad() {
        let mut record = RunRecord::default();
        events(run_info("20260101T000000Z-abcdef", plan(7, 3000))).for_each(|stamped| record.apply(&stamped));
        assert_eq!(record.verdicts().count(), 7 * (3000 + 3));
        assert_eq!(record.kernels.values().map(|kernel| kernel.verdicts.len()).sum::<usize>(), 7 * 3000);
        let counts = record.counts();
        assert!(counts.failed > 50 && counts.skipped > 1000 && counts.errored > 5 && counts.not_run > 5, "{counts:?}");
    }
}
