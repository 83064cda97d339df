//! Requests that change something: in writable exports only.

use crate::{
    host,
    reply::Reply,
    request::Body,
    server::{NodeSpot, Server},
    tree::{Content, HostDirectory, ItemId},
    wire,
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, openat, renameat2},
    sys::{
        stat::{Mode, UtimensatFlags, mkdirat, utimensat},
        time::TimeSpec,
    },
    unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat},
};
use std::{
    ffi::OsStr,
    fs::Permissions,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, PermissionsExt},
    },
    path::PathBuf,
};

/// Permissions that a guest can give: no file of the host becomes set-uid by it.
const PERMISSIONS: u32 = 0o777;
/// `RENAME_NOREPLACE`.
const NOREPLACE: u32 = 1;
/// `UTIME_NOW` and `UTIME_OMIT` (`include/uapi/linux/stat.h`).
const UTIME_NOW: i64 = (1 << 30) - 1;
const UTIME_OMIT: i64 = (1 << 30) - 2;

/// A place in a writable export.
struct Writable {
    export: ItemId,
    path: PathBuf,
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}

impl Server {
    pub(crate) fn change(&mut self, opcode: u32, node: u64, body: &mut Body<'_>) -> Result<Reply, Errno> {
        match opcode {
            wire::SETATTR => self.setattr(node, body),
            wire::WRITE => {
                body.skip(8)?;
                let (offset, size) = (body.u64()?, body.u32()? as usize);
                body.skip(20)?;
                self.write(node, offset, body.0.get(..size).ok_or(Errno::EINVAL)?)
            }
            wire::MKNOD => {
                let mode = body.u32()?;
                body.skip(12)?;
                self.mknod(node, body.name()?, mode)
            }
            wire::MKDIR => {
                let mode = body.u32()?;
                body.skip(4)?;
                let name = body.name()?;
                let mode = Mode::from_bits_truncate(mode & PERMISSIONS);
                self.make(node, name, |dir| mkdirat(dir, name, mode))
            }
            wire::SYMLINK => {
                let name = body.name()?;
                let target = body.text()?;
                self.make(node, name, |dir| symlinkat(target, dir, name))
            }
            wire::LINK => {
                let old = body.u64()?;
                self.link(old, node, body.name()?)
            }
            wire::UNLINK => self.remove(node, body.name()?, UnlinkatFlags::NoRemoveDir),
            wire::RMDIR => self.remove(node, body.name()?, UnlinkatFlags::RemoveDir),
            wire::RENAME | wire::RENAME2 => {
                let to = body.u64()?;
                let flags = if opcode == wire::RENAME2 { body.u32()? } else { 0 };
                body.skip(if opcode == wire::RENAME2 { 4 } else { 0 })?;
                self.rename((node, body.name()?), (to, body.name()?), flags)
            }
            wire::FSYNC => {
                let at = self.writable(node)?;
                self.opened(node, &at)?.sync_all().map_err(|error| errno(&error))?;
                Ok(Reply::new())
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    /// The place of a node that may be changed.
    fn writable(&self, node: u64) -> Result<Writable, Errno> {
        let (export, path) = match self.files.kept(node) {
            // A file without a name: its export has been found writable before.
            Some(_) => match self.nodes.place(node)? {
                crate::node::Place::Host { export, name, .. } => (*export, PathBuf::from(name)),
                crate::node::Place::Item(_) => return Err(Errno::EROFS),
            },
            None => match self.spot(node)? {
                NodeSpot::Host { export, path, blank: false, .. } => (export, path),
                _ => return Err(Errno::EROFS),
            },
        };
        self.host(export).and_then(|host| host.budget).ok_or(Errno::EROFS)?;
        Ok(Writable { export, path })
    }

    fn export(&mut self, id: ItemId) -> Result<&mut HostDirectory, Errno> {
        match &mut self.tree.items[id].content {
            Content::Host(host) => Ok(host),
            _ => Err(Errno::ESTALE),
        }
    }

    /// Takes what is written from the budget of an export, or gives it back.
    fn spend(
        &mut self,
        at: &Writable,
        take: impl FnOnce(&mut crate::budget::WriteBudget) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let budget = self.export(at.export)?.budget.as_mut().ok_or(Errno::EROFS)?;
        take(budget).inspect_err(|errno| self.note_failure(&at.path, *errno))
    }

    fn opened(&mut self, node: u64, at: &Writable) -> Result<&std::fs::File, Errno> {
        let Self { tree, files, .. } = self;
        let Content::Host(host) = &tree.items[at.export].content else { return Err(Errno::ESTALE) };
        files.get(node, true, || host::regular(&host.root, &at.path, true))
    }

    fn write(&mut self, node: u64, offset: u64, data: &[u8]) -> Result<Reply, Errno> {
        let at = self.writable(node)?;
        let length = self.opened(node, &at)?.metadata().map_err(|error| errno(&error))?.len();
        let end = offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        self.spend(&at, |budget| budget.resize(length, end.max(length)))?;
        let written = self.opened(node, &at)?.write_all_at(data, offset);
        if let Err(error) = written {
            let errno = errno(&error);
            self.note_failure(&at.path, errno);
            return Err(errno);
        }
        let mut reply = Reply::new();
        reply.u32(data.len() as u32).u32(0);
        Ok(reply)
    }

    fn setattr(&mut self, node: u64, body: &mut Body<'_>) -> Result<Reply, Errno> {
        let at = self.writable(node)?;
        let valid = body.u32()?;
        body.skip(12)?;
        let size = body.u64()?;
        body.skip(8)?;
        let (atime, mtime) = (body.u64()? as i64, body.u64()? as i64);
        body.skip(8)?;
        let (atime_ns, mtime_ns) = (body.u32()?, body.u32()?);
        body.skip(4)?;
        let mode = body.u32()?;
        body.skip(4)?;
        let (uid, gid) = (body.u32()?, body.u32()?);
        let (now, _) = self.attributes(node)?;
        let other_owner = valid & wire::FATTR_UID != 0 && uid != now.uid;
        if other_owner || valid & wire::FATTR_GID != 0 && gid != now.gid {
            return Err(Errno::EPERM);
        }
        if valid & wire::FATTR_SIZE != 0 {
            self.spend(&at, |budget| budget.resize(now.size, size))?;
            self.opened(node, &at)?.set_len(size).map_err(|error| errno(&error))?;
        }
        let place = match self.files.kept(node) {
            Some(file) => file.try_clone().map_err(|error| errno(&error))?.into(),
            None => host::place(&self.export(at.export)?.root, &at.path)?,
        };
        if valid & wire::FATTR_MODE != 0 {
            // A link has no permissions, and its target may be anywhere.
            if now.kind() == wire::S_IFLNK {
                return Err(Errno::EOPNOTSUPP);
            }
            std::fs::set_permissions(host::alias(&place), Permissions::from_mode(mode & PERMISSIONS))
                .map_err(|error| errno(&error))?;
        }
        if valid & (wire::FATTR_ATIME | wire::FATTR_MTIME) != 0 && now.kind() != wire::S_IFLNK {
            let time = |set, now, seconds, nanoseconds: u32| match (valid & set != 0, valid & now != 0) {
                (false, _) => TimeSpec::new(0, UTIME_OMIT),
                (true, true) => TimeSpec::new(0, UTIME_NOW),
                (true, false) => TimeSpec::new(seconds, i64::from(nanoseconds)),
            };
            let atime = time(wire::FATTR_ATIME, wire::FATTR_ATIME_NOW, atime, atime_ns);
            let mtime = time(wire::FATTR_MTIME, wire::FATTR_MTIME_NOW, mtime, mtime_ns);
            utimensat(AT_FDCWD, &host::alias(&place), &atime, &mtime, UtimensatFlags::FollowSymlink)?;
        }
        self.getattr(node)
    }

    fn mknod(&mut self, parent: u64, name: &OsStr, mode: u32) -> Result<Reply, Errno> {
        // Devices, FIFOs and sockets of a guest have no business on the host.
        if mode & wire::S_IFMT != wire::S_IFREG {
            self.writable(parent)?;
            return Err(Errno::EPERM);
        }
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(mode & PERMISSIONS);
        self.make(parent, name, |dir| openat(dir, name, flags, mode).map(drop))
    }

    /// Makes something in a directory, and replies with its entry.
    fn make(
        &mut self,
        parent: u64,
        name: &OsStr,
        make: impl FnOnce(&OwnedFd) -> Result<(), Errno>,
    ) -> Result<Reply, Errno> {
        let at = self.writable(parent)?;
        let dir = host::directory(&self.export(at.export)?.root, &at.path)?;
        let new = Writable { export: at.export, path: at.path.join(name) };
        self.spend(&new, crate::budget::WriteBudget::make)?;
        if let Err(errno) = make(&dir) {
            self.spend(&new, |budget| {
                budget.remove(0);
                Ok(())
            })?;
            if !matches!(errno, Errno::EEXIST | Errno::ENOENT) {
                self.note_failure(&new.path, errno);
            }
            return Err(errno);
        }
        let (node, attr, valid) = self.find(parent, name)?;
        let mut reply = Reply::new();
        reply.entry(node, &attr, valid);
        Ok(reply)
    }

    fn link(&mut self, old: u64, parent: u64, name: &OsStr) -> Result<Reply, Errno> {
        let (from, to) = (self.writable(old)?, self.writable(parent)?);
        if from.export != to.export {
            return Err(Errno::EXDEV);
        }
        let file = from.path.file_name().ok_or(Errno::EPERM)?.to_owned();
        let above = from.path.parent().unwrap_or(std::path::Path::new("")).to_owned();
        let source = host::directory(&self.export(from.export)?.root, &above)?;
        self.make(parent, name, |dir| linkat(&source, &*file, dir, name, AtFlags::empty()))
    }

    /// Keeps a file that is about to lose its name open for those who use it.
    fn keep(&mut self, parent: u64, name: &OsStr, at: &Writable) -> Result<u64, Errno> {
        let root = &self.export(at.export)?.root;
        let (attr, _) = host::attributes(host::place(root, &at.path)?)?;
        if attr.kind() == wire::S_IFREG
            && let Some(node) = self.nodes.named(parent, name)
        {
            let Ok(file) = host::regular(&self.export(at.export)?.root, &at.path, true) else { return Ok(0) };
            self.files.keep(node, file)?;
        }
        Ok(if attr.kind() == wire::S_IFREG && attr.nlink == 1 { attr.size } else { 0 })
    }

    fn remove(&mut self, parent: u64, name: &OsStr, flags: UnlinkatFlags) -> Result<Reply, Errno> {
        let at = self.writable(parent)?;
        let gone = Writable { export: at.export, path: at.path.join(name) };
        let dir = host::directory(&self.export(at.export)?.root, &at.path)?;
        let size = self.keep(parent, name, &gone)?;
        if let Err(errno) = unlinkat(&dir, name, flags) {
            if let Some(node) = self.nodes.named(parent, name) {
                self.files.close(node);
            }
            return Err(errno);
        }
        self.nodes.unlink(parent, name);
        self.spend(&gone, |budget| {
            budget.remove(size);
            Ok(())
        })?;
        Ok(Reply::new())
    }

    fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), flags: u32) -> Result<Reply, Errno> {
        if flags & !NOREPLACE != 0 {
            return Err(Errno::EINVAL);
        }
        let (old, new) = (self.writable(from.0)?, self.writable(to.0)?);
        if old.export != new.export {
            return Err(Errno::EXDEV);
        }
        let root = &self.export(old.export)?.root;
        let (source, target) = (host::directory(root, &old.path)?, host::directory(root, &new.path)?);
        let replaced = Writable { export: new.export, path: new.path.join(to.1) };
        let there = host::place(&self.export(new.export)?.root, &replaced.path).is_ok();
        if there && flags & NOREPLACE != 0 {
            return Err(Errno::EEXIST);
        }
        let size = if there { self.keep(to.0, to.1, &replaced)? } else { 0 };
        let how = RenameFlags::from_bits_truncate(flags);
        if let Err(errno) = renameat2(&source, from.1, &target, to.1, how) {
            if let Some(node) = self.nodes.named(to.0, to.1) {
                self.files.close(node);
            }
            return Err(errno);
        }
        self.nodes.rename(from, to);
        if there {
            self.spend(&replaced, |budget| {
                budget.remove(size);
                Ok(())
            })?;
        }
        Ok(Reply::new())
    }
}
