//! Output of any bytes: `docs/fuzzing.md`.

use crate::{
    Conclusion, ProgramExit, SuiteDialect, SuiteOutput,
    account::{MAX_DEPTH, MAX_FAULTS, MAX_OUTPUT, MAX_REASON, MAX_RESULTS},
    conclude,
};
use std::collections::BTreeSet;

#[test]
fn outputs() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let Some((first, rest)) = bytes.split_first() else { return };
        let dialect = SuiteDialect::ALL[usize::from(*first) % SuiteDialect::ALL.len()];
        let mut reading = SuiteOutput::new(dialect);
        rest.chunks(11).for_each(|piece| reading.feed(piece));
        let account = reading.end();
        assert!(account.results.len() <= MAX_RESULTS && account.faults.len() <= MAX_FAULTS);
        let names: BTreeSet<&[String]> = account.results.iter().map(|result| &*result.path).collect();
        assert_eq!(names.len(), account.results.len(), "no name occurs twice");
        for result in &account.results {
            assert!(!result.path.is_empty() && result.path.len() <= MAX_DEPTH);
            let line = result.full_name(dialect.separator());
            for text in [&line, &result.reason, &result.class, &result.file] {
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
            // With the mark of what was cut.
            assert!(result.reason.chars().count() <= MAX_REASON + 1 && result.output.len() <= MAX_OUTPUT, "{result:?}");
        }
        let failed = account.first_bad().is_some() || !account.faults.is_empty();
        let told = conclude(dialect, &account, ProgramExit::Exited(0));
        assert!(!failed || !matches!(told, Conclusion::Passed | Conclusion::Skipped(_)), "{told:?}");
        assert!(!matches!(conclude(dialect, &account, ProgramExit::Exited(1)), Conclusion::Passed));
    });
}
