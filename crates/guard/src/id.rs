//! Ids of kernels and runs, which become file names.
//!
//! Ids are read from results and configuration that may come from other people, so a type checks them when it is
//! created. A valid id is one harmless path component and can be printed unchanged.

use serde::{Deserialize, Serialize};
use std::{borrow::Borrow, fmt, ops::Deref, path::Path, str::FromStr, sync::Arc};

/// Longest name, bytes: with a suffix it still fits into a file's name (`NAME_MAX` is 255).
const LONGEST: usize = 200;

/// The name of a kernel or of a run: letters, digits, `.`, `_`, `+` and `-`, and neither `.` nor `-` first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(Arc<str>);

/// The text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a valid name of a kernel or a run: use 1 to {LONGEST} letters, digits, `.`, `_`, `+` and `-`, beginning with a letter, \
     a digit or `_`"
)]
pub struct NotAnId(String);

impl Id {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NotAnId`].
    pub fn new(text: &str) -> Result<Self, NotAnId> {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if first && text.len() <= LONGEST && text.bytes().all(inside) {
            return Ok(Self(text.into()));
        }
        Err(NotAnId(text.chars().take(LONGEST).collect()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        Self::new(text)
    }
}

impl TryFrom<String> for Id {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<Self, NotAnId> {
        Self::new(&text)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl Deref for Id {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Id {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl AsRef<Path> for Id {
    fn as_ref(&self) -> &Path {
        Path::new(&*self.0)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl PartialEq<str> for Id {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Id {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl PartialEq<String> for Id {
    fn eq(&self, other: &String) -> bool {
        &*self.0 == other
    }
}

/// A file of a run, as a path relative to the run's directory that can't leave it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Inside(Arc<str>);

/// The text is not a path inside a run's directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a valid path of a file in a run: use components of letters, digits, `.`, `_`, `+` and `-`, joined by `/`"
)]
pub struct NotInside(String);

impl Inside {
    /// Checks a path.
    ///
    /// # Errors
    /// [`NotInside`].
    pub fn new(text: &str) -> Result<Self, NotInside> {
        if text.len() <= 8 * LONGEST && text.split('/').all(|part| Id::new(part).is_ok()) {
            return Ok(Self(text.into()));
        }
        Err(NotInside(text.chars().take(LONGEST).collect()))
    }
}

impl TryFrom<String> for Inside {
    type Error = NotInside;

    fn try_from(text: String) -> Result<Self, NotInside> {
        Self::new(&text)
    }
}

impl From<Inside> for String {
    fn from(path: Inside) -> Self {
        path.0.as_ref().to_owned()
    }
}

impl Deref for Inside {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Inside {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<Path> for Inside {
    fn as_ref(&self) -> &Path {
        Path::new(&*self.0)
    }
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_printable_path_component() {
        for good in ["6.12", "7.2-rc1", "newest", "20261126T005127Z-a1b2c3", "_x", "a+b", &"x".repeat(LONGEST)] {
            assert_eq!(Id::new(good).unwrap(), *good);
        }
        let long = "x".repeat(LONGEST + 1);
        for bad in
            ["", ".", "..", ".x", "-x", "a/b", "../evil", "/etc", "a b", "a\n", "\u{1b}[2J", "ä", "a\u{202e}b", &long]
        {
            assert!(Id::new(bad).is_err(), "{bad:?}");
        }
        let error = Id::new("../e\u{1b}[2J\u{202e}").unwrap_err().to_string();
        assert!(error.starts_with(r#""../e\u{1b}[2J\u{202e}" is not a valid name"#), "{error}");
    }

    #[test]
    fn a_path_cannot_leave_the_runs_directory() {
        assert_eq!(&*Inside::new("6.1/cells/T01-x/w0.pcap").unwrap(), "6.1/cells/T01-x/w0.pcap");
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "a/./b", "a\\b", "a/b\u{1b}"] {
            assert!(Inside::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn invalid_names_and_paths_are_not_deserialized() {
        assert_eq!(serde_json::from_str::<Id>("\"6.12\"").unwrap(), "6.12");
        assert_eq!(serde_json::to_string(&Id::new("6.12").unwrap()).unwrap(), "\"6.12\"");
        assert!(serde_json::from_str::<Id>("\"../evil\"").is_err());
        assert!(serde_json::from_str::<Inside>("\"a/../../b\"").is_err());
    }
}
