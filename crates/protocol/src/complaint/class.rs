//! Classes of splats.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Class of a splat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplatClass {
    /// The kernel gave up (`kernel/panic.c`).
    Panic,
    /// A fault that kills the thread, or the machine under `oops=panic` (`arch/x86/mm/fault.c`, `arch/x86/kernel/traps.c`).
    Oops,
    /// `BUG()` and everything else that calls itself a bug (`lib/bug.c`, `kernel/sched/core.c`, `mm/page_alloc.c`).
    Bug,
    /// `WARN()` (`kernel/panic.c`).
    Warn,
    /// Locks (`kernel/locking/lockdep.c`).
    Lockdep,
    /// Memory (`mm/kasan/report.c`, `mm/kfence/report.c`, `mm/kmsan/report.c`).
    Kasan,
    /// Data races (`kernel/kcsan/report.c`).
    Kcsan,
    /// Undefined behaviour (`lib/ubsan.c`).
    Ubsan,
    /// RCU waits too long for a grace period (`kernel/rcu/tree_stall.h`, `kernel/rcu/tasks.h`).
    RcuStall,
    /// A processor does not schedule (`kernel/watchdog.c`).
    SoftLockup,
    /// A processor takes no interrupts (`kernel/watchdog.c`).
    HardLockup,
    /// A task sleeps uninterruptibly for too long (`kernel/hung_task.c`).
    HungTask,
    /// A workqueue does not get on, or a work item left a lock behind (`kernel/workqueue.c`).
    Workqueue,
    /// No memory (`mm/oom_kill.c`, `mm/page_alloc.c`).
    Oom,
    /// A device that is gone is still held, and with it its network namespace (`net/core/dev.c`).
    NetnsLeak,
    /// A reference counter that overflowed or underflowed (`lib/refcount.c`).
    Refcount,
    /// References or memory that were not released (`lib/ref_tracker.c`, `mm/kmemleak.c`).
    Leak,
}

/// What sets a header apart.
enum Words {
    /// The record starts with it.
    Starts(&'static str),
    /// The record starts with the first and has the second further on.
    StartsAndHas(&'static str, &'static str),
    /// The record has it after a name that differs.
    Has(&'static str),
}

/// Headers, the more particular ones first.
const HEADERS: [(Words, SplatClass); 51] = {
    use SplatClass::{
        Bug, HardLockup, HungTask, Kasan, Kcsan, Leak, Lockdep, NetnsLeak, Oom, Oops, Panic, RcuStall, SoftLockup,
        Ubsan, Warn, Workqueue,
    };
    use Words::{Has, Starts, StartsAndHas};
    [
        (Starts("Kernel panic - "), Panic),
        (Starts("BUG: KASAN: "), Kasan),
        (Starts("BUG: KFENCE: "), Kasan),
        (Starts("BUG: KMSAN: "), Kasan),
        (Starts("BUG: KCSAN: "), Kcsan),
        (Starts("UBSAN: "), Ubsan),
        (Starts("BUG: kernel NULL pointer dereference"), Oops),
        (Starts("BUG: unable to handle "), Oops),
        (Starts("BUG: stack guard page was hit"), Oops),
        (Starts("BUG: TASK stack guard page was hit"), Oops),
        (Starts("Unable to handle kernel "), Oops),
        (Starts("Internal error: "), Oops),
        (Starts("Oops: "), Oops),
        (Starts("general protection fault"), Oops),
        (Starts("double fault: "), Oops),
        (Starts("invalid opcode: "), Oops),
        (Starts("divide error: "), Oops),
        (Starts("traps: PANIC: "), Oops),
        (Starts("kernel BUG at "), Bug),
        (Starts("watchdog: BUG: soft lockup"), SoftLockup),
        (Starts("BUG: soft lockup"), SoftLockup),
        (StartsAndHas("NMI watchdog: ", "BUG: soft lockup"), SoftLockup),
        (StartsAndHas("watchdog: ", "detected hard LOCKUP"), HardLockup),
        (StartsAndHas("NMI watchdog: ", "detected hard LOCKUP"), HardLockup),
        (StartsAndHas("CPU", ": Watchdog detected hard LOCKUP"), HardLockup),
        (Starts("BUG: workqueue lockup"), Workqueue),
        (Starts("BUG: workqueue leaked "), Workqueue),
        (Starts("[ BUG: "), Lockdep),
        (Starts("BUG: MAX_LOCK"), Lockdep),
        (Starts("BUG: "), Bug),
        (StartsAndHas("INFO: task ", " blocked "), HungTask),
        (Starts("INFO: trying to register non-static key"), Lockdep),
        (Starts("rcu: INFO: "), RcuStall),
        (StartsAndHas("INFO: rcu", "detected"), RcuStall),
        (Starts("WARNING: possible "), Lockdep),
        (Starts("WARNING: suspicious RCU usage"), Lockdep),
        (Starts("WARNING: inconsistent lock state"), Lockdep),
        (Starts("WARNING: bad unlock balance"), Lockdep),
        (Starts("WARNING: bad contention detected"), Lockdep),
        (Starts("WARNING: held lock freed"), Lockdep),
        (Starts("WARNING: Nested lock was not taken"), Lockdep),
        (Starts("WARNING: lock held when returning to user space"), Lockdep),
        (StartsAndHas("WARNING: ", " lock order detected"), Lockdep),
        (StartsAndHas("WARNING: ", " still has locks held"), Lockdep),
        (Starts("WARNING: CPU: "), Warn),
        (Starts("Out of memory: "), Oom),
        (Starts("Memory cgroup out of memory: "), Oom),
        (Has(" invoked oom-killer: gfp_mask="), Oom),
        (Has(": page allocation failure: order:"), Oom),
        (Starts("unregister_netdevice: waiting for "), NetnsLeak),
        (Starts("kmemleak: "), Leak),
    ]
};

impl SplatClass {
    /// Every class.
    pub const ALL: [Self; 17] = [
        Self::Panic,
        Self::Oops,
        Self::Bug,
        Self::Warn,
        Self::Lockdep,
        Self::Kasan,
        Self::Kcsan,
        Self::Ubsan,
        Self::RcuStall,
        Self::SoftLockup,
        Self::HardLockup,
        Self::HungTask,
        Self::Workqueue,
        Self::Oom,
        Self::NetnsLeak,
        Self::Refcount,
        Self::Leak,
    ];

    /// The word used in fingerprints and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Oops => "oops",
            Self::Bug => "bug",
            Self::Warn => "warn",
            Self::Lockdep => "lockdep",
            Self::Kasan => "kasan",
            Self::Kcsan => "kcsan",
            Self::Ubsan => "ubsan",
            Self::RcuStall => "rcu-stall",
            Self::SoftLockup => "soft-lockup",
            Self::HardLockup => "hard-lockup",
            Self::HungTask => "hung-task",
            Self::Workqueue => "workqueue",
            Self::Oom => "oom",
            Self::NetnsLeak => "netns-leak",
            Self::Refcount => "refcount",
            Self::Leak => "leak",
        }
    }

    /// The class of the splat that a record begins, if it begins one. The record carries no time stamp.
    pub fn of(record: &str) -> Option<Self> {
        let known = HEADERS.iter().find(|(words, _)| match words {
            Words::Starts(start) => record.starts_with(start),
            Words::StartsAndHas(start, later) => record.starts_with(start) && record.contains(later),
            Words::Has(within) => record.contains(within),
        });
        if let Some((_, class)) = known {
            return Some(*class);
        }
        // Since 6.19 the place comes first ("panic: Slightly improve __warn() output": 28ea295f941e), and under
        // CONFIG_DEBUG_BUGVERBOSE_DETAILED the condition in brackets before it. A driver that merely prints "WARNING:"
        // names no function with offset and size.
        let words: Vec<&str> = record.strip_prefix("WARNING: ").unwrap_or_default().split_whitespace().collect();
        let banner = words.windows(2).any(|pair| pair[0] == "at" && pair[1].contains("+0x"));
        if banner {
            return Some(Self::Warn);
        }
        // lib/ref_tracker.c names a directory or an address first, and what it found later.
        (record.starts_with("ref_tracker: ") || record.starts_with("leaked reference")).then_some(Self::Leak)
    }

    /// Whether the kernel that the lab boots (`oops=panic`) panics after this record of the class.
    pub fn is_deadly(self, record: &str) -> bool {
        match self {
            Self::Panic | Self::Oops => true,
            // Much that calls itself a bug only says so.
            Self::Bug => record.starts_with("kernel BUG at "),
            _ => false,
        }
    }

    /// Whether it comes long after its cause: a timer, a worker or another processor noticed. The case that it fell into
    /// need not have done it.
    pub const fn is_late(self) -> bool {
        matches!(
            self,
            Self::RcuStall
                | Self::SoftLockup
                | Self::HardLockup
                | Self::HungTask
                | Self::Workqueue
                | Self::Oom
                | Self::NetnsLeak
                | Self::Leak
        )
    }
}

impl fmt::Display for SplatClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_header_has_its_class() {
        for (record, class) in [
            ("WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2", SplatClass::Warn),
            ("WARNING: net/core/dev.c:11405 at f+0x1/0x2, CPU#0: case/77", SplatClass::Warn),
            ("WARNING: [dev->reg_state == 3] net/core/dev.c:11405 at f+0x1/0x2, CPU#0: case/77", SplatClass::Warn),
            ("WARNING: at f+0x1/0x2, CPU#0: case/77", SplatClass::Warn),
            ("WARNING: [look at this] a.c:1 at f+0x1/0x2, CPU#0: case/77", SplatClass::Warn),
            ("WARNING: possible circular locking dependency detected", SplatClass::Lockdep),
            ("[ BUG: Invalid wait context ]", SplatClass::Lockdep),
            ("BUG: KFENCE: use-after-free read in f+0x1/0x2", SplatClass::Kasan),
            ("BUG: sleeping function called from invalid context at mm/x.c:1", SplatClass::Bug),
            ("watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 1", SplatClass::HardLockup),
            ("CPU1: Watchdog detected hard LOCKUP on cpu 1", SplatClass::HardLockup),
            ("INFO: rcu_tasks detected stalls on tasks:", SplatClass::RcuStall),
            ("INFO: task a:1 blocked in I/O wait for more than 120 seconds.", SplatClass::HungTask),
            ("case invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0", SplatClass::Oom),
            ("ref_tracker: netdev@ffff has 1/1 users at", SplatClass::Leak),
        ] {
            assert_eq!(SplatClass::of(record), Some(class), "{record}");
        }
    }

    #[test]
    fn other_records_have_none() {
        for record in [
            "foo: this is not a WARNING: CPU: at all",
            "WARNING: Spectre v2 mitigation leaves CPU vulnerable to RETBleed attacks",
            "WARNING: look at this",
            "INFO: task manager started",
            "workqueue: neigh_managed_work hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND",
            "rcu: Hierarchical RCU implementation.",
            "watchdog: Delayed init of the lockup detector failed: -19",
            "",
        ] {
            assert_eq!(SplatClass::of(record), None, "{record}");
        }
    }

    #[test]
    fn names_are_what_serde_writes() {
        for class in SplatClass::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.name());
        }
    }
}
