//! The facts of one kernel against what is expected of it.

use crate::{
    class::explain,
    facts::{AttachFact, CheckFacts, CounterPlace, HookFact, LoadAttempt, PacketFact},
    order::{CheckExpectation, Expected},
};

/// Expectations that are told, at most.
const TOLD: usize = 50;

/// What is not as expected, a line each. Without any expectation about loading, the object must load, and every program that can
/// be attached to hooks must be listed at each that the kernel has.
pub fn unmet(facts: &CheckFacts, expected: &[CheckExpectation]) -> Vec<String> {
    let mut lines = Vec::new();
    if !expected.iter().any(|it| it.what.is_about_loading()) && !facts.loaded_whole() {
        lines.push(not_loaded(facts));
    }
    for hook in &facts.hooks {
        match &hook.attach {
            AttachFact::Listed | AttachFact::Absent(_) => {}
            AttachFact::Unlisted => lines.push(format!(
                "program {} at {}: the kernel accepted it and does not list it",
                hook.program, hook.hook
            )),
            AttachFact::Refused(why) => lines.push(format!("program {} at {}: {why}", hook.program, hook.hook)),
        }
    }
    for it in expected {
        let found = match &it.what {
            Expected::Loads => (!facts.loaded_whole()).then(|| not_loaded(facts)).into_iter().collect(),
            Expected::LoadsOrFails => Vec::new(),
            Expected::Fails(class) => fails(facts, it, class.as_deref()).into_iter().collect(),
            Expected::Verdict(verdict) => verdicts(facts, it, *verdict),
            Expected::Fate(fate) => packets(facts, it, |packet| {
                (!packet.fate.is(fate)).then(|| format!("{}, expected: {fate}", packet.fate.text()))
            }),
            Expected::Bytes(bytes) => packets(facts, it, |packet| differs(packet, bytes)),
            Expected::Instructions(most) => instructions(facts, it, *most),
            Expected::Adds(place, wanted) => packets(facts, it, |packet| adds(packet, place, *wanted)),
            Expected::Runs(wanted) => packets(facts, it, |packet| {
                (packet.ran != u64::from(*wanted)).then(|| format!("it ran {} times, expected: {wanted}", packet.ran))
            }),
        };
        lines.extend(found.into_iter().map(|line| format!("{line} ({})", it.origin)));
    }
    if !facts.complete && lines.is_empty() {
        lines.push(format!("the check ended before its end, at: {}", facts.last));
    }
    lines.truncate(TOLD);
    lines
}

fn not_loaded(facts: &CheckFacts) -> String {
    let last = facts.loads.iter().rfind(|load| load.attempt != LoadAttempt::Alone && load.errno.is_some());
    match last {
        Some(load) => {
            let why = explain(load);
            format!("does not load: {}: {}", why.class, why.sentence)
        }
        None => format!("does not load: nothing is known of it; it ended at: {}", facts.last),
    }
}

fn fails(facts: &CheckFacts, it: &CheckExpectation, class: Option<&str>) -> Option<String> {
    let load = match &it.program {
        // Of a single program, where the object was loaded in parts.
        Some(program) => facts
            .loads
            .iter()
            .rfind(|load| load.program.as_ref() == Some(program))
            .or_else(|| facts.loads.iter().rfind(|load| load.failed.as_ref() == Some(program)))?,
        None => facts.loads.iter().rfind(|load| load.attempt != LoadAttempt::Alone)?,
    };
    let wanted = class.map_or_else(|| "a failure".to_owned(), |class| format!("failure `{class}`"));
    if load.errno.is_none() {
        return Some(format!("it loads, expected: {wanted}"));
    }
    let why = explain(load);
    let differs = class.is_some_and(|class| class != why.class.name());
    differs.then(|| format!("the load fails by `{}` ({}), expected: {wanted}", why.class, why.sentence))
}

fn verdicts(facts: &CheckFacts, it: &CheckExpectation, wanted: i64) -> Vec<String> {
    let concerned = facts.runs.iter().filter(|run| {
        it.program.as_ref().is_none_or(|name| *name == run.program)
            && it.packet.as_ref().is_none_or(|name| *name == run.packet)
    });
    let concerned: Vec<_> = concerned.collect();
    if concerned.is_empty() {
        return vec![nothing(it, "was run with the packet")];
    }
    let wrong = concerned.into_iter().filter(|run| run.verdict.map(i64::from) != Some(wanted));
    wrong
        .map(|run| {
            let seen = run.verdict.map_or_else(
                || format!("no verdict (errno {})", run.errno.unwrap_or_default()),
                |verdict| format!("verdict {verdict}"),
            );
            format!("program {} with the packet {}: {seen}, expected: {wanted}", run.program, run.packet)
        })
        .collect()
}

fn packets(facts: &CheckFacts, it: &CheckExpectation, wrong: impl Fn(&PacketFact) -> Option<String>) -> Vec<String> {
    let concerned = |hook: &&HookFact| {
        hook.attach == AttachFact::Listed
            && it.program.as_ref().is_none_or(|name| *name == hook.program)
            && it.hook.is_none_or(|wanted| wanted == hook.hook)
    };
    let mut any = false;
    let mut lines = Vec::new();
    for hook in facts.hooks.iter().filter(concerned) {
        for packet in hook.packets.iter().filter(|it_| it.packet.as_ref().is_none_or(|name| *name == it_.packet)) {
            any = true;
            if let Some(seen) = wrong(packet) {
                lines.push(format!("program {} at {}, packet {}: {seen}", hook.program, hook.hook, packet.packet));
            }
        }
    }
    // A hook that the kernel lacks is nobody's failure.
    let is_absent = it.hook.is_some_and(|wanted| {
        facts.hooks.iter().any(|hook| hook.hook == wanted && matches!(hook.attach, AttachFact::Absent(_)))
    });
    if !any && !is_absent {
        lines.push(nothing(it, "met the packet at that hook"));
    }
    lines
}

fn differs(packet: &PacketFact, wanted: &[u8]) -> Option<String> {
    // The devices' addresses are not the packet's own.
    let own = |bytes: &[u8]| bytes.get(12..).map(<[u8]>::to_vec).unwrap_or_default();
    let (seen, wanted) = (own(&packet.bytes), own(wanted));
    if seen == wanted {
        return None;
    }
    if seen.len() != wanted.len() {
        return Some(format!(
            "{} bytes arrived ({}), expected: {}",
            seen.len() + 12,
            packet.fate.text(),
            wanted.len() + 12
        ));
    }
    let at = seen.iter().zip(&wanted).position(|(seen, wanted)| seen != wanted)?;
    Some(format!("byte {} is {:02x}, expected: {:02x}", at + 12, seen[at], wanted[at]))
}

fn adds(packet: &PacketFact, place: &CounterPlace, wanted: u32) -> Option<String> {
    let name = format!("the counter of `{}`", place.map);
    let Some(counter) = packet.counters.iter().find(|counter| counter.place == *place) else {
        return Some(format!("{name} was not read, expected: {wanted} more"));
    };
    let (before, after) = (counter.before, counter.after);
    match &counter.problem {
        Some(why) => Some(format!("{name} can't be read: {why}")),
        None if after.wrapping_sub(before) == u64::from(wanted) => None,
        None => Some(format!("{name} went from {before} to {after}, expected: {wanted} more")),
    }
}

fn instructions(facts: &CheckFacts, it: &CheckExpectation, most: u32) -> Vec<String> {
    let concerned =
        facts.programs.iter().filter(|program| it.program.as_ref().is_none_or(|name| *name == program.name));
    let concerned: Vec<_> = concerned.collect();
    if concerned.is_empty() {
        return vec![nothing(it, "is loaded")];
    }
    let above = concerned.into_iter().filter(|program| program.instructions() > most);
    above
        .map(|program| {
            format!("program {}: {} instructions, expected: at most {most}", program.name, program.instructions())
        })
        .collect()
}

fn nothing(it: &CheckExpectation, what: &str) -> String {
    match &it.program {
        Some(program) => format!("the program {program} {what} not at all"),
        None => format!("no program {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{CounterFact, FactLine, Fate, LoadFact, RunFact};
    use lab_protocol::Hook;

    fn expects(what: Expected) -> CheckExpectation {
        CheckExpectation { program: None, hook: None, packet: None, what, origin: "check.toml:3".to_owned() }
    }

    fn load(errno: Option<i32>, said: &str) -> FactLine {
        FactLine::Load(LoadFact {
            attempt: LoadAttempt::AsIs,
            program: None,
            errno,
            failed: None,
            said: vec![said.to_owned()],
            verifier: Vec::new(),
            took_ms: 0,
        })
    }

    fn facts(lines: Vec<FactLine>) -> CheckFacts {
        let mut facts = CheckFacts::default();
        lines.into_iter().chain([FactLine::End]).for_each(|line| facts.add(line));
        facts
    }

    #[test]
    fn an_object_must_load_unless_another_end_is_expected() {
        let failed =
            facts(vec![load(Some(-22), "extern (func ksym) 'bpf_nosuch': not found in kernel or module BTFs")]);
        assert_eq!(unmet(&failed, &[]), ["does not load: kfunc: the kernel has no kfunc bpf_nosuch"]);
        assert!(unmet(&failed, &[expects(Expected::Fails(Some("kfunc".into())))]).is_empty());
        assert!(unmet(&failed, &[expects(Expected::Fails(None))]).is_empty());
        let other = unmet(&failed, &[expects(Expected::Fails(Some("core".into())))]);
        assert!(other[0].contains("fails by `kfunc`") && other[0].ends_with("(check.toml:3)"), "{other:?}");
        let loaded = facts(vec![load(None, "")]);
        assert!(unmet(&loaded, &[]).is_empty());
        assert_eq!(
            unmet(&loaded, &[expects(Expected::Fails(Some("kfunc".into())))]),
            ["it loads, expected: failure `kfunc` (check.toml:3)"]
        );
    }

    #[test]
    fn fates_verdicts_and_bytes_are_compared_and_an_absent_hook_is_no_failure() {
        let hook = |hook, attach, fate: Fate| {
            FactLine::Hook(HookFact {
                program: "main".into(),
                hook,
                attach,
                packets: vec![PacketFact {
                    packet: "p".into(),
                    ran: 1,
                    fate,
                    changes: Vec::new(),
                    bytes: vec![1; 20],
                    counters: Vec::new(),
                }],
            })
        };
        let run = RunFact {
            program: "main".into(),
            packet: "p".into(),
            verdict: Some(3),
            errno: None,
            changes: Vec::new(),
            length: 20,
        };
        let facts = facts(vec![
            load(None, ""),
            FactLine::Run(run),
            hook(Hook::ClsactIngress, AttachFact::Listed, Fate::Delivered),
            hook(Hook::NetkitPeer, AttachFact::Listed, Fate::Dropped),
            hook(Hook::TcxIngress, AttachFact::Absent("EINVAL".into()), Fate::Dropped),
        ]);
        assert!(unmet(&facts, &[]).is_empty());
        assert_eq!(
            unmet(&facts, &[expects(Expected::Fate("delivered".into()))]),
            ["program main at netkit/peer, packet p: dropped, expected: delivered (check.toml:3)"]
        );
        let at = |hook| CheckExpectation { hook: Some(hook), ..expects(Expected::Fate("dropped".into())) };
        assert!(unmet(&facts, &[at(Hook::NetkitPeer), at(Hook::TcxIngress)]).is_empty());
        assert_eq!(unmet(&facts, &[at(Hook::TcxEgress)]), ["no program met the packet at that hook (check.toml:3)"]);
        let of_packet = CheckExpectation { packet: Some("q".into()), ..at(Hook::NetkitPeer) };
        assert_eq!(unmet(&facts, &[of_packet]), ["no program met the packet at that hook (check.toml:3)"]);
        let of_program = CheckExpectation { program: Some("other".into()), ..at(Hook::ClsactIngress) };
        assert_eq!(
            unmet(&facts, &[of_program]),
            ["the program other met the packet at that hook not at all (check.toml:3)"]
        );
        assert!(unmet(&facts, &[expects(Expected::Verdict(3))]).is_empty());
        assert_eq!(
            unmet(&facts, &[expects(Expected::Verdict(0))]),
            ["program main with the packet p: verdict 3, expected: 0 (check.toml:3)"]
        );
        let bytes = CheckExpectation { hook: Some(Hook::ClsactIngress), ..expects(Expected::Bytes(vec![1; 20])) };
        assert!(unmet(&facts, std::slice::from_ref(&bytes)).is_empty());
        let mut other = vec![1; 20];
        other[13] = 7;
        let wrong = unmet(&facts, &[CheckExpectation { what: Expected::Bytes(other), ..bytes }]);
        assert!(wrong[0].contains("byte 13 is 01, expected: 07"), "{wrong:?}");
    }

    #[test]
    fn counters_and_runs_are_compared_with_what_a_packet_did() {
        let place = CounterPlace { map: "packets".into(), key: vec![0; 4], at: 8 };
        let packet = |before, after, problem: Option<&str>| {
            FactLine::Hook(HookFact {
                program: "main".into(),
                hook: Hook::ClsactIngress,
                attach: AttachFact::Listed,
                packets: vec![PacketFact {
                    packet: "p".into(),
                    ran: 2,
                    fate: Fate::Delivered,
                    changes: Vec::new(),
                    bytes: Vec::new(),
                    counters: vec![CounterFact {
                        place: place.clone(),
                        before,
                        after,
                        problem: problem.map(str::to_owned),
                    }],
                }],
            })
        };
        let seen = |line, what| unmet(&facts(vec![load(None, ""), line]), &[expects(what)]);
        let adds = |count| Expected::Adds(place.clone(), count);
        assert!(seen(packet(5, 7, None), adds(2)).is_empty());
        assert!(seen(packet(u64::MAX, 1, None), adds(2)).is_empty(), "a counter may wrap");
        let at = "program main at clsact/ingress, packet p: ";
        let told = seen(packet(5, 7, None), adds(1));
        assert_eq!(told, [format!("{at}the counter of `packets` went from 5 to 7, expected: 1 more (check.toml:3)")]);
        let told = seen(packet(0, 0, Some("EPERM")), adds(0));
        assert_eq!(told, [format!("{at}the counter of `packets` can't be read: EPERM (check.toml:3)")]);
        let other = Expected::Adds(CounterPlace { map: "bytes".into(), ..place.clone() }, 1);
        let told = seen(packet(5, 7, None), other);
        assert_eq!(told, [format!("{at}the counter of `bytes` was not read, expected: 1 more (check.toml:3)")]);
        assert!(seen(packet(5, 7, None), Expected::Runs(2)).is_empty());
        let told = seen(packet(5, 7, None), Expected::Runs(1));
        assert_eq!(told, [format!("{at}it ran 2 times, expected: 1 (check.toml:3)")]);
    }

    #[test]
    fn a_check_that_ended_early_is_unmet() {
        let mut facts = CheckFacts::default();
        facts.add(load(None, ""));
        facts.add(FactLine::Begin { what: "program main at tcx/ingress".into() });
        assert_eq!(unmet(&facts, &[]), ["the check ended before its end, at: program main at tcx/ingress"]);
    }
}
