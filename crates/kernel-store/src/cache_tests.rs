use super::*;
use crate::KernelClass;
use std::cell::RefCell;

fn kernel(class: KernelClass) -> Target {
    let rule = ClassRule { class, lacks_netkit: false, has_netkit: false, believes_probes: false };
    Target {
        id: Id::new("k").unwrap(),
        origin: "mainline v6.7".into(),
        rule,
        architecture: lab_base::arch::Architecture::default(),
    }
}

fn staged(writing: &Writing<'_>) -> TempDir {
    let stage = writing.stage().unwrap();
    fs::write(stage.path().join("vmlinuz"), header::sample("6.7.0 (a@b) #1 SMP")).unwrap();
    fs::create_dir(stage.path().join("modules")).unwrap();
    fs::write(stage.path().join("modules/modules.dep"), "").unwrap();
    stage
}

fn quiet(_: &str) {}

#[test]
fn a_damaged_kernel_is_not_found_and_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().join("cache")).unwrap();
    let version = KernelVersion::new(6, 7, 0);
    let place = {
        let writing = cache.write(WritePurpose::Fetch, &quiet).unwrap();
        writing.finish(staged(&writing), &kernel(KernelClass::From67), version, "abc").unwrap().dir
    };
    assert!(cache.find("k", version, "abc").is_some());
    assert!(cache.find("k", version, "abd").is_none());
    let image = place.join("vmlinuz");
    let mut bytes = fs::read(&image).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&image, bytes).unwrap();
    assert!(cache.find("k", version, "abc").is_none());
    let writing = cache.write(WritePurpose::Fetch, &quiet).unwrap();
    writing.finish(staged(&writing), &kernel(KernelClass::From67), version, "abc").unwrap();
    assert!(cache.find("k", version, "abc").is_some());
}

#[test]
fn a_kernel_of_another_class_or_version_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().into()).unwrap();
    let writing = cache.write(WritePurpose::Fetch, &quiet).unwrap();
    let wrong = kernel(KernelClass::Below67);
    let result = writing.finish(staged(&writing), &wrong, KernelVersion::new(6, 7, 0), "abc");
    insta::assert_snapshot!(result.err().unwrap(), @"version 6.7 is not of class below-6.7 (kernels before 6.7, and later ones with `netkit` listed as unsupported)");
    let result = writing.finish(staged(&writing), &kernel(KernelClass::From67), KernelVersion::new(6, 8, 0), "abc");
    assert!(result.err().unwrap().to_string().ends_with("is kernel 6.7, but 6.8 was expected"));
    assert_eq!(fs::read_dir(dir.path().join("kernels")).unwrap().count(), 1, "only the lock file remains");
}

#[test]
fn temporary_files_of_killed_runs_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().into()).unwrap();
    let left = cache.write(WritePurpose::Fetch, &quiet).unwrap().stage().unwrap().keep();
    fs::write(left.join("half"), "x").unwrap();
    drop(cache.write(WritePurpose::Fetch, &quiet).unwrap());
    assert!(!left.exists());
}

#[test]
fn waiting_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().into()).unwrap();
    let first = cache.write(WritePurpose::Fetch, &quiet).unwrap();
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let cache = &cache;
        scope.spawn(move || {
            drop(cache.write(WritePurpose::Fetch, &|message| said.send(message.to_owned()).unwrap()).unwrap())
        });
        assert_eq!(heard.recv().unwrap(), "waiting for another lab run that is fetching kernels");
        drop(first);
    });
    let messages = RefCell::new(0);
    drop(cache.write(WritePurpose::Fetch, &|_| *messages.borrow_mut() += 1).unwrap());
    assert_eq!(messages.into_inner(), 0);
}

#[test]
fn an_error_about_a_full_disk_names_the_directory_and_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().into()).unwrap();
    let error = cache.write(WritePurpose::Fetch, &quiet).unwrap().reserve(u64::MAX).unwrap_err();
    assert!(error.to_string().contains("has too little space ("), "{error}");
    assert!(error.to_string().ends_with("free some, or set NETKIT_LAB_CACHE to a larger disk"), "{error}");
    let error = KernelsError::io("/x")(io::Error::from_raw_os_error(nix::libc::ENOSPC));
    insta::assert_snapshot!(error, @"/x has too little space: free some, or set NETKIT_LAB_CACHE to a larger disk");
}

#[test]
fn paths_that_apt_does_not_support_are_refused() {
    assert!(matches!(Cache::at("relative".into()), Err(KernelsError::BadCache { .. })));
    for path in ["/tmp/with blank", "/tmp/quo\"te", "/tmp/käse", "/tmp/a,b"] {
        assert!(matches!(Cache::at(path.into()), Err(KernelsError::NoCache(_))), "{path}");
    }
}

#[test]
fn a_fetch_neither_waits_for_a_build_nor_removes_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().to_owned()).unwrap();
    let building = cache.write(WritePurpose::Build, &quiet).unwrap();
    let stage = building.stage().unwrap();
    for meanwhile in [WritePurpose::Fetch, WritePurpose::Programs] {
        drop(cache.write(meanwhile, &|message| panic!("{message}")).unwrap());
    }
    assert!(stage.path().is_dir());
    drop(building);
    drop(cache.write(WritePurpose::Build, &quiet).unwrap());
    assert!(!stage.path().exists(), "the next build removes files of a killed one");
}
