//! TAP version 13 without subtests, which prove and most harnesses of TAP read: a line per cell of every kernel.

use lab_base::text;
use lab_record::{run::RunRecord, verdict::Standing};
use std::fmt::Write;

/// Maximum characters of a line.
const WIDTH: usize = 400;

/// Text as one line without hash signs, which start a directive, and backslashes, which start an escape.
fn plain(words: &str) -> String {
    text::line(words, WIDTH).replace('#', "_").replace('\\', "/")
}

/// Formats the run as TAP.
pub fn render(record: &RunRecord) -> String {
    let mut lines = String::new();
    let mut number = 0;
    let mut test = |ok: bool, name: &str, directive: &str, told: &[String]| {
        number += 1;
        let word = if ok { "ok" } else { "not ok" };
        let _ = writeln!(lines, "{word} {number} - {name}{directive}");
        for line in told {
            let _ = writeln!(lines, "# {}", text::line(line, WIDTH));
        }
    };
    for (kernel, cell, verdict) in record.verdicts() {
        let standing = verdict.standing();
        let attach: Vec<&str> = verdict.used().iter().map(|used| used.name()).collect();
        let attach = if attach.is_empty() { String::new() } else { format!(" by {}", attach.join("+")) };
        let name = format!("{} {}{attach}", plain(&kernel.facts.id), plain(cell.id.as_str()));
        let message = verdict.outcome.message();
        let directive = match standing {
            Standing::Skipped | Standing::Known => format!(" # SKIP {}", plain(&message)),
            _ => String::new(),
        };
        let told = if standing.is_bad() {
            vec![format!("{}: {message}", standing.word()), record.repro(&kernel.facts.id, &cell.id)]
        } else {
            Vec::new()
        };
        test(!standing.is_bad(), &name, &directive, &told);
    }
    let expired = record.info.iter().flat_map(|info| &info.expired);
    for entry in expired {
        test(false, &format!("{}:{}", plain(&entry.file), entry.line), "", &[entry.message()]);
    }
    for case in record.dead_cases() {
        test(false, &plain(&case), "", &["no kernel of the matrix can run this case".to_owned()]);
    }
    for problem in record.lost_shards() {
        test(false, &plain(&problem), "", &[]);
    }
    format!("TAP version 13\n1..{number}\n{lines}")
}
