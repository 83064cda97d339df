//! KernelCI's common report format, KCIDB 5.3: a checkout and a build per kernel, a test per cell.
//!
//! The schema is that of `kcidb-io`. Ids begin with the origin, the database's name for a CI system. Ids of checkouts
//! and builds depend on the kernel alone, so that all runs of a kernel share them.

use chrono::DateTime;
use lab_base::text;
use lab_protocol::{CellId, CellInfo, ErrorKind, Outcome};
use lab_record::{
    guest::KernelRecord,
    plan::{PlannedCell, PlannedKernel},
    rows,
    run::RunRecord,
    verdict::{Standing, Verdict},
};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The default origin.
pub const ORIGIN: &str = "netkit_lab";
/// Maximum characters of a comment.
const MAX_COMMENT: usize = 1000;
/// The schema allows 16384 characters of a log.
const MAX_EXCERPT: usize = 16_000;

/// The text is not a valid origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a KCIDB origin (expected: lower-case letters, digits and _)")]
pub struct NotAnOrigin(String);

/// Parses an origin.
///
/// # Errors
/// It is empty or has other characters than lower-case letters, digits and `_`.
pub fn origin(text: &str) -> Result<String, NotAnOrigin> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !text.is_empty() && text.chars().all(allowed) { Ok(text.to_owned()) } else { Err(NotAnOrigin(text.to_owned())) }
}

/// Formats the run as KCIDB JSON.
pub fn render(record: &RunRecord, origin: &str) -> String {
    let run = record.info.as_ref().map_or("unknown", |info| &*info.id);
    let listed: HashMap<&CellId, &CellInfo> = record.listing().map(|cell| (&cell.id, cell)).collect();
    let (mut checkouts, mut builds, mut tests) = (Vec::new(), Vec::new(), Vec::new());
    for (kernel, happened) in record.planned() {
        let facts = &kernel.facts;
        let boot = happened.and_then(|it| it.boot.as_ref());
        let release = boot.map_or_else(|| facts.version.to_string(), |boot| text::line(&boot.release, MAX_COMMENT));
        let source = format!("{origin}:{}-{release}", facts.id);
        checkouts.push(json!({
            "id": source,
            "origin": origin,
            "comment": format!("{release}, mainline {}", facts.version),
            "valid": true,
            "misc": { "kernel": facts.id, "class": facts.class },
        }));
        builds.push(json!({
            "id": source,
            "checkout_id": source,
            "origin": origin,
            "architecture": facts.architecture.machine(),
            "comment": boot.map_or_else(|| release.clone(), |boot| text::line(&boot.version, MAX_COMMENT)),
            "config_name": facts.id,
            "status": "PASS",
            "misc": { "image": happened.and_then(|it| it.image.as_ref()).map_or("unknown", |image| &*image.key) },
        }));
        for cell in rows::around(kernel) {
            let mut test = test(record, kernel, happened, cell, listed.get(&cell.id).copied());
            test["id"] = json!(format!("{origin}:{run}/{}/{}", facts.id, text::line(cell.id.as_str(), MAX_COMMENT)));
            test["build_id"] = json!(source);
            test["origin"] = json!(origin);
            tests.push(test);
        }
    }
    let report = json!({
        "version": { "major": 5, "minor": 3 },
        "checkouts": checkouts,
        "builds": builds,
        "tests": tests,
    });
    format!("{report:#}\n")
}

fn test(
    record: &RunRecord,
    kernel: &PlannedKernel,
    happened: Option<&KernelRecord>,
    cell: &PlannedCell,
    listed: Option<&CellInfo>,
) -> Value {
    let verdict = record.verdict(happened, cell);
    let area = listed.map_or("unknown", |listed| &*listed.area);
    let used: Vec<&str> = verdict.used().iter().map(|used| used.name()).collect();
    let hooks: Vec<&str> = verdict.report.attach.iter().filter_map(|it| it.hook).map(|hook| hook.name()).collect();
    let mut test = json!({
        "path": path(area, cell.id.as_str()),
        "status": if verdict.standing() == Standing::Known { "SKIP" } else { status(&verdict.outcome) },
        "duration": verdict.report.duration_us as f64 / 1e6,
        "misc": {
            "attach_requested": listed.and_then(|listed| listed.attach).map_or("", |request| request.name()),
            "attach_required": cell.required.map_or("", |required| required.name()),
            "attach_used": used.join("+"),
            "attach_hooks": hooks,
            "outcome": verdict.standing().word(),
            "repro": record.repro(&kernel.facts.id, &cell.id),
        },
    });
    let comment = match (verdict.outcome.message(), listed) {
        (message, _) if !message.is_empty() => message,
        (_, Some(listed)) => listed.title.clone(),
        (_, None) => String::new(),
    };
    test["comment"] = json!(text::line(&comment, MAX_COMMENT));
    if let Some(info) = &record.info {
        let machine = &info.versions;
        let comment = format!(
            "virtme-ng {}, QEMU {}, {}: {}",
            machine.virtme_ng, machine.qemu, info.accelerator.name, info.accelerator.reason
        );
        test["environment"] = json!({ "comment": text::line(&comment, MAX_COMMENT) });
    }
    let excerpt = excerpt(&verdict);
    if !excerpt.is_empty() {
        test["log_excerpt"] = json!(excerpt);
    }
    let started = happened.map(|it| it.started_ms).filter(|ms| *ms > 0);
    let started = started.and_then(|ms| DateTime::from_timestamp_millis(i64::try_from(ms).ok()?));
    if let Some(started) = started {
        test["start_time"] = json!(started.to_rfc3339());
    }
    test
}

/// The test's path in KernelCI's tree: words of letters, digits, `_` and `-`, separated by dots.
fn path(area: &str, cell: &str) -> String {
    let word = |text: &str| -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
        text.chars().map(plain).collect()
    };
    let words = cell.split(['[', ',', ']']).filter(|word| !word.is_empty());
    if area == "kselftest" || area.starts_with("kselftest.") {
        // KernelCI has the selftests in a tree of their own: kselftest.net.fib_tests_sh.
        let folder = area.split('.').skip(1).collect::<Vec<_>>().join("/");
        let test = cell.strip_prefix(&*folder).unwrap_or(cell);
        let words = test.split(['[', ',', ']', '/']).flat_map(|word| word.split("::")).filter(|word| !word.is_empty());
        return area.split('.').chain(words).map(word).collect::<Vec<_>>().join(".");
    }
    ["netkit-lab", area].into_iter().chain(words).map(word).collect::<Vec<_>>().join(".")
}

/// FAIL is a kernel failure, ERROR a failure of the test, MISS one of the test harness.
const fn status(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "PASS",
        Outcome::Skipped { .. } | Outcome::SkippedItself { .. } => "SKIP",
        Outcome::Failed { .. } | Outcome::Errored { kind: ErrorKind::Panic | ErrorKind::Hang, .. } => "FAIL",
        Outcome::Errored { kind: ErrorKind::Agent, .. } => "ERROR",
        Outcome::Errored { .. } | Outcome::NotRun { .. } => "MISS",
    }
}

fn excerpt(verdict: &Verdict) -> String {
    let checks = verdict.report.checks.iter().filter(|check| !check.ok);
    let checks = checks.map(|check| format!("FAIL {}: {}\n", check.name, check.seen));
    let text: String = checks.chain(verdict.evidence.iter().cloned()).collect();
    // Escapes are longer than the characters they replace, so text is cut afterwards.
    let mut excerpt = text::block(&text, MAX_EXCERPT);
    text::cap(&mut excerpt, MAX_EXCERPT);
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_a_valid_path() {
        assert_eq!(path("attach-api", "A02-tcx-link[tcx,veth]"), "netkit-lab.attach-api.A02-tcx-link.tcx.veth");
        let test = path("kselftest.net.forwarding", "net/forwarding/router.sh::ping ipv4");
        assert_eq!(test, "kselftest.net.forwarding.router_sh.ping_ipv4");
        assert_eq!(path("a/b", "x.y\0 [,,]"), "netkit-lab.a_b.x_y__");
    }

    #[test]
    fn an_origin_that_the_schema_does_not_allow_is_refused() {
        assert_eq!(origin("my_lab2").unwrap(), "my_lab2");
        for wrong in ["", "My", "a-b", "a:b"] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }
}
