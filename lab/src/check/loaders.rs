//! `--loader`: what loads the objects beside libbpf.

use crate::{error::Error, world::find_program};
use lab_base::text::shell_quote;
use lab_check::{CheckLoader, LIBBPF, OBJECT_WORD};
use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where programs and their libraries are in the guest.
const PLACE: &str = "/check/programs";
/// Characters of a command's name in an id.
const NAME: usize = 30;
/// How glibc's loader is named.
const DYNAMIC: &str = "ld-linux";

/// A loader as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedLoader {
    /// The one that every object is checked with.
    Libbpf,
    /// aya, which is part of the guest program.
    Aya,
    /// iproute2's `tc`.
    Tc,
    /// `bpftool`.
    Bpftool,
    /// Words of a program of this host.
    Command(Vec<String>),
}

/// Why `--loader` can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoaderError {
    /// No loader has the name.
    #[error(
        "no such loader: libbpf, aya, tc, bpftool, or `cmd:PROGRAM ARGUMENTS` for any program that takes the object as its last argument \
         or in place of {OBJECT_WORD}"
    )]
    Unknown,
    /// Programs of that library are many.
    #[error("no program of ebpf-go is part of the lab: name yours by `cmd:PROGRAM`")]
    EbpfGo,
    /// The words of a command can't be told apart.
    #[error("the command after `cmd:` is empty, or a quotation mark in it is not closed")]
    Words,
}

impl AskedLoader {
    /// The word that asks for it from any directory.
    ///
    /// # Errors
    /// There is no such program.
    pub fn word(&self) -> Result<String, Error> {
        Ok(match self {
            Self::Libbpf => LIBBPF.to_owned(),
            Self::Aya => "aya".to_owned(),
            Self::Tc => "tc".to_owned(),
            Self::Bpftool => "bpftool".to_owned(),
            Self::Command(words) => {
                let quoted: Vec<String> = resolved(words)?.1.iter().map(|word| shell_quote(word)).collect();
                format!("cmd:{}", quoted.join(" "))
            }
        })
    }
}

impl FromStr for AskedLoader {
    type Err = LoaderError;

    fn from_str(text: &str) -> Result<Self, LoaderError> {
        match text {
            "libbpf" => Ok(Self::Libbpf),
            "aya" => Ok(Self::Aya),
            "tc" => Ok(Self::Tc),
            "bpftool" => Ok(Self::Bpftool),
            "ebpf-go" => Err(LoaderError::EbpfGo),
            _ => {
                let words = text.strip_prefix("cmd:").ok_or(LoaderError::Unknown)?;
                let words = shlex::split(words).filter(|words| words.first().is_some_and(|word| !word.is_empty()));
                words.map(Self::Command).ok_or(LoaderError::Words)
            }
        }
    }
}

/// A loader, with what it needs in the guest.
#[derive(Debug, Clone)]
pub struct ChosenLoader {
    /// In reports, and in the ids of cells.
    pub name: String,
    /// For the program in the guest.
    pub loader: CheckLoader,
    /// Programs of this host, with what they are linked against: the file, and its place.
    pub programs: Vec<(PathBuf, PathBuf)>,
    /// Files as they are.
    pub files: Vec<(PathBuf, PathBuf)>,
}

impl ChosenLoader {
    /// The one that every object is checked with.
    pub fn libbpf() -> Self {
        let (programs, files) = (Vec::new(), Vec::new());
        Self { name: LIBBPF.to_owned(), loader: CheckLoader::Libbpf, programs, files }
    }

    /// Whether it is that one.
    pub fn is_libbpf(&self) -> bool {
        self.loader == CheckLoader::Libbpf
    }

    /// The cell's name for an object.
    pub fn cell(&self, object: &str) -> String {
        if self.is_libbpf() { object.to_owned() } else { format!("{object}[{}]", self.name) }
    }
}

/// Finds the programs; libbpf is the first, whether it is asked for or not.
///
/// # Errors
/// A program is not on this host.
pub fn choose(asked: &[AskedLoader]) -> Result<Vec<ChosenLoader>, Error> {
    let mut chosen = vec![ChosenLoader::libbpf()];
    let mut names = BTreeSet::from([LIBBPF.to_owned()]);
    for (at, one) in asked.iter().enumerate().filter(|(_, one)| **one != AskedLoader::Libbpf) {
        // The same loader twice is one.
        if asked[..at].contains(one) {
            continue;
        }
        let mut found = match one {
            AskedLoader::Libbpf => continue,
            AskedLoader::Aya => {
                ChosenLoader { name: "aya".to_owned(), loader: CheckLoader::Aya, ..ChosenLoader::libbpf() }
            }
            AskedLoader::Tc => tool("tc", "iproute2", CheckLoader::Tc)?,
            AskedLoader::Bpftool => tool("bpftool", "bpftool", CheckLoader::Bpftool)?,
            AskedLoader::Command(words) => command(words)?,
        };
        let numbered = (2..).map(|number| format!("{}.{number}", found.name));
        let name = std::iter::once(found.name.clone()).chain(numbered).find(|name| !names.contains(name));
        found.name = name.unwrap_or_default();
        names.insert(found.name.clone());
        chosen.push(found);
    }
    Ok(chosen)
}

/// A program that `lab shell` has too, with its own libraries beside it: they may be other ones than this host's.
fn tool(name: &str, package: &str, loader: fn(Vec<String>) -> CheckLoader) -> Result<ChosenLoader, Error> {
    let files = lab_image::tool_files(name).map_err(|error| Error::Host(error.to_string()))?;
    let files = files.ok_or_else(|| {
        Error::Usage(format!(
            "--loader {name}: this host has no {name}, and the cache neither: install {package}, or run `lab setup`"
        ))
    })?;
    let place = Path::new(PLACE).join(name);
    let placed: Vec<(PathBuf, PathBuf)> = files.iter().map(|(file, path)| (path.clone(), place.join(file))).collect();
    let shown = |file: &str| place.join(file).display().to_string();
    let dynamic = files.iter().find(|(file, _)| file.starts_with(DYNAMIC));
    let mut words = dynamic
        .map_or_else(Vec::new, |(file, _)| vec![shown(file), "--library-path".to_owned(), place.display().to_string()]);
    words.push(shown(name));
    Ok(ChosenLoader { name: name.to_owned(), loader: loader(words), programs: Vec::new(), files: placed })
}

/// A program of the user's as a shell finds it, and the words with its path.
fn resolved(words: &[String]) -> Result<(PathBuf, Vec<String>), Error> {
    let first = words.first().map(String::as_str).unwrap_or_default();
    let here = env::current_dir().map_err(Error::file("find", Path::new(".")))?;
    let found = find_program(OsStr::new(first), &here, env::var_os("PATH").as_deref());
    let path = found.ok_or_else(|| Error::Usage(format!("--loader cmd:{first}: there is no such program")))?;
    let path = path.canonicalize().map_err(Error::file("find", &path))?;
    let words = [path.display().to_string()].into_iter().chain(words.iter().skip(1).cloned()).collect();
    Ok((path, words))
}

fn command(words: &[String]) -> Result<ChosenLoader, Error> {
    let (path, words) = resolved(words)?;
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(NAME).map(plain).collect();
    let programs = vec![(path.clone(), path)];
    Ok(ChosenLoader { name, loader: CheckLoader::Command(words), programs, files: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_are_named_and_a_command_has_words() {
        let words = |text: &str| AskedLoader::from_str(text);
        assert_eq!(words("cmd:./x -v 'a b'"), Ok(AskedLoader::Command(vec!["./x".into(), "-v".into(), "a b".into()])));
        assert_eq!(words("cmd:"), Err(LoaderError::Words));
        assert_eq!(words("cmd:'x"), Err(LoaderError::Words));
        assert_eq!(words("libxdp"), Err(LoaderError::Unknown));
        assert_eq!(words("ebpf-go"), Err(LoaderError::EbpfGo));
    }

    #[test]
    fn libbpf_is_the_first_and_names_are_each_others_own() {
        let asked = ["aya", "cmd:/bin/true", "cmd:/bin/true x", "aya", "libbpf"].map(|text| text.parse().unwrap());
        let chosen = choose(&asked).unwrap();
        let cells: Vec<String> = chosen.iter().map(|one| one.cell("x")).collect();
        assert_eq!(cells, ["x", "x[aya]", "x[true]", "x[true.2]"]);
        let missing = choose(&["cmd:/nonexistent/loader".parse().unwrap()]).unwrap_err().to_string();
        assert!(missing.contains("--loader cmd:/nonexistent/loader: there is no such program"), "{missing}");
    }
}
