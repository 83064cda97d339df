//! Deadlines in layers, for a fast guest; [`Timing::scaled`] makes them fit a slow one.

use lab_protocol::CellInfo;
use std::time::Duration;

/// How long the run loop waits for what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Launch to the agent's hello.
    pub boot: Duration,
    /// Start of a restored guest to its agent's hello.
    pub restore: Duration,
    /// Between two messages of a guest that has said hello. The agent's heartbeat comes every second of guest time
    /// from a thread of its own.
    pub silence: Duration,
    /// Between two cells: probing before the first one, cleaning up after each.
    pub idle: Duration,
    /// On top of a cell's own deadline, which the agent watches: the host only acts when the agent can't.
    pub cell_grace: Duration,
    /// From the host's `Shutdown` to the end of the machine.
    pub shutdown: Duration,
    /// How often the loop looks at everything but the port.
    pub poll: Duration,
    /// Factor on a cell's own deadline, and what the guest is told.
    pub scale: f32,
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
            poll: Duration::from_millis(50),
            scale: 1.0,
        }
    }
}

impl Timing {
    /// The same layers for a guest that is `scale` times slower than one under KVM.
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
            poll: self.poll,
            scale,
        }
    }

    /// The same layers, stretched where a guest turned out to be slower than assumed. A guest that booted fast is not
    /// held to it: the host may be busier later.
    #[must_use]
    pub fn at_least(self, scale: f32) -> Self {
        if scale <= self.scale {
            return self;
        }
        Self { scale, ..self.scaled(scale / self.scale) }
    }

    /// What a cell may take before the host gives the guest up.
    pub fn cell(&self, info: &CellInfo) -> Duration {
        Duration::from_millis(info.deadline_ms.into()).mul_f32(self.scale) + self.cell_grace
    }

    /// What a guest may take for these cells, whatever it does in between: the last resort.
    pub fn guest<'a>(&self, cells: impl Iterator<Item = &'a CellInfo>) -> Duration {
        cells.map(|info| self.cell(info)).sum::<Duration>() + self.boot + self.idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_boot_stretches_and_a_fast_one_does_not_tighten() {
        let usual = Timing::default().scaled(10.0);
        assert_eq!(usual.silence, Duration::from_secs(100));
        assert_eq!(usual.at_least(4.0), usual);
        let slow = usual.at_least(20.0);
        assert_eq!((slow.silence, slow.scale), (Duration::from_secs(200), 20.0));
        assert_eq!(slow.poll, usual.poll);
    }
}
