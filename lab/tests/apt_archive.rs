//! `source.apt` on an archive that the test makes and signs: in Ubuntu's shape, with a real kernel and with bad ones.

#[path = "support/archive.rs"]
mod archive;
#[path = "support/bzimage.rs"]
mod bzimage;

use archive::{Project, Signer, debians_kernel, done, sum, text};
use std::{fs, ops::Deref, process::Command};

const FRESH: &str = "Valid-Until: Mon, 01 Jan 2120 00:00:00 UTC";

/// A package: name, version, and the files in it.
struct Package<'a>(&'a str, &'a str, Vec<(String, Vec<u8>)>);

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

    /// Writes the packages, and their index as `apt-ftparchive` and a signer would.
    fn publish(&self, packages: &[Package<'_>], valid: &str, signer: &Signer) {
        let dist = self.at("archive/dists/plucky");
        let pool = self.at("archive/pool");
        for dir in [&pool, &dist.join("main/binary-amd64")] {
            let _ = fs::remove_dir_all(dir);
            fs::create_dir_all(dir).unwrap();
        }
        let mut index = String::new();
        for Package(name, version, files) in packages {
            let tree = tempfile::tempdir().unwrap();
            let control = format!(
                "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: a <a@lab.example>\nDescription: a test\n"
            );
            let control_file = ("DEBIAN/control".to_owned(), control.clone().into_bytes());
            for (path, content) in files.iter().chain([&control_file]) {
                let path = tree.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            let deb = pool.join(format!("{name}_{version}_amd64.deb"));
            let build = ["--root-owner-group", "-Znone", "--build"];
            done(Command::new("dpkg-deb").args(build).arg(tree.path()).arg(&deb));
            let bytes = fs::read(&deb).unwrap();
            let file = deb.file_name().unwrap().to_str().unwrap();
            index += &format!("{control}Filename: pool/{file}\nSize: {}\nSHA256: {}\n\n", bytes.len(), sum(&bytes));
        }
        fs::write(dist.join("main/binary-amd64/Packages"), &index).unwrap();
        let release = format!(
            "Origin: Ubuntu\nSuite: plucky\nCodename: plucky\nArchitectures: amd64\nComponents: main\n\
             Date: Sat, 01 Nov 2025 00:00:00 UTC\n{valid}\nSHA256:\n {} {} main/binary-amd64/Packages\n",
            sum(index.as_bytes()),
            index.len()
        );
        fs::write(dist.join("Release"), release).unwrap();
        let sign = signer
            .gpg()
            .arg("--output")
            .arg(dist.join("InRelease"))
            .arg("--clearsign")
            .arg(dist.join("Release"))
            .output();
        assert!(sign.unwrap().status.success());
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

fn names(release: &str) -> [String; 3] {
    ["image-unsigned", "modules", "modules-extra"].map(|kind| format!("linux-{kind}-{release}"))
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

/// Debian's 6.12 as Ubuntu would pack it: the modules apart from the image, compressed with zstd, one of them in the
/// package with the rarer ones.
#[test]
fn a_guest_boots_a_kernel_in_ubuntus_shape() {
    let (release, kernel) = debians_kernel();
    let (mut modules, mut extra) = (Vec::new(), Vec::new());
    for entry in walkdir::WalkDir::new(kernel.join("modules")).into_iter().flatten() {
        let inside = entry.path().strip_prefix(kernel.join("modules")).unwrap().display().to_string();
        let place = format!("lib/modules/{release}/{inside}");
        if let Some(name) = place.strip_suffix(".xz") {
            let packed = fs::File::open(entry.path()).unwrap();
            let packed = zstd::encode_all(liblzma::read::XzDecoder::new(packed), 1).unwrap();
            let list = if name.ends_with("/veth.ko") { &mut extra } else { &mut modules };
            list.push((format!("{name}.zst"), packed));
        } else if ["modules.builtin", "modules.order"].contains(&&*inside) {
            modules.push((place, fs::read(entry.path()).unwrap()));
        }
    }
    assert!(modules.len() > 1000 && extra.len() == 1, "{} {}", modules.len(), extra.len());
    modules.push((format!("boot/config-{release}"), fs::read(kernel.join("config")).unwrap()));
    let image = vec![(format!("boot/vmlinuz-{release}"), fs::read(kernel.join("vmlinuz")).unwrap())];
    let (names, version) = (names(&release), "6.12.117-1.1");
    let archive = Archive::new(&[
        Package(&names[0], version, image),
        Package(&names[1], version, modules),
        Package(&names[2], version, extra),
    ]);
    archive.borrow_build();
    for arguments in [&["kernels", "update"][..], &["run", "--no-build", "-k", "shipped", "A01-*veth*", "A02-*nk-l3*"]]
    {
        let output = archive.lab(arguments, false);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    }
    let lock = fs::read_to_string(archive.at("kernels.lock")).unwrap();
    assert!(names.iter().all(|name| lock.contains(name)), "{lock}");
    let summary = fs::read(archive.at("results/latest/run.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert!(summary["counts"]["passed"].as_u64() > Some(3) && summary["counts"]["skipped"] == 0, "{summary}");
}
