//! The search: tests the ends, then bisects (or tests the points with most information), then verifies the result.
//!
//! Marks during the search only select the next point. The final claim is computed by [`Posterior`] from all runs, so a
//! wrong mark costs runs but does not change the result: the point that could refute the claim is tested until it no
//! longer can.

use super::{
    graph::{Graph, OLD_END},
    posterior::{Effect, ImageRuns, Posterior, Tally, told_apart},
    trial::{Answer, Mark, NoKernel, SearchStop, Subject, Trial, Walk},
};
use serde::{Deserialize, Serialize};

/// Number of runs of each end between two checks whether the ends differ.
const ROUND: u32 = 3;
/// Number of rounds after which ends with equal rates are considered equal.
const ENOUGH_ROUNDS: u32 = 3;
/// Maximum number of runs of a point without a result.
const MAX_UNTESTABLE: u32 = 3;
/// Maximum number of claims that verification may refute.
const MAX_CLAIMS: u32 = 4;
/// Minimum number of additional runs of a culprit and its parents.
const PROOF: u32 = 3;
/// Minimum information of a run, in nats.
const WORTH: f64 = 1e-4;
/// Maximum number of points that are considered for the next run; in a longer history, evenly spaced ones.
const WEIGHED: usize = 1000;

/// Parameters of a search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Wish {
    /// Whether a break or a fix is searched.
    pub direction: Effect,
    /// Required probability of the result, below 1.
    pub confidence: f64,
    /// Test the point with most information instead of bisecting.
    pub bayes: bool,
    /// Maximum number of runs of a point.
    pub max_runs: u32,
}

/// Results of one point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchStep {
    pub point: usize,
    /// Its kernel's image; `None` if there is none.
    pub image: Option<String>,
    /// An earlier point with the same image, whose runs count for both.
    pub same_as: Option<usize>,
    /// Runs of its image.
    pub tally: Tally,
    /// Final mark.
    pub mark: Mark,
    /// Why it is skipped, or its last failure.
    pub note: Option<String>,
}

/// Result of the new end with the culprit's change reverted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "revert", rename_all = "kebab-case")]
pub enum Revert {
    /// The change can't be reverted, or the result can't be tested.
    Impossible { reason: String },
    /// The reverted kernel was tested; `cured` says whether it behaves as the old end.
    Tested { tally: Tally, cured: bool },
}

/// Result of a search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchFinding {
    /// Possible culprits, most probable first. One if the search succeeded.
    pub suspects: Vec<usize>,
    /// The probability that one of them is the culprit.
    pub confidence: f64,
    /// Whether there is a single suspect with the required confidence.
    pub sure: bool,
    /// Expected failure rates with and without the culprit.
    pub rates: (f64, f64),
    /// All tested points in the order of testing.
    pub steps: Vec<SearchStep>,
    /// Result without the culprit's change; `None` if there is no single culprit.
    pub revert: Option<Revert>,
}

/// Number of runs in which a failure of this rate occurs with probability `1 - risk`.
pub fn repeats(rate: f64, risk: f64) -> u32 {
    let rate = rate.clamp(0.01, 0.999);
    // At most ln(1e-6) / ln(0.99), which fits.
    (risk.clamp(1e-6, 0.5).ln() / (1.0 - rate).ln()).ceil() as u32
}

/// Runs a search. `tell` receives every decided point.
///
/// # Errors
/// [`SearchStop::Question`] if the ends can't be distinguished; otherwise errors of bench and walk.
pub fn search(
    graph: &Graph,
    walk: &mut dyn Walk,
    bench: &mut dyn Trial,
    wish: Wish,
    tell: &mut dyn FnMut(&SearchStep),
) -> Result<SearchFinding, SearchStop> {
    let mut search = Search { graph, bench, wish, images: Vec::new(), steps: Vec::new(), tell };
    search.ends()?;
    if !wish.bayes {
        search.halves(walk)?;
    }
    let mut claims = 0;
    loop {
        search.sharpen()?;
        claims += 1;
        let (suspects, mut confidence) = search.posterior().suspects(wish.confidence);
        let mut sure = suspects.len() == 1 && confidence >= wish.confidence;
        if let (true, [culprit]) = (sure && claims <= MAX_CLAIMS, &*suspects)
            && !search.prove(*culprit)?
        {
            continue;
        }
        let revert = if sure { Some(search.without(suspects[0])?) } else { None };
        if let Some(Revert::Tested { cured: false, tally }) = &revert {
            confidence = confidence.min(search.posterior().cured(*tally));
            sure = false;
        }
        let steps = search.marked();
        walk.settle(&steps.iter().map(|step| (step.point, step.mark)).collect::<Vec<_>>())?;
        let rates = search.posterior().rates;
        return Ok(SearchFinding { suspects, confidence, sure, rates, steps, revert });
    }
}

/// An image, which several points may have.
struct Image {
    name: String,
    points: Vec<usize>,
    tally: Tally,
    untestable: u32,
    /// Why it gives no results.
    broken: Option<String>,
    symptom: Option<String>,
}

struct Search<'a> {
    graph: &'a Graph,
    bench: &'a mut dyn Trial,
    wish: Wish,
    images: Vec<Image>,
    /// Points in the order in which they were first prepared, each with its image, or the reason why it has none.
    steps: Vec<(usize, Result<usize, NoKernel>)>,
    tell: &'a mut dyn FnMut(&SearchStep),
}

impl Search<'_> {
    /// Tests both ends until they are known to differ. The failing end comes first, to learn the signature of the
    /// failure.
    fn ends(&mut self) -> Result<(), SearchStop> {
        let new_end = self.graph.new_end();
        let ends = match self.wish.direction {
            Effect::Break => [(new_end, "bad"), (OLD_END, "good")],
            Effect::Fix => [(OLD_END, "bad"), (new_end, "good")],
        };
        let cannot = |name: &str, why: &dyn std::fmt::Display| {
            SearchStop::Question(format!("the {name} end can't be tested: {why}"))
        };
        let mut images = Vec::new();
        for (point, name) in ends {
            images.push(self.open(point)?.map_err(|why| cannot(name, &why))?);
        }
        if images[0] == images[1] {
            return Err(SearchStop::Question("both ends are the same kernel image".to_owned()));
        }
        for round in 1.. {
            for ((point, name), image) in ends.into_iter().zip(&images) {
                for _ in 0..ROUND {
                    self.run(point)?;
                }
                if let Some(why) = &self.images[*image].broken {
                    return Err(cannot(name, why));
                }
            }
            let (failing, sound) = (self.images[images[0]].tally, self.images[images[1]].tally);
            if told_apart(sound, failing) >= self.wish.confidence {
                break;
            }
            if told_apart(failing, sound) >= self.wish.confidence {
                return Err(SearchStop::Question(format!(
                    "the ends are swapped: the failure occurred in {sound} runs at the good end and in {failing} at the \
                     bad one; swap --good and --bad"
                )));
            }
            let alike = sound.fails > 0 && failing.rate() <= sound.rate() && round >= ENOUGH_ROUNDS;
            if alike || failing.runs >= self.wish.max_runs {
                let both = match (sound.fails, failing.fails) {
                    (0, 0) => "the case passes on both ends".to_owned(),
                    _ if alike => "the case fails on both ends".to_owned(),
                    _ => format!("the ends can't be distinguished with confidence {}", self.wish.confidence),
                };
                return Err(SearchStop::Question(format!(
                    "{both}: the failure occurred in {sound} runs at the good end and in {failing} at the bad end"
                )));
            }
        }
        [OLD_END, new_end].into_iter().for_each(|point| self.told(point));
        Ok(())
    }

    /// Bisects the history until no point is left.
    fn halves(&mut self, walk: &mut dyn Walk) -> Result<(), SearchStop> {
        // Each step may be wrong with this probability; the remaining risk is for verification.
        let steps = f64::from(usize::BITS - self.graph.new_end().leading_zeros() + 1);
        let risk = (1.0 - self.wish.confidence) / steps;
        while let Some(point) = walk.next()? {
            let mark = self.decide(point, risk)?;
            self.told(point);
            walk.mark(point, mark)?;
        }
        Ok(())
    }

    /// Runs a point until it is known, with this risk, whether it contains the culprit.
    fn decide(&mut self, point: usize, risk: f64) -> Result<Mark, SearchStop> {
        let Ok(image) = self.open(point)? else { return Ok(Mark::Skip) };
        let graph = self.graph;
        loop {
            let (tally, broken) = (self.images[image].tally, self.images[image].broken.is_some());
            if tally.runs > 0 {
                match self.posterior().has(graph.contained(point)) {
                    has if has >= 1.0 - risk => return Ok(Mark::New),
                    has if has <= risk => return Ok(Mark::Old),
                    _ => {}
                }
            }
            if broken || tally.runs >= self.wish.max_runs {
                return Ok(Mark::Skip);
            }
            self.run(point)?;
        }
    }

    /// Runs the points with most information until one suspect has the required confidence, or no run gives
    /// information.
    fn sharpen(&mut self) -> Result<(), SearchStop> {
        let mut current = None;
        loop {
            let posterior = self.posterior();
            if posterior.suspects(self.wish.confidence).0.len() == 1 {
                return Ok(());
            }
            let Some((best, worth)) = self.most_telling(&posterior) else { return Ok(()) };
            // Alternating between two points would cost a build and a boot each time.
            let stay = current.filter(|point| self.worth(&posterior, *point) >= worth / 2.0);
            let next = stay.unwrap_or(best);
            if let Some(left) = current.replace(next).filter(|left| *left != next) {
                self.told(left);
            }
            if self.open(next)?.is_ok() {
                self.run(next)?;
            } else {
                self.told(next);
            }
        }
    }

    fn most_telling(&self, posterior: &Posterior) -> Option<(usize, f64)> {
        let stride = self.graph.new_end() / WEIGHED + 1;
        let tested = self.steps.iter().map(|(point, _)| *point);
        let near = posterior.suspects(self.wish.confidence).0.into_iter().take(WEIGHED);
        let near = near.flat_map(|point| self.graph.parents(point).iter().copied().chain([point]));
        let points = tested.chain(near).chain((1..=self.graph.new_end()).step_by(stride));
        let worth = points.map(|point| (point, self.worth(posterior, point))).filter(|(_, worth)| *worth > WORTH);
        worth.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The information of another run of a point; 0 if it has had its maximum number of runs or can't be tested.
    fn worth(&self, posterior: &Posterior, point: usize) -> f64 {
        match self.known(point) {
            Some(Err(_)) => 0.0,
            Some(Ok(image)) if self.spent(*image) => 0.0,
            _ => posterior.information(self.graph.contained(point)),
        }
    }

    /// Verifies that the culprit is new and its parents old, in additional runs. Returns false if this refuted the
    /// claim.
    fn prove(&mut self, culprit: usize) -> Result<bool, SearchStop> {
        let runs = self.repeats();
        let parents = self.graph.parents(culprit).to_owned();
        for point in parents.into_iter().chain([culprit]) {
            if let Ok(image) = self.open(point)? {
                for _ in 0..runs {
                    if self.images[image].broken.is_none() {
                        self.run(point)?;
                    }
                }
            }
            self.told(point);
        }
        let (suspects, _) = self.posterior().suspects(self.wish.confidence);
        Ok(suspects == [culprit])
    }

    /// Tests the new end without the culprit's change, as often as the failure needs to occur.
    fn without(&mut self, culprit: usize) -> Result<Revert, SearchStop> {
        let subject = Subject::Without(culprit);
        if let Err(reason) = self.bench.prepare(subject)? {
            return Ok(Revert::Impossible { reason: reason.to_string() });
        }
        let (mut tally, posterior, least) = (Tally::default(), self.posterior(), self.repeats());
        let mut cured = 1.0;
        // If kernels without the culprit sometimes fail, a few runs can look as if the failure remained: run more.
        let decided = (1.0 - self.wish.confidence) / 100.0;
        while tally.runs < least || (decided..0.5).contains(&cured) && tally.runs < self.wish.max_runs {
            match self.bench.run(subject)? {
                Answer::Fails { .. } => tally.count(true),
                Answer::Passes => tally.count(false),
                Answer::Untestable { reason } => return Ok(Revert::Impossible { reason }),
            }
            cured = posterior.cured(tally);
        }
        Ok(Revert::Tested { tally, cured: cured >= 0.5 })
    }

    /// Number of runs in which the failure would have occurred.
    fn repeats(&self) -> u32 {
        let (with, without) = self.posterior().rates;
        let rate = match self.wish.direction {
            Effect::Break => with,
            Effect::Fix => without,
        };
        repeats(rate, 1.0 - self.wish.confidence).max(PROOF)
    }

    /// The index of a point's image, or the reason why it has none.
    fn open(&mut self, point: usize) -> Result<Result<usize, NoKernel>, SearchStop> {
        if let Some(known) = self.known(point) {
            return Ok(known.clone());
        }
        let opened = self.bench.prepare(Subject::Point(point))?.map(|name| {
            let known = self.images.iter().position(|image| image.name == name);
            let place = known.unwrap_or_else(|| {
                let tally = Tally::default();
                let points = Vec::new();
                self.images.push(Image { name, points, tally, untestable: 0, broken: None, symptom: None });
                self.images.len() - 1
            });
            self.images[place].points.push(point);
            place
        });
        self.steps.push((point, opened.clone()));
        Ok(opened)
    }

    fn known(&self, point: usize) -> Option<&Result<usize, NoKernel>> {
        self.steps.iter().find(|(it, _)| *it == point).map(|(_, image)| image)
    }

    fn spent(&self, image: usize) -> bool {
        self.images[image].broken.is_some() || self.images[image].tally.runs >= self.wish.max_runs
    }

    /// One run of a point that has an image.
    fn run(&mut self, point: usize) -> Result<(), SearchStop> {
        let answer = self.bench.run(Subject::Point(point))?;
        let Some(Ok(place)) = self.known(point).cloned() else { return Ok(()) };
        let image = &mut self.images[place];
        match answer {
            Answer::Fails { symptom } => {
                image.tally.count(true);
                image.symptom = Some(symptom);
            }
            Answer::Passes => image.tally.count(false),
            Answer::Untestable { reason } => {
                image.untestable += 1;
                // A point that sometimes gives a result is tested further; one that never does is not.
                if image.untestable >= MAX_UNTESTABLE + image.tally.runs {
                    image.broken = Some(reason);
                }
            }
        }
        Ok(())
    }

    fn posterior(&self) -> Posterior {
        let seen = self.images.iter().map(|image| ImageRuns {
            contained: image.points.iter().map(|point| self.graph.contained(*point)).collect(),
            tally: image.tally,
        });
        Posterior::of(self.graph, self.wish.direction, &seen.collect::<Vec<_>>())
    }

    fn step(&self, point: usize, image: &Result<usize, NoKernel>, posterior: &Posterior) -> SearchStep {
        let skipped = |note: Option<String>, image: Option<String>| SearchStep {
            point,
            image,
            same_as: None,
            tally: Tally::default(),
            mark: Mark::Skip,
            note,
        };
        let image = match image {
            Err(why) => return skipped(Some(why.to_string()), None),
            Ok(place) => &self.images[*place],
        };
        if image.tally.runs == 0 {
            return skipped(image.broken.clone(), Some(image.name.clone()));
        }
        let mark = if posterior.has(self.graph.contained(point)) > 0.5 { Mark::New } else { Mark::Old };
        SearchStep {
            point,
            image: Some(image.name.clone()),
            same_as: image.points.first().copied().filter(|first| *first != point),
            tally: image.tally,
            mark,
            note: image.symptom.clone(),
        }
    }

    fn told(&mut self, point: usize) {
        if let Some(image) = self.known(point).cloned() {
            let step = self.step(point, &image, &self.posterior());
            (self.tell)(&step);
        }
    }

    fn marked(&self) -> Vec<SearchStep> {
        let posterior = self.posterior();
        self.steps.iter().map(|(point, image)| self.step(*point, image, &posterior)).collect()
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
