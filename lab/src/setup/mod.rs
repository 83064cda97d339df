//! What the lab needs on this machine: one list of checks, reported by `lab doctor` and mended by `lab setup`.
//!
//! Probes only look, and together cost a fraction of a second, so that every run can afford them. What the host has in a
//! version that serves is used; everything else is unpacked from the distribution's packages into the cache, or built
//! there, where it cannot disturb the host. Only the C compiler is installed, and what only the tests need.

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

pub use apply::{InstallPlace, setup};
pub use check::Purpose;
pub use error::SetupError;
pub use program::QEMU_VARIABLE;
pub use report::{SetupFinding, SetupReport};
pub use test_tools::TestTools;
pub use tools::{Tools, VIRTME_NG_VERSION};

use host::Host;

/// Looks at this machine and changes nothing.
///
/// # Errors
/// [`SetupError::Cache`] where no cache directory is known, [`SetupError::Untrusted`] where others could change what is in it.
pub fn doctor(purpose: Purpose) -> Result<SetupReport, SetupError> {
    let cache = lab_base::paths::cache_dir()?;
    lab_guard::private::check(&cache)?;
    let tools = Tools::in_cache(&cache);
    Ok(SetupReport::of(&Host::look(&tools), purpose))
}
