//! The groups of a kernel's cells whose times are compared.

use lab_protocol::CellInfo;
use std::collections::BTreeMap;

/// Added to both times of a ratio, milliseconds: the shortest cells take a few, and twice as many mean nothing.
pub(super) const FLOOR_MS: f64 = 20.0;

/// A cell that passed, with its time and its recorded time, milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimedCell<'a> {
    pub info: &'a CellInfo,
    pub took: f64,
    pub recorded: f64,
}

impl TimedCell<'_> {
    /// How many times as long as recorded it took.
    pub fn ratio(&self) -> f64 {
        (self.took + FLOOR_MS) / (self.recorded + FLOOR_MS)
    }
}

/// Cells that have something in common.
pub(super) struct CellGroup<'a> {
    pub name: String,
    pub members: Vec<TimedCell<'a>>,
}

/// All cells, each area, each attach type and each kind of device.
pub(super) fn groups<'a>(samples: &[TimedCell<'a>]) -> Vec<CellGroup<'a>> {
    let mut groups: BTreeMap<String, Vec<TimedCell<'a>>> = BTreeMap::new();
    for sample in samples {
        let info = sample.info;
        let names = [
            (!info.area.is_empty()).then(|| format!("area {}", info.area)),
            info.attach.map(|attach| format!("cells by {attach}")),
            info.device.map(|device| format!("cells on {device}")),
        ];
        names.into_iter().flatten().for_each(|name| groups.entry(name).or_default().push(*sample));
    }
    // A group of all cells is no other finding than that.
    groups.retain(|_, members| members.len() < samples.len());
    let all = CellGroup { name: "all cells".to_owned(), members: samples.to_vec() };
    std::iter::once(all).chain(groups.into_iter().map(|(name, members)| CellGroup { name, members })).collect()
}
