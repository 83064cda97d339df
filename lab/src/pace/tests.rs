use super::*;
use lab_protocol::{AttachRequest, LinkKind};
use lab_record::testing::cell;

/// Forty cells of two areas, half of them by tcx on veth, a tenth of a second each.
fn infos() -> Vec<CellInfo> {
    let info = |number: usize| CellInfo {
        area: if number.is_multiple_of(2) { "redirect".to_owned() } else { "mtu".to_owned() },
        attach: Some(if number < 20 { AttachRequest::Tcx } else { AttachRequest::Netkit }),
        device: Some(if number < 20 { LinkKind::Veth } else { LinkKind::NetkitL2 }),
        ..cell(&format!("C{number:02}-x"))
    };
    (0..40).map(info).collect()
}

fn names(infos: &[CellInfo], host: f64, took: impl Fn(usize) -> f64) -> Vec<String> {
    let samples: Vec<TimedCell<'_>> =
        infos.iter().enumerate().map(|(at, info)| TimedCell { info, took: took(at), recorded: 100.0 }).collect();
    let found = groups(&samples).into_iter().filter_map(|group| exceeds(&group, &samples, host, "a record"));
    found.map(|slow| slow.cells).collect()
}

#[test]
fn a_slow_group_is_found_and_named() {
    let infos = infos();
    assert!(names(&infos, 1.0, |_| 100.0).is_empty());
    assert!(names(&infos, 1.0, |_| 250.0).is_empty(), "two and a half times as long is usual between nights");
    assert_eq!(names(&infos, 1.0, |_| 600.0), ["all cells"]);
    assert_eq!(
        names(&infos, 1.0, |at| if at.is_multiple_of(2) { 600.0 } else { 100.0 }),
        ["all cells", "area redirect"]
    );
    let by_tcx = names(&infos, 1.0, |at| if at < 20 { 600.0 } else { 100.0 });
    assert_eq!(by_tcx, ["all cells", "cells by tcx", "cells on veth"]);
}

#[test]
fn cells_that_are_slow_here_and_there_are_found_in_the_sum() {
    let infos = infos();
    assert_eq!(names(&infos, 1.0, |at| if at.is_multiple_of(5) { 3_000.0 } else { 100.0 })[0], "all cells");
    assert!(
        names(&infos, 1.0, |at| if at == 5 { 90_000.0 } else { 100.0 }).is_empty(),
        "one cell, on a host that stood still"
    );
}

#[test]
fn what_the_rest_of_the_run_takes_is_the_hosts() {
    let infos = infos();
    assert!(names(&infos, 2.5, |_| 600.0).is_empty());
    assert_eq!(names(&infos, 2.5, |_| 1_500.0), ["all cells"]);
    assert!(
        names(&infos, 1.0, |at| if at.is_multiple_of(2) { 600.0 } else { 300.0 })
            .iter()
            .all(|name| name == "all cells")
    );
}

#[test]
fn a_few_cells_or_a_short_time_are_no_finding() {
    let infos = infos();
    assert!(names(&infos[..4], 1.0, |_| 6_000.0).is_empty());
    let samples: Vec<TimedCell<'_>> = infos.iter().map(|info| TimedCell { info, took: 110.0, recorded: 5.0 }).collect();
    let all = &groups(&samples[..8])[0];
    assert_eq!(exceeds(all, &samples[..8], 1.0, "a record"), None, "0.8 s in all");
}
