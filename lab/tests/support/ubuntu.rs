//! A kernel of Debian's as Ubuntu would pack it: the modules apart from the image, compressed with zstd, one of them in the
//! package with the rarer ones.

use super::{apt::Package, archive::debians_kernel};
use std::fs;

/// Names of the packages with the image, the modules and the rarer modules.
pub fn names(release: &str) -> [String; 3] {
    ["image-unsigned", "modules", "modules-extra"].map(|kind| format!("linux-{kind}-{release}"))
}

type Files = Vec<(String, Vec<u8>)>;

/// The files of each package.
pub struct Shape {
    pub names: [String; 3],
    files: [Files; 3],
}

impl Shape {
    /// Repacks a kernel of this checkout's matrix.
    pub fn of_debians(id: &str) -> Self {
        let (release, kernel) = debians_kernel(id);
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
        Self { names: names(&release), files: [image, modules, extra] }
    }

    pub fn packages<'a>(&'a self, version: &'a str) -> Vec<Package<'a>> {
        let pairs = self.names.iter().zip(&self.files);
        pairs.map(|(name, files)| Package(name, version, files.clone())).collect()
    }
}
