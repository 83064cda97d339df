//! Layers of deadlines, for a fast guest; [`Timing::scaled`] adapts them to a slow one.

use super::deadline::Chosen;
use lab_protocol::{CellInfo, cell::NO_DEADLINE};
use lab_record::plan::{Plan, PlannedCell};
use std::time::Duration;

/// Longer than any run, and short enough to be added up.
const FOREVER: Duration = Duration::from_hours(24 * 365 * 100);

/// Deadlines of the run loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// From launch to the agent's Hello.
    pub boot: Duration,
    /// From the start of a restored guest to its agent's Hello, see [`Self::restore()`].
    pub restore: Duration,
    /// Between two messages of a guest after Hello. The agent sends a heartbeat every second of guest time from a
    /// separate thread.
    pub silence: Duration,
    /// Between two cells: probing before the first one, clean-up after each.
    pub idle: Duration,
    /// In addition to a cell's own deadline, which the agent enforces: the host acts only if the agent can't.
    pub cell_grace: Duration,
    /// From the host's `Shutdown` to the end of the machine, see [`Self::shutdown()`].
    pub shutdown: Duration,
    /// Time in which a hanging guest must answer queries, see [`Self::evidence()`].
    pub evidence: Duration,
    /// Interval at which the loop checks everything but the port.
    pub poll: Duration,
    /// Minimum of the deadlines for restore, shutdown and evidence, even for a fast guest: successful operations never
    /// wait for it, and a host that was idle during the boot may be busy now.
    pub floor: Duration,
    /// Factor on a cell's own deadline; also sent to the guest.
    pub scale: f32,
    /// Deadlines from the command line, which are not scaled.
    pub chosen: Chosen,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(20),
            restore: Duration::from_secs(3),
            silence: Duration::from_secs(10),
            idle: Duration::from_secs(20),
            cell_grace: Duration::from_secs(5),
            shutdown: Duration::from_secs(2),
            evidence: Duration::from_secs(3),
            poll: Duration::from_millis(50),
            floor: Duration::from_secs(10),
            scale: 1.0,
            chosen: Chosen::default(),
        }
    }
}

impl Timing {
    /// Deadlines for a guest that is `scale` times slower than a guest under KVM.
    #[must_use]
    pub fn scaled(self, scale: f32) -> Self {
        let scale = scale.clamp(1.0, 100.0);
        Self {
            boot: self.boot.mul_f32(scale),
            restore: self.restore.mul_f32(scale),
            silence: self.silence.mul_f32(scale),
            idle: self.idle.mul_f32(scale),
            cell_grace: self.cell_grace.mul_f32(scale),
            shutdown: self.shutdown.mul_f32(scale),
            evidence: self.evidence.mul_f32(scale),
            poll: self.poll,
            floor: self.floor,
            scale,
            chosen: self.chosen,
        }
        .held()
    }

    /// Replaces some deadlines by those from the command line.
    #[must_use]
    pub fn choosing(self, chosen: Chosen) -> Self {
        Self { chosen, ..self }.held()
    }

    fn held(self) -> Self {
        Self {
            boot: self.chosen.boot.unwrap_or(self.boot),
            silence: self.chosen.silence.unwrap_or(self.silence),
            idle: self.chosen.idle.unwrap_or(self.idle),
            ..self
        }
    }

    /// Extends the deadlines for a guest that is slower than assumed. A fast boot does not shorten them: the host may
    /// be busier later.
    #[must_use]
    pub fn at_least(self, scale: f32) -> Self {
        if scale <= self.scale {
            return self;
        }
        Self { scale, ..self.scaled(scale / self.scale) }
    }

    /// For a guest that looks for leaked memory before it ends.
    #[must_use]
    pub fn scanning(self) -> Self {
        /// Two scans, and the age from which on memory counts as leaked.
        const SCANS: Duration = Duration::from_secs(15);
        Self { shutdown: self.shutdown + SCANS.mul_f32(self.scale), ..self }
    }

    /// From the start of a restored guest to its agent's Hello; never more than a boot deadline from the command line.
    pub fn restore(&self) -> Duration {
        let restore = self.restore.max(self.floor);
        self.chosen.boot.map_or(restore, |boot| boot.min(restore))
    }

    /// From the host's `Shutdown` to the end of the machine.
    pub fn shutdown(&self) -> Duration {
        self.shutdown.max(self.floor)
    }

    /// Time in which a hanging guest must answer queries.
    pub fn evidence(&self) -> Duration {
        self.evidence.max(self.floor)
    }

    /// Maximum time of a cell before the host gives the guest up.
    pub fn cell(&self, info: &CellInfo) -> Duration {
        if info.deadline_ms == NO_DEADLINE {
            return self.chosen.cell.unwrap_or(FOREVER);
        }
        let planned = || Duration::from_millis(info.deadline_ms.into()).mul_f32(self.scale) + self.cell_grace;
        self.chosen.cell.unwrap_or_else(planned)
    }

    /// Maximum time from a guest's launch to the last report of these cells, which it received `after` its launch. It
    /// applies even if the guest sends messages.
    pub fn guest<'a>(&self, after: Duration, cells: impl Iterator<Item = &'a CellInfo>) -> Duration {
        let sum = || cells.map(|info| self.cell(info)).sum::<Duration>() + after + self.boot + self.idle;
        self.chosen.guest.unwrap_or_else(sum)
    }

    /// Maximum time of a run: twice the time of each cell of each kernel in a guest of its own. A run that makes
    /// progress never reaches it; it ends runs whose guests are all merely slow.
    pub fn run(&self, plan: &Plan) -> Duration {
        let cells = plan.kernels.iter().flat_map(|kernel| &kernel.cells);
        let one =
            |cell: &PlannedCell| plan.info(&cell.id).map_or(self.idle, |info| self.cell(info)) + self.boot + self.idle;
        self.chosen.run.unwrap_or_else(|| (cells.map(one).sum::<Duration>() + self.boot) * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_boot_extends_deadlines_and_a_fast_one_does_not_shorten_them() {
        let usual = Timing::default().scaled(10.0);
        assert_eq!(usual.silence, Duration::from_secs(100));
        assert_eq!(usual.at_least(4.0), usual);
        let slow = usual.at_least(20.0);
        assert_eq!((slow.silence, slow.scale), (Duration::from_secs(200), 20.0));
        assert_eq!(slow.poll, usual.poll);
    }

    #[test]
    fn a_fast_guest_has_enough_time_on_a_busy_host() {
        let waits = |scale| {
            let timing = Timing::default().scaled(scale);
            [timing.restore(), timing.shutdown(), timing.evidence()].map(|wait| wait.as_secs())
        };
        assert_eq!(waits(2.0), [10, 10, 10]);
        assert_eq!(waits(10.0), [30, 20, 30]);
        assert_eq!(Timing::default().scaled(2.0).at_least(8.0).shutdown(), Duration::from_secs(16));
    }
}
