//! What sources read from their archives while a lock is updated.

use super::Result;
use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, btree_map::Entry},
};

/// Indexes of archives, so that the kernels of one archive share one download. Each source keeps a type of its own, by
/// the name that it has for an archive (a suite, a repository).
#[derive(Default)]
pub(crate) struct Indexes(BTreeMap<(TypeId, String), Box<dyn Any>>);

impl Indexes {
    /// The index of an archive, which `read` fetches if it was not read before.
    ///
    /// # Errors
    /// `read` fails. The next call reads again.
    pub fn get_or_read<T: Any>(&mut self, archive: &str, read: impl FnOnce() -> Result<T>) -> Result<&T> {
        let index = match self.0.entry((TypeId::of::<T>(), archive.to_owned())) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Box::new(read()?)),
        };
        Ok(index.downcast_ref().expect("the key contains the type"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelsError;

    #[test]
    fn an_archive_is_read_once_for_each_type_and_again_after_an_error() {
        let mut indexes = Indexes::default();
        let gone = || KernelsError::NoPackage { pattern: "x".into(), suite: "trixie".into(), nearest: String::new() };
        assert!(indexes.get_or_read::<u32>("trixie", || Err(gone())).is_err());
        assert_eq!(indexes.get_or_read("trixie", || Ok(1_u32)).unwrap(), &1);
        assert_eq!(indexes.get_or_read("trixie", || Ok(2_u32)).unwrap(), &1);
        assert_eq!(indexes.get_or_read("sid", || Ok(3_u32)).unwrap(), &3);
        assert_eq!(indexes.get_or_read("trixie", || Ok("text")).unwrap(), &"text");
    }
}
