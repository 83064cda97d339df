//! Finds known names that are similar to a mistyped one.

/// Maximum number of names in a hint.
const MOST: usize = 3;
/// Minimum similarity (Jaro-Winkler, 0 to 1) of a name in a hint.
const ALIKE: f64 = 0.6;
/// Minimum similarity for `did you mean`.
const MEANT: f64 = 0.8;

/// All distinct names with their similarity to `wanted`, most similar first.
fn ranked<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<(f64, &'a str)> {
    let mut scored: Vec<(f64, &str)> = names.map(|name| (strsim::jaro_winkler(wanted, name), name)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored
}

/// Up to three names similar to `wanted`, most similar first.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let alike = ranked(wanted, names).into_iter().filter(|(score, _)| *score > ALIKE);
    alike.take(MOST).map(|(_, name)| name.to_owned()).collect()
}

/// Suffix for an error message: `; did you mean …?`, or the list of all known names if no name is similar enough.
pub fn suggest(word: &str, known: &[&str]) -> String {
    match ranked(word, known.iter().copied()).first() {
        Some((score, name)) if *score > MEANT => format!("; did you mean `{name}`?"),
        Some(_) => format!("; known: {}", known.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_by_similarity_without_duplicates() {
        let names = ["6.12", "6.1", "6.1", "7.2"];
        assert_eq!(nearest("6.13", names.into_iter()), ["6.1", "6.12"]);
        assert_eq!(suggest("6.13", &names), "; did you mean `6.1`?");
        assert_eq!(suggest("zz", &names[..2]), "; known: 6.12, 6.1");
        assert_eq!(suggest("zz", &[]), "");
    }
}
