//! What a foreign program sees as `/`: a normal Linux with a root of its own.
//!
//! [`MountedWorld::build`] mounts everything, in the agent; [`MountedWorld::enter`] makes it the root of the calling process, between
//! fork and exec. A world lasts until it is dropped, and any number of programs may enter it. `docs/roots.md` says what is
//! in it and why.

mod error;
mod inside;
mod linux;
pub mod modprobe;
mod services;
mod share;
mod uplink;

pub use error::MountError;
pub use linux::{hostname, name_guest, settle_once};
pub use share::unmount as let_go;

use inside::InRoot;
use lab_harness::witness::OBJECT;
use lab_protocol::{
    witness::{MARKER, WATCHER, WATCHER_OBJECT},
    world::{EXTRA, MODULES, ROOT, Uplink, WorldChanges, WorldMount, WorldRoot, WorldSpec},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{chdir, chroot},
};
use services::Services;
use share::SHARE;
use std::{
    ffi::{CString, OsStr},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};
use uplink::ConnectedUplink;

/// Where worlds are mounted in the agent's own root.
const WORLDS: &str = "/lab/worlds";
/// Where what a set-up wrote is kept.
const KEPT: &str = "/lab/kept";
/// `/etc/resolv.conf` of a guest without a network.
const RESOLV: &[u8] = b"# This guest has no network: no name is resolved but those of /etc/hosts.\n";
/// Name of the host in a guest that reaches it.
const HOST_NAME: &str = "host.lab";
/// Directories that programs expect in `/run`.
const RUN: [&str; 2] = ["/run/lock", "/run/lab"];
/// Where a root may have modprobe; where it has none, it gets the agent's.
const MODPROBES: [&str; 4] = ["/usr/sbin/modprobe", "/sbin/modprobe", "/usr/bin/modprobe", "/bin/modprobe"];
/// Where iproute2 keeps names of network namespaces.
const NETNS: &str = "/run/netns";

/// A root that is mounted.
#[derive(Debug)]
pub struct MountedWorld {
    at: PathBuf,
    root: CString,
    cwd: CString,
    /// Dropped with it.
    services: Services,
    /// Dropped with it as well.
    uplink: Option<ConnectedUplink>,
}

impl MountedWorld {
    /// Mounts what the specification says. Call it in the network namespace in which the program will run: `/sys` shows the
    /// devices of the namespace in which it was mounted.
    ///
    /// # Errors
    /// [`MountError`]: what is missing, and what can be done about it.
    pub fn build(spec: &WorldSpec) -> Result<Self, MountError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        linux::settle_once()?;
        let shared = spec.root == WorldRoot::Export || !spec.mounts.is_empty() || !spec.modules.is_empty();
        if shared {
            share::mount_once()?;
        }
        let text = |bytes: &[u8]| {
            CString::new(bytes).map_err(|_| MountError::Nul { path: PathBuf::from(OsStr::from_bytes(bytes)) })
        };
        let at = Path::new(WORLDS).join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        let root = at.join("root");
        let cwd: &[u8] = if spec.cwd.is_empty() { b"/" } else { &spec.cwd };
        // From here on dropping it unmounts what is there.
        let (root_text, cwd, services) = (text(root.as_os_str().as_bytes())?, text(cwd)?, Services::default());
        let mut world = Self { root: root_text, cwd, at, services, uplink: None };
        world.mount_root(&root, spec)?;
        let inside = InRoot::of(&root)?;
        mount_own(&inside, &root, spec)?;
        if shared {
            mount_kernel_files(&inside)?;
        }
        write_names(&inside, spec.uplink.as_ref())?;
        for wanted in &spec.mounts {
            mount_export(&inside, wanted)?;
        }
        let own = Path::new(SHARE).join(EXTRA).join("modules");
        modprobe::load_own(&own, &spec.modules)
            .map_err(|(path, error)| MountError::Module { name: name_of(&path), error })?;
        world.services = Services::listen(&spec.services)?;
        world.uplink = spec.uplink.as_ref().map(ConnectedUplink::connect).transpose()?;
        Ok(world)
    }

    /// The root with a layer above it that takes what is written.
    fn mount_root(&self, root: &Path, spec: &WorldSpec) -> Result<(), MountError> {
        let kept = Path::new(KEPT);
        let changes = match spec.changes {
            WorldChanges::Stay => kept.to_owned(),
            WorldChanges::End | WorldChanges::EndAboveSetup => self.at.join("changes"),
        };
        let (upper, work) = (changes.join("upper"), changes.join("work"));
        let make = |dir: &Path| fs::create_dir_all(dir).map_err(MountError::io(dir));
        make(root)?;
        make(&changes)?;
        let size = spec.overlay_mib.map_or_else(String::new, |mib| format!(",size={mib}M"));
        mount(Some("changes"), &changes, Some("tmpfs"), MsFlags::empty(), Some(&*format!("mode=0755{size}")))
            .map_err(MountError::mount("a tmpfs", &changes))?;
        make(&upper)?;
        make(&work)?;
        let lower = match spec.root {
            WorldRoot::Image => PathBuf::from("/"),
            WorldRoot::Export => Path::new(SHARE).join(ROOT),
        };
        // The host's root is listed first: what it can't read is an error of its own.
        fs::read_dir(&lower).map_err(MountError::io(&lower))?;
        // Directories of the lower layer can be renamed. The host's files have no file handles, which the kernel would
        // otherwise say with a warning.
        let setup = match spec.changes {
            WorldChanges::EndAboveSetup => format!("{}:", kept.join("upper").display()),
            WorldChanges::Stay | WorldChanges::End => String::new(),
        };
        let options = format!(
            "lowerdir={setup}{},upperdir={},workdir={},redirect_dir=on,index=off,xino=off",
            lower.display(),
            upper.display(),
            work.display()
        );
        mount(Some("root"), root, Some("overlay"), MsFlags::MS_NODEV, Some(&*options)).map_err(|errno| match errno {
            nix::Error::ENODEV => MountError::NoOverlay,
            errno => MountError::mount("the root", root)(errno),
        })
    }

    /// A path in the root as the agent sees it; for paths without symbolic links.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.at.join("root").join(inside.trim_start_matches('/'))
    }

    /// Makes it the root of the calling thread or process, in a mount namespace of its own, and goes to the working directory. Makes
    /// system calls only and allocates nothing: it may be called between fork and exec. A thread must have its directories for itself first (`unshare(CLONE_FS)`).
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

impl Drop for MountedWorld {
    fn drop(&mut self) {
        // Programs that run on have it in their own namespaces.
        for part in ["root", "changes"] {
            let part = self.at.join(part);
            let _ = umount2(&part, MntFlags::MNT_DETACH);
            let _ = fs::remove_dir(&part);
        }
        let _ = fs::remove_dir(&self.at);
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What belongs to the guest and not to the root: devices, processes, the kernel's file systems, what runs.
fn mount_own(inside: &InRoot, root: &Path, spec: &WorldSpec) -> Result<(), MountError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let proc = inside.mount_point(Path::new("/proc"))?;
    let noexec = flags | MsFlags::MS_NOEXEC;
    mount(Some("proc"), &proc.path(), Some("proc"), noexec, None::<&str>)
        .map_err(MountError::mount("proc", Path::new("/proc")))?;
    inside.directory(Path::new("/sys"))?;
    linux::mount_kernels(root)?;
    bind(Path::new("/dev"), inside, Path::new("/dev"), true)?;
    let tmpfs = |at: &str, mode: &str| {
        let point = inside.mount_point(Path::new(at))?;
        mount(Some("tmpfs"), &point.path(), Some("tmpfs"), flags, Some(mode))
            .map_err(MountError::mount("a tmpfs", Path::new(at)))
    };
    tmpfs("/run", "mode=0755")?;
    if spec.fresh_tmp {
        tmpfs("/tmp", "mode=1777")?;
    }
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
    if Path::new(NETNS).is_dir() {
        bind(Path::new(NETNS), inside, Path::new(NETNS), true)?;
    }
    Ok(())
}

/// Modules and configuration of the guest's kernel, in place of the host's.
fn mount_kernel_files(inside: &InRoot) -> Result<(), MountError> {
    let uts = nix::sys::utsname::uname().map_err(|errno| MountError::io(Path::new("uname"))(errno.into()))?;
    let release = uts.release();
    let modules = Path::new(SHARE).join(MODULES);
    if modules.is_dir() {
        bind(&modules, inside, &Path::new("/lib/modules").join(release), false)?;
    }
    if !MODPROBES.iter().any(|place| inside.has(Path::new(place))) {
        let place = Path::new(MODPROBES[0]);
        let point = inside.file_point(place)?;
        mount(Some("/init"), &point.path(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(MountError::mount("modprobe", place))?;
    }
    let config = Path::new(SHARE).join(EXTRA).join("config");
    if config.is_file() {
        let mut name = std::ffi::OsString::from("config-");
        name.push(release);
        let place = Path::new("/boot").join(name);
        let point = inside.file_point(&place)?;
        mount(Some(&config), &point.path(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(MountError::mount("the kernel's configuration", &place))?;
    }
    Ok(())
}

/// Names that are resolved without a name server: the guest's own, and its host's where it is reached.
fn write_names(inside: &InRoot, uplink: Option<&Uplink>) -> Result<(), MountError> {
    let name = hostname();
    let mut hosts = inside.read("/etc/hosts").unwrap_or_default();
    let host: Vec<String> = uplink.iter().flat_map(|uplink| &uplink.gateways).map(ToString::to_string).collect();
    let own = [("127.0.0.1", "localhost"), ("::1", "localhost ip6-localhost"), ("127.0.1.1", &*name)];
    for (address, names) in own.into_iter().chain(host.iter().map(|address| (&**address, HOST_NAME))) {
        let known = hosts.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(address) && words.any(|word| names.split(' ').next() == Some(word))
        });
        if !known {
            if !hosts.is_empty() && !hosts.ends_with('\n') {
                hosts.push('\n');
            }
            hosts.push_str(&format!("{address} {names}\n"));
        }
    }
    inside.write(Path::new("/etc/hosts"), hosts.as_bytes())?;
    let resolv = uplink.map(|uplink| format!("nameserver {}\n", uplink.name_server).into_bytes());
    inside.write(Path::new("/etc/resolv.conf"), resolv.as_deref().unwrap_or(RESOLV))?;
    inside.write(Path::new("/etc/hostname"), format!("{name}\n").as_bytes())
}

fn mount_export(inside: &InRoot, wanted: &WorldMount) -> Result<(), MountError> {
    let at = Path::new(OsStr::from_bytes(&wanted.at));
    let source = Path::new(SHARE).join(&wanted.export);
    bind(&source, inside, at, false)?;
    if !wanted.writable {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let point = inside.mount_point(at)?;
        mount(None::<&str>, &point.path(), None::<&str>, flags, None::<&str>)
            .map_err(MountError::mount("read-only", at))?;
    }
    Ok(())
}

/// Shows a directory at a second place.
fn bind(source: &Path, inside: &InRoot, at: &Path, recursive: bool) -> Result<(), MountError> {
    let point = inside.mount_point(at)?;
    let flags = if recursive { MsFlags::MS_BIND | MsFlags::MS_REC } else { MsFlags::MS_BIND };
    mount(Some(source), &point.path(), None::<&str>, flags, None::<&str>)
        .map_err(MountError::mount(source.display().to_string(), at))
}
