//! Fuzz targets for files of a project and of a search: `docs/fuzzing.md`.

use crate::scratch;
use lab::{
    bisect::state::SearchState,
    cache::CachePolicy,
    lists::{KNOWN_TOML, Lists, SPLATS_TOML},
    project::agent_package::AgentPackage,
    testing::agent::A,
};
use lab_protocol::{CellId, ErrorKind, Outcome};
use lab_record::{
    testing::{facts, splat},
    verdict::Verdict,
};
use lab_report::results::{LAB_TOML, Retention};
use std::fs;

/// Checks that an error is one printable line that names the file.
#[track_caller]
fn readable(error: &dyn std::fmt::Display, file: &str) {
    let text = error.to_string();
    assert!(text.contains(file) && !text.contains(char::is_control), "{text:?}");
}

/// The lists of a project. The first byte says which of them the rest is.
#[test]
fn lists() {
    let today = "2026-11-26".parse().unwrap();
    bolero::check!().for_each(|bytes: &[u8]| {
        let Some((choice, bytes)) = bytes.split_first() else { return };
        let text = String::from_utf8_lossy(bytes);
        let (file, lists) = match choice % 2 {
            0 => (SPLATS_TOML, Lists::parse(&text, "", today)),
            _ => (KNOWN_TOML, Lists::parse("", &text, today)),
        };
        match lists {
            Ok(lists) => {
                let outcome = Outcome::Errored { kind: ErrorKind::Hang, message: "the guest hangs".to_owned() };
                let mut verdict = Verdict::bare(CellId(A.into()), outcome);
                lists.recognise(&facts("6.12", "6.12.43"), &mut verdict);
                lists.allow(
                    &facts("6.12", "6.12.43"),
                    &mut splat("warn-0123456789", "WARNING: CPU: 0 PID: 1 at net/core/dev.c:1 x+0x1/0x2"),
                );
            }
            Err(error) => readable(&error, file),
        }
    });
}

/// The three readers of `lab.toml`.
#[test]
fn lab_toml() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let dir = scratch();
        fs::write(dir.path().join(LAB_TOML), bytes).unwrap();
        match AgentPackage::load(dir.path()) {
            Ok(package) => assert!(package.directory.is_none(), "there is no package"),
            // It may also be about the manifest of the package.
            Err(error) => readable(&error, ""),
        }
        match CachePolicy::load(dir.path()) {
            Ok(policy) => assert!(policy.size > 0 && policy.days > 0),
            Err(error) => readable(&error, LAB_TOML),
        }
        match Retention::load(dir.path()) {
            Ok(retention) => assert!(retention.keep > 0 && retention.days > 0),
            Err(error) => readable(&error, LAB_TOML),
        }
    });
}

/// What a bisection remembers.
#[test]
fn bisect_state() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let dir = scratch();
        fs::write(dir.path().join("state.json"), bytes).unwrap();
        match SearchState::open(dir.path(), "the question") {
            Ok(state) => assert!(state.runs() <= bytes.len()),
            Err(error) => readable(&error, "state.json"),
        }
    });
}
