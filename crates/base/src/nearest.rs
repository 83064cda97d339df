//! Names that look like the one that somebody typed.

/// Names in a hint.
const MOST: usize = 3;
/// Likeness (Jaro-Winkler, from 0 to 1) from which on a name is worth showing.
const ALIKE: f64 = 0.6;
/// Likeness from which on a name is probably the one that was meant.
const MEANT: f64 = 0.8;

/// All names with how much they look like `wanted`, best first; each once.
fn ranked<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<(f64, &'a str)> {
    let mut scored: Vec<(f64, &str)> = names.map(|name| (strsim::jaro_winkler(wanted, name), name)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored
}

/// The three names that look most like `wanted`, best first; none where nothing looks like it.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let alike = ranked(wanted, names).into_iter().filter(|(score, _)| *score > ALIKE);
    alike.take(MOST).map(|(_, name)| name.to_owned()).collect()
}

/// `; did you mean …?`, or the whole list where nothing comes near; for the end of an error.
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
    fn the_best_comes_first_and_each_once() {
        let names = ["6.12", "6.1", "6.1", "7.2"];
        assert_eq!(nearest("6.13", names.into_iter()), ["6.1", "6.12"]);
        assert_eq!(suggest("6.13", &names), "; did you mean `6.1`?");
        assert_eq!(suggest("zz", &names[..2]), "; known: 6.12, 6.1");
        assert_eq!(suggest("zz", &[]), "");
    }
}
