//! Stage one: a ladder of kernels that somebody has published, so that nothing is compiled.

use super::{posterior::Direction, trial::Stop};
use lab_protocol::KernelVersion;

/// A kernel of the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// Its name in `kernels.toml`.
    pub id: String,
    /// Its version, which is its place.
    pub version: KernelVersion,
}

/// The kernels from one end to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    /// In the order of their versions, ends included.
    pub rungs: Vec<Rung>,
    /// What is looked for.
    pub direction: Direction,
    /// What a person should know of it.
    pub notes: Vec<String>,
}

/// Lays out the kernels between two ends. Of kernels of one version the first stands for all: nothing lies between them.
///
/// # Errors
/// [`Stop::Question`]: the ends are the same kernel, or of one version, or not known.
pub fn ladder(kernels: &[Rung], good: &str, bad: &str) -> Result<Ladder, Stop> {
    let find = |id: &str| kernels.iter().find(|rung| rung.id == id).cloned();
    let end =
        |id: &str| find(id).ok_or_else(|| Stop::Question(format!("no kernel `{id}`; `lab kernels list` names them")));
    let (good, bad) = (end(good)?, end(bad)?);
    if good.id == bad.id {
        return Err(Stop::Question(format!("--good and --bad are both {}: nothing lies between them", good.id)));
    }
    if good.version == bad.version {
        let why = format!(
            "{} and {} are both version {}: no path of versions leads from one to the other",
            good.id, bad.id, good.version
        );
        return Err(Stop::Question(why));
    }
    let direction = if good.version < bad.version { Direction::Break } else { Direction::Fix };
    let (old, new) = if direction == Direction::Break { (good, bad) } else { (bad, good) };
    let mut between: Vec<Rung> =
        kernels.iter().filter(|rung| old.version < rung.version && rung.version < new.version).cloned().collect();
    between.sort_by_key(|rung| rung.version);
    let mut notes = Vec::new();
    between.dedup_by(|later, first| {
        let same = later.version == first.version;
        if same {
            notes.push(format!("{} is left out: it is version {} as {} is", later.id, later.version, first.id));
        }
        same
    });
    let rungs: Vec<Rung> = [old].into_iter().chain(between).chain([new]).collect();
    let mut series: Vec<String> =
        rungs.iter().map(|rung| KernelVersion::new(rung.version.major, rung.version.minor, 0).to_string()).collect();
    series.dedup();
    if series.len() > 2 {
        notes.push(format!(
            "the ladder goes through the series {}: a change that was backported came into each at another point; --kernels \
             keeps to one of them",
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
    fn rungs_are_in_the_order_of_their_versions_either_way_round() {
        let ids = |good, bad| {
            let ladder = ladder(&kernels(), good, bad).unwrap();
            (ladder.rungs.into_iter().map(|rung| rung.id).collect::<Vec<_>>(), ladder.direction, ladder.notes)
        };
        let left_out = vec!["g is left out: it is version 6.12.43 as 6.12.43 is".to_owned()];
        let rungs = vec!["6.12.9".to_owned(), "6.12.43".to_owned(), "6.12".to_owned()];
        assert_eq!(ids("6.12.9", "6.12"), (rungs.clone(), Direction::Break, left_out.clone()));
        assert_eq!(ids("6.12", "6.12.9"), (rungs, Direction::Fix, left_out));
        assert!(ids("6.12", "7.2").2[0].starts_with("the ladder goes through the series 6.12, 6.18, 7.2: "));
    }

    #[test]
    fn ends_without_a_path_between_them_are_refused() {
        let refused = |good, bad| ladder(&kernels(), good, bad).unwrap_err().to_string();
        assert_eq!(refused("6.12", "6.12"), "--good and --bad are both 6.12: nothing lies between them");
        assert_eq!(
            refused("g", "6.12.43"),
            "g and 6.12.43 are both version 6.12.43: no path of versions leads from one to the other"
        );
        assert_eq!(refused("6.13", "6.12"), "no kernel `6.13`; `lab kernels list` names them");
    }
}
