//! Builds the guest image: an initramfs with the agent, the BPF objects and the modules that one kernel needs.
//!
//! Images are content-addressed: the key covers every input byte, so a cached image is never outdated. This crate's README
//! describes the layout of an image.

mod agent;
mod archive;
mod base;
mod cache;
mod decompress;
mod deps;
mod entry;
mod error;
#[cfg(test)]
mod fuzz;
mod image;
mod profile;
mod setup_header;
mod signature;
mod toolbox;
mod type_info;
mod wanted;

pub use decompress::{module_release, read_module};
pub use deps::{DepError, Index, name_of};
pub use entry::direct_kernel;
pub use error::ImageError;
pub use image::{Image, Sends, Spec, build};
pub use profile::Profile;
pub use setup_header::SetupHeader;
pub use toolbox::{PROGRAMS, Toolbox, tool_files};
pub use type_info::type_info;
pub use wanted::ModuleList;
