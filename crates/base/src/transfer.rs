//! The progress of a download: a bar that is redrawn on a terminal, and few plain lines in a log.

use crate::say;
use std::time::{Duration, Instant};

/// Interval between updates of a terminal's line.
pub const REFRESH: Duration = Duration::from_millis(250);
/// Interval between lines of a log, which keeps every line.
pub const LOG: Duration = Duration::from_secs(10);
/// Characters of a bar.
const BAR: usize = 20;

/// A download in progress.
#[derive(Debug)]
pub struct Transfer {
    label: String,
    total: u64,
    begin: Instant,
    last: Instant,
}

impl Transfer {
    /// Begins one of so many bytes.
    pub fn new(label: String, total: u64) -> Self {
        let now = Instant::now();
        Self { label, total, begin: now, last: now }
    }

    /// Shows how many bytes there are, if it is time to; lines of a log go to `say`.
    pub fn at(&mut self, done: u64, say: &dyn Fn(&str)) {
        let pause = if say::is_redrawn() { REFRESH } else { LOG };
        if self.last.elapsed() < pause {
            return;
        }
        self.last = Instant::now();
        let words = words(done, self.total, self.begin.elapsed());
        if say::is_redrawn() {
            say::redraw(&format!("{}: {} {words}", self.label, bar(done, self.total)));
        } else {
            say(&words);
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        say::undraw();
    }
}

/// A bar.
pub fn bar(done: u64, total: u64) -> String {
    let full = (done.min(total) * BAR as u64).checked_div(total).and_then(|full| usize::try_from(full).ok());
    let full = full.unwrap_or(BAR);
    format!("[{}{}]", "#".repeat(full), " ".repeat(BAR - full))
}

/// Bytes, and the time that the rest takes at the speed so far.
pub fn words(done: u64, total: u64, elapsed: Duration) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let done = done.min(total);
    // At the beginning the speed says nothing.
    let speed = done as f64 / elapsed.as_secs_f64().max(0.001);
    let left = if elapsed >= Duration::from_secs(1) && done > 0 && done < total {
        format!(", {:.0} s left", ((total - done) as f64 / speed).ceil())
    } else {
        String::new()
    };
    format!("{} of {} MiB{left}", mib(done), mib(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_bytes_and_the_time_left() {
        assert_eq!(bar(0, 100), "[                    ]");
        assert_eq!(bar(50, 100), "[##########          ]");
        assert_eq!(bar(200, 100), "[####################]");
        assert_eq!(bar(1, 0), "[####################]");
        assert_eq!(words(25 << 20, 100 << 20, Duration::from_secs(5)), "25 of 100 MiB, 15 s left");
        assert_eq!(words(0, 100 << 20, Duration::from_secs(5)), "0 of 100 MiB");
        assert_eq!(words(5 << 20, 100 << 20, Duration::ZERO), "5 of 100 MiB");
        assert_eq!(words(100 << 20, 100 << 20, Duration::from_secs(5)), "100 of 100 MiB");
    }
}
