//! Checks what the lab needs on this machine: one list of checks; `lab doctor` reports them, `lab setup` fixes them.
//! Probes change nothing and take a fraction of a second together. A program of the host is used if its version is
//! sufficient; everything else is unpacked from the distribution's packages into the cache, or built there, so that the
//! host is not changed. Only the C compiler and the tools for the tests are installed on the host.

mod apply;
mod apt;
mod catalogue;
mod check;
mod distribution;
mod error;
mod host;
mod look;
mod private;
mod program;
mod progress;
mod report;
mod test_tools;
#[cfg(test)]
mod tests;
mod tools;

pub use apply::{InstallPlace, arm64_on_demand, on_demand, setup};
pub use check::Purpose;
pub use error::SetupError;
pub use private::UnpackedSet;
pub use program::QEMU_VARIABLE;
pub use report::{SetupFinding, SetupReport};
pub use test_tools::TestTools;
pub use tools::{Tools, VIRTME_NG_VERSION};

use host::Host;

/// Checks this machine and changes nothing.
///
/// # Errors
/// [`SetupError::Cache`] if no cache directory is known, [`SetupError::Untrusted`] if other users can write to it.
pub fn doctor(purpose: Purpose) -> Result<SetupReport, SetupError> {
    let cache = lab_base::paths::cache_dir()?;
    lab_guard::private::check(&cache)?;
    let tools = Tools::in_cache(&cache);
    Ok(SetupReport::of(&Host::look(&tools), purpose))
}
