//! What programs attached, by the witness's accounts: per cell, and across the kernels with their differences first.

use lab_base::text;
use lab_protocol::{
    AttachRequest, DeviceKind,
    witness::{Account, AttachRow},
};
use lab_record::{
    plan::{KernelFacts, required_attach},
    run::RunRecord,
};
use std::collections::BTreeMap;

/// Characters of a line.
const WIDTH: usize = 300;
/// Lines of a part, at most.
const LINES: usize = 100;

/// The account of one cell, one line each: its rows, what is left, its gaps, and from what it was read.
pub fn lines(account: &Account) -> Vec<String> {
    account.lines().into_iter().map(|line| text::line(&line, WIDTH)).collect()
}

/// What a program is on a kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    cell: String,
    program: String,
    process: String,
    device: String,
}

/// Where a program is on a kernel, and whether it was attached there or refused.
type Places = Vec<(bool, String)>;

/// The accounts of all cells: programs that the kernels treat differently first. Empty where nothing was attached.
pub fn across(record: &RunRecord) -> Vec<String> {
    let mut seen: BTreeMap<Subject, BTreeMap<&str, Places>> = BTreeMap::new();
    let mut kernels: Vec<&str> = Vec::new();
    let mut others = Vec::new();
    for (kernel, cell, verdict) in record.verdicts() {
        // A verdict is copied out of the record: the account is what is kept of it.
        let Some(account) = verdict.report.witness.as_deref().filter(|_| verdict.report.program.is_some()) else {
            continue;
        };
        let id = kernel.facts.id.as_str();
        if !kernels.contains(&id) {
            kernels.push(id);
        }
        // One that was only detached was there before.
        let tried = |row: &&AttachRow| row.attached > 0 || !row.refused.is_empty();
        for row in account.rows.iter().filter(|row| row.place.attach.is_some()).filter(tried) {
            let subject = Subject {
                cell: cell.id.to_string(),
                program: row.program.clone(),
                process: row.process.clone(),
                device: device(row),
            };
            let places = seen.entry(subject).or_default().entry(id).or_default();
            let place = (row.attached > 0, hook(&kernel.facts, row));
            if !places.contains(&place) {
                places.push(place);
            }
        }
        others.extend(account.left.iter().map(|left| format!("{id}: left attached: {left}")));
        others.extend(account.gaps().into_iter().map(|gap| format!("{id}: {gap}")));
    }
    let (mut differing, mut same) = (Vec::new(), Vec::new());
    for (subject, on) in &seen {
        let mut groups: Vec<(Vec<String>, Vec<&str>)> = Vec::new();
        for kernel in &kernels {
            let on_it = on.get(kernel).cloned().unwrap_or_else(|| vec![(false, "nothing".to_owned())]);
            // What was refused on the way is in the cell's account.
            let any = on_it.iter().any(|(is_attached, _)| *is_attached);
            let told = on_it.into_iter().filter(|(is_attached, _)| *is_attached || !any);
            let mut places: Vec<String> = told.map(|(_, place)| place).collect();
            places.sort();
            match groups.iter_mut().find(|(known, _)| *known == places) {
                Some((_, members)) => members.push(kernel),
                None => groups.push((places, vec![kernel])),
            }
        }
        let told: Vec<String> =
            groups.iter().map(|(places, members)| format!("{}: {}", members.join(", "), places.join(" + "))).collect();
        let line =
            format!("{} of {} on {}: {}", name(&subject.program), subject.process, subject.device, told.join("; "));
        if groups.len() > 1 { differing.push(line) } else { same.push(line) }
    }
    let part = |lines: Vec<String>, mark: &str| -> Vec<String> {
        let more = lines.len().saturating_sub(LINES);
        let shown = lines.into_iter().take(LINES).map(|line| text::line(&format!("{mark}{line}"), WIDTH));
        shown.chain((more > 0).then(|| format!("{mark}and {more} more"))).collect()
    };
    [part(differing, "differs: "), part(same, ""), part(others, "")].concat()
}

fn name(program: &str) -> &str {
    if program.is_empty() { "a program without a name" } else { program }
}

/// A device, without the number of a namespace, which differs between guests.
fn device(row: &AttachRow) -> String {
    let place = &row.place;
    let kind = if place.kind.is_empty() { String::new() } else { format!(" ({})", place.kind) };
    let namespace = if place.namespace.starts_with("net:[") { "another namespace" } else { &*place.namespace };
    format!("{}{kind} in {namespace}", if place.device.is_empty() { "no device" } else { &place.device })
}

/// The hook, and what would have been the better mechanism.
fn hook(facts: &KernelFacts, row: &AttachRow) -> String {
    let device = match &*row.place.kind {
        "netkit" => DeviceKind::NetkitL3,
        "veth" => DeviceKind::Veth,
        _ => DeviceKind::Other,
    };
    let best = required_attach(facts, AttachRequest::Auto, device);
    let hook = format!("{} by {}", row.place.hook, row.way.word());
    match row.place.attach {
        _ if row.attached == 0 => format!("{hook} refused ({})", row.refusals()),
        Some(used) if used != best => format!("{hook}, not {best}"),
        _ => hook,
    }
}
