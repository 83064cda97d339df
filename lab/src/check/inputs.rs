//! The objects of a command line: each is looked at before a guest boots.

use super::config::{CheckConfig, beside};
use lab_base::{strict_toml::ConfigError, text};
use lab_check::{ElfError, ElfObject, MAX_OBJECT, ObjectCode, inspect};
use lab_guard::bounded;
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

/// Characters of an object's name in an id.
const NAME: usize = 60;

/// An object.
#[derive(Debug, Clone)]
pub struct CheckInput {
    /// Its path as it was given.
    pub path: PathBuf,
    /// Its name in reports: the file's without its suffix.
    pub name: String,
    /// Its content when it was read: a compiler may replace the file meanwhile.
    pub bytes: Vec<u8>,
    /// What it has.
    pub object: ElfObject,
    /// Its code, for predictions; `None` where it is not understood.
    pub code: Option<ObjectCode>,
    /// Its `check.toml`.
    pub config: CheckConfig,
}

/// Why objects can't be checked.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A file can't be read.
    #[error("can't read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    /// It is no object.
    #[error("{}: {problem}", path.display())]
    Object { path: PathBuf, problem: ElfError },
    /// Its configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its configuration names something that the object does not have.
    #[error("{origin}: {} has no {what} `{name}`{hint}", path.display())]
    Unknown { origin: String, path: PathBuf, what: &'static str, name: String, hint: String },
    /// Several objects are wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Self>),
}

/// Reads the objects, and the `check.toml` of each.
///
/// # Errors
/// All that is wrong with them.
pub fn inputs(paths: &[PathBuf], config: Option<&Path>) -> Result<Vec<CheckInput>, InputError> {
    let (mut read, mut wrong) = (Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for path in paths {
        match input(path, config, &mut names) {
            Ok(input) => read.push(input),
            Err(error) => wrong.push(error),
        }
    }
    match wrong.len() {
        0 => Ok(read),
        1 => Err(wrong.remove(0)),
        _ => Err(InputError::Several(wrong)),
    }
}

fn input(path: &Path, config: Option<&Path>, names: &mut BTreeSet<String>) -> Result<CheckInput, InputError> {
    let failed = |error| InputError::Read { path: path.to_owned(), error };
    let wrong = |problem| InputError::Object { path: path.to_owned(), problem };
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        return Err(failed(io::Error::other("it is no regular file")));
    }
    if found.len() > MAX_OBJECT {
        return Err(wrong(ElfError::TooLarge(found.len())));
    }
    let bytes = bounded::file(path, MAX_OBJECT).map_err(failed)?;
    let object = inspect(&bytes).map_err(wrong)?;
    let config = match config {
        Some(path) => CheckConfig::load(path)?,
        None => beside(path).map(|path| CheckConfig::load(&path)).transpose()?.unwrap_or_default(),
    };
    let code = ObjectCode::read(&bytes);
    let input = CheckInput { path: path.to_owned(), name: unique(path, names), bytes, object, code, config };
    input.compare()?;
    Ok(input)
}

impl CheckInput {
    /// Whether what the configuration names is there.
    fn compare(&self) -> Result<(), InputError> {
        let programs: Vec<&str> = self.object.programs.iter().map(|program| &*program.name).collect();
        let sections = self.object.programs.iter().map(|program| &*program.section);
        let both: Vec<&str> = sections.chain(programs.iter().copied()).collect();
        let config = &self.config;
        let origin = |line: &str| if line.is_empty() { config.file.clone() } else { line.to_owned() };
        let missing = |known: &[&str], what: &'static str, name: &str, line: &str| {
            let hint = lab_base::nearest::suggest(name, known);
            let (path, name) = (self.path.clone(), text::line(name, NAME));
            if known.contains(&&*name) {
                Ok(())
            } else {
                Err(InputError::Unknown { origin: origin(line), path, what, name, hint })
            }
        };
        config.order.only.iter().try_for_each(|name| missing(&programs, "program", name, ""))?;
        config.order.types.keys().try_for_each(|name| missing(&both, "section or program", name, ""))?;
        config.order.slots.iter().try_for_each(|slot| missing(&programs, "program", &slot.program, ""))?;
        for it in config.expect.iter().filter(|it| it.is_about(&self.name)) {
            if let Some(program) = &it.expectation.program {
                missing(&programs, "program", program, &it.expectation.origin)?;
            }
        }
        Ok(())
    }
}

/// The file's name without its suffix, as an id; with a number where it occurs again.
fn unique(path: &Path, names: &mut BTreeSet<String>) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = stem.chars().take(NAME).map(plain).collect();
    let name = match name.trim_matches(['.', '-']) {
        "" => "object".to_owned(),
        name => name.to_owned(),
    };
    let numbered = (2..).map(|number| format!("{name}.{number}"));
    let name = std::iter::once(name.clone()).chain(numbered).find(|name| !names.contains(name)).unwrap_or(name);
    names.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_one_name_have_names_of_their_own() {
        let mut names = BTreeSet::new();
        let told: Vec<String> = ["a/x.o", "b/x.o", "x.bpf.o", "/-.o", "ä b.o"]
            .iter()
            .map(|path| unique(Path::new(path), &mut names))
            .collect();
        assert_eq!(told, ["x", "x.2", "x.bpf", "object", "b"]);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            dir.path().join(name)
        };
        let paths = [file("a.o", b"int main"), dir.path().join("gone.o"), dir.path().to_owned()];
        let told = inputs(&paths, None).unwrap_err().to_string();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 3, "{told}");
        assert!(
            lines[0].ends_with("it is no ELF file; compile the program with `clang -target bpf -g -O2 -c`"),
            "{told}"
        );
        assert!(lines[1].contains("gone.o") && lines[2].ends_with("it is no regular file"), "{told}");
        let large = std::fs::File::create(dir.path().join("large.o")).unwrap();
        large.set_len(200 << 20).unwrap();
        let told = inputs(&[dir.path().join("large.o")], None).unwrap_err().to_string();
        assert!(told.ends_with("it has 200 MiB; an eBPF object has at most 64 MiB"), "{told}");
    }
}
