//! Results of a search, written to disk after every run: an interrupted search continues, and a repeated one neither
//! tests nor builds anything again.

use super::{
    predicate::Signature,
    trial::{Answer, NoKernel, SearchStop, Subject, Trial},
};
use crate::error::Error;
use lab_report::results::directory;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Version of the file format; other versions are refused.
const VERSION: u32 = 1;
const FILE: &str = "state.json";
/// Maximum size of the file, bytes.
const MOST: u64 = 64 << 20;

/// Content of the state file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    version: u32,
    /// The question as text, for readers of the file.
    pub question: String,
    /// Identity of the failure.
    pub signatures: Vec<Signature>,
    /// Evidence of the first failure: splat or failed check.
    pub evidence: Option<String>,
    /// Programs that produced the results.
    pub environment: Vec<(String, String)>,
    /// The image of each subject, or why it has none.
    images: Vec<(Subject, Result<String, NoKernel>)>,
    /// Results by image, in order.
    answers: BTreeMap<String, Vec<Answer>>,
}

/// The state of a search, with its file.
#[derive(Debug)]
pub struct SearchState {
    pub memory: Memory,
    path: PathBuf,
}

impl SearchState {
    /// Opens the state in an existing directory, or creates it.
    ///
    /// # Errors
    /// The file is damaged, of another version, or can't be read.
    pub fn open(directory: &Path, question: &str) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let fresh = || Memory { version: VERSION, question: question.to_owned(), ..Memory::default() };
        let memory = match lab_guard::bounded::file(&path, MOST) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => fresh(),
            Err(error) => return Err(Error::file("read", path)(error)),
            Ok(bytes) => match serde_json::from_slice::<Memory>(&bytes) {
                Ok(memory) if memory.version == VERSION => memory,
                Ok(memory) => return Err(unusable(&path, &format!("has the unsupported version {}", memory.version))),
                Err(error) => return Err(unusable(&path, &lab_base::text::reason(&error))),
            },
        };
        Ok(Self { memory, path })
    }

    /// Removes the state of earlier searches from a directory.
    ///
    /// # Errors
    /// The file can't be removed.
    pub fn forget(directory: &Path) -> Result<(), Error> {
        let path = directory.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// Number of recorded runs.
    pub fn runs(&self) -> usize {
        self.memory.answers.values().map(Vec::len).sum()
    }

    fn save(&self) -> Result<(), SearchStop> {
        let bytes = serde_json::to_vec_pretty(&self.memory).map_err(|error| SearchStop::Trouble(error.to_string()))?;
        directory::replace(&self.path, &bytes).map_err(|error| SearchStop::Trouble(error.to_string()))
    }
}

fn unusable(path: &Path, problem: &str) -> Error {
    Error::Usage(format!("{}: {problem}: use --fresh to start again", path.display()))
}

/// A bench that can learn the failure's identity.
pub trait Learning: Trial {
    /// The identity and the evidence of the failure.
    fn lesson(&mut self) -> &mut Lesson;
}

/// The identity of the failure.
#[derive(Debug, Clone, Default)]
pub struct Lesson {
    pub signatures: Vec<Signature>,
    /// Splat or failed check of the first failure.
    pub evidence: Option<String>,
    /// Programs that produce the results.
    pub environment: Vec<(String, String)>,
}

/// A bench that records its results.
pub struct Remembering<'a, B> {
    inner: &'a mut B,
    state: &'a mut SearchState,
    /// Subjects that the inner bench has prepared.
    ready: Vec<Subject>,
    /// Number of results that were already returned, by image.
    given: BTreeMap<String, usize>,
}

impl<'a, B: Learning> Remembering<'a, B> {
    /// Continues from a state.
    pub fn new(inner: &'a mut B, state: &'a mut SearchState) -> Self {
        let Memory { signatures, evidence, environment, .. } = state.memory.clone();
        *inner.lesson() = Lesson { signatures, evidence, environment };
        Self { inner, state, ready: Vec::new(), given: BTreeMap::new() }
    }

    fn known(&self, subject: Subject) -> Option<&Result<String, NoKernel>> {
        self.state.memory.images.iter().find(|(it, _)| *it == subject).map(|(_, image)| image)
    }

    fn fresh(&mut self, subject: Subject) -> Result<Result<String, NoKernel>, SearchStop> {
        let image = self.inner.prepare(subject)?;
        self.ready.push(subject);
        Ok(image)
    }
}

impl<B: Learning> Trial for Remembering<'_, B> {
    fn prepare(&mut self, subject: Subject) -> Result<Result<String, NoKernel>, SearchStop> {
        if let Some(known) = self.known(subject) {
            return Ok(known.clone());
        }
        let image = self.fresh(subject)?;
        self.state.memory.images.push((subject, image.clone()));
        self.state.save()?;
        Ok(image)
    }

    fn run(&mut self, subject: Subject) -> Result<Answer, SearchStop> {
        let Some(Ok(image)) = self.known(subject).cloned() else {
            return Err(SearchStop::Trouble(format!("{subject:?} has no kernel to run")));
        };
        let given = self.given.entry(image.clone()).or_default();
        if let Some(answer) = self.state.memory.answers.get(&image).and_then(|answers| answers.get(*given)) {
            *given += 1;
            return Ok(answer.clone());
        }
        if !self.ready.contains(&subject) && self.fresh(subject)?.as_ref() != Ok(&image) {
            let why = format!(
                "{subject:?} has a different kernel than at the start of the search: use --fresh to start again"
            );
            return Err(SearchStop::Trouble(why));
        }
        let answer = self.inner.run(subject)?;
        let Lesson { signatures, evidence, environment } = self.inner.lesson().clone();
        let memory = &mut self.state.memory;
        (memory.signatures, memory.evidence, memory.environment) = (signatures, evidence, environment);
        memory.answers.entry(image.clone()).or_default().push(answer.clone());
        *self.given.entry(image).or_default() += 1;
        self.state.save()?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counting {
        prepared: u32,
        run: u32,
        lesson: Lesson,
    }

    impl Learning for Counting {
        fn lesson(&mut self) -> &mut Lesson {
            &mut self.lesson
        }
    }

    impl Trial for Counting {
        fn prepare(&mut self, subject: Subject) -> Result<Result<String, NoKernel>, SearchStop> {
            self.prepared += 1;
            Ok(if subject == Subject::Point(2) {
                Err(NoKernel("does not build".to_owned()))
            } else {
                Ok("image".to_owned())
            })
        }

        fn run(&mut self, _subject: Subject) -> Result<Answer, SearchStop> {
            self.run += 1;
            if self.run == 3 {
                return Err(SearchStop::Interrupted(2));
            }
            Ok(Answer::Fails { symptom: self.run.to_string() })
        }
    }

    #[test]
    fn recorded_results_are_neither_run_nor_built_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Counting::default();
        let mut state = SearchState::open(dir.path(), "q").unwrap();
        let mut bench = Remembering::new(&mut first, &mut state);
        assert!(bench.prepare(Subject::Point(1)).unwrap().is_ok());
        assert!(bench.prepare(Subject::Point(2)).unwrap().is_err());
        let answers = [bench.run(Subject::Point(1)), bench.run(Subject::Point(1))];
        assert_eq!(bench.run(Subject::Point(1)), Err(SearchStop::Interrupted(2)));

        let mut second = Counting { run: 5, ..Counting::default() };
        let mut state = SearchState::open(dir.path(), "q").unwrap();
        assert_eq!(state.runs(), 2);
        let mut bench = Remembering::new(&mut second, &mut state);
        assert!(bench.prepare(Subject::Point(1)).unwrap().is_ok());
        assert!(bench.prepare(Subject::Point(2)).unwrap().is_err());
        assert_eq!([bench.run(Subject::Point(1)), bench.run(Subject::Point(1))], answers);
        assert_eq!((second.prepared, second.run), (0, 5), "nothing was prepared or run");
        let mut state = SearchState::open(dir.path(), "q").unwrap();
        let mut bench = Remembering::new(&mut second, &mut state);
        for _ in 0..3 {
            bench.run(Subject::Point(1)).unwrap();
        }
        assert_eq!((second.prepared, second.run), (1, 6), "only the third run is new");
    }

    #[test]
    fn an_error_about_a_damaged_state_names_file_and_fix() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        let error = SearchState::open(dir.path(), "q").unwrap_err().to_string();
        assert!(error.contains("state.json: EOF") && error.ends_with("use --fresh to start again"), "{error}");
    }
}
