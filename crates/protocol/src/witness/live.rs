//! What `lab watch-attach` tells while it happens: one line of text or one JSON object for each step.

use super::{Account, AttachPlace, AttachWay, DeviceRow};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of the lines: it is increased when a key is removed or changes its meaning.
pub const LIVE_VERSION: u32 = 1;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum LiveLine {
    /// The first one: watching has begun.
    Begun {
        /// [`LIVE_VERSION`].
        version: u32,
        /// From what is read, and what that can't see.
        sources: Vec<String>,
        /// How often a program is attached now, by tc, tcx and netkit.
        attached: u64,
    },
    /// A program was attached, replaced or detached, or the kernel refused that.
    Step(Box<LiveStep>),
    /// A netkit device was made or changed.
    Device(DeviceRow),
    /// Events were lost: what they would have told is missing above this line.
    Lost {
        /// How many so far.
        total: u64,
    },
    /// The last one: what happened, and what is left of it.
    Ended {
        /// The account.
        account: Box<Account>,
    },
}

/// What happened to an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LiveVerb {
    /// Another program is on the hook, beside those that were there.
    Attach,
    /// A program took the place of another.
    Replace,
    /// The program of a link was replaced.
    Update,
    /// A program is on the hook no more.
    Detach,
    /// A link was pinned.
    Pin,
}

impl LiveVerb {
    /// The word where the kernel did it, and where it refused.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Attach => ("attached", "not attached"),
            Self::Replace => ("replaced", "not replaced"),
            Self::Update => ("updated", "not updated"),
            Self::Detach => ("detached", "not detached"),
            Self::Pin => ("pinned", "not pinned"),
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveStep {
    /// Milliseconds since watching began.
    pub at_ms: u64,
    /// What happened.
    pub verb: LiveVerb,
    /// Where.
    #[serde(flatten)]
    pub place: AttachPlace,
    /// By which interface; `None` for an end, which may come by any.
    pub way: Option<AttachWay>,
    /// Name of the program, at most 15 bytes.
    pub program: String,
    /// Its id; 0 where the kernel did not get as far as the program.
    pub prog_id: u32,
    /// Its tag: a hash of its instructions, hexadecimal.
    pub tag: String,
    /// Id of the program whose place it took.
    pub instead: Option<u32>,
    /// The link, where it is one.
    pub link: Option<u32>,
    /// Name of the process that did it.
    pub process: String,
    /// Its number.
    pub pid: u32,
    /// What the kernel returned, where it refused: the name of the errno.
    pub refused: Option<String>,
    /// Particulars: `direct-action`, or the path of a pin.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl fmt::Display for LiveStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, refused) = self.verb.words();
        let name = if self.program.is_empty() { "without a name" } else { &self.program };
        let seconds = self.at_ms as f64 / 1000.0;
        match &self.refused {
            None => write!(f, "+{seconds:.3} s  {done}  {}: ", self.place)?,
            Some(errno) => write!(f, "+{seconds:.3} s  {refused}, {errno}  {}: ", self.place)?,
        }
        write!(f, "program {name}")?;
        if self.prog_id != 0 {
            write!(f, " (id {})", self.prog_id)?;
        }
        if let Some(instead) = self.instead {
            write!(f, " in place of id {instead}")?;
        }
        if let Some(link) = self.link {
            write!(f, ", link {link}")?;
        }
        if !self.detail.is_empty() {
            write!(f, ", {}", self.detail)?;
        }
        write!(f, ", by {}", super::process_named(&self.process, self.pid))?;
        match self.way {
            Some(way) => write!(f, " through {}", way.word()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for LiveLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun { sources, attached, .. } => {
                sources.iter().try_for_each(|source| writeln!(f, "source: {source}"))?;
                write!(
                    f,
                    "watching; {attached} programs are attached by tc, tcx and netkit now; Ctrl-C ends it with a summary"
                )
            }
            Self::Step(step) => step.fmt(f),
            Self::Device(row) => row.fmt(f),
            Self::Lost { total } => {
                write!(f, "gap: {total} events were lost so far; what they would have told is missing")
            }
            Self::Ended { account } => {
                // The sources were told at the begin.
                let lines = Account { sources: Vec::new(), ..(**account).clone() }.lines();
                match lines.is_empty() {
                    true => write!(f, "summary: nothing was attached or detached"),
                    false => write!(f, "summary:\n  {}", lines.join("\n  ")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::AttachType;

    fn step() -> LiveStep {
        LiveStep {
            at_ms: 1234,
            verb: LiveVerb::Attach,
            place: AttachPlace {
                attach: Some(AttachType::Tcx),
                hook: "tcx/ingress".to_owned(),
                device: "eth0".to_owned(),
                kind: "veth".to_owned(),
                namespace: "host".to_owned(),
            },
            way: Some(AttachWay::Link),
            program: "tc_main".to_owned(),
            prog_id: 23,
            tag: "00ff".to_owned(),
            instead: None,
            link: Some(3),
            process: "loader".to_owned(),
            pid: 77,
            refused: None,
            detail: String::new(),
        }
    }

    #[test]
    fn a_step_is_one_line_of_text_and_of_json() {
        let told = step().to_string();
        assert_eq!(
            told,
            "+1.234 s  attached  tcx/ingress of eth0 (veth) in host: program tc_main (id 23), link 3, by loader (77) through link"
        );
        let refused = LiveStep { refused: Some("EINVAL".to_owned()), link: None, way: None, ..step() };
        assert!(refused.to_string().contains("not attached, EINVAL  tcx/ingress of eth0"), "{refused}");
        let lines = [LiveLine::Step(Box::new(step())), LiveLine::Ended { account: Box::default() }];
        for line in lines {
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'), "{text}");
            assert_eq!(serde_json::from_str::<LiveLine>(&text).unwrap(), line);
        }
    }
}
