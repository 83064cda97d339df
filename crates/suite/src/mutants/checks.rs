//! Weaknesses of the harness: each check and each meter, with less than it is there to notice. The cases of the area
//! `self-check` notice them.

use lab_harness::fault::{
    Fault, Mutant,
    WeakCheck::{self, *},
};
use lab_protocol::Capability;
use lab_traffic::Weakness::{self, *};

const fn check(
    name: &'static str,
    weak: WeakCheck,
    breaks: &'static str,
    noticed_by: &'static [&'static str],
) -> Mutant {
    Mutant { name, fault: Fault::Check(weak), breaks, noticed_by, needs: &[] }
}

const fn meter(
    name: &'static str,
    weakness: Weakness,
    breaks: &'static str,
    noticed_by: &'static [&'static str],
) -> Mutant {
    Mutant { name, fault: Fault::Meter(weakness), breaks, noticed_by, needs: &[] }
}

const fn needing(mutant: Mutant, needs: &'static [Capability]) -> Mutant {
    Mutant { needs, ..mutant }
}

const K01: &[&str] = &["K01-attachment-is-read-back[tcx,veth,from-workload]"];
const K02: &[&str] = &["K02-conditions-are-compared"];
const K03: &[&str] = &["K03-a-drop-is-no-pass[veth]"];
const K04: &[&str] = &["K04-silence-needs-packets-that-were-sent[veth]"];
const K05: &[&str] = &["K05-counts-are-exact[veth]"];
const K06: &[&str] = &["K06-answers-from-elsewhere-are-none[veth]"];
const K07: &[&str] = &["K07-late-packets-are-found[veth]"];
const K08: &[&str] = &["K08-outcomes-follow-the-checks[veth]"];
const K09: &[&str] = &["K09-leaks-are-listed[veth]"];
const K10: &[&str] = &["K10-counts-of-routed-flows-are-exact[veth]"];
const K11: &[&str] = &["K11-sources-are-compared[veth]"];
const K12: &[&str] = &["K12-silence-is-listened-to[veth]"];
const K13: &[&str] = &["K13-flows-are-summed-up-exactly"];
const K14: &[&str] = &["K14-damaged-answers-are-none[veth]"];
const K15: &[&str] = &["K15-losses-are-counted[veth]"];
const K16: &[&str] = &["K16-echoes-of-others-are-none[veth]"];
const V08: &[&str] = &["V08-drop-is-enobufs[netkit,nk-l2]"];

pub static ALL: &[Mutant] = &[
    check("all-equal", AllEqual, "all values are equal", K02),
    check("any-errno", AnyErrno, "any errno is the wanted one", K02),
    check("success-is-refusal", SuccessIsRefusal, "a success counts as a refusal", K02),
    check("failure-forgotten", FailureForgotten, "failed checks are not recorded", K02),
    check("require-goes-on", RequireGoesOn, "a case goes on after a condition that does not hold", K02),
    check("timeout-is-true", TimeoutIsTrue, "a condition holds when the time for it is over", K02),
    check("asked-once", AskedOnce, "a condition is asked once", K02),
    check("cleanup-ignored", CleanupIgnored, "failed clean-up is ignored", K08),
    check("no-checks-pass", NoChecksPass, "a case without checks passes", K08),
    check("unbuilt-passes", UnbuiltPasses, "a case that does not build its topology passes", K08),
    check("late-ignored", LateIgnored, "late packets are not part of the report", K08),
    check("skip-hides-failure", SkipHidesFailure, "a skip hides the checks that failed before it", K08),
    check("run-invented", RunInvented, "every program that was attached has run", K08),
    check("request-copied", RequestCopied, "the report has the requested attach type as the used one", K01),
    check("any-program", AnyProgram, "the report has whatever program the kernel lists first", K01),
    check("link-unseen", LinkUnseen, "the report has no link", K01),
    check("hook-mirrored", HookMirrored, "the report has the hook of the other direction", K01),
    check("one-way-passes", OneWayPasses, "a flow passes in one direction", K03),
    check("any-source", AnySource, "the source that the receiver sees is not compared", K11),
    check("unsent-is-dropped", UnsentIsDropped, "flows that were never sent count as dropped", K04),
    check("first-is-all", FirstIsAll, "of several flows, only the first must be dropped", K04),
    check("counted-more", CountedMore, "programs may count more packets than were sent", K05),
    check("counted-less", CountedLess, "programs may count fewer packets than were sent", K05),
    check("tcp-uncounted", TcpUncounted, "TCP packets are not counted", K05),
    check("trip-uncounted", TripUncounted, "packets of routed flows are not counted", K10),
    check("program-leaks-unseen", LeaksUnseen("program"), "a program that is left behind is not listed", K09),
    check("map-leaks-unseen", LeaksUnseen("map"), "a map that is left behind is not listed", K09),
    needing(
        check("link-leaks-unseen", LeaksUnseen("link"), "a link that is left behind is not listed", K09),
        &[Capability::Tcx],
    ),
    check("pin-leaks-unseen", LeaksUnseen("pin"), "a pin that is left behind is not listed", K09),
    check("device-leaks-unseen", LeaksUnseen("device"), "a device that is left behind is not listed", K09),
    check("namespace-leaks-unseen", LeaksUnseen("namespace"), "a namespace that is left behind is not listed", K09),
    meter("no-window", NoWindow, "nothing arrives, without waiting", K12),
    meter("no-late-look", NoLateLook, "silent flows are not looked at again", K07),
    meter("room-unread", RoomUnread, "sockets of a silent flow are closed unread before the next one", K07),
    meter("any-answerer", AnyAnswerer, "answers from any address count", K06),
    meter("udp-damage-unseen", UdpDamageUnseen, "datagrams count whatever is in them", K14),
    meter("tcp-damage-unseen", TcpDamageUnseen, "a TCP stream is intact whatever is in it", K14),
    meter("errors-unheard", ErrorsUnheard, "errnos of UDP sockets are dropped", V08),
    meter("any-echo", AnyEcho, "echo replies of any identifier count", K16),
    meter("loss-unseen", LossUnseen, "a stream has lost nothing", K15),
    meter("one-is-all", OneIsAll, "a flow is complete with one answer", K13),
    meter("copies-unseen", CopiesUnseen, "a flow is complete although packets arrived twice", K13),
    meter("unsent-is-tried", UnsentIsTried, "a flow that could not be sent counts as tried", K13),
    meter("delivered-is-silent", DeliveredIsSilent, "a flow is silent although packets were delivered", K13),
    meter("returned-is-silent", ReturnedIsSilent, "a flow is silent although answers came back", K13),
    meter("source-unseen", SourceUnseen, "the source of a flow is not recorded", K11),
];
