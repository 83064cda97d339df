//! Reads `modules.dep` and `modules.builtin`, as written by depmod(8) and the kernel's build.
//!
//! The parser is our own, forty lines: the `kmod` bindings need libkmod on the host, and the text format is documented
//! (modules.dep(5)).

use std::collections::{BTreeMap, BTreeSet};

/// Suffixes of module files, compressed or not.
const SUFFIXES: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// An error in an index file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DepError {
    /// A line is not `path: path…` or `path`.
    #[error("line {line} is not a module followed by its dependencies")]
    Syntax {
        /// Line number, from 1.
        line: usize,
    },
    /// A path leaves the module directory, or is not a module file.
    #[error("line {line}: `{path}` is not a module file below the module directory")]
    Path {
        /// Line number, from 1.
        line: usize,
        path: String,
    },
    /// Two files have the same module name.
    #[error("module `{name}` is listed twice")]
    Duplicate {
        /// The module.
        name: String,
    },
    /// A dependency is not listed itself.
    #[error("module `{name}` needs `{dependency}`, which is not listed")]
    Dangling {
        name: String,
        /// The missing dependency.
        dependency: String,
    },
    /// A module depends on itself, directly or indirectly.
    #[error("module `{name}` depends on itself")]
    Cycle {
        /// One of the modules.
        name: String,
    },
}

#[derive(Debug, PartialEq, Eq)]
struct Module {
    path: String,
    needs: Vec<String>,
}

/// The modules of a kernel, loadable and built in. Names are the kernel's: `_`, never `-`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Index {
    modules: BTreeMap<String, Module>,
    builtin: BTreeSet<String>,
}

/// How a kernel provides a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provided {
    /// By these files, dependencies first; each with its name and its path below the module directory.
    Files(Vec<(String, String)>),
    BuiltIn,
    Missing,
}

impl Index {
    /// Parses the text of `modules.dep`.
    ///
    /// # Errors
    /// [`DepError`] for a line that depmod would not write. Accepts any text without panicking.
    pub fn parse_dep(text: &str) -> Result<Self, DepError> {
        let mut modules = BTreeMap::new();
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
            if line.trim().is_empty() {
                continue;
            }
            let (path, needs) = line.split_once(':').ok_or(DepError::Syntax { line: number })?;
            let needs = needs.split_whitespace().map(|need| module_name(need, number)).collect::<Result<_, _>>()?;
            let name = module_name(path, number)?;
            if modules.insert(name.clone(), Module { path: path.to_owned(), needs }).is_some() {
                return Err(DepError::Duplicate { name });
            }
        }
        Ok(Self { modules, builtin: BTreeSet::new() })
    }

    /// Adds the modules of `modules.builtin`.
    ///
    /// # Errors
    /// [`DepError::Path`] for a line that is not a module file.
    pub fn add_builtin(&mut self, text: &str) -> Result<(), DepError> {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            self.builtin.insert(module_name(line.trim(), number + 1)?);
        }
        Ok(())
    }

    /// Whether `modules.dep` has a module of this name.
    pub fn lists(&self, name: &str) -> bool {
        self.modules.contains_key(name)
    }

    /// Path of a module, relative to the module directory.
    pub fn path(&self, name: &str) -> Option<&str> {
        self.modules.get(name).map(|module| &*module.path)
    }

    /// How the kernel provides `name`.
    ///
    /// # Errors
    /// [`DepError::Dangling`] and [`DepError::Cycle`] if the dependencies are invalid.
    pub fn provide(&self, name: &str) -> Result<Provided, DepError> {
        if !self.modules.contains_key(name) {
            let builtin = self.builtin.contains(name);
            return Ok(if builtin { Provided::BuiltIn } else { Provided::Missing });
        }
        let mut order = Vec::new();
        let mut done = BTreeSet::new();
        let mut open = BTreeSet::new();
        // An explicit stack: a hostile file must not overflow the thread's stack.
        let mut stack = vec![(name, false)];
        while let Some((name, leave)) = stack.pop() {
            if leave {
                open.remove(name);
                done.insert(name);
                order.push((name.to_owned(), self.modules[name].path.clone()));
                continue;
            }
            if done.contains(name) {
                continue;
            }
            if !open.insert(name) {
                return Err(DepError::Cycle { name: name.to_owned() });
            }
            stack.push((name, true));
            for need in &self.modules[name].needs {
                if open.contains(need.as_str()) {
                    return Err(DepError::Cycle { name: need.clone() });
                }
                if self.modules.contains_key(need) {
                    stack.push((need, false));
                } else {
                    return Err(DepError::Dangling { name: name.to_owned(), dependency: need.clone() });
                }
            }
        }
        Ok(Provided::Files(order))
    }
}

/// The kernel's name of the module in a file with this name; `None` if it is not a module file.
pub fn name_of(file: &str) -> Option<String> {
    let stem = SUFFIXES.iter().find_map(|suffix| file.strip_suffix(suffix)).filter(|stem| !stem.is_empty());
    stem.map(|stem| stem.replace('-', "_"))
}

/// The kernel's name of the module in this file.
fn module_name(path: &str, line: usize) -> Result<String, DepError> {
    let inside = !path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let file = path.rsplit('/').next().unwrap_or(path);
    match name_of(file) {
        Some(name) if inside && !path.contains(char::is_whitespace) && !path.contains('\0') => Ok(name),
        _ => Err(DepError::Path { line, path: path.chars().take(128).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEP: &str = "\
kernel/drivers/virtio/virtio_pci.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/virtio/virtio_ring.ko.xz: kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/virtio/virtio.ko.xz:
kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz
";

    fn files(provided: Provided) -> Vec<String> {
        match provided {
            Provided::Files(files) => files.into_iter().map(|(name, _)| name).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn dependencies_are_listed_first_and_once() {
        let mut index = Index::parse_dep(DEP).unwrap();
        index.add_builtin("kernel/drivers/net/netkit.ko\n").unwrap();
        assert_eq!(files(index.provide("virtio_pci").unwrap()), ["virtio", "virtio_ring", "virtio_pci"]);
        assert_eq!(files(index.provide("virtio_rng").unwrap()), ["virtio", "virtio_ring", "virtio_rng"]);
        assert_eq!(index.provide("netkit").unwrap(), Provided::BuiltIn);
        assert_eq!(index.provide("veth").unwrap(), Provided::Missing);
    }

    #[test]
    fn errors_name_line_and_problem() {
        for (text, wanted) in [
            ("a.ko", "line 1 is not a module followed by its dependencies"),
            ("\n/lib/a.ko:", "line 2: `/lib/a.ko` is not a module file below the module directory"),
            ("a/../../b.ko:", "line 1: `a/../../b.ko` is not a module file below the module directory"),
            ("a.ko: b.txt", "line 1: `b.txt` is not a module file below the module directory"),
            ("a.ko:\nx/a.ko.xz:", "module `a` is listed twice"),
        ] {
            assert_eq!(Index::parse_dep(text).unwrap_err().to_string(), wanted, "{text}");
        }
        let provide = |text, name| Index::parse_dep(text).unwrap().provide(name).unwrap_err().to_string();
        assert_eq!(provide("a.ko: b.ko", "a"), "module `a` needs `b`, which is not listed");
        assert_eq!(provide("a.ko: b.ko\nb.ko: a.ko", "a"), "module `a` depends on itself");
        assert_eq!(provide("a.ko: a.ko", "a"), "module `a` depends on itself");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_without_a_panic(text in "([a-d]{1,2}(\\.ko|\\.ko\\.xz)?|[:\n /.-]){0,60}") {
            if let Ok(index) = Index::parse_dep(&text) {
                for name in index.modules.keys() {
                    let _ = index.provide(name);
                }
            }
        }
    }
}
