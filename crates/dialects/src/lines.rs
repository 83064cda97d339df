//! What the readers of all dialects have in common.

use crate::SuiteAccount;

/// Reads the lines of one dialect.
pub trait ReadLines {
    /// A line, without its end.
    fn line(&mut self, line: &str, account: &mut SuiteAccount);

    /// The stream has ended.
    fn end(&mut self, account: &mut SuiteAccount);
}
