use super::*;
use crate::{header, source::LockedCommit};
use std::fs;

fn config(dir: &Path, class: &str) -> KernelMatrix {
    let text = format!(
        "[kernels.mine]\nclass = \"{class}\"\ndefault = true\nsource.path = {{ image = \"bzImage\", modules = \"m\" }}\n"
    );
    KernelMatrix::parse(&text, "kernels.toml", dir.to_owned()).unwrap()
}

#[test]
fn a_kernel_of_this_host_is_copied_once_and_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    fs::write(at.join("bzImage"), header::sample("6.9.1-mine (a@b) #1 SMP")).unwrap();
    fs::create_dir_all(at.join("m/kernel")).unwrap();
    fs::write(at.join("m/modules.builtin"), "kernel/drivers/net/netkit.ko\n").unwrap();
    std::os::unix::fs::symlink("/", at.join("m/build")).unwrap();
    let (config, cache) = (config(at, "6.7+"), Cache::at(at.join("cache")).unwrap());
    let store = KernelStore { cache: &cache, config: &config, vng: Path::new("vng") };
    let said = std::cell::RefCell::new(Vec::new());
    let fetch =
        || store.fetch(&config.kernels[0], &KernelsLock::default(), &|text| said.borrow_mut().push(text.to_owned()));
    let first = fetch().unwrap();
    assert_eq!((first.version.to_string(), &*first.release), ("6.9.1".to_owned(), "6.9.1-mine"));
    assert!(first.modules.join("modules.dep").is_file() && first.modules.join("modules.builtin").is_file());
    assert!(!first.modules.join("build").exists());
    // Kernels that are not used for some weeks are removed, by the time of their directory.
    let used = |dir: &Path| fs::metadata(dir).unwrap().modified().unwrap();
    let (directory, long_ago) = (first.vmlinuz.parent().unwrap(), std::time::SystemTime::UNIX_EPOCH);
    fs::File::open(directory).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(fetch().unwrap().vmlinuz, first.vmlinuz);
    assert_ne!(used(directory), long_ago, "it is in use");
    assert_eq!(*said.borrow(), ["mine: copying into the cache"]);
    assert!(store.rows(&KernelsLock::default())[0].cached);
    fs::write(at.join("m/kernel/extra"), "x").unwrap();
    assert_ne!(fetch().unwrap().sha256, first.sha256);
}

#[test]
fn errors_name_the_kernel_and_their_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bzImage"), header::sample("6.9.1-mine (a@b) #1 SMP")).unwrap();
    fs::create_dir(dir.path().join("m")).unwrap();
    let (config, cache) = (config(dir.path(), "below-6.7"), Cache::at(dir.path().join("cache")).unwrap());
    let store = KernelStore { cache: &cache, config: &config, vng: Path::new("vng") };
    let error = store.fetch(&config.kernels[0], &KernelsLock::default(), &|_| ()).unwrap_err();
    insta::assert_snapshot!(error, @"kernel mine: version 6.9.1 is not of class below-6.7 (kernels before 6.7, and later ones with `netkit` listed as unsupported)");
    assert!(error.is_usage());
}

#[test]
fn update_drops_what_the_matrix_no_longer_has() {
    let dir = tempfile::tempdir().unwrap();
    let (config, cache) = (config(dir.path(), "6.7+"), Cache::at(dir.path().join("cache")).unwrap());
    let store = KernelStore { cache: &cache, config: &config, vng: Path::new("vng") };
    let gone = Locked::Git(LockedCommit {
        reference: "v6.7".into(),
        commit: "0dd3ee3".into(),
        kernel: KernelVersion::new(6, 7, 0),
    });
    let mut lock = KernelsLock { kernels: [("gone".to_owned(), gone.clone())].into() };
    let kernels: Vec<_> = config.kernels.iter().collect();
    let update = store.update(&kernels, &mut lock, &|_| ()).unwrap();
    assert_eq!(update.changes, [LockChange { id: "gone".into(), class: None, before: Some(gone), after: None }]);
    assert_eq!(lock, KernelsLock::default());
}
