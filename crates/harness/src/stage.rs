//! For `lab shell`: builds a topology, or runs a case and stops it before its first packet.

use crate::{
    error::HarnessError,
    runner::{Finished, RunOptions, Runner},
    survey,
};
use lab_protocol::{CellId, CellReport, LinkKind, Outcome, shell::ShellStage};
use lab_topology::{Net, Netns, addresses};
use lab_traffic::gate::{self, Hold, StopAt};
use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

/// A built topology or a stopped case. Dropping it deletes everything.
pub struct Staged {
    about: String,
    net: Option<Net>,
    case: Option<Held>,
}

/// A stopped case.
struct Held {
    hold: Hold,
    thread: JoinHandle<Through>,
}

/// A case that has ended, and the number of attachments that it reported.
struct Through {
    finished: Finished,
    attachments: u32,
}

impl Staged {
    /// Builds the requested topology, or runs the case and stops it.
    ///
    /// # Errors
    /// The kernel can't, there is nothing of that name, or the case ends before it can be stopped.
    pub fn build(runner: &Arc<Runner>, stage: &ShellStage, time_scale: f32) -> Result<Self, HarnessError> {
        let bare = Self { about: String::new(), net: None, case: None };
        match stage {
            ShellStage::Bare => Ok(bare),
            ShellStage::Topology { name, device } => {
                let net = topology(runner, name, device.unwrap_or(LinkKind::Veth))?;
                Ok(Self { about: format!("{}\n\n", net.topology()), net: Some(net), ..bare })
            }
            ShellStage::Case { cell } => {
                let info = runner.info(cell).ok_or_else(|| HarnessError::UnknownCell(cell.clone()))?;
                let (held, place) = hold(runner, cell, time_scale)?;
                Ok(Self { about: format!("{cell}: {}\n{place}\n\n", info.title), case: Some(held), ..bare })
            }
        }
    }

    /// All its namespaces.
    ///
    /// # Errors
    /// The kernel refuses the query.
    pub fn namespaces(&self) -> Result<Vec<Netns>, HarnessError> {
        Ok(Netns::living()?)
    }

    /// A description as text: namespaces, devices, addresses, programs.
    ///
    /// # Errors
    /// As [`Staged::namespaces`].
    pub fn describe(&self) -> Result<String, HarnessError> {
        let mut out = self.about.clone();
        for ns in self.namespaces()? {
            let known = addresses(&ns)?;
            survey::write(&mut out, &ns, |info| {
                let own = known.iter().filter(|(ifindex, _)| *ifindex == info.ifindex);
                let own: Vec<String> = own.map(|(_, address)| address.to_string()).collect();
                // Leave out loopback devices, and devices that tunnel modules create automatically, which are down.
                (info.up && info.name != "lo").then(|| own.join(" "))
            });
        }
        Ok(out)
    }

    /// Deletes everything; a case first continues to its end, and its report is returned.
    ///
    /// # Errors
    /// The thread of the case panicked.
    pub fn end(self) -> Result<Option<CellReport>, HarnessError> {
        drop(self.net);
        let Some(Held { hold, thread }) = self.case else { return Ok(None) };
        drop(hold);
        join(thread).map(|through| Some(through.finished.report))
    }
}

fn topology(runner: &Runner, name: &str, device: LinkKind) -> Result<Net, HarnessError> {
    let template = runner.template(name).ok_or_else(|| HarnessError::UnknownTopology(name.to_owned()))?;
    Ok(Net::build(&template.of(device))?)
}

/// Runs a case up to its first packet or, if it sends none, a second time up to its last attachment. Also describes
/// where it was stopped.
fn hold(runner: &Arc<Runner>, cell: &CellId, time_scale: f32) -> Result<(Held, &'static str), HarnessError> {
    let held = match run_to(runner, cell, time_scale, StopAt::Flow)? {
        Ok(held) => return Ok((held, "Stopped before its first packet; it continues when the shell ends.")),
        Err(through) => through,
    };
    let not_stopped = |reason: String| HarnessError::NotStopped { cell: cell.clone(), reason };
    let ended = |through: &Through| match &through.finished.report.outcome {
        Outcome::Passed => None,
        outcome => Some(not_stopped(format!("{} before it sent a packet: {}", outcome.word(), outcome.message()))),
    };
    match (ended(&held), held.attachments) {
        (Some(end), _) => return Err(end),
        (None, 0) => {
            return Err(not_stopped("sends no packets and attaches no programs, so it can't be stopped".into()));
        }
        (None, _) => {}
    }
    match run_to(runner, cell, time_scale, StopAt::Attachment(held.attachments))? {
        Ok(held) => {
            Ok((held, "It sends no packets: stopped after its last attachment; it continues when the shell ends."))
        }
        Err(through) => {
            Err(ended(&through).unwrap_or_else(|| not_stopped("attached fewer programs in its second run".into())))
        }
    }
}

/// A case that has stopped, or has ended without stopping.
fn run_to(
    runner: &Arc<Runner>,
    cell: &CellId,
    time_scale: f32,
    stop: StopAt,
) -> Result<Result<Held, Through>, HarnessError> {
    let hold = gate::close(stop);
    let (runner, cell) = (Arc::clone(runner), cell.clone());
    let run = move || {
        let finished = runner.run(&cell, &RunOptions { time_scale, mutant: None, held: true });
        // Ends the wait for a case that never stops.
        Through { finished, attachments: gate::remove() }
    };
    let thread = thread::Builder::new().name("held-case".into()).spawn(run).map_err(HarnessError::Thread)?;
    if hold.reached(Duration::MAX) { Ok(Ok(Held { hold, thread })) } else { join(thread).map(Err) }
}

fn join(thread: JoinHandle<Through>) -> Result<Through, HarnessError> {
    thread.join().map_err(|_| HarnessError::Panicked)
}
