//! Ranges of kernel versions.

use lab_protocol::{KernelVersion, NotAVersion};
use std::str::FromStr;

/// Bounds that must all be satisfied: `>=6.7, <6.12`, or a series: `6.12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRange(Vec<Bound>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    From(KernelVersion),
    After(KernelVersion),
    UpTo(KernelVersion),
    Before(KernelVersion),
    /// `6.12` matches every 6.12.x, `6.12.43` only this version.
    Only {
        version: KernelVersion,
        exact: bool,
    },
}

impl KernelRange {
    /// Whether the range contains a version.
    pub fn holds(&self, version: KernelVersion) -> bool {
        self.0.iter().all(|bound| match *bound {
            Bound::From(least) => version >= least,
            Bound::After(below) => version > below,
            Bound::UpTo(most) => version <= most,
            Bound::Before(above) => version < above,
            Bound::Only { version: wanted, exact } => {
                version == wanted || !exact && (version.major, version.minor) == (wanted.major, wanted.minor)
            }
        })
    }
}

/// Why a text is no range of kernels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotARange {
    /// A bound has no version.
    #[error(transparent)]
    Version(#[from] NotAVersion),
    /// What stands before a version.
    #[error("`{0}` is not one of >=, >, <=, <")]
    Operator(String),
}

impl FromStr for KernelRange {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let bound = |part: &str| -> Result<Bound, NotARange> {
            let part = part.trim();
            let digits = part.trim_start_matches(['<', '>', '=']);
            let version: KernelVersion = digits.trim().parse()?;
            match part.strip_suffix(digits).unwrap_or_default() {
                "" | "=" => Ok(Bound::Only { version, exact: digits.matches('.').count() > 1 }),
                ">=" => Ok(Bound::From(version)),
                ">" => Ok(Bound::After(version)),
                "<=" => Ok(Bound::UpTo(version)),
                "<" => Ok(Bound::Before(version)),
                other => Err(NotARange::Operator(other.to_owned())),
            }
        };
        text.split(',').map(bound).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_series() {
        let holds = |range: &str, version: &str| range.parse::<KernelRange>().unwrap().holds(version.parse().unwrap());
        assert!(holds(">=6.7, <6.12", "6.11.9") && !holds(">=6.7, <6.12", "6.12") && !holds(">=6.7, <6.12", "6.1.192"));
        assert!(holds("6.12", "6.12.117") && !holds("6.12", "6.1.192"));
        assert!(holds("6.12.43", "6.12.43") && !holds("6.12.43", "6.12.57"));
        assert!(holds(">6.1.170, <=6.1.192", "6.1.192") && !holds(">6.1.170", "6.1.170"));
    }

    #[test]
    fn an_invalid_range_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "`` is not a kernel version (expected: major.minor[.patch])"),
            (">=6.7,", "`` is not a kernel version (expected: major.minor[.patch])"),
            ("=>6.7", "`=>` is not one of >=, >, <=, <"),
            ("six", "`six` is not a kernel version (expected: major.minor[.patch])"),
        ] {
            assert_eq!(text.parse::<KernelRange>().unwrap_err().to_string(), why);
        }
    }
}
