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

/// Why a text is no deadline.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NotADeadline {
    /// It has no `=`.
    #[error("expected LAYER=TIME, for example silence=30s")]
    Form,
    /// Its layer does not exist.
    #[error("no deadline layer is called `{0}`; the layers are {layers}", layers = layer_names())]
    Layer(String),
    /// Its time can't be read.
    #[error("`{text}` is not a valid time ({error}); write 500ms, 30s, 15m or 2h")]
    Time {
        /// What was written.
        text: String,
        /// The parser's error; part of the message, therefore not a `source`.
        error: humantime::DurationError,
    },
    /// Nothing can meet it.
    #[error("`{0}` is too short: the time must be more than 0")]
    Zero(String),
}

fn layer_names() -> String {
    LAYERS.map(|(name, _)| name).join(", ")
}

impl FromStr for Deadline {
    type Err = NotADeadline;

    fn from_str(text: &str) -> Result<Self, NotADeadline> {
        let (name, time) = text.split_once('=').ok_or(NotADeadline::Form)?;
        let layer = LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer);
        let layer = layer.ok_or_else(|| NotADeadline::Layer(name.to_owned()))?;
        let limit =
            humantime::parse_duration(time).map_err(|error| NotADeadline::Time { text: time.to_owned(), error })?;
        if limit.is_zero() {
            return Err(NotADeadline::Zero(time.to_owned()));
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
    fn a_chosen_deadline_is_not_scaled() {
        let chosen: Vec<Deadline> =
            ["boot=1m", "silence=30s", "silence=7s", "run=2h"].map(|text| text.parse().unwrap()).to_vec();
        let timing = Timing::default().scaled(10.0).choosing(Chosen::of(&chosen)).at_least(40.0);
        assert_eq!((timing.boot, timing.silence), (Duration::from_secs(60), Duration::from_secs(7)));
        assert_eq!(timing.restore(), Duration::from_secs(60), "a restore is not given more than a boot");
        assert_eq!(timing.idle, Timing::default().idle * 40, "the others still fit the accelerator");
    }

    #[test]
    fn errors_show_the_expected_syntax() {
        let error = |text: &str| text.parse::<Deadline>().unwrap_err().to_string();
        assert_eq!(error("30s"), "expected LAYER=TIME, for example silence=30s");
        assert_eq!(
            error("beat=3s"),
            "no deadline layer is called `beat`; the layers are boot, silence, idle, cell, guest, run"
        );
        assert!(error("run=soon").ends_with("write 500ms, 30s, 15m or 2h"), "{}", error("run=soon"));
        assert_eq!(error("run=0s"), "`0s` is too short: the time must be more than 0");
    }
}
