use crate::KernelMatrix;

fn parse(source: &str) -> Result<super::Locked, String> {
    let text = format!("[kernels.k]\nclass = \"own\"\ndefault = true\nsource.rpm = {{ {source} }}\n");
    let matrix = KernelMatrix::parse(&text, "kernels.toml", "/lab".into()).map_err(|error| error.to_string())?;
    let crate::Source::Rpm(source) = &matrix.kernels[0].source else { panic!() };
    let list = crate::rpm::packages(&include_bytes!("../rpm/testdata/primary.xml")[..]).unwrap();
    source.choose(&super::Packages(list)).map(super::Locked::Rpm).map_err(|error| error.to_string())
}

const PLACE: &str = "repository = \"https://a.example/os/\", keyring = \"key.asc\"";

#[test]
fn errors_name_the_key_and_what_there_is() {
    let error = |source: &str| parse(source).unwrap_err();
    insta::assert_snapshot!(error("package = \"kernel-core\""), 
        @r#"kernels.toml:4: `rpm` source of [kernels."k"] has no `repository`"#);
    insta::assert_snapshot!(error("repository = \"a b\", package = \"kernel-core\""), 
        @r#"kernels.toml:4: `repository` in [kernels."k"] has no scheme://host/path: expected the address of the directory with `repodata`"#);
    let secret = error("repository = \"https://u:secret@a.example/os\", package = \"kernel-core\"");
    assert!(secret.contains("credentials belong to") && !secret.contains("secret@"), "{secret}");
    insta::assert_snapshot!(error("repository = \"https://a.example\", package = \"kernel-core\""), 
        @r#"kernels.toml:4: `rpm` source of [kernels."k"] needs `keyring`: the keys by which the repository's packages are signed"#);
    insta::assert_snapshot!(error(&format!("{PLACE}, package = \"bash\"")), 
        @r#"kernels.toml:4: "bash" in [kernels."k"] is no name of a kernel package, such as kernel-core"#);
    insta::assert_snapshot!(error(&format!("{PLACE}, package = \"kernel-core\", extra = [\"../x\"]")), 
        @r#"kernels.toml:4: "../x" in `extra` of [kernels."k"] is no name of a kernel package"#);
    insta::assert_snapshot!(error(&format!("{PLACE}, package = \"kernel-core\", signed = \"no\"")), 
        @r#"kernels.toml:4: unknown signed `no` in `rpm` source of [kernels."k"]; known: packages, index, both"#);
    insta::assert_snapshot!(error(&format!("{PLACE}, package = \"kernel-core\", version = \"[\"")), 
        @r#"kernels.toml:4: `version` in [kernels."k"]: unclosed character class; missing ']'"#);
    insta::assert_snapshot!(error(&format!("{PLACE}, package = \"kernel-core\"")), 
        @r#"no build of `kernel-modules` is of version `6.12.3-1.fc40` in https://a.example/os, which `modules` names for kernel-core: fix `package` or `version` in kernels.toml"#);
    insta::assert_snapshot!(error(&format!("{PLACE}, package = \"kernel-core\", version = \"6.13.*\"")), 
        @r#"no build of `kernel-core` is of version `6.13.*` in https://a.example/os (it has 6.12.3-1.fc40): fix `package` or `version` in kernels.toml"#);
    insta::assert_snapshot!(error(&format!("{PLACE}, package = \"kernel-debug-core\"")), 
        @r#"no build of `kernel-debug-core` is of version `*` in https://a.example/os (it has kernel-core): fix `package` or `version` in kernels.toml"#);
    let locked = parse(&format!("{PLACE}, package = \"kernel-core\", version = \"6.12.*\", modules = []")).unwrap();
    insta::assert_snapshot!(locked, 
        @r#"kernel-core 6.12.3-1.fc40 (https://a.example/os)"#);
}
