//! A cache of a test's own, with what this machine has fetched.

use std::{fs, os::unix::fs::symlink, path::Path};

/// Links to everything in this machine's cache but these directories, which are empty.
pub fn but(at: &Path, own: &[&str]) {
    let ours = lab_base::paths::cache_dir().expect("the cache");
    for name in own {
        fs::create_dir_all(at.join(name)).expect("a directory");
    }
    for entry in fs::read_dir(ours).expect("the cache has been filled").flatten() {
        if !own.iter().any(|name| entry.file_name() == *name) {
            symlink(entry.path(), at.join(entry.file_name())).expect("a link");
        }
    }
}
