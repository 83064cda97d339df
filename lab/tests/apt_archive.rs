//! `source.apt` on an archive that the test makes and signs: in Ubuntu's shape, with a real kernel and with bad ones.

#[path = "support/apt.rs"]
mod apt;
#[path = "support/archive.rs"]
mod archive;
#[path = "support/bzimage.rs"]
mod bzimage;
#[path = "support/ubuntu.rs"]
mod ubuntu;

use apt::{FRESH, Package};
use archive::{Project, Signer, text};
use std::{fs, ops::Deref, process::Command};
use ubuntu::names;

/// An archive, and a project with one kernel from it.
struct Archive {
    project: Project,
    signer: Signer,
}

impl Deref for Archive {
    type Target = Project;

    fn deref(&self) -> &Project {
        &self.project
    }
}

impl Archive {
    fn new(packages: &[Package<'_>]) -> Self {
        let archive = Self { project: Project::new(), signer: Signer::new() };
        archive.signer.export(&archive.at("keyring.gpg"));
        archive.publish(packages, FRESH, &archive.signer);
        archive.kernel("");
        archive
    }

    fn publish(&self, packages: &[Package<'_>], valid: &str, signer: &Signer) {
        apt::publish(&self.at("archive"), packages, valid, signer);
    }

    /// Writes `kernels.toml`, with more keys of the source.
    fn kernel(&self, more: &str) {
        let source = format!(
            "[kernels.shipped.source.apt]\narchive = \"file:{}\"\nsuite = \"plucky\"\nkeyring = \"keyring.gpg\"\n\
             package = \"linux-image-unsigned-*\"\nmodules = [\"linux-modules-{{release}}\"]\n\
             extra = [\"linux-modules-extra-{{release}}\"]\n{more}\n",
            self.at("archive").display()
        );
        let kernel = format!("[kernels.shipped]\nclass = \"own\"\ndefault = true\n{source}");
        fs::write(self.at("kernels.toml"), kernel).unwrap();
    }
}

/// A kernel that is unpacked and never booted.
fn small<'a>(names: &'a [String; 3], version: &'a str) -> [Package<'a>; 3] {
    let module = |name: &str| (format!("lib/modules/{}/kernel/{name}", bzimage::RELEASE), Vec::new());
    let image = (format!("boot/vmlinuz-{}", bzimage::RELEASE), bzimage::image());
    let order = |name: &str| (format!("lib/modules/{}/modules.{name}", bzimage::RELEASE), Vec::new());
    [
        Package(&names[0], version, vec![image]),
        Package(&names[1], version, vec![module("readme"), order("order")]),
        Package(&names[2], version, vec![module("extra")]),
    ]
}

#[test]
fn what_an_archive_must_not_do_is_one_error() {
    let (names, lock, fetch) = (names(bzimage::RELEASE), ["kernels", "update"], ["kernels", "fetch"]);
    let archive = Archive::new(&small(&names, "6.12.3-1"));
    let told = archive.fine(&lock);
    assert!(told.contains("shipped: new, linux-image-unsigned-6.12.3-mine 6.12.3-1 (plucky of file:"), "{told}");
    archive.fine(&fetch);
    assert_eq!(archive.kernels().len(), 1);

    // An index that this key did not sign, and one that is too old.
    archive.publish(&small(&names, "6.12.3-2"), FRESH, &Signer::new());
    let error = archive.refused(&lock);
    assert!(
        error.contains("kernel shipped: apt-get update of plucky of file:") && error.contains("NO_PUBKEY"),
        "{error}"
    );
    archive.publish(&small(&names, "6.12.3-2"), "Valid-Until: Sun, 02 Nov 2025 00:00:00 UTC", &archive.signer);
    let error = archive.refused(&lock);
    assert!(error.contains("is too old") && error.contains("`stale = \"reason\"` in its `source.apt`"), "{error}");
    archive.kernel("stale = \"a test\"");
    let told = archive.fine(&lock);
    assert!(
        told.contains("6.12.3-1 (plucky of file:") && told.contains(" -> linux-image-unsigned-6.12.3-mine 6.12.3-2"),
        "{told}"
    );
    archive.kernel("");

    // The locked version has gone.
    archive.publish(&small(&names, "6.12.3-3"), FRESH, &archive.signer);
    let error = archive.refused(&fetch);
    assert!(error.contains("no longer has linux-image-unsigned-6.12.3-mine 6.12.3-2; it now has 6.12.3-3"), "{error}");
    archive.fine(&lock);
    archive.fine(&fetch);

    // Packages that do not make a kernel.
    let bad = |version: &str, change: &dyn Fn(&mut [Package<'_>; 3])| {
        let mut packages = small(&names, version);
        change(&mut packages);
        archive.publish(&packages, FRESH, &archive.signer);
        archive.fine(&lock);
        archive.refused(&fetch)
    };
    let error = bad("6.12.3-4", &|packages| packages[2].2 = packages[1].2.clone());
    assert!(error.contains("linux-modules-extra-") && error.contains("kernel/readme` occurs twice"), "{error}");
    let error = bad("6.12.3-5", &|packages| packages[0].2[0].1 = [&[0; 56][..], b"ARM\x64", &[0; 4096]].concat());
    assert!(error.contains("vmlinuz: is not an x86 bzImage"), "{error}");
    let error = bad("6.12.3-6", &|packages| {
        packages[1].2.remove(0);
        packages[2].2.clear();
    });
    assert!(error.contains("has no modules of 6.12.3-mine: name the packages that have them in `modules`"), "{error}");
    archive.publish(&small(&names, "6.12.3-7")[..1], FRESH, &archive.signer);
    let told = archive.fine(&lock);
    assert!(told.contains("no package matches `linux-modules-6.12.3-mine 6.12.3-7`"), "{told}");

    // A keyring that is not there.
    fs::remove_file(archive.at("keyring.gpg")).unwrap();
    let error = archive.refused(&lock);
    assert!(error.contains("keyring.gpg: is no keyring: correct `keyring` of the `apt` source"), "{error}");
}

/// `lab kernels ladder` of Ubuntu, whose archive is the test's, and of an archive by its address.
#[test]
fn a_ladder_has_the_images_whose_modules_are_there_and_that_are_not_locked() {
    let names = [names("6.12.3-mine"), names("6.17.0-8-generic"), names("6.17.0-9-generic"), names("6.14.0-3-generic")];
    let package = |name, version| Package(name, version, Vec::new());
    let mut packages: Vec<Package<'_>> = small(&names[0], "6.12.3-1").into();
    for (at, version) in [(1, "6.17.0-8.8"), (2, "6.17.0-9.9")] {
        packages.extend(names[at].iter().map(|name| package(name, version)));
    }
    packages.push(package(&names[3][0], "6.14.0-3.3"));
    let archive = Archive::new(&packages);
    archive.fine(&["kernels", "update"]);
    let (keyring, address) = (archive.at("keyring.gpg"), format!("file:{}", archive.at("archive").display()));
    let ladder = |from: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.arg("--project").arg(archive.at("")).args(["kernels", "ladder", from, "--since", "6.12"]).args(more);
        command.arg("--keyring").arg(&keyring).env("NETKIT_LAB_UBUNTU_MIRROR", &address);
        let output = command.env("NETKIT_LAB_CACHE", archive.at("cache")).output().unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, told, errors) = ladder("ubuntu", &["--suite", "plucky"]);
    assert_eq!(code, Some(0), "{errors}");
    let tables: Vec<&str> = told.lines().filter(|line| line.starts_with("[kernels.")).collect();
    // The newest one is locked.
    assert_eq!(tables, ["[kernels.\"ubuntu-6.17.0-8-generic\"]"], "{told}");
    assert!(
        told.contains("# left out, packages of it are gone: plucky: linux-image-unsigned-6.14.0-3-generic 6.14.0-3.3")
    );
    // The entries can be pasted.
    let list = fs::read_to_string(archive.at("kernels.toml")).unwrap();
    fs::write(archive.at("kernels.toml"), format!("{list}\n{told}")).unwrap();
    let listed = archive.fine(&["kernels", "list"]);
    assert!(listed.contains("ubuntu-6.17.0-8-generic"), "{listed}");
    fs::write(archive.at("kernels.toml"), list).unwrap();

    // By the address, one that has its modules in the image counts, and the suites are those of kernels.toml.
    let (code, told, errors) = ladder(&address, &["--package", "linux-image-unsigned-*"]);
    assert_eq!(code, Some(0), "{errors}");
    let tables: Vec<&str> = told.lines().filter(|line| line.starts_with("[kernels.")).collect();
    assert_eq!(tables.len(), 3, "without the locked one: {told}");
    assert!(told.contains("modules = [\"linux-modules-{release}\"]") && told.contains("keyring = \""), "{told}");
    for (from, more, wanted) in [
        ("ubuntu", &[][..], "ubuntu: kernels.toml has no source of its suites: name them by --suite"),
        ("fedora", &[][..], "expected debian, ubuntu, stable, or the address of an apt archive"),
        ("http://me:secret@a.example/x", &["--suite", "x"][..], "has a user's name"),
    ] {
        let (code, _, errors) = ladder(from, more);
        assert!(code != Some(0) && errors.contains(wanted) && !errors.contains("secret@"), "{from}: {errors}");
    }
}

/// Debian's 6.12 as Ubuntu would pack it: the modules apart from the image, compressed with zstd, one of them in the
/// package with the rarer ones.
#[test]
fn a_guest_boots_a_kernel_in_ubuntus_shape() {
    let kernel = ubuntu::Shape::of_debians("6.12");
    let archive = Archive::new(&kernel.packages("6.12.117-1.1"));
    archive.borrow_build();
    for arguments in [&["kernels", "update"][..], &["run", "--no-build", "-k", "shipped", "A01-*veth*", "A02-*nk-l3*"]]
    {
        let output = archive.lab(arguments, false);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    }
    let lock = fs::read_to_string(archive.at("kernels.lock")).unwrap();
    assert!(kernel.names.iter().all(|name| lock.contains(name)), "{lock}");
    let summary = fs::read(archive.at("results/latest/run.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert!(summary["counts"]["passed"].as_u64() > Some(3) && summary["counts"]["skipped"] == 0, "{summary}");
}
