//! Deadlines that a guest can't extend: boot, silence, time between cells, a cell, the whole guest.

use super::{Session, SessionEnd};
use lab_protocol::{CellId, ErrorKind};
use std::time::{Duration, Instant};

/// State of a guest.
pub(super) enum GuestState {
    Booting,
    /// The agent of its image has answered, and another one takes its place.
    Exchanging {
        since: Instant,
    },
    Between {
        since: Instant,
    },
    Running {
        cell: CellId,
        since: Instant,
    },
    /// In use by a shell or measurement: only its heartbeat is checked.
    Visited,
}

impl GuestState {
    /// Whether a Hello is expected, and nothing else counts.
    pub(super) const fn is_silent(&self) -> bool {
        matches!(self, Self::Booting | Self::Exchanging { .. })
    }
}

impl Session<'_> {
    /// Returns an end if a deadline has passed.
    pub(super) fn check_deadlines(&self) -> Result<(), SessionEnd> {
        let timing = &self.task.timing;
        let over = |since: Instant, limit: Duration| since.elapsed() > limit;
        let plan = self.task.plan;
        match &self.state {
            GuestState::Booting => {
                let limit = self.task.boot_limit();
                if over(self.launched, limit) {
                    return Err(self.lost(ErrorKind::Boot, format!("no Hello within {limit:.1?} of launch")));
                }
                return Ok(());
            }
            GuestState::Exchanging { since } => {
                if over(*since, timing.boot) {
                    return Err(
                        self.not_exchanged(ErrorKind::Boot, &format!("it sent no Hello within {:.1?}", timing.boot))
                    );
                }
                return Ok(());
            }
            GuestState::Between { since } if over(*since, timing.idle) => {
                return Err(self.lost(ErrorKind::Hang, format!("no cell started within {:.1?}", timing.idle)));
            }
            GuestState::Running { cell, since } => {
                let limit = plan.info(cell).map_or(timing.idle, |info| timing.cell(info));
                if over(*since, limit) {
                    return Err(self.lost(ErrorKind::Hang, format!("{cell} ran for more than {limit:.1?}")));
                }
            }
            GuestState::Between { .. } | GuestState::Visited => {}
        }
        if over(self.heard, timing.silence) {
            return Err(self.lost(ErrorKind::Hang, format!("no heartbeat for {:.1?}", timing.silence)));
        }
        if over(self.launched, self.limit) && !matches!(self.state, GuestState::Visited) {
            return Err(self.lost(ErrorKind::Hang, format!("the guest ran for more than {:.1?}", self.limit)));
        }
        Ok(())
    }
}
