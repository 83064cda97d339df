//! Small cells, kernels and reports for tests of this crate and of those that use it.

use crate::{
    plan::KernelFacts,
    splat::{Splat, SplatPlace},
};
use lab_base::arch::Architecture;
use lab_guard::Id;
use lab_protocol::{
    AttachRecord, AttachRequest, AttachType, CellId, CellInfo, CellReport, DeviceKind, Hook, LinkKind, Outcome, Work,
    complaint::SplatClass,
};

/// A kernel that has every capability of its version.
pub fn facts(id: &str, version: &str) -> KernelFacts {
    KernelFacts {
        id: Id::new(id).expect("a name"),
        class: "6.7+".to_owned(),
        architecture: Architecture::default(),
        version: version.parse().expect("test version"),
        unsupported: Vec::new(),
        has: Vec::new(),
        believe_probes: None,
        may_fail: false,
    }
}

/// A cell with the attach type and device of the bracket in its id.
pub fn cell(id: &str) -> CellInfo {
    let words: Vec<&str> = id.split(['[', ',', ']']).collect();
    CellInfo {
        file: String::new(),
        line: 0,
        id: CellId(id.into()),
        catalogue: id[..3].to_owned(),
        area: "attach-api".to_owned(),
        title: "a test".to_owned(),
        topology: "pair".to_owned(),
        attach: words[1..].iter().find_map(|word| word.parse().ok()),
        device: LinkKind::ALL.into_iter().find(|device| words.contains(&device.name())),
        requires: Vec::new(),
        deadline_ms: 100,
        work: Work::Case,
    }
}

/// An attachment that the kernel lists at the requested place.
pub fn attached(requested: AttachRequest, device: DeviceKind, used: AttachType) -> AttachRecord {
    let hook = match used {
        AttachType::Tc => Hook::ClsactIngress,
        AttachType::Tcx => Hook::TcxIngress,
        AttachType::Netkit => Hook::NetkitPeer,
    };
    AttachRecord {
        interface: "eth0".to_owned(),
        device,
        requested,
        used: Some(used),
        hook: Some(hook),
        prog_id: 7,
        link_id: (used != AttachType::Tc).then_some(3),
        ran: Some(5),
    }
}

/// A report of a passed cell with these attachments.
pub fn passed(id: &str, attach: Vec<AttachRecord>) -> CellReport {
    CellReport { attach, duration_us: 1500, ..CellReport::bare(CellId(id.into()), Outcome::Passed) }
}

/// A splat with this fingerprint; the first line of `evidence` is its title.
pub fn splat(fingerprint: &str, evidence: &str) -> Splat {
    let title = evidence.lines().next().unwrap_or_default();
    Splat {
        class: SplatClass::of(title).expect("the title of a splat"),
        fingerprint: fingerprint.to_owned(),
        title: title.to_owned(),
        subject: title.to_owned(),
        frames: vec!["f".to_owned()],
        evidence: evidence.to_owned(),
        seen: SplatPlace::Console,
        times: 1,
        suspects: Vec::new(),
        allowed: None,
    }
}

/// Parses a name.
pub fn id(text: &str) -> Id {
    Id::new(text).expect("a name")
}
