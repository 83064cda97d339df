//! What is demanded of a program's attachments, against the witness's account. Each fault is one line that names program, device and
//! process, and what would have been right.

use lab_base::text;
use lab_protocol::{
    AttachRequest, AttachType, CellInfo, DeviceKind, FailureKind, Outcome,
    witness::{Account, AttachRow, AttachRules, TypesFor},
};
use lab_record::plan::{KernelFacts, required_attach};

/// Faults that are told, at most.
const TOLD: usize = 50;
/// Characters of a fault.
const WIDTH: usize = 400;

/// One demand that is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttachFault {
    pub kind: FailureKind,
    pub line: String,
}

/// Why there is no verdict on the attachments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoVerdict {
    /// The guest's agent knows no witness, or ended before it could answer.
    #[error("the guest has sent no account of them")]
    NoAccount,
    /// The kernel's functions can't be watched.
    #[error("they could not be watched: {0}")]
    Unwatched(String),
    /// The source does not see all.
    #[error("they could not all be seen: {0}")]
    Partial(String),
    /// The account is not whole.
    #[error("their account has gaps: {lost} events lost, {omitted} rows left out")]
    Gaps {
        /// Events.
        lost: u64,
        /// Rows and leftovers.
        omitted: u64,
    },
}

/// What is not as demanded; nothing for a cell of which nothing is. The error says why there is no verdict.
pub(super) fn faults(
    facts: &KernelFacts,
    info: &CellInfo,
    account: Option<&Account>,
) -> Result<Vec<AttachFault>, NoVerdict> {
    let rules = info.work.program().and_then(|program| program.witness.as_ref());
    let Some(rules) = rules.filter(|rules| !rules.is_empty()) else { return Ok(Vec::new()) };
    let Some(account) = account else { return Err(NoVerdict::NoAccount) };
    let mut faults = Vec::new();
    required(facts, rules, account, &mut faults);
    forbidden(rules, account, &mut faults);
    if rules.require_ran {
        let attached = account.rows.iter().filter(|row| row.place.attach.is_some() && row.attached > 0);
        // What nothing is known of may have run, where the account is not whole.
        let never = |row: &&AttachRow| row.runs.map_or_else(|| account.is_whole(), |runs| runs == 0);
        faults.extend(attached.filter(never).map(|row| {
            let what = if row.runs.is_none() { "nothing is known of its runs" } else { "it never ran" };
            fault(FailureKind::Check, format!("{}: attached at {}, and {what}", row.subject(), row.place))
        }));
    }
    if rules.forbid_leaks {
        faults.extend(account.left.iter().map(|left| fault(FailureKind::Leak, format!("left attached: {left}"))));
    }
    faults.truncate(TOLD);
    // What an account does not have did not happen, if it is whole.
    if faults.is_empty() && !account.is_whole() {
        return Err(match (&account.absent, &account.partial) {
            (Some(reason), _) => NoVerdict::Unwatched(text::line(reason, WIDTH)),
            (None, Some(reason)) => NoVerdict::Partial(text::line(reason, WIDTH)),
            (None, None) => NoVerdict::Gaps { lost: account.lost, omitted: account.omitted },
        });
    }
    Ok(faults)
}

/// The outcome of a cell with these faults.
pub(super) fn outcome(faults: &[AttachFault]) -> Option<Outcome> {
    let first = faults.first()?;
    Some(Outcome::Failed { kind: first.kind, message: first.line.clone() })
}

fn fault(kind: FailureKind, line: String) -> AttachFault {
    AttachFault { kind, line: text::line(&line, WIDTH) }
}

fn required(facts: &KernelFacts, rules: &AttachRules, account: &Account, faults: &mut Vec<AttachFault>) {
    for wanted in &rules.require {
        let concerned = || account.rows.iter().filter(|row| row.place.attach.is_some() && concerns(wanted, row));
        let mut any = false;
        for row in concerned().filter(|row| row.attached > 0) {
            let right = right(facts, wanted, row);
            any = true;
            if row.place.attach.is_none_or(|used| !right.contains(&used)) {
                let line = format!("{}: the kernel used {}; required: {}", row.subject(), row.place, names(&right));
                faults.push(fault(FailureKind::AttachMismatch, line));
            }
        }
        // It may have attached what such an account does not have.
        if !any && account.is_whole() {
            let device = wanted.kind.as_ref().map_or_else(String::new, |kind| format!(" on a {kind} device"));
            let refused = concerned().find(|row| !row.refused.is_empty());
            let why = refused.map_or_else(
                || format!("the command attached nothing by tc, tcx or netkit{device}"),
                |row| format!("{}: the kernel refused {}: {}", row.subject(), row.place, row.refusals()),
            );
            let types = if wanted.types.is_empty() { "an attachment".to_owned() } else { names(&wanted.types) };
            faults.push(fault(FailureKind::AttachMismatch, format!("{why}; required: {types}{device}")));
        }
    }
}

fn forbidden(rules: &AttachRules, account: &Account, faults: &mut Vec<AttachFault>) {
    for unwanted in &rules.forbid {
        let hits = account.rows.iter().filter(|row| {
            row.attached > 0
                && concerns(unwanted, row)
                && row.place.attach.is_some_and(|used| unwanted.types.contains(&used))
        });
        faults.extend(hits.map(|row| {
            let others: Vec<AttachType> =
                AttachType::ALL.into_iter().filter(|it| !unwanted.types.contains(it)).collect();
            let line = format!(
                "{}: the kernel used {}; forbidden: {unwanted}; allowed: {}",
                row.subject(),
                row.place,
                names(&others)
            );
            fault(FailureKind::AttachMismatch, line)
        }));
    }
}

fn concerns(types: &TypesFor, row: &AttachRow) -> bool {
    types.kind.as_ref().is_none_or(|kind| *kind == row.place.kind)
}

/// The types that a row may have.
fn right(facts: &KernelFacts, wanted: &TypesFor, row: &AttachRow) -> Vec<AttachType> {
    if !wanted.types.is_empty() {
        return wanted.types.clone();
    }
    let device = match &*row.place.kind {
        "netkit" => DeviceKind::NetkitL3,
        "veth" => DeviceKind::Veth,
        _ => DeviceKind::Other,
    };
    vec![required_attach(facts, AttachRequest::Auto, device)]
}

fn names(types: &[AttachType]) -> String {
    let names: Vec<&str> = types.iter().map(|it| it.name()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" or ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::ExecRequest;
    use lab_protocol::{
        Raw,
        witness::{AttachPlace, AttachWay, Leftover},
        work::Inherit,
    };
    use lab_record::testing::facts;

    fn place(attach: AttachType, kind: &str) -> AttachPlace {
        let hook = match attach {
            AttachType::Tc => "clsact/ingress",
            AttachType::Tcx => "tcx/ingress",
            AttachType::Netkit => "netkit/peer",
        };
        AttachPlace {
            attach: Some(attach),
            hook: hook.to_owned(),
            device: "eth0".to_owned(),
            kind: kind.to_owned(),
            namespace: "w0".to_owned(),
        }
    }

    fn row(attach: AttachType, kind: &str) -> AttachRow {
        AttachRow {
            place: place(attach, kind),
            way: AttachWay::Link,
            program: "tc_main".to_owned(),
            tag: String::new(),
            ids: vec![23],
            process: "loader".to_owned(),
            pid: 77,
            first_ms: 0,
            attached: 1,
            refused: std::collections::BTreeMap::new(),
            detached: 1,
            replaced: 0,
            runs: Some(2),
            detail: String::new(),
        }
    }

    fn told(rules: AttachRules, version: &str, account: &Account) -> Result<Vec<String>, String> {
        let request = ExecRequest {
            argv: vec!["loader".into()],
            name: None,
            stages: Vec::new(),
            node: None,
            env: Vec::new(),
            inherit: Inherit::All,
            world: None,
            cwd: Raw::default(),
            user: None,
            timeout_ms: None,
            core_bytes: 0,
            sysctl: Vec::new(),
            witness: Some(rules),
            requires: Vec::new(),
        };
        let info = request.cells(false, None).remove(0);
        faults(&facts("k", version), &info, Some(account))
            .map(|faults| faults.into_iter().map(|it| it.line).collect())
            .map_err(|error| error.to_string())
    }

    fn types(kind: Option<&str>, types: &[AttachType]) -> Vec<TypesFor> {
        vec![TypesFor { kind: kind.map(str::to_owned), types: types.to_vec() }]
    }

    fn require(kind: Option<&str>, wanted: &[AttachType]) -> AttachRules {
        AttachRules { require: types(kind, wanted), ..AttachRules::default() }
    }

    #[test]
    fn another_type_than_required_is_named_with_what_would_have_been_right() {
        let account = Account { rows: vec![row(AttachType::Tcx, "netkit")], ..Account::default() };
        assert_eq!(
            told(require(None, &[AttachType::Netkit]), "6.12", &account).unwrap(),
            [
                "program tc_main (id 23) of loader (77): the kernel used tcx/ingress of eth0 (netkit) in w0; required: netkit"
            ]
        );
        assert!(told(require(None, &[AttachType::Netkit, AttachType::Tcx]), "6.12", &account).unwrap().is_empty());
        assert_eq!(told(require(None, &[]), "6.12", &account).unwrap().len(), 1, "netkit is the best");
        assert!(told(require(None, &[]), "6.6", &account).unwrap().is_empty(), "tcx is the best");
        assert_eq!(
            told(require(Some("veth"), &[AttachType::Tcx]), "6.12", &account).unwrap(),
            ["the command attached nothing by tc, tcx or netkit on a veth device; required: tcx on a veth device"]
        );
    }

    #[test]
    fn a_refused_attachment_does_not_meet_a_demand_and_a_forbidden_one_does_not_break_it() {
        let mut refused = row(AttachType::Netkit, "netkit");
        (refused.attached, refused.refused) = (0, [("EINVAL".to_owned(), 3)].into());
        let account = Account { rows: vec![refused], ..Account::default() };
        assert_eq!(
            told(require(None, &[AttachType::Netkit]), "6.12", &account).unwrap(),
            [
                "program tc_main (id 23) of loader (77): the kernel refused netkit/peer of eth0 (netkit) in w0: 3 × EINVAL; required: netkit"
            ]
        );
        let forbid = AttachRules { forbid: types(None, &[AttachType::Netkit]), ..AttachRules::default() };
        assert!(told(forbid.clone(), "6.12", &account).unwrap().is_empty());
        let account = Account { rows: vec![row(AttachType::Netkit, "netkit")], ..Account::default() };
        assert_eq!(
            told(forbid, "6.12", &account).unwrap(),
            [
                "program tc_main (id 23) of loader (77): the kernel used netkit/peer of eth0 (netkit) in w0; forbidden: netkit; allowed: tc or tcx"
            ]
        );
    }

    #[test]
    fn idle_programs_and_leaks_are_faults_where_they_are_forbidden() {
        let (mut idle, mut unknown) = (row(AttachType::Tcx, "veth"), row(AttachType::Tc, "veth"));
        (idle.runs, unknown.runs) = (Some(0), None);
        let leak = Leftover {
            place: place(AttachType::Tcx, "veth"),
            program: "tc_main".to_owned(),
            prog_id: 23,
            link_id: Some(4),
            is_detached: false,
            pin: Some("/sys/fs/bpf/x".to_owned()),
            by: Some("loader (77)".to_owned()),
        };
        let account =
            Account { rows: vec![row(AttachType::Tcx, "veth"), idle, unknown], left: vec![leak], ..Account::default() };
        let rules = AttachRules { require_ran: true, forbid_leaks: true, ..AttachRules::default() };
        let lines = told(rules, "6.12", &account).unwrap();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[0].ends_with("and it never ran") && lines[1].ends_with("and nothing is known of its runs"),
            "{lines:?}"
        );
        assert_eq!(
            lines[2],
            "left attached: program tc_main (id 23) at tcx/ingress of eth0 (veth) in w0, link 4, pinned at /sys/fs/bpf/x, attached by loader (77)"
        );
        assert!(told(AttachRules::default(), "6.12", &account).unwrap().is_empty(), "nothing is demanded");
    }

    #[test]
    fn an_account_with_gaps_proves_no_absence() {
        let forbid = AttachRules { forbid: types(None, &[AttachType::Tc]), ..AttachRules::default() };
        let gaps = Account { lost: 3, ..Account::default() };
        assert_eq!(
            told(forbid.clone(), "6.12", &gaps).unwrap_err(),
            "their account has gaps: 3 events lost, 0 rows left out"
        );
        let partial = Account { partial: Some("no type information".to_owned()), ..Account::default() };
        let unseen = "they could not all be seen: no type information";
        assert_eq!(told(forbid.clone(), "6.12", &partial).unwrap_err(), unseen);
        // Nor that nothing was attached, or never ran.
        assert_eq!(told(require(None, &[AttachType::Netkit]), "6.12", &partial).unwrap_err(), unseen);
        assert!(told(require(None, &[AttachType::Netkit]), "6.12", &gaps).unwrap_err().contains("3 events lost"));
        let ran = AttachRules { require_ran: true, ..AttachRules::default() };
        let mut unknown = row(AttachType::Netkit, "netkit");
        unknown.runs = None;
        let partial = Account { rows: vec![unknown], ..partial };
        assert_eq!(told(ran, "6.12", &partial).unwrap_err(), unseen);
        let absent = Account::absent("no type information");
        assert!(told(require(None, &[]), "6.12", &absent).unwrap_err().ends_with("no type information"));
        assert!(told(forbid.clone(), "6.12", &absent).unwrap_err().ends_with("no type information"));
        // A fault that was seen is one, whatever was not.
        let seen = Account { rows: vec![row(AttachType::Tc, "veth")], ..gaps };
        assert_eq!(told(forbid, "6.12", &seen).unwrap().len(), 1);
    }
}
