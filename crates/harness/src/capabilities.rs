//! What this kernel can do, probed once per guest.

use lab_protocol::{Capability, CapabilityReport, CapabilityState, KernelVersion, Since, SkipReason, Stated};

/// The probes' answers.
#[derive(Debug)]
pub struct Capabilities {
    kernel: KernelVersion,
    reports: Vec<CapabilityReport>,
    stated: Stated,
}

impl Capabilities {
    /// From finished probes.
    pub fn new(kernel: KernelVersion, reports: Vec<CapabilityReport>) -> Self {
        Self { kernel, reports, stated: Stated::default() }
    }

    /// With what `kernels.toml` says of the kernel.
    #[must_use]
    pub fn stated(mut self, stated: Stated) -> Self {
        self.stated = stated;
        self
    }

    /// Whether this kernel is known to have a capability: by its version and by what `kernels.toml` says against that. Of a
    /// kernel whose probes are believed nothing else is known.
    pub fn is_known_for(&self, capability: Capability) -> bool {
        if self.stated.believe_probes {
            return self.has(capability);
        }
        let by_version = capability.since().expected_on(self.kernel) || self.stated.has.contains(&capability);
        by_version && !self.stated.lacks.contains(&capability)
    }

    /// Whether the kernel has a change that no probe asks for; none where its version says nothing.
    pub fn has_change(&self, since: &Since) -> Option<bool> {
        (!self.stated.believe_probes).then(|| since.expected_on(self.kernel))
    }

    /// The answers of all probes, in the order of [`Capability::ALL`].
    pub fn reports(&self) -> &[CapabilityReport] {
        &self.reports
    }

    /// The kernel's version: for expectations that are facts about releases, never for detection.
    pub fn kernel(&self) -> KernelVersion {
        self.kernel
    }

    /// Whether a probe found the capability.
    pub fn has(&self, capability: Capability) -> bool {
        self.reports.iter().any(|report| report.capability == capability && report.state == CapabilityState::Supported)
    }

    /// Passes where the kernel has the capability.
    ///
    /// # Errors
    /// The reason for a skip, with what the probe found.
    pub fn need(&self, capability: Capability) -> Result<(), SkipReason> {
        if self.has(capability) {
            return Ok(());
        }
        let detail = self
            .reports
            .iter()
            .find(|report| report.capability == capability)
            .map_or_else(|| "not probed".into(), |report| format!("{}, {}", report.state.words(), report.detail));
        Err(SkipReason { capability, detail, lifted_by: capability.since().lifted_by(self.kernel) })
    }

    /// The reason for a skip behind an unexpected refusal: the kernel knows no such driver, and the probes have found
    /// before that a module of this sort is missing. On a kernel with its modules the refusal stays a failure.
    pub fn behind(&self, refusal: &str) -> Option<SkipReason> {
        let suspects: &[Capability] = if refusal.contains("Unknown device type") {
            &[Capability::Veth, Capability::Dummy, Capability::Bridge]
        } else if refusal.contains("Specified qdisc kind is unknown") || refusal.contains("TC classifier not found") {
            &[Capability::Clsact]
        } else {
            &[]
        };
        let missing = |report: &&CapabilityReport| {
            report.state == CapabilityState::ModuleMissing && suspects.contains(&report.capability)
        };
        let capability = self.reports.iter().find(missing)?.capability;
        let lifted_by = capability.since().lifted_by(self.kernel);
        Some(SkipReason { capability, detail: refusal.to_owned(), lifted_by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_module_that_a_probe_missed_excuses_a_refusal() {
        let with = |state| {
            let report = CapabilityReport { capability: Capability::Clsact, state, detail: String::new() };
            Capabilities::new("7.1.13".parse().unwrap(), vec![report])
        };
        let refusal =
            "RTM_NEWQDISC clsact ifindex 100: ENOENT: No such file or directory (Specified qdisc kind is unknown)";
        let behind = with(CapabilityState::ModuleMissing).behind(refusal).unwrap();
        assert_eq!((behind.capability, &*behind.detail), (Capability::Clsact, refusal));
        assert_eq!(with(CapabilityState::Supported).behind(refusal), None);
        assert_eq!(with(CapabilityState::ModuleMissing).behind("RTM_NEWLINK x: Unknown device type"), None);
        assert_eq!(with(CapabilityState::ModuleMissing).behind("BPF_LINK_CREATE: EINVAL"), None);
    }
}
