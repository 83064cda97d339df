//! Deliberate faults: each one is a mistake that a datapath team could make, and the suite must notice it.

use lab_bpf::datapath::fault;
use lab_protocol::cell::MutantInfo;

/// A deliberate fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `auto` takes tcx on netkit devices too.
    AutoTcx,
    /// Programs go to the hook of the other direction.
    OtherDirection,
    /// A detached link stays.
    LinkStays,
    /// Pins are not removed.
    PinStays,
    /// Every mechanism's programs join one jump map.
    SharedJump,
    /// Two workloads' policies get one slot.
    SharedSlot,
    /// One of [`lab_bpf::datapath::fault`], in every program of the miniature datapath.
    Datapath(u32),
}

/// A fault, and where it must show.
pub struct Mutant {
    /// What it goes by.
    pub name: &'static str,
    /// What it is.
    pub fault: Fault,
    /// What it breaks, for people.
    pub breaks: &'static str,
    /// Catalogue numbers of the cases that are run with it; at least one cell of theirs must fail.
    pub noticed_by: &'static [&'static str],
}

const fn mutant(name: &'static str, fault: Fault, noticed_by: &'static [&'static str], breaks: &'static str) -> Mutant {
    Mutant { name, fault, breaks, noticed_by }
}

const fn datapath(
    name: &'static str,
    number: u32,
    noticed_by: &'static [&'static str],
    breaks: &'static str,
) -> Mutant {
    mutant(name, Fault::Datapath(number), noticed_by, breaks)
}

/// Every mutant.
pub static ALL: &[Mutant] = &[
    mutant("auto-takes-tcx-on-netkit", Fault::AutoTcx, &["D10"], "auto attaches by tcx where netkit would do"),
    mutant("wrong-direction", Fault::OtherDirection, &["G01"], "programs are attached to the other direction's hook"),
    mutant("stale-link-kept", Fault::LinkStays, &["A02", "A04"], "a link is still attached after its detach"),
    mutant("pins-not-cleaned", Fault::PinStays, &["L03"], "a pinned link outlives the one who pinned it"),
    mutant("shared-prog-array", Fault::SharedJump, &["H06"], "tc, tcx and netkit programs share one jump map"),
    mutant("shared-policy-slot", Fault::SharedSlot, &["P07"], "two workloads' policies get one slot"),
    datapath("skb-ifindex", fault::SKB_IFINDEX, &["G05"], "the device is taken from skb->ifindex"),
    datapath("redirect-peer", fault::REDIRECT_PEER, &["T02"], "forwarding goes past the destination's programs"),
    datapath("policy-inverted", fault::POLICY_INVERTED, &["V11"], "denied passes and allowed is dropped"),
    datapath("no-reverse-nat", fault::NO_REVERSE_NAT, &["T08"], "replies come from the backend, not the service"),
    datapath("no-hairpin-snat", fault::NO_HAIRPIN_SNAT, &["T03"], "a workload can't reach itself through a service"),
    datapath("not-counted", fault::NOT_COUNTED, &["T02"], "packets to the workload are not counted"),
    datapath("checksum-kept", fault::CHECKSUM_KEPT, &["T08"], "translated packets keep their transport checksum"),
    datapath("no-rpf", fault::NO_RPF, &["T17"], "a workload may send from any address"),
    datapath("one-zone", fault::ONE_ZONE, &["V11"], "one workload's connections pass another one's policy"),
    datapath("quote-kept", fault::QUOTE_KEPT, &["T15"], "ICMP errors quote the backend instead of the service"),
    datapath("open-on-miss", fault::OPEN_ON_MISS, &["P07"], "a workload without policy is open"),
    datapath("mac-kept", fault::MAC_KEPT, &["T02"], "forwarded packets keep their link-layer addresses"),
    datapath("ttl-kept", fault::TTL_KEPT, &["T15"], "forwarded packets keep their time to live"),
];

/// The mutant of that name.
pub fn by_name(name: &str) -> Option<&'static Mutant> {
    ALL.iter().find(|mutant| mutant.name == name)
}

/// All of them, for the host.
pub fn listing() -> Vec<MutantInfo> {
    ALL.iter()
        .map(|mutant| MutantInfo {
            name: mutant.name.into(),
            breaks: mutant.breaks.into(),
            noticed_by: mutant.noticed_by.iter().map(|id| (*id).into()).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn mutants_have_names_of_their_own_and_cases_that_exist() {
        let cells = crate::cells();
        let mut names = HashSet::new();
        for mutant in ALL {
            assert!(names.insert(mutant.name), "{} twice", mutant.name);
            for id in mutant.noticed_by {
                assert!(cells.iter().any(|cell| cell.info.catalogue == *id), "{}: no case {id}", mutant.name);
            }
        }
    }
}
