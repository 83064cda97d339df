//! What a foreign program sees as `/`: a normal Linux with a root of its own.
//!
//! [`World::build`] mounts everything, in the agent; [`World::enter`] makes it the root of the calling process, between
//! fork and exec. A world lasts until it is dropped, and any number of programs may enter it.

mod error;

pub use error::WorldError;

use lab_protocol::world::WorldSpec;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{chdir, chroot},
};
use std::{
    ffi::{CString, OsStr},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Where worlds are mounted in the agent's own root.
const WORLDS: &str = "/lab/worlds";

/// A root that is mounted.
#[derive(Debug)]
pub struct World {
    at: PathBuf,
    root: CString,
    cwd: CString,
}

impl World {
    /// Mounts what the specification says. Call it in the network namespace in which the program will run: `/sys` shows the
    /// devices of the namespace in which it was mounted.
    ///
    /// # Errors
    /// [`WorldError`]: what is missing, and what can be done about it.
    pub fn build(spec: &WorldSpec) -> Result<Self, WorldError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let at = Path::new(WORLDS).join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir_all(&at).map_err(WorldError::io(&at))?;
        mount(Some("/"), &at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
            .map_err(WorldError::mount("the root", &at))?;
        let cwd: &[u8] = if spec.cwd.is_empty() { b"/" } else { &spec.cwd };
        let text = |bytes: &[u8]| {
            CString::new(bytes).map_err(|_| WorldError::Nul { path: PathBuf::from(OsStr::from_bytes(bytes)) })
        };
        Ok(Self { root: text(at.as_os_str().as_bytes())?, cwd: text(cwd)?, at })
    }

    /// Makes it the root of the calling process, in a mount namespace of its own, and goes to the working directory. Makes
    /// system calls only and allocates nothing: it may be called between fork and exec.
    ///
    /// # Errors
    /// The working directory does not exist (`ENOENT`), or the process has not the rights of the guest's root.
    pub fn enter(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, c"/", None::<&str>, private, None::<&str>)?;
        chdir(self.root.as_c_str())?;
        // pivot_root(2) refuses an initramfs. Moving is what boots any system; unlike in a plain chroot, user namespaces
        // can be made (current_chrooted() in fs/namespace.c compares with the mount on top).
        mount(Some(c"."), c"/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
        chroot(c".")?;
        chdir(c"/")?;
        Ok(chdir(self.cwd.as_c_str())?)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Programs that run on have it in their own namespaces.
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.at);
    }
}
