//! A tar archive as a tree: the files stay in the archive, and nothing is unpacked to the host.
//!
//! Owners, permissions and links are therefore those of the archive, whoever runs the lab, and no path of an archive is ever
//! a path of the host.

use super::WorldError;
use lab_share::{FileSource, ItemId, Look, Tree};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{BufReader, Read, Seek},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use tar::EntryType;

/// Items of an archive, at most.
const MOST: usize = 3_000_000;
/// Bytes of a sparse file, which is taken into memory.
const MOST_SPARSE: u64 = 256 << 20;
/// Links on the way to a file, at most, as in a kernel (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;
/// A layer's mark that a file below it is gone (OCI image specification, `layer.md`).
const WHITEOUT: &[u8] = b".wh.";
/// A layer's mark that everything below it in a directory is gone.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// An archive whose headers have been read.
#[derive(Debug, Clone)]
pub struct TarTree {
    file: Arc<File>,
    entries: Arc<[Entry]>,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    look: Look,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Directory,
    File { offset: u64, length: u64 },
    Sparse(Arc<[u8]>),
    Link(OsString),
    Alias(PathBuf),
    Special(u32),
}

impl TarTree {
    /// Reads the headers of a tar file. `name` is for errors.
    ///
    /// # Errors
    /// It is no tar file, is damaged, or has a path that leads out of it.
    pub fn read(file: File, name: &Path) -> Result<Self, WorldError> {
        let damaged = |problem: String| WorldError::Damaged { path: name.to_owned(), problem };
        let no_tar = |error: std::io::Error| damaged(format!("it can't be read as a tar archive: {error}"));
        let mut reader = file.try_clone().map_err(WorldError::io(name))?;
        reader.rewind().map_err(WorldError::io(name))?;
        let length = reader.metadata().map_err(WorldError::io(name))?.len();
        let mut archive = tar::Archive::new(BufReader::new(reader));
        let mut entries = Vec::new();
        for entry in archive.entries_with_seek().map_err(no_tar)? {
            let mut entry = entry.map_err(no_tar)?;
            let path = PathBuf::from(OsString::from_vec(entry.path_bytes().into_owned()));
            let clean = clean(&path).ok_or_else(|| damaged(format!("`{}` leads out of it", path.display())))?;
            let header = entry.header();
            let number = |value: std::io::Result<u64>| value.unwrap_or(0);
            let look = Look {
                mode: header.mode().unwrap_or(0o644),
                uid: number(header.uid()) as u32,
                gid: number(header.gid()) as u32,
                mtime: i64::try_from(number(header.mtime())).unwrap_or(0),
            };
            let target = |entry: &tar::Entry<'_, _>| {
                entry.link_name_bytes().map(|name| OsString::from_vec(name.into_owned())).unwrap_or_default()
            };
            let kind = match header.entry_type() {
                EntryType::Directory => Kind::Directory,
                EntryType::Symlink => Kind::Link(target(&entry)),
                EntryType::Link => {
                    let target = PathBuf::from(target(&entry));
                    let inside = self::clean(&target);
                    Kind::Alias(inside.ok_or_else(|| damaged(format!("`{}` leads out of it", target.display())))?)
                }
                EntryType::Char => Kind::Special(0o020_000),
                EntryType::Block => Kind::Special(0o060_000),
                EntryType::Fifo => Kind::Special(0o010_000),
                EntryType::GNUSparse if entry.size() <= MOST_SPARSE => {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes).map_err(no_tar)?;
                    Kind::Sparse(bytes.into())
                }
                EntryType::Regular | EntryType::Continuous => {
                    let (offset, size) = (entry.raw_file_position(), entry.size());
                    if offset.checked_add(size).is_none_or(|end| end > length) {
                        return Err(damaged(format!("it ends in the middle of `{}`", clean.display())));
                    }
                    Kind::File { offset, length: size }
                }
                other => return Err(damaged(format!("`{}` is of an unknown kind, {other:?}", clean.display()))),
            };
            if entries.len() >= MOST {
                return Err(damaged(format!("it has more than {MOST} files")));
            }
            entries.push(Entry { path: clean, look, kind });
        }
        if entries.is_empty() {
            return Err(damaged("it is empty".to_owned()));
        }
        Ok(Self { file: Arc::new(file), entries: entries.into() })
    }

    /// Puts the files into a tree, above what is there.
    ///
    /// # Errors
    /// A file lies below something that is no directory.
    pub fn plant(&self, tree: &mut Tree, root: ItemId) -> Result<(), WorldError> {
        for Entry { path, look, kind } in &*self.entries {
            let (Some(name), above) = (path.file_name(), path.parent().unwrap_or(Path::new(""))) else {
                // The root itself.
                tree.directory(root, Path::new(""), *look)?;
                continue;
            };
            let above = real(tree, root, above);
            if name.as_bytes() == OPAQUE {
                tree.clear(root, &above);
                continue;
            }
            if let Some(gone) = name.as_bytes().strip_prefix(WHITEOUT) {
                tree.remove(root, &above.join(OsStr::from_bytes(gone)))?;
                continue;
            }
            let place = above.join(name);
            match kind {
                Kind::Directory => {
                    let real = real(tree, root, &place);
                    let is_other = tree.find(root, &real).is_some_and(|id| !tree.is_directory(id));
                    if is_other {
                        tree.remove(root, &real)?;
                    }
                    tree.directory(root, &real, *look)?;
                }
                Kind::File { offset, length } => {
                    let source = FileSource::Piece { file: Arc::clone(&self.file), offset: *offset, length: *length };
                    tree.file(root, &place, *look, source)?;
                }
                Kind::Sparse(bytes) => {
                    tree.file(root, &place, *look, FileSource::Bytes(Arc::clone(bytes)))?;
                }
                Kind::Link(target) => {
                    tree.link(root, &place, *look, target)?;
                }
                Kind::Alias(target) => {
                    let target = real(tree, root, target);
                    // What it names was taken away by a later layer, or never was.
                    if let Some(id) = tree.find(root, &target).filter(|id| !tree.is_directory(*id)) {
                        tree.alias(root, &place, id)?;
                    }
                }
                Kind::Special(kind) => {
                    tree.special(root, &place, *look, *kind)?;
                }
            }
        }
        Ok(())
    }
}

/// A path without `.` and without a leading slash; `None` if it leads out.
fn clean(path: &Path) -> Option<PathBuf> {
    let parts = path.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
    parts.map(|part| if let Component::Normal(name) = part { Some(name) } else { None }).collect()
}

/// A path in a tree with the links on its way resolved: a layer may write below a link of an earlier one (`/lib`).
fn real(tree: &Tree, root: ItemId, path: &Path) -> PathBuf {
    let mut left: Vec<OsString> = path.iter().rev().map(OsStr::to_owned).collect();
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        match tree.find(root, &next).and_then(|id| tree.target(id)) {
            Some(target) if links < MOST_LINKS => {
                links += 1;
                let target = Path::new(target);
                if target.is_absolute() {
                    at = PathBuf::new();
                }
                let parts = target.components().rev();
                left.extend(parts.filter_map(|part| match part {
                    Component::Normal(name) => Some(name.to_owned()),
                    Component::ParentDir => Some("..".into()),
                    _ => None,
                }));
            }
            _ => at = next,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(fill: impl FnOnce(&mut tar::Builder<File>)) -> Result<TarTree, WorldError> {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        fill(&mut builder);
        TarTree::read(builder.into_inner().unwrap(), Path::new("layer.tar"))
    }

    fn add(builder: &mut tar::Builder<File>, path: &str, kind: EntryType, target: &str, content: &str) {
        let mut header = tar::Header::new_gnu();
        // Builder::append_data would clean the path.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }

    #[test]
    fn layers_lie_above_each_other() {
        let first = layer(|tar| {
            add(tar, "./usr/lib/", EntryType::Directory, "", "");
            add(tar, "lib", EntryType::Symlink, "usr/lib", "");
            add(tar, "usr/lib/a", EntryType::Regular, "", "one");
            add(tar, "usr/lib/hard", EntryType::Link, "usr/lib/a", "");
            add(tar, "opt/x/y", EntryType::Regular, "", "y");
            add(tar, "etc/gone", EntryType::Regular, "", "gone");
            add(tar, "var/run", EntryType::Symlink, "/run", "");
        })
        .unwrap();
        let second = layer(|tar| {
            add(tar, "lib/b", EntryType::Regular, "", "two");
            add(tar, "opt/x/.wh..wh..opq", EntryType::Regular, "", "");
            add(tar, "opt/x/z", EntryType::Regular, "", "z");
            add(tar, "etc/.wh.gone", EntryType::Regular, "", "");
            add(tar, "var/run/lock", EntryType::Regular, "", "lock");
        })
        .unwrap();
        let mut tree = Tree::new();
        first.plant(&mut tree, 0).unwrap();
        second.plant(&mut tree, 0).unwrap();
        let there = |path: &str| tree.find(0, Path::new(path));
        assert!(there("usr/lib/b").is_some() && there("opt/x/z").is_some());
        assert!(there("opt/x/y").is_none() && there("etc/gone").is_none() && there("etc").is_some());
        assert_eq!(there("usr/lib/hard"), there("usr/lib/a"));
        assert!(there("run/lock").is_some() && there("var/run/run").is_none(), "an absolute link begins at the root");
        assert_eq!(tree.target(there("lib").unwrap()), Some(OsStr::new("usr/lib")));
    }

    #[test]
    fn archives_that_lead_out_are_cut_off_or_are_none_are_refused() {
        let climbs = layer(|tar| add(tar, "usr/../../etc/x", EntryType::Regular, "", "x")).unwrap_err().to_string();
        assert_eq!(climbs, "layer.tar is damaged: `usr/../../etc/x` leads out of it");
        let climbs = layer(|tar| add(tar, "x", EntryType::Link, "../x", "")).unwrap_err().to_string();
        assert!(climbs.ends_with("`../x` leads out of it"), "{climbs}");
        let empty = layer(|_| {}).unwrap_err().to_string();
        assert!(empty.ends_with("it is empty"), "{empty}");
        let file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut &file, &[b'x'; 2000]).unwrap();
        let none = TarTree::read(file, Path::new("x.txt")).unwrap_err().to_string();
        assert!(none.starts_with("x.txt is damaged: it can't be read as a tar archive"), "{none}");
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        let circle = layer(|tar| {
            add(tar, "a", EntryType::Symlink, "b", "");
            add(tar, "b", EntryType::Symlink, "a", "");
            add(tar, "a/x", EntryType::Regular, "", "x");
        })
        .unwrap();
        assert!(circle.plant(&mut Tree::new(), 0).is_err());
    }
}
