//! The three classes by which a run is read: what a kernel can do decides which attach type it must use.

use lab_protocol::KernelVersion;
use std::{fmt, str::FromStr};

/// Kernel class of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Without netkit: before 6.7 ("netkit, bpf: Add bpf programmable net device"), or built without it.
    Below67,
    /// Has netkit.
    From67,
    /// The series that Ubuntu 25.10 ships: 6.17.
    Ubuntu2510,
}

impl serde::Serialize for Class {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Class {
    /// Every class, oldest kernels first.
    pub const ALL: [Self; 3] = [Self::Below67, Self::From67, Self::Ubuntu2510];

    /// The name used in `kernels.toml`, on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Below67 => "below-6.7",
            Self::From67 => "6.7+",
            Self::Ubuntu2510 => "25.10",
        }
    }

    /// Whether a kernel of this version belongs to the class, judged by the version alone.
    pub fn holds(self, version: KernelVersion) -> bool {
        let netkit = KernelVersion::new(6, 7, 0);
        match self {
            Self::Below67 => version < netkit,
            Self::From67 => version >= netkit,
            Self::Ubuntu2510 => (version.major, version.minor) == (6, 17),
        }
    }

    /// Describes the rule of [`holds`](Self::holds).
    pub(super) const fn rule(self) -> &'static str {
        match self {
            Self::Below67 => "kernels before 6.7, and later ones with `netkit` listed as unsupported",
            Self::From67 => "kernels from 6.7 on, and earlier ones that have `netkit`",
            Self::Ubuntu2510 => "kernels of the 6.17 series",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|class| class.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is not a kernel class (expected: {names})")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_is_6_7() {
        for (class, version, wanted) in [
            (Class::Below67, "6.6.99", true),
            (Class::Below67, "6.7", false),
            (Class::From67, "6.7", true),
            (Class::From67, "6.6.112", false),
            (Class::Ubuntu2510, "6.17.13", true),
            (Class::Ubuntu2510, "6.18", false),
        ] {
            assert_eq!(class.holds(version.parse().unwrap()), wanted, "{class} {version}");
        }
    }
}
