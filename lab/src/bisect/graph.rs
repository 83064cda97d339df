//! The history of a search: points in topological order.

use std::cell::OnceCell;

/// The old end, which is never the culprit.
pub const OLD_END: usize = 0;

/// A history between two ends. Point 0 is the old end and the last point the new end; every point except the old end adds
/// one change.
#[derive(Debug, Clone)]
pub struct Graph {
    /// The parents of each point; parents have lower numbers.
    parents: Vec<Vec<usize>>,
    /// Computed on demand: in a long history only a few points are needed.
    contained: Vec<OnceCell<PointSet>>,
}

impl Graph {
    /// A linear history: published kernels with `rungs` rungs above the old end.
    pub fn line(rungs: usize) -> Self {
        Self::new((0..rungs).map(|below| vec![below]).collect())
    }

    /// A history with branches. `parents[i]` are the parents of point `i + 1`; parents outside of the history are older
    /// than the old end and left out.
    ///
    /// # Panics
    /// A parent does not come before its child.
    pub fn new(parents: Vec<Vec<usize>>) -> Self {
        let ordered = parents.iter().enumerate().all(|(at, of)| of.iter().all(|parent| *parent <= at));
        assert!(ordered, "points must come after their parents");
        let parents: Vec<Vec<usize>> = std::iter::once(Vec::new()).chain(parents).collect();
        Self { contained: vec![OnceCell::new(); parents.len()], parents }
    }

    /// The new end, which is also the number of possible culprits.
    pub fn new_end(&self) -> usize {
        self.parents.len() - 1
    }

    /// The parents of a point.
    pub fn parents(&self, point: usize) -> &[usize] {
        &self.parents[point]
    }

    /// The changes that a point contains, including its own.
    pub fn contained(&self, point: usize) -> &PointSet {
        self.contained[point].get_or_init(|| self.walk(point))
    }

    fn walk(&self, point: usize) -> PointSet {
        let mut set = PointSet(vec![false; self.parents.len()]);
        let mut open = vec![point];
        while let Some(point) = open.pop() {
            if point != OLD_END && !std::mem::replace(&mut set.0[point], true) {
                open.extend(&self.parents[point]);
            }
        }
        set
    }
}

/// A set of points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointSet(Vec<bool>);

impl PointSet {
    /// Whether the set contains a point.
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
