//! `splats.toml`: kernel splats that fail nothing for now.

use super::{EntryTerms, SPLATS_TOML, read};
use lab_base::{selection::Pattern, strict_toml::ConfigError};
use lab_record::splat::Splat;

/// A `[[splat]]` entry.
#[derive(Debug, Clone)]
pub struct Allowed {
    pub terms: EntryTerms,
    about: About,
}

#[derive(Debug, Clone)]
enum About {
    Fingerprint(String),
    Title { text: String, pattern: Pattern },
}

impl Allowed {
    /// Its fingerprint or pattern, as written.
    pub fn about(&self) -> &str {
        match &self.about {
            About::Fingerprint(text) | About::Title { text, .. } => text,
        }
    }

    /// Whether it matches a splat: by fingerprint, or by the first line, raw or as reports show it.
    pub fn matches(&self, splat: &Splat) -> bool {
        match &self.about {
            About::Fingerprint(fingerprint) => *fingerprint == splat.fingerprint,
            About::Title { pattern, .. } => pattern.matches(&splat.title) || pattern.matches(&splat.subject),
        }
    }
}

/// Parses the file.
pub fn parse(text: &str) -> Result<Vec<Allowed>, ConfigError> {
    read::entries(text, SPLATS_TOML, "splat", &["fingerprint", "title"], |section, terms| {
        let about = match (section.text("fingerprint")?, section.text("title")?) {
            (Some(fingerprint), None) => About::Fingerprint(fingerprint.to_owned()),
            (None, Some(title)) => About::Title { text: title.to_owned(), pattern: Pattern::new(title) },
            (None, None) => {
                let message = "this [[splat]] matches nothing: add a `fingerprint` as reports show it, or a `title` \
                               with * and ?";
                return Err(section.error_at("fingerprint", message));
            }
            (Some(_), Some(_)) => {
                return Err(
                    section.error_at("title", "this [[splat]] has a `fingerprint` and a `title`: keep one of them")
                );
            }
        };
        Ok(Allowed { terms, about })
    })
}
