//! Images of containers that hold a kernel: what a layout on disk has, and writing one.

mod read;
mod write;

pub(super) use read::ContainerImage;
#[cfg(test)]
pub(super) use read::layers;
pub use read::{ImageLayer, image_layers};
pub(super) use write::{PushedKernel, write};

/// File of a layout that names its images (OCI image specification, image-layout.md).
const INDEX: &str = "index.json";
/// File by which a directory says that it is a layout, and its content.
const MARK: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
/// Annotation of an image with its tag.
const TAG: &str = "org.opencontainers.image.ref.name";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The only platform whose kernels are booted.
const PLATFORM: (&str, &str) = ("linux", "amd64");
