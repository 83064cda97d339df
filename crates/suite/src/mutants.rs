//! Deliberate faults (mutants): each is a mistake that developers of a datapath could make, and the suite must detect
//! it.

use lab_bpf::datapath::fault;
use lab_harness::fault::{Fault, Mutant};
use lab_protocol::Capability;

/// The faults that `lab mutants` builds in; each must be noticed by a case.
pub static ALL: &[Mutant] = &[
    Mutant {
        name: "auto-takes-tcx-on-netkit",
        fault: Fault::AutoTcx,
        breaks: "auto attaches by tcx although netkit is supported",
        noticed_by: &["D10-auto[auto,nk-l3,from-workload]"],
        needs: &[],
    },
    Mutant {
        name: "wrong-direction",
        fault: Fault::OtherDirection,
        breaks: "programs are attached to the other direction's hook",
        noticed_by: &["G01-skb-ifindex[netkit,nk-l2,to-workload]", "A01-clsact-filter[tc,veth,to-workload]"],
        needs: &[],
    },
    Mutant {
        name: "stale-link-kept",
        fault: Fault::LinkStays,
        breaks: "a link is still attached after its detach",
        noticed_by: &["A02-tcx-link[tcx,veth,from-workload]"],
        needs: &[],
    },
    Mutant {
        name: "pins-not-cleaned",
        fault: Fault::PinStays,
        breaks: "a pin is not removed when its owner ends",
        noticed_by: &["L03-detach-under-a-pin[netkit,nk-l2,from-workload]"],
        needs: &[],
    },
    Mutant {
        name: "shared-prog-array",
        fault: Fault::SharedJump,
        breaks: "tc, tcx and netkit programs share one jump map",
        noticed_by: &["H03-datapath-tc-to-tcx[veth]", "H06-datapath-to-netkit[nk-l3]"],
        needs: &[Capability::ProgArrayStrict],
    },
    Mutant {
        name: "shared-policy-slot",
        fault: Fault::SharedSlot,
        breaks: "two workloads' policies use the same slot",
        noticed_by: &["P07-datapath-policy-slots[tc,veth]"],
        needs: &[],
    },
    Mutant {
        name: "skb-ifindex",
        fault: Fault::Datapath(fault::SKB_IFINDEX),
        breaks: "the device is taken from skb->ifindex",
        noticed_by: &["G05-datapath-by-host-ifindex[netkit,nk-l2]"],
        needs: &[],
    },
    Mutant {
        name: "redirect-peer",
        fault: Fault::Datapath(fault::REDIRECT_PEER),
        breaks: "forwarding bypasses the destination's programs",
        noticed_by: &["T02-datapath-pod-to-pod[tc,veth]", "T02-datapath-pod-to-pod[netkit,nk-l3]"],
        needs: &[],
    },
    Mutant {
        name: "policy-inverted",
        fault: Fault::Datapath(fault::POLICY_INVERTED),
        breaks: "denied packets pass and allowed packets are dropped",
        noticed_by: &["V11-datapath-deny[tc,veth]"],
        needs: &[],
    },
    Mutant {
        name: "no-reverse-nat",
        fault: Fault::Datapath(fault::NO_REVERSE_NAT),
        breaks: "answers come from the backend, not from the service",
        noticed_by: &["T08-service[tc,veth]"],
        needs: &[],
    },
    Mutant {
        name: "no-hairpin-snat",
        fault: Fault::Datapath(fault::NO_HAIRPIN_SNAT),
        breaks: "a workload can't reach itself through a service",
        noticed_by: &["T03-service-hairpin[tc,veth]"],
        needs: &[],
    },
    Mutant {
        name: "not-counted",
        fault: Fault::Datapath(fault::NOT_COUNTED),
        breaks: "packets to the workload are not counted",
        noticed_by: &["T02-datapath-pod-to-pod[tc,veth]"],
        needs: &[],
    },
    Mutant {
        name: "checksum-kept",
        fault: Fault::Datapath(fault::CHECKSUM_KEPT),
        breaks: "translated packets keep their transport checksum",
        noticed_by: &["T08-service[tc,veth]"],
        needs: &[],
    },
    Mutant {
        name: "no-checksum-filled",
        fault: Fault::Datapath(fault::NO_CHECKSUM_FILLED),
        breaks: "UDP datagrams without a checksum get a wrong one",
        noticed_by: &["T08-service[tc,veth]"],
        needs: &[],
    },
    Mutant {
        name: "no-rpf",
        fault: Fault::Datapath(fault::NO_RPF),
        breaks: "a workload may send from any address",
        noticed_by: &["T17-datapath-spoofed-source[tc,veth]"],
        needs: &[],
    },
    Mutant {
        name: "one-zone",
        fault: Fault::Datapath(fault::ONE_ZONE),
        breaks: "connections of one workload bypass another one's policy",
        noticed_by: &["V11-datapath-deny[tc,veth]"],
        needs: &[],
    },
    Mutant {
        name: "quote-kept",
        fault: Fault::Datapath(fault::QUOTE_KEPT),
        breaks: "ICMP errors quote the backend instead of the service",
        noticed_by: &["T15-icmp-errors-about-translated[tc,veth]"],
        needs: &[],
    },
    Mutant {
        name: "open-on-miss",
        fault: Fault::Datapath(fault::OPEN_ON_MISS),
        breaks: "a workload without a policy accepts all packets",
        noticed_by: &["P07-datapath-policy-slots[tc,veth]"],
        needs: &[],
    },
    Mutant {
        name: "mac-kept",
        fault: Fault::Datapath(fault::MAC_KEPT),
        breaks: "forwarded packets keep their link-layer addresses",
        noticed_by: &["T02-datapath-pod-to-pod[tc,veth]"],
        needs: &[],
    },
    Mutant {
        name: "ttl-kept",
        fault: Fault::Datapath(fault::TTL_KEPT),
        breaks: "forwarded packets keep their time to live",
        noticed_by: &["T15-icmp-errors-about-translated[tc,veth]"],
        needs: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use lab_harness::Suite;
    use std::collections::HashSet;

    #[test]
    fn mutants_have_unique_names_and_existing_cells() {
        let cells = crate::SUITE.cells();
        let mut names = HashSet::new();
        for mutant in ALL {
            assert!(names.insert(mutant.name), "{} twice", mutant.name);
            for id in mutant.noticed_by {
                assert!(cells.iter().any(|cell| cell.info.id.as_str() == *id), "{}: no cell {id}", mutant.name);
            }
        }
    }
}
