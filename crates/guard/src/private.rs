//! Creates and checks directories that other users can neither enter nor replace, independent of the umask.
//!
//! A user who can write to a directory can change its files, and a user who can write to a parent directory can replace
//! it. Therefore both are checked.

use nix::{
    sys::{
        socket::{getsockopt, sockopt::PeerCredentials},
        stat::{Mode, umask},
    },
    unistd::{Gid, Group, Uid, User, geteuid},
};
use std::{
    fs::{self, DirBuilder, Metadata, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Mode of private directories: access for the owner only.
const PRIVATE: u32 = 0o700;
/// Write permission for the group and for everybody.
const FOREIGN_WRITE: u32 = 0o022;
/// Only owners can remove and rename files in the directory (`S_ISVTX`).
const STICKY: u32 = 0o1000;

/// A path that another user may have changed, or may change while it is used.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// Mode bits let others write.
    #[error(
        "{} can be written by other users (mode {mode:04o}), and the lab runs programs from it: `chmod go-w` it, and remove \
         files that they may have put there",
        path.display()
    )]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user.
    #[error("{} belongs to another user (uid {owner}), and the lab runs programs from it: choose another directory", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// The path is of another kind.
    #[error("{} is {found} instead of {wanted}", path.display())]
    Kind {
        /// The path.
        path: PathBuf,
        /// The required kind.
        wanted: &'static str,
        /// Its kind.
        found: &'static str,
    },
    /// It can't be inspected, created or changed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
}

impl Untrusted {
    /// Whether the path does not exist yet.
    pub fn is_absent(&self) -> bool {
        let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        matches!(self, Self::Io { error, .. } if absent.contains(&error.kind()))
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }
}

/// Sets the umask so that this process and its children create nothing that group or others can write to. Must be
/// called first, while there is a single thread.
pub fn restrict_umask() {
    let others = Mode::from_bits_truncate(FOREIGN_WRITE);
    let before = umask(others);
    umask(before | others);
}

/// Creates a private directory if it does not exist: mode 0700, and with parent directories that others can't replace.
///
/// # Errors
/// It belongs to another user, or others can write to it or to a parent directory.
pub fn keep(dir: &Path) -> Result<(), Untrusted> {
    DirBuilder::new().recursive(true).mode(PRIVATE).create(dir).map_err(Untrusted::io(dir))?;
    check(dir)?;
    let found = fs::metadata(dir).map_err(Untrusted::io(dir))?;
    if is_mine(&found) && found.mode() & 0o7777 != PRIVATE {
        fs::set_permissions(dir, Permissions::from_mode(PRIVATE)).map_err(Untrusted::io(dir))?;
    }
    Ok(())
}

/// Checks that the content of a directory can be trusted, without creating it. A missing directory is accepted.
///
/// # Errors
/// As [`keep`].
pub fn check(dir: &Path) -> Result<(), Untrusted> {
    let found = match fs::metadata(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Untrusted::io(dir)(error)),
    };
    owned(dir, &found)?;
    let empty = || fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    if is_reachable(dir)? && open_to_others(&found) && !empty() {
        return Err(Untrusted::Writable { path: dir.to_owned(), mode: found.mode() & 0o7777 });
    }
    Ok(())
}

/// Creates a temporary directory with mode 0700, in a directory from which others can't remove it.
///
/// # Errors
/// It can't be created, or others can rename it in its parent directory.
pub fn temporary(prefix: &str, parent: &Path) -> Result<TempDir, Untrusted> {
    let above = fs::canonicalize(parent).map_err(Untrusted::io(parent))?;
    let reached = is_reachable(&above)?;
    let found = fs::metadata(&above).map_err(Untrusted::io(&above))?;
    if reached && open_to_others(&found) && found.mode() & STICKY == 0 {
        return Err(Untrusted::Writable { path: above, mode: found.mode() & 0o7777 });
    }
    let private = || Permissions::from_mode(PRIVATE);
    let dir = tempfile::Builder::new().prefix(prefix).permissions(private()).tempdir_in(parent);
    let dir = dir.map_err(Untrusted::io(parent))?;
    // The umask may have removed permissions of the owner.
    fs::set_permissions(dir.path(), private()).map_err(Untrusted::io(dir.path()))?;
    Ok(dir)
}

/// Connects to a socket in a private directory, and checks that the peer runs as this user, because the peer receives
/// files and commands.
///
/// # Errors
/// The socket or its peer belongs to another user; [`Untrusted::is_absent`] if it does not exist or does not listen
/// yet.
pub fn connect(socket: &Path) -> Result<UnixStream, Untrusted> {
    own_socket(socket)?;
    let stream = UnixStream::connect(socket).map_err(Untrusted::io(socket))?;
    let peer = getsockopt(&stream, PeerCredentials).map_err(|errno| Untrusted::io(socket)(errno.into()))?;
    if peer.uid() == geteuid().as_raw() {
        return Ok(stream);
    }
    Err(Untrusted::Owner { path: socket.to_owned(), owner: peer.uid() })
}

fn own_socket(socket: &Path) -> Result<(), Untrusted> {
    let parent = socket.parent().unwrap_or(Path::new("."));
    let above = fs::symlink_metadata(parent).map_err(Untrusted::io(parent))?;
    if !above.is_dir() {
        return Err(Untrusted::Kind { path: parent.to_owned(), wanted: "a directory", found: kind(&above) });
    }
    if !is_mine(&above) {
        return Err(Untrusted::Owner { path: parent.to_owned(), owner: above.uid() });
    }
    if above.mode() & 0o077 != 0 {
        return Err(Untrusted::Writable { path: parent.to_owned(), mode: above.mode() & 0o7777 });
    }
    let found = fs::symlink_metadata(socket).map_err(Untrusted::io(socket))?;
    if !found.file_type().is_socket() {
        return Err(Untrusted::Kind { path: socket.to_owned(), wanted: "a socket", found: kind(&found) });
    }
    owned(socket, &found)
}

/// Kind of a file, for messages.
pub fn kind(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    match () {
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () if kind.is_block_device() || kind.is_char_device() => "a device",
        () => "a file",
    }
}

fn is_mine(found: &Metadata) -> bool {
    Uid::from_raw(found.uid()) == geteuid()
}

/// Whether the owner is this user or root.
fn owned(path: &Path, found: &Metadata) -> Result<(), Untrusted> {
    if is_mine(found) || found.uid() == 0 {
        return Ok(());
    }
    Err(Untrusted::Owner { path: path.to_owned(), owner: found.uid() })
}

fn open_to_others(found: &Metadata) -> bool {
    let others = found.mode() & 0o002 != 0;
    others || (found.mode() & 0o020 != 0 && !is_own_group(Gid::from_raw(found.gid())))
}

/// Whether a group is the user's private group without other members, as in `pam_umask`: with such groups the usual
/// umask is 002.
fn is_own_group(gid: Gid) -> bool {
    let user = User::from_uid(geteuid()).ok().flatten();
    let group = Group::from_gid(gid).ok().flatten();
    user.zip(group).is_some_and(|(user, group)| {
        user.gid == gid && user.name == group.name && group.mem.iter().all(|member| *member == user.name)
    })
}

/// Whether others can reach a directory. An error if they could replace it.
///
/// The owner of parent directories is not checked: in a container it may be a user outside of the container.
fn is_reachable(dir: &Path) -> Result<bool, Untrusted> {
    let whole = fs::canonicalize(dir).map_err(Untrusted::io(dir))?;
    let mut above: Vec<&Path> = whole.ancestors().skip(1).collect();
    above.reverse();
    let mut shared = false;
    for path in above {
        let found = fs::metadata(path).map_err(Untrusted::io(path))?;
        if shared {
            owned(path, &found)?;
        }
        if is_mine(&found) && found.mode() & 0o011 == 0 {
            return Ok(false);
        }
        shared = open_to_others(&found);
        if shared && found.mode() & STICKY == 0 {
            return Err(Untrusted::Writable { path: path.to_owned(), mode: found.mode() & 0o7777 });
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{fs::symlink, net::UnixListener};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn with_mode(path: &Path, mode: u32) {
        fs::create_dir_all(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A directory that others can reach, like the directory for temporary files.
    fn public() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        with_mode(dir.path(), 0o755);
        dir
    }

    #[test]
    fn a_created_directory_is_private_and_a_writable_one_is_refused() {
        let place = public();
        let cache = place.path().join("a/cache");
        keep(&cache).unwrap();
        assert_eq!((mode(&cache), mode(&place.path().join("a"))), (0o700, 0o700));

        let usual = place.path().join("usual");
        with_mode(&usual, 0o755);
        fs::write(usual.join("file"), "x").unwrap();
        keep(&usual).unwrap();
        assert_eq!(mode(&usual), 0o700);

        let open = place.path().join("open");
        with_mode(&open, 0o777);
        keep(&open).unwrap();
        assert_eq!(mode(&open), 0o700, "others could not have written to it");
        with_mode(&open, 0o777);
        fs::write(open.join("planted"), "x").unwrap();
        let error = keep(&open).unwrap_err().to_string();
        assert!(error.contains("open can be written by other users (mode 0777)"), "{error}");
    }

    #[test]
    fn a_replaceable_directory_is_refused_unless_its_parent_is_sticky() {
        let place = public();
        with_mode(&place.path().join("open"), 0o777);
        let error = keep(&place.path().join("open/cache")).unwrap_err();
        assert!(matches!(error, Untrusted::Writable { mode: 0o777, .. }), "{error}");
        assert!(temporary("x", &place.path().join("open")).is_err());
        with_mode(&place.path().join("sticky"), 0o1777);
        keep(&place.path().join("sticky/cache")).unwrap();
        let made = temporary("x", &place.path().join("sticky")).unwrap();
        assert_eq!(mode(made.path()), 0o700);
        // Others can't reach anything below a private directory.
        with_mode(&place.path().join("mine"), 0o700);
        with_mode(&place.path().join("mine/open"), 0o777);
        fs::write(place.path().join("mine/open/file"), "x").unwrap();
        keep(&place.path().join("mine/open")).unwrap();
    }

    #[test]
    fn a_directory_that_another_user_has_made_in_a_shared_one_is_refused() {
        // Only root can give a directory away.
        if !geteuid().is_root() {
            return;
        }
        let place = public();
        let (shared, theirs) = (place.path().join("shared"), place.path().join("shared/theirs"));
        with_mode(&shared, 0o1777);
        with_mode(&theirs, 0o755);
        keep(&theirs.join("before")).unwrap();
        std::os::unix::fs::chown(&theirs, Some(65534), None).unwrap();
        let error = keep(&theirs.join("cache")).unwrap_err();
        assert!(matches!(&error, Untrusted::Owner { path, owner: 65534 } if path.ends_with("theirs")), "{error}");
        assert!(temporary("x", &theirs.join("before")).is_err());
        // The owners of directories that nobody else can write to are not looked at: a container may not know them.
        with_mode(&shared, 0o755);
        keep(&theirs.join("cache")).unwrap();
    }

    #[test]
    fn only_the_users_own_socket_in_a_private_directory_is_connected_to() {
        let dir = temporary("guard-", &std::env::temp_dir()).unwrap();
        let socket = dir.path().join("socket");
        assert!(connect(&socket).unwrap_err().is_absent());
        let _listener = UnixListener::bind(&socket).unwrap();
        connect(&socket).unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        symlink(&socket, dir.path().join("link")).unwrap();
        for (name, found) in [("file", "is a file instead of a socket"), ("link", "is a symbolic link instead")] {
            let error = connect(&dir.path().join(name)).unwrap_err().to_string();
            assert!(error.contains(found), "{error}");
        }
        with_mode(dir.path(), 0o777);
        assert!(matches!(connect(&socket), Err(Untrusted::Writable { .. })));
    }
}
