//! Finds the start and the end of splats.

use super::{
    SplatClass,
    class::{LEAKED_OBJECT, LEAKED_OBJECT_GOES_ON},
};

/// Prefix of the lab's own records; such a record ends a splat.
pub const MARK: &str = "netkit-lab:";
/// Maximum number of kept lines of a splat; a longer one is cut.
pub const MOST_LINES: usize = 120;
/// Maximum number of records between the end of an oops and its panic (`oops_end` prints the registers again).
const PANIC_WITHIN: usize = 40;
/// Maximum number of records between `cut here` and its header: the formatted message of `WARN` comes first.
const HEADER_WITHIN: usize = 4;
/// The line before a WARN or a BUG.
pub const CUT_HERE: &str = "------------[ cut here ]------------";

/// A line without printk's prefix: the time stamp `[ 12.345678]`, the caller's id `[ T123]` or `[ C0]` under
/// CONFIG_PRINTK_CALLER, and one space. Brackets and indentation of the record itself are kept.
pub fn record(line: &str) -> &str {
    let mut rest = line.trim_end().trim_start_matches('\r');
    while let Some((stamp, words)) = rest.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        let inside = stamp.trim_start();
        let time = inside.contains('.') && inside.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let caller = inside.strip_prefix(['T', 'C']).is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_digit()));
        if !time && !caller {
            break;
        }
        rest = words.strip_prefix(' ').unwrap_or(words);
    }
    rest
}

/// Finds splats in log text: class and lines of each, without time stamps.
pub fn scan(log: &str) -> Vec<(SplatClass, Vec<&str>)> {
    let records: Vec<&str> = log.lines().map(record).collect();
    let mut found: Vec<(SplatClass, Vec<&str>)> = Vec::new();
    let mut last_end = 0;
    let mut at = 0;
    while at < records.len() {
        let Some(class) = SplatClass::of(records[at]) else {
            at += 1;
            continue;
        };
        if class == SplatClass::Panic
            && let Some((SplatClass::Oops | SplatClass::Bug, lines)) = found.last_mut()
            && at - last_end <= PANIC_WITHIN
            && records[last_end..at].iter().all(|record| !record.starts_with(MARK))
            && lines.iter().any(|line| line.starts_with("---[ end trace"))
        {
            // The panic that an oops causes is not a separate splat.
            let end = end_of(class, &records, at);
            let room = MOST_LINES.saturating_sub(lines.len());
            lines.extend(records[at..end].iter().take(room));
            (last_end, at) = (end, end);
            continue;
        }
        let end = end_of(class, &records, at);
        let begin = begin_of(&records, last_end, at);
        let class = refine(class, &records[begin..end]);
        found.push((class, records[begin..end].iter().take(MOST_LINES).copied().collect()));
        (last_end, at) = (end, end);
    }
    found
}

/// `cut here` and the message of a WARN come before its header.
fn begin_of(records: &[&str], floor: usize, header: usize) -> usize {
    let near = header.saturating_sub(HEADER_WITHIN).max(floor);
    records[near..header].iter().rposition(|record| *record == CUT_HERE).map_or(header, |cut| near + cut + 1)
}

fn end_of(class: SplatClass, records: &[&str], header: usize) -> usize {
    if class == SplatClass::Oom && records[header].contains("ut of memory: ") {
        return header + 1;
    }
    let mut sub = class;
    for (at, record) in records.iter().enumerate().skip(header + 1).take(MOST_LINES - 1) {
        if record.starts_with(MARK) || *record == CUT_HERE && class != SplatClass::Oops {
            return at;
        }
        if record.starts_with("---[ end ") {
            return at + 1;
        }
        if let Some(next) = SplatClass::of(record) {
            let goes_on = match (sub, next) {
                // A fault has several headers, and may cause a panic immediately.
                (SplatClass::Oops | SplatClass::Bug | SplatClass::Kasan, SplatClass::Oops) | (_, SplatClass::Panic) => {
                    true
                }
                (SplatClass::Oom, SplatClass::Oom) => !record.contains(" invoked oom-killer: "),
                // Each object has a header of its own.
                (SplatClass::Leak, SplatClass::Leak) if record.starts_with(LEAKED_OBJECT) => false,
                (SplatClass::Leak, SplatClass::Leak) | (SplatClass::NetnsLeak, SplatClass::Leak) => true,
                _ => false,
            };
            if !goes_on {
                return at;
            }
            sub = if next == SplatClass::Panic { next } else { sub };
        } else if is_brief(class)
            && !record.starts_with([' ', '\t'])
            && !record.starts_with(LEAKED_OBJECT_GOES_ON)
            && !record.is_empty()
        {
            return at;
        }
        if class == SplatClass::Oom && record.contains("ut of memory: ") {
            return at + 1;
        }
    }
    records.len().min(header + MOST_LINES)
}

/// Whether a splat of this class is one line with indented lines below it.
const fn is_brief(class: SplatClass) -> bool {
    matches!(class, SplatClass::NetnsLeak | SplatClass::Leak)
}

/// A refcount splat is a WARN by its header.
fn refine(class: SplatClass, lines: &[&str]) -> SplatClass {
    match class {
        SplatClass::Warn if lines.iter().take(HEADER_WITHIN).any(|line| line.starts_with("refcount_t: ")) => {
            SplatClass::Refcount
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn time_stamps_are_removed_and_the_record_is_kept() {
        assert_eq!(record("[   12.345678] WARNING: CPU: 0"), "WARNING: CPU: 0");
        assert_eq!(record("[   12.345678][  T123] x"), "x");
        assert_eq!(record("[   12.345678][    C0] WARNING: CPU: 0"), "WARNING: CPU: 0", "from an interrupt");
        assert_eq!(record("[   12.345678] [ BUG: Invalid wait context ]\r"), "[ BUG: Invalid wait context ]");
        assert_eq!(record("[    1.000000]  f+0x1/0x2"), " f+0x1/0x2");
        assert_eq!(record("[<ffff>] f"), "[<ffff>] f");
    }

    #[test]
    fn an_oops_and_its_panic_are_one_splat() {
        let log = "BUG: kernel NULL pointer dereference, address: 0\nOops: 0002 [#1] SMP\nRIP: 0010:f+0x1/0x2\n\
                   ---[ end trace 0 ]---\nRIP: 0010:f+0x1/0x2\nKernel panic - not syncing: Fatal exception\n\
                   ---[ end Kernel panic - not syncing: Fatal exception ]---\n";
        let found = scan(log);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].0, found[0].1.last().copied().unwrap().starts_with("---[ end Kernel")),
            (SplatClass::Oops, true)
        );
    }

    #[test]
    fn a_splat_ends_at_a_record_of_the_lab_or_another_splat() {
        let log = "BUG: Bad page state in process x\n a\nnetkit-lab: end A01\nBUG: Bad rss-counter\n\
                   WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n---[ end trace 0 ]---\nquiet\n";
        let classes: Vec<(SplatClass, usize)> =
            scan(log).into_iter().map(|(class, lines)| (class, lines.len())).collect();
        assert_eq!(classes, [(SplatClass::Bug, 2), (SplatClass::Bug, 1), (SplatClass::Warn, 2)]);
    }

    #[test]
    fn a_much_later_panic_is_a_separate_splat() {
        let quiet = "eth0: up\n".repeat(PANIC_WITHIN + 1);
        let log = format!("kernel BUG at a.c:1!\n---[ end trace 0 ]---\n{quiet}Kernel panic - not syncing: x\n");
        assert_eq!(scan(&log).len(), 2);
        let warn = "WARNING: at f+0x1/0x2\n---[ end trace 0 ]---\nKernel panic - not syncing: sysrq triggered crash\n";
        assert_eq!(scan(warn).len(), 2, "a WARN causes no panic");
    }

    proptest! {
        #[test]
        fn no_log_causes_a_panic(text in "(\\PC|[\\[\\]\n\r]|WARNING: CPU: |BUG: |---\\[ end trace|------------\\[ cut here \\]------------\n|Kernel panic - not syncing|Oops: ){0,200}") {
            for (_, lines) in scan(&text) {
                prop_assert!(!lines.is_empty() && lines.len() <= MOST_LINES);
            }
        }
    }
}
