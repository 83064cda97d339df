use super::*;
use crate::{Places, fake::specification};
use std::os::unix::fs::FileExt;

#[test]
fn the_key_depends_on_qemu_kernel_image_command_line_and_accelerator() {
    let dir = tempfile::tempdir().unwrap();
    let spec = || GuestSpec {
        kernel: dir.path().join("vmlinuz"),
        image: dir.path().join("image"),
        ..specification(dir.path().to_owned())
    };
    let file = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
    file("vmlinuz", "kernel");
    file("image", "image");
    let words = ["-m".to_owned(), "512M".to_owned()];
    let mut keys = vec![fingerprint(&spec(), &words, None).unwrap()];
    assert_eq!(keys[0], fingerprint(&spec(), &words, None).unwrap());
    keys.push(
        fingerprint(&GuestSpec { tools: "virtme-ng 1.42, QEMU 10.0".to_owned(), ..spec() }, &words, None).unwrap(),
    );
    keys.push(fingerprint(&GuestSpec { accel: Accel::Kvm, ..spec() }, &words, None).unwrap());
    keys.push(fingerprint(&spec(), &words[..1], None).unwrap());
    file("vmlinuz", "another");
    keys.push(fingerprint(&spec(), &words, None).unwrap());
    file("image", "another");
    keys.push(fingerprint(&spec(), &words, None).unwrap());
    let all = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), all);
}

#[test]
fn under_kvm_the_key_depends_on_host_kernel_microcode_and_settings() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["vmlinuz", "image"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let host = tempfile::tempdir().unwrap();
    let set = |path: &str, text: &str| {
        let path = host.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let cpu = |microcode: &str| format!("model name\t: X\nmicrocode\t: {microcode}\ncpu MHz\t: 1\nflags\t: svm npt\n");
    set("proc/cpuinfo", &cpu("0x1"));
    set("proc/version", "Linux version 6.12.1\n");
    set("sys/module/kvm/parameters/enable_pmu", "Y\n");
    set("sys/module/kvm_amd/parameters/nested", "1\n");
    let key = |accel| {
        let spec = specification(dir.path().to_owned());
        let spec = GuestSpec { kernel: dir.path().join("vmlinuz"), image: dir.path().join("image"), accel, ..spec };
        fingerprint_on(host.path(), &spec, &[], None).unwrap()
    };
    let (mut last, emulated) = (key(Accel::Kvm), key(Accel::Tcg));
    assert_eq!(last, key(Accel::Kvm));
    let clock = cpu("0x1").replace("MHz\t: 1", "MHz\t: 2");
    set("proc/cpuinfo", &clock);
    assert_eq!(last, key(Accel::Kvm), "the clock rate does not count, because it changes");
    for (path, text) in [
        ("proc/cpuinfo", &*cpu("0x2")),
        ("proc/version", "Linux version 6.12.2\n"),
        ("sys/module/kvm/parameters/enable_pmu", "N\n"),
        ("sys/module/kvm_amd/parameters/nested", "0\n"),
    ] {
        set(path, text);
        let now = key(Accel::Kvm);
        assert_ne!(now, last, "{path}");
        assert_eq!(key(Accel::Tcg), emulated, "{path} does not matter for an emulated guest");
        last = now;
    }
}

fn aged(store: &SnapshotStore, name: &str, age: Duration) -> PathBuf {
    let dir = store.dir.join(name);
    fs::create_dir_all(&dir).unwrap();
    File::open(&dir).unwrap().set_modified(SystemTime::now() - age).unwrap();
    dir
}

#[test]
fn locks_of_killed_runs_are_removed_and_held_locks_stay() {
    let cache = tempfile::tempdir().unwrap();
    let store = SnapshotStore::below(cache.path());
    let held = store.claim("held").unwrap().unwrap();
    assert!(store.claim("held").unwrap().is_none(), "one run at a time");
    fs::write(store.dir.join(".dead.lock"), "").unwrap();
    store.sweep();
    let left = || fs::read_dir(&store.dir).unwrap().map(|it| it.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(left(), [".held.lock"]);
    drop(held);
    assert_eq!(left().len(), 0);
}

#[test]
fn the_oldest_snapshots_are_removed_first_and_young_ones_stay() {
    let cache = tempfile::tempdir().unwrap();
    let store = SnapshotStore::below(cache.path());
    let many: Vec<_> = (0..KEPT as u32 + 2).map(|age| aged(&store, &format!("s{age}"), YOUNG * (age + 2))).collect();
    let young = aged(&store, "young", Duration::ZERO);
    store.prune();
    assert!(young.exists() && many[..KEPT - 1].iter().all(|dir| dir.exists()));
    assert!(many[KEPT - 1..].iter().all(|dir| !dir.exists()));
    assert!(store.make_room(0).unwrap() > 0 && many[0].exists(), "nothing is removed if there is space");
    store.make_room(u64::MAX).unwrap();
    assert!(young.exists() && many.iter().all(|dir| !dir.exists()));
}

#[test]
fn memory_that_was_changed_with_its_size_kept_is_not_restored() {
    let cache = tempfile::tempdir().unwrap();
    let store = SnapshotStore::below(cache.path());
    let console = cache.path().join("console.log");
    fs::write(&console, "booted\n").unwrap();
    let draft = store.claim("key").unwrap().unwrap().begin(1).unwrap();
    fs::write(draft.state(), "devices").unwrap();
    let places = Places { dir: cache.path(), name: "guest", memory: &draft.memory() };
    let recipe = Recipe::record("qemu".into(), &[], &places);
    let snapshot = draft.publish(recipe, &console, None).unwrap();
    assert!(matches!(store.find("key"), Found::Whole(_)));
    let memory = File::options().write(true).open(snapshot.memory()).unwrap();
    // The clock of the file system need not have ticked since the snapshot was sealed.
    memory.write_all_at(b"x", 1 << 19).unwrap();
    memory.set_modified(SystemTime::now() + Duration::from_secs(2)).unwrap();
    let found = store.find("key");
    assert!(matches!(&found, Found::Damaged(why) if why == "the checksum of memory is wrong"), "{found:?}");
    assert!(matches!(store.find("key"), Found::Absent));
}
