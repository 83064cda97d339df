//! JUnit XML that follows the schema of Apache Ant's tasks exactly: no attribute at the root, suites with a number,
//! a host and a time without its zone, cases without output, and both outputs in every suite.

use super::{Counts, Kind, MAX_ATTRIBUTE, seconds, whole, xml::Xml};
use chrono::DateTime;
use lab_base::text;
use lab_protocol::CellInfo;
use lab_record::run::RunRecord;
use std::{collections::HashMap, fmt::Write};

/// A suite while it is written: its number, name, counts and seconds.
struct Head<'a> {
    id: usize,
    name: &'a str,
    counts: Counts,
    started_ms: u64,
    seconds: f64,
}

impl Head<'_> {
    fn open(&self, xml: &mut Xml) {
        let time = i64::try_from(self.started_ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
        xml.element("testsuite")
            .with("name", self.name)
            .with("package", "netkit-lab")
            .with("id", &self.id.to_string())
            .with("hostname", "localhost")
            .with("timestamp", &time.format("%Y-%m-%dT%H:%M:%S").to_string())
            .with("tests", &self.counts.tests.to_string())
            .with("skipped", &self.counts.skipped.to_string())
            .with("failures", &self.counts.failures.to_string())
            .with("errors", &self.counts.errors.to_string())
            .with("time", &seconds(self.seconds))
            .open();
    }
}

/// The run.
pub fn render(record: &RunRecord) -> String {
    let mut xml = Xml::document();
    xml.element("testsuites").open();
    let listed: HashMap<_, &CellInfo> = record.listing().map(|cell| (&cell.id, cell)).collect();
    let mut id = 0;
    for (kernel, happened) in record.planned() {
        let counts = Counts::on(record, kernel, happened);
        let wall_ms = happened.and_then(|it| it.finished).map_or(0, |(wall_ms, _)| wall_ms);
        let started_ms = happened.map_or(record.started_ms, |it| it.started_ms);
        Head { id, name: &kernel.facts.id, counts, started_ms, seconds: wall_ms as f64 / 1e3 }.open(&mut xml);
        id += 1;
        let release = happened.and_then(|it| it.boot.as_ref()).map_or("did not boot", |boot| &*boot.release);
        xml.element("properties").open();
        let facts = record.info.iter().flat_map(|info| info.provenance.facts());
        for (name, value) in [("kernel.release", release.to_owned())].into_iter().chain(facts) {
            let value = text::line(&value, MAX_ATTRIBUTE);
            xml.element("property").with("name", name).with("value", &value).empty();
        }
        xml.close("properties");
        let mut out = String::new();
        for (cell, verdict) in record.verdicts_on(kernel, happened) {
            let area = listed.get(&cell.id).map_or("", |it| &*it.area);
            let name = text::line(cell.id.as_str(), MAX_ATTRIBUTE);
            let attach: Vec<&str> = verdict.used().iter().map(|used| used.name()).collect();
            if !attach.is_empty() {
                let _ = writeln!(out, "{name} attach.used={}", attach.join("+"));
            }
            let tag = xml
                .element("testcase")
                .with("name", &name)
                .with("classname", &format!("{}.{}", kernel.facts.id, text::line(area, MAX_ATTRIBUTE)))
                .with("time", &seconds(verdict.report.duration_us as f64 / 1e6));
            let kind = Kind::of(verdict.standing());
            if kind == Kind::Passed {
                tag.empty();
                continue;
            }
            tag.open();
            let message = text::line(&verdict.outcome.message(), MAX_ATTRIBUTE);
            let wrong = |xml: &mut Xml, element| {
                let sort = verdict.standing().word();
                xml.element(element).with("message", &message).with("type", sort).text(&message);
            };
            match kind {
                Kind::Failure => wrong(&mut xml, "failure"),
                Kind::Error => wrong(&mut xml, "error"),
                Kind::Passed | Kind::Skipped => xml.element("skipped").empty(),
            }
            xml.close("testcase");
        }
        let notes = happened.iter().flat_map(|it| it.losses.iter().chain(&it.notes)).map(|line| &**line);
        end(&mut xml, &out, &notes.collect::<Vec<_>>().join("\n"));
    }
    for suite in record.info.iter().flat_map(|info| whole(record, info)) {
        Head { id, name: suite.name, counts: suite.counts(), started_ms: record.started_ms, seconds: 0.0 }
            .open(&mut xml);
        id += 1;
        xml.element("properties").open();
        xml.close("properties");
        for (case, wrong) in &suite.cases {
            let tag = xml.element("testcase").with("name", case).with("classname", suite.name).with("time", "0");
            let Some(wrong) = wrong else {
                tag.empty();
                continue;
            };
            tag.open();
            let element = if wrong.kind == Kind::Failure { "failure" } else { "error" };
            xml.element(element).with("message", &wrong.message).with("type", wrong.sort).text(&wrong.message);
            xml.close("testcase");
        }
        end(&mut xml, "", "");
    }
    xml.close("testsuites");
    xml.into_text()
}

/// The two outputs that every suite has, and its end.
fn end(xml: &mut Xml, out: &str, err: &str) {
    xml.element("system-out").text(out);
    xml.element("system-err").text(err);
    xml.close("testsuite");
}
