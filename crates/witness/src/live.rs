//! The steps of the events one by one, for those who follow them, and what was attached before the book began.

use crate::{
    book::{ALIVE, Alive, Book, ListedAttachment, device_key, hex},
    decode::{AttachEvent, What},
    names::Hooked,
};
use lab_protocol::{
    AttachType,
    witness::{AttachWay, DeviceRow, LiveLine, LiveStep, LiveVerb, errno_name},
};

/// Parent of a filter at clsact or ingress, for those that are known by their hook's name alone.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

/// Who did what is entered.
#[derive(Debug, Default)]
pub(crate) struct Doer {
    pub time_ns: u64,
    pid: u32,
    process: String,
}

impl Doer {
    pub(crate) fn of(event: &AttachEvent) -> Self {
        Self { time_ns: event.time_ns, pid: event.pid, process: event.process.clone() }
    }

    /// Its event about something that is attached.
    fn about(&self, alive: &Alive) -> AttachEvent {
        AttachEvent {
            time_ns: self.time_ns,
            pid: self.pid,
            process: self.process.clone(),
            target: alive.target.clone(),
            program: alive.program.clone(),
            refused: None,
            what: What::Loaded,
        }
    }
}

/// Steps that nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Steps(Vec<LiveLine>);

impl Steps {
    pub(crate) fn device(&mut self, row: DeviceRow) {
        self.0.push(LiveLine::Device(row));
    }
}

impl Book {
    /// The book of somebody who takes the steps with [`Self::steps`].
    #[must_use]
    pub fn followed(mut self) -> Self {
        self.steps = Some(Steps::default());
        self
    }

    /// The steps since the last call.
    pub fn steps(&mut self) -> Vec<LiveLine> {
        self.steps.as_mut().map(|steps| std::mem::take(&mut steps.0)).unwrap_or_default()
    }

    /// Enters what is attached by the kernel's list, which was complete at `listed_ns`: its end is no gap. What happened while the
    /// list was read may be in it or not.
    pub fn knows(&mut self, listed: &[ListedAttachment], listed_ns: u64) {
        self.listed_ns = listed_ns;
        for standing in listed.iter().filter(|standing| !standing.is_detached).take(ALIVE) {
            let parent = match &*standing.hook {
                _ if standing.attach != Some(AttachType::Tc) => None,
                "clsact/egress" => Some(EGRESS),
                _ => Some(INGRESS),
            };
            let alive = Alive {
                row: None,
                program: standing.program.clone(),
                target: standing.target.clone(),
                hook: Hooked { attach: standing.attach, name: standing.hook.clone() },
                // Its priority is not listed; 0 is any.
                filter: parent.map(|parent| (parent, 0)),
                by: String::new(),
                is_old: true,
            };
            self.alive += 1;
            let device = device_key(&alive.target);
            match standing.link {
                Some(link) => {
                    self.links_on.entry(device).or_default().insert(link);
                    self.links.insert(link, alive);
                }
                None => self.others.entry(device).or_default().push(alive),
            }
        }
    }

    /// Whether this happened while the list of what was there was read.
    pub(crate) const fn is_early(&self, time_ns: u64) -> bool {
        time_ns < self.listed_ns
    }

    /// Takes a link off the book that is in the list, if it was made while the list was read.
    pub(crate) fn forget_listed_link(&mut self, event: &AttachEvent, link: u32) -> bool {
        let is_listed = self.is_early(event.time_ns) && self.links.get(&link).is_some_and(|alive| alive.is_old);
        if is_listed && let Some(alive) = self.links.remove(&link) {
            self.alive -= 1;
            if let Some(here) = self.links_on.get_mut(&device_key(&alive.target)) {
                here.remove(&link);
            }
        }
        is_listed
    }

    /// As [`Self::forget_listed_link`], for what is no link.
    pub(crate) fn forget_listed(&mut self, event: &AttachEvent, hook: &Hooked) {
        if !self.is_early(event.time_ns) {
            return;
        }
        let Some(here) = self.others.get_mut(&device_key(&event.target)) else { return };
        let is_it = |alive: &Alive| alive.is_old && alive.hook == *hook && alive.program.id == event.program.id;
        if let Some(at) = here.iter().position(is_it) {
            here.swap_remove(at);
            self.alive -= 1;
        }
    }

    /// The row of something that was attached before the book began and has ended: who ended it is all that is known.
    pub(crate) fn row_of_old(&mut self, alive: &Alive, link: Option<u32>) -> Option<usize> {
        let way = match (link, alive.hook.attach) {
            (Some(_), _) => AttachWay::Link,
            (None, Some(AttachType::Tc)) => AttachWay::Filter,
            (None, _) => AttachWay::Program,
        };
        let event = self.doer.about(alive);
        self.row(&event, alive.hook.clone(), way, "attached before".to_owned())
    }

    /// Something was attached, or the kernel refused that.
    pub(crate) fn attached(
        &mut self,
        event: &AttachEvent,
        hook: &Hooked,
        way: AttachWay,
        (link, instead): (Option<u32>, Option<u32>),
        detail: &str,
    ) {
        let verb = if instead.is_some() { LiveVerb::Replace } else { LiveVerb::Attach };
        let is_refused = event.refused.is_some();
        self.push(verb, event, hook, |step| LiveStep {
            way: Some(way),
            link: link.filter(|_| !is_refused),
            instead,
            detail: detail.to_owned(),
            ..step
        });
    }

    /// The program of a link was replaced.
    pub(crate) fn updated(&mut self, event: &AttachEvent, before: &Alive, link: u32) {
        let instead = Some(before.program.id).filter(|id| *id != 0);
        let hook = before.hook.clone();
        self.push(LiveVerb::Update, event, &hook, |step| LiveStep {
            way: Some(AttachWay::Link),
            link: Some(link),
            instead,
            ..step
        });
    }

    /// A link was pinned.
    pub(crate) fn pinned(&mut self, event: &AttachEvent, link: u32, path: &str) {
        let Some(alive) = self.links.get(&link).or_else(|| self.idle.get(&link)).filter(|_| self.steps.is_some())
        else {
            return;
        };
        let (hook, program, target) = (alive.hook.clone(), alive.program.clone(), alive.target.clone());
        let event = AttachEvent { program, target, ..event.clone() };
        let detail = format!("at {path}");
        self.push(LiveVerb::Pin, &event, &hook, |step| LiveStep { link: Some(link), detail, ..step });
    }

    /// A refusal about a link: where it is, if that is known.
    pub(crate) fn step_of_link(&mut self, verb: LiveVerb, event: &AttachEvent, link: u32) {
        let known = self.links.get(&link).filter(|_| self.steps.is_some());
        let (hook, target) = match known {
            Some(alive) => (alive.hook.clone(), alive.target.clone()),
            None => (Hooked { attach: None, name: "a link".to_owned() }, event.target.clone()),
        };
        self.step(verb, &AttachEvent { target, ..event.clone() }, &hook, Some(link).filter(|id| *id != 0));
    }

    /// A step without particulars.
    pub(crate) fn step(&mut self, verb: LiveVerb, event: &AttachEvent, hook: &Hooked, link: Option<u32>) {
        self.push(verb, event, hook, |step| LiveStep { link, ..step });
    }

    /// Something is attached no more.
    pub(crate) fn detached(&mut self, alive: &Alive, link: Option<u32>) {
        let event = self.doer.about(alive);
        self.step(LiveVerb::Detach, &event, &alive.hook, link);
    }

    fn push(&mut self, verb: LiveVerb, event: &AttachEvent, hook: &Hooked, with: impl FnOnce(LiveStep) -> LiveStep) {
        if self.steps.is_none() {
            return;
        }
        let step = with(LiveStep {
            at_ms: event.time_ns.saturating_sub(self.begin_ns.unwrap_or_default()) / 1_000_000,
            verb,
            place: self.place(&event.target, hook.clone()),
            way: None,
            program: event.program.name.clone(),
            prog_id: event.program.id,
            tag: hex(event.program.tag),
            instead: None,
            link: None,
            process: event.process.clone(),
            pid: event.pid,
            refused: event.refused.map(errno_name),
            detail: String::new(),
        });
        if let Some(steps) = &mut self.steps {
            steps.0.push(LiveLine::Step(Box::new(step)));
        }
    }
}
