//! Loads the modules that the image carries.

use nix::kmod::{ModuleInitFlags, finit_module};
use std::{fs::File, path::Path};

/// Where the image keeps its modules and the order to load them in.
const ORDER: &str = "/lib/modules/load-order";

/// What became of the image's modules.
#[derive(Debug, Default)]
pub struct LoadedModules {
    /// Modules that are in the kernel now, built in ones included.
    pub modules: Vec<String>,
    /// One line per module that is not.
    pub complaints: Vec<String>,
}

/// Loads every module of the order file. A module that does not load is reported and does not end the agent: the probes of
/// what needs it decide.
pub fn load_all() -> LoadedModules {
    let mut loaded = LoadedModules::default();
    let text = match std::fs::read_to_string(ORDER) {
        Ok(text) => text,
        Err(error) => {
            loaded.complaints.push(format!("cannot read {ORDER}: {error}"));
            return loaded;
        }
    };
    let mut done = std::collections::BTreeSet::new();
    for line in text.lines() {
        let Some((name, files)) = line.split_once(':') else { continue };
        let mut ok = true;
        for file in files.split_whitespace() {
            if done.contains(file) {
                continue;
            }
            match load(&Path::new("/lib/modules").join(file)) {
                Ok(()) => {
                    done.insert(file.to_owned());
                }
                Err(error) => {
                    loaded.complaints.push(format!("module {file}: {error}"));
                    ok = false;
                    break;
                }
            }
        }
        if ok {
            loaded.modules.push(name.to_owned());
        }
    }
    loaded
}

fn load(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
