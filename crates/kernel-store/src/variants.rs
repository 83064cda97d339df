//! `variants` of a kernel: the same files with other parameters, or the same sources with another configuration, each a row of
//! the matrix of its own. And `sysctls`, which are parameters, too.

use super::names::is_file_name;
use lab_base::strict_toml::{ConfigError, Section};
use lab_guard::Id;

/// Between the id of a kernel and the name of its variant: no id of the lab's own matrix has it.
const SEPARATOR: char = '+';

const KEYS: &[&str] =
    &["default", "may-fail", "cmdline", "sysctls", "unsupported", "memory_mib", "fragment", "selftests", "modules"];

/// Reads `sysctls`, a list of `key=value`, as words of the command line, from which a kernel sets them before init starts
/// (`sysctl.*` in Documentation/admin-guide/kernel-parameters.txt; 5.8: "kernel/sysctl: support setting sysctl
/// parameters from kernel command line").
pub(super) fn sysctls(section: &Section<'_>, name: &str) -> Result<Vec<String>, ConfigError> {
    let word = |text: &str| {
        let (key, value) = text.split_once('=')?;
        let is_key = |key: &str| key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
        let is_value = |value: &str| value.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\'));
        let good = key.contains(['.', '/']) && is_key(key) && !value.is_empty() && is_value(value);
        good.then(|| format!("sysctl.{key}={value}"))
    };
    let words = section.texts("sysctls")?.into_iter().map(|text| {
        word(text).ok_or_else(|| {
            let message =
                format!("{text:?} in `sysctls` of {name} must be key=value without spaces, net.core.bpf_jit_harden=2");
            section.error_at("sysctls", message)
        })
    });
    words.collect()
}

/// A variant as far as it does not depend on its kernel.
pub(super) struct VariantTable<'s> {
    pub id: Id,
    pub table: Section<'s>,
    /// The table's name, for messages.
    pub title: String,
}

/// Reads `variants` of a kernel's table, and makes a kernel of each.
///
/// # Errors
/// A name or a key is invalid, or what `make` returns.
pub(super) fn read<K>(
    section: &Section<'_>,
    kernel: &Id,
    mut make: impl FnMut(VariantTable<'_>) -> Result<K, ConfigError>,
) -> Result<Vec<K>, ConfigError> {
    let of = format!("[kernels.\"{kernel}\".variants]");
    let Some(all) = section.section("variants", of, &[])? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for name in all.keys() {
        let text = format!("{kernel}{SEPARATOR}{name}");
        let Some(id) = Id::new(&text).ok().filter(|_| is_file_name(&text) && is_file_name(name)) else {
            let message = format!(
                "variant {name:?} of kernel {kernel}: its id would be {text:?}, which must be 1 to 64 of a-z A-Z 0-9 . _ + -"
            );
            return Err(all.error_at(name, message));
        };
        let title = format!("[kernels.\"{kernel}\".variants.\"{name}\"]");
        let table = all.section(name, title.clone(), KEYS)?.ok_or_else(|| all.missing(name))?;
        found.push(make(VariantTable { id, table, title })?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use crate::{KernelMatrix, config::Kernel, source::Source};

    fn parse(variants: &str) -> Result<Vec<Kernel>, String> {
        let text = format!(
            "[kernels.\"6.12\"]\nclass = \"6.7+\"\ndefault = true\ncmdline = [\"quiet\"]\nsource.path.image = \"i\"\n{variants}"
        );
        let parsed = KernelMatrix::parse(&text, "kernels.toml", "/lab".into());
        parsed.map(|matrix| matrix.kernels).map_err(|error| error.to_string())
    }

    #[test]
    fn a_variant_is_a_row_of_its_own() {
        let rows = parse(
            "[kernels.\"6.12\".variants.hardened]\ncmdline = [\"lockdown=integrity\"]\nsysctls = [\"net.core.bpf_jit_harden=2\"]\n\
             [kernels.\"6.12\".variants.no-jit]\ndefault = true\nsysctls = [\"net.core.bpf_jit_enable=0\"]\n",
        );
        let rows = rows.unwrap();
        let shown: Vec<_> = rows.iter().map(|it| (&*it.id, it.default, it.cmdline.join(" "))).collect();
        let hardened = "quiet lockdown=integrity sysctl.net.core.bpf_jit_harden=2";
        assert_eq!(
            shown,
            [
                ("6.12", true, "quiet".to_owned()),
                ("6.12+hardened", false, hardened.to_owned()),
                ("6.12+no-jit", true, "quiet sysctl.net.core.bpf_jit_enable=0".to_owned()),
            ]
        );
        assert_eq!((&**rows[2].stored_as(), rows[2].unsupported.len()), ("6.12", 1));
        assert_eq!((rows[0].is_published(), rows[1].is_published()), (true, false));
    }

    #[test]
    fn a_built_variant_has_files_of_its_own() {
        let text = "[kernels.\"6.12\"]\nclass = \"6.7+\"\ndefault = true\n\
             source.deb = { suite = \"sid\", package = \"linux-image-6.12.*-cloud-amd64\" }\n\
             [kernels.\"6.12\".variants.debug]\nfragment = \"debug.config\"\nmodules = [\"faults\"]\nmemory_mib = 2048\n\
             [kernels.\"6.12\".variants.selftests]\nselftests = [\"net\", \"net/forwarding\"]\n";
        let rows = KernelMatrix::parse(text, "kernels.toml", "/lab".into()).unwrap().kernels;
        let [_, debug, tests] = &rows[..] else { panic!("three rows: {rows:?}") };
        assert_eq!((&**debug.stored_as(), debug.is_built(), debug.memory_mib), ("6.12+debug", true, Some(2048)));
        let Source::LinuxSource(source) = &debug.source else { panic!("{}", debug.source) };
        assert_eq!((&*source.package, &*source.suite), ("linux-source-6.12", "sid"));
        assert_eq!(source.options.fragments, [std::path::Path::new("/lab/debug.config")]);
        assert_eq!(source.options.modules, [std::path::Path::new("/lab/faults")]);
        let Source::LinuxSource(source) = &tests.source else { panic!("{}", tests.source) };
        assert_eq!(source.options.selftests, ["net", "net/forwarding"]);
    }

    #[test]
    fn a_variant_adds_to_what_its_kernel_is_built_with() {
        let text = "[kernels.a]\nclass = \"6.7+\"\ndefault = true\n\
             source.linux-source = { suite = \"sid\", package = \"linux-source-7.2\", fragment = \"a.config\" }\n\
             variants.b = { fragment = \"b.config\" }\n\
             [kernels.g]\nclass = \"6.7+\"\nsource.git = { tree = \"t\", ref = \"v6.12\", fragment = \"a.config\" }\n\
             variants.b = { fragment = \"b.config\" }\n";
        let rows = KernelMatrix::parse(text, "kernels.toml", "/lab".into()).unwrap().kernels;
        let Source::LinuxSource(source) = &rows[1].source else { panic!("{}", rows[1].source) };
        let wanted = ["/lab/a.config", "/lab/b.config"].map(std::path::PathBuf::from);
        assert_eq!(source.options.fragments, wanted);
        let Source::Git(source) = &rows[3].source else { panic!("{}", rows[3].source) };
        assert_eq!(source.fragments, wanted);
    }

    #[test]
    fn errors_name_the_variant() {
        let broken = |lines: &str| parse(&format!("[kernels.\"6.12\".variants.v]\n{lines}\n")).unwrap_err();
        insta::assert_snapshot!(broken(""),
            @r#"kernels.toml:6: [kernels."6.12".variants."v"] differs in nothing: it needs `cmdline`, `sysctls`, `memory_mib`, `fragment`, `selftests` or `modules`"#);
        insta::assert_snapshot!(broken("sysctls = [\"bpf_jit_harden\"]"),
            @r#"kernels.toml:7: "bpf_jit_harden" in `sysctls` of [kernels."6.12".variants."v"] must be key=value without spaces, net.core.bpf_jit_harden=2"#);
        insta::assert_snapshot!(broken("fragment = \"debug.config\""),
            @r#"kernels.toml:7: [kernels."6.12".variants."v"] is compiled, which the lab can do of a `linux-source`, of a `git` source (`fragment` only), and of a `deb` for amd64 whose pattern names a series (linux-image-6.12.*); path /lab/i is none of these"#);
        insta::assert_snapshot!(broken("selftests = [\"../net\"]"),
            @r#"kernels.toml:7: "../net" in `selftests` of [kernels."6.12".variants."v"] must be a directory of tools/testing/selftests: net, net/forwarding, bpf"#);
        insta::assert_snapshot!(broken("cmdline = [\"a b\"]"),
            @r#"kernels.toml:7: "a b" in `cmdline` of [kernels."6.12".variants."v"] must be one word without quotes, one list entry per word"#);
        insta::assert_snapshot!(broken("source.path.image = \"x\""),
            @r#"kernels.toml:7: unknown key `source` in [kernels."6.12".variants."v"]; known: default, may-fail, cmdline, sysctls, unsupported, memory_mib, fragment, selftests, modules"#);
        insta::assert_snapshot!(parse("[kernels.\"6.12\".variants.\"a/b\"]\n").unwrap_err(),
            @r#"kernels.toml:6: variant "a/b" of kernel 6.12: its id would be "6.12+a/b", which must be 1 to 64 of a-z A-Z 0-9 . _ + -"#);
        let twice = "[kernels.\"6.12\".variants.v]\ncmdline = [\"x\"]\n[kernels.\"6.12+v\"]\nclass = \"6.7+\"\nsource.path.image = \"i\"\n";
        insta::assert_snapshot!(parse(twice).unwrap_err(),
            @r#"kernels.toml:8: kernel 6.12+v is defined twice: once as a variant of 6.12"#);
    }
}
