//! Fuzz target for roots that a person got from elsewhere.

use lab::world::{Options, RootChoice, World};
use std::fs;

/// An archive, plain or packed: the first byte is its first one where it makes a tar header.
#[test]
fn archives() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (archive, cache) = (dir.path().join("root.tar"), dir.path().join("cache"));
        fs::write(&archive, bytes).unwrap();
        fs::create_dir(&cache).unwrap();
        let options = Options { root: RootChoice::Path(archive.clone()), cwd: "/".into(), ..Options::default() };
        if let Err(error) = World::new(options, &cache) {
            let error = error.to_string();
            assert!(error.contains("root.tar"), "{error}");
        }
        // Nothing is unpacked but to the cache.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    });
}
