//! Computes the probability of each point to be the culprit, given all runs.
//!
//! The model has two unknown rates: how often kernels on each side of the culprit fail. They are not estimated and then
//! treated as known. Instead both are integrated out under Beta distributions, which gives Beta functions of the counts
//! (the Beta-binomial model; Gelman et al., Bayesian Data Analysis, section 2.4). All runs of all points are used
//! together, so that a reliable failure needs few runs per step, and a rare failure many.

use super::graph::{Graph, PointSet};

/// Prior distribution of a failure rate, equivalent to `fails` failures and `passes` passes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Prior {
    fails: f64,
    passes: f64,
}

/// Kernels with the failure: they fail nearly always or nearly never (Jeffreys' prior).
const FAILING: Prior = Prior { fails: 0.5, passes: 0.5 };
/// Kernels without the failure: they rarely fail, since the suite passes on released kernels. The weight is that of
/// five runs.
const SOUND: Prior = Prior { fails: 0.5, passes: 4.5 };

/// Numbers of runs and failures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// Runs with the failure under investigation.
    pub fails: u32,
    /// Runs with a result.
    pub runs: u32,
}

impl Tally {
    /// Counts one run.
    pub const fn count(&mut self, failed: bool) {
        self.fails += failed as u32;
        self.runs += 1;
    }

    const fn and(self, other: Self) -> Self {
        Self { fails: self.fails + other.fails, runs: self.runs + other.runs }
    }

    /// The share of failures; 0 without runs.
    pub fn rate(self) -> f64 {
        if self.runs == 0 { 0.0 } else { f64::from(self.fails) / f64::from(self.runs) }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.fails, self.runs)
    }
}

fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

impl Prior {
    /// Logarithm of the probability of this sequence of runs.
    fn ln_evidence(self, seen: Tally) -> f64 {
        let (fails, passes) = (f64::from(seen.fails), f64::from(seen.runs - seen.fails));
        ln_beta(self.fails + fails, self.passes + passes) - ln_beta(self.fails, self.passes)
    }

    /// The expected rate after these runs.
    fn mean(self, seen: Tally) -> f64 {
        (self.fails + f64::from(seen.fails)) / (self.fails + self.passes + f64::from(seen.runs))
    }
}

/// The probability that two ends have different failure rates.
pub fn told_apart(sound: Tally, failing: Tally) -> f64 {
    if failing.rate() <= sound.rate() {
        return 0.0;
    }
    let differ = FAILING.ln_evidence(failing) + SOUND.ln_evidence(sound);
    let same = FAILING.ln_evidence(sound.and(failing));
    1.0 / (1.0 + (same - differ).exp())
}

/// All runs of one kernel image, with the points that have this image.
#[derive(Debug, Clone)]
pub struct ImageRuns<'a> {
    /// The changes that each of its points contains.
    pub contained: Vec<&'a PointSet>,
    pub tally: Tally,
}

/// Effect of the culprit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It introduced the failure: the new end fails.
    Break,
    /// It fixed the failure: the old end fails.
    Fix,
}

impl Effect {
    /// The priors of points with and without the culprit.
    const fn priors(self) -> (Prior, Prior) {
        match self {
            Self::Break => (FAILING, SOUND),
            Self::Fix => (SOUND, FAILING),
        }
    }
}

/// The probability of each point to be the culprit.
#[derive(Debug, Clone)]
pub struct Posterior {
    /// By point; the old end has 0.
    weights: Vec<f64>,
    /// Expected failure rates with and without the culprit.
    pub rates: (f64, f64),
}

impl Posterior {
    /// Computes the posterior from a uniform prior over all points.
    pub fn of(graph: &Graph, direction: Effect, seen: &[ImageRuns<'_>]) -> Self {
        let (prior_with, prior_without) = direction.priors();
        let count = graph.new_end() + 1;
        let mut ln = vec![f64::NEG_INFINITY; count];
        let mut tallies = vec![(Tally::default(), Tally::default()); count];
        let mut last = None;
        for point in 1..count {
            let Some((with, without)) = split(seen, point) else { continue };
            // Adjacent points usually split the runs in the same way.
            let known = last.filter(|(of, _)| *of == (with, without)).map(|(_, ln)| ln);
            ln[point] = known.unwrap_or_else(|| prior_with.ln_evidence(with) + prior_without.ln_evidence(without));
            tallies[point] = (with, without);
            last = Some(((with, without), ln[point]));
        }
        let top = ln.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut weights: Vec<f64> = ln.iter().map(|it| if it.is_finite() { (it - top).exp() } else { 0.0 }).collect();
        let sum: f64 = weights.iter().sum();
        if sum > 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        let mean = |rate: &dyn Fn(&(Tally, Tally)) -> f64| -> f64 {
            weights.iter().zip(&tallies).map(|(weight, tallies)| weight * rate(tallies)).sum()
        };
        let rates = (mean(&|(with, _)| prior_with.mean(*with)), mean(&|(_, without)| prior_without.mean(*without)));
        Self { weights, rates }
    }

    /// The probability that the point is the culprit.
    pub fn culprit(&self, point: usize) -> f64 {
        self.weights[point]
    }

    /// The probability that a point with these changes contains the culprit.
    pub fn has(&self, contained: &PointSet) -> f64 {
        (1..self.weights.len()).filter(|point| contained.has(*point)).map(|point| self.weights[point]).sum()
    }

    /// The smallest set of points with this total probability, most probable first, and its actual probability.
    pub fn suspects(&self, share: f64) -> (Vec<usize>, f64) {
        let mut order: Vec<usize> = (1..self.weights.len()).collect();
        // Points of equal probability are sorted, so that the result is deterministic.
        order.sort_by(|a, b| self.weights[*b].total_cmp(&self.weights[*a]).then(a.cmp(b)));
        let mut held = 0.0;
        let enough = order.iter().position(|point| {
            held += self.weights[*point];
            held >= share
        });
        order.truncate(enough.map_or(order.len(), |last| last + 1));
        (order, held)
    }

    /// The probability that the new end without the culprit's change behaves as the old end, computed from runs of it.
    /// The prior is one half; the alternative is another cause, with the culprit's failure rate or with its own.
    pub fn cured(&self, seen: Tally) -> f64 {
        let at = |rate: f64| -> f64 {
            let (fails, passes) = (f64::from(seen.fails), f64::from(seen.runs - seen.fails));
            (fails * rate.ln() + passes * (1.0 - rate).ln()).exp()
        };
        let (with, without) = self.rates;
        let cured = at(without);
        let contrary = at(with).max(FAILING.ln_evidence(seen).exp());
        cured / (cured + contrary)
    }

    /// Expected information of one run of a point about whether the point contains the culprit, in nats.
    pub fn information(&self, contained: &PointSet) -> f64 {
        let entropy = |p: f64| {
            let term = |p: f64| if p <= 0.0 { 0.0 } else { -p * p.ln() };
            term(p) + term(1.0 - p)
        };
        let has = self.has(contained).clamp(0.0, 1.0);
        let (with, without) = self.rates;
        entropy(has * with + (1.0 - has) * without) - has * entropy(with) - (1.0 - has) * entropy(without)
    }
}

/// Splits the runs by whether they contain the culprit, if it were this point; `None` if one image would be on both
/// sides.
fn split(seen: &[ImageRuns<'_>], culprit: usize) -> Option<(Tally, Tally)> {
    let (mut with, mut without) = (Tally::default(), Tally::default());
    for image in seen {
        let mut has = image.contained.iter().map(|set| set.has(culprit));
        let first = has.next()?;
        if has.any(|it| it != first) {
            return None;
        }
        let side = if first { &mut with } else { &mut without };
        *side = side.and(image.tally);
    }
    Some((with, without))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen<'a>(graph: &'a Graph, runs: &[(&[usize], u32, u32)]) -> Vec<ImageRuns<'a>> {
        let one = |(points, fails, runs): &(&[usize], u32, u32)| ImageRuns {
            contained: points.iter().map(|point| graph.contained(*point)).collect(),
            tally: Tally { fails: *fails, runs: *runs },
        };
        runs.iter().map(one).collect()
    }

    #[test]
    fn reliable_failures_identify_one_point() {
        let graph = Graph::line(4);
        let posterior = Posterior::of(
            &graph,
            Effect::Break,
            &seen(&graph, &[(&[0], 0, 5), (&[4], 5, 5), (&[2], 0, 3), (&[3], 3, 3)]),
        );
        assert!(posterior.culprit(3) > 0.98, "{posterior:?}");
        assert_eq!(posterior.suspects(0.95).0, [3]);
        assert!((1..=4).map(|point| posterior.culprit(point)).sum::<f64>() > 0.999_999);
    }

    #[test]
    fn an_untested_point_remains_a_suspect() {
        let graph = Graph::line(4);
        let posterior = Posterior::of(&graph, Effect::Break, &seen(&graph, &[(&[0, 1], 0, 9), (&[4], 9, 9)]));
        let (points, held) = posterior.suspects(0.95);
        assert_eq!(points, [2, 3, 4]);
        assert!(held > 0.99 && posterior.culprit(1) == 0.0, "the image of the old end passes: {posterior:?}");
    }

    #[test]
    fn passes_are_weak_evidence_for_a_rare_failure() {
        let graph = Graph::line(2);
        let rare = Posterior::of(&graph, Effect::Break, &seen(&graph, &[(&[0], 0, 20), (&[2], 6, 20), (&[1], 0, 2)]));
        assert!((0.5..0.75).contains(&rare.culprit(2)), "{rare:?}");
        let often = Posterior::of(&graph, Effect::Break, &seen(&graph, &[(&[0], 0, 20), (&[2], 6, 20), (&[1], 0, 25)]));
        assert!(often.culprit(2) > 0.98, "{often:?}");
        assert!(rare.information(graph.contained(1)) > often.information(graph.contained(1)));
    }

    #[test]
    fn a_revert_that_fixes_the_failure_is_distinguished_from_one_that_does_not() {
        let graph = Graph::line(2);
        let cured = |sound: (u32, u32), failing: (u32, u32), fails, runs| {
            let runs_of = [(&[0][..], sound.0, sound.1), (&[1, 2], failing.0, failing.1)];
            Posterior::of(&graph, Effect::Break, &seen(&graph, &runs_of)).cured(Tally { fails, runs })
        };
        assert!(cured((0, 9), (9, 9), 0, 3) > 0.5);
        assert!(cured((0, 9), (9, 9), 3, 3) < 0.01 && cured((0, 9), (9, 9), 1, 3) < 0.5);
        assert!(cured((6, 20), (20, 20), 1, 3) > 0.5, "kernels without the culprit sometimes fail");
        assert!(cured((0, 20), (6, 20), 3, 9) < 0.5, "a rare failure is as rare as before");
    }

    #[test]
    fn ends_are_distinguished_only_by_significant_differences() {
        let of = |fails, runs| Tally { fails, runs };
        assert!(told_apart(of(0, 3), of(3, 3)) > 0.95);
        assert!(told_apart(of(0, 3), of(1, 3)) < 0.8);
        assert_eq!(told_apart(of(3, 3), of(3, 3)), 0.0);
        assert!(told_apart(of(6, 20), of(7, 20)) < 0.5);
    }
}
