use super::*;
use crate::bisect::{
    halving::Halving,
    state::{Learning, Lesson, Remembering, SearchState},
};
use std::collections::BTreeMap;

/// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn chance(&mut self, rate: f64) -> bool {
        ((self.next() >> 11) as f64 / (1u64 << 53) as f64) < rate
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// A simulated bench with a known culprit.
struct Fake<'a> {
    graph: &'a Graph,
    culprit: usize,
    /// Failure rates with and without the culprit.
    rates: (f64, f64),
    dice: Dice,
    /// Points without an image.
    broken: Vec<usize>,
    /// Points with the image of another point.
    same: BTreeMap<usize, usize>,
    /// Whether the failure remains if its culprit is reverted.
    stubborn: bool,
    builds: Vec<Subject>,
    runs: u32,
    /// Number of runs after which a signal is received.
    patience: u32,
    /// Every second run of a subject gives no result, if these are counted.
    shaky: Option<BTreeMap<Subject, u32>>,
    lesson: Lesson,
}

impl Learning for Fake<'_> {
    fn lesson(&mut self) -> &mut Lesson {
        &mut self.lesson
    }
}

impl<'a> Fake<'a> {
    fn new(graph: &'a Graph, culprit: usize, rates: (f64, f64), seed: u64) -> Self {
        let dice = Dice(seed);
        Self {
            graph,
            culprit,
            rates,
            dice,
            broken: Vec::new(),
            same: BTreeMap::new(),
            stubborn: false,
            builds: Vec::new(),
            runs: 0,
            patience: u32::MAX,
            shaky: None,
            lesson: Lesson::default(),
        }
    }
}

impl Trial for Fake<'_> {
    fn prepare(&mut self, subject: Subject) -> Result<Result<String, NoKernel>, SearchStop> {
        self.builds.push(subject);
        Ok(match subject {
            Subject::Point(point) if self.broken.contains(&point) => Err(NoKernel("error: expected `;`".to_owned())),
            Subject::Point(point) => Ok(self.same.get(&point).unwrap_or(&point).to_string()),
            Subject::Without(point) => Ok(format!("without {point}")),
        })
    }

    fn run(&mut self, subject: Subject) -> Result<Answer, SearchStop> {
        if self.runs == self.patience {
            return Err(SearchStop::Interrupted(2));
        }
        self.runs += 1;
        let nth = self.shaky.as_mut().map(|runs| runs.entry(subject).and_modify(|runs| *runs += 1).or_insert(1));
        if nth.is_some_and(|nth| *nth % 2 == 0) {
            return Ok(Answer::Untestable { reason: "it did not boot".to_owned() });
        }
        let has = match subject {
            Subject::Point(point) => self.graph.contained(point).has(self.culprit),
            Subject::Without(point) => self.stubborn || point != self.culprit,
        };
        let failed = self.dice.chance(if has { self.rates.0 } else { self.rates.1 });
        Ok(if failed { Answer::Fails { symptom: "check".to_owned() } } else { Answer::Passes })
    }
}

const WISH: Wish = Wish { direction: Effect::Break, confidence: 0.95, bayes: false, max_runs: 60 };

fn ask(graph: &Graph, fake: &mut Fake<'_>, wish: Wish) -> Result<SearchFinding, SearchStop> {
    search(graph, &mut Halving::new(graph), fake, wish, &mut |_| ())
}

/// Histories with branches: every second seed has a side branch that is merged.
fn history(dice: &mut Dice, points: usize) -> Graph {
    let mut parents: Vec<Vec<usize>> = (0..points).map(|at| vec![at]).collect();
    for _ in 0..points / 8 {
        let at = 3 + dice.below(points - 3);
        let from = at - 2 - dice.below(2.min(at - 2));
        parents[at] = vec![at, from];
    }
    Graph::new(parents)
}

/// Number of searches that named the right point, named none, and named a wrong point with the required confidence.
fn thousand(rates: (f64, f64), wish: Wish) -> (u32, u32, u32, u32) {
    let (mut right, mut unsure, mut wrong, mut runs) = (0, 0, 0, 0);
    for seed in 0..1000 {
        let mut dice = Dice(seed);
        let points = 8 + dice.below(24);
        let graph = history(&mut dice, points);
        let culprit = 1 + dice.below(points);
        let mut fake = Fake::new(&graph, culprit, rates, seed ^ 0xABCD);
        // Every fourth history has points that do not build; if the culprit is adjacent to one, it can't be identified.
        if seed % 4 == 0 {
            fake.broken = (0..2).map(|_| 1 + dice.below(points)).filter(|point| *point != points).collect();
        }
        match ask(&graph, &mut fake, wish) {
            Ok(found) if found.sure && found.suspects == [culprit] => right += 1,
            // Several suspects are a correct result only if the culprit is among them.
            Ok(found) if found.confidence >= wish.confidence && !found.suspects.contains(&culprit) => wrong += 1,
            Ok(_) | Err(SearchStop::Question(_)) => unsure += 1,
            Err(stop) => panic!("{stop}"),
        }
        runs += fake.runs;
    }
    (right, unsure, wrong, runs / 1000)
}

fn right_or_honest(rates: (f64, f64), bayes: bool, least: u32) {
    let (right, unsure, wrong, runs) = thousand(rates, Wish { bayes, ..WISH });
    println!("rates {rates:?}, bayes {bayes}: {right} right, {unsure} unsure, {wrong} wrong, {runs} runs each");
    assert!(wrong <= 50, "more than 5 % wrong: {wrong} of 1000");
    assert!(right >= least, "{right} of 1000 right");
}

#[test]
fn a_thousand_histories_of_a_reliable_failure() {
    right_or_honest((1.0, 0.0), false, 920);
}

#[test]
fn a_thousand_histories_of_a_failure_in_three_runs_of_ten() {
    right_or_honest((0.3, 0.0), false, 890);
}

#[test]
fn a_thousand_histories_where_good_kernels_fail_in_three_runs_of_ten() {
    right_or_honest((1.0, 0.3), false, 890);
}

#[test]
fn a_thousand_histories_by_information() {
    right_or_honest((0.3, 0.0), true, 890);
}

#[test]
fn a_fix_is_found_as_well_as_a_break() {
    let graph = Graph::line(30);
    for (with, without) in [(0.0, 1.0), (0.0, 0.4)] {
        let mut fake = Fake::new(&graph, 17, (with, without), 7);
        let found = ask(&graph, &mut fake, Wish { direction: Effect::Fix, ..WISH }).unwrap();
        assert!(found.sure && found.suspects == [17], "{found:?}");
        assert!(matches!(found.revert, Some(Revert::Tested { tally, cured: true }) if tally.fails > 0), "{found:?}");
    }
}

#[test]
fn verification_runs_culprit_and_parents_and_a_revert() {
    let graph = Graph::line(12);
    let mut fake = Fake::new(&graph, 8, (1.0, 0.0), 1);
    let found = ask(&graph, &mut fake, WISH).unwrap();
    assert_eq!((found.suspects, found.sure), (vec![8], true));
    let tally = |point| found.steps.iter().find(|step| step.point == point).unwrap().tally;
    assert!(tally(8).fails >= PROOF && tally(8).fails == tally(8).runs, "{:?}", tally(8));
    assert!(tally(7).runs >= PROOF && tally(7).fails == 0, "{:?}", tally(7));
    assert_eq!(found.revert, Some(Revert::Tested { tally: Tally { fails: 0, runs: PROOF }, cured: true }));
    assert_eq!(fake.builds.len(), found.steps.len() + 1, "nothing is built twice");
    assert!(found.steps.len() <= 7, "2 ends, 4 halves, a parent: {:?}", found.steps);
}

/// There is another cause, or two kernels were confused.
#[test]
fn a_revert_that_changes_nothing_leaves_no_certainty() {
    for (direction, rates) in [(Effect::Break, (1.0, 0.0)), (Effect::Fix, (0.0, 1.0))] {
        let graph = Graph::line(12);
        let mut fake = Fake { stubborn: true, ..Fake::new(&graph, 8, rates, 1) };
        let found = ask(&graph, &mut fake, Wish { direction, ..WISH }).unwrap();
        assert_eq!((&*found.suspects, found.sure), (&[8][..], false));
        assert!(found.confidence < 0.05, "{found:?}");
        assert!(matches!(found.revert, Some(Revert::Tested { cured: false, .. })), "{found:?}");
    }
}

#[test]
fn untestable_points_remain_suspects() {
    let graph = Graph::line(12);
    let mut fake = Fake::new(&graph, 8, (1.0, 0.0), 1);
    fake.broken = vec![7, 6];
    let found = ask(&graph, &mut fake, WISH).unwrap();
    assert_eq!((found.suspects, found.sure, found.revert), (vec![6, 7, 8], false, None));
    assert!(found.confidence > 0.95);
    let step = found.steps.iter().find(|step| step.point == 7 || step.point == 6).unwrap();
    assert_eq!((step.mark, step.note.as_deref()), (Mark::Skip, Some("error: expected `;`")));
}

#[test]
fn points_that_give_a_result_now_and_then_are_tested_further() {
    let graph = Graph::line(12);
    let mut fake = Fake { shaky: Some(BTreeMap::new()), ..Fake::new(&graph, 8, (0.7, 0.0), 1) };
    let found = ask(&graph, &mut fake, Wish { max_runs: 2_000, ..WISH }).unwrap();
    assert!(found.suspects == [8] && found.sure, "{found:?}");
    assert!(found.steps.iter().all(|step| step.mark != Mark::Skip), "{:?}", found.steps);
}

#[test]
fn one_image_is_tested_once() {
    let graph = Graph::line(12);
    let mut fake = Fake::new(&graph, 8, (1.0, 0.0), 1);
    fake.same = (1..8).map(|point| (point, 0)).collect();
    let found = ask(&graph, &mut fake, WISH).unwrap();
    assert_eq!(found.suspects, [8]);
    let old = found.steps.iter().find(|step| step.point == OLD_END).unwrap();
    let same: Vec<_> = found.steps.iter().filter(|step| step.same_as == Some(0)).collect();
    assert!(!same.is_empty() && same.iter().all(|step| step.tally == old.tally), "{same:?}");
}

#[test]
fn ends_that_do_not_differ_are_refused() {
    let graph = Graph::line(5);
    let refused = |rates, new_same: bool, broken: Vec<usize>| {
        let mut fake = Fake::new(&graph, 3, rates, 3);
        fake.broken = broken;
        if new_same {
            fake.same = [(5, 0)].into();
        }
        ask(&graph, &mut fake, WISH).unwrap_err().to_string()
    };
    let runs = "the failure occurred in";
    assert_eq!(
        refused((0.0, 0.0), false, vec![]),
        format!("the case passes on both ends: {runs} 0 of 60 runs at the good end and in 0 of 60 at the bad end")
    );
    assert_eq!(
        refused((1.0, 1.0), false, vec![]),
        format!("the case fails on both ends: {runs} 9 of 9 runs at the good end and in 9 of 9 at the bad end")
    );
    assert_eq!(
        refused((0.0, 1.0), false, vec![]),
        "the ends are swapped: the failure occurred in 3 of 3 runs at the good end and in 0 of 3 at the bad one; swap \
         --good and --bad"
    );
    assert!(refused((0.5, 0.5), false, vec![]).contains("both ends"));
    assert_eq!(refused((1.0, 0.0), true, vec![]), "both ends are the same kernel image");
    assert_eq!(refused((1.0, 0.0), false, vec![5]), "the bad end can't be tested: error: expected `;`");
}

#[test]
fn rarer_failures_need_more_runs() {
    assert_eq!([1.0, 0.5, 0.3, 0.1].map(|rate| repeats(rate, 0.05)), [1, 5, 9, 29]);
}

#[test]
fn an_interrupted_search_has_the_same_result_as_an_uninterrupted_one() {
    let graph = Graph::line(30);
    let mut whole = Fake::new(&graph, 11, (1.0, 0.0), 5);
    let wanted = ask(&graph, &mut whole, WISH).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (mut runs, mut builds) = (0, 0);
    let found = loop {
        let mut fake = Fake { patience: 4, ..Fake::new(&graph, 11, (1.0, 0.0), 5) };
        let mut state = SearchState::open(dir.path(), "q").unwrap();
        let mut bench = Remembering::new(&mut fake, &mut state);
        let found = search(&graph, &mut Halving::new(&graph), &mut bench, WISH, &mut |_| ());
        (runs, builds) = (runs + fake.runs, builds + fake.builds.len());
        match found {
            Err(SearchStop::Interrupted(2)) => assert!(runs < 200, "the search makes no progress"),
            other => break other.unwrap(),
        }
    };
    assert_eq!((found, runs), (wanted.clone(), whole.runs));
    let mut nobody = Fake { patience: 0, ..Fake::new(&graph, 11, (1.0, 0.0), 5) };
    let mut state = SearchState::open(dir.path(), "q").unwrap();
    let mut bench = Remembering::new(&mut nobody, &mut state);
    let again = search(&graph, &mut Halving::new(&graph), &mut bench, WISH, &mut |_| ()).unwrap();
    assert_eq!((again, nobody.builds.len()), (wanted, 0), "a repeated search builds and runs nothing");
    assert!(builds >= whole.builds.len(), "an interrupted run is prepared again");
}
