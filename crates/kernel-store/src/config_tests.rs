use super::*;
use crate::source::{GitCommit, LinuxSource};
use lab_protocol::KernelVersion;
use proptest::prelude::*;

const GOOD: &str = r#"[debian]
mirror = "http://a.example/debian"

[kernels."6.12"]
class = "6.7+"
default = true
source = { deb = { suite = "bookworm-security", package = "linux-image-6.12.*-cloud-amd64" } }
unsupported = [{ capability = "netkit", reason = "built without", source = "config-6.12" }]
cmdline = ["net.ifnames=0"]
memory_mib = 512

[kernels.tree]
class = "6.7+"
source.git = { tree = "../linux", ref = "v6.12", fragment = "my.config" }
"#;

fn parse(text: &str) -> std::result::Result<KernelMatrix, ConfigError> {
    KernelMatrix::parse(text, "kernels.toml", "/lab".into())
}

/// The error for [`GOOD`] after one replacement.
fn broken(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from));
    parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn reads_every_key() {
    let config = parse(GOOD).unwrap();
    let kernel = &config.kernels[0];
    assert_eq!((&*kernel.id, &kernel.class, kernel.default), ("6.12", &KernelClass::From67, true));
    assert_eq!(kernel.unsupported[0].capability, Capability::Netkit);
    assert_eq!((kernel.memory_mib, &*kernel.cmdline[0]), (Some(512), "net.ifnames=0"));
    assert_eq!(config.debian.mirror.as_deref(), Some("http://a.example/debian"));
    let Source::Git(GitCommit { tree, fragments, .. }) = &config.kernels[1].source else { panic!("git expected") };
    assert_eq!((tree.as_path(), &fragments[..]), (Path::new("/lab/../linux"), &["/lab/my.config".into()][..]));
}

#[test]
fn a_class_that_is_one_slip_away_from_a_predefined_one_gets_a_hint() {
    let hints =
        |class: &str| parse(&GOOD.replacen("class = \"6.7+\"", &format!("class = \"{class}\""), 1)).unwrap().hints;
    let hint = hints("6.7+x").pop().unwrap();
    assert!(
        hint.ends_with("class `6.7+x` of [kernels.\"6.12\"] is one of the project's own; did you mean `6.7+`?"),
        "{hint}"
    );
    assert_eq!(hints("belov-6.7").len(), 1);
    for own in ["6.8+", "rhel9", "6.7+"] {
        assert!(hints(own).is_empty(), "{own}");
    }
}

#[test]
fn a_stale_suite_is_accepted_for_a_reason_only() {
    let stale = |value: &str| parse(&GOOD.replacen("[debian]", &format!("[debian]\nstale.sid = {value}"), 1));
    assert_eq!(stale("\"the mirror lags\"").unwrap().debian.stale["sid"], "the mirror lags");
    insta::assert_snapshot!(stale("\" \"").unwrap_err(),
        @"kernels.toml:2: `sid` in `stale` of [debian] must be a text that is not empty");
    insta::assert_snapshot!(stale("true").unwrap_err(),
        @"kernels.toml:2: `sid` in `stale` of [debian] must be a text that is not empty");
}

#[test]
fn sources_are_packages_with_a_fragment() {
    let source = r#"source.linux-source = { suite = "sid", package = "linux-source-7.2", fragment = "my.config" }"#;
    let text = format!("{GOOD}\n[kernels.built]\nclass = \"6.7+\"\n{source}\n");
    let kernel = parse(&text).unwrap().kernels.remove(2);
    assert!(kernel.is_built());
    let Source::LinuxSource(LinuxSource { suite, package, options, .. }) = &kernel.source else {
        panic!("linux-source expected")
    };
    assert_eq!((&**suite, &**package), ("sid", "linux-source-7.2"));
    assert_eq!(options.fragments, [Path::new("/lab/my.config")]);
    let text = text.replacen("[kernels.built]\nclass = \"6.7+\"", "[kernels.built]\nclass = \"25.10\"", 1);
    insta::assert_snapshot!(parse(&text).unwrap_err(),
        @r#"kernels.toml:17: [kernels."built"] is kernel 7.2, but class 25.10 is for kernels of the 6.17 series"#);
}

#[test]
fn unknown_keys_name_line_and_similar_key() {
    insta::assert_snapshot!(broken("default", "defalt"),
        @r#"kernels.toml:6: unknown key `defalt` in [kernels."6.12"]; did you mean `default`?"#);
    insta::assert_snapshot!(broken("memory_mib", "ram"),
        @r#"kernels.toml:10: unknown key `ram` in [kernels."6.12"]; known: class, default, may-fail, source, unsupported, has, believe, reason, cmdline, sysctls, memory_mib, variants"#);
    insta::assert_snapshot!(broken("suite =", "suit ="),
        @r#"kernels.toml:7: unknown key `suit` in `deb` source of [kernels."6.12"]; did you mean `suite`?"#);
    insta::assert_snapshot!(broken("reason =", "because ="),
        @r#"kernels.toml:8: unknown key `because` in unsupported of [kernels."6.12"]; known: capability, reason, source"#);
    insta::assert_snapshot!(broken("[debian]", "[debain]"),
        @"kernels.toml:1: unknown key `debain` in the file; did you mean `debian`?");
}

#[test]
fn unknown_values_name_line_and_similar_value() {
    insta::assert_snapshot!(broken(r#""6.7+""#, r#""6.7""#),
        @r#"kernels.toml:5: unknown class `6.7` in [kernels."6.12"]; did you mean `6.7+`?"#);
    insta::assert_snapshot!(broken("{ deb =", "{ dep ="),
        @r#"kernels.toml:7: unknown key `dep` in `source` of [kernels."6.12"]; did you mean `deb`?"#);
    insta::assert_snapshot!(broken(r#"capability = "netkit""#, r#"capability = "nektit""#),
        @r#"kernels.toml:8: unknown capability `nektit` in unsupported of [kernels."6.12"]; did you mean `netkit`?"#);
}

#[test]
fn wrong_types_and_missing_keys_name_the_line() {
    insta::assert_snapshot!(broken("true", "1"), @r#"kernels.toml:6: `default` in [kernels."6.12"] must be true or false"#);
    insta::assert_snapshot!(broken("512", "64"),
        @r#"kernels.toml:10: `memory_mib` in [kernels."6.12"] must be a whole number from 128 to 65536"#);
    insta::assert_snapshot!(broken(r#", reason = "built without""#, ""),
        @r#"kernels.toml:8: unsupported of [kernels."6.12"] has no `reason`"#);
    insta::assert_snapshot!(broken("class = \"6.7+\"\ndefault", "default"),
        @r#"kernels.toml:4: [kernels."6.12"] has no `class`"#);
    insta::assert_snapshot!(broken(r#"["net.ifnames=0"]"#, r#"["a b"]"#),
        @r#"kernels.toml:9: "a b" in `cmdline` of [kernels."6.12"] must be one word without quotes, one list entry per word"#);
    insta::assert_snapshot!(broken("{ deb = {", "{ path = {}, deb = {"),
        @r#"kernels.toml:7: `source` of [kernels."6.12"] must have exactly one of: deb, apt, rpm, oci, linux-source, path, git, mainline"#);
    insta::assert_snapshot!(broken("ref = \"v6.12\"", "ref = \"--upload\""),
        @r#"kernels.toml:14: "--upload" in [kernels."tree"] is not a git revision"#);
}

#[test]
fn classes_are_checked_against_versions() {
    let older = GOOD.replacen(r#""6.7+""#, r#""below-6.7""#, 1);
    assert!(parse(&older).is_ok(), "a kernel without netkit behaves like those before 6.7");
    insta::assert_snapshot!(parse(&older.replace(r#""netkit""#, r#""tcx""#)).unwrap_err(),
        @r#"kernels.toml:5: [kernels."6.12"] is kernel 6.12, but class below-6.7 is for kernels before 6.7, and later ones with `netkit` listed as unsupported"#);
    insta::assert_snapshot!(broken(r#""6.7+""#, r#""25.10""#),
        @r#"kernels.toml:5: [kernels."6.12"] is kernel 6.12, but class 25.10 is for kernels of the 6.17 series"#);
}

#[test]
fn ids_are_file_names_and_unique() {
    insta::assert_snapshot!(broken("[kernels.tree]", "[kernels.\"../x\"]"),
        @r#"kernels.toml:12: kernel id "../x" must be 1 to 64 of a-z A-Z 0-9 . _ + - and begin with a letter or digit"#);
    insta::assert_snapshot!(broken("[kernels.tree]", "[kernels.\"6.12\"]"), @"kernels.toml:12: duplicate key");
}

#[test]
fn an_empty_matrix_is_an_error() {
    insta::assert_snapshot!(parse("").unwrap_err(), @r#"kernels.toml:1: the matrix is empty: add a [kernels."…"] table"#);
    insta::assert_snapshot!(broken("default = true", "default = false"),
        @"kernels.toml:1: no kernel has `default = true`: a run without --kernel would do nothing");
    insta::assert_snapshot!(parse("kernels = 3").unwrap_err(), @"kernels.toml:1: `kernels` in the file must be a table");
}

#[test]
fn the_committed_matrix_is_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let config = KernelMatrix::load(&root.join("kernels.toml")).unwrap();
    let lock = crate::KernelsLock::load(&root.join("kernels.lock")).unwrap();
    for class in KernelClass::PREDEFINED {
        assert!(config.kernels.iter().any(|kernel| kernel.default && kernel.class == class), "{class}");
    }
    for kernel in config.kernels.iter().filter(|kernel| kernel.default) {
        lock.entry(kernel).unwrap();
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_a_panic(text in ".{0,200}") {
        let _ = parse(&text);
    }

    /// Pieces of a real file in any order reach more code than random text.
    #[test]
    fn any_mixture_is_parsed_without_a_panic(cuts in proptest::collection::vec((0..GOOD.len(), 0..80usize), 0..12)) {
        let pieces: String = cuts.iter().map(|&(at, length)| &GOOD[at..(at + length).min(GOOD.len())]).collect();
        let _ = parse(&pieces);
    }
}

fn vendor(lines: &str) -> std::result::Result<Kernel, String> {
    let text = format!("[kernels.rhel]\ndefault = true\nsource.path = {{ image = \"vmlinuz\" }}\n{lines}\n");
    let config = KernelMatrix::parse(&text, "kernels.toml", PathBuf::new()).map_err(|error| error.to_string())?;
    Ok(config.kernels[0].clone())
}

#[test]
fn a_kernel_may_have_more_than_its_version() {
    let version = KernelVersion::new(5, 14, 0);
    let kernel = vendor("class = \"below-6.7\"\nhas = [\"tcx\"]\nreason = \"RHEL 9.4 backports tcx\"").unwrap();
    assert_eq!((kernel.has[0].capability, &*kernel.has[0].reason), (Capability::Tcx, "RHEL 9.4 backports tcx"));
    assert!(kernel.rule().fits(version));
    let netkit = "has = [{ capability = \"netkit\", reason = \"backport\", source = \"release notes\" }]";
    let kernel = vendor(&format!("class = \"6.7+\"\n{netkit}")).unwrap();
    assert_eq!(kernel.has[0].source.as_deref(), Some("release notes"));
    assert!(kernel.rule().fits(version), "its class depends on its capabilities");
    assert!(!vendor(&format!("class = \"below-6.7\"\n{netkit}")).unwrap().rule().fits(version));
    let kernel = vendor("class = \"6.7+\"\nbelieve = \"probes\"\nreason = \"a vendor's kernel\"").unwrap();
    assert_eq!(kernel.believe_probes.as_deref(), Some("a vendor's kernel"));
    assert!(kernel.rule().fits(version));
}

#[test]
fn invalid_has_and_believe_are_refused() {
    for (lines, line, words) in [
        ("has = [\"tcxx\"]\nreason = \"x\"", 5, "`tcxx` in `has` of [kernels.\"rhel\"] is not a capability"),
        ("has = [\"tcx\"]", 5, "`has` of [kernels.\"rhel\"] needs a `reason`"),
        ("has = [\"tcx\", \"tcx\"]\nreason = \"x\"", 5, "lists `tcx` under `has` twice"),
        ("has = \"tcx\"", 5, "`has` in [kernels.\"rhel\"] must be"),
        ("has = [{ capability = \"tcx\" }]", 5, "reason"),
        ("believe = \"probes\"", 5, "`believe` of [kernels.\"rhel\"] needs a `reason`"),
        ("believe = \"version\"\nreason = \"x\"", 5, "unknown believe `version`"),
        ("reason = \"x\"", 5, "`reason` of [kernels.\"rhel\"] is only used with `believe` or `has`"),
        (
            "has = [\"tcx\"]\nreason = \"x\"\nunsupported = [{ capability = \"tcx\", reason = \"y\" }]",
            5,
            "lists `tcx` under `has` and under `unsupported`",
        ),
    ] {
        let error = vendor(&format!("class = \"6.7+\"\n{lines}")).unwrap_err();
        assert!(error.starts_with(&format!("kernels.toml:{line}: ")) && error.contains(words), "{lines}: {error}");
    }
}
