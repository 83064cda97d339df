//! Answers requests.

use crate::{
    confine::confine_thread,
    files::OpenFiles,
    host,
    node::{Nodes, Place},
    reply::{self, Attr, Reply, Valid},
    request::{self, Body, FuseRequest},
    tree::{Content, FileSource, HostDirectory, ItemId, Tree},
    wire,
};
use nix::{errno::Errno, sys::statvfs::fstatvfs};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::{OsStr, OsString},
    fs::Metadata,
    io::{self, BufReader, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

/// Items never change.
const FOREVER: Valid = Valid(86_400);
/// OpenFiles of the host that the guest can't change: edits of a person are seen after this time.
const LONG: Valid = Valid(60);
/// OpenFiles in writable exports, which both sides may change.
const SHORT: Valid = Valid(1);
/// Listings of directories that are kept while a guest reads them in pieces.
const LISTINGS: usize = 16;
/// Files whose reading is remembered.
const MOST_READ: usize = 100_000;
/// Reports of failed writes that are kept.
const MOST_FAILED: usize = 1000;

type Listing = Arc<[(OsString, u32)]>;

/// A file that the guest could not write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failed {
    /// Its path below the writable export.
    pub path: PathBuf,
    /// The system's answer.
    pub reason: String,
}

/// By what a file that has changed is told from one that has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct FileStamp {
    inode: u64,
    bytes: u64,
    /// Of the last change of the content or the attributes, seconds and nanoseconds since the epoch.
    changed: (i64, i64),
}

impl FileStamp {
    /// Of a file.
    pub fn of(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), bytes: metadata.len(), changed: (metadata.ctime(), metadata.ctime_nsec()) }
    }
}

/// How serving ended.
#[derive(Debug)]
pub struct ServeEnd {
    /// OpenFiles that are not whole.
    pub failed: Vec<Failed>,
    /// Files of the host in exports that can't be written, which the guest has read: what its work depends on.
    pub read: BTreeMap<PathBuf, FileStamp>,
    /// Requests that were answered.
    pub requests: u64,
    /// Why the connection could not be followed to its end.
    pub problem: Option<io::Error>,
}

/// Serves a tree to one guest.
#[derive(Debug)]
pub struct Server {
    pub(crate) tree: Tree,
    pub(crate) nodes: Nodes,
    pub(crate) files: OpenFiles,
    listings: VecDeque<(u64, Listing)>,
    pub(crate) failed: BTreeSet<Failed>,
    read: BTreeMap<PathBuf, FileStamp>,
}

/// What a node is.
pub(crate) enum NodeSpot {
    Item(ItemId),
    Host { export: ItemId, path: PathBuf, dev: Option<u64>, blank: bool },
}

impl Server {
    /// A server of this tree.
    pub fn new(tree: Tree) -> Self {
        Self {
            tree,
            nodes: Nodes::new(),
            files: OpenFiles::default(),
            listings: VecDeque::new(),
            failed: BTreeSet::new(),
            read: BTreeMap::new(),
        }
    }

    /// Answers requests until the connection ends. The calling thread loses the rights to open anything else, for good:
    /// give it a thread of its own.
    pub fn serve(mut self, stream: UnixStream) -> ServeEnd {
        let mut requests = 0;
        let problem = confine_thread(&self.tree)
            .map_err(io::Error::other)
            .and_then(|()| self.follow(&stream, &mut requests))
            .err();
        ServeEnd { failed: self.failed.into_iter().collect(), read: self.read, requests, problem }
    }

    fn follow(&mut self, mut stream: &UnixStream, requests: &mut u64) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(64 << 10, stream);
        let mut buffer = vec![0; wire::MAX_REQUEST];
        while let Some(request) = request::next(&mut reader, &mut buffer)? {
            *requests += 1;
            if let Some(answer) = self.answer(request) {
                stream.write_all(&answer)?;
            }
        }
        Ok(())
    }

    /// The answer to a request; some have none.
    pub(crate) fn answer(&mut self, request: FuseRequest<'_>) -> Option<Vec<u8>> {
        let FuseRequest { opcode, unique, node, mut body } = request;
        match opcode {
            wire::FORGET => {
                if let Ok(count) = body.u64() {
                    self.forget(node, count);
                }
                return None;
            }
            wire::BATCH_FORGET => {
                self.forget_all(body);
                return None;
            }
            wire::INTERRUPT => return None,
            _ => {}
        }
        Some(match self.reply(opcode, node, &mut body) {
            Ok(reply) => reply.finish(unique),
            Err(errno) => reply::error(errno, unique),
        })
    }

    fn reply(&mut self, opcode: u32, node: u64, body: &mut Body<'_>) -> Result<Reply, Errno> {
        match opcode {
            wire::INIT => init(body),
            wire::LOOKUP => self.lookup(node, body.name()?),
            wire::GETATTR => self.getattr(node),
            wire::READLINK => self.readlink(node),
            wire::READ => {
                body.skip(8)?;
                let (offset, size) = (body.u64()?, body.u32()?);
                self.read(node, offset, size.min(wire::MAX_DATA) as usize)
            }
            wire::READDIR | wire::READDIRPLUS => {
                body.skip(8)?;
                let (offset, size) = (body.u64()?, body.u32()?);
                self.readdir(node, offset, size.min(wire::MAX_DATA) as usize, opcode == wire::READDIRPLUS)
            }
            wire::STATFS => self.statfs(node),
            wire::RELEASE | wire::RELEASEDIR | wire::DESTROY | wire::SYNCFS => Ok(Reply::new()),
            _ => self.change(opcode, node, body),
        }
    }

    fn forget(&mut self, node: u64, count: u64) {
        if self.nodes.forget(node, count) {
            self.files.close(node);
            self.listings.retain(|(of, _)| *of != node);
        }
    }

    fn forget_all(&mut self, mut body: Body<'_>) {
        let Ok(count) = body.u32() else { return };
        if body.skip(4).is_err() {
            return;
        }
        for _ in 0..count {
            let (Ok(node), Ok(lookups)) = (body.u64(), body.u64()) else { return };
            self.forget(node, lookups);
        }
    }

    /// What a node is.
    pub(crate) fn spot(&self, node: u64) -> Result<NodeSpot, Errno> {
        match self.nodes.place(node)? {
            Place::Item(id) if self.host(*id).is_none() => Ok(NodeSpot::Item(*id)),
            Place::Item(id) => Ok(NodeSpot::Host { export: *id, path: PathBuf::new(), dev: None, blank: false }),
            Place::Host { dev, blank, .. } => {
                let (export, path) = self.nodes.path(node)?;
                Ok(NodeSpot::Host { export, path, dev: Some(*dev), blank: *blank })
            }
        }
    }

    /// The directory of the host that an item is.
    pub(crate) fn host(&self, item: ItemId) -> Option<&HostDirectory> {
        match &self.tree.items.get(item)?.content {
            Content::Host(host) => Some(host),
            _ => None,
        }
    }

    fn valid(&self, export: ItemId) -> Valid {
        if self.host(export).is_some_and(|host| host.budget.is_some()) { SHORT } else { LONG }
    }

    /// The node and the attributes of a name.
    pub(crate) fn find(&mut self, parent: u64, name: &OsStr) -> Result<(u64, Attr, Valid), Errno> {
        match self.spot(parent)? {
            NodeSpot::Item(id) => {
                let Content::Directory(entries) = &self.tree.items[id].content else { return Err(Errno::ENOTDIR) };
                let found = *entries.get(name).ok_or(Errno::ENOENT)?;
                let attr = match self.host(found) {
                    Some(host) => host::attributes(&host.root)?.0,
                    None => self.tree.attr(found),
                };
                let valid = if self.host(found).is_some() { self.valid(found) } else { FOREVER };
                Ok((self.nodes.looked_up(Place::Item(found))?.0, attr, valid))
            }
            NodeSpot::Host { blank: true, .. } => Err(Errno::ENOENT),
            NodeSpot::Host { export, path, dev, .. } => {
                let root = &self.host(export).ok_or(Errno::ESTALE)?.root;
                let place = host::place(root, &path.join(name))?;
                let (mut attr, own) = host::attributes(&place)?;
                let blank = dev != Some(own) && attr.kind() == wire::S_IFDIR && host::shows_the_kernel(&place);
                if blank {
                    attr.nlink = 2;
                }
                let ino = attr.ino;
                let place =
                    Place::Host { export, parent, name: name.to_owned(), ino, dev: own, blank, unlinked: false };
                let (node, changed) = self.nodes.looked_up(place)?;
                if changed {
                    // What is open is the file that had the name before.
                    self.files.close(node);
                }
                Ok((node, attr, self.valid(export)))
            }
        }
    }

    fn lookup(&mut self, parent: u64, name: &OsStr) -> Result<Reply, Errno> {
        let mut reply = Reply::new();
        match self.find(parent, name) {
            Ok((node, attr, valid)) => {
                reply.entry(node, &attr, valid);
            }
            // Programs look for libraries and modules in many places: the guest remembers what is not there.
            Err(Errno::ENOENT) => {
                let valid = match self.spot(parent)? {
                    NodeSpot::Item(_) => FOREVER,
                    NodeSpot::Host { export, .. } => self.valid(export),
                };
                if valid == SHORT {
                    return Err(Errno::ENOENT);
                }
                reply.entry(0, &Attr::default(), valid);
            }
            Err(errno) => return Err(errno),
        }
        Ok(reply)
    }

    /// The attributes of a node.
    pub(crate) fn attributes(&self, node: u64) -> Result<(Attr, Valid), Errno> {
        if let Some(file) = self.files.kept(node) {
            return Ok((host::attributes(file)?.0, SHORT));
        }
        match self.spot(node)? {
            NodeSpot::Item(id) => Ok((self.tree.attr(id), FOREVER)),
            NodeSpot::Host { export, path, .. } => {
                let root = &self.host(export).ok_or(Errno::ESTALE)?.root;
                Ok((host::attributes(host::place(root, &path)?)?.0, self.valid(export)))
            }
        }
    }

    pub(crate) fn getattr(&self, node: u64) -> Result<Reply, Errno> {
        let (attr, valid) = self.attributes(node)?;
        let mut reply = Reply::new();
        reply.attr_out(&attr, valid);
        Ok(reply)
    }

    fn readlink(&self, node: u64) -> Result<Reply, Errno> {
        let target = match self.spot(node)? {
            NodeSpot::Item(id) => self.tree.target(id).ok_or(Errno::EINVAL)?.to_owned(),
            NodeSpot::Host { export, path, .. } => {
                let root = &self.host(export).ok_or(Errno::ESTALE)?.root;
                nix::fcntl::readlinkat(host::place(root, &path)?, c"")?
            }
        };
        let mut reply = Reply::new();
        reply.bytes(target.as_bytes());
        Ok(reply)
    }

    fn read(&mut self, node: u64, offset: u64, size: usize) -> Result<Reply, Errno> {
        let Self { tree, nodes, files, read, .. } = self;
        let from_file = |file: &std::fs::File, offset, size| {
            let mut reply = Reply::data(size);
            let mut filled = 0;
            while filled < size {
                match file.read_at(&mut reply.room()[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) if filled > 0 => break,
                    Err(error) => return Err(Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))),
                }
            }
            Ok(reply.shorten(filled))
        };
        if let Place::Item(id) = nodes.place(node)? {
            let Content::File(source) = &tree.items[*id].content else { return Err(Errno::EISDIR) };
            let left = source.length().saturating_sub(offset);
            let size = size.min(usize::try_from(left).unwrap_or(usize::MAX));
            return match source {
                FileSource::Bytes(bytes) => {
                    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                    let mut reply = Reply::new();
                    reply.bytes(&bytes[start..start + size]);
                    Ok(reply)
                }
                FileSource::Piece { file, offset: start, .. } => from_file(file, start.saturating_add(offset), size),
            };
        }
        let file = files.get(node, false, || {
            let (export, path) = nodes.path(node)?;
            match &tree.items[export].content {
                Content::Host(host) => {
                    let file = host::regular(&host.root, &path, false)?;
                    if host.budget.is_none() && read.len() < MOST_READ {
                        let stamp = file.metadata().map(|it| FileStamp::of(&it)).unwrap_or_default();
                        read.entry(host.path.join(path)).or_insert(stamp);
                    }
                    Ok(file)
                }
                _ => Err(Errno::ESTALE),
            }
        })?;
        from_file(file, offset, size)
    }

    fn listing(&mut self, node: u64, offset: u64) -> Result<Listing, Errno> {
        if let Some(at) = self.listings.iter().position(|(of, _)| *of == node) {
            let (_, found) = self.listings.remove(at).ok_or(Errno::EBADF)?;
            // Who begins again wants to see what is there now.
            if offset > 0 {
                self.listings.push_front((node, Arc::clone(&found)));
                return Ok(found);
            }
        }
        let mut entries: Vec<(OsString, u32)> = match self.spot(node)? {
            NodeSpot::Item(id) => match &self.tree.items[id].content {
                Content::Directory(entries) => {
                    entries.iter().map(|(name, id)| (name.clone(), self.tree.attr(*id).kind())).collect()
                }
                _ => return Err(Errno::ENOTDIR),
            },
            NodeSpot::Host { blank: true, .. } => Vec::new(),
            NodeSpot::Host { export, path, .. } => host::list(&self.host(export).ok_or(Errno::ESTALE)?.root, &path)?,
        };
        // So that a listing that was dropped goes on at the same place.
        entries.sort_unstable();
        let listing: Listing = entries.into();
        self.listings.truncate(LISTINGS - 1);
        self.listings.push_front((node, Arc::clone(&listing)));
        Ok(listing)
    }

    fn readdir(&mut self, node: u64, offset: u64, size: usize, plus: bool) -> Result<Reply, Errno> {
        let listing = self.listing(node, offset)?;
        let own = [(OsString::from("."), wire::S_IFDIR), (OsString::from(".."), wire::S_IFDIR)];
        let entries = own.iter().chain(listing.iter()).enumerate();
        let mut reply = Reply::new();
        for (index, (name, kind)) in entries.skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            if reply.len() + Reply::dirent_size(name, plus) > size {
                break;
            }
            let (mut ino, mut kind) = (index as u64 + 1, *kind);
            if plus {
                // The kernel looks neither of the two up, and forgets them not.
                let found = if index < 2 { None } else { self.find(node, name).ok() };
                let (number, attr, valid) = found.unwrap_or((0, Attr::default(), Valid(0)));
                if number != 0 {
                    (ino, kind) = (attr.ino, attr.kind());
                }
                reply.entry(number, &attr, valid);
            }
            reply.dirent(ino, index as u64 + 1, kind, name);
        }
        Ok(reply)
    }

    fn statfs(&self, node: u64) -> Result<Reply, Errno> {
        let mut reply = Reply::new();
        match self.spot(node)? {
            NodeSpot::Host { export, path, .. } => {
                let root = &self.host(export).ok_or(Errno::ESTALE)?.root;
                let found = fstatvfs(host::place(root, &path)?)?;
                reply.u64(found.blocks()).u64(found.blocks_free()).u64(found.blocks_available());
                reply.u64(found.files()).u64(found.files_free());
                reply.u32(found.block_size() as u32).u32(255).u32(found.fragment_size() as u32);
            }
            NodeSpot::Item(_) => {
                reply.zeros(40).u32(4096).u32(255).u32(4096);
            }
        }
        reply.zeros(28);
        Ok(reply)
    }
}

/// `struct fuse_init_out`.
fn init(body: &mut Body<'_>) -> Result<Reply, Errno> {
    let (major, minor, readahead, flags) = (body.u32()?, body.u32()?, body.u32()?, body.u32()?);
    if major != wire::MAJOR || flags & wire::STATELESS != wire::STATELESS {
        return Err(Errno::EPROTO);
    }
    let mut reply = Reply::new();
    reply.u32(wire::MAJOR).u32(minor.min(wire::MINOR)).u32(readahead.max(wire::MAX_DATA));
    reply.u32(flags & wire::INIT_FLAGS).u16(64).u16(48).u32(wire::MAX_DATA).u32(1);
    reply.u16(wire::MAX_PAGES).u16(0).zeros(32);
    Ok(reply)
}

impl Server {
    /// Records that a file is not whole.
    pub(crate) fn note_failure(&mut self, path: &Path, errno: Errno) {
        if self.failed.len() < MOST_FAILED {
            self.failed.insert(Failed { path: path.to_owned(), reason: errno.desc().to_owned() });
        }
    }
}
