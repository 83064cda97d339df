use super::*;

#[test]
fn missing_tools_are_one_line_with_one_command() {
    assert!(tools(TOOLS, |_| true).is_ok());
    insta::assert_snapshot!(tools(TOOLS, |tool| !matches!(tool, "flex" | "/usr/include/gelf.h")).unwrap_err(),
        @"building a kernel needs flex, gelf.h: run `lab setup --builds`, or `apt-get install flex libelf-dev`");
}

#[test]
fn the_committed_configurations_have_no_contradictions() {
    let mut seen = std::collections::BTreeSet::new();
    for line in BARE.lines().chain(BASE.lines()).filter(|line| line.starts_with("CONFIG_")) {
        assert!(seen.insert(line), "{line} occurs twice");
    }
}

#[test]
fn the_identity_follows_sources_and_fragment() {
    let dir = tempfile::tempdir().unwrap();
    let fragment = dir.path().join("my.config");
    let change = dir.path().join("my.patch");
    let none = BuildOptions::default();
    let plain = build("00", &none).identity().unwrap();
    assert_ne!(build("01", &none).identity().unwrap(), plain);
    fs::write(&fragment, "# CONFIG_NETKIT is not set\n").unwrap();
    let other = BuildOptions { fragments: vec![fragment.clone()], ..none.clone() };
    assert_ne!(build("00", &other).identity().unwrap(), plain);
    let module = dir.path().join("module");
    fs::create_dir(&module).unwrap();
    let with = BuildOptions { modules: vec![module.clone()], ..none.clone() };
    let of = |text: &str| {
        fs::write(module.join("a.c"), text).unwrap();
        build("00", &with).identity().unwrap()
    };
    assert_ne!(of("one"), of("another"));
    let of_tests = |name: &str| {
        let with = BuildOptions { selftests: vec![name.to_owned()], ..none.clone() };
        build("00", &with).identity().unwrap()
    };
    assert_ne!(of_tests("net"), of_tests("bpf"));
    let changed = |text| {
        fs::write(&change, text).unwrap();
        SourceBuild { patch: Some(&change), ..build("00", &none) }.identity().unwrap()
    };
    assert_ne!(changed("one"), plain);
    assert_ne!(changed("one"), changed("another"));
    fs::remove_file(&fragment).unwrap();
    assert!(build("00", &other).identity().is_err());
}

fn build<'a>(sha256: &'a str, options: &'a BuildOptions) -> SourceBuild<'a> {
    let (package, kernel) = ("linux-source-6.12", lab_protocol::KernelVersion::new(6, 12, 117));
    let wanted = LockedPackage {
        suite: "sid",
        pattern: package,
        package,
        version: "6.12.117-1",
        sha256,
        kernel,
        whole: true,
        parts: &[],
    };
    SourceBuild { wanted, options, patch: None }
}

/// A kernel's Makefile as far as modules are concerned: `make M=DIR modules` compiles what is in the directory.
const MAKEFILE: &str =
    "modules:\n\t@for file in $(M)/*.c; do [ ! -e \"$$file\" ] || cp \"$$file\" \"$${file%.c}.ko\"; done\n";

#[test]
fn modules_are_compiled_in_a_copy_of_their_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, mine) = (dir.path().join("tree"), dir.path().join("mine"));
    fs::create_dir_all(&tree).unwrap();
    fs::create_dir_all(mine.join("sub")).unwrap();
    fs::write(tree.join("Makefile"), MAKEFILE).unwrap();
    let options = BuildOptions { modules: vec![mine.clone()], ..BuildOptions::default() };
    let error = build("00", &options).own_modules(&tree, "-j1", &|_| ()).unwrap_err().to_string();
    assert!(error.ends_with("mine: its Kbuild file makes no module: add `obj-m := NAME.o`"), "{error}");
    fs::write(mine.join("one.c"), "one").unwrap();
    fs::write(mine.join("sub/kept.h"), "").unwrap();
    let found = build("00", &options).own_modules(&tree, "-j1", &|_| ()).unwrap();
    let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["one.ko"]);
    assert!(!mine.join("one.ko").exists() && tree.join("lab-modules-0/sub/kept.h").exists());
    fs::write(tree.join("Makefile"), "modules:\n\tfalse\n").unwrap();
    let error = build("00", &options).own_modules(&tree, "-j1", &|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("make M=") && error.contains("mine failed"), "{error}");
}
