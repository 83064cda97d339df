//! Checks a guest's report against the plan: the plan, not the guest, decides which attach type a pass needs.

use super::{readings, witness};
use lab_protocol::{
    AttachRecord, Capability, CapabilityReport, CapabilityState, CellInfo, CellReport, ErrorKind, FailureKind, Outcome,
    SkipReason,
};
use lab_record::{
    plan::{KernelFacts, PlannedKernel, required_attach},
    verdict::Verdict,
};

/// Judges one report.
pub(super) fn against_plan(kernel: &PlannedKernel, info: &CellInfo, report: CellReport) -> Verdict {
    let mut warnings = Vec::new();
    let demanded = witness::faults(&kernel.facts, info, report.witness.as_deref()).and_then(|faults| {
        Ok(faults.into_iter().chain(readings::differences(&report, &mut warnings)?).collect::<Vec<_>>())
    });
    let outcome = match &report.outcome {
        Outcome::Passed => match (passed(&kernel.facts, info, &report), &demanded) {
            (Outcome::Passed, Ok(faults)) => witness::outcome(faults).unwrap_or(Outcome::Passed),
            (Outcome::Passed, Err(reason)) => {
                Outcome::Errored { kind: ErrorKind::Agent, message: format!("no verdict on the attachments: {reason}") }
            }
            (other, _) => other,
        },
        Outcome::Skipped { reason } => skipped(&kernel.facts, info, reason, &mut warnings),
        Outcome::SkippedItself { .. } => report.outcome.clone(),
        Outcome::Failed { .. } | Outcome::Errored { .. } | Outcome::NotRun { .. } => {
            // The guest's failure is the main message; the mismatch is added as a warning.
            warnings.extend(mismatches(&kernel.facts, &report.attach));
            report.outcome.clone()
        }
    };
    // The first fault is the outcome of a command that did what it was to do, and else one line of several.
    let is_first_told = matches!(report.outcome, Outcome::Passed);
    let faults = demanded.unwrap_or_default().into_iter().skip(usize::from(is_first_told));
    warnings.extend(faults.map(|fault| fault.line));
    Verdict { warnings, ..Verdict::on(report, outcome) }
}

fn passed(facts: &KernelFacts, info: &CellInfo, report: &CellReport) -> Outcome {
    let fail = |kind, message| Outcome::Failed { kind, message };
    if let Some(mismatch) = mismatches(facts, &report.attach).into_iter().next() {
        return fail(FailureKind::AttachMismatch, mismatch);
    }
    if let Some(request) = info.attach
        && !report.attach.iter().any(|record| record.requested == request)
    {
        let message = if report.attach.is_empty() {
            "the cell passed, but the kernel lists none of its attachments".to_owned()
        } else {
            format!("none of the attachments that the kernel lists was requested as {request}")
        };
        return fail(FailureKind::AttachMismatch, message);
    }
    if let (Some(request), Some(device)) = (info.attach, info.device)
        && !report.attach.iter().any(|record| record.requested == request && record.device == device.into())
    {
        let message = format!("none of the attachments that the kernel reports is on the {device} device of the cell");
        return fail(FailureKind::AttachMismatch, message);
    }
    if let Some(record) = report.attach.iter().find(|record| record.ran == Some(0)) {
        return fail(FailureKind::Check, format!("{}: the program never ran", place(record)));
    }
    if let Some(check) = report.checks.iter().find(|check| !check.ok) {
        return fail(FailureKind::Check, format!("{}: {} (reported as passed)", check.name, check.seen));
    }
    Outcome::Passed
}

fn place(record: &AttachRecord) -> String {
    let hook = record.hook.map_or_else(|| record.requested.name(), |hook| hook.name());
    format!("{} ({}) {hook}, prog {}", record.interface, record.device, record.prog_id)
}

/// One line per attachment whose type or place differs from the plan.
fn mismatches(facts: &KernelFacts, records: &[AttachRecord]) -> Vec<String> {
    let wrong = |record: &AttachRecord| {
        let wanted = required_attach(facts, record.requested, record.device);
        let hook_agrees = record.hook.is_some_and(|hook| Some(hook.attach_type()) == record.used);
        // The kernel gives the first program the id 1.
        if record.used == Some(wanted) && hook_agrees && record.prog_id != 0 {
            return None;
        }
        let seen = match (record.used, record.hook) {
            (None, _) => "the kernel does not list the program".to_owned(),
            (Some(used), None) => {
                format!("the agent reports {used} without the hook at which the kernel lists the program")
            }
            (Some(used), Some(_)) if used == wanted && record.prog_id == 0 => {
                format!("the agent reports {used} without the id by which the kernel lists the program")
            }
            (Some(used), Some(hook)) if hook.attach_type() == used => format!("kernel reports {hook}"),
            (Some(used), Some(hook)) => format!("the agent reports {used} at {hook}"),
        };
        Some(format!("{} ({}): the plan requires {wanted}, {seen}", record.interface, record.device))
    };
    records.iter().filter_map(wrong).collect()
}

/// Capabilities for which a cell may skip without declaring them: nearly every cell uses them, and only a kernel without
/// IPv6, or one whose modules are not there, lacks them. Any other undeclared skip is a hole in the plan, and fails.
const FOUND_WHILE_RUNNING: [Capability; 5] =
    [Capability::Ipv6, Capability::Veth, Capability::Dummy, Capability::Bridge, Capability::Clsact];

fn skipped(facts: &KernelFacts, info: &CellInfo, reason: &SkipReason, warnings: &mut Vec<String>) -> Outcome {
    if facts.must_have(reason.capability) {
        let since = reason.capability.since();
        if let Some(backport) = facts.backport(reason.capability) {
            let message = format!(
                "no {} on kernel {}, which must have it ({}): {}; if the kernel does not have it, remove it from `has` of \
                 [kernels.\"{}\"] in kernels.toml",
                reason.capability, facts.version, backport.reason, reason.detail, facts.id
            );
            return Outcome::Failed { kind: FailureKind::MissingCapability, message };
        }
        return Outcome::Failed {
            kind: FailureKind::MissingCapability,
            message: format!(
                "no {} on kernel {}, which must have it since {} ({}): {}; if this kernel is built without it, list it \
                 under `unsupported` of [kernels.\"{}\"] in kernels.toml",
                reason.capability,
                facts.version,
                since.lifted_by(facts.version),
                since.source,
                reason.detail,
                facts.id
            ),
        };
    }
    if !info.requires.contains(&reason.capability) {
        let undeclared = format!("skipped for {}, which the cell does not declare as required", reason.capability);
        if !FOUND_WHILE_RUNNING.contains(&reason.capability) {
            let message = format!("{undeclared}: {}", reason.detail);
            return Outcome::Failed { kind: FailureKind::MissingCapability, message };
        }
        warnings.push(undeclared);
    }
    Outcome::Skipped { reason: reason.clone() }
}

/// Differences between a kernel's probes and the plan, one line each; they do not change a verdict.
pub fn probe_warnings(facts: &KernelFacts, probes: &[CapabilityReport]) -> Vec<String> {
    let warning = |probe: &CapabilityReport| {
        let supported = probe.state == CapabilityState::Supported;
        match facts.unsupported(probe.capability) {
            Some(_) if supported => Some(format!(
                "kernels.toml lists {} as unsupported on {}, but its probe found it supported: remove the entry",
                probe.capability, facts.id
            )),
            None if !supported && facts.must_have(probe.capability) => Some(format!(
                "{} is missing on {}, which must have it ({}): {}",
                probe.capability,
                facts.version,
                probe.state.words(),
                probe.detail
            )),
            None if supported && !facts.must_have(probe.capability) && facts.believe_probes.is_none() => Some(format!(
                "{} is supported on {} although mainline only has it since {}: if it was backported, list it under `has` of \
                 [kernels.\"{}\"] in kernels.toml",
                probe.capability,
                facts.version,
                probe.capability.since().lifted_by(facts.version),
                facts.id
            )),
            _ => None,
        }
    };
    probes.iter().filter_map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_protocol::{AttachRequest, AttachType, Check, DeviceKind, Hook};
    use lab_record::{
        plan::{Plan, Unsupported},
        testing::{attached, cell, facts, passed},
    };

    const ID: &str = "A04-auto[auto,nk-l3]";

    fn verdict_on(version: &str, unsupported: Vec<Unsupported>, report: CellReport) -> Verdict {
        let mut facts = facts("k", version);
        facts.unsupported = unsupported;
        let plan = Plan::new(vec![facts], vec![cell(ID)], true);
        against_plan(&plan.kernels[0], &plan.cells[0], report)
    }

    fn message(version: &str, report: CellReport) -> String {
        verdict_on(version, Vec::new(), report).outcome.message()
    }

    fn auto(used: AttachType) -> AttachRecord {
        attached(AttachRequest::Auto, DeviceKind::NetkitL3, used)
    }

    #[test]
    fn a_pass_needs_the_attach_type_that_the_plan_requires() {
        assert_eq!(message("6.12.43", passed(ID, vec![auto(AttachType::Netkit)])), "");
        assert_eq!(
            message("6.12.43", passed(ID, vec![auto(AttachType::Tcx)])),
            "attach-mismatch: eth0 (nk-l3): the plan requires netkit, kernel reports tcx/ingress"
        );
        assert_eq!(
            message("6.1.170", passed(ID, vec![auto(AttachType::Tcx)])),
            "attach-mismatch: eth0 (nk-l3): the plan requires tc, kernel reports tcx/ingress"
        );
        let nowhere = AttachRecord { used: None, hook: None, ..auto(AttachType::Netkit) };
        assert_eq!(
            message("6.12.43", passed(ID, vec![nowhere])),
            "attach-mismatch: eth0 (nk-l3): the plan requires netkit, the kernel does not list the program"
        );
        let without_hook = AttachRecord { hook: None, ..auto(AttachType::Netkit) };
        assert_eq!(
            message("6.12.43", passed(ID, vec![without_hook])),
            "attach-mismatch: eth0 (nk-l3): the plan requires netkit, the agent reports netkit without the hook at which the kernel \
             lists the program"
        );
        let without_id = AttachRecord { prog_id: 0, ..auto(AttachType::Netkit) };
        assert_eq!(
            message("6.12.43", passed(ID, vec![without_id])),
            "attach-mismatch: eth0 (nk-l3): the plan requires netkit, the agent reports netkit without the id by which the kernel \
             lists the program"
        );
        let lie = AttachRecord { hook: Some(Hook::TcxEgress), ..auto(AttachType::Netkit) };
        assert_eq!(
            message("6.12.43", passed(ID, vec![lie])),
            "attach-mismatch: eth0 (nk-l3): the plan requires netkit, the agent reports netkit at tcx/egress"
        );
    }

    #[test]
    fn a_pass_needs_an_attachment_and_a_program_that_ran() {
        assert_eq!(
            message("6.12.43", passed(ID, Vec::new())),
            "attach-mismatch: the cell passed, but the kernel lists none of its attachments"
        );
        let other = attached(AttachRequest::Tcx, DeviceKind::Veth, AttachType::Tcx);
        assert_eq!(
            message("6.12.43", passed(ID, vec![other])),
            "attach-mismatch: none of the attachments that the kernel lists was requested as auto"
        );
        // The cell's own request on another device, and another request on the cell's device.
        let elsewhere = attached(AttachRequest::Auto, DeviceKind::Veth, AttachType::Tcx);
        let beside = attached(AttachRequest::Netkit, DeviceKind::NetkitL3, AttachType::Netkit);
        assert_eq!(
            message("6.12.43", passed(ID, vec![elsewhere, beside])),
            "attach-mismatch: none of the attachments that the kernel reports is on the nk-l3 device of the cell"
        );
        let idle = AttachRecord { ran: Some(0), ..auto(AttachType::Netkit) };
        assert_eq!(
            message("6.12.43", passed(ID, vec![idle])),
            "check: eth0 (nk-l3) netkit/peer, prog 7: the program never ran"
        );
        let mut contradiction = passed(ID, vec![auto(AttachType::Netkit)]);
        contradiction.checks.push(Check { name: "udp arrives".to_owned(), ok: false, seen: "0 of 5".to_owned() });
        assert_eq!(message("6.12.43", contradiction), "check: udp arrives: 0 of 5 (reported as passed)");
    }

    #[test]
    fn a_skip_needs_an_older_kernel_or_an_unsupported_entry() {
        let reason = SkipReason {
            capability: Capability::Netkit,
            detail: "RTM_NEWLINK: EOPNOTSUPP".to_owned(),
            lifted_by: "6.7".parse().unwrap(),
        };
        let skip = CellReport { outcome: Outcome::Skipped { reason: reason.clone() }, ..passed(ID, Vec::new()) };
        assert_eq!(
            message("6.1.170", skip.clone()),
            "missing-capability: skipped for netkit, which the cell does not declare as required: RTM_NEWLINK: EOPNOTSUPP"
        );
        let plan = Plan::new(
            vec![facts("k", "6.1.170")],
            vec![CellInfo { requires: vec![Capability::Netkit], ..cell(ID) }],
            true,
        );
        let old = against_plan(&plan.kernels[0], &plan.cells[0], skip.clone());
        assert_eq!(old.outcome, Outcome::Skipped { reason });
        assert_eq!(old.warnings, [""; 0]);
        assert_eq!(
            message("6.12.43", skip.clone()),
            "missing-capability: no netkit on kernel 6.12.43, which must have it since 6.7 (netkit, bpf: Add bpf \
             programmable net device): RTM_NEWLINK: EOPNOTSUPP; if this kernel is built without it, list it under \
             `unsupported` of [kernels.\"k\"] in kernels.toml"
        );
        let entry = Unsupported { capability: Capability::Netkit, reason: "not set".to_owned() };
        let mut without = facts("k", "6.12.43");
        without.unsupported = vec![entry];
        let declared = CellInfo { requires: vec![Capability::Netkit], ..cell(ID) };
        let plan = Plan::new(vec![without], vec![declared], true);
        assert_eq!(against_plan(&plan.kernels[0], &plan.cells[0], skip).outcome.word(), "skipped");
    }

    #[test]
    fn a_failure_stays_and_the_mismatch_is_told_beside_it() {
        let failed = CellReport {
            outcome: Outcome::Failed { kind: FailureKind::Check, message: "lost".to_owned() },
            ..passed(ID, vec![auto(AttachType::Tcx)])
        };
        let verdict = verdict_on("6.12.43", Vec::new(), failed);
        assert_eq!(verdict.outcome.message(), "check: lost");
        assert_eq!(verdict.warnings, ["eth0 (nk-l3): the plan requires netkit, kernel reports tcx/ingress"]);
    }

    #[test]
    fn probes_that_contradict_version_or_unsupported_entry_are_told() {
        let probe = |capability, state| CapabilityReport { capability, state, detail: "EINVAL".to_owned() };
        let mut facts = facts("k", "6.12.43");
        facts.unsupported = vec![Unsupported { capability: Capability::Netkit, reason: "off".to_owned() }];
        let probes = [
            probe(Capability::Netkit, CapabilityState::Supported),
            probe(Capability::Tcx, CapabilityState::ConfigOff),
            probe(Capability::NetkitSingle, CapabilityState::Supported),
            probe(Capability::NetkitHeadroom, CapabilityState::TooOld),
        ];
        assert_eq!(
            probe_warnings(&facts, &probes),
            [
                "kernels.toml lists netkit as unsupported on k, but its probe found it supported: remove the entry",
                "tcx is missing on 6.12.43, which must have it (config off): EINVAL",
                "netkit-single is supported on 6.12.43 although mainline only has it since 7.1: if it was backported, list it under `has` of \
                 [kernels.\"k\"] in kernels.toml",
            ]
        );
    }
}
