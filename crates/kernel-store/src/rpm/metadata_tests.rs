use super::*;

/// Made by createrepo_c 0.17.3.
const REPOMD: &str = include_str!("testdata/repomd.xml");
const PRIMARY: &str = include_str!("testdata/primary.xml");

fn one(primary: &str) -> std::result::Result<RpmPackage, String> {
    let mut found = packages(primary.as_bytes()).map_err(|error| error.to_string())?;
    assert_eq!(found.len(), 1);
    Ok(found.remove(0))
}

#[test]
fn what_createrepo_writes_is_read() {
    let index = primary(REPOMD.as_bytes()).unwrap();
    assert!(index.href.starts_with("repodata/") && index.href.ends_with("-primary.xml.gz"), "{index:?}");
    assert!(index.href.contains(index.digest.hex()) && index.size > 100, "{index:?}");
    let package = one(PRIMARY).unwrap();
    assert_eq!((&*package.name, &*package.evr(), &*package.href), ("kernel-core", "6.12.3-1.fc40", "kernel-core.rpm"));
    let file = include_bytes!("testdata/kernel-core-zstd.rpm");
    assert_eq!((package.size, Digest::of(file)), (file.len() as u64, package.digest.clone()));
}

#[test]
fn other_architectures_and_packages_are_left_out() {
    for (from, to) in [("<arch>x86_64<", "<arch>aarch64<"), ("<name>kernel-core<", "<name>bash<")] {
        let text = PRIMARY.replace(from, to);
        assert_ne!(text, PRIMARY);
        assert_eq!(packages(text.as_bytes()).unwrap(), []);
    }
}

#[test]
fn versions_have_the_order_of_rpm() {
    let package = |epoch: &str, version: &str, release: &str| RpmPackage {
        epoch: epoch.into(),
        version: version.into(),
        release: release.into(),
        ..one(PRIMARY).unwrap()
    };
    for (old, new) in [
        (package("0", "6.9.12", "1"), package("0", "6.12.3", "1")),
        (package("0", "6.12.0", "0.rc1.fc41"), package("0", "6.12.0", "1.fc41")),
        (package("0", "6.12~rc1", "1"), package("0", "6.12", "1")),
        (package("0", "6.12", "1"), package("1", "5.14", "1")),
        (package("0", "5.14.0", "570.9.1.el9"), package("0", "5.14.0", "570.12.1.el9")),
    ] {
        assert!(old.compare(&new).is_lt() && new.compare(&old).is_gt(), "{old:?} {new:?}");
    }
}

#[test]
fn an_index_that_leaves_the_repository_or_is_damaged_is_refused() {
    let error = |from: &str, to: &str| {
        let text = PRIMARY.replacen(from, to, 1);
        assert_ne!(text, PRIMARY, "{from}");
        packages(text.as_bytes()).map_err(|error| error.to_string()).expect_err(&to[..to.len().min(60)])
    };
    let href = "href=\"kernel-core.rpm\"";
    for path in ["../other.rpm", "/etc/passwd", "a//b", "https://c.example/x.rpm", "a%2e%2e/b", "", "a b"] {
        let told = error(href, &format!("href=\"{path}\""));
        assert_eq!(told, "kernel-core has no path in the repository", "{path}");
    }
    let told = error(href, "xml:base=\"https://c.example/\" href=\"kernel-core.rpm\"");
    assert_eq!(told, "names a file of another place, \"https://c.example/\"");
    assert!(error("type=\"sha256\"", "type=\"sha1\"").contains("is no SHA-256 or SHA-512 checksum"));
    assert_eq!(error("ver=\"6.12.3\"", "ver=\"6.12\n3\""), "\"6.12 3\" is no ver of a package");
    assert_eq!(error("<size package=", "<size packed="), "kernel-core has no size");
    assert_eq!(error("<metadata ", "<other "), "is no metadata of a repository");
    for length in [0, 1, 200, PRIMARY.len() / 2, PRIMARY.len() - 5] {
        let told = packages(&PRIMARY.as_bytes()[..length]).unwrap_err().to_string();
        assert!(told.contains("ends in the middle") || told.contains("is damaged"), "{length}: {told}");
    }
    let long = error("<summary>", &format!("<summary>{}", "a".repeat(2 * MOST_EVENT)));
    assert_eq!(long, "has a tag or text of more than 1 MiB");
    let deep = error("<summary>", &"<a>".repeat(100));
    assert_eq!(deep, "has elements in more than 32 others");
    assert_eq!(
        primary(REPOMD.replace("type=\"primary\"", "type=\"primary_db\"").as_bytes()).unwrap_err().to_string(),
        "names no list of packages (data type \"primary\")"
    );
}
