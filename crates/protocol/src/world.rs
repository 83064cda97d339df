//! What a foreign program sees as `/`.
//!
//! The files come over a port of their own ([`FILES_PORT`]), on which the host answers the guest kernel's FUSE requests
//! (`crates/share`). The host's end has named directories, the *exports*; a [`WorldSpec`] says where the guest mounts them.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Name of the virtio-serial port for files.
pub const FILES_PORT: &str = "org.netkit-lab.files.0";

/// Name of the virtio-serial port for connections to services of the host (`crates/relay`).
pub const SERVICES_PORT: &str = "org.netkit-lab.services.0";

/// Export with the kernel's own modules: a copy of `/lib/modules/RELEASE`.
pub const MODULES: &str = "modules";
/// Export with the root of the program.
pub const ROOT: &str = "root";
/// Export with single files of the lab: the kernel's configuration as `config`, modules of the user's own below `modules`.
pub const EXTRA: &str = "extra";
/// Export with the directory for artefacts.
pub const ARTIFACTS: &str = "artifacts";
/// Export with the directory for core dumps, if any are kept: only the agent uses it.
pub const CORES: &str = "cores";
/// Where the guest has the directory for artefacts, if there is one; the program finds it by `LAB_ARTIFACTS`.
pub const ARTIFACTS_AT: &str = "/run/lab/artifacts";

/// What a program sees as `/`, and what it finds there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorldSpec {
    /// What is below `/`.
    pub root: WorldRoot,
    /// Working directory, an absolute path in the root. If it is empty, `/`.
    #[serde(with = "crate::bytes")]
    pub cwd: Vec<u8>,
    /// Further exports, in the order in which they are mounted.
    pub mounts: Vec<WorldMount>,
    /// Whether `/tmp` is an empty file system. If not, it is the root's own.
    pub fresh_tmp: bool,
    /// Modules of the user's own, by their file names in `modules` of [`EXTRA`], in the order in which they are loaded.
    pub modules: Vec<String>,
    /// Ports of the host's loopback device that are reached at the same ports of the guest's, over TCP and UDP.
    #[serde(default)]
    pub services: Vec<u16>,
    /// The way to other networks, if there is one.
    #[serde(default)]
    pub uplink: Option<Uplink>,
    /// Limit of what the program may write outside of shared directories, MiB. `None` is half of the guest's memory.
    pub overlay_mib: Option<u32>,
    /// What becomes of what it writes.
    #[serde(default)]
    pub changes: WorldChanges,
}

/// Addresses of the machine's network device, which is connected to passt on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// The guest's addresses, one of each family, with the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The default gateways, which also stand for the host: its loopback device is reached at them.
    pub gateways: Vec<IpAddr>,
    /// Answers queries for names.
    pub name_server: IpAddr,
}

/// What becomes of what a program writes to its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorldChanges {
    /// It ends with the program's root.
    #[default]
    End,
    /// It stays in the guest, for roots above it: the program is a set-up.
    Stay,
    /// It ends with the program's root, which begins with what a set-up left.
    EndAboveSetup,
}

/// What is below `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorldRoot {
    /// The files of the guest's image.
    Image,
    /// The export [`ROOT`], read-only; what is written stays in the guest's memory.
    Export,
}

/// An export, and its place in the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorldMount {
    /// Name of the export.
    pub export: String,
    /// Absolute path in the root.
    #[serde(with = "crate::bytes")]
    pub at: Vec<u8>,
    /// Whether the guest mounts it for writing. The host decides what may be written, whatever the guest mounts.
    pub writable: bool,
}

impl WorldSpec {
    /// The image's files, with nothing shared.
    pub fn image() -> Self {
        Self {
            root: WorldRoot::Image,
            cwd: Vec::new(),
            mounts: Vec::new(),
            fresh_tmp: true,
            modules: Vec::new(),
            services: Vec::new(),
            uplink: None,
            overlay_mib: None,
            changes: WorldChanges::End,
        }
    }
}
