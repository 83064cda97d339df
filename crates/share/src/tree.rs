//! What is served: directories, files and links that were put together, and directories of the host.

use crate::{
    budget::WriteBudget,
    reply::Attr,
    wire::{S_IFDIR, S_IFLNK, S_IFREG},
};
use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// Number of an item in its tree.
pub type ItemId = usize;

/// Why something can't be put into a tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A directory of the host can't be opened.
    #[error("{}: {error}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// Something that is not a directory has entries.
    #[error("`{}` is not a directory", path.display())]
    NotADirectory {
        /// Its path in the tree.
        path: PathBuf,
    },
    /// A path has a component that leads elsewhere.
    #[error("`{}` has a component `..`", path.display())]
    Climbs {
        /// The path.
        path: PathBuf,
    },
}

/// Permissions, owner and time of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification, seconds since the epoch.
    pub mtime: i64,
}

impl Look {
    /// Root's, with these permissions.
    pub const fn root(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: 0 }
    }
}

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
pub enum FileSource {
    /// Here.
    Bytes(Arc<[u8]>),
    /// In an open file of the host.
    Piece {
        /// The file.
        file: Arc<File>,
        /// Where the bytes begin in it.
        offset: u64,
        /// How many there are.
        length: u64,
    },
}

impl FileSource {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Piece { length, .. } => *length,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Content {
    Directory(BTreeMap<OsString, ItemId>),
    File(FileSource),
    Link(OsString),
    /// A device, a FIFO or a socket: it has attributes only.
    Special(u32),
    Host(HostDirectory),
}

/// A directory of the host.
#[derive(Debug)]
pub(crate) struct HostDirectory {
    pub(crate) path: PathBuf,
    pub(crate) root: OwnedFd,
    /// `None` if nothing can be written.
    pub(crate) budget: Option<WriteBudget>,
}

#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) content: Content,
    pub(crate) look: Look,
    pub(crate) links: u32,
}

/// What is served. Item 0 is its root.
#[derive(Debug)]
pub struct Tree {
    pub(crate) items: Vec<Item>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// The root of every tree.
    pub const ROOT: ItemId = 0;

    /// A tree with an empty root directory.
    pub fn new() -> Self {
        let root = Item { content: Content::Directory(BTreeMap::new()), look: Look::root(0o755), links: 1 };
        Self { items: vec![root] }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing but the root.
    pub fn is_empty(&self) -> bool {
        self.items.len() == 1
    }

    /// A directory, with those above it. One that exists stays; `look` is then its new one.
    ///
    /// # Errors
    /// The path leads through something else than directories.
    pub fn directory(&mut self, below: ItemId, path: &Path, look: Look) -> Result<ItemId, TreeError> {
        let id = self.walk(below, path)?;
        self.items[id].look = look;
        Ok(id)
    }

    /// A file.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn file(&mut self, below: ItemId, path: &Path, look: Look, source: FileSource) -> Result<ItemId, TreeError> {
        self.put(below, path, look, Content::File(source))
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn link(&mut self, below: ItemId, path: &Path, look: Look, target: &OsStr) -> Result<ItemId, TreeError> {
        self.put(below, path, look, Content::Link(target.to_owned()))
    }

    /// A device, FIFO or socket of this type (`S_IFCHR`, …): visible, without function.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn special(&mut self, below: ItemId, path: &Path, look: Look, kind: u32) -> Result<ItemId, TreeError> {
        self.put(below, path, look, Content::Special(kind))
    }

    /// A directory of the host, writable if there is a budget for it.
    ///
    /// # Errors
    /// It is not a directory, or can't be opened.
    pub fn host(
        &mut self,
        below: ItemId,
        name: &Path,
        dir: &Path,
        budget: Option<WriteBudget>,
    ) -> Result<ItemId, TreeError> {
        let open = |dir: &Path| open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        let failed = |error| TreeError::Open { path: dir.to_owned(), error };
        let path = dir.canonicalize().map_err(failed)?;
        let root = open(&path).map_err(|errno| failed(errno.into()))?;
        self.put(below, name, Look::root(0o755), Content::Host(HostDirectory { path, root, budget }))
    }

    /// A second name of a file.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn alias(&mut self, below: ItemId, path: &Path, id: ItemId) -> Result<(), TreeError> {
        let (parent, name) = self.parent(below, path)?;
        self.detach(parent, &name);
        self.items[id].links += 1;
        self.entries(parent, path)?.insert(name, id);
        Ok(())
    }

    /// Removes a path and everything below it; nothing happens if it does not exist.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn remove(&mut self, below: ItemId, path: &Path) -> Result<(), TreeError> {
        if let Some(parent) = path.parent().and_then(|parent| self.find(below, parent))
            && let Some(name) = path.file_name()
        {
            self.detach(parent, &name.to_owned());
        }
        Ok(())
    }

    /// Removes the entries of a directory; nothing happens if it does not exist.
    pub fn clear(&mut self, below: ItemId, path: &Path) {
        if let Some(id) = self.find(below, path)
            && let Content::Directory(entries) = &mut self.items[id].content
        {
            entries.clear();
        }
    }

    /// The item at a path, without following links.
    pub fn find(&self, below: ItemId, path: &Path) -> Option<ItemId> {
        let mut at = below;
        for name in names(path).ok()? {
            let Content::Directory(entries) = &self.items[at].content else { return None };
            at = *entries.get(name)?;
        }
        Some(at)
    }

    /// Whether the item is a directory.
    pub fn is_directory(&self, id: ItemId) -> bool {
        matches!(self.items[id].content, Content::Directory(_) | Content::Host(_))
    }

    /// The target of a link.
    pub fn target(&self, id: ItemId) -> Option<&OsStr> {
        match &self.items[id].content {
            Content::Link(target) => Some(target),
            _ => None,
        }
    }

    fn put(&mut self, below: ItemId, path: &Path, look: Look, content: Content) -> Result<ItemId, TreeError> {
        let (parent, name) = self.parent(below, path)?;
        self.detach(parent, &name);
        let id = self.items.len();
        self.items.push(Item { content, look, links: 1 });
        self.entries(parent, path)?.insert(name, id);
        Ok(id)
    }

    fn detach(&mut self, parent: ItemId, name: &OsString) {
        if let Content::Directory(entries) = &mut self.items[parent].content
            && let Some(old) = entries.remove(name)
        {
            self.items[old].links = self.items[old].links.saturating_sub(1);
        }
    }

    fn parent(&mut self, below: ItemId, path: &Path) -> Result<(ItemId, OsString), TreeError> {
        let climbs = || TreeError::Climbs { path: path.to_owned() };
        let mut names = names(path).map_err(|()| climbs())?;
        let name = names.pop().ok_or_else(climbs)?.to_owned();
        let above: PathBuf = names.into_iter().collect();
        Ok((self.walk(below, &above)?, name))
    }

    fn entries(&mut self, id: ItemId, path: &Path) -> Result<&mut BTreeMap<OsString, ItemId>, TreeError> {
        match &mut self.items[id].content {
            Content::Directory(entries) => Ok(entries),
            _ => Err(TreeError::NotADirectory { path: path.to_owned() }),
        }
    }

    fn walk(&mut self, below: ItemId, path: &Path) -> Result<ItemId, TreeError> {
        let mut at = below;
        for name in names(path).map_err(|()| TreeError::Climbs { path: path.to_owned() })? {
            let next = self.items.len();
            let entries = self.entries(at, path)?;
            at = *entries.entry(name.to_owned()).or_insert(next);
            if at == next {
                self.items.push(Item {
                    content: Content::Directory(BTreeMap::new()),
                    look: Look::root(0o755),
                    links: 1,
                });
            }
        }
        self.entries(at, path)?;
        Ok(at)
    }

    /// Attributes of an item that is not the host's.
    pub(crate) fn attr(&self, id: ItemId) -> Attr {
        let item = &self.items[id];
        let (kind, size) = match &item.content {
            Content::Directory(entries) => (S_IFDIR, entries.len() as u64),
            Content::Host(_) => (S_IFDIR, 0),
            Content::File(source) => (S_IFREG, source.length()),
            Content::Link(target) => (S_IFLNK, target.as_bytes().len() as u64),
            Content::Special(kind) => (*kind, 0),
        };
        Attr {
            // No inode of the host has this bit: see host.rs.
            ino: 1 << 63 | id as u64,
            size,
            blocks: size.div_ceil(512),
            times: [(item.look.mtime, 0); 3],
            mode: kind | item.look.mode & 0o7777,
            nlink: item.links.max(1),
            uid: item.look.uid,
            gid: item.look.gid,
            rdev: 0,
            blksize: 4096,
        }
    }
}

/// The names of a path, which may be absolute.
fn names(path: &Path) -> Result<Vec<&OsStr>, ()> {
    let parts = path.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
    parts.map(|part| if let Component::Normal(name) = part { Ok(name) } else { Err(()) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_put_together_and_later_items_replace_earlier_ones() {
        let mut tree = Tree::new();
        let bytes = |text: &str| FileSource::Bytes(text.as_bytes().into());
        let first = tree.file(0, Path::new("/usr/bin/x"), Look::root(0o755), bytes("one")).unwrap();
        tree.alias(0, Path::new("usr/bin/y"), first).unwrap();
        let second = tree.file(0, Path::new("usr/bin/x"), Look::root(0o755), bytes("three")).unwrap();
        assert_eq!(tree.find(0, Path::new("/usr/bin/x")), Some(second));
        assert_eq!(tree.find(0, Path::new("/usr/bin/y")), Some(first));
        assert_eq!((tree.attr(second).size, tree.attr(first).nlink), (5, 1));
        tree.remove(0, Path::new("usr/bin")).unwrap();
        assert_eq!(tree.find(0, Path::new("usr/bin/x")), None);
        assert!(tree.file(0, Path::new("../x"), Look::root(0), bytes("")).is_err());
        tree.file(0, Path::new("f"), Look::root(0), bytes("")).unwrap();
        let error = tree.file(0, Path::new("f/g"), Look::root(0), bytes("")).unwrap_err();
        assert_eq!(error.to_string(), "`f` is not a directory");
    }
}
