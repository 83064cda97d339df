//! Reading the entries of both files: a list of tables with common keys.

use super::{EntryTerms, KernelRange, range::NotARange};
use chrono::NaiveDate;
use lab_base::strict_toml::{ConfigError, Origin, Section};
use lab_record::excuse::Excuse;
use toml_edit::Document;

/// Keys that every entry may have.
pub const TERMS: [&str; 4] = ["kernels", "reason", "link", "expires"];

/// Reads every `[[table]]` of a file with `entry`.
pub fn entries<T>(
    text: &str,
    file: &str,
    table: &str,
    allowed: &[&str],
    entry: impl Fn(&Section<'_>, EntryTerms) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    let origin = Origin { file, text };
    let document = Document::parse(text).map_err(|error| origin.syntax(&error))?;
    let top = Section::open(origin, document.as_table(), None, "the file".into(), &[table])?;
    let allowed: Vec<&str> = allowed.iter().chain(&TERMS).copied().collect();
    let sections = top.sections(table, &format!("this [[{table}]]"), &allowed)?;
    sections.iter().map(|section| entry(section, terms(section, file)?)).collect()
}

fn terms(section: &Section<'_>, file: &str) -> Result<EntryTerms, ConfigError> {
    let reason = section.required("reason")?.to_owned();
    let (expires, last_day) = last_day(section)?;
    let kernels = section.text("kernels")?.map(|range| {
        let bad = |why: NotARange| {
            section.error_at("kernels", format!("`kernels`: {why}; for example \">=6.7, <6.12\", or \"6.12\""))
        };
        range.parse::<KernelRange>().map_err(bad)
    });
    Ok(EntryTerms {
        file: file.to_owned(),
        line: section.line(),
        kernels: kernels.transpose()?,
        excuse: Excuse { reason, link: section.text("link")?.map(str::to_owned), expires: Some(expires) },
        last_day,
    })
}

/// Reads `expires`, which is required so that no entry outlives its reason.
fn last_day(section: &Section<'_>) -> Result<(String, NaiveDate), ConfigError> {
    let example = "expires = \"2027-01-31\"";
    let Some(text) = section.date("expires")? else {
        let message = format!("{} has no `expires`: add its last day, {example}", section.name());
        return Err(section.error_at("expires", message));
    };
    let wrong = |_| section.error_at("expires", format!("`expires`: `{text}` is not a date; write {example}"));
    let day = text.parse::<NaiveDate>().map_err(wrong)?;
    Ok((day.to_string(), day))
}
