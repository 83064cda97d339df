//! Deadlines in layers, for a fast guest; [`Timing::scaled`] makes them fit a slow one.

use lab_protocol::CellInfo;
use std::time::Duration;

/// How long the run loop waits for what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Launch to the agent's hello.
    pub boot: Duration,
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
            silence: self.silence.mul_f32(scale),
            idle: self.idle.mul_f32(scale),
            cell_grace: self.cell_grace.mul_f32(scale),
            shutdown: self.shutdown.mul_f32(scale),
            poll: self.poll,
            scale,
        }
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
