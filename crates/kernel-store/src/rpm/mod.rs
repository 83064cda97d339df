//! Repositories and packages of RPM: what a repository's metadata lists, and the files of a package.

mod metadata;
mod package;

pub(super) use metadata::{BadIndex, RpmPackage, is_inside, packages, primary};
pub(super) use package::{Claims, RpmFile};
#[cfg(test)]
pub(super) use {metadata::PackageList, package::cpio};
