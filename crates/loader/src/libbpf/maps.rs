//! Maps: of an object, and as the kernel lists those of loaded programs.

use super::{map_type_name, owned, sys, text, text_in};
use lab_check::{CounterPlace, MapShape};
use nix::errno::Errno;
use std::{
    ffi::{CString, c_void},
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr::NonNull,
};

/// `enum bpf_map_type`: maps with a value for each processor.
const PER_CPU: [u32; 4] = [
    sys::BPF_MAP_TYPE_PERCPU_HASH,
    sys::BPF_MAP_TYPE_PERCPU_ARRAY,
    sys::BPF_MAP_TYPE_LRU_PERCPU_HASH,
    sys::BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
];
/// Bytes of a counter, at most.
const COUNTER: usize = 8;
/// Maps of a program that are looked at, at most (`MAX_USED_MAPS`, include/linux/bpf_verifier.h).
const MAPS: usize = 64;

/// A map of an opened object.
#[derive(Clone, Copy)]
pub struct ObjectMap<'a> {
    map: NonNull<sys::bpf_map>,
    object: PhantomData<&'a ()>,
}

/// What the inner maps of a map are.
#[derive(Debug, Clone, Copy)]
pub struct InnerShape {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

impl InnerShape {
    /// As `check.toml` says it; `None` for a type that libbpf does not know.
    pub fn told(shape: &MapShape) -> Option<Self> {
        let kind = (1..64).find(|kind| map_type_name(*kind) == shape.kind)?;
        let MapShape { kind: _, key_size, value_size, max_entries } = *shape;
        Some(Self { kind, key_size, value_size, max_entries, flags: 0 })
    }

    /// Makes such a map.
    ///
    /// # Errors
    /// The errno, negative.
    pub fn make(&self, name: &str) -> Result<OwnedFd, i32> {
        let name = CString::new(name.replace('\0', "")).unwrap_or_default();
        let options = sys::bpf_map_create_opts {
            sz: size_of::<sys::bpf_map_create_opts>() as u64,
            map_flags: self.flags,
            ..Default::default()
        };
        let (key, value) = (self.key_size, self.value_size);
        // SAFETY: the string and the options live across the call.
        owned(unsafe {
            sys::bpf_map_create(self.kind, name.as_ptr(), key, value, self.max_entries, &raw const options)
        })
    }

    /// Bytes of a key and of a value.
    pub const fn sizes(&self) -> (usize, usize) {
        (self.key_size as usize, self.value_size as usize)
    }
}

/// Creates a map and pins it.
///
/// # Errors
/// The errno, negative.
pub fn pin_map(path: &str, name: &str, wanted: &MapShape) -> Result<(), i32> {
    let map = InnerShape::told(wanted).ok_or(-libc::EINVAL)?.make(name)?;
    let path = CString::new(path.replace('\0', "")).unwrap_or_default();
    // SAFETY: the string lives across the call, and the descriptor is open.
    match unsafe { sys::bpf_obj_pin(map.as_raw_fd(), path.as_ptr()) } {
        0 => Ok(()),
        error => Err(error),
    }
}

/// Makes a map and fills it.
///
/// # Errors
/// The errno, negative.
pub fn inner_map_of(shape: InnerShape, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<OwnedFd, i32> {
    let map = shape.make("inner")?;
    for (key, value) in entries {
        write(map.as_raw_fd(), shape.sizes(), key, value)?;
    }
    Ok(map)
}

/// Writes a value.
fn write(fd: i32, sizes: (usize, usize), key: &[u8], value: &[u8]) -> Result<(), i32> {
    if (key.len(), value.len()) != sizes {
        return Err(-libc::EINVAL);
    }
    let (key, value): (*const c_void, *const c_void) = (key.as_ptr().cast(), value.as_ptr().cast());
    // SAFETY: the kernel refuses a descriptor that is none of a map; key and value have its sizes.
    match unsafe { sys::bpf_map_update_elem(fd, key, value, 0) } {
        0 => Ok(()),
        error => Err(error),
    }
}

impl ObjectMap<'_> {
    pub(super) const fn of(map: NonNull<sys::bpf_map>) -> Self {
        Self { map, object: PhantomData }
    }

    pub(super) const fn as_ptr(&self) -> *mut sys::bpf_map {
        self.map.as_ptr()
    }

    pub fn name(&self) -> String {
        // SAFETY: the object is open.
        text(unsafe { sys::bpf_map__name(self.map.as_ptr()) })
    }

    /// `enum bpf_map_type`.
    pub fn kind(&self) -> u32 {
        // SAFETY: the object is open.
        unsafe { sys::bpf_map__type(self.map.as_ptr()) }
    }

    pub fn set_max_entries(&self, count: u32) {
        // SAFETY: the object is open and not loaded, or libbpf refuses.
        unsafe { sys::bpf_map__set_max_entries(self.map.as_ptr(), count) };
    }

    /// Bytes of a key and of a value.
    pub fn sizes(&self) -> (usize, usize) {
        // SAFETY: the object is open.
        unsafe {
            (sys::bpf_map__key_size(self.map.as_ptr()) as usize, sys::bpf_map__value_size(self.map.as_ptr()) as usize)
        }
    }

    /// Writes a value.
    ///
    /// # Errors
    /// The errno, negative; `EINVAL` for other lengths than [`Self::sizes`].
    pub fn write(&self, key: &[u8], value: &[u8]) -> Result<(), i32> {
        // SAFETY: the object is open; the descriptor is negative where the map is not loaded.
        write(unsafe { sys::bpf_map__fd(self.map.as_ptr()) }, self.sizes(), key, value)
    }

    /// What its inner maps are, as the object says it; only before the load.
    pub fn inner(&self) -> Option<InnerShape> {
        // SAFETY: the object is open; the result is null or a map of it.
        let inner = NonNull::new(unsafe { sys::bpf_map__inner_map(self.map.as_ptr()) })?;
        let inner = Self::of(inner);
        let (key_size, value_size) = inner.sizes();
        // SAFETY: as above.
        let (max_entries, flags) =
            unsafe { (sys::bpf_map__max_entries(inner.map.as_ptr()), sys::bpf_map__map_flags(inner.map.as_ptr())) };
        Some(InnerShape {
            kind: inner.kind(),
            key_size: key_size as u32,
            value_size: value_size as u32,
            max_entries,
            flags,
        })
    }

    /// Has libbpf make it for inner maps like this one, which must be open until the load.
    ///
    /// # Errors
    /// The errno, negative.
    pub fn set_inner(&self, map: &impl AsFd) -> Result<(), i32> {
        // SAFETY: the object is open and not loaded, or libbpf refuses; the descriptor is open.
        match unsafe { sys::bpf_map__set_inner_map_fd(self.map.as_ptr(), map.as_fd().as_raw_fd()) } {
            0 => Ok(()),
            error => Err(error),
        }
    }
}

/// A map as the kernel lists it.
pub struct KernelMap {
    fd: OwnedFd,
    kind: u32,
    key_size: u32,
    value_size: u32,
    name: String,
}

/// Why a counter can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CounterError {
    #[error("no program that is loaded has such a map")]
    NoMap,
    #[error("its keys have {has} bytes, this one has {given}")]
    Key { has: u32, given: usize },
    #[error("its values have {has} bytes, the counter begins at {at}")]
    Value { has: usize, at: usize },
    #[error("{0:?}")]
    Kernel(Errno),
}

/// A map that a counter is in, and where.
pub struct Counter<'a> {
    place: &'a CounterPlace,
    map: Option<&'a KernelMap>,
}

impl KernelMap {
    /// The maps of a loaded program.
    pub fn of_program(program: &impl AsFd) -> Vec<Self> {
        let mut ids = [0u32; MAPS];
        let mut info =
            sys::bpf_prog_info { nr_map_ids: MAPS as u32, map_ids: ids.as_mut_ptr() as u64, ..Default::default() };
        let mut length = size_of::<sys::bpf_prog_info>() as u32;
        let fd = program.as_fd().as_raw_fd();
        // SAFETY: the structure and its size; its only address is that of the room for so many ids, which lives across the call.
        let done = unsafe { sys::bpf_prog_get_info_by_fd(fd, &raw mut info, &raw mut length) };
        if done != 0 {
            return Vec::new();
        }
        ids.iter().take(info.nr_map_ids as usize).filter_map(|id| Self::by_id(*id)).collect()
    }

    fn by_id(id: u32) -> Option<Self> {
        // SAFETY: takes a number; the descriptor is this function's own.
        let fd = owned(unsafe { sys::bpf_map_get_fd_by_id(id) }).ok()?;
        let mut info = sys::bpf_map_info::default();
        let mut length = size_of::<sys::bpf_map_info>() as u32;
        // SAFETY: the structure and its size; all addresses in it are null.
        let done = unsafe { sys::bpf_map_get_info_by_fd(fd.as_raw_fd(), &raw mut info, &raw mut length) };
        let (kind, key_size, value_size) = (info.type_, info.key_size, info.value_size);
        (done == 0).then(|| Self { fd, kind, key_size, value_size, name: text_in(&info.name) })
    }
}

impl<'a> Counter<'a> {
    /// Finds its map among those of the programs. The kernel keeps 15 characters of a name.
    pub fn find(place: &'a CounterPlace, maps: &'a [KernelMap]) -> Self {
        let is_it = |map: &&KernelMap| {
            !map.name.is_empty() && (map.name == place.map || map.name.len() == 15 && place.map.starts_with(&map.name))
        };
        Self { place, map: maps.iter().find(is_it) }
    }

    /// Its value, of all processors together; 0 where the map has no such key.
    ///
    /// # Errors
    /// [`CounterError`].
    pub fn read(&self) -> Result<u64, CounterError> {
        let map = self.map.ok_or(CounterError::NoMap)?;
        let (key, at) = (&self.place.key, self.place.at as usize);
        let size = map.value_size as usize;
        if key.len() != map.key_size as usize {
            return Err(CounterError::Key { has: map.key_size, given: key.len() });
        }
        if at >= size {
            return Err(CounterError::Value { has: size, at });
        }
        let is_per_cpu = PER_CPU.contains(&map.kind);
        // SAFETY: takes nothing, returns a number.
        let processors = if is_per_cpu { unsafe { sys::libbpf_num_possible_cpus() }.max(1) as usize } else { 1 };
        let step = if is_per_cpu { size.next_multiple_of(8) } else { size };
        let mut values = vec![0u8; step * processors];
        // SAFETY: the key has the map's size, and the room is for a value of each processor, rounded up to eight bytes
        // (`bpf_map_value_size`, kernel/bpf/syscall.c).
        let done = unsafe {
            sys::bpf_map_lookup_elem(map.fd.as_raw_fd(), key.as_ptr().cast::<c_void>(), values.as_mut_ptr().cast())
        };
        match done {
            0 => Ok(values.chunks(step).map(|value| number(&value[at..size])).fold(0, u64::wrapping_add)),
            error if error == -libc::ENOENT => Ok(0),
            error => Err(CounterError::Kernel(Errno::from_raw(error.abs()))),
        }
    }
}

/// The first eight bytes as a number in the machine's order.
fn number(bytes: &[u8]) -> u64 {
    let mut whole = [0; COUNTER];
    let length = bytes.len().min(COUNTER);
    whole[..length].copy_from_slice(&bytes[..length]);
    u64::from_le_bytes(whole)
}
