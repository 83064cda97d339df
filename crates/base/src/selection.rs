//! Glob patterns of the command line.

use crate::nearest::{nearest, suggest};
use wildmatch::WildMatch;

/// A pattern that matches nothing.
#[derive(Debug, thiserror::Error)]
#[error("no {what} matches `{pattern}`{hint}")]
pub struct NoMatch {
    /// `kernel`, `case` or `class`.
    pub what: &'static str,
    pub pattern: String,
    /// What to write instead, as the end of the message; empty if no name is similar.
    hint: String,
}

impl NoMatch {
    /// A name that is none of a short list: the error has the similar ones, or all of them if none is similar.
    pub fn of_few(what: &'static str, pattern: &str, names: &[&str]) -> Self {
        Self { what, pattern: pattern.to_owned(), hint: suggest(pattern, names) }
    }
}

fn suggestion(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => format!("; nearest: {}", names.join(", ")),
    }
}

/// A pattern in which `*` is any text and `?` any character. All else is literal: cell ids contain brackets.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    glob: WildMatch,
}

impl Pattern {
    /// Compiles a pattern; every text is valid.
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), glob: WildMatch::new(text) }
    }

    /// Compiles a pattern that ignores the case of letters: no names differ only by it.
    pub fn of_names(text: &str) -> Self {
        Self { text: text.to_owned(), glob: WildMatch::new_case_insensitive(text) }
    }

    /// Whether the pattern matches the whole name.
    pub fn matches(&self, name: &str) -> bool {
        self.text == name || self.glob.matches(name)
    }
}

/// Returns the items that match any pattern, or all items if there are no patterns. `names` returns the names of an
/// item, the preferred one for suggestions first.
///
/// # Errors
/// [`NoMatch`] for the first pattern that no item matches.
pub fn select<'a, T>(
    what: &'static str,
    items: &'a [T],
    patterns: &[String],
    names: impl Fn(&'a T) -> Vec<&'a str>,
) -> Result<Vec<&'a T>, NoMatch> {
    let compiled: Vec<Pattern> = patterns.iter().map(|text| Pattern::of_names(text)).collect();
    let hit = |pattern: &Pattern, item| names(item).into_iter().any(|name| pattern.matches(name));
    if let Some(lost) = compiled.iter().find(|pattern| !items.iter().any(|item| hit(pattern, item))) {
        let all = items.iter().flat_map(&names);
        return Err(NoMatch { what, pattern: lost.text.clone(), hint: suggestion(&nearest(&lost.text, all)) });
    }
    Ok(items.iter().filter(|item| compiled.is_empty() || compiled.iter().any(|pattern| hit(pattern, item))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 3] =
        ["A02-tcx-link[tcx,veth,ingress]", "A02-tcx-link[tcx,veth,egress]", "N01-pair[netkit,nk-l3]"];

    fn ids(patterns: &[&str]) -> Result<Vec<String>, String> {
        let patterns: Vec<String> = patterns.iter().map(|&text| text.to_owned()).collect();
        select("case", &IDS, &patterns, |id| vec![id, id.split('[').next().unwrap_or(id)])
            .map(|found| found.into_iter().map(|&id| id.to_owned()).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn brackets_are_literal_and_stars_are_not() {
        assert_eq!(ids(&["A02-tcx-link[tcx,veth,egress]"]).unwrap(), [IDS[1]]);
        assert_eq!(ids(&["*[netkit,*"]).unwrap(), [IDS[2]]);
        assert_eq!(ids(&["A02-tcx-link"]).unwrap(), [IDS[0], IDS[1]]);
        assert_eq!(ids(&["A0?-*ingress]", "N01*"]).unwrap(), [IDS[0], IDS[2]]);
        assert_eq!(ids(&["a0?-*INGRESS]"]).unwrap(), [IDS[0]]);
        assert_eq!(ids(&[]).unwrap().len(), 3);
    }

    #[test]
    fn a_pattern_without_a_match_names_the_nearest() {
        assert_eq!(ids(&["A02-tcx-lnk"]).unwrap_err(), "no case matches `A02-tcx-lnk`; nearest: A02-tcx-link");
        assert_eq!(ids(&["zzzz"]).unwrap_err(), "no case matches `zzzz`");
        assert_eq!(ids(&["A02*", "zzzz", "N01*"]).unwrap_err(), "no case matches `zzzz`", "whatever the others match");
    }
}
