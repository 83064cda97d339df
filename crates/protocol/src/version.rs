//! Kernel versions, compared the way the stable trees are numbered.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// `major.minor.patch` of a kernel. A release candidate counts as its release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KernelVersion {
    /// 6 in 6.12.43.
    pub major: u16,
    /// 12 in 6.12.43.
    pub minor: u16,
    /// 43 in 6.12.43; 0 if the string has none.
    pub patch: u16,
}

impl KernelVersion {
    /// Creates a version from its parts.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// The upstream version: distributions put an ABI number into the release (`6.1.0-56-cloud-amd64`) and the real
    /// version elsewhere (`Debian 6.1.192-2` in `uname -v`).
    ///
    /// `version` is the `uname -v` string; if it has no version, the release is used.
    pub fn from_uname(release: &str, version: &str) -> Option<Self> {
        let hidden = version
            .split_once("Debian ")
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .and_then(|word| word.parse().ok());
        hidden.or_else(|| release.parse().ok())
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.patch == 0 {
            write!(f, "{}.{}", self.major, self.minor)
        } else {
            write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
        }
    }
}

/// The text does not start with `major.minor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAVersion(pub String);

impl fmt::Display for NotAVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a kernel version (expected: major.minor[.patch])", self.0)
    }
}

impl std::error::Error for NotAVersion {}

impl FromStr for KernelVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let error = || NotAVersion(text.chars().take(64).collect());
        let mut parts = text.trim_start_matches('v').splitn(3, '.');
        let mut number = |required: bool| -> Result<u16, NotAVersion> {
            let part = parts.next().unwrap_or("");
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 {
                return if required { Err(error()) } else { Ok(0) };
            }
            part[..digits].parse().map_err(|_| error())
        };
        Ok(Self::new(number(true)?, number(true)?, number(false)?))
    }
}

impl From<KernelVersion> for String {
    fn from(version: KernelVersion) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for KernelVersion {
    type Error = NotAVersion;

    fn try_from(text: String) -> Result<Self, NotAVersion> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_distributions_write() {
        for (release, version, wanted) in [
            ("6.1.0-56-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-10-20)", (6, 1, 192)),
            ("6.12.117+deb12-cloud-amd64", "#1 SMP Debian 6.12.117-1~deb12u1 (2026-11-01)", (6, 12, 117)),
            ("6.17.0-5-generic", "#5-Ubuntu SMP PREEMPT_DYNAMIC", (6, 17, 0)),
            ("7.3-rc7-amd64", "", (7, 3, 0)),
        ] {
            let (major, minor, patch) = wanted;
            assert_eq!(
                KernelVersion::from_uname(release, version),
                Some(KernelVersion::new(major, minor, patch)),
                "{release} {version}"
            );
        }
        assert!("linux".parse::<KernelVersion>().is_err());
        assert!("6".parse::<KernelVersion>().is_err());
        assert!("6.99999999".parse::<KernelVersion>().is_err());
    }

    #[test]
    fn orders_by_number_not_by_text() {
        let v = |text: &str| text.parse::<KernelVersion>().unwrap();
        assert!(v("6.9") < v("6.12"));
        assert!(v("6.12.9") < v("6.12.10"));
        assert_eq!(v("6.12.43").to_string(), "6.12.43");
        assert_eq!(v("v6.6").to_string(), "6.6");
    }
}
