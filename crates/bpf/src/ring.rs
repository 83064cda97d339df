//! Ring buffers, read by aya.

use crate::{BpfError, attr, sys};
use aya::maps::{Map, MapData, MapError, RingBuf};
use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
};

const BPF_MAP_TYPE_RINGBUF: u32 = 27;

/// A `BPF_MAP_TYPE_RINGBUF` with its consumer.
pub struct Ring {
    bytes: u32,
    records: RingBuf<MapData>,
}

impl Ring {
    /// One of so many bytes: a power of two, and whole pages.
    ///
    /// # Errors
    /// [`BpfError::Call`]; [`BpfError::Map`] where its memory can't be mapped.
    pub fn create(bytes: u32) -> Result<Self, BpfError> {
        let wrong = |error: MapError| BpfError::Map { map: "ring buffer", error };
        let mut attr =
            attr::MapCreate { map_type: BPF_MAP_TYPE_RINGBUF, max_entries: bytes, ..attr::MapCreate::default() };
        let fd = sys::map_create(&mut attr).map_err(|errno| BpfError::call("BPF_MAP_CREATE ring buffer", errno))?;
        let map = MapData::from_fd(fd).and_then(Map::from_map_data).map_err(wrong)?;
        Ok(Self { bytes, records: map.try_into().map_err(wrong)? })
    }

    /// The oldest record that was submitted and not read; those before it that were discarded are passed over.
    pub fn next_record(&mut self) -> Option<Vec<u8>> {
        self.records.next().map(|record| record.to_vec())
    }

    /// All of them, oldest first, and no more than the ring has room for.
    pub fn records(&mut self) -> Vec<Vec<u8>> {
        let most = self.bytes as usize;
        std::iter::from_fn(|| self.next_record()).take(most).collect()
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({} bytes)", self.bytes)
    }
}
