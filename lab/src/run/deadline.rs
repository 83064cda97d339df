//! Deadlines from the command line: `--deadline LAYER=TIME`.

use std::{str::FromStr, time::Duration};

/// The layers of deadlines, from the inside out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Boot,
    Silence,
    Idle,
    Cell,
    Guest,
    Run,
}

const LAYERS: [(&str, Layer); 6] = [
    ("boot", Layer::Boot),
    ("silence", Layer::Silence),
    ("idle", Layer::Idle),
    ("cell", Layer::Cell),
    ("guest", Layer::Guest),
    ("run", Layer::Run),
];

/// A deadline of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    layer: Layer,
    limit: Duration,
}

impl FromStr for Deadline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || LAYERS.map(|(name, _)| name).join(", ");
        let (name, time) = text.split_once('=').ok_or("it takes LAYER=TIME, for example silence=30s")?;
        let layer = LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer);
        let layer = layer.ok_or_else(|| format!("no layer is called `{name}`; there are {}", names()))?;
        let limit = humantime::parse_duration(time)
            .map_err(|error| format!("`{time}` is no time ({error}); write 500ms, 30s, 15m or 2h"))?;
        if limit.is_zero() {
            return Err(format!("`{time}` leaves no time at all"));
        }
        Ok(Self { layer, limit })
    }
}

/// Deadlines from the command line; those that are `None` are computed for the accelerator.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Chosen {
    /// From launch to the agent's Hello.
    pub boot: Option<Duration>,
    /// Between two messages of a guest.
    pub silence: Option<Duration>,
    /// Between two cells: the probes before the first one, and the clean-up after each.
    pub idle: Option<Duration>,
    /// Each cell, from its start to its report.
    pub cell: Option<Duration>,
    /// From a guest's launch to its last cell's report.
    pub guest: Option<Duration>,
    /// The whole run.
    pub run: Option<Duration>,
}

impl Chosen {
    /// If a layer is given several times, the last value counts.
    pub fn of(deadlines: &[Deadline]) -> Self {
        let last = |layer| deadlines.iter().rev().find(|it| it.layer == layer).map(|it| it.limit);
        Self {
            boot: last(Layer::Boot),
            silence: last(Layer::Silence),
            idle: last(Layer::Idle),
            cell: last(Layer::Cell),
            guest: last(Layer::Guest),
            run: last(Layer::Run),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::timing::Timing;

    #[test]
    fn a_chosen_deadline_is_meant_as_it_is_said() {
        let chosen: Vec<Deadline> =
            ["boot=1m", "silence=30s", "silence=7s", "run=2h"].map(|text| text.parse().unwrap()).to_vec();
        let timing = Timing::default().scaled(10.0).choosing(Chosen::of(&chosen)).at_least(40.0);
        assert_eq!((timing.boot, timing.silence), (Duration::from_secs(60), Duration::from_secs(7)));
        assert_eq!(timing.restore(), Duration::from_secs(60), "a restore is not given more than a boot");
        assert_eq!(timing.idle, Timing::default().idle * 40, "the others still fit the accelerator");
    }

    #[test]
    fn a_wrong_one_says_what_is_right() {
        let error = |text: &str| text.parse::<Deadline>().unwrap_err();
        assert_eq!(error("30s"), "it takes LAYER=TIME, for example silence=30s");
        assert_eq!(error("beat=3s"), "no layer is called `beat`; there are boot, silence, idle, cell, guest, run");
        assert!(error("run=soon").ends_with("write 500ms, 30s, 15m or 2h"), "{}", error("run=soon"));
        assert_eq!(error("run=0s"), "`0s` leaves no time at all");
    }
}
