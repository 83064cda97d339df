//! The table of a check, its findings, and the same as JSON.

use super::{
    against::{Changed, lines},
    answers::CheckAnswer,
    inputs::CheckInput,
    predict::Compared,
};
use lab_base::text;
use lab_check::{
    AttachFact, CheckFacts, Fate, HOOKS, LIBBPF, LoadAttempt, LoadClass, LoadFact, OnKernel, explain, findings,
    ifindex_keys, loaders_differ,
};
use lab_protocol::{AttachType, Hook};
use lab_record::{splat::Splat, verdict::Standing};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// Columns of the terminal that the table fits.
const WIDTH: usize = 80;
/// Columns of the programs' names.
const NAMES: usize = 26;
/// Columns of a kernel.
const KERNEL: usize = 18;
/// Characters of a line about a failure or a finding.
const LINE: usize = 600;
/// Lines of the verifier's log.
const LOG: usize = 6;
/// Lines about what another loader attached on a kernel.
const ATTACHED: usize = 12;

/// What a command prints.
pub struct Told {
    /// The text.
    pub text: String,
    /// The findings, for the exit code of `--strict`.
    pub findings: usize,
}

/// What is told beside the objects' own facts.
#[derive(Debug, Default)]
pub struct Beside {
    /// The predictions; `None` where none could be made.
    pub predicted: Option<Compared>,
    /// What changed since an earlier run, and that run's directory.
    pub changed: Option<(String, Vec<Changed>)>,
}

/// Everything about the objects.
pub fn told(inputs: &[CheckInput], answers: &[CheckAnswer], beside: &Beside) -> Told {
    let mut out = String::new();
    let mut count = 0;
    for input in inputs {
        let own: Vec<&CheckAnswer> = answers.iter().filter(|answer| answer.object == input.name).collect();
        for loader in loaders(&own) {
            let by: Vec<&CheckAnswer> = own.iter().copied().filter(|answer| answer.loader == loader).collect();
            let name = if loader == LIBBPF { input.name.clone() } else { format!("{}[{loader}]", input.name) };
            for kernels in by.chunks((WIDTH - NAMES) / KERNEL) {
                table(&name, kernels, &mut out);
                out.push('\n');
            }
            failures(&by, &mut out);
            attached(&by, &mut out);
        }
        let mut found = found(input, &own);
        found.extend(contradictions(input, beside));
        count += found.len();
        found.iter().for_each(|line| wrapped(&format!("finding: {line}"), &mut out));
        if !out.ends_with("\n\n") {
            out.push('\n');
        }
    }
    let hooks = answers.iter().flat_map(|answer| &answer.facts.hooks).flat_map(|hook| &hook.packets).next();
    if hooks.is_some() {
        out += "Per program: instructions that the verifier looked at; then a letter for each\n\
                hook: tc ingress and egress, tcx ingress and egress, netkit primary and peer.\n\
                . delivered  c changed  x dropped  r redirected  0 never ran  ? not sent\n\
                ! refused  - the kernel has no such hook\n\n";
    }
    if let Some((before, changed)) = &beside.changed {
        let lines = lines(changed);
        wrapped(
            &format!(
                "{} changes since {before}",
                if lines.is_empty() { "no".to_owned() } else { lines.len().to_string() }
            ),
            &mut out,
        );
        lines.iter().for_each(|line| wrapped(&format!("  {}", text::line(line, LINE)), &mut out));
        out.push('\n');
    }
    if let Some(compared) = &beside.predicted {
        let wrong = compared.contradicted.len();
        out += &format!("predictions: {} certain ones were tried, {wrong} were wrong\n", compared.certain);
    }
    Told { text: out, findings: count }
}

/// The loaders, libbpf first.
fn loaders<'a>(own: &[&'a CheckAnswer]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for answer in own {
        if !names.contains(&&*answer.loader) {
            names.push(&answer.loader);
        }
    }
    names.sort_by_key(|name| *name != LIBBPF);
    names
}

/// What the kernel lists of another loader's attachments, by the witness.
fn attached(by: &[&CheckAnswer], out: &mut String) {
    for answer in by {
        for line in answer.attached.iter().take(ATTACHED) {
            wrapped(&format!("  {}: {}", answer.kernel, text::line(line, LINE)), out);
        }
        let more = answer.attached.len().saturating_sub(ATTACHED);
        if more > 0 {
            wrapped(&format!("  {}: and {more} more; --format json has all of them", answer.kernel), out);
        }
    }
}

/// Predictions that were certain and wrong.
fn contradictions(input: &CheckInput, beside: &Beside) -> Vec<String> {
    let all = beside.predicted.iter().flat_map(|compared| &compared.contradicted);
    let own = all.filter(|it| it.object == input.name);
    own.map(|it| format!("{}: {}; the prediction is wrong, please report it", it.kernel, it.text)).collect()
}

/// Findings of one object.
fn found(input: &CheckInput, all: &[&CheckAnswer]) -> Vec<String> {
    let (own, others): (Vec<&CheckAnswer>, Vec<&CheckAnswer>) = all.iter().partition(|it| it.loader == LIBBPF);
    let kernels: Vec<OnKernel> =
        own.iter().map(|answer| OnKernel { kernel: answer.kernel.clone(), facts: answer.facts.clone() }).collect();
    let mut lines: Vec<String> = findings(&kernels).into_iter().map(|line| text::line(&line, LINE)).collect();
    for other in others {
        let Some(base) = own.iter().find(|it| it.kernel == other.kernel) else { continue };
        let differences = loaders_differ(&other.kernel, &other.loader, &base.facts, &other.facts);
        lines.extend(differences.into_iter().map(|line| text::line(&line, LINE)));
    }
    for answer in all {
        lines.extend(
            answer.splats.iter().map(|splat| format!("{}: {}", answer.kernel, text::line(&splat.line(), LINE))),
        );
        lines.extend(answer.facts.notes.iter().map(|note| format!("{}: {}", answer.kernel, text::line(note, LINE))));
    }
    // The kernels on which a program is listed at one of these hooks.
    let at = |program: &str, is_it: &dyn Fn(Hook) -> bool| {
        let has = |answer: &&CheckAnswer| {
            let mut hooks = answer.facts.hooks.iter().filter(|hook| hook.program == program && is_it(hook.hook));
            hooks.any(|hook| hook.attach == AttachFact::Listed)
        };
        own.iter().copied().filter(has).map(|answer| &*answer.kernel).collect::<Vec<_>>().join(", ")
    };
    /// `bpf_redirect_peer`, `enum bpf_func_id`.
    const REDIRECT_PEER: u32 = 155;
    for program in input.object.programs.iter().filter(|program| program.helpers.contains(&REDIRECT_PEER)) {
        let on = at(&program.name, &|hook| hook.attach_type() == AttachType::Netkit);
        if !on.is_empty() {
            lines.push(format!(
                "program {} calls bpf_redirect_peer, which works at ingress of tc and tcx alone; it attaches at netkit on {on}, \
                 where such a packet is dropped",
                program.name
            ));
        }
    }
    for program in input.code.as_ref().map(ifindex_keys).unwrap_or_default() {
        let on = at(program, &|hook| hook == Hook::NetkitPrimary);
        if !on.is_empty() {
            lines.push(format!(
                "hint: program {program} seems to use skb->ifindex as a map's key; at netkit/primary, where it attaches on {on}, \
                 that is the peer, an index of the workload's namespace (docs/findings.md, G01)"
            ));
        }
    }
    lines
}

fn cut(text: &str, width: usize) -> String {
    let text = text::line(text, 4 * width);
    if text.chars().count() <= width { text } else { text.chars().take(width - 1).chain(['…']).collect() }
}

fn table(name: &str, kernels: &[&CheckAnswer], out: &mut String) {
    let mut row = |first: &str, cells: &mut dyn Iterator<Item = String>| {
        let mut line = format!("{:NAMES$}", cut(first, NAMES - 1));
        cells.for_each(|cell| line += &format!("{:KERNEL$}", cut(&cell, KERNEL - 1)));
        let _never_fails = writeln!(out, "{}", line.trim_end());
    };
    row(name, &mut kernels.iter().map(|answer| answer.kernel.clone()));
    row("  load", &mut kernels.iter().map(|answer| load(answer)));
    let mut names: Vec<&str> = Vec::new();
    for program in kernels.iter().flat_map(|answer| &answer.facts.programs) {
        if !names.contains(&&*program.name) {
            names.push(&program.name);
        }
    }
    for name in names {
        row(&format!("  {name}"), &mut kernels.iter().map(|answer| program(&answer.facts, name)));
    }
}

/// One word about loading.
fn load(answer: &CheckAnswer) -> String {
    if answer.is_crash() {
        return match answer.standing {
            Standing::NotRun => "not run".to_owned(),
            _ => "ended early".to_owned(),
        };
    }
    match (answer.facts.loaded_whole(), lab_check::failure(&answer.facts)) {
        (true, _) => {
            let how = answer.facts.loads.iter().rfind(|load| load.errno.is_none()).map(|load| load.attempt);
            if how == Some(LoadAttempt::Typed) { "ok, types set".to_owned() } else { "ok".to_owned() }
        }
        (false, Some(class)) => format!("✗ {class}"),
        (false, None) => "✗".to_owned(),
    }
}

/// Instructions, and a letter for each hook.
fn program(facts: &CheckFacts, name: &str) -> String {
    let Some(program) = facts.programs.iter().find(|program| program.name == name) else { return "-".to_owned() };
    let mut cell = format!("{:>6}", short(program.instructions()));
    if facts.hooks.iter().any(|hook| hook.program == name) {
        for pair in HOOKS.chunks(2) {
            cell.push(' ');
            pair.iter().for_each(|hook| cell.push(letter(facts, name, *hook)));
        }
    } else {
        let _never_fails = write!(cell, " {}", program.kind);
    }
    cell
}

fn short(count: u32) -> String {
    match count {
        0..10_000 => count.to_string(),
        _ => format!("{}k", count / 1000),
    }
}

/// The worst that happened to a packet.
fn letter(facts: &CheckFacts, program: &str, hook: Hook) -> char {
    let Some(at) = facts.hooks.iter().find(|it| it.program == program && it.hook == hook) else { return ' ' };
    match &at.attach {
        AttachFact::Absent(_) => return '-',
        AttachFact::Refused(_) | AttachFact::Unlisted => return '!',
        AttachFact::Listed => {}
    }
    let letters: BTreeSet<(u8, char)> = at
        .packets
        .iter()
        .map(|packet| match (&packet.fate, packet.ran) {
            (Fate::Unsent(_), _) => (0, '?'),
            (_, 0) => (1, '0'),
            (Fate::Dropped, _) => (2, 'x'),
            (Fate::Redirected(_), _) => (3, 'r'),
            (Fate::Changed, _) => (4, 'c'),
            (Fate::Delivered, _) => (5, '.'),
        })
        .collect();
    letters.first().map_or(' ', |(_, letter)| *letter)
}

/// What is not as expected; what several kernels have in common is told once.
fn failures(own: &[&CheckAnswer], out: &mut String) {
    let mut told: Vec<(String, Vec<&str>)> = Vec::new();
    for answer in own {
        let mut text = String::new();
        failure(answer, &mut text);
        match told.iter_mut().find(|(other, _)| *other == text) {
            Some((_, on)) => on.push(&answer.kernel),
            None => told.push((text, vec![&answer.kernel])),
        }
    }
    for (text, on) in told.iter().filter(|(text, _)| !text.is_empty()) {
        for line in text.lines() {
            match line.strip_prefix(UNMET) {
                Some(line) => wrapped(&format!("{}: {line}", on.join(", ")), out),
                None => *out += &format!("{line}\n"),
            }
        }
    }
}

/// In front of a line that needs its kernels' names.
const UNMET: char = '\0';

/// What is not as expected on one kernel, with what can be done.
fn failure(answer: &CheckAnswer, out: &mut String) {
    for line in &answer.unmet {
        *out += &format!("{UNMET}{}\n", text::line(line, LINE));
    }
    let Some(load) = answer.facts.loads.iter().rfind(|load| load.attempt != LoadAttempt::Alone) else { return };
    if load.errno.is_none() || answer.unmet.is_empty() {
        return;
    }
    let why = explain(load);
    wrapped(&format!("  cure: {}", why.class.cure()), out);
    if matches!(why.class, LoadClass::Verifier | LoadClass::TooComplex | LoadClass::Other | LoadClass::Object) {
        let lines = if load.verifier.is_empty() { &load.said } else { &load.verifier };
        for line in &lines[lines.len().saturating_sub(LOG)..] {
            let _never_fails = writeln!(out, "    {}", cut(line, WIDTH - 4));
        }
    }
    let alone: BTreeMap<bool, Vec<&str>> =
        answer.facts.loads.iter().filter(|load| load.attempt == LoadAttempt::Alone).fold(
            BTreeMap::new(),
            |mut all, load| {
                all.entry(load.errno.is_none()).or_default().push(load.program.as_deref().unwrap_or_default());
                all
            },
        );
    for (loads, names) in alone.iter().rev() {
        let verb = if *loads { "loads" } else { "fails" };
        wrapped(&format!("  alone {verb}: {}", text::line(&names.join(", "), LINE)), out);
    }
}

/// A line, broken at blanks so that it fits.
fn wrapped(line: &str, out: &mut String) {
    let indent = line.len() - line.trim_start().len() + 2;
    let mut width = 0;
    for (number, word) in line.trim_start().split(' ').enumerate() {
        let length = word.chars().count();
        if number == 0 {
            *out += &" ".repeat(indent - 2);
            width = indent - 2;
        } else if width + 1 + length > WIDTH {
            *out += &format!("\n{}", " ".repeat(indent));
            width = indent;
        } else {
            out.push(' ');
            width += 1;
        }
        *out += word;
        width += length;
    }
    out.push('\n');
}

/// Each attempt to load, with what came of it.
fn attempts(answer: &CheckAnswer) -> Vec<serde_json::Value> {
    let attempt = |load: &LoadFact| {
        let why = load.errno.map(|_| explain(load));
        serde_json::json!({
            "attempt": load.attempt,
            "program": load.program,
            "class": why.as_ref().map(|why| why.class.name()),
            "reason": why.as_ref().map(|why| &why.sentence),
            "cure": why.as_ref().map(|why| why.class.cure()),
        })
    };
    answer.facts.loads.iter().map(attempt).collect()
}

/// The same for programs.
pub fn json(inputs: &[CheckInput], answers: &[CheckAnswer], beside: &Beside) -> serde_json::Value {
    let object = |input: &CheckInput| {
        let own: Vec<&CheckAnswer> = answers.iter().filter(|answer| answer.object == input.name).collect();
        let kernels = own.iter().map(|answer| {
            serde_json::json!({
                "kernel": answer.kernel,
                "loader": answer.loader,
                "attached": answer.attached,
                "standing": answer.standing.word(),
                "class": lab_check::failure(&answer.facts).map(LoadClass::name),
                "attempts": attempts(answer),
                "ended": answer.ended,
                "unmet": answer.unmet,
                "splats": answer.splats.iter().map(Splat::line).collect::<Vec<_>>(),
                "facts": answer.facts,
            })
        });
        let mut findings = found(input, &own);
        findings.extend(contradictions(input, beside));
        serde_json::json!({
            "object": input.path,
            "name": input.name,
            "kernels": kernels.collect::<Vec<_>>(),
            "findings": findings,
        })
    };
    let mut all = serde_json::json!({
        "objects": inputs.iter().map(object).collect::<Vec<_>>(),
        "predictions": beside.predicted,
    });
    if let Some((before, changed)) = &beside.changed {
        all["against"] = serde_json::json!({ "run": before, "changed": changed });
    }
    all
}
