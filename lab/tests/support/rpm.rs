//! Packages and repositories of RPM as rpmbuild, rpmsign and createrepo_c make them (rpm, `docs/manual/format_*.md`).

use super::archive::{Signer, sum};
use std::{fs, path::Path};

/// Types of a tag's values.
const STRING: u32 = 6;
const BINARY: u32 = 7;
const STRINGS: u32 = 8;

/// A package to make.
pub struct Rpm<'a> {
    pub name: &'a str,
    pub version: &'a str,
    pub release: &'a str,
    pub arch: &'a str,
    pub files: Vec<(String, Vec<u8>)>,
}

fn header(tags: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (tag, kind, value) in tags {
        let count = if *kind == BINARY { value.len() as u32 } else { 1 };
        for word in [*tag, *kind, data.len() as u32, count] {
            entries.extend(word.to_be_bytes());
        }
        data.extend(*value);
        if *kind != BINARY {
            data.push(0);
        }
    }
    let mut bytes = vec![0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0];
    bytes.extend((tags.len() as u32).to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    [bytes, entries, data].concat()
}

impl Rpm<'_> {
    /// The package, its payload compressed with zstd, signed if there is a signer.
    pub fn bytes(&self, signer: Option<&Signer>) -> Vec<u8> {
        let mut payload = Vec::new();
        for (number, (path, content)) in self.files.iter().enumerate() {
            let entry = cpio::newc::Builder::new(&format!("./{path}")).ino(number as u32 + 1).mode(0o100_644).nlink(1);
            let mut writer = entry.write(&mut payload, content.len() as u32);
            std::io::Write::write_all(&mut writer, content).unwrap();
            writer.finish().unwrap();
        }
        cpio::newc::trailer(&mut payload).unwrap();
        let payload = zstd::encode_all(&*payload, 1).unwrap();
        let digest = sum(&payload);
        let text = |tag: u32, text: &'static str| (tag, STRING, text.as_bytes());
        let header = header(&[
            (1000, STRING, self.name.as_bytes()),
            (1001, STRING, self.version.as_bytes()),
            (1002, STRING, self.release.as_bytes()),
            (1022, STRING, self.arch.as_bytes()),
            text(1124, "cpio"),
            text(1125, "zstd"),
            (5092, STRINGS, digest.as_bytes()),
        ]);
        let signature = signer.map(|signer| {
            let dir = tempfile::tempdir().unwrap();
            let (file, signature) = (dir.path().join("header"), dir.path().join("signature"));
            fs::write(&file, &header).unwrap();
            signer.sign(&file, &signature);
            fs::read(signature).unwrap()
        });
        let mut bytes = vec![0; 96];
        bytes[..5].copy_from_slice(&[0xed, 0xab, 0xee, 0xdb, 3]);
        bytes.extend(match &signature {
            Some(signature) => self::header(&[(268, BINARY, signature)]),
            None => self::header(&[]),
        });
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        [bytes, header, payload].concat()
    }

    /// Name of its file.
    pub fn file(&self) -> String {
        let Self { name, version, release, arch, .. } = self;
        format!("Packages/{name}-{version}-{release}.{arch}.rpm")
    }
}

/// Writes packages and the index of them; the index is signed by `signer`, the packages as each says.
pub fn publish(dir: &Path, packages: &[(&Rpm<'_>, Option<&Signer>)], signer: &Signer) {
    let _ = fs::remove_dir_all(dir);
    for name in ["Packages", "repodata"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    let mut primary =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" \
                       xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\">\n"
            .to_owned();
    for (package, by) in packages {
        let (bytes, Rpm { name, version, release, arch, .. }) = (package.bytes(*by), package);
        fs::write(dir.join(package.file()), &bytes).unwrap();
        primary += &format!(
            "<package type=\"rpm\">\n  <name>{name}</name>\n  <arch>{arch}</arch>\n  \
             <version epoch=\"0\" ver=\"{version}\" rel=\"{release}\"/>\n  \
             <checksum type=\"sha256\" pkgid=\"YES\">{}</checksum>\n  <summary>Linux &amp; more</summary>\n  \
             <size package=\"{}\" installed=\"1\" archive=\"1\"/>\n  <location href=\"{}\"/>\n  \
             <format><rpm:provides><rpm:entry name=\"kernel\"/></rpm:provides></format>\n</package>\n",
            sum(&bytes),
            bytes.len(),
            package.file()
        );
    }
    let primary = zstd::encode_all((primary + "</metadata>\n").as_bytes(), 1).unwrap();
    fs::write(dir.join("repodata/primary.xml.zst"), &primary).unwrap();
    let repomd = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\">\n\
         <data type=\"primary\">\n  <checksum type=\"sha256\">{}</checksum>\n  \
         <location href=\"repodata/primary.xml.zst\"/>\n  <size>{}</size>\n</data>\n</repomd>\n",
        sum(&primary),
        primary.len()
    );
    let file = dir.join("repodata/repomd.xml");
    fs::write(&file, repomd).unwrap();
    signer.sign(&file, &dir.join("repodata/repomd.xml.asc"));
}
