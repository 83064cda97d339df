//! The cache has limits, its content can be listed, and nothing is removed while another lab process uses it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, SystemTime},
};

/// A minimal valid bzImage of this kernel (Documentation/arch/x86/boot.rst), of the given size.
fn image(build: u32) -> Vec<u8> {
    let mut image = vec![0; 200_000];
    image[0x1F1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20E..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    let banner = format!("6.12.3-mine (a@b) #{build} SMP");
    image[0x300..0x300 + banner.len()].copy_from_slice(banner.as_bytes());
    image
}

/// A project with a kernel of this host that is rebuilt repeatedly.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new(settings: &str) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        let matrix = "[kernels.mine]\nclass = \"6.7+\"\ndefault = true\nsource.path = { image = \"bzImage\" }\n";
        fs::write(desk.at("kernels.toml"), matrix).unwrap();
        fs::write(desk.at("lab.toml"), settings).unwrap();
        desk
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn lab(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.arg("--project").arg(self.0.path()).args(arguments).env("NETKIT_LAB_CACHE", self.at("cache"));
        // The tools stay in the cache of the machine.
        command.env("PATH", lab_base::programs::search_path());
        command.output().unwrap()
    }

    /// Builds and fetches; then the cached kernel seems to have been used some days ago.
    fn fetch(&self, build: u32, days: u64) -> PathBuf {
        fs::write(self.at("bzImage"), image(build)).unwrap();
        let said = fine(&self.lab(&["kernels", "fetch"]));
        let place = Path::new(said.trim_end().rsplit(" at ").next().unwrap()).parent().unwrap().to_owned();
        date(&place, days);
        place
    }
}

impl Desk {
    /// The cache is looked through once an hour.
    fn an_hour_passes(&self) {
        let mark = File::open(self.at("cache/swept")).unwrap();
        mark.set_modified(SystemTime::now() - Duration::from_secs(3601)).unwrap();
    }
}

fn date(place: &Path, days: u64) {
    let used = SystemTime::now() - Duration::from_secs(days * 86_400);
    File::open(place).unwrap().set_modified(used).unwrap();
}

#[track_caller]
fn fine(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn entries_without_use_are_removed_automatically() {
    let desk = Desk::new("[cache]\ndays = 7\n");
    let old = desk.fetch(1, 8);
    let product = desk.at("cache/bisect/0123/products/key");
    fs::create_dir_all(&product).unwrap();
    fs::write(product.join("vmlinuz"), image(9)).unwrap();
    date(&product, 8);
    let recent = desk.fetch(2, 6);
    assert!(old.exists() && product.exists(), "the cache was looked through less than an hour ago");
    desk.an_hour_passes();
    assert_eq!(desk.fetch(2, 6), recent);
    assert!(!old.exists() && !product.exists() && recent.exists());
    // Using an entry updates its time of use.
    date(&recent, 8);
    assert_eq!(desk.fetch(2, 0), recent);
    desk.an_hour_passes();
    desk.fetch(3, 0);
    assert!(recent.exists());
}

#[test]
fn entries_are_listed_and_removed_on_request() {
    let desk = Desk::new("");
    let (first, second) = (desk.fetch(1, 3), desk.fetch(2, 1));
    let text = fine(&desk.lab(&["cache", "--all"]));
    assert!(text.contains("at most 20.0 GiB, unused for at most 30 days"), "{text}");
    let name = |place: &Path| format!("kernels/{}", place.file_name().unwrap().to_str().unwrap());
    assert!(text.contains(&name(&first)) && text.contains("3 days ago"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&fine(&desk.lab(&["cache", "--json"]))).unwrap();
    assert_eq!(json["entries"].as_array().unwrap().len(), 2, "{json}");
    assert!(json["entries"][0]["bytes"].as_u64().unwrap() >= 200_000, "{json}");

    let would = fine(&desk.lab(&["cache", "prune", "--days", "2", "--dry-run"]));
    assert!(would.contains(&format!("would go {}", name(&first))) && first.exists(), "{would}");
    fine(&desk.lab(&["cache", "prune", "--days", "2"]));
    assert!(!first.exists() && second.exists());
    fine(&desk.lab(&["cache", "prune", "--max-gib", "0"]));
    assert!(!second.exists());
}

#[test]
fn nothing_is_removed_while_another_lab_uses_the_cache() {
    let desk = Desk::new("[cache]\ndays = 7\n");
    let old = desk.fetch(1, 8);
    let other = File::open(desk.at("cache/in-use.lock")).unwrap();
    other.lock_shared().unwrap();
    desk.fetch(2, 0);
    assert!(old.exists());
    let output = desk.lab(&["cache", "prune"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("another lab process is using the cache"));
    drop(other);
    fine(&desk.lab(&["cache", "prune"]));
    assert!(!old.exists());
}

#[test]
fn an_invalid_limit_is_named() {
    let desk = Desk::new("[cache]\nmax-size = 3\n");
    let output = desk.lab(&["cache"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("lab.toml:2") && error.contains("max-size"), "{error}");
}
