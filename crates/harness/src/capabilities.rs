//! Capabilities of this kernel, probed once per guest.

use lab_protocol::{Capability, CapabilityReport, CapabilityState, KernelVersion, Since, SkipReason, Stated};

/// The probe results, with the kernel's version.
#[derive(Debug)]
pub struct Capabilities {
    kernel: KernelVersion,
    reports: Vec<CapabilityReport>,
    stated: Stated,
}

impl Capabilities {
    /// Creates it from probe results.
    pub fn new(kernel: KernelVersion, reports: Vec<CapabilityReport>) -> Self {
        Self { kernel, reports, stated: Stated::default() }
    }

    /// Adds the corrections of `kernels.toml` for the kernel.
    #[must_use]
    pub fn stated(mut self, stated: Stated) -> Self {
        self.stated = stated;
        self
    }

    /// Whether this kernel must have a capability, by its version and the corrections in `kernels.toml`. A kernel
    /// whose probes decide must only have the stated capabilities.
    pub fn is_known_for(&self, capability: Capability) -> bool {
        if self.stated.believe_probes {
            return self.has(capability);
        }
        let by_version = capability.since().expected_on(self.kernel) || self.stated.has.contains(&capability);
        by_version && !self.stated.lacks.contains(&capability)
    }

    /// Whether the kernel has a change that is not probed; `None` if its version does not decide that.
    pub fn has_change(&self, since: &Since) -> Option<bool> {
        (!self.stated.believe_probes).then(|| since.expected_on(self.kernel))
    }

    /// The answers of all probes, in the order of [`Capability::ALL`].
    pub fn reports(&self) -> &[CapabilityReport] {
        &self.reports
    }

    /// The kernel's version, only for expectations that are facts about releases, never for detection.
    pub fn kernel(&self) -> KernelVersion {
        self.kernel
    }

    /// Whether a probe found the capability.
    pub fn has(&self, capability: Capability) -> bool {
        self.reports.iter().any(|report| report.capability == capability && report.state == CapabilityState::Supported)
    }

    /// Returns an error if the kernel lacks the capability.
    ///
    /// # Errors
    /// The reason for a skip, with the probe result.
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

    /// The reason for a skip after an unexpected error: the kernel has no such driver, and a probe has found that
    /// its module is missing. If no module is missing, the error remains a failure.
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
    fn an_error_is_a_skip_only_if_a_probe_found_the_module_missing() {
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

    #[test]
    fn what_is_stated_of_a_kernel_precedes_its_version() {
        let on = |version: &str, stated: Stated| {
            let tcx = |state| CapabilityReport { capability: Capability::Tcx, state, detail: String::new() };
            let capabilities = Capabilities::new(version.parse().unwrap(), vec![tcx(CapabilityState::Supported)]);
            capabilities.stated(stated).is_known_for(Capability::Tcx)
        };
        let (none, tcx) = (Stated::default, || vec![Capability::Tcx]);
        // tcx came with 6.6.
        assert_eq!((on("6.6.0", none()), on("6.5.0", none())), (true, false));
        assert!(on("6.5.0", Stated { has: tcx(), ..none() }), "one that was brought to an older kernel");
        assert!(!on("6.6.0", Stated { lacks: tcx(), ..none() }), "one that a newer kernel was built without");
        assert!(on("6.5.0", Stated { believe_probes: true, ..none() }), "the probe found it");
    }
}
