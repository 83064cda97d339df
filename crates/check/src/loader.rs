//! How what two loaders do is compared.

use crate::{
    class::explain,
    facts::{AttachFact, CheckFacts, HookFact, LoadAttempt},
};

/// The loader that every object is checked with, and that others are compared with.
pub const LIBBPF: &str = "libbpf";
/// Differences that are told, at most.
const TOLD: usize = 50;

/// What another loader does differently on a kernel, a line each.
pub fn loaders_differ(kernel: &str, loader: &str, libbpf: &CheckFacts, other: &CheckFacts) -> Vec<String> {
    let mut lines = Vec::new();
    if !libbpf.complete || !other.complete {
        return lines;
    }
    match (libbpf.loaded_whole(), other.loaded_whole()) {
        (true, false) => lines.push(format!("{kernel}: {loader} does not load it, {LIBBPF} does: {}", reason(other))),
        (false, true) => lines.push(format!("{kernel}: {loader} loads it, {LIBBPF} does not: {}", reason(libbpf))),
        _ => {}
    }
    for hook in other.hooks.iter().filter(|hook| hook.attach == AttachFact::Listed) {
        let same = |it: &&HookFact| it.program == hook.program && it.hook == hook.hook;
        let Some(base) = libbpf.hooks.iter().find(same).filter(|it| it.attach == AttachFact::Listed) else { continue };
        for packet in &hook.packets {
            let Some(before) = base.packets.iter().find(|it| it.packet == packet.packet) else { continue };
            if before.fate != packet.fate || before.changes != packet.changes {
                lines.push(format!(
                    "{kernel}: loaders disagree on program {} at {}: packet {} is {} with {LIBBPF}, {} with {loader}",
                    hook.program,
                    hook.hook,
                    packet.packet,
                    before.fate.text(),
                    packet.fate.text()
                ));
            }
        }
    }
    lines.truncate(TOLD);
    lines
}

fn reason(facts: &CheckFacts) -> String {
    let failed = facts.loads.iter().rfind(|load| load.attempt != LoadAttempt::Alone && load.errno.is_some());
    failed.map_or_else(|| "no reason is known".to_owned(), |load| explain(load).sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{FactLine, Fate, LoadFact, PacketFact};
    use lab_protocol::Hook;

    fn facts(errno: Option<i32>, said: &str, fate: Fate) -> CheckFacts {
        let load = LoadFact {
            attempt: LoadAttempt::AsIs,
            program: None,
            errno,
            failed: None,
            said: vec![said.to_owned()],
            verifier: Vec::new(),
            took_ms: 0,
        };
        let packet = PacketFact {
            packet: "p".into(),
            ran: 1,
            fate,
            changes: Vec::new(),
            bytes: Vec::new(),
            counters: Vec::new(),
        };
        let hook = HookFact {
            program: "main".into(),
            hook: Hook::ClsactIngress,
            attach: AttachFact::Listed,
            packets: vec![packet],
        };
        let mut facts = CheckFacts::default();
        [FactLine::Load(load), FactLine::Hook(hook), FactLine::End].into_iter().for_each(|line| facts.add(line));
        facts
    }

    #[test]
    fn what_another_loader_does_differently_is_told_and_the_same_is_not() {
        let good = facts(None, "", Fate::Delivered);
        assert!(loaders_differ("6.12", "tc", &good, &good).is_empty());
        let failed = facts(Some(0), "Unable to load program", Fate::Delivered);
        assert_eq!(
            loaders_differ("6.12", "tc", &good, &failed),
            ["6.12: tc does not load it, libbpf does: Unable to load program"]
        );
        assert_eq!(
            loaders_differ("6.12", "tc", &failed, &good),
            ["6.12: tc loads it, libbpf does not: Unable to load program"]
        );
        assert_eq!(
            loaders_differ("6.12", "tc", &good, &facts(None, "", Fate::Dropped)),
            [
                "6.12: loaders disagree on program main at clsact/ingress: packet p is delivered with libbpf, dropped with tc"
            ]
        );
        let early = CheckFacts { complete: false, ..failed };
        assert!(loaders_differ("6.12", "tc", &good, &early).is_empty(), "a crash is told elsewhere");
    }
}
