//! Labels of kernels, for selecting them and for reports: three are predefined, and any other text is a project's own
//! class. The class is used by `--class`, in the groups of `lab kernels update`, in reports, and for the recorded
//! durations that split a plan. A predefined class is also compared with the kernel's version. The attach type that a
//! kernel must use does not depend on its class: it follows from its version and from `unsupported`.

use lab_protocol::KernelVersion;
use std::fmt;

/// Kernel class of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KernelClass {
    /// Without netkit: before 6.7 ("netkit, bpf: Add bpf programmable net device"), or built without it.
    Below67,
    /// Has netkit.
    From67,
    /// The series that Ubuntu 25.10 ships: 6.17.
    Ubuntu2510,
    /// A label of the project's own, for kernels of any version.
    Own(String),
}

impl serde::Serialize for KernelClass {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl KernelClass {
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

    /// The class with this name. If it differs from a predefined name only by case or punctuation, it is a typing
    /// error: the predefined name is the error.
    pub(super) fn named(name: &str) -> Result<Self, Self> {
        let bare =
            |name: &str| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        match Self::PREDEFINED.into_iter().find(|class| bare(class.name()) == bare(name)) {
            Some(class) if class.name() == name => Ok(class),
            Some(class) => Err(class),
            None => Ok(Self::Own(name.to_owned())),
        }
    }

    /// The predefined class whose name differs by one edit: probably a typing error.
    pub(super) fn near(&self) -> Option<Self> {
        let Self::Own(name) = self else { return None };
        Self::PREDEFINED.into_iter().find(|class| lab_base::nearest::is_slip(&name.to_ascii_lowercase(), class.name()))
    }

    /// Whether a kernel of this version may belong to the class.
    pub fn holds(&self, version: KernelVersion) -> bool {
        let netkit = KernelVersion::new(6, 7, 0);
        match self {
            Self::Below67 => version < netkit,
            Self::From67 => version >= netkit,
            Self::Ubuntu2510 => (version.major, version.minor) == (6, 17),
            Self::Own(_) => true,
        }
    }

    /// The rule of [`holds`](Self::holds) as text.
    pub(super) const fn rule(&self) -> &'static str {
        match self {
            Self::Below67 => "kernels before 6.7, and later ones with `netkit` listed as unsupported",
            Self::From67 => "kernels from 6.7 on, and earlier ones that have `netkit`",
            Self::Ubuntu2510 => "kernels of the 6.17 series",
            Self::Own(_) => "kernels of any version",
        }
    }
}

/// What the version of a kernel must be, by the class and the capabilities that its entry of `kernels.toml` states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassRule {
    pub class: KernelClass,
    /// Whether it is stated to have no netkit.
    pub lacks_netkit: bool,
    /// Whether it is stated to have netkit.
    pub has_netkit: bool,
    /// Whether its probes are believed and not its version.
    pub believes_probes: bool,
}

impl ClassRule {
    /// Whether a kernel of this version may have the class.
    pub fn fits(&self, version: KernelVersion) -> bool {
        match self.class {
            KernelClass::Below67 if self.has_netkit => false,
            KernelClass::Below67 | KernelClass::From67 if self.believes_probes => true,
            KernelClass::Below67 => self.class.holds(version) || self.lacks_netkit,
            KernelClass::From67 => self.class.holds(version) || self.has_netkit,
            KernelClass::Ubuntu2510 | KernelClass::Own(_) => self.class.holds(version),
        }
    }
}

impl fmt::Display for KernelClass {
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
            (KernelClass::Below67, "6.6.99", true),
            (KernelClass::Below67, "6.7", false),
            (KernelClass::From67, "6.7", true),
            (KernelClass::From67, "6.6.112", false),
            (KernelClass::Ubuntu2510, "6.17.13", true),
            (KernelClass::Ubuntu2510, "6.18", false),
            (KernelClass::Own("mine".to_owned()), "4.19", true),
        ] {
            assert_eq!(class.holds(version.parse().unwrap()), wanted, "{class} {version}");
        }
    }
}
