//! What a program did to its machine beside attaching: modules, taint, memory, processors, processes that the kernel killed.

use lab_protocol::witness::{Effects, NAMES};
use std::{collections::BTreeSet, fs};

/// Clock ticks of `/proc/PID/stat` in a second (`USER_HZ`, include/asm-generic/param.h).
const TICKS: u64 = 100;

/// What is read at the begin.
#[derive(Debug, Clone, Default)]
pub struct EffectsBegin {
    modules: BTreeSet<String>,
    taint: u64,
    oom_kills: u64,
    ticks: u64,
    available_kib: u64,
    least_kib: u64,
}

impl EffectsBegin {
    /// Reads it.
    pub fn now() -> Self {
        let available_kib = available();
        Self {
            modules: modules(),
            taint: number("/proc/sys/kernel/tainted"),
            oom_kills: counter("/proc/vmstat", "oom_kill"),
            ticks: ticks(),
            available_kib,
            least_kib: available_kib,
        }
    }

    /// As it is when the program starts, of what was read earlier: what has been free since then is not the program's.
    pub fn again(self) -> Self {
        let available_kib = available();
        Self { ticks: ticks(), available_kib, least_kib: available_kib, ..self }
    }

    /// Looks at the memory meanwhile.
    pub fn look(&mut self) {
        self.least_kib = self.least_kib.min(available());
    }

    /// What changed since.
    pub fn finish(mut self) -> Effects {
        self.look();
        let now = Self::now();
        let mut modules: Vec<String> = now.modules.difference(&self.modules).cloned().collect();
        modules.truncate(NAMES);
        Effects {
            modules,
            taint: now.taint & !self.taint,
            oom_kills: now.oom_kills.saturating_sub(self.oom_kills),
            cpu_ms: now.ticks.saturating_sub(self.ticks).saturating_mul(1000 / TICKS),
            memory_kib: self.available_kib.saturating_sub(self.least_kib),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &str) -> u64 {
    read(path).trim().parse().unwrap_or_default()
}

fn modules() -> BTreeSet<String> {
    read("/proc/modules").lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

/// A line `NAME NUMBER` or `NAME: NUMBER kB`.
fn counter(path: &str, name: &str) -> u64 {
    find(&read(path), name)
}

fn find(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.trim_start_matches(':').split_whitespace().next()?.parse().ok();
    text.lines().find_map(value).unwrap_or_default()
}

fn available() -> u64 {
    counter("/proc/meminfo", "MemAvailable")
}

/// Time of this process's children that have ended and were waited for: all of the program's are, since orphans come to PID 1.
fn ticks() -> u64 {
    spent(&read("/proc/self/stat"))
}

/// `cutime` and `cstime`, the fields 16 and 17 (proc_pid_stat(5)).
fn spent(stat: &str) -> u64 {
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0 };
    rest.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_times_are_read_by_their_names_and_places() {
        assert_eq!(find("oom_kill 3\noom_killer 9\n", "oom_kill"), 3);
        assert_eq!(find("MemTotal: 9 kB\nMemAvailable:    77 kB\n", "MemAvailable"), 77);
        assert_eq!(find("", "oom_kill"), 0);
        assert_eq!(spent("1 (a) b) S 0 1 1 0 -1 4 10 11 12 13 14 15 16 17 20 0 1"), 16 + 17);
        assert_eq!(spent("nothing"), 0);
    }
}
