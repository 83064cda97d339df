//! Bisects a ladder of published kernels, without compiling.

use super::{posterior::Effect, trial::SearchStop};
use lab_protocol::KernelVersion;

/// A kernel of the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    pub id: String,
    /// Its version, which determines its position.
    pub version: KernelVersion,
}

/// The kernels between two ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// Sorted by version, both ends included.
    pub rungs: Vec<Rung>,
    /// Whether a break or a fix is searched.
    pub direction: Effect,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// Creates the ladder between two kernels. Of several kernels of one version only the first is used.
///
/// # Errors
/// [`SearchStop::Question`]: the ends are the same kernel, have the same version, or are unknown.
pub fn ladder(kernels: &[Rung], good: &str, bad: &str) -> Result<Ladder, SearchStop> {
    let find = |id: &str| kernels.iter().find(|rung| rung.id == id).cloned();
    let end = |id: &str| {
        find(id).ok_or_else(|| SearchStop::Question(format!("no kernel `{id}`; `lab kernels list` names them")))
    };
    let (good, bad) = (end(good)?, end(bad)?);
    if good.id == bad.id {
        return Err(SearchStop::Question(format!("--good and --bad are both {}", good.id)));
    }
    if good.version == bad.version {
        let why = format!("{} and {} are both version {}: no version is between them", good.id, bad.id, good.version);
        return Err(SearchStop::Question(why));
    }
    let direction = if good.version < bad.version { Effect::Break } else { Effect::Fix };
    let (old, new) = if direction == Effect::Break { (good, bad) } else { (bad, good) };
    let mut between: Vec<Rung> =
        kernels.iter().filter(|rung| old.version < rung.version && rung.version < new.version).cloned().collect();
    between.sort_by_key(|rung| rung.version);
    let mut notes = Vec::new();
    between.dedup_by(|later, first| {
        let same = later.version == first.version;
        if same {
            notes.push(format!("{} is left out: it has the same version {} as {}", later.id, later.version, first.id));
        }
        same
    });
    let rungs: Vec<Rung> = [old].into_iter().chain(between).chain([new]).collect();
    let mut series: Vec<String> =
        rungs.iter().map(|rung| KernelVersion::new(rung.version.major, rung.version.minor, 0).to_string()).collect();
    series.dedup();
    if series.len() > 2 {
        notes.push(format!(
            "the ladder contains the series {}: a backported change is at a different point in each; use --kernels \
             to select one of them",
            series.join(", ")
        ));
    }
    Ok(Ladder { rungs, direction, notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels() -> Vec<Rung> {
        let rung = |(id, version): (&str, &str)| Rung { id: id.to_owned(), version: version.parse().unwrap() };
        [
            ("6.12", "6.12.117"),
            ("6.12.9", "6.12.9"),
            ("6.12.43", "6.12.43"),
            ("g", "6.12.43"),
            ("7.2", "7.2"),
            ("6.18", "6.18"),
        ]
        .map(rung)
        .to_vec()
    }

    #[test]
    fn rungs_are_sorted_by_version_in_both_directions() {
        let ids = |good, bad| {
            let ladder = ladder(&kernels(), good, bad).unwrap();
            (ladder.rungs.into_iter().map(|rung| rung.id).collect::<Vec<_>>(), ladder.direction, ladder.notes)
        };
        let left_out = vec!["g is left out: it has the same version 6.12.43 as 6.12.43".to_owned()];
        let rungs = vec!["6.12.9".to_owned(), "6.12.43".to_owned(), "6.12".to_owned()];
        assert_eq!(ids("6.12.9", "6.12"), (rungs.clone(), Effect::Break, left_out.clone()));
        assert_eq!(ids("6.12", "6.12.9"), (rungs, Effect::Fix, left_out));
        assert!(ids("6.12", "7.2").2[0].starts_with("the ladder contains the series 6.12, 6.18, 7.2: "));
    }

    #[test]
    fn ends_without_a_version_between_them_are_refused() {
        let refused = |good, bad| ladder(&kernels(), good, bad).unwrap_err().to_string();
        assert_eq!(refused("6.12", "6.12"), "--good and --bad are both 6.12");
        assert_eq!(refused("g", "6.12.43"), "g and 6.12.43 are both version 6.12.43: no version is between them");
        assert_eq!(refused("6.13", "6.12"), "no kernel `6.13`; `lab kernels list` names them");
    }
}
