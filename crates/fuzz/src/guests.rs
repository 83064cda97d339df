//! Fuzz targets for a guest's console and port: `docs/fuzzing.md`.

use crate::scratch;
use lab::{
    lists::Lists,
    run::{
        console::Tail,
        cut_report,
        judge::{self, SeenAttempt},
        splat::{self, ConsoleWatch},
    },
    testing::agent::{A, B, C},
};
use lab_protocol::{
    AgentMessage,
    witness::{LEFT, ROWS},
};
use lab_record::{
    plan::Plan,
    testing::{cell, facts},
};
use std::fs;

/// Checks that text needs no escaping in a report.
#[track_caller]
fn harmless(text: &str) {
    assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
}

#[test]
fn consoles() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let splats = splat::scan(&text);
        for splat in &splats {
            harmless(&splat.line());
            assert!(splat.line().len() < 4096, "{}", splat.line());
        }
        // Scanning the same text again gives the same fingerprints.
        let prints =
            |splats: &[lab_record::splat::Splat]| splats.iter().map(|it| it.fingerprint.clone()).collect::<Vec<_>>();
        assert_eq!(prints(&splats), prints(&splat::scan(&text)));
        let tail = Tail::parse(&text);
        harmless(&tail.evidence());
        assert!(tail.last_words().is_none_or(|words| !words.contains('\n')));
    });
}

/// The kernel log that the agent read, together with a console that grows; a NUL byte is between the two.
#[test]
fn kernel_logs() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let (log, console) = text.split_once('\0').unwrap_or((&text, &text));
        let merged = splat::merge(splat::scan(console), splat::scan_kernel_log(log));
        assert!(merged.len() <= 2 * (splat::MOST_KINDS + 1));
        merged.iter().for_each(|splat| harmless(&splat.line()));
        let dir = scratch();
        let path = dir.path().join("console.log");
        let mut watch = ConsoleWatch::new(&path);
        let mut grown = Vec::new();
        for piece in console.as_bytes().chunks(console.len() / 3 + 1) {
            grown.extend(piece);
            fs::write(&path, &grown).unwrap();
            watch.look_before("netkit-lab: end A01-x").iter().for_each(|splat| harmless(&splat.line()));
        }
        watch.look();
        assert!(watch.look().is_empty(), "all of it was read");
    });
}

#[test]
fn guest_messages() {
    let kernels = vec![facts("6.12", "6.12.43")];
    let plan = Plan::new(kernels, [A, B, C].map(cell).to_vec(), true);
    bolero::check!().for_each(|bytes: &[u8]| {
        let Ok(AgentMessage::CellFinished { mut report }) = serde_json::from_slice(bytes) else { return };
        cut_report(&mut report);
        let largest = report.log.iter().map(String::len).max().unwrap_or_default();
        assert!(largest <= 4100 && report.checks.len() <= 500 && report.attachments.len() <= 24);
        let account = report.witness.as_deref();
        assert!(account.is_none_or(|account| account.rows.len() <= ROWS && account.left.len() <= LEFT));
        for info in &plan.cells {
            let verdict = judge::attempt(
                &plan.kernels[0],
                info,
                SeenAttempt::reported((*report).clone()),
                &Lists::default(),
                None,
            );
            let message = verdict.outcome.message();
            assert!(message.len() < 16 << 10, "{}", message.len());
        }
    });
}
