//! Arguments about the witness.

use crate::error::Error;
use clap::Args;
use lab_protocol::{
    AttachType,
    witness::{AttachRules, PRELOAD, TypesFor},
};

/// What the witness does, and what is demanded of what a command attaches.
#[derive(Debug, Args)]
pub(super) struct WitnessArgs {
    /// What the witness does, who reads from the kernel what the command attaches: report (reports and tables have it), show (on
    /// standard error too), off.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(super) witness: WitnessMode,
    /// Fail unless the kernel attached every program of tc, tcx and netkit by one of these types, and at least one:
    /// [KIND=]TYPE[,TYPE], for example netkit or veth=tcx,tc. KIND is the device's. best is the best type that the kernel has
    /// for the device. Repeatable.
    #[arg(long, value_name = "[KIND=]TYPES", value_parser = required_types)]
    require_attach: Vec<TypesFor>,
    /// Fail if the kernel attached a program by one of these types: [KIND=]TYPE[,TYPE]. Repeatable.
    #[arg(long, value_name = "[KIND=]TYPES", value_parser = forbidden_types)]
    forbid_attach: Vec<TypesFor>,
    /// Fail if a program or a link is still attached when all processes of the command have ended.
    #[arg(long)]
    forbid_leaks: bool,
    /// Fail if a program of tc, tcx or netkit was attached and never ran.
    #[arg(long)]
    require_ran: bool,
}

/// What the witness does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum WitnessMode {
    /// Reports and tables have its account.
    #[default]
    Report,
    /// Standard error has it too.
    Show,
    /// It is not there.
    Off,
}

impl WitnessArgs {
    /// Whether the account is told on standard error.
    pub(super) fn shows(&self) -> bool {
        self.witness == WitnessMode::Show
    }

    /// The kernel parameter for it. It is loaded before the snapshot is taken: that takes seconds in an emulated guest.
    pub(super) fn preload(&self) -> Option<String> {
        (self.witness != WitnessMode::Off).then(|| PRELOAD.to_owned())
    }

    /// What is demanded of what the command attaches; `None` without a witness.
    pub(super) fn rules(&self) -> Result<Option<AttachRules>, Error> {
        let rules = AttachRules {
            require: self.require_attach.clone(),
            forbid: self.forbid_attach.clone(),
            forbid_leaks: self.forbid_leaks,
            require_ran: self.require_ran,
        };
        match self.witness {
            WitnessMode::Off if !rules.is_empty() => Err(Error::Usage(
                "--require-attach, --forbid-attach, --forbid-leaks and --require-ran need the witness, and --witness off \
                 takes it away"
                    .to_owned(),
            )),
            WitnessMode::Off => Ok(None),
            WitnessMode::Report | WitnessMode::Show => Ok(Some(rules)),
        }
    }
}

/// Types of which every attachment must be one; none is the best.
fn required_types(text: &str) -> Result<TypesFor, String> {
    types(text).and_then(|(kind, types)| match &types[..] {
        ["best"] => Ok(TypesFor { kind, types: Vec::new() }),
        types => named_types(text, types).map(|types| TypesFor { kind, types }),
    })
}

fn forbidden_types(text: &str) -> Result<TypesFor, String> {
    types(text).and_then(|(kind, types)| named_types(text, &types).map(|types| TypesFor { kind, types }))
}

fn types(text: &str) -> Result<(Option<String>, Vec<&str>), String> {
    let (kind, types) = text.split_once('=').map_or((None, text), |(kind, types)| (Some(kind), types));
    if kind.is_some_and(|kind| kind.is_empty() || !kind.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)))
    {
        return Err(format!("`{text}` names no kind of device before `=`, for example netkit=netkit"));
    }
    Ok((kind.map(str::to_owned), types.split(',').collect()))
}

fn named_types(text: &str, types: &[&str]) -> Result<Vec<AttachType>, String> {
    let named = |word: &&str| AttachType::ALL.into_iter().find(|known| known.name() == *word);
    let wanted = || format!("`{text}` is not [KIND=]TYPE[,TYPE] with the types tc, tcx and netkit, or best alone");
    types.iter().map(|word| named(word).ok_or_else(wanted)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_of_the_kernel_and_may_be_for_a_kind_of_device() {
        let told = |text| required_types(text).map(|types| types.to_string());
        for (text, shown) in
            [("netkit", "netkit"), ("netkit,tcx", "netkit,tcx"), ("veth=tc", "veth=tc"), ("best", "best")]
        {
            assert_eq!(told(text).unwrap(), shown);
        }
        assert_eq!(told("netkit=best").unwrap(), "netkit=best");
        for text in ["", "tcp", "netkit,", "=tcx", "a b=tcx", "best,tcx", "auto"] {
            assert!(told(text).is_err(), "{text}");
        }
        assert!(forbidden_types("best").is_err(), "the best is nothing to forbid");
    }
}
