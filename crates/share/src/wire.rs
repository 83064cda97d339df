//! Numbers and layouts of `include/uapi/linux/fuse.h`, protocol 7.36.

/// Version that this server speaks; both sides use the smaller minor number.
pub const MAJOR: u32 = 7;
pub const MINOR: u32 = 36;
/// `struct fuse_in_header`.
pub const IN_HEADER: usize = 40;
/// `struct fuse_out_header`.
pub const OUT_HEADER: usize = 16;
/// Bytes of data in one read or write.
pub const MAX_DATA: u32 = 256 << 10;
/// `max_pages` for [`MAX_DATA`].
pub const MAX_PAGES: u16 = 64;
/// Longest request: the data of a write, its headers, and room for two names.
pub const MAX_REQUEST: usize = MAX_DATA as usize + 16384;

pub const LOOKUP: u32 = 1;
pub const FORGET: u32 = 2;
pub const GETATTR: u32 = 3;
pub const SETATTR: u32 = 4;
pub const READLINK: u32 = 5;
pub const SYMLINK: u32 = 6;
pub const MKNOD: u32 = 8;
pub const MKDIR: u32 = 9;
pub const UNLINK: u32 = 10;
pub const RMDIR: u32 = 11;
pub const RENAME: u32 = 12;
pub const LINK: u32 = 13;
pub const READ: u32 = 15;
pub const WRITE: u32 = 16;
pub const STATFS: u32 = 17;
pub const RELEASE: u32 = 18;
pub const FSYNC: u32 = 20;
pub const INIT: u32 = 26;
pub const READDIR: u32 = 28;
pub const RELEASEDIR: u32 = 29;
pub const INTERRUPT: u32 = 36;
pub const DESTROY: u32 = 38;
pub const BATCH_FORGET: u32 = 42;
pub const READDIRPLUS: u32 = 44;
pub const RENAME2: u32 = 45;
pub const SYNCFS: u32 = 50;

/// Flags of `FUSE_INIT` that this server uses, each if the kernel offers it: asynchronous reads, large writes, validation of
/// cached data by time and size, directories with attributes (where they help), parallel lookups, large requests, cached
/// links.
pub const INIT_FLAGS: u32 = 1 | 1 << 5 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 18 | 1 << 22 | 1 << 23;
/// `FUSE_NO_OPEN_SUPPORT` and `FUSE_NO_OPENDIR_SUPPORT`: files and directories need not be opened (Linux 3.15 and 5.1).
pub const STATELESS: u32 = 1 << 17 | 1 << 24;

pub const FATTR_MODE: u32 = 1;
pub const FATTR_UID: u32 = 2;
pub const FATTR_GID: u32 = 4;
pub const FATTR_SIZE: u32 = 8;
pub const FATTR_ATIME: u32 = 16;
pub const FATTR_MTIME: u32 = 32;
pub const FATTR_ATIME_NOW: u32 = 128;
pub const FATTR_MTIME_NOW: u32 = 256;

/// `S_IFMT` and the types.
pub const S_IFMT: u32 = 0o170_000;
pub const S_IFDIR: u32 = 0o040_000;
pub const S_IFREG: u32 = 0o100_000;
pub const S_IFLNK: u32 = 0o120_000;
