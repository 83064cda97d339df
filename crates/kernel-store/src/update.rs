//! Formats the changes of `lab kernels update` for a review together with the diff of `kernels.lock`.

use super::{class::Class, lockfile::Locked};
use std::fmt;

/// Result of an update.
#[derive(Debug, Default)]
pub struct Update {
    /// Changed entries of the lock.
    pub changes: Vec<Change>,
    /// Kernels that the archive no longer has, one line each; their entries are unchanged.
    pub gone: Vec<String>,
}

/// A changed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub id: String,
    /// Its class; `None` if the kernel is no longer in `kernels.toml`.
    pub class: Option<Class>,
    /// The old entry; `None` if the kernel is new.
    pub before: Option<Locked>,
    /// The new entry; `None` if the kernel was removed from `kernels.toml` or became a `path` source.
    pub after: Option<Locked>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.id)?;
        match (&self.before, &self.after) {
            (None, None) => Ok(()),
            (None, Some(after)) => write!(f, "new, {after}"),
            (Some(before), None) => write!(f, "removed, was {before}"),
            (Some(before), Some(after)) => match (before.to_string(), after.to_string()) {
                (before, after) if before != after => write!(f, "{before} -> {after}"),
                (_, words) => write!(f, "{words}, {}", difference(before, after)),
            },
        }
    }
}

/// Changes of an entry with the same name and version.
fn difference(before: &Locked, after: &Locked) -> String {
    let (Locked::Deb { parts: old, sha256: was, .. }, Locked::Deb { parts: new, sha256: is, .. }) = (before, after)
    else {
        return "the same version with a different checksum".to_owned();
    };
    let mut told = Vec::new();
    if was != is {
        told.push("the package has a different checksum".to_owned());
    }
    for part in new {
        match old.iter().find(|it| it.package == part.package) {
            None => told.push(format!("with {}", part.package)),
            Some(it) if it.sha256 != part.sha256 => told.push(format!("different checksum of {}", part.package)),
            Some(_) => {}
        }
    }
    let lost = old.iter().filter(|part| !new.iter().any(|it| it.package == part.package));
    told.extend(lost.map(|part| format!("without {}", part.package)));
    if told.is_empty() { "other fields of the entry differ".to_owned() } else { format!("the same version: {}", told.join(", ")) }
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut classes: Vec<Option<&Class>> = self.changes.iter().map(|change| change.class.as_ref()).collect();
        // Predefined classes first; last the removed kernels, which have no class.
        classes.sort_by_key(|class| (class.is_none(), *class));
        classes.dedup();
        for class in classes {
            let changes = self.changes.iter().filter(|change| change.class.as_ref() == class);
            writeln!(f, "{}", class.map_or("no longer in kernels.toml", Class::name))?;
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
    use crate::lockfile::Part;

    fn deb(version: &str, sha256: &str, parts: &[(&str, &str)]) -> Option<Locked> {
        let parts = parts.iter().map(|(name, sha256)| Part { package: (*name).into(), sha256: (*sha256).into() });
        Some(Locked::Deb {
            suite: "sid".into(),
            package: format!("linux-image-{version}-cloud-amd64"),
            version: format!("{version}-1"),
            sha256: sha256.into(),
            kernel: version.parse().unwrap(),
            parts: parts.collect(),
        })
    }

    #[test]
    fn changes_are_listed_with_their_class() {
        let change = |id: &str, class, before, after| Change { id: id.into(), class, before, after };
        let update = Update {
            changes: vec![
                change("6.1", Some(Class::Below67), deb("6.1.192", "aa", &[]), deb("6.1.193", "bb", &[])),
                change(
                    "7.2",
                    Some(Class::From67),
                    deb("7.2.12", "aa", &[("base", "1"), ("modules", "1")]),
                    deb("7.2.12", "aa", &[("modules", "2"), ("binary", "1")]),
                ),
                change("7.3", Some(Class::From67), None, deb("7.3", "aa", &[])),
                change("old", None, deb("6.9", "aa", &[]), None),
                change("same", Some(Class::From67), deb("6.9", "aa", &[]), deb("6.9", "bb", &[])),
            ],
            gone: vec!["kernel 6.16: no package matches".to_owned()],
        };
        insta::assert_snapshot!(update);
        assert_eq!(Update::default().to_string(), "kernels.lock is up to date\n");
    }
}
