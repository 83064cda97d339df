//! What changed for an object on a kernel from one check to the next: load, instructions, attachment, the fate of packets.

use crate::{
    INSN_LIMIT,
    class::failure,
    facts::{AttachFact, CheckFacts, Fate},
};
use std::collections::BTreeMap;

/// Changes that are told, at most.
const TOLD: usize = 100;
/// Percent by which the instructions of a program change without being told: verifiers of the same version agree, others do not.
const NOISE: u64 = 10;

/// A change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CheckChange {
    /// In words: before and after.
    pub text: String,
    /// Whether something that worked does not, or takes twice as much.
    pub is_worse: bool,
}

/// What changed. Programs, hooks and packets that only one of the two has are told, and are not worse.
pub fn changes(before: &CheckFacts, after: &CheckFacts) -> Vec<CheckChange> {
    let mut all = Vec::new();
    let mut add = |is_worse, text| all.push(CheckChange { text, is_worse });
    let loads = |facts: &CheckFacts| match (facts.loaded_whole(), failure(facts)) {
        (true, _) => "it loads".to_owned(),
        (false, Some(class)) => format!("it fails by {class}"),
        (false, None) => "it ends before it is loaded".to_owned(),
    };
    let (old, new) = (loads(before), loads(after));
    if old != new {
        add(before.loaded_whole(), format!("load: {old}, now: {new}"));
    }
    if before.complete != after.complete {
        let text = |facts: &CheckFacts| {
            if facts.complete { "the check ends".to_owned() } else { format!("it breaks off at: {}", facts.last) }
        };
        add(before.complete, format!("{}, now: {}", text(before), text(after)));
    }
    let programs = |facts: &CheckFacts| -> BTreeMap<String, u32> {
        facts.programs.iter().map(|program| (program.name.clone(), program.instructions())).collect()
    };
    let (old, new) = (programs(before), programs(after));
    for (name, count) in &old {
        match new.get(name) {
            // Where it is gone from an object that loads, somebody removed it.
            None => add(!after.loaded_whole(), format!("program {name}: it was loaded, now: not")),
            Some(now) => {
                let (one, other) = (u64::from(*count), u64::from(*now));
                if one.abs_diff(other) * 100 > one * NOISE {
                    let limit = u64::from(INSN_LIMIT / 2);
                    let is_worse = other >= 2 * one || other > limit && one <= limit;
                    add(is_worse, format!("program {name}: {one} instructions, now: {other}"));
                }
            }
        }
    }
    for name in new.keys().filter(|name| !old.contains_key(*name)) {
        add(false, format!("program {name}: it was not loaded, now: it is"));
    }
    for hook in &after.hooks {
        let same = before.hooks.iter().find(|it| it.program == hook.program && it.hook == hook.hook);
        let Some(earlier) = same else { continue };
        let (old, new) = (attached(&earlier.attach), attached(&hook.attach));
        if old != new {
            let is_worse = earlier.attach == AttachFact::Listed;
            add(is_worse, format!("program {} at {}: {old}, now: {new}", hook.program, hook.hook));
        }
        for packet in &hook.packets {
            let Some(was) = earlier.packets.iter().find(|it| it.packet == packet.packet) else { continue };
            let place = format!("program {} at {}, packet {}", hook.program, hook.hook, packet.packet);
            if was.fate != packet.fate {
                let is_lost = |fate: &Fate| matches!(fate, Fate::Dropped | Fate::Unsent(_));
                let is_worse = !is_lost(&was.fate) && is_lost(&packet.fate);
                add(is_worse, format!("{place}: {}, now: {}", was.fate.text(), packet.fate.text()));
            } else if was.changes != packet.changes {
                add(false, format!("{place}: other bytes are changed"));
            }
            if was.ran > 0 && packet.ran == 0 {
                add(true, format!("{place}: the program ran, now: not"));
            }
        }
    }
    for run in &after.runs {
        let same = before.runs.iter().find(|it| it.program == run.program && it.packet == run.packet);
        let verdict = |verdict: Option<i32>| verdict.map_or_else(|| "no verdict".to_owned(), |it| it.to_string());
        if let Some(earlier) = same.filter(|it| it.verdict != run.verdict) {
            let (old, new) = (verdict(earlier.verdict), verdict(run.verdict));
            add(
                run.verdict.is_none(),
                format!("program {}, packet {}: BPF_PROG_TEST_RUN gave {old}, now: {new}", run.program, run.packet),
            );
        }
    }
    // The worse ones first: what is cut off is the least.
    all.sort_by_key(|change| !change.is_worse);
    all.truncate(TOLD);
    all
}

fn attached(attach: &AttachFact) -> &'static str {
    match attach {
        AttachFact::Listed => "attached",
        AttachFact::Unlisted => "accepted and not listed",
        AttachFact::Absent(_) => "no such hook",
        AttachFact::Refused(_) => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{FactLine, HookFact, LoadAttempt, LoadFact, PacketFact, ProgramFact, RunFact};
    use lab_protocol::Hook;

    fn facts(errno: Option<i32>, instructions: u32, attach: AttachFact, fate: Fate, ran: u64) -> CheckFacts {
        let mut facts = CheckFacts::default();
        let said =
            if errno.is_some() { vec!["libbpf: map 'm': failed to create: -EINVAL".to_owned()] } else { Vec::new() };
        let (program, packet) = ("main".to_owned(), "p".to_owned());
        facts.add(FactLine::Load(LoadFact {
            attempt: LoadAttempt::AsIs,
            program: None,
            errno,
            failed: None,
            said,
            verifier: Vec::new(),
            took_ms: 0,
        }));
        if errno.is_none() {
            facts.add(FactLine::Program(ProgramFact {
                name: program.clone(),
                section: "tc".into(),
                kind: "sched_cls".into(),
                attempt: LoadAttempt::AsIs,
                verified: instructions,
                translated: 9,
                stats: None,
            }));
            let verdict = Some(if fate == Fate::Dropped { 2 } else { 0 });
            facts.add(FactLine::Run(RunFact {
                program: program.clone(),
                packet: packet.clone(),
                verdict,
                errno: None,
                changes: Vec::new(),
                length: 60,
            }));
            let packets =
                vec![PacketFact { packet, ran, fate, changes: Vec::new(), bytes: Vec::new(), counters: Vec::new() }];
            facts.add(FactLine::Hook(HookFact { program, hook: Hook::TcxIngress, attach, packets }));
        }
        facts.add(FactLine::End);
        facts
    }

    #[test]
    fn what_worked_and_does_not_is_worse_and_the_other_way_round_is_not() {
        let good = facts(None, 1000, AttachFact::Listed, Fate::Delivered, 1);
        assert!(changes(&good, &good).is_empty());
        let refused = AttachFact::Refused("EINVAL".into());
        for (other, worse, better) in [
            (
                facts(Some(-22), 0, AttachFact::Unlisted, Fate::Dropped, 0),
                "load: it loads, now: it fails by map",
                "load: it fails by map, now: it loads",
            ),
            (
                facts(None, 2000, AttachFact::Listed, Fate::Delivered, 1),
                "program main: 1000 instructions, now: 2000",
                "program main: 2000 instructions, now: 1000",
            ),
            (
                facts(None, 1000, refused, Fate::Delivered, 1),
                "program main at tcx/ingress: attached, now: refused",
                "program main at tcx/ingress: refused, now: attached",
            ),
            (
                facts(None, 1000, AttachFact::Listed, Fate::Dropped, 1),
                "program main at tcx/ingress, packet p: delivered, now: dropped",
                "program main at tcx/ingress, packet p: dropped, now: delivered",
            ),
            (
                facts(None, 1000, AttachFact::Listed, Fate::Delivered, 0),
                "program main at tcx/ingress, packet p: the program ran, now: not",
                "",
            ),
        ] {
            let found = changes(&good, &other);
            assert_eq!((&*found[0].text, found[0].is_worse), (worse, true));
            let back = changes(&other, &good);
            assert!(back.iter().all(|change| !change.is_worse), "{back:?}");
            assert!(better.is_empty() || back.iter().any(|change| change.text == better), "{back:?}");
        }
        let noisy = facts(None, 1090, AttachFact::Listed, Fate::Delivered, 1);
        assert!(changes(&good, &noisy).is_empty(), "within the noise");
        let more = facts(None, 1500, AttachFact::Listed, Fate::Delivered, 1);
        assert!(changes(&good, &more).iter().all(|change| !change.is_worse));
        let broken = CheckFacts { complete: false, last: "loading main".into(), ..good.clone() };
        assert_eq!(changes(&good, &broken)[0].text, "the check ends, now: it breaks off at: loading main");
    }
}
