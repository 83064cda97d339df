//! Namespaces under names: where `ip netns` and `nsenter` look for them.

use lab_harness::Netns;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

/// `NETNS_RUN_DIR` of iproute2, without the link `/var/run`.
const DIRECTORY: &str = "/run/netns";

/// Names that exist. Dropping it takes them away, and with them the last thing that holds a namespace which is otherwise
/// given up.
pub struct Names(Vec<PathBuf>);

impl Names {
    /// Gives every namespace its name; a name that two of them have gets a number.
    ///
    /// # Errors
    /// One line.
    pub fn publish(namespaces: &[Netns]) -> Result<Self, String> {
        fs::create_dir_all(DIRECTORY).map_err(|error| format!("{DIRECTORY}: {error}"))?;
        let mut names = Self(Vec::new());
        for ns in namespaces {
            let path = free(Path::new(DIRECTORY), ns.name());
            let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            File::create(&path).map_err(|error| failed(&error))?;
            names.0.push(path.clone());
            let source = format!("/proc/self/fd/{}", ns.fd().as_raw_fd());
            mount(Some(&*source), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(|errno| failed(&errno))?;
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
