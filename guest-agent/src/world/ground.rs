//! What of a program's root needs neither the program nor the host: the kernel's file systems, `/dev`, `/run`, and the layer that
//! takes what is written. The first of a guest is made before its snapshot is taken: most of what a command in a restored guest waits
//! for is code of the kernel that an emulator translates for it alone.

use super::{MountError, inside::InRoot, linux, share};
use lab_harness::witness::OBJECT;
use lab_protocol::witness::{MARKER, WATCHER, WATCHER_OBJECT};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// Where worlds are mounted in the agent's own root.
const WORLDS: &str = "/lab/worlds";
/// Directories that programs expect in `/run`.
const RUN: [&str; 2] = ["/run/lock", "/run/lab"];
/// What belongs to the guest and not to the root.
const OWN: [&str; 4] = ["proc", "sys", "dev", "run"];
/// The one that was made ahead.
static AHEAD: Mutex<Option<Ground>> = Mutex::new(None);

/// A directory with mounts for one world; dropping it unmounts what is left of them.
#[derive(Debug)]
pub struct Ground {
    at: PathBuf,
}

/// Makes that of the next program, in the network namespace of the calling thread, which must be the guest's first. Also mounts the
/// host's files: the kernel asks for them once a host is connected.
///
/// # Errors
/// As of [`Ground::make`]. The next program makes its own then.
pub fn make_ahead() -> Result<(), MountError> {
    let made = Ground::make()?;
    *AHEAD.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
    share::mount_once()
}

impl Ground {
    /// One that was made ahead, where the calling thread is in the guest's first network namespace; otherwise a new one.
    ///
    /// # Errors
    /// As of [`Self::make`].
    pub fn take(is_first_namespace: bool) -> Result<Self, MountError> {
        // `/sys` shows the devices of the namespace in which it was mounted.
        let ahead = is_first_namespace.then(|| AHEAD.lock().unwrap_or_else(PoisonError::into_inner).take()).flatten();
        ahead.map_or_else(Self::make, Ok)
    }

    /// Mounts everything.
    ///
    /// # Errors
    /// [`MountError`].
    fn make() -> Result<Self, MountError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // From here on dropping it unmounts what is there.
        let ground = Self { at: Path::new(WORLDS).join(NEXT.fetch_add(1, Ordering::Relaxed).to_string()) };
        let own = ground.own();
        for name in OWN {
            make(&own.join(name))?;
        }
        let inside = InRoot::of(&own)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let proc = own.join("proc");
        mount(Some("proc"), &proc, Some("proc"), flags | MsFlags::MS_NOEXEC, None::<&str>)
            .map_err(MountError::mount("proc", Path::new("/proc")))?;
        linux::mount_kernels(&own)?;
        super::bind(Path::new("/dev"), &inside, Path::new("/dev"), true)?;
        mount(Some("tmpfs"), &own.join("run"), Some("tmpfs"), flags, Some("mode=0755"))
            .map_err(MountError::mount("a tmpfs", Path::new("/run")))?;
        for dir in RUN {
            inside.directory(Path::new(dir))?;
        }
        for (from, at, what) in [
            ("/init", MARKER, "the program that makes marks"),
            ("/init", WATCHER, "the program that watches what is attached"),
            (OBJECT, WATCHER_OBJECT, "the witness's eBPF object"),
        ] {
            let at = Path::new(at);
            // An agent may have been built without the object.
            if Path::new(from).exists() {
                mount(Some(from), &inside.file_point(at)?.path(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
                    .map_err(MountError::mount(what, at))?;
            }
        }
        let changes = ground.changes();
        make(&changes)?;
        mount(Some("changes"), &changes, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
            .map_err(MountError::mount("a tmpfs", &changes))?;
        make(&ground.root())?;
        Ok(ground)
    }

    /// Where the root is to be mounted.
    pub fn root(&self) -> PathBuf {
        self.at.join("root")
    }

    /// The layer that takes what is written.
    pub fn changes(&self) -> PathBuf {
        self.at.join("changes")
    }

    fn own(&self) -> PathBuf {
        self.at.join("own")
    }

    /// Limits what is written.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn limit(&self, mib: u32) -> Result<(), MountError> {
        let changes = self.changes();
        mount(None::<&str>, &changes, None::<&str>, MsFlags::MS_REMOUNT, Some(&*format!("size={mib}M")))
            .map_err(MountError::mount("a tmpfs", &changes))
    }

    /// Moves what belongs to the guest into the root, which is mounted.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn fill(&self, inside: &InRoot) -> Result<(), MountError> {
        for name in OWN {
            let at = Path::new("/").join(name);
            let point = inside.mount_point(&at)?;
            mount(Some(&self.own().join(name)), &point.path(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
                .map_err(MountError::mount(format!("the guest's {name}"), &at))?;
        }
        Ok(())
    }
}

fn make(dir: &Path) -> Result<(), MountError> {
    fs::create_dir_all(dir).map_err(MountError::io(dir))
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Programs that run on have it in their own namespaces. What was moved has gone with the root.
        for part in [self.root(), self.changes()] {
            let _ = umount2(&part, MntFlags::MNT_DETACH);
            let _ = fs::remove_dir(&part);
        }
        for name in OWN {
            let part = self.own().join(name);
            let _ = umount2(&part, MntFlags::MNT_DETACH);
            let _ = fs::remove_dir(&part);
        }
        let _ = fs::remove_dir(self.own());
        let _ = fs::remove_dir(&self.at);
    }
}
