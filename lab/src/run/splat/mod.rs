//! Kernel splats: found on the console and in the kernel log, classified, and given a fingerprint by which the same
//! splat is recognised on another kernel and in another run.

mod fingerprint;
mod trace;
mod watch;

#[cfg(test)]
mod tests;

use lab_base::text;
use lab_protocol::complaint::{self, SplatClass};
use lab_record::splat::{Splat, SplatPlace};
pub use watch::ConsoleWatch;

/// Maximum length of a line in a report, characters.
const WIDTH: usize = 300;
/// Maximum number of suspects of a delayed splat, whose cause may be in an earlier cell.
pub const MOST_SUSPECTS: usize = 3;

/// Maximum number of different splats in one place. A real kernel has fewer, but a hostile guest could invent more.
pub const MOST_KINDS: usize = 64;
/// Fingerprint of the splat that represents all further ones.
const FURTHER: &str = "further";

/// Parses the lines of a splat.
fn read(class: SplatClass, lines: &[&str], seen: SplatPlace) -> Splat {
    let title = lines.iter().find(|line| SplatClass::of(line).is_some()).or(lines.first()).copied().unwrap_or_default();
    let frames = trace::frames(class, lines);
    let subject = fingerprint::subject(class, title, lines);
    let kept: Vec<String> = lines.iter().map(|line| text::line(line, WIDTH)).collect();
    Splat {
        class,
        fingerprint: fingerprint::of(class, &subject, &frames),
        title: text::line(title, WIDTH),
        subject: text::line(&subject, WIDTH),
        frames,
        evidence: kept.join("\n"),
        seen,
        times: 1,
        suspects: Vec::new(),
        allowed: None,
    }
}

/// Finds splats in log text; repetitions increase a counter.
pub fn scan(log: &str) -> Vec<Splat> {
    scan_as(log, SplatPlace::Console)
}

/// As [`scan`], for text that the agent read from the kernel log.
pub fn scan_kernel_log(log: &str) -> Vec<Splat> {
    scan_as(log, SplatPlace::KernelLog)
}

fn scan_as(log: &str, seen: SplatPlace) -> Vec<Splat> {
    let mut found: Vec<Splat> = Vec::new();
    for (class, lines) in complaint::scan(log) {
        match found.get_mut(MOST_KINDS) {
            // A splat that is not reported needs no fingerprint.
            Some(rest) => rest.times = rest.times.saturating_add(1),
            None => gather(&mut found, read(class, &lines, seen)),
        }
    }
    found
}

/// Adds a splat: a repeated one increases its counter. After [`MOST_KINDS`] different ones, a single splat, which no
/// list can allow, stands for all further ones.
pub fn gather(found: &mut Vec<Splat>, splat: Splat) {
    let full = found.len() >= MOST_KINDS;
    let same = found.iter().position(|known| known.fingerprint == splat.fingerprint);
    let same = same.or_else(|| found.iter().position(|known| full && known.fingerprint == FURTHER));
    if let Some(known) = same.and_then(|at| found.get_mut(at)) {
        known.times = known.times.saturating_add(splat.times);
    } else if full {
        let title = format!("more than {MOST_KINDS} different splats at once; the next one: {}", splat.title);
        found.push(Splat { fingerprint: FURTHER.to_owned(), title: text::line(&title, WIDTH), allowed: None, ..splat });
    } else {
        found.push(splat);
    }
}

/// Merges the splats of both sources. The kernel log is complete where the console's log level suppressed frames, so it
/// determines the fingerprint of splats that both have. After a crash only the console has the splat.
pub fn merge(console: Vec<Splat>, kernel_log: Vec<Splat>) -> Vec<Splat> {
    let mut all = kernel_log;
    for splat in console {
        let same = all.iter_mut().find(|known| {
            known.class == splat.class && known.subject == splat.subject && known.seen != SplatPlace::Console
        });
        match same {
            Some(known) => {
                known.seen = SplatPlace::Both;
                known.times = known.times.max(splat.times);
            }
            None => gather(&mut all, splat),
        }
    }
    all
}
