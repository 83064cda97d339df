//! Archives of apt as `apt-ftparchive` and a signer would make them.

use super::archive::{Signer, done, sum};
use std::{fs, path::Path, process::Command};

pub const FRESH: &str = "Valid-Until: Mon, 01 Jan 2120 00:00:00 UTC";

/// A package: name, version, and the files in it.
pub struct Package<'a>(pub &'a str, pub &'a str, pub Vec<(String, Vec<u8>)>);

/// Writes the packages and their index into `archive`, the suite `plucky`.
pub fn publish(archive: &Path, packages: &[Package<'_>], valid: &str, signer: &Signer) {
    let dist = archive.join("dists/plucky");
    let pool = archive.join("pool");
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
    let sign =
        signer.gpg().arg("--output").arg(dist.join("InRelease")).arg("--clearsign").arg(dist.join("Release")).output();
    assert!(sign.unwrap().status.success());
}
