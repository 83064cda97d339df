//! Labels of kernels, by which people select and read them: three are predefined, and any other text is a class of one's own.
//!
//! What depends on a class: `--class`, the groups of `lab kernels update`, the class that reports name, and the recorded
//! durations that split a plan. A predefined one is also compared with the kernel's version. What does not depend on it is the
//! attach type that a kernel must use: that follows from its version and from `unsupported`.

use lab_protocol::KernelVersion;
use std::fmt;

/// Kernel class of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Without netkit: before 6.7 ("netkit, bpf: Add bpf programmable net device"), or built without it.
    Below67,
    /// Has netkit.
    From67,
    /// The series that Ubuntu 25.10 ships: 6.17.
    Ubuntu2510,
    /// A label of the project's own, for kernels of any version.
    Own(String),
}

impl serde::Serialize for Class {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Class {
    /// The predefined classes, oldest kernels first.
    pub const PREDEFINED: [Self; 3] = [Self::Below67, Self::From67, Self::Ubuntu2510];

    /// The name used in `kernels.toml`, on the command line and in reports.
    pub fn name(&self) -> &str {
        match self {
            Self::Below67 => "below-6.7",
            Self::From67 => "6.7+",
            Self::Ubuntu2510 => "25.10",
            Self::Own(name) => name,
        }
    }

    /// The class of this name. One that differs from a predefined one by case or punctuation only is meant to be that one: gives
    /// that one as the error.
    pub(super) fn named(name: &str) -> Result<Self, Self> {
        let bare =
            |name: &str| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        match Self::PREDEFINED.into_iter().find(|class| bare(class.name()) == bare(name)) {
            Some(class) if class.name() == name => Ok(class),
            Some(class) => Err(class),
            None => Ok(Self::Own(name.to_owned())),
        }
    }

    /// The predefined class from which the name of one's own is one edit away, as a slip of the finger is.
    pub(super) fn near(&self) -> Option<Self> {
        let Self::Own(name) = self else { return None };
        Self::PREDEFINED.into_iter().find(|class| lab_base::nearest::is_slip(&name.to_ascii_lowercase(), class.name()))
    }

    /// Whether a kernel of this version belongs to the class, as far as the version tells.
    pub fn holds(&self, version: KernelVersion) -> bool {
        let netkit = KernelVersion::new(6, 7, 0);
        match self {
            Self::Below67 => version < netkit,
            Self::From67 => version >= netkit,
            Self::Ubuntu2510 => (version.major, version.minor) == (6, 17),
            Self::Own(_) => true,
        }
    }

    /// The rule of [`holds`](Self::holds) in words.
    pub(super) const fn rule(&self) -> &'static str {
        match self {
            Self::Below67 => "kernels before 6.7, and later ones with `netkit` listed as unsupported",
            Self::From67 => "kernels from 6.7 on, and earlier ones that have `netkit`",
            Self::Ubuntu2510 => "kernels of the 6.17 series",
            Self::Own(_) => "kernels of any version",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
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
            (Class::Own("mine".to_owned()), "4.19", true),
        ] {
            assert_eq!(class.holds(version.parse().unwrap()), wanted, "{class} {version}");
        }
    }
}
