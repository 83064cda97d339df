//! The initramfs format: a newc cpio archive, `Documentation/driver-api/early-userspace/buffer-format.rst`.
//!
//! The `cpio` crate writes the format; this module makes archives reproducible (time stamps 0, inode numbers in order) and
//! supports only files, directories, symbolic links and one device node.

use cpio::newc::{Builder, ModeFileType, trailer};
use std::io::{self, Write};

/// An archive in memory.
pub struct CpioArchive {
    bytes: Vec<u8>,
    inode: u32,
}

impl CpioArchive {
    pub fn new() -> Self {
        Self { bytes: Vec::new(), inode: 1 }
    }

    /// Adds a directory; its parents must have been added before.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let entry = self.entry(path, 0o755).set_mode_file_type(ModeFileType::Directory).nlink(2);
        self.write(entry, &[])
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let entry = self.entry(path, mode).set_mode_file_type(ModeFileType::Regular);
        self.write(entry, content)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        let entry = self.entry(path, 0o777).set_mode_file_type(ModeFileType::Symlink);
        self.write(entry, target.as_bytes())
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> io::Result<()> {
        let entry = self.entry(path, mode).set_mode_file_type(ModeFileType::Char).rdev_major(major).rdev_minor(minor);
        self.write(entry, &[])
    }

    pub fn finish(self) -> io::Result<Vec<u8>> {
        trailer(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32) -> Builder {
        self.inode += 1;
        Builder::new(path).ino(self.inode).mode(mode)
    }

    fn write(&mut self, entry: Builder, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| io::Error::other("a file of 4 GiB or more"))?;
        let mut writer = entry.write(std::mem::take(&mut self.bytes), size);
        writer.write_all(content)?;
        self.bytes = writer.finish()?;
        Ok(())
    }
}

/// Names of all entries of an archive, in order.
#[cfg(test)]
pub fn names(mut bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let reader = cpio::NewcReader::new(bytes).unwrap();
        if reader.entry().is_trailer() {
            return names;
        }
        assert_eq!(reader.entry().mtime(), 0);
        names.push(reader.entry().name().to_owned());
        bytes = reader.finish().unwrap();
    }
}

/// Content of one file of an archive.
#[cfg(test)]
pub fn content(mut bytes: &[u8], path: &str) -> String {
    loop {
        let mut reader = cpio::NewcReader::new(bytes).unwrap();
        if reader.entry().name() == path {
            let mut text = String::new();
            io::Read::read_to_string(&mut reader, &mut text).unwrap();
            return text;
        }
        assert!(!reader.entry().is_trailer(), "no {path}");
        bytes = reader.finish().unwrap();
    }
}
