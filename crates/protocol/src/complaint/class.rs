//! Classes of splats.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Class of a splat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplatClass {
    /// The kernel panicked (`kernel/panic.c`).
    Panic,
    /// A fault that kills the thread, or the machine under `oops=panic` (`arch/x86/mm/fault.c`,
    /// `arch/x86/kernel/traps.c`).
    Oops,
    /// `BUG()` and other messages that start with `BUG` (`lib/bug.c`, `kernel/sched/core.c`, `mm/page_alloc.c`).
    Bug,
    /// `WARN()` (`kernel/panic.c`).
    Warn,
    /// Incorrect locking (`kernel/locking/lockdep.c`).
    Lockdep,
    /// Invalid memory accesses (`mm/kasan/report.c`, `mm/kfence/report.c`, `mm/kmsan/report.c`).
    Kasan,
    /// Data races (`kernel/kcsan/report.c`).
    Kcsan,
    /// Undefined behaviour (`lib/ubsan.c`).
    Ubsan,
    /// RCU waits too long for a grace period (`kernel/rcu/tree_stall.h`, `kernel/rcu/tasks.h`).
    RcuStall,
    /// A processor does not schedule (`kernel/watchdog.c`).
    SoftLockup,
    /// A processor handles no interrupts (`kernel/watchdog.c`).
    HardLockup,
    /// A task sleeps uninterruptibly for too long (`kernel/hung_task.c`).
    HungTask,
    /// A workqueue makes no progress, or a work item did not release a lock (`kernel/workqueue.c`).
    Workqueue,
    /// Out of memory (`mm/oom_kill.c`, `mm/page_alloc.c`).
    Oom,
    /// A deleted device still has references, which also keep its network namespace (`net/core/dev.c`).
    NetnsLeak,
    /// A reference counter that overflowed or underflowed (`lib/refcount.c`).
    Refcount,
    /// References or memory that were not released (`lib/ref_tracker.c`, `mm/kmemleak.c`).
    Leak,
}

/// Pattern of a header.
enum Words {
    /// The record starts with it.
    Starts(&'static str),
    /// The record starts with the first text and contains the second.
    StartsAndHas(&'static str, &'static str),
    /// The record contains it after a variable name.
    Has(&'static str),
}

/// kmemleak's header of one object, under `kmemleak.verbose`; the lines about it begin with [`LEAKED_OBJECT_GOES_ON`].
pub(super) const LEAKED_OBJECT: &str = "kmemleak: unreferenced object ";
/// Its lines about the object: task, content, backtrace.
pub(super) const LEAKED_OBJECT_GOES_ON: &str = "kmemleak:  ";

/// Headers; more specific ones come first.
const HEADERS: [(Words, SplatClass); 53] = {
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
        (Starts(LEAKED_OBJECT), Leak),
        (StartsAndHas("kmemleak: ", "new suspected memory leaks"), Leak),
        // Afterwards it finds nothing.
        (Starts("kmemleak: Kernel memory leak detector disabled"), Leak),
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

    /// The name in fingerprints and reports.
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

    /// The class of the splat that starts with this record, if one does. The record has no time stamp.
    pub fn of(record: &str) -> Option<Self> {
        let known = HEADERS.iter().find(|(words, _)| match words {
            Words::Starts(start) => record.starts_with(start),
            Words::StartsAndHas(start, later) => record.starts_with(start) && record.contains(later),
            Words::Has(within) => record.contains(within),
        });
        if let Some((_, class)) = known {
            return Some(*class);
        }
        // Since 6.19 the source location comes first ("panic: Slightly improve __warn() output": 28ea295f941e), under
        // CONFIG_DEBUG_BUGVERBOSE_DETAILED after the condition in brackets. A driver that only prints "WARNING:" has no
        // function with offset and size.
        let words: Vec<&str> = record.strip_prefix("WARNING: ").unwrap_or_default().split_whitespace().collect();
        let banner = words.windows(2).any(|pair| pair[0] == "at" && pair[1].contains("+0x"));
        if banner {
            return Some(Self::Warn);
        }
        // lib/ref_tracker.c prints a directory or an address before the finding.
        (record.starts_with("ref_tracker: ") || record.starts_with("leaked reference")).then_some(Self::Leak)
    }

    /// Whether a guest's kernel (`oops=panic`) panics after this record of the class.
    pub fn is_deadly(self, record: &str) -> bool {
        match self {
            Self::Panic | Self::Oops => true,
            // Most messages that start with `BUG` do not end the kernel.
            Self::Bug => record.starts_with("kernel BUG at "),
            _ => false,
        }
    }

    /// Whether it may be printed long after its cause, by a timer, a worker or another processor. The cause may be
    /// another case than the running one.
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
    fn all_variants_of_a_header_have_its_class() {
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
            ("kmemleak: unreferenced object 0xffff888001234500 (size 320):", SplatClass::Leak),
            ("kmemleak: 8 new suspected memory leaks (see /sys/kernel/debug/kmemleak)", SplatClass::Leak),
            ("kmemleak: Kernel memory leak detector disabled", SplatClass::Leak),
        ] {
            assert_eq!(SplatClass::of(record), Some(class), "{record}");
        }
    }

    #[test]
    fn other_records_have_no_class() {
        for record in [
            "foo: this is not a WARNING: CPU: at all",
            "WARNING: Spectre v2 mitigation leaves CPU vulnerable to RETBleed attacks",
            "WARNING: look at this",
            "INFO: task manager started",
            "workqueue: neigh_managed_work hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND",
            "rcu: Hierarchical RCU implementation.",
            "kmemleak: Kernel memory leak detector initialized (mem pool available: 15713)",
            "kmemleak: Automatic memory scanning thread started",
            "kmemleak:   comm \"modprobe\", pid 77, jiffies 4294900000",
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
