use super::*;
use crate::{KernelMatrix, config::Kernel, packages};

fn parse(source: &str) -> std::result::Result<Kernel, String> {
    let text = format!("[kernels.\"6.8\"]\nclass = \"own\"\ndefault = true\nsource.apt = {{ {source} }}\n");
    let parsed = KernelMatrix::parse(&text, "kernels.toml", "/lab".into());
    parsed.map(|mut matrix| matrix.kernels.remove(0)).map_err(|error| error.to_string())
}

fn archive(source: &str) -> AptArchive {
    let crate::source::Source::Apt(archive) = parse(source).unwrap().source else { panic!("apt expected") };
    archive
}

const NOBLE: &str = r#"archive = "ubuntu", suite = "noble-updates", package = "linux-image-unsigned-6.8.*-generic""#;

const INDEX: &str = "\
Package: linux-image-unsigned-6.8.0-90-generic
Version: 6.8.0-90.91
SHA256: aa

Package: linux-modules-6.8.0-90-generic
Version: 6.8.0-90.91
SHA256: bb

Package: linux-modules-extra-6.8.0-90-generic
Version: 6.8.0-90.91
SHA256: cc

Package: linux-image-unsigned-6.8.0-31-generic
Version: 6.8.0-31.31
SHA256: dd
";

#[test]
fn a_preset_knows_keyring_and_packages() {
    let noble = archive(NOBLE);
    assert_eq!(noble.keyring, Path::new("/usr/share/keyrings/ubuntu-archive-keyring.gpg"));
    assert_eq!(noble.to_string(), "apt linux-image-unsigned-6.8.*-generic (noble-updates of ubuntu)");
    let locked = noble.choose(&packages::kernels(INDEX.as_bytes()).unwrap()).unwrap();
    let parts: Vec<_> = locked.parts.iter().map(|part| (&*part.package, &*part.sha256)).collect();
    let wanted = [("linux-modules-6.8.0-90-generic", "bb"), ("linux-modules-extra-6.8.0-90-generic", "cc")];
    assert_eq!((&*parts, &*locked.sha256, locked.kernel.to_string()), (&wanted[..], "aa", "6.8".to_owned()));
    assert!(noble.is_resolved_by(&Locked::Apt(locked.clone())));
    let other =
        archive(&format!("{NOBLE}, modules = [\"linux-modules-{{release}}\", \"linux-modules-nvidia-{{release}}\"]"));
    assert!(!other.is_resolved_by(&Locked::Apt(locked.clone())), "a package that the lock does not have");
    let dated = archive(&format!("{NOBLE}, snapshot = 2026-03-01"));
    assert!(!dated.is_resolved_by(&Locked::Apt(locked)), "another archive");
    assert_eq!(dated.mirror(&Debian::default()).unwrap(), "https://snapshot.ubuntu.com/ubuntu/20260301T000000Z");
}

#[test]
fn an_image_whose_modules_are_missing_is_named() {
    let index = packages::kernels(INDEX.replace("Package: linux-modules-6", "Package: linux-modules-7").as_bytes());
    insta::assert_snapshot!(archive(NOBLE).choose(&index.unwrap()).unwrap_err(),
        @"no package matches `linux-modules-6.8.0-90-generic 6.8.0-90.91` in noble-updates of ubuntu, which `modules` names for linux-image-unsigned-6.8.0-90-generic: fix `package` or `suite` in kernels.toml");
}

#[test]
fn errors_name_the_key() {
    let broken = |more: &str| parse(&format!("{NOBLE}, {more}")).unwrap_err();
    insta::assert_snapshot!(parse(&NOBLE.replace("\"ubuntu\"", "\"ubunto\"")).unwrap_err(),
        @r#"kernels.toml:4: `archive` in [kernels."6.8"] must be debian or ubuntu, or an archive's address, scheme://host/path without spaces"#);
    insta::assert_snapshot!(parse(&NOBLE.replace("\"ubuntu\"", "\"http://u:secret@a.example/b\"")).unwrap_err(),
        @r#"kernels.toml:4: `archive` in [kernels."6.8"] has a user's name: credentials belong to /etc/apt/auth.conf.d"#);
    insta::assert_snapshot!(parse(&NOBLE.replace("\"ubuntu\"", "\"http://a.example/b\"")).unwrap_err(),
        @r#"kernels.toml:4: `apt` source of [kernels."6.8"] needs `keyring`: the keys by which http://a.example/b is signed"#);
    insta::assert_snapshot!(broken("keyring = \"a key.gpg\""),
        @r#"kernels.toml:4: `keyring` in [kernels."6.8"] is "/lab/a key.gpg": apt takes no path with spaces, brackets or commas"#);
    insta::assert_snapshot!(broken("components = [\"main [trusted=yes]\"]"),
        @r#"kernels.toml:4: "main [trusted=yes]" in `components` of [kernels."6.8"] is not a name"#);
    insta::assert_snapshot!(broken("modules = [\"../x\"]"),
        @r#"kernels.toml:4: "../x" in `modules` of [kernels."6.8"] is not a name"#);
    insta::assert_snapshot!(broken("snapshot = \"yesterday\""),
        @r#"kernels.toml:4: `snapshot` in [kernels."6.8"] must be a day, 2026-03-01, or a moment, 20260301T000000Z"#);
    insta::assert_snapshot!(broken("component = \"main\""),
        @r#"kernels.toml:4: unknown key `component` in `apt` source of [kernels."6.8"]; did you mean `components`?"#);
}

#[test]
fn the_presets_of_the_documentation_are_valid() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kernels.md")).unwrap();
    // In each section, the first indented lines after the words that announce them.
    let indented = |line: &&str| line.is_empty() || line.starts_with("    ");
    let sections = page.split("\nTo paste").skip(1);
    let lines = sections.flat_map(|it| it.lines().skip_while(|line| !line.starts_with("    ")).take_while(indented));
    let lines = lines.filter_map(|line| line.strip_prefix("    "));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let matrix = KernelMatrix::read(&text, "docs/kernels.md", "/lab".into()).unwrap();
    assert!(matrix.kernels.len() >= 14 && matrix.hints.is_empty(), "{:?}", matrix.hints);
}
