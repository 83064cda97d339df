//! Binds namespaces to names in the directory that `ip netns` and `nsenter` use.

use crate::error::AgentError;
use lab_harness::Netns;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

/// `NETNS_RUN_DIR` of iproute2, without the link `/var/run`.
const DIRECTORY: &str = "/run/netns";

/// The names that were created. Dropping it removes them; a name may be the last reference to its namespace.
pub struct Names(Vec<PathBuf>);

impl Names {
    /// Binds every namespace to its name; a name that occurs twice gets a number.
    ///
    /// # Errors
    /// A name can't be made or bound to its namespace.
    pub fn publish(namespaces: &[Netns]) -> Result<Self, AgentError> {
        fs::create_dir_all(DIRECTORY).map_err(AgentError::file(DIRECTORY))?;
        let mut names = Self(Vec::new());
        for ns in namespaces {
            let path = free(Path::new(DIRECTORY), ns.name());
            File::create(&path).map_err(AgentError::file(&path))?;
            names.0.push(path.clone());
            let source = format!("/proc/self/fd/{}", ns.fd().as_raw_fd());
            mount(Some(&*source), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(|errno| AgentError::file(&path)(errno.into()))?;
        }
        Ok(names)
    }
}

fn free(directory: &Path, name: &str) -> PathBuf {
    let numbered = (2..).map(|number| directory.join(format!("{name}-{number}")));
    std::iter::once(directory.join(name))
        .chain(numbered)
        .find(|path| !path.exists())
        .unwrap_or_else(|| directory.join(name))
}

impl Drop for Names {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = umount2(path, MntFlags::MNT_DETACH);
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let dir = tempfile::tempdir().unwrap();
        for wanted in ["host", "host-2", "host-3"] {
            let path = free(dir.path(), "host");
            assert_eq!(path, dir.path().join(wanted));
            File::create(path).unwrap();
        }
    }
}
