//! Maps that user space makes, fills, lists and pins. Keys and values are bytes.

use crate::{
    BpfError, attr, ids, pin,
    sys::{self, Command},
};
use nix::errno::Errno;
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// `BPF_MAP_UPDATE_ELEM`: only where the key is not there yet (include/uapi/linux/bpf.h).
pub const BPF_NOEXIST: u64 = 1;
/// `BPF_MAP_UPDATE_ELEM`: only where the key is there; a queue or stack that is full loses its oldest value (include/uapi/linux/bpf.h).
pub const BPF_EXIST: u64 = 2;
/// `BPF_MAP_CREATE`: memory for an entry is taken when it is inserted (include/uapi/linux/bpf.h).
pub const BPF_F_NO_PREALLOC: u32 = 1;

/// `enum bpf_map_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MapKind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash = 1,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array = 2,
    /// `BPF_MAP_TYPE_PERCPU_HASH`.
    PerCpuHash = 5,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    LruHash = 9,
    /// `BPF_MAP_TYPE_LRU_PERCPU_HASH`.
    LruPerCpuHash = 10,
    /// `BPF_MAP_TYPE_LPM_TRIE`: the key begins with the length of the prefix, `__u32`. Needs [`BPF_F_NO_PREALLOC`].
    LpmTrie = 11,
    /// `BPF_MAP_TYPE_DEVMAP`: indexes of devices, in the namespace of the thread that inserts.
    DevMap = 14,
    /// `BPF_MAP_TYPE_QUEUE`.
    Queue = 22,
    /// `BPF_MAP_TYPE_STACK`.
    Stack = 23,
    /// `BPF_MAP_TYPE_DEVMAP_HASH`: as [`MapKind::DevMap`].
    DevMapHash = 25,
}

impl MapKind {
    /// Whether every processor has a value of its own.
    const fn is_per_cpu(self) -> bool {
        matches!(self, Self::PerCpuHash | Self::LruPerCpuHash)
    }
}

/// What a descriptor may be used for (`bpf_get_file_flag()`, kernel/bpf/syscall.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MapAccess {
    /// No flag.
    Both = 0,
    /// `BPF_F_RDONLY`.
    Read = 1 << 3,
    /// `BPF_F_WRONLY`.
    Write = 1 << 4,
    /// Both flags, which contradict each other.
    Contradicting = 1 << 3 | 1 << 4,
}

/// A key and its value; the first processor's where each has its own.
pub type MapEntry<const K: usize, const V: usize> = ([u8; K], [u8; V]);

/// A map with keys of `K` and values of `V` bytes; queues and stacks have keys of none.
#[derive(Debug)]
pub struct BpfMap<const K: usize, const V: usize> {
    kind: MapKind,
    id: u32,
    entries: u32,
    /// Bytes by which the kernel and user space exchange a value: those of all processors where each has its own.
    exchanged: usize,
    fd: OwnedFd,
}

impl<const K: usize, const V: usize> BpfMap<K, V> {
    /// `BPF_MAP_CREATE`.
    ///
    /// # Errors
    /// [`BpfError::Call`].
    pub fn create(kind: MapKind, entries: u32, flags: u32) -> Result<Self, BpfError> {
        let mut attr = attr::MapCreate {
            map_type: kind as u32,
            key_size: K as u32,
            value_size: V as u32,
            max_entries: entries,
            map_flags: flags,
        };
        let fd =
            sys::map_create(&mut attr).map_err(|errno| BpfError::call(format!("BPF_MAP_CREATE {kind:?}"), errno))?;
        Self::of(kind, fd)
    }

    /// `BPF_OBJ_GET`, for this access only.
    ///
    /// # Errors
    /// [`BpfError::Call`]: `ENOENT` where nothing is pinned, `EINVAL` where it is another kind of map.
    pub fn open_pinned(kind: MapKind, path: &Path, access: MapAccess) -> Result<Self, BpfError> {
        Self::of(kind, pin::open_as(path, access as u32)?)
    }

    /// `BPF_MAP_GET_FD_BY_ID`.
    ///
    /// # Errors
    /// [`BpfError::Call`]: `ENOENT` where there is no such map, `EINVAL` where it is another kind of map.
    pub fn by_id(kind: MapKind, id: u32) -> Result<Self, BpfError> {
        Self::of(kind, ids::map_fd(id)?)
    }

    fn of(kind: MapKind, fd: OwnedFd) -> Result<Self, BpfError> {
        let failed = |errno| BpfError::call(format!("BPF_OBJ_GET_INFO_BY_FD of {kind:?}"), errno);
        let info: attr::RawMapInfo = sys::info(fd.as_fd()).map_err(failed)?;
        if (info.map_type, info.key_size, info.value_size) != (kind as u32, K as u32, V as u32) {
            return Err(failed(Errno::EINVAL));
        }
        let exchanged = if kind.is_per_cpu() {
            // round_up(value_size, 8) for each possible processor (bpf_map_value_size()).
            let processors = aya::util::nr_cpus().map_err(|_| failed(Errno::EIO))?;
            V.next_multiple_of(8) * processors
        } else {
            V
        };
        Ok(Self { kind, id: info.id, entries: info.max_entries, exchanged, fd })
    }

    /// `bpf_map_info.id`.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Inserts or replaces; where every processor has a value, this one for each.
    ///
    /// # Errors
    /// [`BpfError::Call`].
    pub fn insert(&self, key: &[u8; K], value: &[u8; V]) -> Result<(), BpfError> {
        self.insert_if(key, value, 0)
    }

    /// [`BpfMap::insert`] with flags: [`BPF_NOEXIST`], [`BPF_EXIST`].
    ///
    /// # Errors
    /// [`BpfError::Call`]: `EEXIST`, `ENOENT`; `E2BIG` or `ENOSPC` where the map is full.
    pub fn insert_if(&self, key: &[u8; K], value: &[u8; V], flags: u64) -> Result<(), BpfError> {
        let mut exchanged = vec![0; self.exchanged];
        for share in exchanged.chunks_mut(V.next_multiple_of(8)) {
            share[..V].copy_from_slice(value);
        }
        let mut attr = attr::MapElem { value: sys::address(&exchanged), flags, ..self.element(key) };
        self.call(Command::MapUpdateElem, "BPF_MAP_UPDATE_ELEM", &mut attr)
    }

    /// The value; the first processor's where each has its own.
    ///
    /// # Errors
    /// [`BpfError::Call`]: `ENOENT`.
    pub fn lookup(&self, key: &[u8; K]) -> Result<[u8; V], BpfError> {
        self.read(Command::MapLookupElem, "BPF_MAP_LOOKUP_ELEM", key)
    }

    /// `BPF_MAP_DELETE_ELEM`.
    ///
    /// # Errors
    /// [`BpfError::Call`]: `ENOENT`; `EINVAL` from an array.
    pub fn remove(&self, key: &[u8; K]) -> Result<(), BpfError> {
        self.call(Command::MapDeleteElem, "BPF_MAP_DELETE_ELEM", &mut self.element(key))
    }

    /// `BPF_MAP_GET_NEXT_KEY`: the key after this one, or the first; `None` at the end.
    ///
    /// # Errors
    /// [`BpfError::Call`].
    pub fn next_key(&self, key: Option<&[u8; K]>) -> Result<Option<[u8; K]>, BpfError> {
        let mut next = [0; K];
        let mut attr = attr::MapElem {
            map_fd: sys::number(self.as_fd()),
            key: key.map_or(0, |key| sys::address(key)),
            value: sys::address_mut(&mut next),
            ..attr::MapElem::default()
        };
        match sys::bpf(Command::MapGetNextKey, &mut attr) {
            Ok(_) => Ok(Some(next)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.failed("BPF_MAP_GET_NEXT_KEY", errno)),
        }
    }

    /// Every key, as [`BpfMap::next_key`] lists them. A kernel that goes round in circles is stopped after twice as many as there can be.
    ///
    /// # Errors
    /// [`BpfError::Call`].
    pub fn keys(&self) -> Result<Vec<[u8; K]>, BpfError> {
        let mut keys: Vec<[u8; K]> = Vec::new();
        while let Some(next) = self.next_key(keys.last())? {
            keys.push(next);
            if keys.len() > 2 * self.entries as usize {
                break;
            }
        }
        Ok(keys)
    }

    /// Every entry, as `BPF_MAP_LOOKUP_BATCH` lists them with room for so many at a time. Stopped as [`BpfMap::keys`].
    ///
    /// # Errors
    /// [`BpfError::Call`]: `ENOSPC` where a bucket has more entries than there is room for.
    pub fn batches(&self, room: usize) -> Result<Vec<MapEntry<K, V>>, BpfError> {
        self.by_batch(Command::MapLookupBatch, "BPF_MAP_LOOKUP_BATCH", room)
    }

    /// [`BpfMap::batches`] by `BPF_MAP_LOOKUP_AND_DELETE_BATCH`.
    ///
    /// # Errors
    /// As [`BpfMap::batches`].
    pub fn drain(&self, room: usize) -> Result<Vec<MapEntry<K, V>>, BpfError> {
        self.by_batch(Command::MapLookupAndDeleteBatch, "BPF_MAP_LOOKUP_AND_DELETE_BATCH", room)
    }

    /// `BPF_MAP_FREEZE`: no descriptor writes any more.
    ///
    /// # Errors
    /// [`BpfError::Call`].
    pub fn freeze(&self) -> Result<(), BpfError> {
        sys::map_freeze(self.as_fd()).map_err(|errno| self.failed("BPF_MAP_FREEZE", errno))
    }

    /// `BPF_OBJ_PIN`.
    ///
    /// # Errors
    /// [`BpfError::Call`]: `EEXIST` where the path is taken.
    pub fn pin(&self, path: &Path) -> Result<(), BpfError> {
        pin::pin(self.as_fd(), path)
    }

    fn by_batch(&self, command: Command, name: &str, room: usize) -> Result<Vec<MapEntry<K, V>>, BpfError> {
        // A hash names the next bucket by 4 bytes, other maps name the last key.
        let place = K.max(4);
        let (mut found, mut from) = (Vec::new(), Vec::new());
        while found.len() <= 2 * self.entries as usize {
            let (mut keys, mut values) = (vec![0; room * K], vec![0; room * self.exchanged]);
            let mut next: Vec<u8> = vec![0; place];
            let mut attr = attr::MapBatch {
                in_batch: if from.is_empty() { 0 } else { sys::address(&from) },
                out_batch: sys::address_mut(&mut next),
                keys: sys::address_mut(&mut keys),
                values: sys::address_mut(&mut values),
                count: room as u32,
                map_fd: sys::number(self.as_fd()),
                ..attr::MapBatch::default()
            };
            let result = sys::bpf(command, &mut attr);
            if let Err(errno) = result
                && errno != Errno::ENOENT
            {
                return Err(self.failed(name, errno));
            }
            let (keys, values) = (keys.as_chunks::<K>().0, values.chunks(self.exchanged));
            found.extend(keys.iter().copied().zip(values.map(first)).take(attr.count as usize));
            if result.is_err() {
                break;
            }
            from = next;
        }
        Ok(found)
    }

    fn read(&self, command: Command, name: &str, key: &[u8; K]) -> Result<[u8; V], BpfError> {
        let mut exchanged = vec![0; self.exchanged];
        let mut attr = attr::MapElem { value: sys::address_mut(&mut exchanged), ..self.element(key) };
        self.call(command, name, &mut attr)?;
        Ok(first(&exchanged))
    }

    fn element(&self, key: &[u8; K]) -> attr::MapElem {
        attr::MapElem {
            map_fd: sys::number(self.as_fd()),
            // Maps without keys take no address of one (bpf_map_copy_key()).
            key: if K == 0 { 0 } else { sys::address(key) },
            ..attr::MapElem::default()
        }
    }

    fn call(&self, command: Command, name: &str, attr: &mut attr::MapElem) -> Result<(), BpfError> {
        sys::bpf(command, attr).map(drop).map_err(|errno| self.failed(name, errno))
    }

    fn failed(&self, name: &str, errno: Errno) -> BpfError {
        BpfError::call(format!("{name} of {:?}", self.kind), errno)
    }
}

impl<const V: usize> BpfMap<0, V> {
    /// Adds a value. With [`BPF_EXIST`] a full one loses its oldest value.
    ///
    /// # Errors
    /// [`BpfError::Call`]: `E2BIG` where it is full.
    pub fn push(&self, value: &[u8; V], flags: u64) -> Result<(), BpfError> {
        self.insert_if(&[], value, flags)
    }

    /// The next value, which stays.
    ///
    /// # Errors
    /// [`BpfError::Call`]: `ENOENT` where there is none.
    pub fn peek(&self) -> Result<[u8; V], BpfError> {
        self.lookup(&[])
    }

    /// The next value, which goes: `BPF_MAP_LOOKUP_AND_DELETE_ELEM`.
    ///
    /// # Errors
    /// As [`BpfMap::peek`].
    pub fn pop(&self) -> Result<[u8; V], BpfError> {
        self.read(Command::MapLookupAndDeleteElem, "BPF_MAP_LOOKUP_AND_DELETE_ELEM", &[])
    }
}

impl<const K: usize, const V: usize> AsFd for BpfMap<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The first processor's value, or the only one.
fn first<const V: usize>(exchanged: &[u8]) -> [u8; V] {
    exchanged.first_chunk().copied().unwrap_or([0; V])
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya_obj::generated as uapi;

    #[test]
    fn kinds_and_flags_are_the_kernels() {
        for (kind, number) in [
            (MapKind::Hash, uapi::bpf_map_type::BPF_MAP_TYPE_HASH),
            (MapKind::Array, uapi::bpf_map_type::BPF_MAP_TYPE_ARRAY),
            (MapKind::PerCpuHash, uapi::bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH),
            (MapKind::LruHash, uapi::bpf_map_type::BPF_MAP_TYPE_LRU_HASH),
            (MapKind::LruPerCpuHash, uapi::bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH),
            (MapKind::LpmTrie, uapi::bpf_map_type::BPF_MAP_TYPE_LPM_TRIE),
            (MapKind::DevMap, uapi::bpf_map_type::BPF_MAP_TYPE_DEVMAP),
            (MapKind::Queue, uapi::bpf_map_type::BPF_MAP_TYPE_QUEUE),
            (MapKind::Stack, uapi::bpf_map_type::BPF_MAP_TYPE_STACK),
            (MapKind::DevMapHash, uapi::bpf_map_type::BPF_MAP_TYPE_DEVMAP_HASH),
        ] {
            assert_eq!(kind as u32, number as u32, "{kind:?}");
        }
        assert_eq!([MapAccess::Read as u32, MapAccess::Write as u32], [uapi::BPF_F_RDONLY, uapi::BPF_F_WRONLY]);
        assert_eq!(BPF_F_NO_PREALLOC, uapi::BPF_F_NO_PREALLOC);
        assert_eq!([BPF_NOEXIST, BPF_EXIST], [uapi::BPF_NOEXIST, uapi::BPF_EXIST].map(u64::from));
    }
}
