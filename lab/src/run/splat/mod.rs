//! Splats of a kernel: found on the console and in the kernel log, classified, and given a fingerprint by which the
//! same splat is known again on another kernel and in another run.

mod fingerprint;
mod trace;
mod watch;

#[cfg(test)]
mod tests;

use lab_base::text;
use lab_protocol::complaint::{self, Class};
use lab_record::splat::{Seen, Splat};
pub use watch::Watch;

/// Longest line in a report, characters.
const WIDTH: usize = 300;
/// Cases that a late splat names: its cause may lie before the case that it fell into.
pub const MOST_SUSPECTS: usize = 3;

/// The splat that these lines are.
fn read(class: Class, lines: &[&str], seen: Seen) -> Splat {
    let title = lines.iter().find(|line| Class::of(line).is_some()).or(lines.first()).copied().unwrap_or_default();
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

/// Finds splats in log text; the same one again only counts.
pub fn scan(log: &str) -> Vec<Splat> {
    scan_as(log, Seen::Console)
}

/// The same for what the agent read from the kernel log.
pub fn scan_kernel_log(log: &str) -> Vec<Splat> {
    scan_as(log, Seen::KernelLog)
}

fn scan_as(log: &str, seen: Seen) -> Vec<Splat> {
    let mut found: Vec<Splat> = Vec::new();
    for (class, lines) in complaint::scan(log) {
        let splat = read(class, &lines, seen);
        match found.iter_mut().find(|known| known.fingerprint == splat.fingerprint) {
            Some(known) => known.times += 1,
            None => found.push(splat),
        }
    }
    found
}

/// What two sources tell of the same time. The kernel log is whole where the console's level kept frames back, so that
/// it decides the fingerprint of what both have; a kernel that died left nothing in it.
pub fn merge(console: Vec<Splat>, kernel_log: Vec<Splat>) -> Vec<Splat> {
    let mut all = kernel_log;
    for splat in console {
        let same = all
            .iter_mut()
            .find(|known| known.class == splat.class && known.subject == splat.subject && known.seen != Seen::Console);
        match same {
            Some(known) => {
                known.seen = Seen::Both;
                known.times = known.times.max(splat.times);
            }
            None => all.push(splat),
        }
    }
    all
}
