//! Which root a program gets.

use super::{
    WorldError,
    archive::TarTree,
    closure::{self, ClosureFiles},
    oci,
    paths::directory,
    unpack,
};
use lab_share::{Look, Tree};
use std::{
    convert::Infallible,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    str::FromStr,
};

/// Directories of which a root has at least one: where programs are.
const PROGRAMS: [&str; 5] = ["bin", "usr/bin", "sbin", "usr/sbin", "nix/store"];

/// Which root a program gets, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RootChoice {
    /// The host's.
    #[default]
    Host,
    /// The program with what it is linked against.
    None,
    /// A directory, a tar archive or an OCI image layout.
    Path(PathBuf),
}

impl FromStr for RootChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "host" => Self::Host,
            "none" => Self::None,
            path => Self::Path(PathBuf::from(path)),
        })
    }
}

/// What a closure is made of.
#[derive(Debug, Clone, Default)]
pub struct ClosureProgram {
    /// Name or path of the program.
    pub name: OsString,
    /// The search path.
    pub path: Option<OsString>,
    /// Further files: on the host, and their places in the root.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// The same, without what they are linked against.
    pub as_they_are: Vec<(PathBuf, PathBuf)>,
}

/// A root that has been looked at.
#[derive(Debug)]
pub(super) enum Root {
    Host,
    Closure(ClosureFiles),
    Directory(PathBuf),
    Layers(Vec<TarTree>),
}

impl Root {
    /// Looks at what was asked for.
    pub fn of(choice: RootChoice, program: &ClosureProgram, cwd: &Path, cache: &Path) -> Result<Self, WorldError> {
        let path = match choice {
            RootChoice::Host if program.files.is_empty() => return Ok(Self::Host),
            RootChoice::Host => return Err(WorldError::FilesOfTheHost),
            RootChoice::None => return closure(program, cwd).map(Self::Closure),
            RootChoice::Path(path) => path,
        };
        let path = path.canonicalize().map_err(WorldError::io(&path))?;
        let root = if path.join(oci::MARK).is_file() {
            Self::Layers(oci::layers(&path, cache)?)
        } else if path.is_dir() {
            Self::Directory(directory(&path)?)
        } else {
            Self::Layers(vec![TarTree::read(unpack::plain(&path, cache)?, &path)?])
        };
        let has_programs = match &root {
            Self::Directory(path) => PROGRAMS.iter().any(|dir| path.join(dir).symlink_metadata().is_ok()),
            _ => {
                let mut tree = Tree::new();
                root.plant(&mut tree, Path::new("root"), cwd)?;
                PROGRAMS.iter().any(|dir| tree.find(Tree::ROOT, &Path::new("root").join(dir)).is_some())
            }
        };
        if has_programs { Ok(root) } else { Err(WorldError::NotARoot { path }) }
    }

    /// Puts the root into a tree.
    pub fn plant(&self, tree: &mut Tree, at: &Path, cwd: &Path) -> Result<(), WorldError> {
        match self {
            Self::Host => drop(tree.host(Tree::ROOT, at, Path::new("/"), None)?),
            Self::Directory(path) => drop(tree.host(Tree::ROOT, at, path, None)?),
            Self::Closure(files) => closure::plant(files, cwd, tree, at)?,
            Self::Layers(layers) => {
                let root = tree.directory(Tree::ROOT, at, Look::root(0o755))?;
                layers.iter().try_for_each(|layer| layer.plant(tree, root))?;
            }
        }
        Ok(())
    }
}

fn closure(program: &ClosureProgram, cwd: &Path) -> Result<ClosureFiles, WorldError> {
    let mut files = ClosureFiles::new();
    // A program that is not there is an error of the guest, as in a shell: 127.
    if let Some(path) = closure::find(&program.name, cwd, program.path.as_deref().map(OsStr::new)) {
        let place = std::path::absolute(&path).map_err(WorldError::io(&path))?;
        closure::add(&mut files, &place, &path)?;
    }
    for (path, place) in &program.files {
        closure::add(&mut files, place, path)?;
    }
    files.extend(program.as_they_are.iter().map(|(path, place)| (place.clone(), path.clone())));
    Ok(files)
}
