//! Reads TOML tables strictly: every error names the file, the line, the key and the most similar valid spelling.

use crate::{nearest::suggest, text};
use std::ops::Range;
use toml_edit::{Item, TableLike};

/// Longest message about a line, characters: a list of all valid keys is shorter.
const MESSAGE: usize = 2000;

/// An error in a line of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct ConfigError {
    /// File name as the user gave it.
    pub file: String,
    /// Line number, from 1.
    pub line: usize,
    /// The problem, with key and suggestion.
    pub message: String,
}

/// The file that is being read, for error messages.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    /// File name as the user gave it.
    pub file: &'a str,
    /// File content, to convert byte offsets to line numbers.
    pub text: &'a str,
}

impl Origin<'_> {
    /// An error about the text at `span`; line 1 if `span` is `None`.
    pub fn error(&self, span: Option<Range<usize>>, message: impl Into<String>) -> ConfigError {
        let offset = span.map_or(0, |span| span.start).min(self.text.len());
        let line = 1 + self.text.as_bytes()[..offset].iter().filter(|&&byte| byte == b'\n').count();
        // Parsers quote words of the file as they are.
        ConfigError { file: self.file.to_owned(), line, message: text::line(&message.into(), MESSAGE) }
    }

    /// Converts a syntax error of the TOML parser; joins its lines.
    pub fn syntax(&self, error: &toml_edit::TomlError) -> ConfigError {
        let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join(", ");
        self.error(error.span(), message)
    }
}

/// A table of the file whose keys have been checked against the allowed ones.
pub struct Section<'a> {
    origin: Origin<'a>,
    table: &'a dyn TableLike,
    span: Option<Range<usize>>,
    name: String,
}

impl<'a> Section<'a> {
    /// Opens a table. `name` is its name in error messages; if `allowed` is empty, all keys are accepted.
    pub fn open(
        origin: Origin<'a>,
        table: &'a dyn TableLike,
        span: Option<Range<usize>>,
        name: String,
        allowed: &[&str],
    ) -> Result<Self, ConfigError> {
        Self::open_with(origin, table, span, name, allowed, &[])
    }

    /// `former` are old names of renamed keys: they are accepted, but not suggested in errors.
    fn open_with(
        origin: Origin<'a>,
        table: &'a dyn TableLike,
        span: Option<Range<usize>>,
        name: String,
        allowed: &[&str],
        former: &[&str],
    ) -> Result<Self, ConfigError> {
        let section = Self { origin, table, span, name };
        if !allowed.is_empty()
            && let Some((key, _)) = table.iter().find(|(key, _)| !allowed.contains(key) && !former.contains(key))
        {
            let hint = suggest(key, allowed);
            return Err(section.error_at(key, format!("unknown key `{key}` in {}{hint}", section.name)));
        }
        Ok(section)
    }

    /// The table's name in error messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The table's first line, from 1.
    pub fn line(&self) -> usize {
        self.origin.error(self.span.clone(), "").line
    }

    /// The keys in file order.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.table.iter().map(|(key, _)| key)
    }

    /// An error about a key, or about the table if it does not contain the key.
    pub fn error_at(&self, key: &str, message: impl Into<String>) -> ConfigError {
        let span = self.table.get_key_value(key).and_then(|(key, item)| key.span().or_else(|| item.span()));
        self.origin.error(span.or_else(|| self.span.clone()), message)
    }

    /// The error for a missing key.
    pub fn missing(&self, key: &str) -> ConfigError {
        self.error_at(key, format!("{} has no `{key}`", self.name))
    }

    fn typed<T>(
        &self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&'a Item) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.table.get(key) {
            None => Ok(None),
            Some(item) => match read(item) {
                Some(value) => Ok(Some(value)),
                None => Err(self.error_at(key, format!("`{key}` in {} must be {wanted}", self.name))),
            },
        }
    }

    /// A string that is not blank.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.typed(key, "a text that is not empty", |item| item.as_str().filter(|text| !text.trim().is_empty()))
    }

    /// As [`Self::text`]; the key must exist.
    pub fn required(&self, key: &str) -> Result<&'a str, ConfigError> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    /// A TOML date, or a string, which the caller must check.
    pub fn date(&self, key: &str) -> Result<Option<String>, ConfigError> {
        self.typed(key, "a day", |item| {
            item.as_str().map(str::to_owned).or_else(|| item.as_datetime().map(ToString::to_string))
        })
    }

    /// A boolean; false if the key is absent.
    pub fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        Ok(self.typed(key, "true or false", Item::as_bool)?.unwrap_or(false))
    }

    /// An integer within `range`.
    pub fn number(&self, key: &str, range: Range<u32>) -> Result<Option<u32>, ConfigError> {
        let wanted = format!("a whole number from {} to {}", range.start, range.end - 1);
        self.typed(key, &wanted, |item| item.as_integer()?.try_into().ok().filter(|number| range.contains(number)))
    }

    /// An array of strings; empty if the key is absent.
    pub fn texts(&self, key: &str) -> Result<Vec<&'a str>, ConfigError> {
        let read = |item: &'a Item| item.as_array()?.iter().map(|value| value.as_str()).collect();
        Ok(self.typed(key, "a list of texts", read)?.unwrap_or_default())
    }

    /// One of a fixed set of words; the key must exist.
    pub fn word<T: Copy>(&self, key: &str, known: &[(&str, T)]) -> Result<T, ConfigError> {
        let word = self.required(key)?;
        known.iter().find(|(name, _)| *name == word).map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            self.error_at(key, format!("unknown {key} `{word}` in {}{}", self.name, suggest(word, &names)))
        })
    }

    /// Returns which name of a renamed key is used; a table must not have both.
    pub fn renamed<'k>(&self, now: &'k str, formerly: &'k str) -> Result<&'k str, ConfigError> {
        match (self.table.contains_key(now), self.table.contains_key(formerly)) {
            (true, true) => {
                let message =
                    format!("`{formerly}` is the former name of `{now}`: {} has both, keep `{now}`", self.name);
                Err(self.error_at(formerly, message))
            }
            (false, true) => Ok(formerly),
            _ => Ok(now),
        }
    }

    /// A subtable.
    pub fn section(&self, key: &str, name: String, allowed: &[&str]) -> Result<Option<Section<'a>>, ConfigError> {
        self.section_with(key, name, allowed, &[])
    }

    /// As [`Self::section`], for a table with renamed keys: the names in `former` are accepted, but not suggested in
    /// errors.
    pub fn section_with(
        &self,
        key: &str,
        name: String,
        allowed: &[&str],
        former: &[&str],
    ) -> Result<Option<Section<'a>>, ConfigError> {
        match self.typed(key, "a table", Item::as_table_like)? {
            None => Ok(None),
            Some(table) => {
                let span = self.table.get_key_value(key).and_then(|(key, item)| key.span().or_else(|| item.span()));
                Section::open_with(self.origin, table, span, name, allowed, former).map(Some)
            }
        }
    }

    /// An array of tables: `[{ … }, { … }]` or `[[ … ]]`.
    pub fn sections(&self, key: &str, name: &str, allowed: &[&str]) -> Result<Vec<Section<'a>>, ConfigError> {
        let tables = self.typed(key, "a list of tables", |item| match item {
            Item::ArrayOfTables(tables) => {
                Some(tables.iter().map(|table| (table as &dyn TableLike, table.span())).collect::<Vec<_>>())
            }
            other => other
                .as_array()?
                .iter()
                .map(|value| Some((value.as_inline_table()? as &dyn TableLike, value.span())))
                .collect(),
        })?;
        tables
            .unwrap_or_default()
            .into_iter()
            .map(|(table, span)| Section::open(self.origin, table, span, name.to_owned(), allowed))
            .collect()
    }
}
