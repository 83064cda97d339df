//! Processor architectures, by the names that other programs have for them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The architecture of a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Architecture {
    /// That of the lab itself.
    #[default]
    #[serde(rename = "amd64")]
    X86_64,
    #[serde(rename = "arm64")]
    Arm64,
}

impl Architecture {
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Arm64];

    /// Debian's name, which configuration files use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The kernel's name (`uname -m`), which QEMU and rustc use too.
    pub const fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// The architecture with Debian's name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Whether it is the lab's own: only its programs run on the host.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde needs")]
    pub fn is_own(&self) -> bool {
        *self == Self::X86_64
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_is_written_as_it_is_read() {
        for it in Architecture::ALL {
            assert_eq!(Architecture::named(it.name()), Some(it));
            assert_eq!(serde_json::to_string(&it).unwrap(), format!("\"{it}\""));
        }
        assert_eq!(Architecture::named("x86_64"), None);
        assert!(Architecture::default().is_own() && !Architecture::Arm64.is_own());
    }
}
