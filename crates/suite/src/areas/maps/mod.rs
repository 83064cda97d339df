//! Maps: what a datapath stores in the kernel is found, listed and replaced, and what it removes is gone.

mod devices;
mod handles;
mod prefixes;
mod streams;
mod tables;

use lab_harness::case::Area;

pub static AREA: Area =
    Area::new("maps", &[prefixes::CASES, streams::CASES, tables::CASES, devices::CASES, handles::CASES]);

/// What differs between two lists that are to have the same entries in any order; the first few, for a report.
fn differences<T: Ord + Clone + std::fmt::Debug>(seen: &[T], wanted: &[T]) -> Vec<String> {
    const SHOWN: usize = 5;
    let sorted = |list: &[T]| {
        let mut sorted = list.to_vec();
        sorted.sort();
        sorted
    };
    let (seen, wanted) = (sorted(seen), sorted(wanted));
    let twice = seen.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| format!("{:?} twice", pair[0]));
    let missing = wanted.iter().filter(|it| seen.binary_search(it).is_err()).map(|it| format!("{it:?} is missing"));
    let surplus = seen.iter().filter(|it| wanted.binary_search(it).is_err()).map(|it| format!("{it:?} is too many"));
    missing.chain(surplus).chain(twice).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::differences;

    #[test]
    fn lists_are_compared_in_any_order_and_with_their_repetitions() {
        assert!(differences(&[3, 1, 2], &[1, 2, 3]).is_empty());
        assert_eq!(differences(&[1, 3], &[1, 2]), ["2 is missing", "3 is too many"]);
        assert_eq!(differences(&[1, 2, 1], &[1, 2]), ["1 twice"]);
    }
}
