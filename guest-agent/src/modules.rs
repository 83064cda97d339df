//! Loads the kernel modules that are in the image.

use nix::kmod::{ModuleInitFlags, finit_module};
use std::{ffi::CStr, fs::File, path::Path};

/// Path of the file in the image that lists its modules in load order.
const ORDER: &str = "/lib/modules/load-order";

/// Result of loading the image's modules.
#[derive(Debug, Default)]
pub struct LoadedModules {
    /// Modules that are loaded now, including built-in ones.
    pub modules: Vec<String>,
    /// One error per module that could not be loaded.
    pub complaints: Vec<String>,
}

/// Loads every module of the order file. A module that cannot be loaded is reported and does not end the agent: the
/// probes find the capabilities that are missing without it.
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

/// Parameters of modules that would otherwise bring devices which nobody asked for.
const PARAMETERS: [(&str, &CStr); 3] = [("dummy", c"numdummies=0"), ("ifb", c"numifbs=0"), ("bonding", c"max_bonds=0")];

fn load(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.split('.').next().unwrap_or_default();
    let parameters = PARAMETERS.iter().find(|(module, _)| *module == name).map_or(c"", |(_, parameters)| parameters);
    match finit_module(&file, parameters, ModuleInitFlags::empty()) {
        Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
