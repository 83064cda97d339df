//! Loads the kernel modules that are in the image.

use nix::kmod::{ModuleInitFlags, finit_module};
use std::{ffi::CStr, fs::File, path::Path};

/// Path of the file in the image that lists its modules in load order.
const ORDER: &str = "/lib/modules/load-order";

/// Where the kernel lists the modules that are loaded.
const LOADED: &str = "/sys/module";

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

/// The modules of the order file that are loaded, where another agent has loaded them.
pub fn loaded() -> Vec<String> {
    of_order(&std::fs::read_to_string(ORDER).unwrap_or_default(), Path::new(LOADED))
}

fn of_order(order: &str, loaded: &Path) -> Vec<String> {
    let lines = order.lines().filter_map(|line| line.split_once(':'));
    let is_there = |file: &str| loaded.join(file.split('.').next().unwrap_or_default()).exists();
    lines.filter(|(_, files)| files.split_whitespace().all(is_there)).map(|(name, _)| name.to_owned()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_loaded_with_all_that_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["base_lib", "veth"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let order = "veth: base_lib.ko veth.ko\nnetkit:\nvxlan: base_lib.ko vxlan.ko\n";
        assert_eq!(of_order(order, dir.path()), ["veth", "netkit"]);
    }
}
