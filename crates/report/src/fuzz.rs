//! Fuzz target for damaged events files: `docs/fuzzing.md`.

use super::{
    capabilities,
    compare::{self, CompareFormat},
    format::ReportFormat,
    html, splats, stories, terminal,
};
use clap::ValueEnum;
use lab_record::{log, verdict::Standing};
use std::path::Path;

#[test]
fn events_jsonl() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        std::fs::write(dir.path().join(log::FILE), bytes).unwrap();
        match log::read(dir.path()) {
            Ok(record) => {
                let shown = terminal::summary(&record, Path::new("results/latest"), false);
                assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
            }
            Err(error) => assert!(error.to_string().contains(log::FILE), "{error}"),
        }
    });
}

/// Every report of a run that is read back.
#[test]
fn reports() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        std::fs::write(dir.path().join(log::FILE), bytes).unwrap();
        let Ok(record) = log::read(dir.path()) else { return };
        for format in ReportFormat::value_variants() {
            let text = format.render(&record, "lab");
            match format {
                ReportFormat::Junit | ReportFormat::Jenkins | ReportFormat::Ant => {
                    let mut reader = quick_xml::Reader::from_str(&text);
                    while reader.read_event().unwrap() != quick_xml::events::Event::Eof {}
                }
                ReportFormat::Kcidb => drop(serde_json::from_str::<serde_json::Value>(&text).unwrap()),
                ReportFormat::Ktap | ReportFormat::Tap | ReportFormat::Markdown | ReportFormat::Github => {
                    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{format:?}: {text:?}");
                }
            }
        }
        let mut page = Vec::new();
        html::render_to(&record, &mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        assert_eq!(page.matches("</script").count(), page.matches("<script").count(), "{page}");
        html::fuzz_parts(&record);
        stories::stories(&record, &[Standing::Failed, Standing::Errored, Standing::Known]);
        splats::splats(&record);
        capabilities::rows(&record);
        let same = compare::compare(&record, &record);
        for format in CompareFormat::value_variants() {
            compare::render(&same, *format);
        }
    });
}
