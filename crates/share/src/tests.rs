//! A hostile guest at the server: every request that a kernel could send, and some that none would.

use crate::{
    FileSource, Look, Server, Tree, WriteBudget,
    request::{Body, FuseRequest},
    wire,
};
use nix::errno::Errno;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};
use tempfile::TempDir;

struct Guest {
    server: Server,
    host: TempDir,
}

/// A host with a secret beside two exports: `root`, read-only, and `out`, writable.
fn guest(budget: WriteBudget) -> Guest {
    let host = tempfile::tempdir().unwrap();
    let path = |name: &str| host.path().join(name);
    fs::create_dir_all(path("root/dir")).unwrap();
    fs::create_dir(path("out")).unwrap();
    fs::write(path("secret"), "secret").unwrap();
    fs::write(path("root/file"), "content").unwrap();
    symlink("../secret", path("root/link")).unwrap();
    symlink("/", path("root/dir/up")).unwrap();
    let mut tree = Tree::new();
    tree.host(0, Path::new("root"), &path("root"), None).unwrap();
    tree.host(0, Path::new("out"), &path("out"), Some(budget)).unwrap();
    tree.file(0, Path::new("extra/config"), Look::root(0o644), FileSource::Bytes(b"CONFIG_X=y\n"[..].into())).unwrap();
    Guest { server: Server::new(tree), host }
}

impl Guest {
    fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let request = FuseRequest { opcode, unique: 7, node, body: Body(body) };
        let answer = self.server.answer(request).expect("an answer");
        assert_eq!(u32::from_le_bytes(answer[..4].try_into().unwrap()) as usize, answer.len());
        assert_eq!(answer[8..16], 7u64.to_le_bytes());
        match i32::from_le_bytes(answer[4..8].try_into().unwrap()) {
            0 => Ok(answer[16..].to_vec()),
            error => Err(Errno::from_raw(-error)),
        }
    }

    fn lookup(&mut self, node: u64, name: &str) -> Result<u64, Errno> {
        let entry = self.ask(wire::LOOKUP, node, format!("{name}\0").as_bytes())?;
        match u64::from_le_bytes(entry[..8].try_into().unwrap()) {
            0 => Err(Errno::ENOENT),
            node => Ok(node),
        }
    }

    fn walk(&mut self, path: &str) -> Result<u64, Errno> {
        path.split('/').try_fold(1, |node, name| self.lookup(node, name))
    }

    fn read(&mut self, node: u64) -> Result<Vec<u8>, Errno> {
        self.ask(wire::READ, node, &[&[0; 16][..], &4096u32.to_le_bytes(), &[0; 20]].concat())
    }

    fn write(&mut self, node: u64, offset: u64, data: &[u8]) -> Result<Vec<u8>, Errno> {
        let head = [&[0; 8][..], &offset.to_le_bytes(), &(data.len() as u32).to_le_bytes(), &[0; 20]].concat();
        self.ask(wire::WRITE, node, &[&head, data].concat())
    }

    fn create(&mut self, node: u64, name: &str, mode: u32) -> Result<u64, Errno> {
        let body = [&mode.to_le_bytes()[..], &[0; 12], name.as_bytes(), b"\0"].concat();
        let entry = self.ask(wire::MKNOD, node, &body)?;
        Ok(u64::from_le_bytes(entry[..8].try_into().unwrap()))
    }

    fn setattr(&mut self, node: u64, valid: u32, size: u64, mode: u32, uid: u32) -> Result<Vec<u8>, Errno> {
        let mut body = vec![0; 88];
        body[..4].copy_from_slice(&valid.to_le_bytes());
        body[16..24].copy_from_slice(&size.to_le_bytes());
        body[68..72].copy_from_slice(&mode.to_le_bytes());
        body[76..80].copy_from_slice(&uid.to_le_bytes());
        self.ask(wire::SETATTR, node, &body)
    }
}

#[test]
fn files_of_every_kind_are_read() {
    let mut guest = guest(WriteBudget::USUAL);
    let file = guest.walk("root/file").unwrap();
    assert_eq!(guest.read(file).unwrap(), b"content");
    let config = guest.walk("extra/config").unwrap();
    assert_eq!(guest.read(config).unwrap(), b"CONFIG_X=y\n");
    let link = guest.walk("root/link").unwrap();
    assert_eq!(guest.ask(wire::READLINK, link, b"").unwrap(), b"../secret");
    let root = guest.walk("root").unwrap();
    for opcode in [wire::READDIR, wire::READDIRPLUS] {
        let listing = guest.ask(opcode, root, &[&[0; 16][..], &4096u32.to_le_bytes(), &[0; 20]].concat()).unwrap();
        for name in ["dir", "file", "link"] {
            assert!(listing.windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
        }
    }
    assert_eq!(guest.lookup(root, "absent"), Err(Errno::ENOENT));
}

#[test]
fn a_file_that_was_replaced_on_the_host_is_read_anew() {
    let mut guest = guest(WriteBudget::USUAL);
    let file = guest.walk("root/file").unwrap();
    assert_eq!(guest.read(file).unwrap(), b"content");
    let path = guest.host.path().join("root");
    fs::write(path.join("new"), "edited").unwrap();
    fs::rename(path.join("new"), path.join("file")).unwrap();
    let file = guest.walk("root/file").unwrap();
    assert_eq!(guest.read(file).unwrap(), b"edited");
}

#[test]
fn no_path_leads_out_of_an_export() {
    let mut guest = guest(WriteBudget::USUAL);
    let root = guest.walk("root").unwrap();
    for name in ["..", ".", "../secret", "/etc/passwd", "dir/../../secret", ""] {
        assert_eq!(guest.lookup(root, name), Err(Errno::EINVAL), "{name:?}");
    }
    // Links are the guest's to follow: to the server they are no directories, and no files.
    let link = guest.walk("root/link").unwrap();
    assert_eq!(guest.read(link), Err(Errno::EACCES));
    let up = guest.walk("root/dir/up").unwrap();
    assert!(guest.lookup(up, "etc").is_err());
    // A directory that was looked up and is a link now.
    let dir = guest.walk("root/dir").unwrap();
    fs::remove_file(guest.host.path().join("root/dir/up")).unwrap();
    fs::remove_dir(guest.host.path().join("root/dir")).unwrap();
    symlink("/etc", guest.host.path().join("root/dir")).unwrap();
    assert_eq!(guest.lookup(dir, "passwd"), Err(Errno::ELOOP));
    // Nodes that never were.
    for node in [0, 99, u64::MAX] {
        assert_eq!(guest.lookup(node, "file"), Err(Errno::ESTALE));
    }
}

#[test]
fn nothing_is_written_to_what_is_not_writable() {
    let mut guest = guest(WriteBudget::USUAL);
    for path in ["root", "extra", "root/dir"] {
        let node = guest.walk(path).unwrap();
        assert_eq!(guest.create(node, "new", 0o100_644), Err(Errno::EROFS), "{path}");
        assert_eq!(guest.ask(wire::MKDIR, node, b"\0\0\0\0\0\0\0\0new\0"), Err(Errno::EROFS));
        assert_eq!(guest.ask(wire::SYMLINK, node, b"new\0/etc\0"), Err(Errno::EROFS));
        assert_eq!(guest.ask(wire::UNLINK, node, b"file\0"), Err(Errno::EROFS));
        assert_eq!(guest.ask(wire::RMDIR, node, b"dir\0"), Err(Errno::EROFS));
    }
    let (root, out, file) = (guest.walk("root").unwrap(), guest.walk("out").unwrap(), guest.walk("root/file").unwrap());
    assert_eq!(guest.write(file, 0, b"x"), Err(Errno::EROFS));
    assert_eq!(guest.setattr(file, wire::FATTR_SIZE, 0, 0, 0), Err(Errno::EROFS));
    assert_eq!(guest.setattr(file, wire::FATTR_MODE, 0, 0o777, 0), Err(Errno::EROFS));
    let rename = |to: u64| [&to.to_le_bytes()[..], b"file\0stolen\0"].concat();
    assert_eq!(guest.ask(wire::RENAME, root, &rename(out)), Err(Errno::EROFS));
    let link = [&file.to_le_bytes()[..], b"stolen\0"].concat();
    assert_eq!(guest.ask(wire::LINK, out, &link), Err(Errno::EROFS));
    assert_eq!(fs::read(guest.host.path().join("root/file")).unwrap(), b"content");
    assert_eq!(fs::read_dir(guest.host.path().join("out")).unwrap().count(), 0);
}

#[test]
fn a_writable_export_takes_files_without_privileges() {
    let mut guest = guest(WriteBudget::USUAL);
    let out = guest.walk("out").unwrap();
    let file = guest.create(out, "log", 0o104_755).unwrap();
    guest.write(file, 0, b"hello ").unwrap();
    guest.write(file, 6, b"world").unwrap();
    let path = guest.host.path().join("out/log");
    assert_eq!(fs::read(&path).unwrap(), b"hello world");
    guest.setattr(file, wire::FATTR_MODE, 0, 0o6755, 0).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755, "no set-uid file");
    let owner = nix::unistd::geteuid().as_raw();
    assert_eq!(guest.setattr(file, wire::FATTR_UID, 0, 0, owner + 1), Err(Errno::EPERM));
    for kind in [0o020_000, 0o060_000, 0o010_000, 0o140_000] {
        assert_eq!(guest.create(out, "device", kind | 0o666), Err(Errno::EPERM));
    }
    // A link that the guest made leads the server nowhere.
    guest.ask(wire::SYMLINK, out, b"way\0../secret\0").unwrap();
    let way = guest.walk("out/way").unwrap();
    assert_eq!(guest.write(way, 0, b"x"), Err(Errno::EACCES));
    assert_eq!(guest.setattr(way, wire::FATTR_MODE, 0, 0o777, 0), Err(Errno::EOPNOTSUPP));
    assert_eq!(fs::read(guest.host.path().join("secret")).unwrap(), b"secret");
    // What has lost its name can be used until it is forgotten.
    guest.ask(wire::UNLINK, out, b"log\0").unwrap();
    assert!(!path.exists());
    guest.write(file, 0, b"J").unwrap();
    assert_eq!(guest.read(file).unwrap(), b"Jello world");
}

#[test]
fn what_is_written_has_a_limit_and_what_is_cut_off_is_told() {
    let mut guest = guest(WriteBudget { bytes: 10, files: 2 });
    let out = guest.walk("out").unwrap();
    let file = guest.create(out, "log", 0o100_644).unwrap();
    guest.write(file, 0, b"12345678").unwrap();
    guest.write(file, 0, b"12345678").unwrap();
    // The file stays as long as it was.
    guest.write(file, 0, b"12").unwrap();
    assert_eq!(guest.write(file, 8, b"abc"), Err(Errno::ENOSPC));
    assert_eq!(guest.setattr(file, wire::FATTR_SIZE, 1 << 40, 0, 0), Err(Errno::ENOSPC));
    guest.create(out, "second", 0o100_644).unwrap();
    assert_eq!(guest.create(out, "third", 0o100_644), Err(Errno::ENOSPC));
    let failed: Vec<_> = guest.server.failed.iter().map(|it| it.path.display().to_string()).collect();
    assert_eq!(failed, ["log", "third"]);
    guest.ask(wire::UNLINK, out, b"log\0").unwrap();
    let third = guest.create(out, "third", 0o100_644).unwrap();
    guest.write(third, 0, b"1234567890").unwrap();
}

#[test]
fn short_requests_are_errors() {
    let mut guest = guest(WriteBudget::USUAL);
    let out = guest.walk("out").unwrap();
    for opcode in 0..64 {
        if [wire::FORGET, wire::BATCH_FORGET, wire::INTERRUPT].contains(&opcode) {
            continue;
        }
        for body in [&b""[..], b"\0", b"x", &[0xff; 40]] {
            // Whatever comes of it is an answer.
            let _ = guest.ask(opcode, out, body);
        }
    }
    assert_eq!(guest.read(out), Err(Errno::EISDIR));
}

#[test]
fn the_hosts_kernel_is_an_empty_directory() {
    let mut tree = Tree::new();
    tree.host(0, Path::new("root"), Path::new("/"), None).unwrap();
    let mut guest = Guest { server: Server::new(tree), host: tempfile::tempdir().unwrap() };
    assert!(guest.walk("root/etc/passwd").is_ok());
    for path in ["root/proc", "root/sys"] {
        assert!(guest.walk(path).is_ok());
    }
    assert_eq!(guest.walk("root/proc/self"), Err(Errno::ENOENT));
    assert_eq!(guest.walk("root/sys/kernel"), Err(Errno::ENOENT));
}
