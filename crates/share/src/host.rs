//! Directories of the host: opening what is below them, and its attributes.

use crate::reply::Attr;
use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::{
        stat::{FileStat, Mode, fstat},
        statfs::fstatfs,
    },
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// File systems that show a kernel, and not files: `statfs(2)`, `include/uapi/linux/magic.h`. The guest has its own, and the
/// host's tell secrets of every process (`/proc/PID/environ`).
const KERNELS_OWN: [u32; 18] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x1cd1,      // devpts
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0x1980_0202, // mqueue
    0x4249_4e4d, // binfmt_misc
    0x6e73_6673, // nsfs
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0xf97c_ff8c, // selinuxfs
    0x4341_5d53, // smackfs
    0x6573_5543, // fusectl
];

fn resolved(root: impl AsFd, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).resolve(resolve);
    openat2(root, path, how)
}

/// The place of a file: a descriptor that reads and writes nothing.
pub fn place(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    resolved(root, path, OFlag::O_PATH)
}

/// The place of a directory.
pub fn directory(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    resolved(root, path, OFlag::O_PATH | OFlag::O_DIRECTORY)
}

/// Opens a regular file. Others may have effects when they are opened, or block.
pub fn regular(root: impl AsFd, path: &Path, writable: bool) -> Result<File, Errno> {
    let place = place(root, path)?;
    match fstat(&place)?.st_mode & crate::wire::S_IFMT {
        crate::wire::S_IFREG => {}
        crate::wire::S_IFDIR => return Err(Errno::EISDIR),
        _ => return Err(Errno::EACCES),
    }
    let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let flags = access | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    open(&alias(&place), flags, Mode::empty()).map(File::from)
}

/// A path by which a place that was found is reached again, whatever its name is by now.
pub fn alias(place: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// Attributes of a file and the number of its file system.
pub fn attributes(file: impl AsFd) -> Result<(Attr, u64), Errno> {
    fstat(file).map(|stat| (attr(&stat), stat.st_dev))
}

fn attr(stat: &FileStat) -> Attr {
    let nanoseconds = |value: i64| u32::try_from(value).unwrap_or(0);
    Attr {
        // OpenFiles of several file systems appear in one: their numbers must differ. Bit 63 is left to other items.
        ino: (stat.st_ino ^ stat.st_dev.rotate_left(40)) & !(1 << 63),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
        times: [
            (stat.st_atime, nanoseconds(stat.st_atime_nsec)),
            (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
            (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
        ],
        mode: stat.st_mode,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: u32::try_from(stat.st_rdev).unwrap_or(0),
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
    }
}

/// Whether a directory shows the host's kernel.
pub fn shows_the_kernel(directory: impl AsFd) -> bool {
    // The numbers have 32 bits, whatever the type.
    fstatfs(directory).is_ok_and(|found| KERNELS_OWN.contains(&(found.filesystem_type().0 as u32)))
}

/// Names in a directory, with types where the file system knows them.
pub fn list(root: impl AsFd, path: &Path) -> Result<Vec<(OsString, u32)>, Errno> {
    let opened = resolved(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    let mut dir = Dir::from_fd(opened)?;
    let mut found = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            found.push((name.to_owned(), entry.file_type().map_or(0, kind)));
        }
    }
    Ok(found)
}

const fn kind(found: Type) -> u32 {
    match found {
        Type::Fifo => 0o010_000,
        Type::CharacterDevice => 0o020_000,
        Type::Directory => 0o040_000,
        Type::BlockDevice => 0o060_000,
        Type::File => 0o100_000,
        Type::Symlink => 0o120_000,
        Type::Socket => 0o140_000,
    }
}
