//! Errors of building or reading a topology.

use lab_netlink::NetlinkError;
use nix::errno::Errno;
use std::time::Duration;

/// A step that failed, with the node that it was for.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A namespace could not be made or entered.
    #[error("network namespace `{node}`: {doing}: {errno}")]
    Netns {
        /// Node of the topology.
        node: String,
        /// The request, in words.
        doing: &'static str,
        /// The kernel's errno.
        errno: Errno,
    },
    /// The kernel rejected a netlink request.
    #[error("node `{node}`: {error}")]
    Netlink {
        /// The node in whose namespace it was asked.
        node: String,
        /// The request and the kernel's error.
        error: NetlinkError,
    },
    /// A sysctl could not be written.
    #[error("node `{node}`: /proc/sys/{key} = {value}: {error} (is /proc mounted, and the feature in this kernel?)")]
    Sysctl {
        /// Node of the topology.
        node: String,
        /// Path below `/proc/sys`.
        key: String,
        /// The value that was to be written.
        value: String,
        /// The kernel's errno.
        error: std::io::Error,
    },
    /// A tap could not be opened.
    #[error("node `{node}`: tap {name}: {doing}: {errno} (is the `tun` module loaded?)")]
    Tap {
        /// Node of the topology.
        node: String,
        /// Name of the device in its node.
        name: String,
        /// The request, in words.
        doing: &'static str,
        /// The kernel's errno.
        errno: Errno,
    },
    /// Links or addresses did not become usable.
    #[error("node `{node}`: {missing} after {waited:?}")]
    NotReady {
        /// Node of the topology.
        node: String,
        /// What is not ready, as the kernel last reported it.
        missing: String,
        /// How long the builder waited.
        waited: Duration,
    },
}
