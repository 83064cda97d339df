//! Faults of the check itself, made on purpose: each must be noticed by what the corpus expects, or by a boot that contradicts a
//! prediction.

use crate::facts::{AttachFact, FactLine, Fate};
use serde::{Deserialize, Serialize};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckFault {
    /// A failed load counts as a success.
    LoadsAlways,
    /// What the loader says is lost.
    NothingSaid,
    /// What the verifier says is lost.
    NothingVerified,
    /// A hook that the kernel does not have counts as one that refuses the program.
    AbsentRefused,
    /// A dropped packet counts as delivered.
    DroppedDelivered,
    /// A redirected packet counts as dropped.
    RedirectedDropped,
    /// A change of a packet is not seen.
    ChangeUnseen,
    /// The bytes of a packet are read one byte too far on.
    BytesShifted,
    /// The answer of `BPF_PROG_TEST_RUN` is read wrong.
    VerdictWrong,
    /// Instructions are counted a thousandfold.
    InstructionsMany,
    /// What a packet does to a counter is not seen.
    CounterStuck,
    /// A run of a program counts twice.
    RunsDoubled,
    /// The prediction does not know a helper that every kernel has.
    HelperUnknown,
    /// The prediction knows no type of attachment.
    AttachTypeUnknown,
    /// The prediction takes every answer to a CO-RE question for yes.
    AnswersYes,
}

impl CheckFault {
    /// Every fault.
    pub const ALL: [Self; 15] = [
        Self::LoadsAlways,
        Self::NothingSaid,
        Self::NothingVerified,
        Self::AbsentRefused,
        Self::DroppedDelivered,
        Self::RedirectedDropped,
        Self::ChangeUnseen,
        Self::BytesShifted,
        Self::VerdictWrong,
        Self::InstructionsMany,
        Self::CounterStuck,
        Self::RunsDoubled,
        Self::HelperUnknown,
        Self::AttachTypeUnknown,
        Self::AnswersYes,
    ];

    /// On the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LoadsAlways => "loads-always",
            Self::NothingSaid => "nothing-said",
            Self::NothingVerified => "nothing-verified",
            Self::AbsentRefused => "absent-refused",
            Self::DroppedDelivered => "dropped-delivered",
            Self::RedirectedDropped => "redirected-dropped",
            Self::ChangeUnseen => "change-unseen",
            Self::BytesShifted => "bytes-shifted",
            Self::VerdictWrong => "verdict-wrong",
            Self::InstructionsMany => "instructions-many",
            Self::CounterStuck => "counter-stuck",
            Self::RunsDoubled => "runs-doubled",
            Self::HelperUnknown => "helper-unknown",
            Self::AttachTypeUnknown => "attach-type-unknown",
            Self::AnswersYes => "answers-yes",
        }
    }

    /// The fault of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// What the loader says with this fault.
    pub fn spoil(self, line: &mut FactLine) {
        match (self, line) {
            (Self::LoadsAlways, FactLine::Load(load)) => load.errno = None,
            (Self::NothingSaid, FactLine::Load(load)) => load.said.clear(),
            (Self::NothingVerified, FactLine::Load(load)) => load.verifier.clear(),
            (Self::VerdictWrong, FactLine::Run(run)) => {
                run.verdict = run.verdict.map(|verdict| verdict.wrapping_add(1))
            }
            (Self::InstructionsMany, FactLine::Program(program)) => {
                program.verified = program.verified.saturating_mul(1000);
            }
            (_, FactLine::Hook(hook)) => {
                if self == Self::AbsentRefused
                    && let AttachFact::Absent(why) = &hook.attach
                {
                    hook.attach = AttachFact::Refused(why.clone());
                }
                for packet in &mut hook.packets {
                    match (self, &packet.fate) {
                        (Self::DroppedDelivered, Fate::Dropped) | (Self::ChangeUnseen, Fate::Changed) => {
                            packet.fate = Fate::Delivered;
                        }
                        (Self::RedirectedDropped, Fate::Redirected(_)) => packet.fate = Fate::Dropped,
                        (Self::CounterStuck, _) => {
                            packet.counters.iter_mut().for_each(|counter| counter.after = counter.before);
                        }
                        (Self::RunsDoubled, _) => packet.ran *= 2,
                        (Self::BytesShifted, _) if !packet.bytes.is_empty() => packet.bytes.rotate_left(1),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_faults() {
        assert!(CheckFault::ALL.into_iter().all(|fault| CheckFault::named(fault.name()) == Some(fault)));
        assert_eq!(CheckFault::named("none"), None);
    }
}
