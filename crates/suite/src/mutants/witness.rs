//! Faults of the witness: `lab mutants --witness` notices each by holding the witness's account against what cases read.

use lab_harness::{
    fault::{Fault, Mutant},
    witness::WitnessFault::{self, *},
};

const fn fault(
    name: &'static str,
    fault: WitnessFault,
    breaks: &'static str,
    noticed_by: &'static [&'static str],
) -> Mutant {
    Mutant { name, fault: Fault::Witness(fault), breaks, noticed_by, needs: &[] }
}

const FILTER: &[&str] = &["A01-clsact-filter[tc,veth,from-workload]"];
const LINK: &[&str] = &["A02-tcx-link[tcx,veth,from-workload]"];
const PROGRAM: &[&str] = &["A03-tcx-prog[tcx,veth,from-workload]"];
const NETKIT: &[&str] = &["A04-netkit-link[netkit,nk-l3,to-workload]"];

pub static ALL: &[Mutant] = &[
    fault("witness-detach-missed", DetachMissed, "programs that are detached stay in the account", PROGRAM),
    fault("witness-link-end-missed", LinkEndMissed, "links that are freed or detached stay in the account", LINK),
    fault("witness-filter-end-missed", FilterEndMissed, "filters that are deleted stay in the account", FILTER),
    fault(
        "witness-device-end-missed",
        DeviceEndMissed,
        "devices that go keep what was attached to them",
        &["M12-query[netkit,nk-l2,from-workload]", "A05-netkit-prog[netkit,nk-l3,to-workload]"],
    ),
    fault("witness-filter-missed", FilterMissed, "filters that are made are not seen", FILTER),
    fault(
        "witness-replace-missed",
        ReplaceMissed,
        "a program that takes the place of another is attached beside it",
        &["M09-replace[tcx,veth,from-workload]"],
    ),
    fault(
        "witness-update-missed",
        UpdateMissed,
        "a link keeps its first program",
        &["L04-update[tcx,veth,from-workload]"],
    ),
    fault("witness-wrong-namespace", WrongNamespace, "events are told of another network namespace", LINK),
    fault("witness-wrong-device", WrongDevice, "events are told of the next device", LINK),
    fault("witness-wrong-hook", WrongHook, "ingress and egress, or primary and peer, are taken for each other", NETKIT),
    fault("witness-wrong-mechanism", WrongMechanism, "tcx and netkit are taken for each other", NETKIT),
    fault("witness-wrong-program", WrongProgram, "the program of an event is another one", PROGRAM),
    fault("witness-link-is-program", LinkIsProgram, "a link counts as a program that is attached without one", LINK),
    fault(
        "witness-refused-is-attached",
        RefusedIsAttached,
        "what the kernel refused counts as attached",
        &["M07-expected-revision[tcx,veth,from-workload]"],
    ),
];
