//! Splats: the headers at the start of a log record, and where a splat ends.
//!
//! Both sides read the same words: the agent in the kernel log, of which it passes on complaints only, and the host on the
//! console, which is all that is left of a kernel that died. What is looked for are the kernel's own headers at the start
//! of a record, so that a case that merely logs the word "warning" is left alone.

mod class;
mod scan;

pub use class::SplatClass;
pub use scan::{CUT_HERE, MARK, MOST_LINES, record, scan};
