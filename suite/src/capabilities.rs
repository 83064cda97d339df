//! What this kernel can do, probed once per guest.

use lab_protocol::{Capability, CapabilityReport, CapabilityState, KernelVersion, SkipReason};

/// The probes' answers.
#[derive(Debug)]
pub struct Capabilities {
    kernel: KernelVersion,
    reports: Vec<CapabilityReport>,
}

impl Capabilities {
    /// From finished probes.
    pub fn new(kernel: KernelVersion, reports: Vec<CapabilityReport>) -> Self {
        Self { kernel, reports }
    }

    /// All answers.
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
}
