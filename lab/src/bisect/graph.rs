//! What can be blamed: points in an order in which every point comes after those it contains.

use std::cell::OnceCell;

/// The old end; never blamed.
pub const OLD_END: usize = 0;

/// A history between two ends. Point 0 is the old end, the last one the new end; every point but the old end brought a
/// change.
#[derive(Debug, Clone)]
pub struct Graph {
    /// The points that each one was made from, all of them earlier.
    parents: Vec<Vec<usize>>,
    /// Worked out where it is asked for: of a long history only a few points ever are.
    contained: Vec<OnceCell<Set>>,
}

impl Graph {
    /// One point after the other: a ladder of published kernels with `rungs` rungs above the old end.
    pub fn line(rungs: usize) -> Self {
        Self::new((0..rungs).map(|below| vec![below]).collect())
    }

    /// A history with branches. `parents[i]` are those of point `i + 1`; one that is not among the points is older than
    /// the old end and left out.
    ///
    /// # Panics
    /// A parent does not come before its child.
    pub fn new(parents: Vec<Vec<usize>>) -> Self {
        let ordered = parents.iter().enumerate().all(|(at, of)| of.iter().all(|parent| *parent <= at));
        assert!(ordered, "points must come after their parents");
        let parents: Vec<Vec<usize>> = std::iter::once(Vec::new()).chain(parents).collect();
        Self { contained: vec![OnceCell::new(); parents.len()], parents }
    }

    /// The new end, which is also how many points can be blamed.
    pub fn new_end(&self) -> usize {
        self.parents.len() - 1
    }

    /// The points that a point was made from.
    pub fn parents(&self, point: usize) -> &[usize] {
        &self.parents[point]
    }

    /// The changes that a point has, its own included.
    pub fn contained(&self, point: usize) -> &Set {
        self.contained[point].get_or_init(|| self.walk(point))
    }

    fn walk(&self, point: usize) -> Set {
        let mut set = Set(vec![false; self.parents.len()]);
        let mut open = vec![point];
        while let Some(point) = open.pop() {
            if point != OLD_END && !std::mem::replace(&mut set.0[point], true) {
                open.extend(&self.parents[point]);
            }
        }
        set
    }
}

/// Points, as flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set(Vec<bool>);

impl Set {
    /// Whether a point is among them.
    pub fn has(&self, point: usize) -> bool {
        self.0[point]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_contains_both_of_its_sides() {
        // 1 - 2 - 4 (merge of 2 and 3), 3 beside 2
        let graph = Graph::new(vec![vec![0], vec![1], vec![1], vec![2, 3]]);
        let of = |point| (1..=4).filter(|it| graph.contained(point).has(*it)).collect::<Vec<_>>();
        assert_eq!((of(0), of(2), of(3), of(4)), (vec![], vec![1, 2], vec![1, 3], vec![1, 2, 3, 4]));
        assert_eq!(Graph::line(3).contained(2), Graph::new(vec![vec![0], vec![1], vec![2]]).contained(2));
    }
}
