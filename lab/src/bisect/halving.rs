//! Binary search without git, for a ladder of published kernels.

use super::{
    graph::{Graph, OLD_END},
    trial::{Mark, SearchStop, Walk},
};

/// Selects the point that splits the remaining points most evenly, as `git bisect` does.
pub struct Halving<'a> {
    graph: &'a Graph,
    marks: Vec<Option<Mark>>,
}

impl<'a> Halving<'a> {
    /// Starts a search; the state of both ends is known.
    pub fn new(graph: &'a Graph) -> Self {
        let mut marks = vec![None; graph.new_end() + 1];
        marks[OLD_END] = Some(Mark::Old);
        marks[graph.new_end()] = Some(Mark::New);
        Self { graph, marks }
    }

    /// Points that may be the culprit according to the marks.
    fn left(&self) -> Vec<usize> {
        let mut left: Vec<usize> = (1..=self.graph.new_end()).collect();
        for (point, mark) in self.marks.iter().enumerate() {
            match mark {
                Some(Mark::New) => {
                    let contained = self.graph.contained(point);
                    left.retain(|it| contained.has(*it));
                }
                Some(Mark::Old) => {
                    let contained = self.graph.contained(point);
                    left.retain(|it| !contained.has(*it));
                }
                Some(Mark::Skip) | None => {}
            }
        }
        left
    }
}

impl Walk for Halving<'_> {
    fn next(&mut self) -> Result<Option<usize>, SearchStop> {
        let left = self.left();
        let unevenness = |point: usize| {
            let contained = self.graph.contained(point);
            let below = left.iter().filter(|it| contained.has(**it)).count();
            (2 * below).abs_diff(left.len())
        };
        let open = left.iter().copied().filter(|point| self.marks[*point].is_none());
        Ok(open.min_by_key(|point| unevenness(*point)))
    }

    fn mark(&mut self, point: usize, mark: Mark) -> Result<(), SearchStop> {
        self.marks[point] = Some(mark);
        Ok(())
    }

    fn settle(&mut self, _marks: &[(usize, Mark)]) -> Result<(), SearchStop> {
        Ok(())
    }
}
