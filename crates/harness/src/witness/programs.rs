//! Programs behind the descriptors of other processes. A process may close its program between two questions about it: what was learnt
//! before then answers what the kernel can no longer tell.

use super::calls::REMEMBERED;
use lab_witness::SeenProgram;
use std::collections::HashMap;

/// What was learnt of programs.
#[derive(Default)]
pub(super) struct ProgramsByDescriptor {
    /// By process and descriptor.
    held: HashMap<(u32, u32), SeenProgram>,
    /// By id.
    ids: HashMap<u32, SeenProgram>,
}

impl ProgramsByDescriptor {
    /// A call made a descriptor: `now` is the program that it holds by now, `loaded` the name that a program was loaded by.
    pub fn made(&mut self, at: (u32, u32), now: Option<SeenProgram>, loaded: Option<String>) {
        let program = match (now.map(|program| self.named(program)), loaded) {
            // Its name can't be read any longer.
            (Some(now), Some(name)) if now.name.is_empty() => SeenProgram { name, ..now },
            // Loaded and closed: the descriptor holds another program by now.
            (Some(now), Some(name)) if now.name != name => SeenProgram { name, ..SeenProgram::default() },
            (Some(now), _) => now,
            (None, Some(name)) => SeenProgram { name, ..SeenProgram::default() },
            (None, None) => return,
        };
        if self.ids.len() < REMEMBERED && program.id != 0 && !program.name.is_empty() {
            self.ids.insert(program.id, program.clone());
        }
        if self.held.len() < REMEMBERED {
            self.held.insert(at, program);
        }
    }

    /// The program behind a descriptor, of which the kernel tells `now`.
    pub fn behind(&self, at: (u32, u32), now: Option<SeenProgram>) -> Option<SeenProgram> {
        now.map(|program| self.named(program)).or_else(|| self.held.get(&at).cloned())
    }

    /// The program with what was learnt of it, if the kernel knows no more than its id.
    pub fn named(&self, program: SeenProgram) -> SeenProgram {
        match self.ids.get(&program.id) {
            Some(learnt) if program.name.is_empty() && [[0; 8], learnt.tag].contains(&program.tag) => learnt.clone(),
            _ => program,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ProgramsByDescriptor, SeenProgram};

    const AT: (u32, u32) = (181, 5);

    fn program(id: u32, name: &str) -> SeenProgram {
        SeenProgram { id, name: name.to_owned(), ..SeenProgram::default() }
    }

    fn loaded(now: Option<SeenProgram>, name: &str) -> ProgramsByDescriptor {
        let mut programs = ProgramsByDescriptor::default();
        programs.made(AT, now, Some(name.to_owned()));
        programs
    }

    /// At each moment that the process may close its descriptor, the name is the one that the program was loaded by.
    #[test]
    fn a_program_has_its_name_whenever_it_is_closed() {
        let known = program(13, "minimal");
        // While it is loaded: before its id is read, between its id and its name, after both.
        for (now, expected) in [
            (None, program(0, "minimal")),
            (Some(program(13, "")), known.clone()),
            (Some(known.clone()), known.clone()),
        ] {
            assert_eq!(loaded(now, "minimal").behind(AT, None), Some(expected));
        }
        // While it is attached.
        let programs = loaded(Some(program(13, "")), "minimal");
        for now in [None, Some(program(13, "")), Some(known.clone())] {
            assert_eq!(programs.behind(AT, now), Some(known.clone()));
        }
        // By its id alone, which is all that a filter's notice has.
        assert_eq!(programs.named(program(13, "")), known);
        assert_eq!(programs.named(program(14, "")), program(14, ""));
    }

    /// A descriptor that holds another program by now says nothing of the one that was loaded.
    #[test]
    fn a_descriptor_that_was_made_again_names_no_program_before_it() {
        let programs = loaded(Some(program(14, "later")), "minimal");
        assert_eq!(programs.behind(AT, None), Some(program(0, "minimal")));
        assert_eq!(programs.named(program(14, "")), program(14, ""));
    }

    /// An id can be given again.
    #[test]
    fn a_tag_of_another_program_takes_no_name() {
        let mut programs = ProgramsByDescriptor::default();
        programs.made(AT, Some(SeenProgram { tag: [1; 8], ..program(13, "minimal") }), None);
        let other = SeenProgram { tag: [2; 8], ..program(13, "") };
        assert_eq!(programs.named(other.clone()), other);
    }
}
