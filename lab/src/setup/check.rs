//! The vocabulary of checks.

use super::host::Host;
use super::private::PackageSet;

/// What a machine is made ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Running the lab.
    #[default]
    Runs,
    /// Running the lab's own tests too.
    Tests,
    /// Building kernels too.
    Builds,
}

/// One thing the lab needs.
#[derive(Clone, Copy)]
pub struct SetupCheck {
    /// Short name, as shown in the table.
    pub name: &'static str,
    /// What breaks without it.
    pub why: &'static str,
    /// Judges what was seen on the host.
    pub probe: fn(&Host) -> CheckState,
    /// How it comes about.
    pub fix: Fix,
}

/// How a missing thing comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fix {
    /// Debian packages; elsewhere the named commands have to be provided by hand.
    Packages {
        /// Debian package names.
        packages: &'static [&'static str],
        /// The commands that stand for these packages on other distributions.
        commands: &'static [&'static str],
        /// What is unpacked into the cache in their place; `None` where only installed packages serve.
        set: Option<&'static PackageSet>,
    },
    /// virtme-ng in a virtual environment of the cache.
    VirtmeNg,
    /// bpf-linker, built into the cache.
    BpfLinker,
    /// The programs that the project's tests start, installed into the cache.
    TestTools,
    /// cargo-deny, built into the cache.
    CargoDeny,
    /// Nothing that setup could do.
    ByHand,
}

/// What a probe concluded.
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
        /// What would be better.
        advice: String,
    },
    /// There, but too old or broken, in a way that only a person can mend.
    Unfit {
        /// What was found.
        found: String,
        /// What to do.
        advice: String,
    },
    /// Not there.
    Missing {
        /// Package or command names that are absent.
        absent: Vec<&'static str>,
    },
}
