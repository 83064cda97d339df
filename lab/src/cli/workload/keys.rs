//! The keys of a workload: each is an option of `lab exec`, whose own parser checks its value.

use super::super::exec::is_word;
use lab_base::strict_toml::{ConfigError, Section};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// How a key is written, and what of it is a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    /// A text.
    Text,
    /// A list of texts, each an option of its own.
    Texts,
    /// A whole number up to this one.
    Number(u32),
    /// True or false.
    Flag,
    /// A path from the file's directory on.
    Path,
    /// A list of them.
    Paths,
    /// A list of `FILE[:PLACE]`.
    Files,
    /// A path, or one of these words.
    PathOr(&'static [&'static str]),
    /// A path, `kernel` or `kernel=ID`.
    Sources,
    /// A table of texts: `KEY = VALUE` becomes `KEY=VALUE`.
    Pairs,
}

/// A key, and the option that it is.
pub(super) struct Key {
    pub name: &'static str,
    option: &'static str,
    kind: KeyKind,
}

const fn key(name: &'static str, option: &'static str, kind: KeyKind) -> Key {
    Key { name, option, kind }
}

/// All keys that are options.
pub(super) const KEYS: [Key; 37] = [
    key("suite", "--suite", KeyKind::Text),
    key("tests", "--tests", KeyKind::Path),
    key("one-process", "--one-process", KeyKind::Flag),
    key("sources", "--sources", KeyKind::Sources),
    key("topologies", "--topology", KeyKind::Texts),
    key("kinds", "--kind", KeyKind::Texts),
    key("node", "--node", KeyKind::Text),
    key("requires", "--require", KeyKind::Texts),
    key("root", "--root", KeyKind::PathOr(&["host", "none", "image"])),
    key("files", "--file", KeyKind::Files),
    key("writable", "--rw", KeyKind::Paths),
    key("artifacts", "--out", KeyKind::Path),
    key("modules", "--module", KeyKind::Paths),
    key("tools", "--tools", KeyKind::Text),
    key("network", "--net", KeyKind::Text),
    key("publish", "--publish", KeyKind::Texts),
    key("setup", "--setup", KeyKind::Text),
    key("env", "--env", KeyKind::Pairs),
    key("clean-env", "--clean-env", KeyKind::Flag),
    key("user", "--user", KeyKind::Text),
    key("cpus", "--cpus", KeyKind::Number(64)),
    key("memory", "--memory", KeyKind::Text),
    key("overlay", "--overlay", KeyKind::Text),
    key("cmdline", "--cmdline", KeyKind::Texts),
    key("sysctls", "--sysctl", KeyKind::Pairs),
    key("timeout", "--timeout", KeyKind::Text),
    key("timeouts", "--test-timeout", KeyKind::Pairs),
    key("deadlines", "--deadline", KeyKind::Pairs),
    key("isolate", "--isolate", KeyKind::Text),
    key("retries", "--retries", KeyKind::Number(20)),
    key("flaky", "--flaky", KeyKind::Text),
    key("known", "--known", KeyKind::Path),
    key("witness", "--witness", KeyKind::Text),
    key("require-attach", "--require-attach", KeyKind::Texts),
    key("forbid-attach", "--forbid-attach", KeyKind::Texts),
    key("forbid-leaks", "--forbid-leaks", KeyKind::Flag),
    key("require-ran", "--require-ran", KeyKind::Flag),
];

impl Key {
    /// Its words on the command line; none where the table does not have it.
    pub(super) fn words(&self, section: &Section<'_>, dir: &Path) -> Result<Vec<OsString>, ConfigError> {
        let Self { name, option, kind } = self;
        let below = |path: &str| -> OsString { dir.join(path).into() };
        let file = |text: &str| match text.split_once(':') {
            Some((file, place)) => {
                let mut word = below(file);
                word.push(format!(":{place}"));
                word
            }
            // Its place in the root is where it is on the host.
            None => below(text),
        };
        let values: Vec<OsString> = match kind {
            KeyKind::Text => section.text(name)?.into_iter().map(Into::into).collect(),
            KeyKind::Texts => section.texts(name)?.into_iter().map(Into::into).collect(),
            KeyKind::Number(most) => {
                section.number(name, 0..most + 1)?.into_iter().map(|number| number.to_string().into()).collect()
            }
            KeyKind::Flag => {
                return Ok(if section.flag(name)? { vec![(*option).into()] } else { Vec::new() });
            }
            KeyKind::Path => section.text(name)?.into_iter().map(below).collect(),
            KeyKind::Paths => section.texts(name)?.into_iter().map(below).collect(),
            KeyKind::Files => section.texts(name)?.into_iter().map(file).collect(),
            KeyKind::PathOr(words) => {
                let value = |text: &str| if words.contains(&text) { text.into() } else { below(text) };
                section.text(name)?.into_iter().map(value).collect()
            }
            KeyKind::Sources => {
                let value = |text: &str| if is_word(Path::new(text)) { text.into() } else { below(text) };
                section.text(name)?.into_iter().map(value).collect()
            }
            KeyKind::Pairs => {
                let table = section.section(name, format!("`{name}` of {}", section.name()), &[])?;
                let mut values = Vec::new();
                for key in table.iter().flat_map(Section::keys) {
                    let Some(table) = &table else { break };
                    values.push(format!("{key}={}", table.required(key)?).into());
                }
                values
            }
        };
        // `--option=value`: a value may begin with a dash.
        let word = |value: OsString| {
            let mut word = OsString::from(format!("{option}="));
            word.push(value);
            word
        };
        Ok(values.into_iter().map(word).collect())
    }
}

/// The directory in which a workload's command runs.
pub(super) fn directory(section: &Section<'_>, dir: &Path) -> Result<Option<PathBuf>, ConfigError> {
    let own = section.text("directory")?.map(|own| dir.join(own));
    // Another root has other directories.
    let is_host = section.text("root")?.is_none_or(|root| matches!(root, "host" | "none"));
    Ok(own.or_else(|| is_host.then(|| dir.to_owned())))
}
