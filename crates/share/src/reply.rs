//! Replies: attributes, entries, directories.

use crate::wire::{OUT_HEADER, S_IFMT};
use nix::errno::Errno;
use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

/// Attributes of a file, as `struct fuse_attr` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attr {
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    /// Access, modification, change: seconds since the epoch and nanoseconds.
    pub times: [(i64, u32); 3],
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub blksize: u32,
}

impl Attr {
    pub fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }
}

/// How long the guest may believe an answer, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Valid(pub u64);

/// Bytes of a reply, with room for the header in front.
#[derive(Debug)]
pub struct Reply(Vec<u8>);

impl Reply {
    pub fn new() -> Self {
        Self(vec![0; OUT_HEADER])
    }

    /// Room for data of up to this size behind the header.
    pub fn data(size: usize) -> Self {
        Self(vec![0; OUT_HEADER + size])
    }

    /// The data's place.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.0[OUT_HEADER..]
    }

    /// Cuts the data off.
    pub fn shorten(mut self, size: usize) -> Self {
        self.0.truncate(OUT_HEADER + size);
        self
    }

    pub fn len(&self) -> usize {
        self.0.len() - OUT_HEADER
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// `struct fuse_attr`.
    pub fn attr(&mut self, attr: &Attr) -> &mut Self {
        self.u64(attr.ino).u64(attr.size).u64(attr.blocks);
        for (seconds, _) in &attr.times {
            self.bytes(&seconds.to_le_bytes());
        }
        for (_, nanoseconds) in &attr.times {
            self.u32(*nanoseconds);
        }
        self.u32(attr.mode).u32(attr.nlink).u32(attr.uid).u32(attr.gid).u32(attr.rdev).u32(attr.blksize).u32(0)
    }

    /// `struct fuse_attr_out`.
    pub fn attr_out(&mut self, attr: &Attr, valid: Valid) -> &mut Self {
        self.u64(valid.0).u32(0).u32(0).attr(attr)
    }

    /// `struct fuse_entry_out`. Node 0 says that there is none.
    pub fn entry(&mut self, node: u64, attr: &Attr, valid: Valid) -> &mut Self {
        self.u64(node).u64(0).u64(valid.0).u64(valid.0).u32(0).u32(0).attr(attr)
    }

    /// `struct fuse_dirent`, behind an entry if the listing has attributes.
    pub fn dirent(&mut self, ino: u64, next: u64, kind: u32, name: &OsStr) -> &mut Self {
        let name = name.as_bytes();
        self.u64(ino).u64(next).u32(name.len() as u32).u32(kind >> 12).bytes(name);
        self.zeros(name.len().next_multiple_of(8) - name.len())
    }

    /// Bytes of a directory's entry.
    pub fn dirent_size(name: &OsStr, plus: bool) -> usize {
        24 + name.len().next_multiple_of(8) + if plus { 128 } else { 0 }
    }

    /// The whole message.
    pub fn finish(mut self, unique: u64) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0[8..16].copy_from_slice(&unique.to_le_bytes());
        self.0
    }
}

/// A message that says what went wrong.
pub fn error(errno: Errno, unique: u64) -> Vec<u8> {
    let mut bytes = Reply::new().finish(unique);
    bytes[4..8].copy_from_slice(&(-(errno as i32)).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_the_sizes_of_the_kernels_header() {
        let attr = Attr::default();
        assert_eq!(Reply::new().attr(&attr).len(), 88);
        assert_eq!(Reply::new().attr_out(&attr, Valid(1)).len(), 104);
        assert_eq!(Reply::new().entry(1, &attr, Valid(1)).len(), 128);
        let name = OsStr::new("123456789");
        assert_eq!(Reply::new().dirent(1, 2, 0, name).len(), Reply::dirent_size(name, false));
        let bytes = error(Errno::EROFS, 7);
        assert_eq!(
            (bytes.len(), bytes[0], i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]])),
            (16, 16, -30)
        );
    }
}
