//! The list of modules that the suite needs.

use crate::{error::ImageError, profile::Profile};
use serde::Deserialize;
use std::collections::BTreeSet;

/// Module names in load order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleList {
    names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    module: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    reason: String,
    /// Set if only this profile needs the module.
    profile: Option<Profile>,
}

impl ModuleList {
    /// The committed list, `images/modules.toml`, for a profile.
    ///
    /// # Panics
    /// Never: a test parses the file.
    pub fn committed(profile: Profile) -> Self {
        Self::parse(include_str!("../modules.toml"), profile).expect("a test parses the committed file")
    }

    /// Parses a list of `[[module]]` tables with `name`, `reason` and optionally `profile`, if only one profile needs the
    /// module.
    ///
    /// # Errors
    /// [`ImageError::Wanted`] for other keys, a module without a reason, a module that is listed twice, or an invalid name.
    pub fn parse(text: &str, profile: Profile) -> Result<Self, ImageError> {
        let file: File = toml::from_str(text)
            .map_err(|error| ImageError::Wanted(error.to_string().trim_end().replace('\n', " ")))?;
        let mut seen = BTreeSet::new();
        for Entry { name, reason, .. } in &file.module {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let problem = if name.is_empty() || !name.chars().all(word) {
                "is not a module's name (letters, digits and `_`)"
            } else if reason.trim().is_empty() {
                "has no reason"
            } else if !seen.insert(name.as_str()) {
                "is listed twice"
            } else {
                continue;
            };
            return Err(ImageError::Wanted(format!("`{name}` {problem}")));
        }
        let needed = file.module.into_iter().filter(|entry| entry.profile.is_none_or(|only| only == profile));
        Ok(Self { names: needed.map(|entry| entry.name).collect() })
    }

    /// The names in load order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_list_loads_the_port_first() {
        for profile in [Profile::Suite, Profile::Shell] {
            let wanted = ModuleList::committed(profile);
            assert_eq!(wanted.names().take(2).collect::<Vec<_>>(), ["virtio_pci", "virtio_console"]);
            assert!(wanted.names().any(|name| name == "overlay"), "{profile:?}");
        }
    }

    #[test]
    fn unknown_keys_and_invalid_names_are_refused() {
        for (text, wanted) in [
            ("[[module]]\nname = \"veth\"\nreason = \"\"", "modules.toml: `veth` has no reason"),
            (
                "[[module]]\nname = \"../veth\"\nreason = \"x\"",
                "modules.toml: `../veth` is not a module's name (letters, digits and `_`)",
            ),
            (
                "[[module]]\nname = \"a\"\nreason = \"x\"\n[[module]]\nname = \"a\"\nreason = \"x\"",
                "modules.toml: `a` is listed twice",
            ),
        ] {
            assert_eq!(ModuleList::parse(text, Profile::Suite).unwrap_err().to_string(), wanted);
        }
        assert!(ModuleList::parse("[[module]]\nname = \"a\"\nreason = \"x\"\nwhy = 1", Profile::Suite).is_err());
    }
}
