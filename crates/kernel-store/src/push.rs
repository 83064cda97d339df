//! Writes a kernel of the matrix as an image of a container.

use super::{
    digest::Digest,
    error::{KernelsError, Result},
    oci::{self, PushedKernel},
    store::BootableKernel,
};
use std::path::Path;

/// Writes a kernel into an OCI layout, which is created if it does not exist, and gives the image a tag. An image that had
/// the tag loses it. Returns the digest of the image's manifest.
///
/// # Errors
/// The kernel is for another architecture than the lab's, the directory exists and is no layout, or a file can't be read or
/// written.
pub fn push(kernel: &BootableKernel, layout: &Path, tag: &str) -> Result<Digest> {
    if !kernel.architecture.is_own() {
        let reason = format!("is for {}, and the lab writes images for linux/amd64 only", kernel.architecture);
        return Err(KernelsError::BadKernel { path: kernel.vmlinuz.clone(), reason });
    }
    let files = PushedKernel {
        release: &kernel.release,
        version: kernel.version,
        vmlinuz: &kernel.vmlinuz,
        modules: &kernel.modules,
        config: kernel.config.as_deref(),
    };
    oci::write(&files, layout, tag)
}
