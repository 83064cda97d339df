//! Suggests names for a mistyped word: one rule for kernels, cases, keys and everything else.
//! Names that begin with the word come first (`6.18` suggests 6.18.5), then names that contain it, then names that
//! differ by few letters. For a version, the next lower and the next higher one are suggested. A wrong suggestion is
//! worse than none.

use std::cmp::Reverse;

/// Maximum number of names in a hint.
const MOST: usize = 8;
/// Maximum number of known names that are listed if none is similar.
const FEW: usize = 16;
/// Minimum letters of a word for names that contain it to be suggested.
const CONTAINED: usize = 3;
/// Letters of a word for each typo that is tolerated.
const LETTERS_PER_TYPO: usize = 4;

/// The distinct names that are similar to a word or pattern, best first.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut all: Vec<&str> = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    let word = wanted.to_lowercase();
    // The part of a pattern before its first wildcard; of `*x` the part after it.
    let core = word.trim_start_matches(['*', '?']);
    let core = core.split(['*', '?']).next().unwrap_or_default();
    if core.is_empty() {
        return Vec::new();
    }
    let lower: Vec<(String, &str)> = all.into_iter().map(|name| (name.to_lowercase(), name)).collect();
    let pick = |fits: &dyn Fn(&str) -> bool| -> Vec<String> {
        lower.iter().filter(|(name, _)| fits(name)).map(|(_, name)| (*name).to_owned()).take(MOST).collect()
    };
    // 6.12 does not begin with the version 6.1.
    let goes_on =
        |rest: &str| core.ends_with(|c: char| c.is_ascii_digit()) && rest.starts_with(|c: char| c.is_ascii_digit());
    let beginning = pick(&|name| name.strip_prefix(core).is_some_and(|rest| !goes_on(rest)));
    if !beginning.is_empty() {
        return beginning;
    }
    if let Some(version) = version(core) {
        return neighbours(&version, lower.iter().map(|(_, name)| *name));
    }
    if core.chars().count() >= CONTAINED {
        let containing = pick(&|name| name.contains(core));
        if !containing.is_empty() {
            return containing;
        }
    }
    let length = core.chars().count();
    let allowed = (length / LETTERS_PER_TYPO).max(usize::from(length >= CONTAINED));
    let mut close: Vec<(usize, &str)> = lower
        .iter()
        .map(|(name, shown)| (distance(core, name, word.contains(['*', '?'])), *shown))
        .filter(|(distance, _)| *distance <= allowed)
        .collect();
    close.sort();
    close.into_iter().take(MOST).map(|(_, name)| name.to_owned()).collect()
}

/// Number of letters that differ; of a pattern, only the part before its wildcard is compared.
fn distance(core: &str, name: &str, open: bool) -> usize {
    let beginning: String = name.chars().take(core.chars().count()).collect();
    let whole = strsim::osa_distance(core, name);
    if open { whole.min(strsim::osa_distance(core, &beginning)) } else { whole }
}

/// The numbers of a word that consists of numbers and dots.
fn version(word: &str) -> Option<Vec<u32>> {
    word.trim_end_matches('.').split('.').map(|part| part.parse().ok()).collect()
}

/// The next lower and the next higher version.
fn neighbours<'a>(wanted: &[u32], names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let versions: Vec<(Vec<u32>, &str)> = names.filter_map(|name| Some((version(name)?, name))).collect();
    let lower = versions.iter().filter(|(it, _)| &**it < wanted).min_by_key(|(it, _)| Reverse(it));
    let higher = versions.iter().filter(|(it, _)| &**it > wanted).min_by_key(|(it, _)| it);
    lower.into_iter().chain(higher).map(|(_, name)| (*name).to_owned()).collect()
}

/// Whether two names differ by one slip of the finger: a letter missing, added, exchanged or turned round. Another number is
/// another thing.
pub fn is_slip(word: &str, name: &str) -> bool {
    let shape = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
    strsim::osa_distance(word, name) == 1 && (shape(word) != shape(name))
}

/// Suffix of an error: `; did you mean …?`, `; nearest: …`, or a short list of all names if none is similar.
pub fn suggest(word: &str, known: &[&str]) -> String {
    match &*nearest(word, known.iter().copied()) {
        [] if known.is_empty() || known.len() > FEW => String::new(),
        [] => format!("; known: {}", known.join(", ")),
        // A version with other digits is not a typing error.
        [only] if version(word).is_none() || only.starts_with(word) => format!("; did you mean `{only}`?"),
        names => format!("; nearest: {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNELS: [&str; 8] = ["6.1", "6.12", "6.17", "6.18.5", "6.18.9", "6.18.12", "6.18.15", "6.1-generic"];
    const CASES: [&str; 4] = ["A02-tcx-link", "A02-tcx-link[tcx,veth]", "A10-no-such-device", "T08-service"];

    #[test]
    fn names_that_begin_with_the_word_come_first_in_their_order() {
        assert_eq!(nearest("6.18", KERNELS.into_iter()), ["6.18.5", "6.18.9", "6.18.12", "6.18.15"]);
        assert_eq!(nearest("a02-tcx-L*", CASES.into_iter()), ["A02-tcx-link", "A02-tcx-link[tcx,veth]"]);
    }

    #[test]
    fn a_version_is_not_treated_as_a_typing_error() {
        assert_eq!(nearest("6.1", ["6.12", "6.1-generic"].into_iter()), ["6.1-generic"]);
        assert_eq!(suggest("6.7", &["below-6.7", "6.7+"]), "; did you mean `6.7+`?");
        assert_eq!(nearest("6.13", KERNELS.into_iter()), ["6.12", "6.17"]);
        assert_eq!(nearest("5.4", KERNELS.into_iter()), ["6.1"]);
        assert_eq!(suggest("7.5", &KERNELS), "; nearest: 6.18.15");
    }

    #[test]
    fn a_typing_error_is_found_but_not_a_random_similarity() {
        assert_eq!(nearest("A02-tcx-lnik*", CASES.into_iter()), ["A02-tcx-link", "A02-tcx-link[tcx,veth]"]);
        assert_eq!(nearest("A02-tcx-lnk", CASES.into_iter()), ["A02-tcx-link"]);
        assert_eq!(nearest("tcx-link", CASES.into_iter()), ["A02-tcx-link", "A02-tcx-link[tcx,veth]"]);
        assert_eq!(nearest("nosuch*", CASES.into_iter()), [""; 0]);
        assert_eq!(nearest("*", CASES.into_iter()), [""; 0]);
        assert_eq!(suggest("defualt", &["default", "class"]), "; did you mean `default`?");
        assert_eq!(suggest("zz", &["default", "class"]), "; known: default, class");
        assert_eq!(suggest("zz", &[]), "");
    }
}
