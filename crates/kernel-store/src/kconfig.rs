//! A kernel's configuration, as its package or tree has it.

use crate::error::{KernelsError, Result};
use std::{collections::BTreeMap, fmt, fs, path::Path, str::FromStr};

/// The options of a `.config` that are set, without `CONFIG_`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelConfig(BTreeMap<String, String>);

impl KernelConfig {
    /// Reads a `.config`.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(Self::parse(&fs::read_to_string(path).map_err(KernelsError::io(path))?))
    }

    /// Parses a `.config`, or a fragment of one.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix("CONFIG_")?.split_once('='));
        Self(lines.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect())
    }

    /// Its options with their values, in the order of their names.
    pub fn options(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether the kernel has an option, or why not, in one line.
    pub fn lacks(&self, wish: &ConfigWish) -> Option<String> {
        let found = self.0.get(&wish.name);
        match (found, &wish.value) {
            (None, _) => Some(format!("CONFIG_{} is not set", wish.name)),
            (Some(value), Some(wanted)) if value != wanted => {
                Some(format!("CONFIG_{} is {value}, not {wanted}", wish.name))
            }
            (Some(value), None) if value == "n" => Some(format!("CONFIG_{} is not set", wish.name)),
            (Some(_), _) => None,
        }
    }
}

/// An option that a kernel must have: `CONFIG_X`, or with a value, `CONFIG_X=y`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigWish {
    name: String,
    value: Option<String>,
}

impl ConfigWish {
    /// An option of a fragment: a module will do where it wants the option built in.
    pub fn of_fragment(name: &str, value: &str) -> Self {
        let value = (!matches!(value, "y" | "m")).then(|| value.to_owned());
        Self { name: name.to_owned(), value }
    }
}

/// A text that names no option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not CONFIG_NAME or CONFIG_NAME=VALUE")]
pub struct NotAWish(String);

impl FromStr for ConfigWish {
    type Err = NotAWish;

    fn from_str(text: &str) -> std::result::Result<Self, NotAWish> {
        let wrong = || NotAWish(text.to_owned());
        let rest = text.strip_prefix("CONFIG_").ok_or_else(wrong)?;
        let (name, value) = rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value.to_owned())));
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let fits = !name.is_empty() && name.chars().all(plain) && value.as_ref().is_none_or(|it| !it.is_empty());
        if fits { Ok(Self { name: name.to_owned(), value }) } else { Err(wrong()) }
    }
}

impl fmt::Display for ConfigWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CONFIG_{}", self.name)?;
        self.value.as_ref().map_or(Ok(()), |value| write!(f, "={value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_may_be_a_module_unless_its_value_is_asked_for() {
        let config = KernelConfig::parse(
            "CONFIG_NETKIT=y\nCONFIG_VETH=m\n# CONFIG_AMT is not set\nCONFIG_HZ=250\nCONFIG_LSM=\"a,b\"\n",
        );
        let lacks = |text: &str| config.lacks(&text.parse().unwrap());
        for has in
            ["CONFIG_NETKIT", "CONFIG_NETKIT=y", "CONFIG_VETH", "CONFIG_VETH=m", "CONFIG_HZ=250", "CONFIG_LSM=a,b"]
        {
            assert_eq!(lacks(has), None, "{has}");
        }
        assert_eq!(lacks("CONFIG_AMT").unwrap(), "CONFIG_AMT is not set");
        assert_eq!(lacks("CONFIG_VETH=y").unwrap(), "CONFIG_VETH is m, not y");
        assert_eq!(config.lacks(&ConfigWish::of_fragment("VETH", "y")), None);
        assert_eq!(config.lacks(&ConfigWish::of_fragment("HZ", "1000")).unwrap(), "CONFIG_HZ is 250, not 1000");
        for wrong in ["NETKIT", "CONFIG_", "CONFIG_A B", "CONFIG_A=", "config_a"] {
            assert!(wrong.parse::<ConfigWish>().is_err(), "{wrong}");
        }
    }
}
