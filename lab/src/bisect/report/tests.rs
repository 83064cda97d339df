use super::*;
use crate::bisect::search::SearchFinding;

fn step(point: usize, fails: u32, runs: u32, mark: Mark) -> SearchStep {
    SearchStep { point, image: Some(point.to_string()), same_as: None, tally: Tally { fails, runs }, mark, note: None }
}

fn report() -> BisectReport {
    let name =
        |(short, long): (&str, &str)| Name { short: short.to_owned(), long: long.to_owned(), exact: short.repeat(3) };
    let broken = SearchStep {
        image: None,
        note: Some("does not build: net/x.c:1: error: expected ';'".to_owned()),
        ..step(2, 0, 0, Mark::Skip)
    };
    let steps = vec![
        step(4, 3, 3, Mark::New),
        step(0, 0, 3, Mark::Old),
        broken,
        SearchStep { same_as: Some(0), ..step(1, 0, 3, Mark::Old) },
        step(3, 3, 3, Mark::New),
    ];
    BisectReport {
        question: "A02-tcx-link[netkit] fails (match: exact)".to_owned(),
        failing: true,
        promise: Some("A link attaches | and runs.".to_owned()),
        unit: "commit",
        terms: ("good".to_owned(), "bad".to_owned()),
        direction: Effect::Break,
        names: [
            ("aaa", "v1"),
            ("bbb", "doc: a word"),
            ("ccc", "net: half"),
            ("ddd", "net: run it *once*"),
            ("eee", "v2"),
        ]
        .map(name)
        .to_vec(),
        wanted: 0.95,
        finding: SearchFinding {
            suspects: vec![3],
            confidence: 0.999_99,
            sure: true,
            rates: (0.98, 0.03),
            steps,
            revert: Some(Revert::Tested { tally: Tally { fails: 0, runs: 3 }, cured: true }),
        },
        culprit: Some("commit ddd\nAuthor: N <n@n.example>\n\n    net: run it *once*\n".to_owned()),
        failure: vec!["A02-tcx-link[netkit]: check: # of #".to_owned(), "udp arrives: 0 of 5".to_owned()],
        environment: vec![("QEMU".to_owned(), "7.2".to_owned())],
        reproduce: vec!["git checkout ddd".to_owned(), "lab bisect-step --case 'A02-tcx-link[netkit]'".to_owned()],
        regzbot: Some("#regzbot introduced: dddddd".to_owned()),
        log: Some("git bisect start\n# bad: [eee] v2".to_owned()),
        notes: vec!["one thing".to_owned()],
    }
}

#[test]
fn the_mail() {
    insta::assert_snapshot!(report().mail());
}

#[test]
fn the_markdown() {
    insta::assert_snapshot!(report().markdown());
}

#[test]
fn the_json_names_the_culprit() {
    let value: serde_json::Value = serde_json::from_str(&report().json().unwrap()).unwrap();
    assert_eq!(value["culprit_name"]["exact"], "ddddddddd");
    assert_eq!(value["table"][2]["mark"], "skip");
    assert_eq!(value["finding"]["sure"], true);
}

#[test]
fn an_uncertain_result_is_marked_in_the_last_lines() {
    let mut report = report();
    report.finding = SearchFinding { suspects: vec![2, 3], sure: false, ..report.finding };
    assert_eq!(
        report.last_lines(),
        "culprit: not sure, one of ccc (net: half), ddd (net: run it *once*)\nconfidence: 99.99 % (required: 95 %)"
    );
    report.finding.confidence = 0.4;
    assert!(report.last_lines().starts_with("culprit: not sure; the most likely are ccc"), "{}", report.last_lines());
    assert!(report.mail().contains("Not sure; it may be one of these commits (40 %)"), "{}", report.mail());
}

#[test]
fn a_revert_that_changes_nothing_does_not_confirm_the_culprit() {
    let mut report = report();
    let revert = Some(Revert::Tested { tally: Tally { fails: 3, runs: 3 }, cured: false });
    report.finding = SearchFinding { confidence: 0.01, sure: false, revert, ..report.finding };
    assert_eq!(
        report.last_lines(),
        "culprit: not sure; the likeliest is ddd (net: run it *once*), but reverting it changes nothing\n\
         confidence: 1 % (required: 95 %)"
    );
    let mail = report.mail();
    assert!(mail.contains("Reverted: 3 of 3 runs fail: without it the bad end is unchanged"), "{mail}");
}
