//! aya: it parses and loads the object, and attaches its classifiers as it sees fit: by tcx, or by a filter of clsact.

use super::{ByOther, Outcome};
use crate::wire::{self, Side};
use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError, TcAttachType},
};
use lab_bpf::{chain, clsact_add};
use lab_check::{AttachFact, FactLine, HookFact};
use lab_protocol::Hook;
use std::os::fd::{AsFd, OwnedFd};

/// Directions, with the hook that a refusal is told of: which of tcx and clsact aya tried, it does not say.
const DIRECTIONS: [(TcAttachType, Hook, &str); 2] =
    [(TcAttachType::Ingress, Hook::ClsactIngress, "ingress"), (TcAttachType::Egress, Hook::ClsactEgress, "egress")];

/// Loads everything, then attaches each classifier.
pub fn check(by: &mut ByOther<'_>, bytes: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    by.tell.begin("aya opens the object".to_owned());
    let mut ebpf = match EbpfLoader::new().load(bytes) {
        Ok(ebpf) => ebpf,
        Err(error) => {
            outcome.fail(None, vec![chain(&error)]);
            return outcome;
        }
    };
    let names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    let wanted = |name: &String| by.order.only.is_empty() || by.order.only.contains(name);
    for name in names.into_iter().filter(wanted).collect::<Vec<_>>() {
        by.tell.begin(format!("aya loads program {name}"));
        match loaded(&mut ebpf, &name) {
            Ok(Some(program)) => {
                by.tell_program(&program);
                attach(by, &mut ebpf, &name, &mut outcome);
            }
            Ok(None) => by.tell.note(format!("program {name} is of a type that this check does not load by aya")),
            Err(error) => outcome.fail(Some(&name), chain(&error).lines().map(str::to_owned).collect()),
        }
    }
    outcome
}

/// Loads a program; `None` for a type that is not tried.
fn loaded(ebpf: &mut Ebpf, name: &str) -> Result<Option<OwnedFd>, ProgramError> {
    let program = match ebpf.program_mut(name) {
        Some(Program::SchedClassifier(program)) => {
            program.load()?;
            program.fd()?
        }
        Some(Program::Xdp(program)) => {
            program.load()?;
            program.fd()?
        }
        _ => return Ok(None),
    };
    program.as_fd().try_clone_to_owned().map(Some).map_err(ProgramError::IOError)
}

/// Attaches a classifier to both directions, one after the other.
fn attach(by: &mut ByOther<'_>, ebpf: &mut Ebpf, name: &str, outcome: &mut Outcome) {
    let Some(Program::SchedClassifier(program)) = ebpf.program_mut(name) else { return };
    let (index, device) = (wire::device(Hook::TcxIngress), wire::name(Side::Near, wire::device(Hook::TcxIngress)));
    // aya leaves this to its caller, as `qdisc_add_clsact`.
    if let Err(error) = by.wire.side(Side::Near).run(|| clsact_add(index)) {
        return outcome.fail(Some(name), vec![error.to_string()]);
    }
    for (direction, hook, word) in DIRECTIONS {
        by.tell.begin(format!("aya attaches program {name} at {word}"));
        let attached = by.wire.side(Side::Near).run(|| program.attach(&device, direction));
        let link = match attached {
            Ok(link) => link,
            Err(error) => {
                let attach = AttachFact::Refused(chain(&error));
                let fact = HookFact { program: name.to_owned(), hook, attach, packets: Vec::new() };
                by.tell.fact(FactLine::Hook(fact));
                outcome.fail(Some(name), vec![chain(&error)]);
                continue;
            }
        };
        if by.look() == 0 {
            let attach = AttachFact::Unlisted;
            by.tell.fact(FactLine::Hook(HookFact { program: name.to_owned(), hook, attach, packets: Vec::new() }));
        }
        if let Err(error) = by.wire.side(Side::Near).run(|| program.detach(link)) {
            by.tell.note(format!("aya can't detach program {name}: {}", chain(&error)));
        }
    }
}
