//! Fuzz targets for configuration files and packages: `docs/fuzzing.md`.

use super::{
    cache, changelog, config::KernelMatrix, header, lockfile::KernelsLock, mirror, oci, packages, rpm,
    untar::UnpackedFiles,
};
use lab_protocol::KernelVersion;
use std::path::{Component, PathBuf};

/// Checks that an error is one line that names the file.
#[track_caller]
fn readable(error: &dyn std::fmt::Display) {
    let text = error.to_string();
    assert!(text.contains("the-file") && !text.trim_end().contains('\n'), "{text:?}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

#[test]
fn kernels_toml() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        match KernelMatrix::parse(&text, "the-file", PathBuf::from("/project")) {
            Ok(config) => {
                for kernel in &config.kernels {
                    assert!(super::names::is_file_name(&kernel.id), "{}", kernel.id);
                }
            }
            Err(error) => readable(&error),
        }
    });
}

#[test]
fn kernels_lock() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        if let Err(error) = KernelsLock::parse(&text, "the-file") {
            readable(&error);
        }
    });
}

#[test]
fn image_header() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Some(banner) = header::parse(bytes) {
            assert!(super::names::is_file_name(&banner.release));
        }
    });
}

#[test]
fn package_index() {
    bolero::check!().for_each(|bytes: &[u8]| {
        for package in packages::kernels(bytes).unwrap() {
            assert!(package.name.starts_with("linux-"));
            if let Ok(version) = package.version.parse::<KernelVersion>() {
                assert_eq!(version.to_string().parse::<KernelVersion>().unwrap(), version);
            }
        }
    });
}

/// A package's archive: no file may be written outside of the target directory, and no link may be created.
#[test]
fn package_archive() {
    bolero::check!().for_each(|bytes: &[u8]| contained(|found, stage| found.add(bytes, stage).is_ok()));
}

/// The archive in an RPM package, under the same rules.
#[test]
fn rpm_archive() {
    bolero::check!().for_each(|bytes: &[u8]| contained(|found, stage| rpm::cpio(bytes, stage, found).is_ok()));
}

#[track_caller]
fn contained(unpack: impl FnOnce(&mut UnpackedFiles, &std::path::Path) -> bool) {
    let outer = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let stage = outer.path().join("stage");
    std::fs::create_dir(&stage).unwrap();
    let mut found = UnpackedFiles::default();
    let unpacked = unpack(&mut found, &stage);
    assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1, "a file was created outside of the stage");
    for entry in walkdir::WalkDir::new(&stage).min_depth(1) {
        let entry = entry.unwrap();
        assert!(entry.file_type().is_dir() || entry.file_type().is_file(), "{}", entry.path().display());
    }
    if unpacked && let Ok(release) = found.release() {
        let parts: Vec<_> = std::path::Path::new(&release).components().collect();
        assert!(matches!(parts[..], [Component::Normal(_)]), "{release}");
    }
}

/// Headers of an RPM package, before anything of it is believed.
#[test]
fn rpm_headers() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(mut package) = rpm::RpmFile::open(std::io::Cursor::new(bytes)) {
            let _ = package.check(&rpm::Claims { name: "kernel-core", version: "6.12.3-1" });
        }
    });
}

/// `repomd.xml` and `primary.xml` of a repository: no path leaves it.
#[test]
fn rpm_index() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let is_inside = |href: &str| !href.is_empty() && href.split('/').all(|part| !["", ".", ".."].contains(&part));
        if let Ok(rpm::PackageList { href, .. }) = rpm::primary(bytes) {
            assert!(is_inside(&href), "{href}");
        }
        for package in rpm::packages(bytes).unwrap_or_default() {
            assert!(is_inside(&package.href) && package.name.starts_with("kernel"), "{package:?}");
            assert!(package.compare(&package).is_eq());
        }
    });
}

/// Manifest or index of an image of a container.
#[test]
fn image_manifest() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Some(layers) = oci::layers(bytes) {
            assert!(layers < bytes.len());
        }
    });
}

#[test]
fn changelog() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let news = changelog::news(&text, KernelVersion::new(6, 12, 43));
        assert!(news.len() <= text.lines().count());
        for (version, line) in news {
            let known = version.parse::<KernelVersion>().is_ok_and(|version| version <= KernelVersion::new(6, 12, 43));
            assert!(!known && !line.contains('\n'), "{version:?} {line:?}");
        }
    });
}

/// `meta.toml` of an unpacked kernel, next to an arbitrary image.
#[test]
fn meta_toml() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        std::fs::create_dir(dir.path().join("modules")).unwrap();
        for (name, content) in [("meta.toml", bytes), ("vmlinuz", b""), ("modules/modules.dep", b"")] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        if let Some(finished) = cache::CachedKernel::read(dir.path(), None) {
            assert_eq!((finished.meta.image_size, finished.meta.image_sha256.len()), (0, 64));
        }
    });
}

/// Sources of the host's apt.
#[test]
fn mirrors() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        for suite in ["sid", "trixie-security"] {
            if let Ok(mirror) = mirror::choose(&text, suite) {
                assert!(text.contains(&mirror) && !mirror.contains(['\n', '\t']), "{mirror:?}");
            }
            if let Ok(mirror) = mirror::choose(&mirror::unread(&text), suite) {
                assert!(text.contains(mirror.strip_suffix('/').unwrap()) && !mirror.contains('\n'), "{mirror:?}");
            }
        }
    });
}
