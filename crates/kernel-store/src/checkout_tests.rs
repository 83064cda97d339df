use super::*;
use std::os::unix::fs::PermissionsExt;

/// A tree whose `make` knows two targets of Kconfig, and a vng that counts its calls and runs the tree's script.
struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("arch/x86/boot")).unwrap();
        let makefile = "allnoconfig:\n\tgrep -v UNKNOWN $(KCONFIG_ALLCONFIG) > .config\nolddefconfig:\n\ttrue\n";
        fs::write(tree.join("Makefile"), makefile).unwrap();
        fs::write(tree.join("image"), header::sample("6.12.3-virtme (lab@lab) #1 SMP")).unwrap();
        let vng = dir.path().join("vng");
        let script = format!("#!/bin/sh\necho \"$*\" >> {}/calls\n. ./build\n", dir.path().display());
        fs::write(&vng, script).unwrap();
        fs::set_permissions(&vng, fs::Permissions::from_mode(0o755)).unwrap();
        let it = Self { dir };
        it.sources("cp image arch/x86/boot/bzImage");
        it
    }

    /// Sets the script that builds the sources.
    fn sources(&self, build: &str) {
        fs::write(self.dir.path().join("tree/build"), build).unwrap();
    }

    fn checkout<'a>(&self, fragment: Option<&str>, stop: &'a dyn Fn() -> bool) -> Checkout<'a> {
        let at = self.dir.path();
        let fragments = fragment.map(|text| {
            fs::write(at.join("my.config"), text).unwrap();
            at.join("my.config")
        });
        let settings = Settings {
            config: None,
            fragments: fragments.into_iter().collect(),
            command: None,
            jobs: 2,
            vng: at.join("vng"),
            home: at.join("home"),
        };
        Checkout { tree: at.join("tree"), products: at.join("products"), settings, stop }
    }

    fn calls(&self) -> usize {
        fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default().lines().count()
    }
}

fn cannot(built: BuildResult) -> String {
    match built {
        BuildResult::Cannot(why) => why,
        BuildResult::Kernel(kernel) => panic!("a kernel: {kernel:?}"),
    }
}

#[test]
fn a_result_is_cached_by_sources_and_configuration() {
    let fixture = Fixture::new();
    let checkout = fixture.checkout(None, &|| false);
    let key = checkout.key("tree 1").unwrap();
    assert!(checkout.find(&key).is_none());
    let BuildResult::Kernel(kernel) = checkout.build(&key).unwrap() else { panic!("no kernel") };
    assert_eq!(
        (kernel.release.as_str(), kernel.class, kernel.unsupported.len()),
        ("6.12.3-virtme", KernelClass::From67, 0)
    );
    assert!(kernel.modules.join("modules.dep").is_file() && kernel.config.as_ref().unwrap().is_file());
    let Some(BuildResult::Kernel(again)) = checkout.find(&key) else { panic!("not kept") };
    assert_eq!((again.sha256, fixture.calls()), (kernel.sha256, 1));
    let said = fs::read_to_string(fixture.dir.path().join("calls")).unwrap();
    assert!(said.contains("--build --verbose --jobs 2 --skip-modules"), "{said}");
    assert!(said.contains("KBUILD_BUILD_VERSION=1"), "{said}");
    assert_ne!(checkout.key("tree 2").unwrap(), key);
    assert_ne!(fixture.checkout(Some("CONFIG_EXTRA=y\n"), &|| false).key("tree 1").unwrap(), key);
}

#[test]
fn equal_images_of_different_sources_are_the_same_kernel() {
    let fixture = Fixture::new();
    let checkout = fixture.checkout(None, &|| false);
    let image = |sources: &str| match checkout.build(&checkout.key(sources).unwrap()).unwrap() {
        BuildResult::Kernel(kernel) => kernel.sha256,
        BuildResult::Cannot(why) => panic!("{why}"),
    };
    assert_eq!(image("tree 1"), image("tree 2"));
}

/// Distributions compress modules, and some install links: kernels that only differ in the content of a module must not
/// be the same.
#[test]
fn kernels_that_differ_in_a_module_are_not_the_same() {
    let fixture = Fixture::new();
    let checkout = fixture.checkout(None, &|| false);
    let tree = fixture.dir.path().join("tree");
    let makefile = fs::read_to_string(tree.join("Makefile")).unwrap();
    let install = "modules_install:\n\tmkdir -p $(INSTALL_MOD_PATH)/lib/modules/6.12.3-virtme/kernel\n\t./install \
                   $(INSTALL_MOD_PATH)/lib/modules/6.12.3-virtme/kernel\n";
    fs::write(tree.join("Makefile"), makefile + install).unwrap();
    for packed in [
        "cp extra $1/extra.ko",
        "gzip -nc extra > $1/extra.ko.gz",
        "xz -c extra > $1/extra.ko.xz",
        "cp extra $1/../extra; ln -s ../extra $1/extra.ko",
    ] {
        fs::write(tree.join("install"), format!("#!/bin/sh\n{packed}\n")).unwrap();
        fs::set_permissions(tree.join("install"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut seen = Vec::new();
        for content in ["one", "two"] {
            fixture.sources(&format!(
                "cp image arch/x86/boot/bzImage; printf '\\177ELF{content}' > extra; echo extra.o > modules.order"
            ));
            let BuildResult::Kernel(kernel) = checkout.build("key").unwrap() else { panic!("no kernel") };
            assert!(!seen.contains(&kernel.sha256), "{packed}, {content}");
            seen.push(kernel.sha256);
        }
    }
    fixture.sources("cp image arch/x86/boot/bzImage");
    let BuildResult::Kernel(kernel) = checkout.build("key").unwrap() else { panic!("no kernel") };
    assert!(!kernel.modules.join("kernel").exists(), "modules of an earlier commit are not used");
}

#[test]
fn a_compile_error_is_cached_with_the_compilers_message() {
    let fixture = Fixture::new();
    let checkout = fixture.checkout(None, &|| false);
    fixture.sources("echo '  CC x.o'; echo \"net/x.c:7:2: error: expected ';'\"; echo 'make: *** [x] Error 1'; exit 1");
    let key = checkout.key("tree 1").unwrap();
    assert_eq!(cannot(checkout.build(&key).unwrap()), "net/x.c:7:2: error: expected ';'");
    assert_eq!(cannot(checkout.find(&key).unwrap()), "net/x.c:7:2: error: expected ';'");
    fixture.sources("true");
    assert_eq!(cannot(checkout.build("other").unwrap()), "the build created no arch/x86/boot/bzImage");
}

#[test]
fn a_failure_of_the_host_is_not_cached() {
    let fixture = Fixture::new();
    let checkout = fixture.checkout(None, &|| false);
    fixture.sources("echo 'x.o: No space left on device'; exit 1");
    let error = checkout.build("key").unwrap_err().to_string();
    assert!(error.starts_with("the build failed: exit status: 1: x.o: No space left"), "{error}");
    fixture.sources("kill -KILL $$");
    assert!(checkout.build("key").is_err());
    assert!(checkout.find("key").is_none(), "the failure is not cached");
}

#[test]
fn a_fragment_without_effect_is_an_error_before_compiling() {
    let fixture = Fixture::new();
    let checkout = fixture.checkout(Some("CONFIG_UNKNOWN_THING=y\n"), &|| false);
    assert_eq!(cannot(checkout.build("key").unwrap()), "CONFIG_UNKNOWN_THING=y has no effect here");
    assert_eq!(fixture.calls(), 0);
    let checkout = fixture.checkout(Some("CONFIG_EXTRA=y\n"), &|| false);
    for key in ["a", "b"] {
        let BuildResult::Kernel(kernel) = checkout.build(key).unwrap() else { panic!("no kernel") };
        let config = fs::read_to_string(kernel.config.unwrap()).unwrap();
        assert!(config.contains("CONFIG_NETKIT=y") && config.contains("CONFIG_EXTRA=y"), "{config}");
    }
}

#[test]
fn the_users_build_command_may_skip() {
    let fixture = Fixture::new();
    let mut checkout = fixture.checkout(None, &|| false);
    checkout.settings.command = Some("cp image arch/x86/boot/bzImage && test -f .config".to_owned());
    assert!(matches!(checkout.build("a").unwrap(), BuildResult::Kernel(_)));
    checkout.settings.command = Some("exit 125".to_owned());
    assert_eq!(cannot(checkout.build("b").unwrap()), "the build command skips it");
    assert_eq!(fixture.calls(), 0);
}

#[test]
fn an_interrupted_build_ends_with_all_its_children() {
    let fixture = Fixture::new();
    fixture.sources("sleep 1000 & echo $! > child; wait");
    let child = fixture.dir.path().join("tree/child");
    let read = || fs::read_to_string(&child).ok().filter(|text| text.ends_with('\n'));
    let stop = || read().is_some();
    let checkout = fixture.checkout(None, &stop);
    assert!(matches!(checkout.build("key"), Err(KernelsError::Interrupted { .. })));
    let pid = read().unwrap();
    let status = Path::new("/proc").join(pid.trim()).join("status");
    // A dead child that has not been reaped yet is a zombie.
    let gone = || fs::read_to_string(&status).map_or(true, |text| text.contains("State:\tZ"));
    assert!(
        (0..500).any(|_| gone() || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            false
        }),
        "{pid} is still running"
    );
}
