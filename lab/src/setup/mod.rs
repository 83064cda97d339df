//! What the lab needs on this machine: one list of checks, reported by `lab doctor` and mended by `lab setup`.
//!
//! Probes only look, and together cost a fraction of a second, so that every run can afford them. Packages come from
//! the distribution; virtme-ng and bpf-linker are pinned and live in the cache, where they cannot disturb the host.

mod apply;
mod apt;
mod catalogue;
mod check;
mod error;
mod host;
mod look;
mod path;
mod report;
mod test_tools;
#[cfg(test)]
mod tests;
mod tools;

pub use apply::setup;
pub use check::Purpose;
pub use error::SetupError;
pub use host::{QEMU_VARIABLE, chosen_qemu};
pub use report::{Finding, Report};
pub use test_tools::TestTools;
pub use tools::{Tools, VIRTME_NG_VERSION};

use host::Host;

/// Looks at this machine and changes nothing.
///
/// # Errors
/// [`SetupError::Cache`] where no cache directory is known.
pub fn doctor(purpose: Purpose) -> Result<Report, SetupError> {
    let tools = Tools::in_cache(&lab_base::paths::cache_dir()?);
    Ok(Report::of(&Host::look(&tools), purpose))
}
