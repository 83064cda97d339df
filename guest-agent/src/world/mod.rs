//! What a foreign program sees as `/`: a normal Linux with a root of its own.
//!
//! [`MountedWorld::build`] mounts everything, in the agent; [`MountedWorld::enter`] makes it the root of the calling process, between
//! fork and exec. A world lasts until it is dropped, and any number of programs may enter it. `docs/roots.md` says what is
//! in it and why.

mod above;
mod error;
mod ground;
mod inside;
mod linux;
pub mod modprobe;
mod services;
mod share;
mod uplink;

pub use error::MountError;
pub use ground::make_ahead;
pub use linux::{hostname, name_guest, settle_once};
pub use share::unmount as let_go;

use above::LayerAbove;
use ground::Ground;
use inside::InRoot;
use lab_protocol::world::{EXTRA, MODULES, ROOT, Uplink, WorldChanges, WorldMount, WorldRoot, WorldSpec};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{chdir, chroot},
};
use services::Services;
pub use share::SHARE;
use std::{
    ffi::{CString, OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};
use uplink::ConnectedUplink;

/// Where what a set-up wrote is kept.
const KEPT: &str = "/lab/kept";
/// `/etc/resolv.conf` of a guest without a network.
const RESOLV: &[u8] = b"# This guest has no network: no name is resolved but those of /etc/hosts.\n";
/// Name of the host in a guest that reaches it.
const HOST_NAME: &str = "host.lab";
/// Where a root may have modprobe; where it has none, it gets the agent's.
const MODPROBES: [&str; 4] = ["/usr/sbin/modprobe", "/sbin/modprobe", "/usr/bin/modprobe", "/bin/modprobe"];
/// Where programs look for the kernel's modules.
const LIB_MODULES: &str = "/lib/modules";
/// The kernel's configuration in [`EXTRA`].
const CONFIG: &str = "config";
/// Where iproute2 keeps names of network namespaces.
const NETNS: &str = "/run/netns";

/// A root that is mounted.
#[derive(Debug)]
pub struct MountedWorld {
    ground: Ground,
    root: CString,
    cwd: CString,
    /// Dropped with it.
    services: Services,
    /// Dropped with it as well.
    uplink: Option<ConnectedUplink>,
}

impl MountedWorld {
    /// Mounts what the specification says. Call it in the network namespace in which the program will run, and say whether that is the
    /// guest's first: `/sys` shows the devices of the namespace in which it was mounted.
    ///
    /// # Errors
    /// [`MountError`]: what is missing, and what can be done about it.
    pub fn build(spec: &WorldSpec, is_first_namespace: bool) -> Result<Self, MountError> {
        linux::settle_once()?;
        let shared = spec.root == WorldRoot::Export || !spec.mounts.is_empty() || !spec.modules.is_empty();
        if shared {
            share::mount_once()?;
        }
        let text = |bytes: &[u8]| {
            CString::new(bytes).map_err(|_| MountError::Nul { path: PathBuf::from(OsStr::from_bytes(bytes)) })
        };
        let ground = Ground::take(is_first_namespace)?;
        let root = ground.root();
        let cwd: &[u8] = if spec.cwd.is_empty() { b"/" } else { &spec.cwd };
        let (root_text, cwd, services) = (text(root.as_os_str().as_bytes())?, text(cwd)?, Services::default());
        let mut world = Self { root: root_text, cwd, ground, services, uplink: None };
        let has_names = world.mount_root(&root, spec, shared)?;
        let inside = InRoot::of(&root)?;
        world.ground.fill(&inside)?;
        mount_rest(&inside, spec)?;
        if shared {
            mount_kernel_files(&inside)?;
        }
        if !has_names {
            write_names(&inside, spec.uplink.as_ref(), |path, content| inside.write(path, content))?;
        }
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

    /// The root with a layer above it that takes what is written. Returns whether the layer has the guest's names already.
    fn mount_root(&self, root: &Path, spec: &WorldSpec, shared: bool) -> Result<bool, MountError> {
        let kept = Path::new(KEPT);
        let make = |dir: &Path| fs::create_dir_all(dir).map_err(MountError::io(dir));
        let changes = match spec.changes {
            WorldChanges::Stay => {
                make(kept)?;
                let size = spec.overlay_mib.map_or_else(String::new, |mib| format!(",size={mib}M"));
                mount(Some("changes"), kept, Some("tmpfs"), MsFlags::empty(), Some(&*format!("mode=0755{size}")))
                    .map_err(MountError::mount("a tmpfs", kept))?;
                kept.to_owned()
            }
            WorldChanges::End | WorldChanges::EndAboveSetup => {
                if let Some(mib) = spec.overlay_mib {
                    self.ground.limit(mib)?;
                }
                self.ground.changes()
            }
        };
        let (upper, work) = (changes.join("upper"), changes.join("work"));
        make(&upper)?;
        make(&work)?;
        let lower = match spec.root {
            WorldRoot::Image => PathBuf::from("/"),
            WorldRoot::Export => Path::new(SHARE).join(ROOT),
        };
        // The host's root is listed first: what it can't read is an error of its own.
        fs::read_dir(&lower).map_err(MountError::io(&lower))?;
        // What a set-up left may have names of its own, in a layer between the two.
        let has_names = spec.changes == WorldChanges::End
            && prepare_above(&LayerAbove::of(&lower, &upper)?, spec.uplink.as_ref(), shared).is_ok();
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
        mount(Some("root"), root, Some("overlay"), MsFlags::MS_NODEV, Some(&*options)).map_err(
            |errno| match errno {
                nix::Error::ENODEV => MountError::NoOverlay,
                errno => MountError::mount("the root", root)(errno),
            },
        )?;
        Ok(has_names)
    }

    /// A path in the root as the agent sees it; for paths without symbolic links.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.ground.root().join(inside.trim_start_matches('/'))
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

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What of the guest's own is not in every root, or changes.
fn mount_rest(inside: &InRoot, spec: &WorldSpec) -> Result<(), MountError> {
    if spec.fresh_tmp {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let point = inside.mount_point(Path::new("/tmp"))?;
        mount(Some("tmpfs"), &point.path(), Some("tmpfs"), flags, Some("mode=1777"))
            .map_err(MountError::mount("a tmpfs", Path::new("/tmp")))?;
    }
    if Path::new(NETNS).is_dir() {
        bind(Path::new(NETNS), inside, Path::new(NETNS), true)?;
    }
    Ok(())
}

/// Modules and configuration of the guest's kernel, in place of the host's.
fn mount_kernel_files(inside: &InRoot) -> Result<(), MountError> {
    let release = release()?;
    let modules = Path::new(SHARE).join(MODULES);
    if modules.is_dir() {
        bind(&modules, inside, &Path::new(LIB_MODULES).join(&release), false)?;
    }
    if !MODPROBES.iter().any(|place| inside.has(Path::new(place))) {
        let place = Path::new(MODPROBES[0]);
        let point = inside.file_point(place)?;
        mount(Some("/init"), &point.path(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(MountError::mount("modprobe", place))?;
    }
    let config = Path::new(SHARE).join(EXTRA).join(CONFIG);
    if config.is_file() {
        let place = boot_config(&release);
        let point = inside.file_point(&place)?;
        mount(Some(&config), &point.path(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(MountError::mount("the kernel's configuration", &place))?;
    }
    Ok(())
}

/// Makes in the layer above a root what the guest has in every root. An unusual root refuses it; the same is made through the mount
/// then, which says why.
fn prepare_above(layer: &LayerAbove, uplink: Option<&Uplink>, shared: bool) -> Result<(), MountError> {
    if shared {
        let release = release()?;
        layer.directory(&Path::new(LIB_MODULES).join(&release))?;
        if Path::new(SHARE).join(EXTRA).join(CONFIG).is_file() {
            layer.write(&boot_config(&release), b"")?;
        }
    }
    write_names(layer.root(), uplink, |path, content| layer.write(path, content))
}

fn release() -> Result<OsString, MountError> {
    let uts = nix::sys::utsname::uname().map_err(|errno| MountError::io(Path::new("uname"))(errno.into()))?;
    Ok(uts.release().to_owned())
}

/// Where programs look for the configuration of the kernel.
fn boot_config(release: &OsStr) -> PathBuf {
    let mut name = OsString::from("config-");
    name.push(release);
    Path::new("/boot").join(name)
}

/// Names that are resolved without a name server: the guest's own, and its host's where it is reached. Those of `inside` are kept.
fn write_names(
    inside: &InRoot,
    uplink: Option<&Uplink>,
    write: impl Fn(&Path, &[u8]) -> Result<(), MountError>,
) -> Result<(), MountError> {
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
    write(Path::new("/etc/hosts"), hosts.as_bytes())?;
    let resolv = uplink.map(|uplink| format!("nameserver {}\n", uplink.name_server).into_bytes());
    write(Path::new("/etc/resolv.conf"), resolv.as_deref().unwrap_or(RESOLV))?;
    write(Path::new("/etc/hostname"), format!("{name}\n").as_bytes())
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
