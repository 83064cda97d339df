//! Types of checks and their results.

use super::host::Host;
use super::private::PackageSet;

/// The purpose for which a machine is made ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Running the lab.
    #[default]
    Runs,
    /// Running the lab's own tests too.
    Tests,
    /// Building kernels too.
    Builds,
    /// Running guests of arm64 too.
    Arm64,
}

/// Something that the lab needs.
#[derive(Clone, Copy)]
pub struct SetupCheck {
    /// Short name, as shown in the table.
    pub name: &'static str,
    /// What it is needed for.
    pub why: &'static str,
    /// Checks the facts about the host.
    pub probe: fn(&Host) -> CheckState,
    /// How to install it.
    pub fix: Fix,
}

/// How to install what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fix {
    /// Debian packages; on other distributions the user must provide the named commands.
    Packages {
        /// Debian package names.
        packages: &'static [&'static str],
        /// The commands of these packages, to look for on other distributions.
        commands: &'static [&'static str],
        /// The set that is unpacked into the cache instead; `None` if the packages must be installed.
        set: Option<&'static PackageSet>,
    },
    /// Packages that are unpacked into the cache, whether the host has them or not.
    Unpack(&'static PackageSet),
    /// virtme-ng in a virtual environment of the cache.
    VirtmeNg,
    /// bpf-linker, built into the cache.
    BpfLinker,
    /// The programs that the project's tests start, installed into the cache.
    TestTools,
    /// cargo-deny, built into the cache.
    CargoDeny,
    /// Setup cannot install it.
    ByHand,
}

/// Result of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckState {
    /// Usable.
    Ok {
        /// What was found, usually a version.
        found: String,
    },
    /// Usable, with a known weakness.
    Warn {
        /// What was found.
        found: String,
        /// How to improve it.
        advice: String,
    },
    /// Too old or broken, and only the user can fix it.
    Unfit {
        /// What was found.
        found: String,
        /// What to do.
        advice: String,
    },
    /// Missing.
    Missing {
        /// Names of the missing packages or commands.
        absent: Vec<&'static str>,
    },
}
