//! The content of the packages, and that they start without other programs.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Everything that a person without a compiler has in PATH.
const PLAIN: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The packages of this version.
pub struct Packages {
    /// The archive.
    pub archive: PathBuf,
    deb: PathBuf,
    image: PathBuf,
    /// The archive, unpacked.
    pub prefix: PathBuf,
}

/// Builds the packages once for all tests.
pub fn packages() -> &'static Packages {
    static PACKAGES: OnceLock<Packages> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let output = Command::new(Path::new(ROOT).join("scripts/dist")).env_remove("BASE").output().unwrap();
        let said = fine(&output);
        let built: Vec<PathBuf> = said.lines().map(|line| Path::new(ROOT).join(line).canonicalize().unwrap()).collect();
        let [archive, deb, image] = <[PathBuf; 3]>::try_from(built).expect(&said);
        // What is static is never dropped: a temporary directory would stay behind.
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("installed");
        let _ = fs::remove_dir_all(&prefix);
        fs::create_dir_all(&prefix).unwrap();
        let unpack = "zstd -qdc \"$1\" | tar -x --strip-components=1 -C \"$2\"";
        fine(&Command::new("sh").args(["-c", unpack, "sh"]).arg(&archive).arg(&prefix).output().unwrap());
        Packages { archive, deb, image, prefix: prefix.canonicalize().unwrap() }
    })
}

/// The installed lab in a directory, without a compiler and without what cargo sets for tests.
pub fn lab(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(packages().prefix.join("bin/lab"));
    plain(command.current_dir(directory).args(arguments));
    command
}

/// Makes a command one of a person without a compiler.
pub fn plain(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"CARGO")) {
        command.env_remove(name);
    }
    command.env("PATH", PLAIN).env("CI", "true").env_remove("MAKELEVEL").env_remove("RUSTUP_HOME")
}

pub fn words(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The standard output of a command that passed.
#[track_caller]
pub fn fine(output: &Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status, words(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A new project, begun by `lab init`.
pub fn project() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fine(&lab(dir.path(), &["init"]).output().unwrap());
    dir
}

/// The files that every package has, from its prefix.
const FILES: [&str; 20] = [
    "bin/lab",
    "lib/netkit-lab/guest-agent",
    "lib/netkit-lab/lab.o",
    "lib/netkit-lab/datapath.o",
    "lib/netkit-lab/lab-loader",
    "lib/netkit-lab/witness.o",
    "share/bash-completion/completions/lab",
    "share/doc/netkit-lab/CHANGELOG.md",
    "share/doc/netkit-lab/LICENSE-APACHE",
    "share/doc/netkit-lab/LICENSE-MIT",
    "share/doc/netkit-lab/README.md",
    "share/fish/vendor_completions.d/lab.fish",
    "share/man/man1/lab.1.gz",
    "share/netkit-lab/ci",
    "share/netkit-lab/kernels.lock",
    "share/netkit-lab/kernels.toml",
    "share/netkit-lab/known.toml",
    "share/netkit-lab/lab.toml",
    "share/netkit-lab/splats.toml",
    "share/zsh/site-functions/_lab",
];

/// Asserts that these names below a prefix are the package's files; each command has a page of its own.
#[track_caller]
fn complete(names: impl Iterator<Item = String>) {
    let is_page = |name: &String| name.starts_with("share/man/man1/lab-") && name.ends_with(".1.gz");
    let (pages, others): (BTreeSet<String>, BTreeSet<String>) =
        names.filter(|name| !name.is_empty() && !name.ends_with('/')).partition(is_page);
    assert_eq!(
        others.iter().map(|it| &**it).collect::<Vec<_>>(),
        BTreeSet::from(FILES).into_iter().collect::<Vec<_>>()
    );
    assert!(pages.len() > 20 && pages.contains("share/man/man1/lab-run.1.gz"), "{pages:?}");
}

#[test]
fn each_package_has_the_same_files() {
    let packages = packages();
    let names = |output: Output, prefix: &str| {
        let prefix = prefix.to_owned();
        let said = fine(&output);
        let below: Vec<String> =
            said.lines().filter_map(|line| line.strip_prefix(&*prefix).map(str::to_owned)).collect();
        below.into_iter()
    };
    let name = format!("netkit-lab-{}-x86_64-linux/", env!("CARGO_PKG_VERSION"));
    complete(names(
        Command::new("sh").args(["-c", "zstd -qdc \"$1\" | tar -t", "sh"]).arg(&packages.archive).output().unwrap(),
        &name,
    ));
    let deb = |script: &str| Command::new("sh").args(["-c", script, "sh"]).arg(&packages.deb).output().unwrap();
    complete(names(deb("dpkg-deb --fsys-tarfile \"$1\" | tar -t"), "./usr/"));
    let control = fine(&deb("dpkg-deb --field \"$1\""));
    for field in ["Package: netkit-lab", concat!("Version: ", env!("CARGO_PKG_VERSION")), "Depends: python3"] {
        assert!(control.lines().any(|line| line == field), "{field}: {control}");
    }
    let (_image, layer) = unpacked_image();
    complete(names(Command::new("tar").arg("-tf").arg(layer).output().unwrap(), "./usr/"));
    let mode = |name: &str| packages.prefix.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("bin/lab"), mode("lib/netkit-lab/lab.o")), (0o755, 0o644));
}

#[test]
fn make_install_installs_to_the_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(Path::new(ROOT).join("scripts/dist"));
    packages();
    fine(&command.arg("install").env("DESTDIR", dir.path()).env("PREFIX", "/opt/lab").output().unwrap());
    let prefix = dir.path().join("opt/lab");
    let files = walkdir::WalkDir::new(&prefix).into_iter().map(Result::unwrap).filter(|it| it.file_type().is_file());
    complete(files.map(|file| file.path().strip_prefix(&prefix).unwrap().display().to_string()));
    assert!(packages().archive.is_file(), "the packages stay");
}

/// An image, unpacked: its layers as `layer-N.tar`, from the blobs that its index, manifest and configuration name; each is what
/// its digest says.
fn unpacked(image: &Path) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    fine(&Command::new("tar").arg("-C").arg(dir.path()).arg("-xf").arg(image).output().unwrap());
    let json = |path: PathBuf| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
    let blob = |descriptor: &serde_json::Value| {
        let sum = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        let path = dir.path().join("blobs/sha256").join(&sum);
        let said = fine(&Command::new("sha256sum").arg(&path).output().unwrap());
        assert!(said.starts_with(&sum), "{said}");
        assert_eq!(path.metadata().unwrap().len(), descriptor["size"].as_u64().unwrap());
        path
    };
    assert_eq!(json(dir.path().join("oci-layout"))["imageLayoutVersion"], "1.0.0");
    let manifest = json(blob(&json(dir.path().join("index.json"))["manifests"][0]));
    let config = json(blob(&manifest["config"]));
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/lab");
    let (mut layers, mut sums) = (Vec::new(), Vec::new());
    for (number, layer) in manifest["layers"].as_array().unwrap().iter().enumerate() {
        let tar = dir.path().join(format!("layer-{number}.tar"));
        let unpack = "gzip -dc \"$1\" >\"$2\" && sha256sum <\"$2\"";
        let said = fine(&Command::new("sh").args(["-c", unpack, "sh"]).arg(blob(layer)).arg(&tar).output().unwrap());
        sums.push(format!("sha256:{}", said.split(' ').next().unwrap()));
        layers.push(tar);
    }
    assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(sums));
    (dir, layers)
}

/// The layer of the image without a base.
fn unpacked_image() -> (tempfile::TempDir, PathBuf) {
    let (dir, layers) = unpacked(&packages().image);
    let [layer] = <[PathBuf; 1]>::try_from(layers).unwrap();
    (dir, layer)
}

/// Runs the lab of an image in the image's root, as a runtime of containers does.
struct ImageRoot(PathBuf);

impl ImageRoot {
    /// The root that these layers make.
    fn of(root: PathBuf, layers: &[PathBuf]) -> Self {
        // What every runtime of containers mounts.
        ["", "dev", "proc"].iter().for_each(|name| fs::create_dir(root.join(name)).unwrap());
        for layer in layers {
            fine(&Command::new("tar").arg("-C").arg(&root).arg("-xf").arg(layer).output().unwrap());
        }
        Self(root)
    }

    fn lab(&self, arguments: &[&str]) -> Output {
        let start = r#"mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" &&
            exec unshare --root "$0" --wd /work /usr/bin/lab "$@""#;
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-c", start]).arg(&self.0).args(arguments);
        command.env_clear().env("PATH", PLAIN).env("HOME", "/work").env("NETKIT_LAB_CACHE", "/cache").output().unwrap()
    }
}

/// The image's root has nothing but the package: no loader, no C library, no shell.
#[test]
fn the_image_starts_without_a_base_image() {
    let (image, layer) = unpacked_image();
    let root = ImageRoot::of(image.path().join("root"), &[layer]);
    let inside = |arguments: &[&str]| root.lab(arguments);
    let version = fine(&inside(&["--version"]));
    assert!(version.starts_with(concat!("lab ", env!("CARGO_PKG_VERSION"), " (")), "{version}");
    fine(&inside(&["init"]));
    let listed = fine(&inside(&["list", "--case", "A01*"]));
    assert!(listed.contains("A01-") && listed.contains("6.12"), "{listed}");
    let plan = fine(&inside(&["plan", "--shards", "2", "--format", "github"]));
    assert!(plan.contains("--partition 2/2"), "{plan}");
    let refused = inside(&["setup"]);
    assert_ne!(refused.status.code(), Some(0), "{}", words(&refused));
}

/// Builds the image alone, above a root.
fn dist_above(base: &Path) -> Output {
    // The programs are built by the other packages first: two builds at once would wait for each other anyway.
    packages();
    Command::new(Path::new(ROOT).join("scripts/dist")).arg("oci").env("BASE", base).output().unwrap()
}

#[test]
fn an_image_above_a_root_has_both() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    for (name, content) in [("etc/os-release", "ID=debian\n"), ("usr/bin/python3", ""), ("usr/share/doc/base", "below")]
    {
        let path = base.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let archive = dir.path().join("base.tar.zst");
    let pack = "tar -c -C \"$1\" . | zstd -q -o \"$2\"";
    fine(&Command::new("sh").args(["-c", pack, "sh"]).arg(&base).arg(&archive).output().unwrap());

    let said = fine(&dist_above(&archive));
    let image = Path::new(ROOT).join(said.trim());
    let (unpacked, layers) = unpacked(&image);
    assert_eq!(layers.len(), 2, "the root, and the package above it");
    let root = ImageRoot::of(unpacked.path().join("root"), &layers);
    assert_eq!(fs::read_to_string(root.0.join("etc/os-release")).unwrap(), "ID=debian\n");
    assert_eq!(fs::read_to_string(root.0.join("usr/share/doc/base")).unwrap(), "below");
    let version = fine(&root.lab(&["--version"]));
    assert!(version.starts_with(concat!("lab ", env!("CARGO_PKG_VERSION"))), "{version}");
    fine(&root.lab(&["init"]));
    assert!(packages().archive.is_file(), "the other packages stay");
    fs::remove_dir_all(image.parent().unwrap()).unwrap();
}

#[test]
fn a_base_that_is_none_is_refused_before_anything_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text.tar");
    fs::write(&text, "x".repeat(2000)).unwrap();
    let bare = dir.path().join("bare.tar");
    fs::write(dir.path().join("file"), "").unwrap();
    fine(&Command::new("tar").arg("-cf").arg(&bare).arg("-C").arg(dir.path()).arg("file").output().unwrap());
    for (base, why) in [
        (dir.path().join("absent.tar"), "can't be read"),
        (text, "is no tar archive"),
        (bare, "has no usr/bin/python3, which guests need: install the package python3 in that root"),
    ] {
        let refused =
            Command::new(Path::new(ROOT).join("scripts/dist")).arg("oci").env("BASE", &base).output().unwrap();
        let said = words(&refused);
        assert_eq!(refused.status.code(), Some(3), "{said}");
        assert!(said.contains(&format!("BASE={} ", base.display())) && said.contains(why), "{said}");
        assert!(!said.contains("building"), "{said}");
    }
}
