//! Formats the changes of `lab kernels update` for a review together with the diff of `kernels.lock`.

use super::{class::KernelClass, source::Locked};
use std::fmt;

/// Result of an update.
#[derive(Debug, Default)]
pub struct Update {
    /// Changed entries of the lock.
    pub changes: Vec<LockChange>,
    /// Kernels that the archive no longer has, one line each; their entries are unchanged.
    pub gone: Vec<String>,
}

/// A changed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockChange {
    pub id: String,
    /// Its class; `None` if the kernel is no longer in `kernels.toml`.
    pub class: Option<KernelClass>,
    /// The old entry; `None` if the kernel is new.
    pub before: Option<Locked>,
    /// The new entry; `None` if the kernel was removed from `kernels.toml` or became a `path` source.
    pub after: Option<Locked>,
}

impl fmt::Display for LockChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.id)?;
        match (&self.before, &self.after) {
            (None, None) => Ok(()),
            (None, Some(after)) => write!(f, "new, {after}"),
            (Some(before), None) => write!(f, "removed, was {before}"),
            (Some(before), Some(after)) => match (before.to_string(), after.to_string()) {
                (before, after) if before != after => write!(f, "{before} -> {after}"),
                (_, words) => write!(f, "{words}, {}", after.get().difference(before)),
            },
        }
    }
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut classes: Vec<Option<&KernelClass>> = self.changes.iter().map(|change| change.class.as_ref()).collect();
        // Predefined classes first; last the removed kernels, which have no class.
        classes.sort_by_key(|class| (class.is_none(), *class));
        classes.dedup();
        for class in classes {
            let changes = self.changes.iter().filter(|change| change.class.as_ref() == class);
            writeln!(f, "{}", class.map_or("no longer in kernels.toml", KernelClass::name))?;
            changes.into_iter().try_for_each(|change| writeln!(f, "  {change}"))?;
        }
        for line in &self.gone {
            writeln!(f, "unchanged: {line}")?;
        }
        match self.changes.len() {
            0 => writeln!(f, "kernels.lock is up to date"),
            1 => writeln!(f, "kernels.lock: 1 entry changed; review and commit it"),
            count => writeln!(f, "kernels.lock: {count} entries changed; review and commit them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{LockedDeb, PackagePart};

    fn deb(version: &str, sha256: &str, parts: &[(&str, &str)]) -> Option<Locked> {
        let parts =
            parts.iter().map(|(name, sha256)| PackagePart { package: (*name).into(), sha256: (*sha256).into() });
        Some(Locked::Deb(LockedDeb {
            arch: lab_base::arch::Architecture::default(),
            suite: "sid".into(),
            package: format!("linux-image-{version}-cloud-amd64"),
            version: format!("{version}-1"),
            sha256: sha256.into(),
            kernel: version.parse().unwrap(),
            parts: parts.collect(),
        }))
    }

    #[test]
    fn changes_are_listed_with_their_class() {
        let change = |id: &str, class, before, after| LockChange { id: id.into(), class, before, after };
        let update = Update {
            changes: vec![
                change("6.1", Some(KernelClass::Below67), deb("6.1.192", "aa", &[]), deb("6.1.193", "bb", &[])),
                change(
                    "7.2",
                    Some(KernelClass::From67),
                    deb("7.2.12", "aa", &[("base", "1"), ("modules", "1")]),
                    deb("7.2.12", "aa", &[("modules", "2"), ("binary", "1")]),
                ),
                change("7.3", Some(KernelClass::From67), None, deb("7.3", "aa", &[])),
                change("old", None, deb("6.9", "aa", &[]), None),
                change("same", Some(KernelClass::From67), deb("6.9", "aa", &[]), deb("6.9", "bb", &[])),
            ],
            gone: vec!["kernel 6.16: no package matches".to_owned()],
        };
        insta::assert_snapshot!(update);
        assert_eq!(Update::default().to_string(), "kernels.lock is up to date\n");
    }
}
