//! bpf(2) itself. Every unsafe call of the crate is here.

use crate::attr;
use nix::errno::Errno;
use std::{
    ffi::CString,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
};

/// Commands in use, numbered as in `enum bpf_cmd`.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Command {
    MapCreate = 0,
    MapLookupElem = 1,
    MapUpdateElem = 2,
    MapDeleteElem = 3,
    MapGetNextKey = 4,
    ProgLoad = 5,
    ObjPin = 6,
    ObjGet = 7,
    ProgAttach = 8,
    ProgDetach = 9,
    ProgTestRun = 10,
    ProgGetNextId = 11,
    MapGetNextId = 12,
    ProgGetFdById = 13,
    MapGetFdById = 14,
    ObjGetInfoByFd = 15,
    ProgQuery = 16,
    RawTracepointOpen = 17,
    BtfGetFdById = 19,
    MapLookupAndDeleteElem = 21,
    MapFreeze = 22,
    BtfGetNextId = 23,
    MapLookupBatch = 24,
    MapLookupAndDeleteBatch = 25,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkGetFdById = 30,
    LinkGetNextId = 31,
    EnableStats = 32,
    LinkDetach = 34,
}

/// Calls bpf(2). The addresses in `attr` must point to memory of the size that `attr` tells; the wrappers below and
/// the callers within the crate keep them alive across the call.
pub fn bpf<T>(command: Command, attr: &mut T) -> Result<i32, Errno> {
    // SAFETY: `attr` is one of `crate::attr`, valid for reads and writes of its size; addresses within it are covered
    // by the contract above.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attr, size_of::<T>()) };
    Errno::result(result).map(|value| value as i32)
}

/// As [`bpf`], with the bytes of an attribute in a field of zeros of that length, and one byte of it set. For questions
/// about what the kernel makes of bytes that it does not expect; the command must not succeed in anything but making a
/// descriptor, which is closed at once.
pub fn bpf_padded<T>(command: Command, attr: &T, length: usize, set: Option<usize>) -> Result<(), Errno> {
    let mut bytes = vec![0u8; length.max(size_of::<T>())];
    // SAFETY: `attr` is one of `crate::attr`: integers without padding, so that every byte is initialised.
    let known = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(attr).cast::<u8>(), size_of::<T>()) };
    bytes[..known.len()].copy_from_slice(known);
    if let Some(at) = set {
        bytes[at] = 1;
    }
    // SAFETY: valid for reads and writes of its length; addresses within it are covered by the contract of `bpf`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, bytes.as_mut_ptr(), bytes.len()) };
    // SAFETY: the kernel just created the descriptor for this call, nothing else owns it.
    Errno::result(result).map(|fd| drop(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// As [`bpf`], for the commands that answer with a descriptor (close-on-exec by the kernel's doing).
pub fn bpf_fd<T>(command: Command, attr: &mut T) -> Result<OwnedFd, Errno> {
    // SAFETY: the kernel just created the descriptor for this call, nothing else owns it.
    bpf(command, attr).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs `work` on a thread of its own that has given up root and with it every capability. The thread is in the caller's
/// namespaces.
///
/// # Errors
/// Where the thread can't change its user.
///
/// # Panics
/// With the panic of `work`.
pub fn as_nobody<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, Errno> {
    const NOBODY: libc::uid_t = 65_534;
    let change = || {
        // SAFETY: takes numbers only. The bare call changes this thread alone; libc's wrapper would change them all.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        Errno::result(result).map(drop)
    };
    let thread = || change().map(|()| work());
    std::thread::scope(|scope| scope.spawn(thread).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A descriptor as bpf(2) wants it.
pub fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// An address as bpf(2) wants it.
pub fn address<T>(data: &[T]) -> u64 {
    data.as_ptr() as u64
}

/// As [`address`], for memory that the kernel fills.
pub fn address_mut<T>(data: &mut [T]) -> u64 {
    data.as_mut_ptr() as u64
}

/// `BPF_OBJ_GET_INFO_BY_FD` into one of `crate::attr`'s info structs.
pub fn info<T: Default>(fd: BorrowedFd<'_>) -> Result<T, Errno> {
    info_into(fd, T::default())
}

/// As [`info`], into a struct that tells the kernel what else it shall fill. Addresses in it are covered by the contract of [`bpf`].
pub fn info_into<T>(fd: BorrowedFd<'_>, asking: T) -> Result<T, Errno> {
    let mut info = [asking];
    let mut attr = attr::ObjInfo { bpf_fd: number(fd), info_len: size_of::<T>() as u32, info: address_mut(&mut info) };
    bpf(Command::ObjGetInfoByFd, &mut attr)?;
    let [info] = info;
    Ok(info)
}

/// The name of type information: `vmlinux`, or a module's.
pub fn btf_name(fd: BorrowedFd<'_>) -> Result<String, Errno> {
    let mut name = [0u8; 64];
    let mut info = [attr::BtfInfo { name: address_mut(&mut name), name_len: name.len() as u32, ..Default::default() }];
    let info_len = size_of::<attr::BtfInfo>() as u32;
    let mut attr = attr::ObjInfo { bpf_fd: number(fd), info_len, info: address_mut(&mut info) };
    bpf(Command::ObjGetInfoByFd, &mut attr)?;
    Ok(name.split(|byte| *byte == 0).next().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default())
}

/// `BPF_OBJ_PIN`.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    let path = c_path(path)?;
    let mut attr =
        attr::Obj { pathname: address(path.as_bytes_with_nul()), bpf_fd: number(fd), ..attr::Obj::default() };
    bpf(Command::ObjPin, &mut attr).map(drop)
}

/// `BPF_OBJ_GET` with any flags of the file, 0 for none.
pub fn open_pinned(path: &Path, file_flags: u32) -> Result<OwnedFd, Errno> {
    let path = c_path(path)?;
    let mut attr = attr::Obj { pathname: address(path.as_bytes_with_nul()), file_flags, ..attr::Obj::default() };
    bpf_fd(Command::ObjGet, &mut attr)
}

fn c_path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Errno::EINVAL)
}

/// `BPF_MAP_CREATE`.
pub fn map_create(attr: &mut attr::MapCreate) -> Result<OwnedFd, Errno> {
    bpf_fd(Command::MapCreate, attr)
}

/// `BPF_MAP_UPDATE_ELEM` with any flags of 0.
pub fn map_update(map: BorrowedFd<'_>, key: u32, value: &[u8]) -> Result<(), Errno> {
    let key = [key];
    let mut attr =
        attr::MapElem { map_fd: number(map), key: address(&key), value: address(value), ..attr::MapElem::default() };
    bpf(Command::MapUpdateElem, &mut attr).map(drop)
}

/// `BPF_MAP_LOOKUP_ELEM`.
pub fn map_lookup(map: BorrowedFd<'_>, key: u32, value: &mut [u8]) -> Result<(), Errno> {
    let key = [key];
    let mut attr = attr::MapElem {
        map_fd: number(map),
        key: address(&key),
        value: address_mut(value),
        ..attr::MapElem::default()
    };
    bpf(Command::MapLookupElem, &mut attr).map(drop)
}

/// `BPF_MAP_DELETE_ELEM`.
pub fn map_delete(map: BorrowedFd<'_>, key: u32) -> Result<(), Errno> {
    let key = [key];
    let mut attr = attr::MapElem { map_fd: number(map), key: address(&key), ..attr::MapElem::default() };
    bpf(Command::MapDeleteElem, &mut attr).map(drop)
}

/// `BPF_MAP_FREEZE`: user space gives up writing, so the verifier may take the contents for constants.
pub fn map_freeze(map: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attr = attr::MapElem { map_fd: number(map), ..attr::MapElem::default() };
    bpf(Command::MapFreeze, &mut attr).map(drop)
}

/// A value's bytes.
pub fn bytes_of<T: aya::Pod>(value: &T) -> &[u8] {
    // SAFETY: `Pod` promises plain data, which is initialised throughout; the lifetime is the value's.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}
