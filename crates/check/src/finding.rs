//! What is worth telling without any expectation: hooks or kernels that treat a packet in different ways, programs near the
//! verifier's limit, programs that never ran.

use crate::{
    INSN_LIMIT,
    facts::{AttachFact, CheckFacts, Fate, HookFact},
};
use std::collections::{BTreeMap, BTreeSet};

/// Findings that are told, at most.
const TOLD: usize = 200;
/// Instructions below which twice as many are no finding.
const FEW: u32 = 1000;

/// The facts of one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnKernel {
    /// Its name in `kernels.toml`.
    pub kernel: String,
    /// What is known of the object there.
    pub facts: CheckFacts,
}

/// What is worth telling, a line each. The kernels are in the order in which they are compared.
pub fn findings(kernels: &[OnKernel]) -> Vec<String> {
    let mut lines = on_each(kernels, hooks_disagree);
    kernels_disagree(kernels, &mut lines);
    loads_disagree(kernels, &mut lines);
    lines.extend(on_each(kernels, never_ran));
    instructions(kernels, &mut lines);
    lines.truncate(TOLD);
    lines
}

/// Findings about single kernels. One that several kernels have is told once, with their names.
fn on_each(kernels: &[OnKernel], find: fn(&CheckFacts) -> Vec<String>) -> Vec<String> {
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    for it in kernels {
        for text in find(&it.facts) {
            match found.iter_mut().find(|(other, _)| *other == text) {
                Some((_, on)) => on.push(&it.kernel),
                None => found.push((text, vec![&it.kernel])),
            }
        }
    }
    found.into_iter().map(|(text, on)| format!("{}: {text}", on.join(", "))).collect()
}

/// A return value of a program, by its name in include/uapi/linux/pkt_cls.h.
fn action(verdict: i32) -> String {
    let name = match verdict {
        -1 => "TC_ACT_UNSPEC",
        0 => "TC_ACT_OK",
        1 => "TC_ACT_RECLASSIFY",
        2 => "TC_ACT_SHOT",
        3 => "TC_ACT_PIPE",
        4 => "TC_ACT_STOLEN",
        5 => "TC_ACT_QUEUED",
        6 => "TC_ACT_REPEAT",
        7 => "TC_ACT_REDIRECT",
        8 => "TC_ACT_TRAP",
        _ => return verdict.to_string(),
    };
    format!("{verdict}, {name}")
}

/// Fates without what differs by nature: the device of a redirection, the bytes of a change.
fn kind(fate: &Fate) -> &'static str {
    match fate {
        Fate::Delivered => "delivered",
        Fate::Changed => "changed",
        Fate::Redirected(_) => "redirected",
        Fate::Dropped => "dropped",
        Fate::Unsent(_) => "not sent",
    }
}

fn listed(facts: &CheckFacts) -> impl Iterator<Item = &HookFact> {
    facts.hooks.iter().filter(|hook| hook.attach == AttachFact::Listed)
}

fn hooks_disagree(facts: &CheckFacts) -> Vec<String> {
    let mut lines = Vec::new();
    let mut fates: BTreeMap<(&str, &str), BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for hook in listed(facts) {
        for packet in &hook.packets {
            let by_fate = fates.entry((&hook.program, &packet.packet)).or_default();
            by_fate.entry(kind(&packet.fate)).or_default().push(hook.hook.name());
        }
    }
    for ((program, packet), by_fate) in fates.iter().filter(|(_, by_fate)| by_fate.len() > 1) {
        let run = facts.runs.iter().find(|run| run.program == *program && run.packet == *packet);
        let verdict = run.and_then(|run| run.verdict);
        let told: Vec<String> = by_fate.iter().map(|(fate, hooks)| format!("{fate} at {}", hooks.join(", "))).collect();
        let returns = verdict.map_or_else(String::new, |verdict| format!(", which returns {}", action(verdict)));
        // drivers/net/netkit.c, `netkit_xmit`: whatever is none of four values is dropped.
        let only_netkit =
            by_fate.get("dropped").is_some_and(|hooks| hooks.iter().all(|hook| hook.starts_with("netkit/")));
        let why = if only_netkit && verdict.is_some_and(|verdict| ![-1, 0, 2, 7].contains(&verdict)) {
            "; netkit drops packets for every value but -1, 0 and 7, tc and tcx let them pass"
        } else {
            ""
        };
        lines
            .push(format!("hooks disagree on program {program}{returns}: packet {packet} is {}{why}", told.join("; ")));
    }
    lines
}

fn kernels_disagree(kernels: &[OnKernel], lines: &mut Vec<String>) {
    let mut fates: BTreeMap<(&str, &str, &str), BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for it in kernels {
        for hook in listed(&it.facts) {
            for packet in &hook.packets {
                let key = (&*hook.program, hook.hook.name(), &*packet.packet);
                fates.entry(key).or_default().entry(kind(&packet.fate)).or_default().push(&it.kernel);
            }
        }
    }
    for ((program, hook, packet), by_fate) in fates.iter().filter(|(_, by_fate)| by_fate.len() > 1) {
        let told: Vec<String> = by_fate.iter().map(|(fate, on)| format!("{fate} on {}", on.join(", "))).collect();
        lines.push(format!("kernels disagree on program {program} at {hook}: packet {packet} is {}", told.join("; ")));
    }
    let mut verdicts: BTreeMap<(&str, &str), BTreeMap<i32, Vec<&str>>> = BTreeMap::new();
    for it in kernels {
        for run in &it.facts.runs {
            if let Some(verdict) = run.verdict {
                let by_verdict = verdicts.entry((&run.program, &run.packet)).or_default();
                by_verdict.entry(verdict).or_default().push(&it.kernel);
            }
        }
    }
    for ((program, packet), by_verdict) in verdicts.iter().filter(|(_, by_verdict)| by_verdict.len() > 1) {
        let told: Vec<String> =
            by_verdict.iter().map(|(verdict, on)| format!("{} on {}", action(*verdict), on.join(", "))).collect();
        lines.push(format!(
            "kernels disagree on what program {program} returns for packet {packet}: {}",
            told.join("; ")
        ));
    }
}

fn loads_disagree(kernels: &[OnKernel], lines: &mut Vec<String>) {
    let known: Vec<&OnKernel> = kernels.iter().filter(|it| !it.facts.loads.is_empty()).collect();
    let names = |loads: bool| {
        let those = known.iter().filter(|it| it.facts.loaded_whole() == loads);
        those.map(|it| &*it.kernel).collect::<Vec<_>>().join(", ")
    };
    let (on, not_on) = (names(true), names(false));
    if !on.is_empty() && !not_on.is_empty() {
        lines.push(format!("kernels disagree: it loads on {on}, and not on {not_on}"));
    }
}

fn never_ran(facts: &CheckFacts) -> Vec<String> {
    let mut idle: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for hook in listed(facts) {
        for packet in hook.packets.iter().filter(|packet| packet.ran == 0 && !matches!(packet.fate, Fate::Unsent(_))) {
            idle.entry((&hook.program, &packet.packet)).or_default().push(hook.hook.name());
        }
    }
    let told = |((program, packet), hooks): ((&str, &str), Vec<&str>)| {
        format!("program {program} is attached at {} and never ran for packet {packet}", hooks.join(", "))
    };
    idle.into_iter().map(told).collect()
}

fn instructions(kernels: &[OnKernel], lines: &mut Vec<String>) {
    let programs: BTreeSet<&str> =
        kernels.iter().flat_map(|it| it.facts.programs.iter().map(|program| &*program.name)).collect();
    for name in programs {
        let mut before: Option<(&str, u32)> = None;
        for it in kernels {
            let Some(program) = it.facts.programs.iter().find(|program| program.name == name) else { continue };
            let count = program.instructions();
            if count > INSN_LIMIT / 2 {
                let share = u64::from(count) * 100 / u64::from(INSN_LIMIT);
                lines.push(format!(
                    "{}: program {name} takes {count} instructions to verify, {share} % of the limit of {INSN_LIMIT}",
                    it.kernel
                ));
            }
            if let Some((kernel, earlier)) = before
                && earlier >= FEW
                && count >= earlier.saturating_mul(2)
            {
                lines.push(format!(
                    "program {name} takes {count} instructions to verify on {}, {earlier} on {kernel}",
                    it.kernel
                ));
            }
            before = Some((&it.kernel, count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{FactLine, LoadAttempt, LoadFact, PacketFact, ProgramFact, RunFact};
    use lab_protocol::Hook;

    fn kernel(name: &str, instructions: u32, fates: &[(Hook, Fate, u64)]) -> OnKernel {
        let mut facts = CheckFacts::default();
        facts.add(FactLine::Load(LoadFact {
            attempt: LoadAttempt::AsIs,
            program: None,
            errno: None,
            failed: None,
            said: Vec::new(),
            verifier: Vec::new(),
            took_ms: 0,
        }));
        facts.add(FactLine::Program(ProgramFact {
            name: "main".into(),
            section: "tc".into(),
            kind: "sched_cls".into(),
            attempt: LoadAttempt::AsIs,
            verified: instructions,
            translated: 9,
            stats: None,
        }));
        facts.add(FactLine::Run(RunFact {
            program: "main".into(),
            packet: "p".into(),
            verdict: Some(3),
            errno: None,
            changes: Vec::new(),
            length: 60,
        }));
        for (hook, fate, ran) in fates {
            let packet = PacketFact {
                packet: "p".into(),
                ran: *ran,
                fate: fate.clone(),
                changes: Vec::new(),
                bytes: Vec::new(),
                counters: Vec::new(),
            };
            facts.add(FactLine::Hook(HookFact {
                program: "main".into(),
                hook: *hook,
                attach: AttachFact::Listed,
                packets: vec![packet],
            }));
        }
        OnKernel { kernel: name.to_owned(), facts }
    }

    #[test]
    fn hooks_that_disagree_are_told_with_the_reason() {
        let one = kernel(
            "6.12",
            5,
            &[
                (Hook::ClsactIngress, Fate::Delivered, 1),
                (Hook::TcxIngress, Fate::Delivered, 1),
                (Hook::NetkitPeer, Fate::Dropped, 1),
            ],
        );
        assert_eq!(
            findings(&[one.clone(), OnKernel { kernel: "6.17".to_owned(), ..one }]),
            [
                "6.12, 6.17: hooks disagree on program main, which returns 3, TC_ACT_PIPE: packet p is delivered at clsact/ingress, \
              tcx/ingress; dropped at netkit/peer; netkit drops packets for every value but -1, 0 and 7, tc and tcx let them \
              pass"
            ]
        );
    }

    #[test]
    fn kernels_that_disagree_idle_programs_and_growing_ones_are_told() {
        let old = kernel("6.1", 4000, &[(Hook::ClsactIngress, Fate::Delivered, 1)]);
        let new = kernel("6.12", 600_000, &[(Hook::ClsactIngress, Fate::Dropped, 0)]);
        let lines = findings(&[old, new]);
        assert_eq!(
            lines,
            [
                "kernels disagree on program main at clsact/ingress: packet p is delivered on 6.1; dropped on 6.12",
                "6.12: program main is attached at clsact/ingress and never ran for packet p",
                "6.12: program main takes 600000 instructions to verify, 60 % of the limit of 1000000",
                "program main takes 600000 instructions to verify on 6.12, 4000 on 6.1",
            ]
        );
        let same = kernel("6.1", 10, &[(Hook::ClsactIngress, Fate::Delivered, 1)]);
        assert!(findings(&[same.clone(), OnKernel { kernel: "6.12".into(), ..same }]).is_empty());
    }
}
