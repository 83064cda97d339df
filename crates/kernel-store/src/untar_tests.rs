use super::*;
use tar::{Builder, EntryType, Header};

fn untar(bytes: &[u8], stage: &Path) -> Result<String, Refusal> {
    let mut found = UnpackedFiles::default();
    found.add(bytes, stage)?;
    found.release()
}

/// An archive of `(name, kind)`. Names are written as bytes, since the builder refuses invalid ones.
fn archive(entries: &[(&str, EntryType)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind) in entries {
        let body: &[u8] = if *kind == EntryType::Regular { b"body" } else { b"" };
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(body.len() as u64);
        header.set_mode(0o4777);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        builder.append(&header, body).unwrap();
    }
    builder.into_inner().unwrap()
}

fn files(names: &[&str]) -> Vec<u8> {
    archive(&names.iter().map(|name| (*name, EntryType::Regular)).collect::<Vec<_>>())
}

fn refused(bytes: &[u8]) -> String {
    let outer = tempfile::tempdir().unwrap();
    let stage = outer.path().join("stage");
    fs::create_dir(&stage).unwrap();
    let error = untar(bytes, &stage).unwrap_err();
    assert!(matches!(error, Refusal::Archive(_)), "{error}");
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1, "nothing may appear beside the stage");
    error.to_string()
}

#[test]
fn extracts_only_the_kernel() {
    for modules in ["./lib/modules", "./usr/lib/modules"] {
        let module = format!("{modules}/6.1.0/kernel/net/veth.ko");
        let bytes =
            files(&["./boot/vmlinuz-6.1.0", "./boot/config-6.1.0", "./boot/System.map-6.1.0", &module, "./etc/x"]);
        let stage = tempfile::tempdir().unwrap();
        assert_eq!(untar(&bytes, stage.path()).unwrap(), "6.1.0");
        let mut found: Vec<_> = walkdir::WalkDir::new(stage.path())
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| entry.path().strip_prefix(stage.path()).unwrap().display().to_string())
            .collect();
        found.sort();
        assert_eq!(found, ["config", "root/lib/modules/6.1.0/kernel/net/veth.ko", "vmlinuz"]);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(stage.path().join("vmlinuz")).unwrap().permissions());
        assert_eq!(mode & 0o7111, 0, "modes of the archive are ignored");
    }
}

#[test]
fn a_split_kernel_is_combined() {
    let stage = tempfile::tempdir().unwrap();
    let mut found = UnpackedFiles::default();
    for part in ["vmlinuz", "config", "kernel/net/veth.ko.xz"] {
        found.add(&*files(&[&format!("./usr/lib/modules/7.2.12/{part}")]), stage.path()).unwrap();
    }
    assert_eq!(found.release().unwrap(), "7.2.12");
    for file in ["vmlinuz", "config", "root/lib/modules/7.2.12/kernel/net/veth.ko.xz"] {
        assert!(stage.path().join(file).is_file(), "{file}");
    }
    let mut found = UnpackedFiles::default();
    found.add(&*files(&["./usr/lib/modules/7.2.13/modules.order"]), stage.path()).unwrap();
    assert!(found.release().is_err(), "modules without an image are not a kernel");
}

#[test]
fn paths_outside_of_the_directory_are_refused() {
    insta::assert_snapshot!(refused(&files(&["lib/modules/6.1/../../../../evil"])),
        @"`lib/modules/6.1/../../../../evil` is outside of the directory");
    insta::assert_snapshot!(refused(&files(&["/boot/vmlinuz-6.1"])), @"`/boot/vmlinuz-6.1` is outside of the directory");
    insta::assert_snapshot!(refused(&files(&["../evil"])), @"`../evil` is outside of the directory");
    insta::assert_snapshot!(refused(&archive(&[("lib/modules/6.1/kernel", EntryType::Symlink), ("lib/modules/6.1/kernel/passwd", EntryType::Regular)])),
        @"`lib/modules/6.1/kernel` is a link or a special file");
    insta::assert_snapshot!(refused(&archive(&[("boot/vmlinuz-6.1", EntryType::Link)])),
        @"`boot/vmlinuz-6.1` is a link or a special file");
    insta::assert_snapshot!(refused(&files(&["lib/modules/-b/x"])), @r#""-b" is not a kernel release"#);
}

#[test]
fn links_to_the_headers_are_left_out() {
    let entries = [("boot/vmlinuz-6.1", EntryType::Regular), ("lib/modules/6.1/build", EntryType::Symlink)];
    let stage = tempfile::tempdir().unwrap();
    untar(&archive(&entries), stage.path()).unwrap();
    assert!(!stage.path().join("root").exists());
}

#[test]
fn an_archive_without_exactly_one_kernel_is_refused() {
    insta::assert_snapshot!(refused(&files(&["bin/true"])), @"has no boot/vmlinuz-*: not a kernel package");
    insta::assert_snapshot!(refused(&files(&["boot/vmlinuz-6.1", "boot/vmlinuz-6.2"])), @"`boot/vmlinuz-6.2` occurs twice");
    insta::assert_snapshot!(refused(&files(&["boot/vmlinuz-6.1", "lib/modules/6.2/x"])), @"has several kernels: 6.1, 6.2");
    let whole = files(&["boot/vmlinuz-6.1"]);
    assert!(refused(&whole[..515]).starts_with("is damaged"));
    assert!(refused(&[0xff; 1024]).starts_with("is damaged"));
}

/// An archive that begins with these bytes and goes on with the others without end.
fn endless(first: &[u8], others: &[u8]) -> impl Read {
    let (first, others, mut at) = (first.to_vec(), others.to_vec(), 0);
    struct Made<F>(F);
    impl<F: FnMut(&mut [u8]) -> usize> Read for Made<F> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            Ok((self.0)(buffer))
        }
    }
    Made(move |buffer: &mut [u8]| {
        let rest = if at < first.len() { &first[at..] } else { &others[(at - first.len()) % others.len()..] };
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        at += length;
        length
    })
}

fn header(name: &str, kind: EntryType, size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn an_archive_that_exceeds_a_limit_is_refused() {
    let too_much = |first: &[u8], others: &[u8]| {
        let stage = tempfile::tempdir().unwrap();
        UnpackedFiles::default().add(endless(first, others), stage.path()).unwrap_err().to_string()
    };
    let empty = header("etc/x", EntryType::Regular, 0);
    assert_eq!(too_much(&empty, &empty), "has more than 100000 entries");
    // Of a file that is not unpacked, too.
    let bomb = header("etc/bomb", EntryType::Regular, 7 << 30);
    assert_eq!(too_much(&bomb, &[0; 1 << 20]), "unpacks to more than 2 GiB");
    for kind in [EntryType::GNULongName, EntryType::XHeader] {
        assert_eq!(too_much(&header("x", kind, 1 << 30), &[b'x'; 512]), "has a name of more than 16 KiB");
    }
    let sparse = archive(&[("boot/vmlinuz-6.1", EntryType::GNUSparse)]);
    assert_eq!(refused(&sparse), "`boot/vmlinuz-6.1` is a sparse file");
    let pax = |record: &str| {
        let mut bytes = header("x", EntryType::XHeader, record.len() as u64);
        bytes.extend(record.as_bytes());
        bytes.resize(1024, 0);
        bytes.extend(files(&["boot/vmlinuz-6.1"]));
        bytes
    };
    assert_eq!(refused(&pax("22 GNU.sparse.major=1\n")), "has a sparse file");
    assert_eq!(refused(&pax("15 size=123456\n")), "has a file of more than 8 GiB");
    assert_eq!(refused(&pax("17 path=../../ev\n")), "`../../ev` is outside of the directory");
}

#[test]
fn modules_without_a_kernel_are_those_of_one_release() {
    let unpacked = |names: &[&str]| {
        let outer = tempfile::tempdir().unwrap();
        let packed = outer.path().join("modules.tar.gz");
        let mut gz = flate2::write::GzEncoder::new(fs::File::create(&packed).unwrap(), flate2::Compression::fast());
        io::Write::write_all(&mut gz, &files(names)).unwrap();
        gz.finish().unwrap();
        let stage = outer.path().join("stage");
        unpack_modules(&packed, &stage).map(|found| {
            assert!(found.join("modules.dep").exists());
            found.strip_prefix(&stage).unwrap().display().to_string()
        })
    };
    let one = unpacked(&["lib/modules/6.1.0/modules.dep", "etc/x"]).unwrap();
    assert_eq!(one, "root/lib/modules/6.1.0");
    let error = |names: &[&str]| unpacked(names).unwrap_err().to_string();
    assert!(error(&["etc/x"]).contains("has no lib/modules"));
    let several = error(&["lib/modules/6.1.0/modules.dep", "lib/modules/6.2.0/modules.dep"]);
    assert!(several.contains("has modules of several kernels: 6.1.0, 6.2.0"), "{several}");
    assert!(error(&["lib/modules/../../x"]).contains("outside of the directory"));
}
