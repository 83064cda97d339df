//! `workloads.toml`.

use super::{
    super::exec::{ExecArgs, name},
    keys::{KEYS, directory},
};
use crate::error::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use lab_base::{
    nearest::suggest,
    selection::NoMatch,
    strict_toml::{ConfigError, Origin, Section},
    text,
};
use lab_kernel_store::KernelsError;
use std::{error::Error as _, ffi::OsString, io, path::Path};
use toml_edit::Document;

/// The file, beside `kernels.toml`.
pub(in crate::cli) const WORKLOADS_TOML: &str = "workloads.toml";
/// Keys that are no options of `lab exec`.
const OTHERS: [&str; 4] = ["about", "command", "directory", "kernels"];

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct NamedWorkload {
    pub name: String,
    /// What it is, for people.
    pub about: Option<String>,
    /// Patterns of the kernels that it runs on; the default ones if there are none.
    pub kernels: Vec<String>,
    /// Its words behind `lab exec`.
    pub words: Vec<OsString>,
}

/// The workloads of a project, in file order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cli) struct Workloads(pub Vec<NamedWorkload>);

impl Workloads {
    /// Reads the file of a project; without one there are none.
    pub(in crate::cli) fn load(root: &Path) -> Result<Self, Error> {
        let path = root.join(WORKLOADS_TOML);
        match lab_guard::bounded::text(&path) {
            Ok(text) => Ok(Self::parse(&text, &path.display().to_string(), root).map_err(KernelsError::from)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Error::file("read", path)(error)),
        }
    }

    /// The one with a name.
    pub(in crate::cli) fn named(self, wanted: &str) -> Result<NamedWorkload, Error> {
        if self.0.is_empty() {
            let why = format!("there is no workload `{wanted}`: {WORKLOADS_TOML} beside kernels.toml has none");
            return Err(Error::Usage(why));
        }
        let names: Vec<&str> = self.0.iter().map(|it| &*it.name).collect();
        let missing = NoMatch::of_few("workload", wanted, &names);
        self.0.into_iter().find(|it| it.name == wanted).ok_or_else(|| missing.into())
    }

    /// Parses and checks a file: a workload that nobody asks for is checked too.
    fn parse(text: &str, file: &str, dir: &Path) -> Result<Self, ConfigError> {
        let origin = Origin { file, text };
        let document = Document::parse(text).map_err(|error| origin.syntax(&error))?;
        let top = Section::open(origin, document.as_table(), None, "the file".into(), &["workloads"])?;
        let Some(table) = top.section("workloads", "[workloads]".into(), &[])? else { return Ok(Self::default()) };
        table.keys().map(|name| workload(&table, name, dir)).collect::<Result<_, _>>().map(Self)
    }
}

fn workload(table: &Section<'_>, id: &str, dir: &Path) -> Result<NamedWorkload, ConfigError> {
    if let Err(wrong) = name(id) {
        return Err(table.error_at(id, format!("workload {id:?}: {wrong}")));
    }
    let allowed: Vec<&str> = OTHERS.into_iter().chain(KEYS.iter().map(|key| key.name)).collect();
    let title = format!("[workloads.{}]", if id.contains(['.', '/']) { format!("{id:?}") } else { id.to_owned() });
    let section = table.section(id, title.clone(), &allowed)?.ok_or_else(|| table.missing(id))?;
    let command = section.texts("command")?;
    if command.is_empty() {
        let why = format!("{title} has no `command`: add its program and arguments, [\"./test\", \"-v\"]");
        return Err(section.error_at("command", why));
    }
    let mut words = vec![OsString::from(format!("--name={id}"))];
    if let Some(directory) = directory(&section, dir)? {
        let mut word = OsString::from("--cwd=");
        word.push(directory);
        words.push(word);
    }
    for key in &KEYS {
        let own = key.words(&section, dir)?;
        if own.is_empty() {
            continue;
        }
        // Alone, so that an error is one about this key; what it needs beside it comes last.
        let alone = own.iter().cloned().chain(["--".into(), "x".into()]);
        match ExecArgs::parsed(&alone.collect::<Vec<_>>()) {
            Err(error) if !is_of_several(&error) => {
                return Err(section.error_at(key.name, format!("`{}` in {title}: {}", key.name, told(&error))));
            }
            _ => words.extend(own),
        }
    }
    words.push("--".into());
    words.extend(command.into_iter().map(OsString::from));
    if let Err(error) = ExecArgs::parsed(&words) {
        return Err(section.error_at("command", format!("{title}: {}", told(&error))));
    }
    Ok(NamedWorkload {
        name: id.to_owned(),
        about: section.text("about")?.map(str::to_owned),
        kernels: section.texts("kernels")?.into_iter().map(str::to_owned).collect(),
        words,
    })
}

/// Whether an error is about options that need or exclude each other.
fn is_of_several(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict)
}

/// An error of the command line as one line, in the words of the file.
fn told(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(vec![text.clone()]),
        Some(ContextValue::Strings(texts)) => Some(texts.clone()),
        _ => None,
    };
    let invalid = context(ContextKind::InvalidValue).and_then(|all| all.into_iter().next());
    let line = match (error.kind(), invalid) {
        (ErrorKind::InvalidValue, Some(value)) => {
            let known = context(ContextKind::ValidValue).unwrap_or_default();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let hint = match suggest(&value, &known) {
                hint if hint.is_empty() => format!("; known: {}", known.join(", ")),
                hint => hint,
            };
            format!("unknown value `{value}`{hint}")
        }
        (ErrorKind::ValueValidation, Some(value)) => match error.source() {
            Some(source) => source.to_string(),
            None => format!("`{value}` is wrong"),
        },
        _ => {
            let text = error.to_string();
            let lines = text.lines().take_while(|line| !line.starts_with("Usage") && !line.starts_with("For more"));
            let lines = lines.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
            lines.trim_start_matches("error: ").to_owned()
        }
    };
    text::line(&line, 300)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Workloads, String> {
        Workloads::parse(text, "workloads.toml", Path::new("/p")).map_err(|error| error.to_string())
    }

    fn words(workload: &NamedWorkload) -> String {
        workload.words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_key_is_an_option_and_paths_begin_at_the_file() {
        let text = r#"
[workloads.felix]
about = "its unit tests"
suite = "go"
command = ["./felix.test", "-x"]
kernels = ["6.1*"]
topologies = ["pods"]
kinds = ["veth", "nk-l3"]
node = "w0"
requires = ["netkit", "CONFIG_VETH"]
files = ["data:/data", "/etc/os-release"]
sysctls = { "net.ipv4.ip_forward" = "1" }
timeouts = { "TestA*" = "5m" }
deadlines = { run = "2h" }
isolate = "file"
retries = 2
memory = "2G"
known = "felix-known.toml"
clean-env = true
require-attach = ["netkit=netkit"]

[workloads.plain]
root = "image"
command = ["true"]
"#;
        let all = parse(text).unwrap().0;
        assert_eq!((&*all[0].name, &*all[0].kernels, all.len()), ("felix", &["6.1*".to_owned()][..], 2));
        let wanted = "--name=felix --cwd=/p --suite=go --topology=pods --kind=veth --kind=nk-l3 --node=w0 --require=netkit \
                      --require=CONFIG_VETH --file=/p/data:/data --file=/etc/os-release --clean-env --memory=2G \
                      --sysctl=net.ipv4.ip_forward=1 --test-timeout=TestA*=5m --deadline=run=2h --isolate=file --retries=2 \
                      --known=/p/felix-known.toml --require-attach=netkit=netkit -- ./felix.test -x";
        assert_eq!(words(&all[0]), wanted);
        assert_eq!(words(&all[1]), "--name=plain --root=image -- true");
        for (own, wanted) in [("sub/dir", "/p/sub/dir"), ("/else", "/else")] {
            let text = format!("[workloads.a]\ncommand = [\"x\"]\ndirectory = \"{own}\"\n");
            assert_eq!(words(&parse(&text).unwrap().0[0]), format!("--name=a --cwd={wanted} -- x"));
        }
    }

    #[test]
    fn an_error_names_file_line_key_and_the_nearest_word() {
        let of = |body: &str| parse(&format!("[workloads.a]\ncommand = [\"x\"]\n{body}\n")).unwrap_err();
        for (body, wanted) in [
            ("isolat = \"test\"", "unknown key `isolat` in [workloads.a]; did you mean `isolate`?"),
            ("isolate = \"kernle\"", "`isolate` in [workloads.a]: unknown value `kernle`; did you mean `kernel`?"),
            ("suite = \"libtset\"", "`suite` in [workloads.a]: unknown value `libtset`; did you mean `libtest`?"),
            ("timeout = \"soon\"", "`timeout` in [workloads.a]: `soon` is no time; write 90, 500ms, 5m or 2h"),
            ("memory = \"1\"", "`memory` in [workloads.a]: `1` is no size from 128M to 1024G"),
            ("retries = 21", "`retries` in [workloads.a] must be a whole number from 0 to 20"),
            ("requires = [\"netkti\"]", "`netkti` is neither a capability nor CONFIG_NAME[=VALUE]"),
            ("network = \"host\"", "`network` in [workloads.a]: `host` is none of none, pasta and host:PORT"),
            ("timeouts = { x = \"never\" }", "`timeouts` in [workloads.a]: `never` is no time"),
            ("deadlines = { rnu = \"2h\" }", "rnu"),
            ("require-attach = [\"xdp\"]", "`require-attach` in [workloads.a]: `xdp` is not [KIND=]TYPE"),
        ] {
            let error = of(body);
            assert!(error.starts_with("workloads.toml:3: ") && error.contains(wanted), "{body}: {error}");
        }
        // What several keys are wrong about is told of the command.
        let error = of("kinds = [\"veth\"]");
        assert!(error.starts_with("workloads.toml:2: [workloads.a]: ") && error.contains("--topology"), "{error}");
        for (text, wanted) in [
            ("[workloads.a]\nsuite = \"go\"\n", "workloads.toml:1: [workloads.a] has no `command`"),
            ("[workloads.a]\ncommand = \"x\"\n", "`command` in [workloads.a] must be a list of texts"),
            ("[workloads.\"a b\"]\ncommand = [\"x\"]\n", "workload \"a b\": at most 100 letters"),
            ("[workload.a]\ncommand = [\"x\"]\n", "unknown key `workload` in the file; did you mean `workloads`?"),
            ("workloads = 1\n", "`workloads` in the file must be a table"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn an_unknown_workload_has_its_nearest_names() {
        let all = parse("[workloads.felix]\ncommand = [\"x\"]\n[workloads.other]\ncommand = [\"x\"]\n").unwrap();
        assert!(all.clone().named("felix").is_ok());
        assert_eq!(all.named("feli").unwrap_err().to_string(), "no workload matches `feli`; did you mean `felix`?");
        let none = Workloads::default().named("x").unwrap_err().to_string();
        assert!(none.contains("workloads.toml beside kernels.toml has none"), "{none}");
    }
}
