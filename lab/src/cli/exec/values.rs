//! The words of `lab exec`'s options.

use crate::world::PublishedPort;
use nix::sys::resource::{Resource, getrlimit};
use std::path::PathBuf;

/// What is wrong with a word.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::cli) struct WrongWord(String);

impl From<String> for WrongWord {
    fn from(why: String) -> Self {
        Self(why)
    }
}

pub(in crate::cli) fn name(text: &str) -> Result<String, WrongWord> {
    let fits =
        !text.is_empty() && text.len() <= 100 && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    if fits { Ok(text.to_owned()) } else { Err("at most 100 letters, digits and ._-/ are wanted".to_owned().into()) }
}

/// Largest core dump that is kept if the command line names no size, MiB.
const MOST_CORE_MIB: u32 = 1024;

/// A size of core dumps, MiB.
pub(super) fn core(text: &str) -> Result<u32, WrongWord> {
    let size = crate::cli::args::mib(text).filter(|mib| *mib <= 16 * MOST_CORE_MIB);
    size.ok_or_else(|| format!("`{text}` is not a size up to 16G: 0, 64M, 1G").into())
}

/// What a process that was started here would leave: the limit of this process, bytes.
pub(super) fn core_limit() -> u64 {
    getrlimit(Resource::RLIMIT_CORE).map_or(0, |(soft, _)| soft.min(u64::from(MOST_CORE_MIB) << 20))
}

/// What a guest reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reached {
    Nothing,
    /// Ports of the host's loopback device.
    Services(Vec<u16>),
    /// What this host reaches.
    Pasta,
}

impl Reached {
    pub(super) fn services(&self) -> Vec<u16> {
        if let Self::Services(ports) = self { ports.clone() } else { Vec::new() }
    }
}

pub(super) fn network(text: &str) -> Result<Reached, WrongWord> {
    let wanted = || format!("`{text}` is none of none, pasta and host:PORT[,PORT], for example host:8080,5432");
    match text {
        "none" => return Ok(Reached::Nothing),
        "pasta" => return Ok(Reached::Pasta),
        _ => {}
    }
    let ports = text.strip_prefix("host:").ok_or_else(wanted)?.split(',');
    let mut found: Vec<u16> = Vec::new();
    for port in ports {
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wanted)?;
        if !found.contains(&port) {
            found.push(port);
        }
    }
    Ok(Reached::Services(found))
}

/// A port of the host and one of the guest.
pub(super) fn published(text: &str) -> Result<PublishedPort, WrongWord> {
    let (host, guest) = text.split_once(':').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (port(host), port(guest)) {
        (Some(host), Some(guest)) => Ok(PublishedPort { host, guest }),
        _ => Err(format!("`{text}` is not PORT or PORT:PORT, for example 8080:80").into()),
    }
}

/// A file, and its place in a root.
pub(super) fn file(text: &str) -> Result<(PathBuf, PathBuf), WrongWord> {
    let (file, place) = text.split_once(':').unwrap_or((text, text));
    let absolute = std::path::absolute(place).map_err(|error| format!("{place}: {error}"))?;
    if text.contains(':') && absolute != std::path::Path::new(place) {
        return Err(format!("the place `{place}` is not an absolute path").into());
    }
    Ok((PathBuf::from(file), absolute))
}

pub(super) fn user(text: &str) -> Result<(u32, u32), WrongWord> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    user.parse()
        .ok()
        .zip(group.parse().ok())
        .ok_or_else(|| format!("`{text}` is not UID or UID:GID, in numbers").into())
}

pub(super) fn sysctl(text: &str) -> Result<(String, String), WrongWord> {
    let found = text.split_once('=').filter(|(key, _)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        !key.is_empty() && key.chars().all(plain) && !key.contains("..") && !key.starts_with('/')
    });
    let (key, value) = found.ok_or_else(|| format!("`{text}` is not KEY=VALUE, for example net.ipv4.ip_forward=1"))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_group_has_the_group_of_its_number() {
        assert_eq!(user("1000").unwrap(), (1000, 1000));
        assert_eq!(user("1000:0").unwrap(), (1000, 0));
        for wrong in ["", "nobody", "1000:", ":7", "1:2:3", "-1"] {
            assert!(user(wrong).is_err(), "{wrong}");
        }
    }
}
