//! `source.rpm` and `source.oci` on a repository and on layouts that the test makes: in Fedora's shape, with a real kernel and
//! with bad ones.

#[path = "support/archive.rs"]
mod archive;
#[path = "support/bzimage.rs"]
mod bzimage;
#[path = "support/fedora.rs"]
mod fedora;
#[path = "support/rpm.rs"]
mod rpm;

use archive::{Project, Signer, sum, text};
use rpm::{Rpm, publish};
use std::{fs, path::Path};

const LOCK: [&str; 2] = ["kernels", "update"];
const FETCH: [&str; 2] = ["kernels", "fetch"];

/// Writes `kernels.toml` with one kernel, called `shipped`.
fn kernel(project: &Project, source: &str) {
    let text = format!("[kernels.shipped]\nclass = \"own\"\ndefault = true\n[kernels.shipped.source.{source}\n");
    fs::write(project.at("kernels.toml"), text).unwrap();
}

/// The source on the repository of the project.
fn repository(project: &Project, more: &str) -> String {
    let place = project.at("repository").display().to_string();
    format!("rpm]\nrepository = \"file:{place}\"\nkeyring = \"keyring.gpg\"\npackage = \"kernel-core\"\n{more}\n")
}

/// A kernel that is unpacked and never booted, in Fedora's three packages.
fn small(release: &str) -> [Rpm<'_>; 3] {
    let place = |file: &str| format!("lib/modules/{}/{file}", bzimage::RELEASE);
    let package = |name, files| Rpm { name, version: "6.12.3", release, arch: "x86_64", files };
    [
        package("kernel-core", vec![(place("vmlinuz"), bzimage::image()), (place("config"), Vec::new())]),
        package(
            "kernel-modules-core",
            vec![(place("kernel/readme"), Vec::new()), (place("modules.order"), Vec::new())],
        ),
        package("kernel-modules", vec![(place("kernel/more"), Vec::new())]),
    ]
}

#[test]
fn what_a_repository_must_not_do_is_one_error() {
    let (project, signer, other) = (Project::new(), Signer::new(), Signer::new());
    let place = project.at("repository");
    signer.export(&project.at("keyring.gpg"));
    kernel(&project, &repository(&project, ""));
    let publish_all = |packages: &[Rpm<'_>]| {
        let signed: Vec<_> = packages.iter().map(|package| (package, Some(&signer))).collect();
        publish(&place, &signed, &signer);
    };
    publish_all(&small("1.fc43"));
    let told = project.fine(&LOCK);
    assert!(told.contains("shipped: new, kernel-core 6.12.3-1.fc43 (file:"), "{told}");
    // What is locked has a place: the index is not read again.
    fs::rename(place.join("repodata"), place.join("away")).unwrap();
    project.fine(&FETCH);
    assert_eq!(project.kernels().len(), 1);
    // A lock that has no places, of an earlier version, and a repository that has moved its packages.
    fs::rename(place.join("away"), place.join("repodata")).unwrap();
    let lock = fs::read_to_string(project.at("kernels.lock")).unwrap();
    let is_place = |line: &&str| ["href", "size"].iter().any(|key| line.starts_with(key)) || line.ends_with(".place]");
    let without: String = lock.lines().filter(|line| !is_place(line)).map(|line| format!("{line}\n")).collect();
    assert_ne!(lock, without);
    for old in [without, lock.replace("Packages/", "Old/")] {
        fs::write(project.at("kernels.lock"), old).unwrap();
        fs::remove_dir_all(project.at("cache/kernels")).unwrap();
        project.fine(&FETCH);
        assert_eq!(project.kernels().len(), 1);
    }
    fs::write(project.at("kernels.lock"), lock).unwrap();

    // Packages that this key did not sign, or nobody.
    for (release, by, wanted) in [
        ("2.fc43", Some(&other), "gpgv of kernel-modules 6.12.3-2.fc43 failed"),
        ("3.fc43", None, "has no signature of its header"),
    ] {
        let packages = small(release);
        let who = |package: &Rpm<'_>| if package.name == "kernel-modules" { by } else { Some(&signer) };
        let signed: Vec<_> = packages.iter().map(|package| (package, who(package))).collect();
        publish(&place, &signed, &signer);
        let told = project.fine(&LOCK);
        assert!(told.contains(&format!("-> kernel-core 6.12.3-{release}")), "{told}");
        let error = project.refused(&FETCH);
        assert!(error.contains(wanted), "{error}");
    }

    // An index that this key did not sign, where one asks for it.
    kernel(&project, &repository(&project, "signed = \"index\""));
    let packages = small("4.fc43");
    let signed: Vec<_> = packages.iter().map(|package| (package, None)).collect();
    publish(&place, &signed, &other);
    let error = project.refused(&LOCK);
    assert!(error.contains("kernel shipped: gpgv of repomd.xml of file:"), "{error}");
    fs::remove_file(place.join("repodata/repomd.xml.asc")).unwrap();
    let error = project.refused(&LOCK);
    assert!(error.contains("repomd.xml.asc") && error.contains("failed"), "{error}");
    publish(&place, &signed, &signer);
    // A signed index does not stand for the packages where both are to be signed.
    kernel(&project, &repository(&project, "signed = \"both\""));
    project.fine(&LOCK);
    let error = project.refused(&FETCH);
    assert!(error.contains("has no signature of its header"), "{error}");
    kernel(&project, &repository(&project, "signed = \"index\""));
    project.fine(&LOCK);
    project.fine(&FETCH);
    kernel(&project, &repository(&project, ""));

    // A repository that goes back, one that changes after the index was read, and one that has dropped the version.
    publish_all(&small("1.fc43"));
    let told = project.fine(&LOCK);
    assert!(told.contains("which is older than kernel-core 6.12.3-4.fc43"), "{told}");
    publish_all(&small("5.fc43"));
    project.fine(&LOCK);
    let list = place.join("repodata/primary.xml.zst");
    let whole = fs::read(&list).unwrap();
    fs::write(&list, &whole[..whole.len() / 2]).unwrap();
    let error = project.refused(&LOCK);
    assert!(error.contains("repodata/primary.xml.zst of file:") && error.contains("but sha256:"), "{error}");
    // The first package that is fetched: the time in the signatures of the others has changed too, or not, within a second.
    let mut changed = small("5.fc43");
    changed[0].files[1].1 = b"changed".to_vec();
    publish_all(&changed);
    let error = project.refused(&FETCH);
    assert!(error.contains("kernel-core 6.12.3-5.fc43 is sha256:") && error.contains("it has changed"), "{error}");
    publish_all(&small("6.fc43"));
    let error = project.refused(&FETCH);
    assert!(error.contains("no longer has kernel-core 6.12.3-5.fc43; it now has 6.12.3-6.fc43"), "{error}");

    // Packages that do not make a kernel.
    let bad = |release: &str, change: &dyn Fn(&mut [Rpm<'_>; 3])| {
        let mut packages = small(release);
        change(&mut packages);
        publish_all(&packages);
        project.fine(&LOCK);
        project.refused(&FETCH)
    };
    let error = bad("7.fc43", &|packages| packages[2].files = packages[1].files.clone());
    assert!(error.contains("kernel/readme` occurs twice"), "{error}");
    let error = bad("8.fc43", &|packages| {
        packages[1].files.remove(0);
        packages[2].files.clear();
    });
    assert!(error.contains("has no modules of 6.12.3-mine"), "{error}");
    let error = bad("9.fc43", &|packages| packages[0].files[0].1 = [&[0; 56][..], b"ARM\x64", &[0; 4096]].concat());
    assert!(error.contains("vmlinuz: is not an x86 bzImage"), "{error}");
    publish_all(&small("10.fc43")[..1]);
    let told = project.fine(&LOCK);
    assert!(told.contains("no build of `kernel-modules` is of version `6.12.3-10.fc43`"), "{told}");
    fs::write(place.join("repodata/repomd.xml"), "<html>moved</html>").unwrap();
    let error = project.refused(&LOCK);
    assert!(error.contains("repomd.xml of file:") && error.contains("is no repomd of a repository"), "{error}");
    fs::write(project.at("keyring.gpg"), "").unwrap();
    let error = project.refused(&LOCK);
    assert!(error.contains("keyring.gpg: is no keyring: correct `keyring` of the source"), "{error}");
}

/// Writes a layout with one image, whose layers are these archives.
fn layout(dir: &Path, layers: &[Vec<u8>], architecture: &str) {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let blob = |kind: &str, bytes: &[u8]| {
        fs::write(dir.join("blobs/sha256").join(sum(bytes)), bytes).unwrap();
        let kind = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({ "mediaType": kind, "digest": format!("sha256:{}", sum(bytes)), "size": bytes.len() })
    };
    let config = serde_json::json!({ "architecture": architecture, "os": "linux" }).to_string();
    let layers: Vec<_> = layers.iter().map(|layer| blob("layer.v1.tar+zstd", layer)).collect();
    let config = blob("config.v1+json", config.as_bytes());
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
    let manifest = blob("manifest.v1+json", manifest.as_bytes());
    fs::write(dir.join("index.json"), serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())
        .unwrap();
    fs::write(dir.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
}

/// A layer with these files. The last one may be larger than what is written of it, bytes: then the layer ends early.
fn layer(files: &[(&str, &[u8], u64)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    for (name, content, size) in files {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size((*size).max(content.len() as u64));
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// A layer that unpacks to 3 GiB of zeros. Frames of zstd follow each other (RFC 8878, 3).
fn bomb(before: (&str, &[u8], u64)) -> Vec<u8> {
    const FRAME: u64 = 64 << 20;
    let zeros = zstd::encode_all(std::io::Read::take(std::io::repeat(0), FRAME), 1).unwrap();
    let start = layer(&[before, ("usr/share/zeros", b"", 3 << 30)]);
    let frames = std::iter::repeat_n(zeros, ((3_u64 << 30) / FRAME) as usize);
    start.into_iter().chain(frames.flatten()).collect()
}

#[test]
fn what_an_image_must_not_do_is_one_error() {
    let project = Project::new();
    let dir = project.at("layout");
    kernel(&project, "oci]\nlayout = \"layout\"\n");
    let image = bzimage::image();
    // As in ci-kernels: no release in the image's name, no modules, and other files.
    layout(&dir, &[layer(&[("boot/vmlinuz", &image, 0), ("usr/src/linux/x", b"x", 0)])], "amd64");
    let told = project.fine(&LOCK);
    assert!(told.contains("shipped: new, layout 6.12.3 sha256:"), "{told}");
    project.fine(&FETCH);
    assert_eq!(project.kernels().len(), 1);

    // Another image in the place of the locked one.
    layout(&dir, &[layer(&[("data/kernels/6.12/boot/vmlinuz-6.12.3-mine", &image, 0)])], "amd64");
    fs::remove_dir_all(project.at("cache/kernels")).unwrap();
    let error = project.refused(&FETCH);
    assert!(
        error.contains("layout no longer has the image sha256:") && error.contains("it now has sha256:"),
        "{error}"
    );
    let told = project.fine(&LOCK);
    assert!(told.contains("shipped: ") && told.contains(" -> layout 6.12.3 sha256:"), "{told}");
    project.fine(&FETCH);

    let bad = |layers: &[Vec<u8>], wanted: &str| {
        layout(&dir, layers, "amd64");
        let error = project.refused(&LOCK);
        assert!(error.contains(wanted), "{error}");
    };
    let good = ("boot/vmlinuz", &*image, 0);
    bad(&[layer(&[good, ("lib/modules/../../x", b"", 0)])], "is outside of the directory");
    bad(&[layer(&[good]), layer(&[good])], "`boot/vmlinuz` occurs twice");
    bad(&[layer(&[good]), layer(&[("boot/.wh.vmlinuz", b"", 0)])], "`boot/.wh.vmlinuz` removes files of another layer");
    bad(
        &[layer(&[good]), layer(&[(".wh.usr", b"", 0), ("etc/.wh.hosts", b"", 0)])],
        "`.wh.usr` removes files of another layer",
    );
    bad(&[bomb(good)], "unpacks to more than 2 GiB");
    bad(
        &[layer(&[good, ("lib/modules/6.1.0/kernel/a", b"", 0)])],
        "its image is of kernel 6.12.3-mine, but its files are named after 6.1.0",
    );
    bad(&[layer(&[("etc/hosts", b"", 0)])], "has no boot/vmlinuz-*: not a kernel package");
    bad(&[b"no archive".to_vec()], "is damaged");
    layout(&dir, &[layer(&[good])], "arm64");
    let error = project.refused(&LOCK);
    assert!(error.contains("is an image for linux/arm64, not for linux/amd64"), "{error}");

    // A blob that is not what its name says.
    layout(&dir, &[layer(&[good])], "amd64");
    project.fine(&LOCK);
    fs::remove_dir_all(project.at("cache/kernels")).unwrap();
    let largest = walkdir::WalkDir::new(dir.join("blobs")).into_iter().flatten().filter(|it| it.file_type().is_file());
    let largest = largest.max_by_key(|it| it.metadata().unwrap().len()).unwrap().into_path();
    let mut bytes = fs::read(&largest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&largest, &bytes).unwrap();
    let error = project.refused(&FETCH);
    assert!(error.contains("is sha256:") && error.contains("but sha256:"), "{error}");
    fs::write(&largest, &bytes[1..]).unwrap();
    let error = project.refused(&FETCH);
    assert!(error.contains("bytes were expected") || error.contains("bytes, but"), "{error}");
}

/// Debian's 6.12 as Fedora would pack it, with the image beside its modules, and the same kernel once more as an image that
/// `lab kernels push` made of it. One run boots both.
#[test]
fn guests_boot_a_kernel_in_fedoras_shape_and_its_image() {
    let (release, packages) = fedora::of_debians("6.12", "6.12.117");
    let (project, signer) = (Project::new(), Signer::new());
    signer.export(&project.at("keyring.gpg"));
    let signed: Vec<_> = packages.iter().map(|package| (package, Some(&signer))).collect();
    publish(&project.at("repository"), &signed, &signer);
    kernel(&project, &repository(&project, "signed = \"both\""));
    project.borrow_build();
    let lab = |arguments: &[&str]| {
        let output = project.lab(arguments, false);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    lab(&LOCK);
    let told = lab(&["kernels", "push", "shipped", &project.at("images").display().to_string(), "--tag", "6.12"]);
    assert!(told.starts_with(&format!("shipped: {release} at ")) && told.contains("images:6.12, sha256:"), "{told}");
    let list = fs::read_to_string(project.at("kernels.toml")).unwrap();
    let more = "[kernels.pushed]\nclass = \"own\"\nsource.oci = { layout = \"images\", tag = \"6.12\" }\n";
    fs::write(project.at("kernels.toml"), list + more).unwrap();
    lab(&LOCK);
    lab(&["run", "--no-build", "-k", "shipped,pushed", "A01-*veth*", "A02-*nk-l3*"]);
    let lock = fs::read_to_string(project.at("kernels.lock")).unwrap();
    assert!(packages.iter().all(|it| lock.contains(it.name)) && lock.contains("source = \"oci\""), "{lock}");
    let summary = fs::read(project.at("results/latest/run.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert!(summary["counts"]["passed"].as_u64() > Some(7) && summary["counts"]["skipped"] == 0, "{summary}");
}
