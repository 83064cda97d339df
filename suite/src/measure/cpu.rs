//! Processor time of everything that runs, softirqs included.

use std::{fs, io, thread, time::Duration};

/// Time in which the processor goes idle once: running tasks are only charged when they are switched from.
const PAUSE: Duration = Duration::from_millis(2);
/// `rq_cpu_time` in a `cpu` line of `/proc/schedstat`, counted from the name (`show_schedstat` in kernel/sched/stats.c).
const RUN_TIME: usize = 7;

/// Nanoseconds that tasks have run on all processors since boot. Softirqs count for the task that they interrupt, and
/// `ksoftirqd` is a task.
///
/// # Errors
/// The kernel is built without `CONFIG_SCHEDSTATS`.
pub fn time() -> io::Result<u64> {
    thread::sleep(PAUSE);
    parse(&fs::read_to_string("/proc/schedstat")?)
}

fn parse(text: &str) -> io::Result<u64> {
    let lines = text.lines().filter(|line| line.starts_with("cpu"));
    let times =
        lines.map(|line| line.split_ascii_whitespace().nth(RUN_TIME).and_then(|field| field.parse::<u64>().ok()));
    let sum = times.fold(Some(0), |sum, time| Some(sum? + time?)).filter(|sum| *sum > 0);
    sum.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/schedstat has no run times"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_the_run_times_of_all_processors() {
        let text = "version 15\ntimestamp 4297299139\ncpu0 0 0 0 0 0 0 1000 20 30\ndomain0 3 1 2\n\
                    cpu1 9 0 9 9 9 9 234 5 6\n";
        assert_eq!(parse(text).unwrap(), 1234);
        assert!(parse("version 15\n").is_err());
        assert!(parse("cpu0 1 2\n").is_err());
    }
}
